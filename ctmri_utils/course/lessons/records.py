"""Which lessons are up to date: each executed copy says of what it was made, and what it cost."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ...files import atomic_write
from ...machine import PACKAGE, data_folder, hardware

# Where the record stands in a copy's metadata. Papermill begins a copy without it, so that a
# lesson that was stopped has none.
KEY = "ctmri"


@dataclass(frozen=True)
class Record:
    """What a finished lesson leaves in its executed copy.

    Args:
        state: the digest of all that the lesson depends on.
        profile: the lesson's PROFILE.
        minutes: how long it ran.
        peak_gb: the most memory that it took.
        hardware: on what it ran, as `machine.hardware` says.
        finished: seconds since 1970.
    """

    state: str
    profile: str
    minutes: float
    peak_gb: float
    hardware: str
    finished: float


def read_record(copy: Path) -> Record | None:
    """The record of an executed copy; None if it was stopped, is missing or cannot be read."""
    try:
        metadata = json.loads(copy.read_text(encoding="utf-8"))["metadata"]
        return Record(**metadata[KEY])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def write_record(copy: Path, state: str, profile: str, minutes: float, peak_gb: float) -> None:
    """Say in an executed copy that the lesson is finished."""
    notebook = json.loads(copy.read_text(encoding="utf-8"))
    record = Record(state, profile, minutes, peak_gb, hardware(), finished=time.time())
    notebook["metadata"][KEY] = asdict(record)
    with atomic_write(copy) as path:
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")


def outdated(
    lessons: list[Path], course: list[Path], build: Path, states: dict[Path, str]
) -> list[Path]:
    """The lessons to run: the first that is not up to date, and all after it.

    Lessons build on each other, so one is up to date only if it was finished after those before it.

    Args:
        lessons: those asked for, in order.
        course: all lessons, in order.
        build: where the executed copies lie.
        states: the `lesson_state` of each lesson asked for.
    """
    latest = 0.0
    for lesson in course:
        record = read_record(build / lesson.name)
        if lesson in lessons:
            is_current = record and record.state == states[lesson] and record.finished >= latest
            if not is_current:
                return lessons[lessons.index(lesson) :]
        if record:
            latest = max(latest, record.finished)
    return []


def lesson_state(lesson: Path, parameters: dict, sources: str) -> str:
    """The digest of a lesson, its parameters, and the `sources_state` of what it uses."""
    parts = (lesson.read_bytes(), json.dumps(parameters, sort_keys=True).encode(), sources.encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def sources_state(dataset: str | None) -> str:
    """The digest of the package, of the data that come along, and of a folder of the user's own.

    Args:
        dataset: the lessons' DATASET, if it was given.
    """
    data = data_folder()
    folders = [PACKAGE, *(data / name for name in ("atlas", "scans", "weights", "studies"))]
    if dataset and Path(dataset).is_dir():
        folders.append(Path(dataset))

    digest = hashlib.sha256()
    for path in files_of(folders):
        digest.update(f"{path}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def files_of(folders: Iterable[Path]) -> list[Path]:
    """All files of some folders, in order, without Python's caches."""
    files = set()
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                files.add(path)
    return sorted(files)

"""Run the lessons in order, as a reader would."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ...machine import CHECKOUT, build_folder, import_optional
from ...scans.datasets import existing_folder
from ...settings import DATASETS, settings_for
from ...viewers.progress import PROGRESS_FILE
from ..kernels import kernel_environment, memory_of_children
from .records import lesson_state, outdated, read_record, sources_state, write_record
from .time_left import TimeLeft, estimate, rewrite, span, training_left


class LessonFailed(ChildProcessError):
    """A lesson stopped; the message names the lesson, the cell and the file to read."""


@dataclass(frozen=True)
class ExecutedLesson:
    """One lesson that ran, now or before: its executed copy, and what it cost."""

    notebook: Path
    minutes: float
    peak_gb: float
    up_to_date: bool = False


def run_course(
    profile: str = "laptop",
    build: Path | None = None,
    lessons: list[int] | None = None,
    parameters: dict | None = None,
    notebooks: Path | None = None,
    again: bool = False,
) -> list[ExecutedLesson]:
    """Execute the lessons in order, and keep the executed copies.

    Leaves build/NN_name.ipynb, of which `build_site` makes pages. Runs and checkpoints land in
    build/runs. Wrong arguments are refused before the first lesson starts. A lesson that is
    finished is not run again until it, one before it, its parameters, the package or the data
    change; so after an error or Ctrl-C the same call goes on with the unfinished lesson.

    Args:
        profile: the lessons' PROFILE.
        build: by default `build_folder()`.
        lessons: their numbers; by default all.
        parameters: further papermill parameters, given to every lesson.
        notebooks: the folder of the lessons; by default that of the checkout.
        again: run what is up to date, too.

    Raises:
        ValueError: an unknown profile, lesson or parameter.
        FileNotFoundError: there are no lessons.
        ModuleNotFoundError: the extra `course` is not installed.
        LessonFailed: a cell failed; the copy so far is kept.
    """
    settings_for(profile)
    build = Path(build or build_folder()).resolve()
    notebooks = Path(notebooks or (CHECKOUT or Path.cwd()) / "notebooks").resolve()
    parameters = {"PROFILE": profile, **(parameters or {})}
    files = find_lessons(notebooks, lessons)
    for file in files:
        check_parameters(file, parameters)

    build.mkdir(parents=True, exist_ok=True)
    sources = sources_state(parameters.get("DATASET"))
    states = {file: lesson_state(file, parameters, sources) for file in files}
    waiting = files if again else outdated(files, find_lessons(notebooks), build, states)
    records = {file.stem: read_record(build / file.name) for file in files}
    time_left = TimeLeft(profile, [file.stem for file in waiting], records)
    duration = estimate(time_left.minutes(), "in all") if waiting else ""
    print(f"{len(waiting)} of {len(files)} lessons to run{duration}", flush=True)

    executed = []
    for file in files:
        if file in waiting:
            lesson = run_lesson(file, build, parameters, time_left)
            write_record(lesson.notebook, states[file], profile, lesson.minutes, lesson.peak_gb)
        else:
            record = records[file.stem]
            lesson = ExecutedLesson(build / file.name, record.minutes, record.peak_gb, True)
        executed.append(lesson)
        print(line_of(lesson, time_left), flush=True)
    return executed


def line_of(lesson: ExecutedLesson, time_left: TimeLeft) -> str:
    """What is printed about a finished lesson."""
    name = lesson.notebook.stem
    cost = f"{lesson.minutes:.1f} min, at most {lesson.peak_gb:.1f} GB"
    if lesson.up_to_date:
        return f"{name}: up to date (took {cost})"
    return f"{name}: {cost}{estimate(time_left.minutes(), 'left') if time_left.waiting else ''}"


def find_lessons(notebooks: Path, numbers: list[int] | None = None) -> list[Path]:
    """The files NN_name.ipynb of a folder in order, or only those with the given numbers.

    Raises:
        FileNotFoundError: there are no lessons.
        ValueError: there is no lesson of some number.
    """
    files = sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))
    known = [int(file.name[:2]) for file in files]
    if not files:
        raise FileNotFoundError(
            f"{notebooks} holds no lessons (looked for NN_name.ipynb): run this from a clone of "
            "the repository"
        )
    if not numbers:
        return files

    for number in numbers:
        if number not in known:
            raise ValueError(
                f"there is no lesson {number} in {notebooks}: choose from "
                f"{', '.join(map(str, known))}"
            )
    return [file for number, file in zip(known, files) if number in numbers]


def check_parameters(lesson: Path, parameters: dict) -> None:
    """Raise ValueError unless the lesson has one `parameters` cell that knows every name.

    Papermill itself would only log it.
    """
    papermill = import_optional("papermill")
    cells = papermill.iorw.load_notebook_node(str(lesson)).cells
    tagged = sum("parameters" in cell.metadata.get("tags", []) for cell in cells)
    if tagged != 1:
        raise ValueError(f"{lesson.name} has {tagged} cells tagged 'parameters': tag exactly one")

    known = papermill.inspect_notebook(str(lesson))
    for name in parameters:
        if name not in known:
            raise ValueError(
                f"{lesson.name} has no parameter {name!r}: it knows {', '.join(sorted(known))}"
            )


def run_lesson(lesson: Path, build: Path, parameters: dict, time_left: TimeLeft) -> ExecutedLesson:
    """Execute one lesson with this very Python as its kernel; see `run_course`."""
    papermill = import_optional("papermill")
    nbclient = import_optional("nbclient")
    target = build / lesson.name
    started = time.perf_counter()

    # Silence both loggers: of a kernel that was interrupted or died, the errors below say the same.
    for logger in ("asyncio", "papermill"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    try:
        with TemporaryDirectory() as folder:
            progress = Path(folder, "progress.json")
            with (
                kernel_environment(build, **{PROGRESS_FILE: str(progress)}),
                watched(lesson.stem, time_left, progress) as memory_gb,
            ):
                papermill.execute_notebook(
                    str(lesson),
                    str(target),
                    parameters,
                    kernel_name="python3",
                    cwd=str(build),
                    progress_bar=False,
                    start_timeout=180,
                    # At a lower level, the kernel would report on TCP and on its own shutdown.
                    extra_arguments=["--IPKernelApp.log_level=50"],
                )
    except papermill.PapermillExecutionError as error:
        raise LessonFailed(failed_cell(lesson, target, error)) from error
    except nbclient.exceptions.DeadKernelError as error:
        raise LessonFailed(
            f"{lesson.stem} stopped because its kernel died, usually because memory ran out "
            f"({target} shows all that ran): close other programs and repeat the command, which "
            "resumes with this lesson"
        ) from error

    minutes = (time.perf_counter() - started) / 60
    time_left.finish(lesson.stem, minutes)
    return ExecutedLesson(target, minutes, max(memory_gb))


def failed_cell(lesson: Path, target: Path, error) -> str:
    """One sentence on the cell that papermill says has failed."""
    first_line = error.source.strip().splitlines()[0]
    lines = error.evalue.strip().splitlines()
    message = lines[0] if lines else ""
    return (
        f"{lesson.stem} stopped in cell [{error.exec_count}] `{first_line}` with {error.ename}: "
        f"{message} ({target} shows all that ran): correct it and repeat the command, which "
        "resumes with this lesson"
    )


@contextmanager
def watched(
    name: str, time_left: TimeLeft, progress: Path, every_s: float = 0.2
) -> Iterator[list[float]]:
    """Sample the memory of all processes below this one, and say how long they still need.

    Args:
        name: of the lesson.
        time_left: of the course.
        progress: the file in which the lesson's kernel says how far its training is.
        every_s: seconds between two samples.

    Yields:
        A list that fills with samples of their resident memory, in GB.
    """
    finished = threading.Event()
    samples = [0.0]
    started = time.perf_counter()

    def watch():
        while not finished.wait(every_s):
            elapsed = (time.perf_counter() - started) / 60
            training, minutes = training_left(progress)
            course = estimate(time_left.minutes(elapsed, minutes), "left in all")
            rewrite(f"{name}: {span(elapsed)} so far{training}{course}")
            samples.append(memory_of_children(os.getpid()))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        finished.set()
        thread.join()
        rewrite("")


def dataset_parameter(dataset: str) -> str:
    """The lessons' DATASET: a name, or a folder's full path, as they run in the build folder."""
    if dataset in DATASETS:
        return dataset
    return str(existing_folder(dataset).resolve())

"""The files that were handed in, out of folders and zips, and what their names say."""

from __future__ import annotations

import re
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path, PurePosixPath

DEEPEST_ZIP = 3
ZIP_MB, ZIP_FILES = 500, 5000

# Files of systems, which no student hands in.
CLUTTER = re.compile(
    r"(^|/)(__MACOSX|__pycache__|\..*|Thumbs\.db|desktop\.ini)(/|$)|\.pyc$", flags=re.I
)

# Beside the students' folders these are class lists.
SHEET = re.compile(r"\.(csv|xlsx|ods)$", flags=re.I)

# Names that learning systems give to files and folders.
MOODLE = re.compile(r"(?P<name>.+?)_(?P<user>\d+)_assignsubmission_[a-z]+")
CANVAS = re.compile(r"(?P<name>.+?)_(?P<late>late_)?(?P<user>\d+)_(?P<file>\d+)_?$", flags=re.I)
CANVAS_RENAMED = re.compile(
    r"(?P<name>.+?)_(?P<late>late_)?(?P<user>\d{3,})_(?P<file>\d{3,})_(?P<rest>.+)$", flags=re.I
)
COPY = re.compile(r"(^|(?<=_))(copy of|kopie von|copie de|copia de)[\s_]+", flags=re.I)


@dataclass(frozen=True)
class HandedInFile:
    """A file that a student may have handed in.

    Attributes:
        parts: of its path; zips count as folders.
        data: what it holds.
        modified: when it was changed last, in seconds.
        problem: why it cannot be read, "" if it can.
    """

    parts: tuple[str, ...]
    data: bytes = b""
    modified: float = 0.0
    problem: str = ""

    @property
    def path(self) -> str:
        return "/".join(self.parts)


# ---- files


def gather(place: Path) -> list[HandedInFile]:
    """All files in a folder or a zip, and those in zips inside, without systems' own files.

    Raises:
        ValueError: it is a file that is no zip.
    """
    place = Path(place)
    if place.is_file():
        files = unpack((), place.read_bytes())
        if files[0].parts == ("",):
            raise ValueError(f"{place} is {files[0].problem}: name a folder or a zip")
        return files

    files = []
    for path in sorted(place.rglob("*")):
        parts = path.relative_to(place).parts
        if CLUTTER.search("/".join(parts)):
            continue
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            # It might lead to the solutions.
            files.append(HandedInFile(parts, problem="a link, not the notebook"))
        elif path.is_dir():
            if not any(not CLUTTER.search(child.name) for child in path.iterdir()):
                files.append(HandedInFile((*parts, ""), problem="an empty folder"))
        elif path.stat().st_size > ZIP_MB << 20:
            files.append(HandedInFile(parts, problem=f"larger than {ZIP_MB} MB"))
        else:
            files += open_zip(parts, path.read_bytes(), path.stat().st_mtime)
    return files


@dataclass
class Room:
    """How much may still be unpacked from one student's zip and those inside of it."""

    megabytes: int = ZIP_MB
    files: int = ZIP_FILES

    def take(self, entries: list[zipfile.ZipInfo]) -> None:
        """Take room for the files of a zip, or raise ValueError."""
        megabytes = sum(entry.file_size for entry in entries) >> 20
        if megabytes > self.megabytes or len(entries) > self.files:
            raise ValueError(f"{megabytes} MB, {len(entries)} files")
        self.megabytes -= megabytes
        self.files -= len(entries)


def open_zip(
    parts: tuple[str, ...], data: bytes, modified: float, depth: int = 0, room: Room | None = None
) -> list[HandedInFile]:
    """The files of a zip, or else the file itself."""
    if not zipfile.is_zipfile(BytesIO(data)) or is_office_document(parts[-1]):
        return [HandedInFile(parts, data, modified)]
    if depth == DEEPEST_ZIP:
        return [HandedInFile(parts, problem="an archive nested too deeply", modified=modified)]
    return unpack((*parts[:-1], stem(parts[-1])), data, depth, room or Room())


def unpack(
    folder: tuple[str, ...], data: bytes, depth: int = 0, room: Room | None = None
) -> list[HandedInFile]:
    """The files of a zip, with `folder` in front of their names.

    A zip of the whole class has no `room` of its own, but each zip inside has.
    """
    files = []
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            (room or Room()).take(entries)
            for entry in entries:
                if not CLUTTER.search(entry.filename):
                    inner = PurePosixPath(entry.filename.replace("\\", "/")).parts
                    modified = time.mktime((*entry.date_time, 0, 0, -1))
                    content = archive.read(entry)
                    files += open_zip((*folder, *inner), content, modified, depth + 1, room)
    except Exception as error:
        # Any file at all may have been handed in.
        return [HandedInFile((*folder, ""), problem=f"an archive that cannot be opened ({error})")]
    return files or [HandedInFile((*folder, ""), problem="an empty archive")]


def is_office_document(name: str) -> bool:
    """Whether a file is a zip only inside."""
    return name.lower().endswith((".docx", ".xlsx", ".pptx", ".odt"))


def stem(name: str) -> str:
    """A file's name without its endings, such as .ipynb.txt."""
    return re.sub(r"(\.(ipynb|json|txt|html?|py|pdf|docx?|zip))+$", "", name, flags=re.I)


def without_wrappers(
    files: list[HandedInFile], names: list[str], is_student: Callable[[str], bool]
) -> list[HandedInFile]:
    """The files without folders around all of them that are no student's, and class lists."""
    files = without_class_lists(files)
    while is_wrapped(files, names, is_student):
        files = without_class_lists([replace(file, parts=file.parts[1:]) for file in files])
    return without_class_lists(without_downloads(files, names, is_student))


def is_wrapped(
    files: list[HandedInFile], names: list[str], is_student: Callable[[str], bool]
) -> bool:
    """Whether all files lie in one folder that is no student's own."""
    if not files or any(len(file.parts) == 1 for file in files):
        return False
    outer = {file.parts[0] for file in files}
    inner = {file.parts[1] for file in files}
    if len(outer) > 1 or is_student(*outer):
        return False

    # A folder of files or of one assignment may be a student's own.
    from_system = any(MOODLE.match(part) or CANVAS_RENAMED.match(part) for part in inner)
    if from_system or any(map(is_student, inner)):
        return True
    folders = all(len(file.parts) > 2 or SHEET.search(file.path) for file in files)
    people = [part for part in inner if split_name(part, names) is None]
    return folders and (len(people) > 1 or inner == outer)


def without_downloads(
    files: list[HandedInFile], names: list[str], is_student: Callable[[str], bool]
) -> list[HandedInFile]:
    """The files without the folders in which a learning system has packed them.

    There may be several, one for each assignment. All in such a folder has a name that the system
    gave it, with the number of a student.
    """
    inside = defaultdict(list)
    for file in files:
        for depth, part in enumerate(file.parts):
            if not SHEET.search(part):
                inside[file.parts[:depth]].append(part)

    def has_number(part: str) -> bool:
        return owner_in(stem(part), names)["user"] != ""

    downloads = set()
    for folder, parts in inside.items():
        is_packed = all(map(has_number, parts))
        if is_packed and not any(has_number(part) or is_student(part) for part in folder):
            downloads.add(folder)

    kept = []
    for file in files:
        folders = [file.parts[:depth] for depth in range(len(file.parts))]
        packed = [folder for folder in folders if folder in downloads]
        kept.append(replace(file, parts=file.parts[len(packed[0]) :]) if packed else file)
    return kept


def without_class_lists(files: list[HandedInFile]) -> list[HandedInFile]:
    """The files but for tables that lie in no folder."""
    return [file for file in files if len(file.parts) > 1 or not SHEET.search(file.path)]


# ---- names


def split_name(text: str, names: list[str]) -> tuple[str, str, str] | None:
    """Cut the name of an assignment out of a text.

    It is found in upper or lower case, with blanks or hyphens for underscores.

    Returns:
        What stands before it, the assignment, and what stands behind it; None if there is none.
    """
    for name in names:
        pattern = r"[\s_+.-]*".join(map(re.escape, name.split("_")))
        match = re.search(pattern, text, flags=re.I)
        if match:
            return text[: match.start()], name, text[match.end() :]
    return None


def owner_of(file: HandedInFile, names: list[str]) -> dict[str, str]:
    """What a file's path says of its owner; see `owner_in`."""
    parts = (*file.parts[:-1], stem(file.parts[-1]))
    owners = [owner_in(part, names) for part in parts]
    # A folder may be named after the assignment alone.
    return next((owner for owner in owners if owner["name"]), owners[-1])


def owner_in(text: str, names: list[str]) -> dict[str, str]:
    """What one name of a file or folder says of its owner: name, user, upload and late, or ""."""
    split = split_name(text, names)
    before = COPY.sub("", split[0] if split else text)
    match = MOODLE.match(text) or CANVAS.match(before)
    if not match and not split:
        match = CANVAS_RENAMED.match(text)
    found = match.groupdict() if match else {"name": before.strip(" _-")}
    return {
        "name": found["name"],
        "user": found.get("user", ""),
        "upload": found.get("file", ""),
        "late": "yes" if found.get("late") else "",
    }


def key_of(name: str) -> str:
    """A name fit for folders, for nbgrader's file patterns, and for a cell of a spreadsheet."""
    return re.sub(r"[^\w.@-]+", "_", name).strip("_.@-")


def attempt_of(file: HandedInFile, names: list[str]) -> int:
    """Which attempt a file is: Canvas adds -1 to the name of the second one."""
    split = split_name(stem(file.parts[-1]), names)
    match = re.match(r"-(\d+)", split[2]) if split else None
    return int(match[1]) + 1 if match else 1

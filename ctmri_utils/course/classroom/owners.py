"""Whose a file is: what the names of files and folders say of students and assignments."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

from .handed_in import HandedInFile, stem

# Class lists, which lie beside the students' folders.
CLASS_LIST = re.compile(r"\.(csv|xlsx|ods)$", flags=re.I)

# Names that learning systems give to files and folders.
MOODLE = re.compile(r"(?P<name>.+?)_(?P<user>\d+)_assignsubmission_[a-z]+")
CANVAS = re.compile(r"(?P<name>.+?)_(?P<late>late_)?(?P<user>\d+)_(?P<file>\d+)_?$", flags=re.I)
CANVAS_RENAMED = re.compile(
    r"(?P<name>.+?)_(?P<late>late_)?(?P<user>\d{3,})_(?P<file>\d{3,})_(?P<rest>.+)$", flags=re.I
)
COPY = re.compile(r"(^|(?<=_))(copy of|kopie von|copie de|copia de)[\s_]+", flags=re.I)


@dataclass(frozen=True)
class Owner:
    """What is known of the student who handed in a file; "" stands for what is not.

    Args:
        name: as a file or folder has it.
        user: the student's number in the learning system.
        upload: the number of the uploaded file in Canvas.
        late: "yes" if the learning system says so.
        key: the student's name for nbgrader, if there is a class list with the student.
    """

    name: str
    user: str = ""
    upload: str = ""
    late: str = ""
    key: str = ""


def split_name(text: str, assignments: list[str]) -> tuple[str, str, str] | None:
    """Cut the name of an assignment out of a text.

    It is found in upper or lower case, with blanks or hyphens for underscores.

    Returns:
        What stands before it, the assignment, and what stands behind it; None if there is none.
    """
    for name in assignments:
        pattern = r"[\s_+.-]*".join(map(re.escape, name.split("_")))
        match = re.search(pattern, text, flags=re.I)
        if match:
            return text[: match.start()], name, text[match.end() :]
    return None


def owner_of(file: HandedInFile, assignments: list[str]) -> Owner:
    """What a file's path says of its owner: its outermost part that names one."""
    parts = (*file.parts[:-1], stem(file.parts[-1]))
    owners = [owner_in(part, assignments) for part in parts]

    # A folder may be named after the assignment alone.
    return next((owner for owner in owners if owner.name), owners[-1])


def owner_in(text: str, assignments: list[str]) -> Owner:
    """What one name of a file or folder says of its owner."""
    split = split_name(text, assignments)
    before = COPY.sub("", split[0] if split else text)
    match = MOODLE.match(text) or CANVAS.match(before)
    if not match and not split:
        match = CANVAS_RENAMED.match(text)
    if not match:
        return Owner(before.strip(" _-"))

    fields = match.groupdict()
    late = "yes" if fields.get("late") else ""
    return Owner(fields["name"], fields["user"], fields.get("file", ""), late)


def key_of(name: str) -> str:
    """A name fit for folders, for nbgrader's file patterns, and for a cell of a spreadsheet."""
    return re.sub(r"[^\w.@-]+", "_", name).strip("_.@-")


def attempt_of(file: HandedInFile, assignments: list[str]) -> int:
    """Which attempt a file is: Canvas adds -1 to the name of the second one."""
    split = split_name(stem(file.parts[-1]), assignments)
    match = re.match(r"-(\d+)", split[2]) if split else None
    return int(match[1]) + 1 if match else 1


def without_wrappers(
    files: list[HandedInFile], assignments: list[str], is_student: Callable[[str], bool]
) -> list[HandedInFile]:
    """The files without class lists, and without folders around all of them that are no student's.

    Args:
        files: all that were found.
        assignments: their names.
        is_student: whether a name of a file or folder is that of a student in the class list.
    """
    files = without_class_lists(files)
    while is_wrapped(files, assignments, is_student):
        files = without_class_lists([replace(file, parts=file.parts[1:]) for file in files])
    return without_class_lists(without_downloads(files, assignments, is_student))


def is_wrapped(
    files: list[HandedInFile], assignments: list[str], is_student: Callable[[str], bool]
) -> bool:
    """Whether all files lie in one folder that is not a student's."""
    if not files or any(len(file.parts) == 1 for file in files):
        return False
    outer = {file.parts[0] for file in files}
    inner = {file.parts[1] for file in files}
    if len(outer) > 1 or is_student(*outer):
        return False

    # Names that a learning system gave, or that are in the class list, stand for students.
    if any(MOODLE.match(name) or CANVAS_RENAMED.match(name) or is_student(name) for name in inner):
        return True

    # A folder with files in it, or with nothing but folders of assignments, may be a student's.
    if any(len(file.parts) == 2 and not CLASS_LIST.search(file.path) for file in files):
        return False
    students = [name for name in inner if split_name(name, assignments) is None]
    return len(students) > 1 or inner == outer


def without_downloads(
    files: list[HandedInFile], assignments: list[str], is_student: Callable[[str], bool]
) -> list[HandedInFile]:
    """The files without the folders in which a learning system has packed them.

    There may be several, one for each assignment. All in such a folder has a name that the system
    gave it, with the number of a student.
    """

    def has_number(part: str) -> bool:
        return owner_in(stem(part), assignments).user != ""

    contents = defaultdict(list)
    for file in files:
        for depth, part in enumerate(file.parts):
            if not CLASS_LIST.search(part):
                contents[file.parts[:depth]].append(part)

    downloads = set()
    for folder, parts in contents.items():
        is_packed = all(map(has_number, parts))
        if is_packed and not any(has_number(part) or is_student(part) for part in folder):
            downloads.add(folder)

    unpacked = []
    for file in files:
        folders = [file.parts[:depth] for depth in range(len(file.parts))]
        download = next((folder for folder in folders if folder in downloads), ())
        unpacked.append(replace(file, parts=file.parts[len(download) :]))
    return unpacked


def without_class_lists(files: list[HandedInFile]) -> list[HandedInFile]:
    """The files but for tables that lie in no folder."""
    return [file for file in files if len(file.parts) > 1 or not CLASS_LIST.search(file.path)]

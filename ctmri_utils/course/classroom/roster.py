"""The class list: plain CSV, Canvas's gradebook or Moodle's grading worksheet."""

from __future__ import annotations

import csv
import itertools
import re
import unicodedata
from dataclasses import dataclass, replace
from pathlib import Path

from .notebook_files import decode
from .owners import Owner, key_of

# What the columns with a student's data may be called, compared as `squashed` texts.
COLUMNS = {
    "id": ("id", "studentid", "idnumber", "sisuserid", "identifier", "matriculationnumber"),
    "email": ("email", "emailaddress", "mail", "sisloginid"),
    "name": ("name", "fullname", "student", "studentname"),
    "first name": ("firstname", "givenname"),
    "last name": ("lastname", "surname", "familyname"),
}

# How the files of spreadsheets begin, new and old ones.
SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")

CANVAS_COLUMNS = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")


@dataclass(frozen=True)
class Student:
    """One student of the class.

    Args:
        key: the name that nbgrader knows.
        id, email, name: as the roster has them, "" if it has none.
        user: the number in the learning system, "" if the roster does not tell.
        late: "yes" if the roster says that the work was late.
        row: the student's row of the roster.
    """

    key: str
    id: str
    email: str
    name: str
    user: str
    late: str
    row: dict[str, str]


@dataclass(frozen=True)
class Roster:
    """A class list.

    Args:
        file: its name.
        kind: "plain", "canvas" or "moodle".
        columns: of the file, in order.
        students: {key: student}, in the file's order.
        unused: a sentence on the columns that a plain class list has in vain, "" if there is none.
    """

    file: str
    kind: str
    columns: list[str]
    students: dict[str, Student]
    unused: str = ""

    def knows(self, name: str) -> bool:
        """Whether a name of a file or folder is that of one student."""
        return self.find(name) is not None

    def find(self, name: str, user: str = "") -> Student | None:
        """The student with this number, id, address or name, if there is exactly one."""
        if user:
            for student in self.students.values():
                if student.user == user:
                    return student

        spelling = squashed(name)
        if not spelling:
            return None
        matches = [student for student in self.students.values() if spelling in spellings(student)]
        return matches[0] if len(matches) == 1 else None

    def completed(self, owner: Owner, parts: tuple[str, ...]) -> Owner:
        """The owner of a file, with what the roster knows of the student.

        Args:
            owner: what the file's path says.
            parts: of that path, by any of which the student may be known.
        """
        candidates = [owner.name, *parts, *re.split(r"[_\s]+", owner.name)]
        for candidate in candidates:
            student = self.find(candidate, owner.user)
            if student:
                return replace(owner, key=student.key, late=owner.late or student.late)
        return owner


def read_roster(path: Path) -> Roster:
    """Read a class list.

    Args:
        path: a CSV file with a column `id` or `email`, or both, and better also `name`; or what
            Canvas exports from its gradebook, or Moodle as grading worksheet of one assignment.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no class list, or it lists a student twice.
    """
    path = Path(path)
    data = path.read_bytes()
    if path.suffix.lower() in (".xlsx", ".xls", ".ods") or data.startswith(SPREADSHEETS):
        raise ValueError(f"{path} is a spreadsheet of Excel or the like: save it as CSV")

    text = decode(data)
    first_line = text.partition("\n")[0]
    delimiter = max(",;\t", key=first_line.count)
    table = csv.DictReader(text.splitlines(), delimiter=delimiter)
    columns = [column or "" for column in table.fieldnames or []]
    columns_of = known_columns(columns)
    if not columns_of["id"] and not columns_of["email"]:
        raise ValueError(
            f"{path} is not a class list, because it has no column id or email: rename "
            f"one of its columns, {', '.join(columns)}"
        )

    kind = "plain"
    if {"Student", "ID", "Section"} <= set(columns):
        kind = "canvas"
    elif {"Identifier", "Grade"} <= set(columns):
        kind = "moodle"

    students = {}
    for row in table:
        if kind == "canvas" and is_no_student(row):
            continue
        student = read_student(row, columns_of, kind)
        if student.key in students:
            raise ValueError(f"{path} lists {student.key} twice: remove one line")
        if student.key:
            students[student.key] = student
    unused = unused_columns(path.name, columns, columns_of) if kind == "plain" else ""
    return Roster(path.name, kind, columns, students, unused)


def known_columns(columns: list[str]) -> dict[str, list[str]]:
    """{"id", "email", ...: the columns that hold it, the better ones first}."""
    by_name = {squashed(column): column for column in columns}
    known = {}
    for field, names in COLUMNS.items():
        known[field] = [by_name[name] for name in names if name in by_name]
    return known


def unused_columns(file: str, columns: list[str], columns_of: dict[str, list[str]]) -> str:
    """A sentence on the columns that say nothing here, and on what is missing instead."""
    used = set(itertools.chain.from_iterable(columns_of.values()))
    unused = [column for column in columns if column not in used]
    if not unused:
        return ""
    text = f"{file}: columns not used: {', '.join(unused)}"
    has_name = columns_of["name"] or columns_of["first name"] or columns_of["last name"]
    missing = [field for field in ("id", "email") if not columns_of[field]]
    missing += [] if has_name else ["name"]
    return f"{text}; no column {' or '.join(missing)}" if missing else text


def is_no_student(row: dict[str, str]) -> bool:
    """Whether a row of Canvas's gradebook describes columns, or is a test student."""
    name = (row["Student"] or "").strip()
    return not name or name.startswith("Points Possible") or name == "Student, Test"


def read_student(row: dict[str, str], columns_of: dict[str, list[str]], kind: str) -> Student:
    """The student in one row."""

    def value(field: str) -> str:
        texts = [(row[column] or "").strip() for column in columns_of[field]]
        return next(filter(None, texts), "")

    number = value("id")
    email = value("email")
    name = value("name") or f"{value('first name')} {value('last name')}".strip()
    user = ""
    if kind == "canvas":
        number = row.get("SIS User ID") or row["ID"]
        user = row["ID"]
    elif kind == "moodle":
        # Moodle's Identifier only names the participation in one assignment.
        number = (row.get("ID number") or "").strip() or email or number
        user = re.sub(r"\D", "", row["Identifier"])

    late = "yes" if re.search(r"\blate\b", row.get("Status") or "") else ""
    return Student(key_of(number or email or name), number, email, name, user, late, row)


def squashed(text: str) -> str:
    """A text without case, accents, blanks and signs."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in plain if letter.isalnum())


def spellings(student: Student) -> set[str]:
    """All by which a student may be known, squashed."""
    first, _, last = student.name.partition(" ")
    if "," in student.name:
        last, _, first = student.name.partition(",")
    account = student.email.partition("@")[0]
    names = {student.name, f"{first} {last}", f"{last} {first}"}
    return {squashed(text) for text in {student.id, student.email, account, *names}} - {""}

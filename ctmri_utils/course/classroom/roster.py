"""The class list: plain CSV, Canvas's gradebook or Moodle's grading worksheet."""

from __future__ import annotations

import csv
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from .handed_in import key_of
from .notebook_files import decode

# What the columns with a student's data may be called, compared without case, blanks and signs.
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
class Person:
    """One student of the class.

    Attributes:
        key: the name that nbgrader knows.
        id, email, name: as the roster has them, "" if it has none.
        user: the number in the learning system, "" if the roster does not tell.
        late: "yes" if the roster says that the work was late.
        row: the person's row of the roster.
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

    Attributes:
        file: its name.
        kind: "plain", "canvas" or "moodle".
        columns: of the file, in order.
        people: {key: person}, in the file's order.
        unused: a sentence on the columns that a plain class list has in vain, "" if there is none.
    """

    file: str
    kind: str
    columns: list[str]
    people: dict[str, Person]
    unused: str = ""

    def knows(self, name: str) -> bool:
        """Whether a name of a file or folder is that of one student."""
        return self.find(name) is not None

    def find(self, name: str, user: str = "") -> Person | None:
        """The student with this number, id, address or name, if there is exactly one."""
        if user:
            for person in self.people.values():
                if person.user == user:
                    return person

        wanted = squashed(name)
        found = [person for person in self.people.values() if wanted in spellings(person)]
        return found[0] if wanted and len(found) == 1 else None

    def completed(self, owner: dict[str, str], parts: tuple[str, ...]) -> dict[str, str]:
        """What is known of a file's owner, with the student's key if the roster has the student."""
        candidates = [owner["name"], *parts, *re.split(r"[_\s]+", owner["name"])]
        for candidate in candidates:
            person = self.find(candidate, owner["user"])
            if person:
                return owner | {"key": person.key, "late": owner["late"] or person.late}
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
    known = known_columns(columns)
    if not known["id"] and not known["email"]:
        raise ValueError(
            f"{path} is not a class list, because it has no column id or email: rename "
            f"one of its columns, {', '.join(columns)}"
        )

    kind = "plain"
    if {"Student", "ID", "Section"} <= set(columns):
        kind = "canvas"
    elif {"Identifier", "Grade"} <= set(columns):
        kind = "moodle"

    people = {}
    for row in table:
        if kind == "canvas" and is_no_student(row):
            continue
        person = read_person(row, known, kind)
        if person.key in people:
            raise ValueError(f"{path} lists {person.key} twice: remove one line")
        if person.key:
            people[person.key] = person
    unused = unused_columns(path.name, columns, known) if kind == "plain" else ""
    return Roster(path.name, kind, columns, people, unused)


def known_columns(columns: list[str]) -> dict[str, list[str]]:
    """{"id", "email", ...: the columns that hold it, the better ones first}."""
    by_name = {squashed(column): column for column in columns}
    return {
        field: [by_name[name] for name in names if name in by_name]
        for field, names in COLUMNS.items()
    }


def unused_columns(file: str, columns: list[str], known: dict[str, list[str]]) -> str:
    """A sentence on the columns that say nothing here, and on what is missing instead."""
    used = {column for own in known.values() for column in own}
    unused = [column for column in columns if column not in used]
    if not unused:
        return ""
    text = f"{file}: columns not used: {', '.join(unused)}"
    has_name = known["name"] or known["first name"] or known["last name"]
    missing = [field for field in ("id", "email") if not known[field]]
    missing += [] if has_name else ["name"]
    return f"{text}; no column {' or '.join(missing)}" if missing else text


def is_no_student(row: dict[str, str]) -> bool:
    """Whether a row of Canvas's gradebook describes columns, or is a test student."""
    name = (row["Student"] or "").strip()
    return not name or name.startswith("Points Possible") or name == "Student, Test"


def read_person(row: dict[str, str], known: dict[str, list[str]], kind: str) -> Person:
    """The student in one row."""

    def value(field: str) -> str:
        texts = [(row[column] or "").strip() for column in known[field]]
        return next(filter(None, texts), "")

    student = value("id")
    email = value("email")
    name = value("name") or f"{value('first name')} {value('last name')}".strip()
    user = ""
    if kind == "canvas":
        student = row.get("SIS User ID") or row["ID"]
        user = row["ID"]
    elif kind == "moodle":
        # Its Identifier names the participation in one assignment.
        student = (row.get("ID number") or "").strip() or email or student
        user = re.sub(r"\D", "", row["Identifier"])

    late = "yes" if re.search(r"\blate\b", row.get("Status") or "") else ""
    return Person(key_of(student or email or name), student, email, name, user, late, row)


def squashed(text: str) -> str:
    """A text without case, accents, blanks and signs."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in plain if letter.isalnum())


def spellings(person: Person) -> set[str]:
    """All by which a student may be known, squashed."""
    first, _, last = person.name.partition(" ")
    if "," in person.name:
        last, _, first = person.name.partition(",")
    spellings = {person.id, person.email, person.email.partition("@")[0], person.name}
    spellings |= {f"{first} {last}", f"{last} {first}"}
    return {squashed(spelling) for spelling in spellings} - {""}

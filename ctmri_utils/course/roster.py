"""The class list: plain CSV, Canvas's gradebook or Moodle's grading worksheet."""

from __future__ import annotations

import csv
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from .handed_in import key_of
from .notebook_files import decode

# Names of columns, compared without case, blanks and signs.
ID = ("id", "studentid", "idnumber", "sisuserid", "identifier", "matriculationnumber")
EMAIL = ("email", "emailaddress", "mail", "sisloginid")
NAME = ("name", "fullname", "student", "studentname")
FIRST_NAME = ("firstname", "givenname")
LAST_NAME = ("lastname", "surname", "familyname")

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
    """

    file: str
    kind: str
    columns: list[str]
    people: dict[str, Person]

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
            person = self.find(candidate, owner.get("user", ""))
            if person:
                late = owner.get("late") or person.late
                return {**owner, "key": person.key, "late": late}
        return owner

    def unused_columns(self) -> str:
        """A sentence on the columns that a plain class list has in vain; "" if it has none."""
        known = {"id": ID, "email": EMAIL, "name": (*NAME, *FIRST_NAME, *LAST_NAME)}
        found = set()
        unused = []
        for column in self.columns:
            kinds = [kind for kind, spellings in known.items() if squashed(column) in spellings]
            found.update(kinds)
            if not kinds:
                unused.append(column)
        if self.kind != "plain" or not unused:
            return ""

        missing = [kind for kind in known if kind not in found]
        text = f"{self.file}: columns not used: {', '.join(unused)}"
        return f"{text}; no column {' or '.join(missing)}" if missing else text


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
    by_name = {squashed(column): column for column in columns}
    if not any(name in by_name for name in (*ID, *EMAIL)):
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
        person = read_person(row, by_name, kind)
        if person.key in people:
            raise ValueError(f"{path} lists {person.key} twice: remove one line")
        if person.key:
            people[person.key] = person
    return Roster(path.name, kind, columns, people)


def is_no_student(row: dict[str, str]) -> bool:
    """Whether a row of Canvas's gradebook describes columns, or is a test student."""
    name = (row["Student"] or "").strip()
    return not name or name.startswith("Points Possible") or name == "Student, Test"


def read_person(row: dict[str, str], by_name: dict[str, str], kind: str) -> Person:
    """The student in one row."""

    def value(names: tuple[str, ...]) -> str:
        for name in names:
            text = (row.get(by_name.get(name, ""), "") or "").strip()
            if text:
                return text
        return ""

    student = value(ID)
    user = ""
    if kind == "canvas":
        student = row.get("SIS User ID") or row["ID"]
        user = row["ID"]
    elif kind == "moodle":
        student = value(ID[2:3]) or value(EMAIL) or value(ID)
        user = re.sub(r"\D", "", row["Identifier"])

    name = value(NAME) or f"{value(FIRST_NAME)} {value(LAST_NAME)}".strip()
    email = value(EMAIL)
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

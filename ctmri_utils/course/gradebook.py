"""Tables of marks as Canvas and Moodle import them, and feedback for uploading in bulk.

Sources: Canvas, lib/gradebook_exporter.rb and gradebook_importer.rb (columns), content_zipper.rb
(names of files); Moodle, mod/assign/gradingtable.php and feedback/offline/importgradeslib.php
(columns), feedback/file/importziplib.php (names of folders). Both as of 2025.
"""

from __future__ import annotations

import csv
import re
import time
import zipfile
from pathlib import Path

from .roster import CANVAS_COLUMNS, Roster
from .submissions import NOTHING

FORMATS = ("csv", "canvas", "moodle")


def check_format(format: str, roster: Roster | None, assignments: list[str]) -> None:
    """Raise ValueError before anything is graded if the marks could not be written in the end."""
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}: choose from {', '.join(FORMATS)}")
    if format != "csv" and roster is None:
        raise ValueError(
            f"marks for {format} need the class list, which identifies the students: add "
            "--roster with its export, or a CSV file with columns id, email and name"
        )
    if format == "moodle" and roster.kind == "moodle" and len(assignments) > 1:
        raise ValueError(
            "a grading worksheet of Moodle belongs to one assignment, but these submissions are "
            f"of {' and '.join(assignments)}: grade one assignment at a time"
        )


def warn_of_new_columns(roster: Roster, assignments: list[str]) -> None:
    """Say which assignments Canvas would create, because its export has no column of that name."""
    columns = [column for column in roster.columns if re.search(r"\(\d+\)$", column)]
    for name in assignments:
        if canvas_title(name, roster) not in roster.columns:
            print(
                f"{roster.file} has no column {name}, so Canvas will create one; it has: "
                f"{', '.join(columns) or 'no assignment'}"
            )


def summary(rows: list[dict]) -> str:
    """How many rows there are, and of which kinds."""
    graded = sum(row["score"] != "" for row in rows)
    nothing = sum(row["note"] == NOTHING for row in rows)
    by_hand = sum(row["needs_manual_grade"] is True for row in rows)
    return (
        f"{len(rows)} rows: {graded} graded, {len(rows) - graded - nothing} not gradable, "
        f"{nothing} nothing handed in; {by_hand} with parts to be graded by hand"
    )


def write_marks(format: str, rows: list[dict], roster: Roster | None, output: Path) -> list[Path]:
    """Write the tables and zips of feedback that a learning system imports.

    Args:
        format: one of `FORMATS`; "csv" needs no more than grades.csv.
        rows: of grades.csv.
        roster: the class list.
        output: the folder with feedback/STUDENT/NAME.html.

    Returns:
        The files.
    """
    if format == "canvas":
        tables = [write_canvas(rows, roster, output / "canvas.csv")]
    elif format == "moodle":
        tables = write_moodle(rows, roster, output)
    else:
        return []
    return tables + zip_feedback(format, rows, roster, output)


def scores(rows: list[dict]) -> dict[tuple[str, str], str]:
    """{(student, assignment): points as text}, of all that has points."""
    return {
        (row["student"], row["assignment"]): f"{row['score']:g}"
        for row in rows
        if row["score"] != ""
    }


def lost_marks(rows: list[dict]) -> list[dict]:
    """The rows with points that no table for import has: their students are not in the list."""
    return [row for row in rows if row["score"] != "" and not row["listed"]]


def warn_of_lost_marks(rows: list[dict], roster: Roster, table: Path) -> None:
    """Say which points are missing in a table for import."""
    for row in lost_marks(rows):
        print(f"{row['student']} is not in {roster.file}: {row['score']} is not in {table.name}")


def write_canvas(rows: list[dict], roster: Roster, path: Path) -> Path:
    """Write a table for Canvas: Grades > Import.

    A student without a grade has an empty cell. An assignment that Canvas does not know is created
    by the import.
    """
    points = scores(rows)
    maxima = {}
    for row in rows:
        if row["assignment"]:
            maxima.setdefault(row["assignment"], "")
        if row["max_score"] != "":
            maxima[row["assignment"]] = f"{row['max_score']:g}"

    known = list(CANVAS_COLUMNS)
    if roster.kind == "canvas":
        known = roster.columns[: roster.columns.index("Section") + 1]
    titles = {name: canvas_title(name, roster) for name in sorted(maxima)}

    table = [[*known, *titles.values()]]
    blanks = [""] * (len(known) - 1)
    table.append(["    Points Possible", *blanks, *(maxima[name] for name in titles)])
    for person in roster.people.values():
        if roster.kind == "canvas":
            about = [person.row[column] for column in known]
        else:
            about = [person.name or person.email, "", person.id, person.email, ""]
        grades = []
        for name, title in titles.items():
            # An empty cell would delete the grade that Canvas has.
            before = person.row.get(title) or ""
            grades.append(points.get((person.key, name), before))
        table.append([*about, *grades])
    return write_rows(path, table)


def canvas_title(name: str, roster: Roster) -> str:
    """The column of an assignment: as Canvas has exported it, with its number, if it has."""
    for column in roster.columns:
        if name in column.replace(" ", "_"):
            return column
    return name


def write_moodle(rows: list[dict], roster: Roster, output: Path) -> list[Path]:
    """Write a table for Moodle.

    A grading worksheet is given back with its grades: Upload grading worksheet. Any other class
    list makes a table for Grades > Import > CSV file.
    """
    points = scores(rows)
    assignments = sorted({row["assignment"] for row in rows} - {""})
    if roster.kind != "moodle":
        table = [["ID number", "Email address", "Full name", *assignments]]
        for person in roster.people.values():
            grades = [points.get((person.key, name), "") for name in assignments]
            table.append([person.id, person.email, person.name, *grades])
        return [write_rows(output / "moodle.csv", table)]

    [name] = assignments
    now = time.strftime("%A, %d %B %Y, %I:%M %p")
    table = [roster.columns]
    for person in roster.people.values():
        row = dict(person.row)
        grade = points.get((person.key, name))
        if grade is not None:
            row |= {"Grade": grade, "Last modified (grade)": now}
        table.append([row[column] for column in roster.columns])
    return [write_rows(output / f"moodle-{name}.csv", table)]


def zip_feedback(format: str, rows: list[dict], roster: Roster, output: Path) -> list[Path]:
    """Zip the pages of feedback for each assignment, named as the system expects them."""
    zips = []
    for name in sorted({row["assignment"] for row in rows} - {""}):
        path = output / f"feedback-{format}-{name}.zip"
        pages = {}
        left_out = []
        for row in rows:
            if row["assignment"] == name and row["score"] != "":
                place = feedback_name(format, row, roster)
                if place:
                    pages[place] = output / "feedback" / row["student"] / f"{name}.html"
                else:
                    left_out.append(row["student"])
        if left_out:
            who = ", ".join(left_out) if pages else "everybody"
            print(
                f"not in {path.name}: {who}, because the names of the files do not carry the "
                f"numbers of {format.title()}"
            )
        if pages:
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for place, page in pages.items():
                    archive.write(page, place)
            zips.append(path)
    return zips


def feedback_name(format: str, row: dict, roster: Roster) -> str | None:
    """A page's name in the zip; None if the student's number is not known."""
    person = roster.people.get(row["student"])
    user = row["user"] or (person.user if person else "")
    name = re.sub(r"[_/\\]+", " ", person.name if person else row["student"]).strip()
    if format == "moodle" and user:
        return f"{name}_{user}_assignsubmission_file/{row['assignment']}.html"
    if format == "canvas" and user and row["upload"]:
        squashed = re.sub(r"\W+", "", name).lower()
        return f"{squashed}_{user}_{row['upload']}_{row['assignment']}.html"
    return None


def write_rows(path: Path, table: list[list[str]]) -> Path:
    """Write rows as CSV, in an encoding that all of them read."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(table)
    return path

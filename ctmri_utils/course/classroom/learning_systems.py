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

import pandas as pd

from .roster import CANVAS_COLUMNS, Roster
from .submissions import NOTHING

FORMATS = ("csv", "canvas", "moodle")


def check_format(format: str, roster: Roster | None, assignments: list[str]) -> None:
    """Raise ValueError before anything is graded if the marks could not be written in the end.

    Say which assignments Canvas would create, because its export has no column of that name.
    """
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
    if format == "canvas" and roster.kind == "canvas":
        columns = [column for column in roster.columns if re.search(r"\(\d+\)$", column)]
        for name in assignments:
            if canvas_title(name, roster) not in roster.columns:
                print(
                    f"{roster.file} has no column {name}, so Canvas will create one; it has: "
                    f"{', '.join(columns) or 'no assignment'}"
                )


def summary(grades: pd.DataFrame) -> str:
    """How many rows there are, and of which kinds."""
    graded = grades["score"].count()
    nothing = (grades["note"] == NOTHING).sum()
    return (
        f"{len(grades)} rows: {graded} graded, {len(grades) - graded - nothing} not gradable, "
        f"{nothing} nothing handed in; {to_be_marked(grades)} with parts to be graded by hand"
    )


def to_be_marked(grades: pd.DataFrame) -> int:
    """How many submissions have parts that are still to be graded by hand."""
    return int(grades["needs_manual_grade"].eq(True).sum())


def lost_marks(grades: pd.DataFrame, roster: Roster) -> pd.DataFrame:
    """The rows with points that no table for import has: their students are not in the list."""
    return grades[grades["score"].notna() & ~grades["student"].isin(roster.students)]


def write_marks(format: str, grades: pd.DataFrame, roster: Roster | None, output: Path) -> None:
    """Write the tables and zips of feedback that a learning system imports, and say what they lack.

    Args:
        format: one of `FORMATS`; "csv" needs no more than grades.csv.
        grades: the table that `grading.grade` returns.
        roster: the class list; None only for "csv".
        output: the folder with feedback/STUDENT/NAME.html.
    """
    if format == "csv":
        return
    if format == "canvas":
        table = write_canvas(grades, roster, output / "canvas.csv")
    else:
        table = write_moodle(grades, roster, output)
    for path in (table, *zip_feedback(format, grades, roster, output)):
        print(f"for {format}: {path}")
    for row in lost_marks(grades, roster).itertuples():
        print(f"{row.student} is not in {roster.file}: {row.score} is not in {table.name}")


def points_of(grades: pd.DataFrame, roster: Roster) -> pd.DataFrame:
    """Points as text, "" for none: a row for each student of the class, a column an assignment."""
    of_assignments = grades[grades["assignment"] != ""]
    points = of_assignments.pivot(index="student", columns="assignment", values="score")
    return points.reindex(list(roster.students)).map(as_text)


def as_text(points: float) -> str:
    """Points as a learning system reads them, "" for none."""
    return "" if pd.isna(points) else f"{points:g}"


def write_canvas(grades: pd.DataFrame, roster: Roster, path: Path) -> Path:
    """Write a table for Canvas: Grades > Import.

    A student without a grade has an empty cell. An assignment that Canvas does not know is created
    by the import.
    """
    students = roster.students.values()
    if roster.kind == "canvas":
        columns = roster.columns[: roster.columns.index("Section") + 1]
        rows = []
        for student in students:
            rows.append([student.row[column] for column in columns])
    else:
        columns = list(CANVAS_COLUMNS)
        rows = [
            [student.name or student.email, "", student.id, student.email, ""]
            for student in students
        ]

    points = points_of(grades, roster)
    maxima = grades.groupby("assignment")["max_score"].max()
    header = list(columns)
    possible = ["    Points Possible", *[""] * (len(columns) - 1)]
    for name in points:
        title = canvas_title(name, roster)
        header.append(title)
        possible.append(as_text(maxima[name]))
        for row, student in zip(rows, students):
            # An empty cell would delete the grade that Canvas has.
            row.append(points.at[student.key, name] or student.row.get(title) or "")
    return write_rows(path, [header, possible, *rows])


def canvas_title(name: str, roster: Roster) -> str:
    """The column of an assignment: as Canvas has exported it, with its number, if it has."""
    for column in roster.columns:
        if name in column.replace(" ", "_"):
            return column
    return name


def write_moodle(grades: pd.DataFrame, roster: Roster, output: Path) -> Path:
    """Write a table for Moodle.

    A grading worksheet is given back with its grades: Upload grading worksheet. Any other class
    list makes a table for Grades > Import > CSV file.
    """
    points = points_of(grades, roster)
    students = roster.students.values()
    if roster.kind != "moodle":
        header = ["ID number", "Email address", "Full name", *points]
        table = [
            [student.id, student.email, student.name, *points.loc[student.key]]
            for student in students
        ]
        return write_rows(output / "moodle.csv", [header, *table])

    [name] = points
    now = time.strftime("%A, %d %B %Y, %I:%M %p")
    table = []
    for student in students:
        row = dict(student.row)
        if points.at[student.key, name]:
            row |= {"Grade": points.at[student.key, name], "Last modified (grade)": now}
        table.append([row[column] for column in roster.columns])
    return write_rows(output / f"moodle-{name}.csv", [roster.columns, *table])


def zip_feedback(format: str, grades: pd.DataFrame, roster: Roster, output: Path) -> list[Path]:
    """Zip the pages of feedback for each assignment, named as the system expects them."""
    zips = []
    for name, graded in grades[grades["score"].notna()].groupby("assignment"):
        path = output / f"feedback-{format}-{name}.zip"
        pages = {}
        left_out = []
        for row in graded.itertuples():
            name_in_zip = feedback_name(format, row, roster)
            if name_in_zip:
                pages[name_in_zip] = output / "feedback" / row.student / f"{name}.html"
            else:
                left_out.append(row.student)
        if left_out:
            students = ", ".join(left_out) if pages else "everybody"
            print(
                f"not in {path.name}: {students}, because the names of the files do not carry the "
                f"numbers of {format.title()}"
            )
        if pages:
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for name_in_zip, page in pages.items():
                    archive.write(page, name_in_zip)
            zips.append(path)
    return zips


def feedback_name(format: str, row, roster: Roster) -> str | None:
    """A page's name in the zip; None if the student's number is not known."""
    student = roster.students.get(row.student)
    user = row.user or (student.user if student else "")
    full_name = student.name if student else row.student
    name = re.sub(r"[_/\\]+", " ", full_name).strip()
    if format == "moodle" and user:
        return f"{name}_{user}_assignsubmission_file/{row.assignment}.html"
    if format == "canvas" and user and row.upload:
        squashed = re.sub(r"\W+", "", name).lower()
        return f"{squashed}_{user}_{row.upload}_{row.assignment}.html"
    return None


def write_rows(path: Path, table: list[list[str]]) -> Path:
    """Write rows as CSV, in an encoding that all of them read."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(table)
    return path

"""Grade a folder of submissions, and write the tables, the feedback and the files for import.

The stages: generate -> collect -> mend -> changed_parts -> autograde -> keep_marked ->
generate_feedback -> read_scores -> write_marks.
"""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ...machine import build_folder, environment_variables
from .learning_systems import check_format, write_marks
from .marked_by_hand import changed_parts, keep_marked
from .mending import mend
from .nbgrader_course import first_error, generate, nbgrader_environment, open_course, step_folder
from .notebook_files import grade_id
from .roster import Roster, read_roster
from .sandbox import working_sandbox
from .submissions import Submission, collect, joined_notes

if TYPE_CHECKING:
    from nbformat import NotebookNode
    from nbgrader.apps import NbGraderAPI

# Errors that end a cell from outside, and what the teacher reads about them.
STOP_NOTES = {
    "CellTimeoutError": "was stopped after its time limit",
    "KernelLost": "killed its kernel or could not be stopped",
    "MemoryError": "ran out of memory",
}

# What nbgrader's gradebook knows of a submission.
TOTALS = [
    "score",
    "max_score",
    "code_score",
    "max_code_score",
    "written_score",
    "max_written_score",
    "task_score",
    "max_task_score",
    "needs_manual_grade",
]

# What it knows of a part of a submission.
PART_SCORES = ["score", "max_score", "needs_manual_grade"]

# What the tables hold of a submission and of a part. The last two columns of a submission only
# serve uploads, and are not written to grades.csv.
COLUMNS = ["student", "assignment", "late", "attempt", *TOTALS, "note", "user", "upload"]
PART_COLUMNS = ["student", "assignment", "number", "part", *PART_SCORES]


def grade(
    submissions: Path,
    output: Path | None = None,
    root: Path | None = None,
    roster_file: Path | None = None,
    format: str = "csv",
    unsafe: bool = False,
) -> pd.DataFrame:
    """Grade a folder of submissions, each in a sandbox of its own.

    Whatever one submission does, the others are graded; the column `note` says what was odd. Grades
    given by hand in nbgrader's form are kept.

    Args:
        submissions: a folder or a zip, as `collect` takes it.
        output: a folder for grades.csv, parts.csv, feedback/STUDENT/NAME.html and what `format`
            adds, by default build/grades.
        root: see `open_course`.
        roster_file: a class list, see `read_roster`.
        format: "csv", or the learning system to write marks for, "canvas" or "moodle".
        unsafe: execute the notebooks without a sandbox, with all rights of this account.

    Returns:
        A table with a row for each submission, and `COLUMNS`. What has no grade has no scores.

    Raises:
        FileNotFoundError: there are no submissions.
        NoSandboxError: this machine has none, and `unsafe` was not asked for.
        ValueError: two students would get one name, or the results could not be written.
    """
    if not unsafe:
        working_sandbox()
    with environment_variables(CTMRI_UNSAFE_GRADING="1" if unsafe else ""):
        api = open_course(root)
    output = Path(output or build_folder() / "grades")
    submissions = Path(submissions)
    check_paths(submissions, output)
    roster = read_roster(roster_file) if roster_file else None
    if roster and roster.unused:
        print(roster.unused)

    import nbformat

    # The gradebook must know the very source that grades.
    released = {name: nbformat.read(path, as_version=4) for name, path in generate(api).items()}
    collected, ignored = collect(submissions, released, roster)
    assignments = sorted({submission.assignment for submission in collected} - {""})
    if not collected:
        raise FileNotFoundError(f"{submissions} holds no files: check the folder")
    if not assignments:
        raise FileNotFoundError(
            f"{submissions} holds no notebook of an assignment: check the folder, and that the "
            "assignments are those of this checkout"
        )
    check_format(format, roster, assignments)
    for path in ignored:
        print(f"ignored: {path} (an older copy, or not a notebook of an assignment)")

    output.mkdir(parents=True, exist_ok=True)
    grades, parts = grade_all(api, collected, released, output)
    write_table(output / "grades.csv", with_contacts(grades, roster))
    write_table(output / "parts.csv", parts)
    write_marks(format, grades, roster, output)
    return grades


def check_paths(submissions: Path, output: Path) -> None:
    """Raise an error if the submissions cannot be read, or the output not be written."""
    if not submissions.exists():
        raise FileNotFoundError(
            f"{submissions} does not exist: name a folder or a zip of submissions"
        )
    if output.is_file():
        raise ValueError(f"{output} is a file: name a folder for --output")
    if output.resolve().is_relative_to(submissions.resolve()):
        raise ValueError(
            f"{output} lies in {submissions}, and the next grading would take the results for "
            "submissions: name another folder for --output"
        )


def grade_all(
    api: NbGraderAPI,
    submissions: list[Submission],
    released: dict[str, NotebookNode],
    output: Path,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Grade one after the other, and say what each has earned; the submissions and their parts."""
    rows = []
    parts = []
    for submission in submissions:
        row, row_parts = grade_submission(api, submission, released, output)
        rows.append(row)
        parts += row_parts
        line = f"{row['student']}, {row['assignment']}: {row.get('score', '')} {row['note']}"
        print(" ".join(line.split()), flush=True)

    grades = pd.DataFrame(rows, columns=COLUMNS).astype({"attempt": "Int64"})
    return grades, pd.DataFrame(parts, columns=PART_COLUMNS)


def with_contacts(grades: pd.DataFrame, roster: Roster | None) -> pd.DataFrame:
    """The table of grades.csv: with the id and address of each student, if there is a roster."""
    table = grades.drop(columns=["user", "upload"])
    if roster:
        students = [roster.students.get(key) for key in table["student"]]
        table.insert(2, "id", [student.id if student else "" for student in students])
        table.insert(3, "email", [student.email if student else "" for student in students])
    return table


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, with the ends of lines that all spreadsheets know."""
    table.to_csv(path, index=False, lineterminator="\r\n", encoding="utf-8")


def grade_submission(
    api: NbGraderAPI, submission: Submission, released: dict[str, NotebookNode], output: Path
) -> tuple[dict, list[dict]]:
    """Grade one notebook and keep its feedback; its row of grades.csv, its rows of parts.csv."""
    student, name = submission.student, submission.assignment
    owner = submission.owner
    row = {"student": student, "assignment": name, "note": submission.note}
    row |= {"attempt": submission.attempt, "late": owner.late}
    row |= {"user": owner.user, "upload": owner.upload}
    if submission.notebook is None:
        return row, []

    with nbgrader_environment():
        graded, row["note"] = grade_notebook(api, submission, released[name])
    if not graded:
        return row, []

    feedback = output / "feedback" / student
    feedback.mkdir(parents=True, exist_ok=True)
    shutil.copy(step_folder(api, "feedback", student, name) / f"{name}.html", feedback)
    totals, parts = read_scores(api, student, name, released[name])
    return row | totals, parts


def grade_notebook(
    api: NbGraderAPI, submission: Submission, released: NotebookNode
) -> tuple[bool, str]:
    """Mend, execute and grade one notebook; whether there is a grade, and what was odd."""
    import nbformat

    student, name = submission.student, submission.assignment
    try:
        mended, notes = mend(submission.notebook, copy.deepcopy(released))
    except Exception as error:
        # Any file at all may have been handed in.
        return False, f"not graded: it cannot be repaired ({type(error).__name__})"

    path = step_folder(api, "submitted", student, name) / f"{name}.ipynb"
    before = nbformat.read(path, as_version=4) if path.is_file() else None
    changed, marked = changed_parts(api, student, name, before, mended)
    if changed:
        notes.append(f"answer changed since it was marked: {', '.join(changed)}")
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir(parents=True)
    nbformat.write(mended, path)

    result = api.autograde(name, student)
    keep_marked(api, student, name, marked)
    if result["success"]:
        autograded = step_folder(api, "autograded", student, name) / f"{name}.ipynb"
        notes += stopped_cells(nbformat.read(autograded, as_version=4))
        result = api.generate_feedback(name, student)

    # nbgrader catches Ctrl-C as any other error, so it is raised again.
    if "KeyboardInterrupt" in result.get("error", ""):
        raise KeyboardInterrupt
    if not result["success"]:
        return False, f"not graded, nbgrader failed: {first_error(result)}"
    return True, joined_notes(submission.note, *notes)


def stopped_cells(executed: NotebookNode) -> list[str]:
    """A note on each cell of an executed notebook that was stopped, not merely wrong."""
    notes = []
    for cell in executed.cells:
        cell_name = grade_id(cell) or "of the student"
        for output in cell.get("outputs", []):
            if output.output_type != "error" or output.ename not in STOP_NOTES:
                continue

            # Cells behind a lost kernel were not run, so there is nothing to say of them.
            if "not run" not in output.evalue:
                note = STOP_NOTES[output.ename]
                if output.evalue.startswith("stopped, because"):
                    note = f"was {output.evalue}"
                notes.append(f"cell {cell_name} {note}")
    return notes


def read_scores(
    api: NbGraderAPI, student: str, assignment: str, released: NotebookNode
) -> tuple[dict, list[dict]]:
    """From the gradebook: the totals of one submission, and a row for each of its parts."""
    from .feedback import part_titles

    chapter = assignment.partition("_")[0].lstrip("0")
    parts = []
    with api.gradebook as gradebook:
        entry = gradebook.find_submission(assignment, student)
        totals = {column: getattr(entry, column) for column in TOTALS}
        grades = {grade.name: grade for notebook in entry.notebooks for grade in notebook.grades}
        for name, title in part_titles(released).items():
            part = {
                "student": student,
                "assignment": assignment,
                "number": f"{chapter}.{title.partition('.')[0]}",
                "part": name,
            }
            parts.append(part | {column: getattr(grades[name], column) for column in PART_SCORES})
    return totals, parts

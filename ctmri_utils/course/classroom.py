"""The classroom: release the assignments as zips, and grade a folder of submissions.

Both go through nbgrader's Python API.
"""

from __future__ import annotations

import copy
import csv
import os
import re
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..machine import CHECKOUT, ONE_THREAD, build_folder, environment_variables
from .gradebook import check_format, write_marks
from .lessons import kernel_environment
from .mending import mend
from .roster import Roster, read_roster
from .sandbox import working_sandbox
from .submissions import Submission, collect
from .template import repository, write_template

# Errors that end a cell from outside, and what the teacher reads about them.
STOP_NOTES = {
    "CellTimeoutError": "was stopped after its time limit",
    "KernelLost": "killed its kernel or could not be stopped",
    "MemoryError": "ran out of memory",
}

# Columns of grades.csv that nbgrader's gradebook fills.
SCORE_COLUMNS = (
    "score",
    "max_score",
    "code_score",
    "max_code_score",
    "written_score",
    "max_written_score",
    "task_score",
    "max_task_score",
    "needs_manual_grade",
)


def open_course(root: Path | None = None):
    """Open the course with the settings of notebooks/assignments/nbgrader_config.py.

    Args:
        root: where the gradebook and the folders release, submitted, autograded and feedback live;
            by default the course folder itself.

    Returns:
        An NbGraderAPI.

    Raises:
        FileNotFoundError: this is no checkout.
        ModuleNotFoundError: the extras are not installed.
    """
    if CHECKOUT is None:
        raise FileNotFoundError(
            "the assignments are not part of the installed package: run this from a clone of the "
            "repository"
        )
    try:
        from nbgrader.apps import NbGraderAPI
        from traitlets.config.loader import PyFileConfigLoader
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the classroom needs {error.name}: pip install 'ctmri-utils[course,classroom]'"
        ) from error

    course = CHECKOUT / "notebooks" / "assignments"
    config = PyFileConfigLoader("nbgrader_config.py", str(course)).load_config()
    if root:
        config.CourseDirectory.root = str(Path(root).resolve())
        config.CourseDirectory.source_directory = str(course / "source")
    config.NbGrader.log_level = "CRITICAL"
    return NbGraderAPI(config=config)


def release(output: Path | None = None, root: Path | None = None) -> list[Path]:
    """Generate the student version of every assignment and zip it.

    Args:
        output: a folder for the zips, by default build/assignments.
        root: see `open_course`.

    Returns:
        The zips, output/NAME.zip with NAME/NAME.ipynb inside. Beside them lies output/classroom,
        the same notebooks as a repository with links to Colab and Kaggle, see `write_template`.

    Raises:
        ValueError: a source is not in order; with nbgrader's reason.
    """
    output = Path(output or build_folder() / "assignments")
    output.mkdir(parents=True, exist_ok=True)
    notebooks = generate(open_course(root))
    zips = []
    for name, notebook in notebooks.items():
        path = output / f"{name}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(notebook, f"{name}/{name}.ipynb")
        zips.append(path)
    write_template(notebooks, output / "classroom", repository())
    return zips


def generate(api) -> dict[str, Path]:
    """Generate every student version, and enter it in the gradebook; {assignment: notebook}."""
    notebooks = {}
    for name in sorted(api.get_source_assignments()):
        with nbgrader_environment():
            result = api.generate_assignment(name, force=True, create=True)
        if not result["success"]:
            raise ValueError(f"{name} cannot be released: {first_error(result)}")
        notebooks[name] = step_folder(api, "release", ".", name) / f"{name}.ipynb"
    return notebooks


def grade(
    submissions: Path,
    output: Path | None = None,
    root: Path | None = None,
    roster: Path | None = None,
    format: str = "csv",
    unsafe: bool = False,
) -> list[dict]:
    """Grade a folder of submissions, each in a sandbox of its own.

    Whatever one submission does, the others are graded; the column `note` says what was odd. Grades
    given by hand in nbgrader's form are kept.

    Args:
        submissions: a folder or a zip, as `collect` takes it.
        output: a folder for grades.csv, parts.csv, feedback/STUDENT/NAME.html and what `format`
            adds, by default build/grades.
        root: see `open_course`.
        roster: a class list, see `read_roster`.
        format: "csv", or the learning system to write marks for, "canvas" or "moodle".
        unsafe: execute the notebooks without a sandbox, with all rights of this account.

    Returns:
        The rows of grades.csv.

    Raises:
        FileNotFoundError: there are no submissions.
        NoSandboxError: this machine has none, and `unsafe` was not asked for.
        ValueError: two students would get one name, or the marks could not be written.
    """
    if not unsafe:
        working_sandbox()
    with environment_variables(CTMRI_UNSAFE_GRADING="1" if unsafe else ""):
        api = open_course(root)
    output = Path(output or build_folder() / "grades")
    submissions = Path(submissions)
    people = read_roster(roster) if roster else None

    # The gradebook must know the very source that grades.
    released = read_released(api)
    found, ignored = collect(submissions, released, people)
    assignments = sorted({submission.assignment for submission in found} - {""})
    if not assignments:
        raise FileNotFoundError(
            f"{submissions} holds no notebook of an assignment: check the folder, and that the "
            "assignments are those of this checkout"
        )
    check_format(format, people, assignments)
    for path in ignored:
        print(f"ignored: {path} (an older copy, or no notebook of an assignment)")

    output.mkdir(parents=True, exist_ok=True)
    rows, parts = grade_all(api, found, released, output)
    write_table(output / "grades.csv", with_roster(rows, people))
    write_table(output / "parts.csv", parts)
    for path in write_marks(format, rows, people, output):
        print(f"for {format}: {path}")
    return rows


def grade_all(
    api, submissions: list[Submission], released: dict, output: Path
) -> tuple[list[dict], list[dict]]:
    """Grade one after the other, and say what each of them has earned; the rows of both tables."""
    rows = []
    parts = []
    for submission in submissions:
        row, row_parts = grade_submission(api, submission, released, output)
        rows.append(row)
        parts += row_parts
        points = "no grade" if row["score"] == "" else row["score"]
        line = f"{row['student']}, {row['assignment']}: {points} {row['note']}"
        print(line.rstrip(), flush=True)
    return rows, parts


def read_released(api) -> dict:
    """{assignment: its student version}, generated and entered in the gradebook."""
    import nbformat

    return {name: nbformat.read(notebook, as_version=4) for name, notebook in generate(api).items()}


def with_roster(rows: list[dict], roster: Roster | None) -> list[dict]:
    """The rows with id and address of each student, and without what only uploads need."""
    table = []
    for row in rows:
        about = {name: row[name] for name in ("student", "assignment")}
        if roster:
            person = roster.people.get(row["student"])
            about["id"] = person.id if person else ""
            about["email"] = person.email if person else ""
        table.append(about | {name: row[name] for name in row if name not in ("user", "upload")})
    return table


def grade_submission(
    api, submission: Submission, released: dict, output: Path
) -> tuple[dict, list[dict]]:
    """Grade one notebook and keep its feedback; its row of grades.csv, its rows of parts.csv."""
    owner = {"student": submission.student, "assignment": submission.assignment}
    row = owner | {
        name: getattr(submission, name) for name in ("late", "attempt", "user", "upload")
    }
    no_scores = dict.fromkeys(SCORE_COLUMNS, "")
    if submission.notebook is None:
        return row | no_scores | {"note": submission.note}, []

    with nbgrader_environment():
        note, graded = grade_notebook(api, submission, released[submission.assignment])
    if not graded:
        return row | no_scores | {"note": note}, []

    totals, parts = read_scores(api, submission.student, submission.assignment)
    feedback = output / "feedback" / submission.student
    feedback.mkdir(parents=True, exist_ok=True)
    page = step_folder(api, "feedback", submission.student, submission.assignment)
    shutil.copy(page / f"{submission.assignment}.html", feedback)
    return row | totals | {"note": note}, [owner | part for part in parts]


def grade_notebook(api, submission: Submission, released) -> tuple[str, bool]:
    """Mend, execute and grade one notebook; what was odd, and whether there is a grade."""
    import nbformat

    student, name = submission.student, submission.assignment
    try:
        mended, notes = mend(submission.notebook, copy.deepcopy(released))
    except Exception as error:
        # Any file at all may have been handed in.
        return f"not graded: it cannot be mended ({type(error).__name__})", False

    folder = step_folder(api, "submitted", student, name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    nbformat.write(mended, folder / f"{name}.ipynb")

    result = api.autograde(name, student)
    if result["success"]:
        autograded = step_folder(api, "autograded", student, name) / f"{name}.ipynb"
        notes += stopped_cells(nbformat.read(autograded, as_version=4))
        result = api.generate_feedback(name, student)

    # nbgrader catches Ctrl-C, too.
    if "KeyboardInterrupt" in result.get("error", ""):
        raise KeyboardInterrupt
    if not result["success"]:
        return f"not graded, nbgrader failed: {first_error(result)}", False
    if submission.note:
        notes = [submission.note, *notes]
    return "; ".join(notes), True


def stopped_cells(executed) -> list[str]:
    """A note on each cell of an executed notebook that was stopped, not merely wrong."""
    notes = []
    for cell in executed.cells:
        cell_name = cell.metadata.get("nbgrader", {}).get("grade_id", "of the student")
        for output in cell.get("outputs", []):
            if output.output_type != "error" or output.ename not in STOP_NOTES:
                continue

            # Cells behind a lost kernel are not to blame.
            if "not run" not in output.evalue:
                note = STOP_NOTES[output.ename]
                if output.evalue.startswith("stopped, because"):
                    note = f"was {output.evalue}"
                notes.append(f"cell {cell_name} {note}")
    return notes


def read_scores(api, student: str, name: str) -> tuple[dict, list[dict]]:
    """From the gradebook: the totals of one submission, and a row for each of its parts."""
    with api.gradebook as gradebook:
        submission = gradebook.find_submission(name, student)
        totals = {column: getattr(submission, column) for column in SCORE_COLUMNS}
        parts = []
        for notebook in submission.notebooks:
            for grade in notebook.grades:
                part = {
                    "part": grade.name,
                    "score": grade.score,
                    "max_score": grade.max_score,
                    "needs_manual_grade": grade.needs_manual_grade,
                }
                parts.append(part)
    return totals, sorted(parts, key=lambda part: part["part"])


def write_table(path: Path, rows: list[dict]) -> None:
    """Write rows as CSV, with the names of their columns on top."""
    columns = list(rows[0]) if rows else ["student"]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        table.writerows(rows)


@contextmanager
def nbgrader_environment() -> Iterator[None]:
    """What nbgrader and its kernels find.

    This environment's programs and package, one thread, and a build folder that is thrown away.
    """
    from sqlalchemy.exc import SAWarning

    # nbgrader calls the program alembic.
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    with (
        tempfile.TemporaryDirectory() as scratch,
        kernel_environment(Path(scratch), PATH=programs, **ONE_THREAD),
        # nbgrader's own database causes these, and they are harmless.
        warnings.catch_warnings(action="ignore", category=SAWarning),
    ):
        yield


def step_folder(api, step: str, student: str, name: str) -> Path:
    """Where nbgrader keeps one assignment in one of its steps, such as "submitted"."""
    directory = getattr(api.coursedir, f"{step}_directory")
    return Path(api.coursedir.format_path(directory, student, name))


def first_error(result: dict) -> str:
    """The first exception of nbgrader's log; the later ones only say that there was one."""
    log = result.get("log", "") + result["error"]
    match = re.search(r"^ *[\w.]*?(\w*(?:Error|Exception)\b.*)$", log, flags=re.M)
    return match[1] if match else log.strip().rpartition("\n")[2]

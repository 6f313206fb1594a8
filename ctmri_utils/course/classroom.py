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
from .gradebook import check_format, warn_of_lost_marks, warn_of_new_columns, write_marks
from .lessons import kernel_environment
from .marked_by_hand import changed_parts, keep_marked
from .mending import mend
from .notebook_files import grade_id
from .roster import Roster, read_roster
from .sandbox import working_sandbox
from .submissions import Submission, collect, joined
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
        The rows of grades.csv, and in each whether the student is `listed` in the roster.

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
    check_places(submissions, output)
    people = read_class(roster) if roster else None

    # The gradebook must know the very source that grades.
    released = read_released(api)
    found, ignored = collect(submissions, released, people)
    assignments = sorted({submission.assignment for submission in found} - {""})
    if not found:
        raise FileNotFoundError(f"{submissions} holds no files: check the folder")
    if not assignments:
        raise FileNotFoundError(
            f"{submissions} holds no notebook of an assignment: check the folder, and that the "
            "assignments are those of this checkout"
        )
    check_format(format, people, assignments)
    if format == "canvas" and people.kind == "canvas":
        warn_of_new_columns(people, assignments)
    for path in ignored:
        print(f"ignored: {path} (an older copy, or not a notebook of an assignment)")

    output.mkdir(parents=True, exist_ok=True)
    rows, parts = grade_all(api, found, released, output)
    for row in rows:
        row["listed"] = people is None or row["student"] in people.people
    write_table(output / "grades.csv", with_roster(rows, people))
    write_table(output / "parts.csv", parts)
    written = write_marks(format, rows, people, output)
    for path in written:
        print(f"for {format}: {path}")
    if written:
        warn_of_lost_marks(rows, people, written[0])
    return rows


def check_places(submissions: Path, output: Path) -> None:
    """Raise an error if nothing can be read from one place, or written to the other."""
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


def read_class(path: Path) -> Roster:
    """Read the class list, and say which of its columns are not used."""
    roster = read_roster(path)
    unused = roster.unused_columns()
    if unused:
        print(unused)
    return roster


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
        line = f"{row['student']}, {row['assignment']}: {row['score']} {row['note']}"
        print(" ".join(line.split()), flush=True)
    return rows, parts


def read_released(api) -> dict:
    """{assignment: its student version}, generated and entered in the gradebook."""
    import nbformat

    return {name: nbformat.read(notebook, as_version=4) for name, notebook in generate(api).items()}


def with_roster(rows: list[dict], roster: Roster | None) -> list[dict]:
    """The rows with id and address of each student, and without what only uploads need."""
    internal = ("user", "upload", "listed")
    table = []
    for row in rows:
        about = {name: row[name] for name in ("student", "assignment")}
        if roster:
            person = roster.people.get(row["student"])
            about["id"] = person.id if person else ""
            about["email"] = person.email if person else ""
        table.append(about | {name: row[name] for name in row if name not in internal})
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

    totals, parts = read_scores(api, submission, released[submission.assignment])
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
        return f"not graded: it cannot be repaired ({type(error).__name__})", False

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

    # nbgrader catches Ctrl-C, too.
    if "KeyboardInterrupt" in result.get("error", ""):
        raise KeyboardInterrupt
    if not result["success"]:
        return f"not graded, nbgrader failed: {first_error(result)}", False
    return joined(submission.note, *notes), True


def stopped_cells(executed) -> list[str]:
    """A note on each cell of an executed notebook that was stopped, not merely wrong."""
    notes = []
    for cell in executed.cells:
        cell_name = grade_id(cell) or "of the student"
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


def read_scores(api, submission: Submission, released) -> tuple[dict, list[dict]]:
    """From the gradebook: the totals of one submission, and a row for each of its parts."""
    from .feedback import part_titles

    titles = part_titles(released)
    assignment = submission.assignment.partition("_")[0].lstrip("0")
    parts = []
    with api.gradebook as gradebook:
        entry = gradebook.find_submission(submission.assignment, submission.student)
        totals = {column: getattr(entry, column) for column in SCORE_COLUMNS}
        for notebook in entry.notebooks:
            grades = {grade.name: grade for grade in notebook.grades}
            for name, title in titles.items():
                part = {
                    "number": f"{assignment}.{title.partition('.')[0]}",
                    "part": name,
                    "score": grades[name].score,
                    "max_score": grades[name].max_score,
                    "needs_manual_grade": grades[name].needs_manual_grade,
                }
                parts.append(part)
    return totals, parts


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

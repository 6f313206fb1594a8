"""The classroom: release the assignments as zips, and grade a folder of submissions.

Both go through nbgrader's Python API.
"""

from __future__ import annotations

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

from ..machine import CHECKOUT, ONE_THREAD, build_folder
from .lessons import kernel_environment
from .mending import mend

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
        The zips, output/NAME.zip with NAME/NAME.ipynb inside.

    Raises:
        ValueError: a source is not in order; with nbgrader's reason.
    """
    output = Path(output or build_folder() / "assignments")
    output.mkdir(parents=True, exist_ok=True)
    zips = []
    for name, notebook in generate(open_course(root)).items():
        path = output / f"{name}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(notebook, f"{name}/{name}.ipynb")
        zips.append(path)
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


def grade(submissions: Path, output: Path | None = None, root: Path | None = None) -> list[dict]:
    """Grade a folder of submissions.

    Whatever one submission does, the others are graded; the column `note` says what was odd. Grades
    given by hand in nbgrader's form are kept.

    Args:
        submissions: one folder a student, with notebooks whose file names contain the assignment's
            name, at any depth; or loose notebooks named STUDENT_NAME.ipynb.
        output: a folder for grades.csv, parts.csv and feedback/STUDENT/NAME.html, by default
            build/grades.
        root: see `open_course`.

    Returns:
        The rows of grades.csv.

    Raises:
        FileNotFoundError: there are no submissions.
        ValueError: two students would get one name.
    """
    api = open_course(root)
    output = Path(output or build_folder() / "grades")
    submissions = Path(submissions)
    found, ignored = find_submissions(submissions, sorted(api.get_source_assignments()))
    if not found:
        raise FileNotFoundError(
            f"{submissions} holds no notebook of an assignment: unpack zips, and keep the names of "
            "the notebooks"
        )
    for path in ignored:
        print(
            f"ignored: {path} (an older copy, or its name does not say which assignment or whose)"
        )

    # The gradebook must know the very source that grades.
    released = generate(api)
    output.mkdir(parents=True, exist_ok=True)
    rows = []
    parts = []
    for (student, name), path in sorted(found.items()):
        row, row_parts = grade_submission(api, student, name, path, released[name], output)
        rows.append(row)
        parts += row_parts
        points = "no grade" if row["score"] == "" else row["score"]
        print(f"{student}, {name}: {points} {row['note']}".rstrip(), flush=True)

    write_table(output / "grades.csv", rows)
    write_table(output / "parts.csv", parts)
    return rows


def find_submissions(
    submissions: Path, names: list[str]
) -> tuple[dict[tuple[str, str], Path], list[Path]]:
    """Find the notebooks to grade: of each student and assignment the newest one.

    Args:
        submissions: see `grade`.
        names: of the assignments.

    Returns:
        {(student, assignment): notebook}, and the notebooks that are not graded.

    Raises:
        ValueError: two students would get one name.
    """
    found = {}
    ignored = []
    given_names = {}
    for path in sorted(submissions.rglob("*.ipynb"), key=lambda path: -path.stat().st_mtime):
        inside = path.relative_to(submissions).parts
        if ".ipynb_checkpoints" in inside:
            continue

        name = next((name for name in names if name in path.stem), None)
        given_name = inside[0] if len(inside) > 1 else path.stem.partition(name or "")[0]

        # nbgrader looks for students by file patterns, which some characters would disturb.
        student = re.sub(r"[^\w.@-]+", "_", given_name).strip("_")
        first_name = given_names.setdefault(student, given_name)
        if first_name != given_name:
            raise ValueError(
                f"the students {given_name!r} and {first_name!r} would both be {student!r}: rename "
                "one of them"
            )

        if name and student and (student, name) not in found:
            found[student, name] = path
        else:
            ignored.append(path)
    return found, ignored


def grade_submission(
    api, student: str, name: str, path: Path, released: Path, output: Path
) -> tuple[dict, list[dict]]:
    """Grade one notebook and keep its feedback; its row of grades.csv, its rows of parts.csv."""
    owner = {"student": student, "assignment": name}
    with nbgrader_environment():
        note, graded = grade_notebook(api, student, name, path, released)
    if not graded:
        return {**owner, **dict.fromkeys(SCORE_COLUMNS, ""), "note": note}, []

    totals, parts = read_scores(api, student, name)
    feedback = output / "feedback" / student
    feedback.mkdir(parents=True, exist_ok=True)
    shutil.copy(step_folder(api, "feedback", student, name) / f"{name}.html", feedback)
    return {**owner, **totals, "note": note}, [{**owner, **part} for part in parts]


def grade_notebook(api, student: str, name: str, path: Path, released: Path) -> tuple[str, bool]:
    """Mend, execute and grade one notebook; what was odd, and whether there is a grade."""
    import nbformat

    try:
        submission = nbformat.read(path, as_version=4)
        mended, notes = mend(submission, nbformat.read(released, as_version=4))
    except Exception as error:
        # Any file at all may have been handed in.
        kind = type(error).__name__
        return f"not graded, {path.name} cannot be read as a notebook ({kind})", False

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
                notes.append(f"cell {cell_name} {STOP_NOTES[output.ename]}")
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
    return re.search(r"^ *[\w.]*?(\w*(?:Error|Exception)\b.*)$", log, flags=re.M)[1]


def add_command(commands) -> None:
    """Add `assignments` and `grade` to the sub-commands of `python -m ctmri_utils`."""
    parser = commands.add_parser(
        "assignments", help="write the student version of every assignment as a zip"
    )
    parser.add_argument(
        "--output", type=Path, help="folder for the zips (default: build/assignments)"
    )
    parser.set_defaults(run=release_command)

    parser = commands.add_parser("grade", help="grade a folder of submissions")
    parser.add_argument(
        "submissions",
        type=Path,
        help="a folder with one folder a student, or notebooks named STUDENT_NAME.ipynb",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder for grades.csv, parts.csv and feedback (default: build/grades)",
    )
    parser.set_defaults(run=grade_command)


def release_command(options) -> None:
    """`python -m ctmri_utils assignments`."""
    zips = release(options.output)
    print("\n".join(str(path) for path in zips))


def grade_command(options) -> None:
    """`python -m ctmri_utils grade`."""
    output = options.output or build_folder() / "grades"
    rows = grade(options.submissions, output)
    with_note = sum(row["note"] != "" for row in rows)
    by_hand = sum(row["needs_manual_grade"] is True for row in rows)
    print(
        f"{len(rows)} notebooks, {with_note} with a note, {by_hand} to be graded by hand: see "
        f"grades.csv, parts.csv and feedback in {output}"
    )

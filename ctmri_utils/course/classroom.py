"""The classroom: release the assignments as zips, and grade a folder of submissions, by nbgrader's
Python API.
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
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

from ..machine import CHECKOUT, ONE_THREAD, build_folder
from .lessons import kernels_see

STOPPED = {
    "CellTimeoutError": "was stopped after its time limit",
    "KernelLost": "killed its kernel or could not be stopped",
    "MemoryError": "ran out of memory",
}
SCORES = (
    "score",
    "max_score",
    "code_score",
    "max_code_score",
    "written_score",
    "max_written_score",
    "task_score",
    "max_task_score",
    "needs_manual_grade",
    # of nbgrader's gradebook
)


def open_course(root: Path | None = None):
    """An NbGraderAPI with the settings of notebooks/assignments/nbgrader_config.py.

    root: where the gradebook and the folders release, submitted, autograded and feedback live; by
    default the course folder itself. Raises FileNotFoundError outside a checkout,
    ModuleNotFoundError without the extra.
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

    Returns the zips, output/NAME.zip with NAME/NAME.ipynb inside.

    output: by default build/assignments. Raises ValueError, with nbgrader's reason, if a source is
    not in order.
    """
    output, zips = Path(output or build_folder() / "assignments"), []
    output.mkdir(parents=True, exist_ok=True)
    for name, notebook in generate(open_course(root)).items():
        zips.append(output / f"{name}.zip")
        with zipfile.ZipFile(zips[-1], "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(notebook, f"{name}/{name}.ipynb")
    return zips


def generate(api) -> dict[str, Path]:
    """Generate every student version, and tell the gradebook; {assignment: notebook}."""
    notebooks = {}
    for name in sorted(api.get_source_assignments()):
        with surroundings():
            result = api.generate_assignment(name, force=True, create=True)
        if not result["success"]:
            raise ValueError(f"{name} cannot be released: {reason(result)}")
        notebooks[name] = folder(api, "release", ".", name) / f"{name}.ipynb"
    return notebooks


def grade(submissions: Path, output: Path | None = None, root: Path | None = None) -> list[dict]:
    """Grade a folder of submissions.

    Writes output/grades.csv, parts.csv and feedback/STUDENT/NAME.html, returns the rows of
    grades.csv.

    submissions: one folder a student, with notebooks whose file names contain the assignment's
    name, at any depth; or loose notebooks named STUDENT_NAME.ipynb. output: by default
    build/grades. Whatever one submission does, the others are graded; `note` says what was odd.
    Grades given by hand in nbgrader's form are kept. Raises FileNotFoundError without submissions,
    ValueError for mixed up names.
    """
    api, output, submissions = (
        open_course(root),
        Path(output or build_folder() / "grades"),
        Path(submissions),
    )
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
    # the gradebook must know the very source that grades
    asked = generate(api)
    output.mkdir(parents=True, exist_ok=True)

    rows, parts = [], []
    for (student, name), path in sorted(found.items()):
        with surroundings():
            note, graded = grade_one(api, student, name, path, asked[name])
        summary, details = scores(api, student, name) if graded else ({}, [])
        rows.append(
            {
                "student": student,
                "assignment": name,
                **dict.fromkeys(SCORES, ""),
                **summary,
                "note": note,
            }
        )
        parts += [{"student": student, "assignment": name, **detail} for detail in details]
        if graded:
            (output / "feedback" / student).mkdir(parents=True, exist_ok=True)
            shutil.copy(
                folder(api, "feedback", student, name) / f"{name}.html",
                output / "feedback" / student,
            )
        print(f"{student}, {name}: {summary.get('score', 'no grade')} {note}".rstrip(), flush=True)
    for file, lines in (("grades.csv", rows), ("parts.csv", parts)):
        with (output / file).open("w", newline="", encoding="utf-8") as target:
            table = csv.DictWriter(target, lines[0] if lines else ["student"])
            table.writeheader()
            table.writerows(lines)
    return rows


def find_submissions(
    submissions: Path, names: list[str]
) -> tuple[dict[tuple[str, str], Path], list[Path]]:
    """{(student, assignment).

    The newest such notebook} below a folder, and the notebooks that are not graded.
    """
    found, ignored, called = {}, [], {}
    for path in sorted(submissions.rglob("*.ipynb"), key=lambda path: -path.stat().st_mtime):
        inside = path.relative_to(submissions).parts
        if ".ipynb_checkpoints" in inside:
            continue
        name = next((name for name in names if name in path.stem), None)
        given = inside[0] if len(inside) > 1 else path.stem.partition(name or "")[0]
        # nbgrader looks for students by file patterns
        student = re.sub(r"[^\w.@-]+", "_", given).strip("_")
        if called.setdefault(student, given) != given:
            raise ValueError(
                f"the students {given!r} and {called[student]!r} would both be {student!r}: rename "
                "one of them"
            )
        if name and student and (student, name) not in found:
            found[student, name] = path
        else:
            ignored.append(path)
    return found, ignored


def grade_one(api, student: str, name: str, path: Path, asked: Path) -> tuple[str, bool]:
    """Mend, execute and grade one notebook; returns what was odd, and whether there is a grade."""
    import nbformat

    try:
        mended, notes = mend(*(nbformat.read(file, as_version=4) for file in (path, asked)))
    except Exception as error:
        # any file at all may have been handed in
        return (
            f"not graded, {path.name} cannot be read as a notebook ({type(error).__name__})",
            False,
        )
    place = folder(api, "submitted", student, name)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    nbformat.write(mended, place / f"{name}.ipynb")
    result = api.autograde(name, student)
    if result["success"]:
        notes += trouble(
            nbformat.read(folder(api, "autograded", student, name) / f"{name}.ipynb", as_version=4)
        )
        result = api.generate_feedback(name, student)
    # nbgrader catches it, too
    if "KeyboardInterrupt" in result.get("error", ""):
        raise KeyboardInterrupt
    if not result["success"]:
        return f"not graded, nbgrader failed: {reason(result)}", False
    return "; ".join(notes), True


def mend(submission, release) -> tuple:
    """The released notebook with the student's answers and own cells in it, and notes on what had
    to be mended.

    Undoes what happens to notebooks on their way: deleted, moved, doubled or edited cells of the
    assignment, lost or foreign metadata, a changed kernel or cell type. A cell that has lost its
    name is known by its text, or, an answer, by standing behind its question.
    """
    asked = {
        cell.metadata.nbgrader.grade_id: cell
        for cell in release.cells
        if "nbgrader" in cell.metadata
    }
    order, answers = (
        list(asked),
        {name for name, cell in asked.items() if cell.metadata.nbgrader.solution},
    )
    texts = {cell.source.strip(): name for name, cell in asked.items() if name not in answers}
    named = [cell.metadata.get("nbgrader", {}).get("grade_id") for cell in submission.cells]
    named = [
        name if name in asked else texts.get(cell.source.strip())
        for name, cell in zip(named, submission.cells)
    ]
    known = set(named)
    for i, before in enumerate(named[:-1]):
        behind = order[order.index(before) + 1] if before in order[:-1] else None
        if (
            named[i + 1] is None
            and behind in answers - known
            and submission.cells[i + 1].cell_type == asked[behind].cell_type
        ):
            named[i + 1] = behind
    # of doubled cells the last one counts, as in nbgrader
    last = {name: i for i, name in enumerate(named) if name}

    # the student's further cells, by the cell that they follow
    own, before = defaultdict(list), None
    for i, (name, cell) in enumerate(zip(named, submission.cells)):
        if name and last[name] == i:
            before = name
        else:
            cell.metadata.pop("nbgrader", None)
            own[before].append(cell)
    release.cells, edited = own[None], []
    for name, cell in asked.items():
        handed_in = submission.cells[last[name]] if name in last else cell
        if name in answers:
            cell.source = handed_in.source
            cell.update(
                {"attachments": handed_in.attachments} if "attachments" in handed_in else {}
            )
        elif cell.source.strip() != handed_in.source.strip():
            edited.append(name)
        release.cells += [cell, *own[name]]
    for number, cell in enumerate(release.cells):
        cell["id"] = f"cell-{number}"
    kinds = {
        "missing": [name for name in order if name not in last],
        "edited and restored": edited,
        "without its name": [name for name in order if name in last and name not in known],
    }
    return release, [f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names]


def trouble(executed) -> list[str]:
    """What stopped cells of an executed notebook, other than wrong answers."""
    return [
        f"cell {cell.metadata.get('nbgrader', {}).get('grade_id', 'of the student')} "
        f"{STOPPED[output.ename]}"
        for cell in executed.cells
        for output in cell.get("outputs", [])
        if output.output_type == "error"
        and output.ename in STOPPED
        and "not run" not in output.evalue
    ]


def scores(api, student: str, name: str) -> tuple[dict, list[dict]]:
    """From the gradebook: the totals of one submission, and a row for each of its parts."""
    with api.gradebook as gradebook:
        submission = gradebook.find_submission(name, student)
        parts = [
            {
                "part": grade.name,
                "score": grade.score,
                "max_score": grade.max_score,
                "needs_manual_grade": grade.needs_manual_grade,
            }
            for notebook in submission.notebooks
            for grade in notebook.grades
        ]
        return {column: getattr(submission, column) for column in SCORES}, sorted(
            parts, key=lambda part: part["part"]
        )


@contextmanager
def surroundings():
    """What nbgrader and its kernels find.

    This environment's programs and package, one thread, and a build folder that is thrown away.
    """
    from sqlalchemy.exc import SAWarning

    # nbgrader calls alembic
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    with (
        tempfile.TemporaryDirectory() as scratch,
        kernels_see(Path(scratch), PATH=programs, **ONE_THREAD),
        # harmless, and nbgrader's
        warnings.catch_warnings(action="ignore", category=SAWarning),
    ):
        yield


def folder(api, step: str, student: str, name: str) -> Path:
    """Where nbgrader keeps one assignment in one of its steps."""
    return Path(
        api.coursedir.format_path(getattr(api.coursedir, f"{step}_directory"), student, name)
    )


def reason(result: dict) -> str:
    """The first exception of nbgrader's log; the later ones only say that there was one."""
    return re.search(
        r"^ *[\w.]*?(\w*(?:Error|Exception)\b.*)$",
        result.get("log", "") + result["error"],
        flags=re.M,
    )[1]


def add_command(commands) -> None:
    """Add `assignments` and `grade` to the sub-commands of `python -m ctmri_utils`."""
    parser = commands.add_parser(
        "assignments", help="write the student version of every assignment as a zip"
    )
    parser.add_argument(
        "--output", type=Path, help="folder for the zips (default: build/assignments)"
    )
    parser.set_defaults(run=lambda options: print("\n".join(map(str, release(options.output)))))

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


def grade_command(options) -> None:
    """`python -m ctmri_utils grade`."""
    output = options.output or build_folder() / "grades"
    rows = grade(options.submissions, output)
    odd, waiting = (
        sum(bool(row["note"]) for row in rows),
        sum(row["needs_manual_grade"] is True for row in rows),
    )
    print(
        f"{len(rows)} notebooks, {odd} with a note, {waiting} to be graded by hand: see "
        f"grades.csv, parts.csv and feedback in {output}"
    )

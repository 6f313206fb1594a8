"""Assignments as the tests see them.

Run here, cell by cell, or put through nbgrader in a course of their own.
"""

import contextlib
import copy
import csv
import io
import warnings
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from ctmri_utils.course import classroom

SOURCE = Path(__file__).resolve().parents[2] / "notebooks" / "assignments" / "source"
NAMES = sorted(path.name for path in SOURCE.iterdir() if path.is_dir())
to_python = TransformerManager().transform_cell


def source(name):
    return nbformat.read(SOURCE / name / f"{name}.ipynb", as_version=4)


def grade_id(cell):
    return cell.metadata.get("nbgrader", {}).get("grade_id")


def replaced(notebook, edits):
    """The notebook with the sources of the named cells replaced."""
    assert set(edits) <= {grade_id(cell) for cell in notebook.cells}, f"no such cells: {set(edits)}"
    for cell in notebook.cells:
        cell.source = edits.get(grade_id(cell), cell.source)
    return notebook


def run_here(notebook):
    """{test cell: None, or the exception it ended with}.

    What nbgrader's kernel would find, without the kernel.
    """
    names, ended = {"__name__": "__main__"}, {}
    for cell in notebook.cells:
        if cell.cell_type != "code" or (grade_id(cell) or "").startswith("check_"):
            continue
        try:
            with (
                warnings.catch_warnings(action="ignore"),
                contextlib.redirect_stdout(io.StringIO()),
            ):
                exec(compile(to_python(cell.source), str(grade_id(cell)), "exec"), names)
            error = None
        except Exception as caught:
            error = caught
        if cell.metadata.get("nbgrader", {}).get("grade"):
            ended[grade_id(cell)] = error
    return ended


@pytest.fixture(scope="session")
def sources():
    """{name: the instructor's notebook}."""
    return {name: source(name) for name in NAMES}


@pytest.fixture
def answered():
    """answered(name, cell, text).

    How the tests of assignment `name` end if `cell` is answered by `text` and all else is right.
    """
    return lambda name, cell, text: run_here(replaced(source(name), {cell: text}))


@pytest.fixture
def marks(sources):
    """marks(notebook of assignment 1): {test: whether it passes}, hidden tests included."""
    hidden = {
        grade_id(cell): cell.source
        for cell in sources[NAMES[0]].cells
        if grade_id(cell) and grade_id(cell).startswith("test_")
    }
    return lambda notebook: {
        test: error is None for test, error in run_here(replaced(notebook, hidden)).items()
    }


@pytest.fixture(scope="session")
def course(tmp_path_factory):
    """A course folder with every assignment released; `zips` are the files for students."""
    folder = tmp_path_factory.mktemp("course")
    return SimpleNamespace(
        root=folder, zips=classroom.release(folder / "zips", folder), build=folder / "zips"
    )


@pytest.fixture(scope="session")
def released(course):
    """released(name): the student version of an assignment."""
    return lambda name: nbformat.read(
        course.root / "release" / name / f"{name}.ipynb", as_version=4
    )


@pytest.fixture
def solved(sources, released):
    """Assignment 1 as a good student hands it in: the released tests, the instructor's answers."""
    notebook = released(NAMES[0])
    answers = {
        grade_id(cell): cell.source
        for cell in sources[NAMES[0]].cells
        if cell.metadata.get("nbgrader", {}).get("solution")
    }
    return replaced(notebook, answers)


@pytest.fixture(scope="session")
def edited():
    """edited(notebook, cell=source, ...).

    A copy with other sources; two underscores stand for a hyphen.
    """
    return lambda notebook, **sources: replaced(
        copy.deepcopy(notebook), {name.replace("__", "-"): sources[name] for name in sources}
    )


@pytest.fixture(scope="session")
def hand_in(course, tmp_path_factory):
    """hand_in({"student/NAME.ipynb": notebook or bytes}).

    Grade them; the rows of grades.csv by (student, assignment), the output.
    """
    opened = classroom.open_course

    def grade(files, seconds=60, limits=None, **options):  # seconds for a cell
        def open_course(root):
            api = opened(root)
            api.config.ExecuteToTheEnd.timeout = seconds
            if limits:
                api.config.SandboxedKernelManager.limits = limits
            return api

        folder, output = tmp_path_factory.mktemp("handed_in"), tmp_path_factory.mktemp("grades")
        for place, content in files.items():
            path = folder / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(
                content
                if isinstance(content, bytes)
                else nbformat.writes(content, version=nbformat.NO_CONVERT).encode()
            )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(classroom, "open_course", open_course)
            rows = {
                (row["student"], row["assignment"]): row
                for row in classroom.grade(folder, output, course.root, **options)
            }
        with (output / "parts.csv").open(encoding="utf-8") as lines:
            parts = {
                (row["student"], row["part"]): float(row["score"]) for row in csv.DictReader(lines)
            }
        return SimpleNamespace(rows=rows, parts=parts, output=output, folder=folder)

    return grade

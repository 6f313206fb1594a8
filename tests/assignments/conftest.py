"""Assignments as the tests see them.

Run here, cell by cell, or put through nbgrader in a course of their own.
"""

import contextlib
import copy
import io
import warnings
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from ctmri_utils.course.classroom import grading, release
from ctmri_utils.course.classroom.notebook_files import grade_id

SOURCE = Path(__file__).resolve().parents[2] / "notebooks" / "assignments" / "source"
NAMES = sorted(path.name for path in SOURCE.iterdir() if path.is_dir())
UNITS = NAMES[0]
to_python = TransformerManager().transform_cell


def source(name):
    return nbformat.read(SOURCE / name / f"{name}.ipynb", as_version=4)


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
    names = {"__name__": "__main__"}
    ended = {}
    for cell in notebook.cells:
        if cell.cell_type != "code" or grade_id(cell).startswith("check_"):
            continue
        error = None
        try:
            with (
                warnings.catch_warnings(action="ignore"),
                contextlib.redirect_stdout(io.StringIO()),
            ):
                exec(compile(to_python(cell.source), grade_id(cell), "exec"), names)
        except Exception as caught:
            error = caught
        if cell.metadata.get("nbgrader", {}).get("grade"):
            ended[grade_id(cell)] = error
    return ended


@pytest.fixture(scope="session")
def sources():
    """{name: the instructor's notebook}."""
    return {name: source(name) for name in NAMES}


@pytest.fixture(scope="session")
def answered(sources):
    """answered(name, cell, text): how the tests of an assignment end, {test: None or exception}.

    `cell` is answered by `text`, and all else is right.
    """
    return lambda name, cell, text: run_here(replaced(copy.deepcopy(sources[name]), {cell: text}))


@pytest.fixture(scope="session")
def marks(sources):
    """marks(notebook): {test: whether it passes}, hidden tests included."""

    def run(notebook, name=UNITS):
        hidden = {
            grade_id(cell): cell.source
            for cell in sources[name].cells
            if grade_id(cell).startswith("test_")
        }
        return {test: error is None for test, error in run_here(replaced(notebook, hidden)).items()}

    return run


@pytest.fixture(scope="session")
def course(tmp_path_factory):
    """A course folder with every assignment released; `zips` are the files for students."""
    folder = tmp_path_factory.mktemp("course")
    zips = release(folder / "zips", folder)
    notebooks = {name: folder / "release" / name / f"{name}.ipynb" for name in NAMES}
    return SimpleNamespace(root=folder, zips=zips, build=folder / "zips", notebooks=notebooks)


@pytest.fixture(scope="session")
def released(course):
    """released(name): the student version of an assignment."""
    return lambda name: nbformat.read(course.notebooks[name], as_version=4)


@pytest.fixture(scope="session")
def solve(sources, released):
    """solve(): assignment 1 of a good student, the released tests and the instructor's answers."""
    answers = {
        grade_id(cell): cell.source
        for cell in sources[UNITS].cells
        if cell.metadata.get("nbgrader", {}).get("solution")
    }
    return lambda: replaced(released(UNITS), answers)


@pytest.fixture
def solved(solve):
    return solve()


@pytest.fixture(scope="session")
def edited():
    """edited(notebook, cell=source, ...): a copy with other sources.

    Two underscores stand for a hyphen.
    """
    return lambda notebook, **sources: replaced(
        copy.deepcopy(notebook), {name.replace("__", "-"): sources[name] for name in sources}
    )


@pytest.fixture(scope="session")
def hand_in(course, tmp_path_factory):
    """hand_in({"student/NAME.ipynb": notebook or bytes}): all of them, graded.

    `rows` of grades.csv by student and assignment, "" for none, `points` of each part by student
    and name, `page(student)` of feedback, and the folder `output`. The course stays as released.
    """
    opened = grading.open_course

    def grade(files, cell_seconds=60, limits=None, **options):
        def open_course(root):
            api = opened(root)
            api.config.ExecuteToTheEnd.timeout = cell_seconds
            if limits:
                api.config.SandboxedKernelManager.limits = limits
            return api

        folder = tmp_path_factory.mktemp("handed_in")
        output = tmp_path_factory.mktemp("grades")
        for place, content in files.items():
            path = folder / place
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                nbformat.write(content, path, version=nbformat.NO_CONVERT)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(grading, "open_course", open_course)
            patch.setattr(grading, "generate", lambda api: course.notebooks)
            grades = grading.grade(folder, output, course.root, **options)

        rows = grades.astype(object).fillna("").to_dict("records")
        parts = pd.read_csv(output / "parts.csv").set_index(["student", "part"])
        return SimpleNamespace(
            rows={(row["student"], row["assignment"]): row for row in rows},
            points=parts["score"],
            numbers=parts["number"],
            output=output,
            page=lambda student: (output / "feedback" / student / f"{UNITS}.html").read_text(
                encoding="utf-8"
            ),
        )

    return grade

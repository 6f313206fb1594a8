"""`python -m ctmri_utils assignments` and `grade`, in a clone of the course folder."""

import csv
import os
import shutil
import sys

import nbformat
import pytest

from ctmri_utils.__main__ import main
from ctmri_utils.course import classroom

UNITS = "01_units_windows_splits"

# Only Linux has a sandbox; its refusal is tested in test_sandbox.py.
GRADE = ["grade"] if sys.platform == "linux" else ["grade", "--unsafe"]


@pytest.fixture
def clone(tmp_path, monkeypatch, sources):
    """A checkout with nothing but the course folder, and in it only assignment 1."""
    here = classroom.CHECKOUT / "notebooks" / "assignments"
    course = tmp_path / "clone" / "notebooks" / "assignments"
    shutil.copytree(here / "source" / UNITS, course / "source" / UNITS)
    shutil.copy(here / "nbgrader_config.py", course)
    monkeypatch.setattr(classroom, "CHECKOUT", tmp_path / "clone")
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path / "build"))
    return course


def test_release_and_grade(clone, sources, tmp_path, capsys):
    before = dict(os.environ)
    assert main(["assignments"]) == 0
    assert (
        tmp_path / "build" / "assignments" / f"{UNITS}.zip"
    ).is_file() and f"{UNITS}.zip" in capsys.readouterr().out
    handed_in = tmp_path / "handed_in" / "anna"
    handed_in.mkdir(parents=True)
    nbformat.write(sources[UNITS], handed_in / f"{UNITS}.ipynb")
    assert main([*GRADE, str(handed_in.parent)]) == 0
    output = tmp_path / "build" / "grades"
    [row] = csv.DictReader((output / "grades.csv").read_text(encoding="utf-8").splitlines())
    assert (row["student"], row["assignment"], row["score"], row["max_score"]) == (
        "anna",
        UNITS,
        "22.0",
        "40.0",
    )
    parts = list(csv.DictReader((output / "parts.csv").read_text(encoding="utf-8").splitlines()))
    assert len(parts) == 9 and sum(float(part["max_score"]) for part in parts) == 40
    assert (output / "feedback" / "anna" / f"{UNITS}.html").is_file() and (
        clone / "gradebook.db"
    ).is_file()
    assert "1 notebooks, 1 with a note, 1 to be graded by hand" in capsys.readouterr().out
    assert dict(os.environ) == before


def test_nothing_to_grade_is_one_sentence(clone, tmp_path, capsys):
    assert main([*GRADE, str(tmp_path / "nowhere")]) == 1
    message = capsys.readouterr().err
    assert (
        message.startswith("grade: ")
        and "nowhere holds no notebook of an assignment" in message
        and message.count("\n") == 1
    )


def test_a_broken_source_is_one_sentence(clone, capsys):
    notebook = nbformat.read(clone / "source" / UNITS / f"{UNITS}.ipynb", as_version=4)
    notebook.cells[4].metadata.nbgrader.grade_id = notebook.cells[5].metadata.nbgrader.grade_id
    nbformat.write(notebook, clone / "source" / UNITS / f"{UNITS}.ipynb")
    assert main(["assignments"]) == 1
    message = capsys.readouterr().err
    assert (
        f"{UNITS} cannot be released" in message
        and "Duplicate grade id" in message
        and message.count("\n") == 1
    ), message


def test_outside_a_checkout(monkeypatch, capsys):
    monkeypatch.setattr(classroom, "CHECKOUT", None)
    assert main(["assignments"]) == 1
    assert "run this from a clone of the repository" in capsys.readouterr().err

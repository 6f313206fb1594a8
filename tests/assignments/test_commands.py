"""`python -m ctmri_utils assignments` and `grade`, in a clone of the course folder."""

import os
import shutil
import sys

import nbformat
import pandas as pd
import pytest

from ctmri_utils.__main__ import main
from ctmri_utils.course.classroom import nbgrader_course
from ctmri_utils.machine import CHECKOUT

UNITS = "01_units_windows_splits"

# Only Linux has a sandbox; its refusal is tested in test_sandbox.py.
GRADE = ["grade"] if sys.platform == "linux" else ["grade", "--unsafe"]


@pytest.fixture
def clone(tmp_path, monkeypatch, sources):
    """A checkout with nothing but the course folder, and in it only assignment 1."""
    here = CHECKOUT / "notebooks" / "assignments"
    course = tmp_path / "clone" / "notebooks" / "assignments"
    shutil.copytree(here / "source" / UNITS, course / "source" / UNITS)
    shutil.copy(here / "nbgrader_config.py", course)
    monkeypatch.setattr(nbgrader_course, "CHECKOUT", tmp_path / "clone")
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path / "build"))
    return course


def test_release_and_grade(clone, sources, tmp_path, capsys):
    before = dict(os.environ)
    assert main(["assignments"]) == 0
    assert (tmp_path / "build" / "assignments" / f"{UNITS}.zip").is_file()
    assert f"{UNITS}.zip" in capsys.readouterr().out
    handed_in = tmp_path / "handed_in" / "anna"
    handed_in.mkdir(parents=True)
    nbformat.write(sources[UNITS], handed_in / f"{UNITS}.ipynb")
    assert main([*GRADE, str(handed_in.parent)]) == 0
    output = tmp_path / "build" / "grades"
    table = (output / "grades.csv").read_text(encoding="utf-8")
    assert f"\nanna,{UNITS},,1,22.0,40.0,22.0,22.0,0.0,8.0,0.0,10.0,True," in table
    parts = pd.read_csv(output / "parts.csv")
    assert len(parts) == 9 and parts["max_score"].sum() == 40
    assert (output / "feedback" / "anna" / f"{UNITS}.html").is_file()
    assert (clone / "gradebook.db").is_file()
    said = capsys.readouterr().out
    assert "1 rows: 1 graded, 0 not gradable, 0 nothing handed in; 1 with parts to be" in said
    assert "do not import" not in said and dict(os.environ) == before


def test_a_mark_that_is_not_for_import_is_said_and_is_an_error(clone, sources, tmp_path, capsys):
    handed_in = tmp_path / "handed_in"
    (handed_in / "nobody").mkdir(parents=True)
    nbformat.write(sources[UNITS], handed_in / "nobody" / f"{UNITS}.ipynb")
    roster = tmp_path / "class.csv"
    roster.write_text("id,emial\ns2,b@uni.edu\n")
    output = tmp_path / "results"
    options = ["--roster", str(roster), "--format", "canvas", "--output", str(output)]
    assert main([*GRADE, str(handed_in), *options]) == 1

    said = capsys.readouterr().out
    assert "class.csv: columns not used: emial; no column email or name" in said
    assert "nobody is not in class.csv: 22.0 is not in canvas.csv" in said
    assert f"s2, {UNITS}: nothing handed in\n" in said
    assert "2 rows: 1 graded, 0 not gradable, 1 nothing handed in; 1 with parts" in said
    assert "1 rows have parts not yet graded by hand" in said and "do not import yet" in said
    assert said.endswith("not for import: 1 marks of students who are not in class.csv\n")

    table = (output / "grades.csv").read_text(encoding="utf-8")
    assert "user" not in table and "s2,01_units_windows_splits,s2,,,," in table


@pytest.mark.parametrize(
    "place, output, sentence",
    [
        ("nowhere", "results", "nowhere does not exist: name a folder or a zip"),
        ("empty", "results", "empty holds no files: check the folder"),
        ("other", "results", "other holds no notebook of an assignment: check the folder, and"),
        ("other", "other", "other, and the next grading would take the results for submissions"),
        ("other", "other/in/it", "and the next grading would take the results for submissions"),
        ("other", "file", "file is a file: name a folder for --output"),
    ],
)
def test_what_cannot_be_graded_is_one_sentence(clone, tmp_path, capsys, place, output, sentence):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    assert main([*GRADE, str(tmp_path / place), "--output", str(tmp_path / output)]) == 1
    message = capsys.readouterr().err
    assert message.startswith("ctmri grade: ") and message.count("\n") == 1
    assert sentence in message, message


def test_a_broken_source_is_one_sentence(clone, capsys):
    notebook = nbformat.read(clone / "source" / UNITS / f"{UNITS}.ipynb", as_version=4)
    notebook.cells[4].metadata.nbgrader.grade_id = notebook.cells[5].metadata.nbgrader.grade_id
    nbformat.write(notebook, clone / "source" / UNITS / f"{UNITS}.ipynb")
    assert main(["assignments"]) == 1
    message = capsys.readouterr().err
    assert f"{UNITS} cannot be released" in message and "Duplicate grade id" in message
    assert message.count("\n") == 1


def test_outside_a_checkout(monkeypatch, capsys):
    monkeypatch.setattr(nbgrader_course, "CHECKOUT", None)
    assert main(["assignments"]) == 1
    assert "run this from a clone of the repository" in capsys.readouterr().err

"""Grading: full marks for the instructor, none for a blank, and no submission, whatever it does, spoils another one's grade.

Most of it is tried on assignment 1, which does not load torch.
"""
import copy
import runpy
from pathlib import Path

import nbformat
import pytest

HERE = Path(__file__).parent
UNITS = "01_units_windows_splits"
TESTS = {"test_to_physical": 3, "test_grey": 4, "test_window_error": 3, "test_mri_to_network": 4, "test_split_by_patient": 4, "test_too_close": 4}


def cell_of(notebook, name):
    return next(cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == name)


def edited(notebook, **sources):
    notebook = copy.deepcopy(notebook)
    for name, text in sources.items():
        cell_of(notebook, name.replace("__", "-")).source = text
    return notebook


def without(notebook, *names):
    notebook = copy.deepcopy(notebook)
    notebook.cells = [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade_id") not in names]
    return notebook


def to_physical(body):
    return f"def to_physical(stored, gain, offset):\n    {body}\n    return np.asarray(stored, dtype=float) * gain + offset"


@pytest.fixture(scope="module")
def solved(sources, course):
    """Assignment 1 as a good student hands it in: the released tests, the instructor's answers."""
    notebook = released(course, UNITS)
    for cell in notebook.cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            cell.source = cell_of(sources[UNITS], cell.metadata.nbgrader.grade_id).source
    return notebook


def released(course, name):
    return nbformat.read(course.root / "release" / name / f"{name}.ipynb", as_version=4)


def scores(graded, student):
    return {test: graded.parts[student, test] for test in TESTS}


def losing(*tests):
    return TESTS | dict.fromkeys(tests, 0)


def test_instructor_earns_all_marks_and_a_blank_none(sources, course, hand_in):
    solved = {f"instructor/{name}.ipynb": notebook for name, notebook in sources.items()}
    graded = hand_in(solved | {f"blank/{name}.ipynb": released(course, name) for name in sources})
    for name in sources:
        instructor, blank = graded.rows["instructor", name], graded.rows["blank", name]
        assert instructor["score"] == instructor["code_score"] == instructor["max_code_score"] == 22
        assert blank["score"] == 0 and blank["max_score"] == 40 and blank["max_written_score"] == 8 and blank["max_task_score"] == 10
        assert instructor["needs_manual_grade"] and blank["note"] == ""
        assert "test_" in (graded.output / "feedback" / "blank" / f"{name}.html").read_text(encoding="utf-8")
    autograded = [score for (student, part), score in graded.parts.items() if student == "blank" and part.startswith("test_")]
    assert autograded == [0] * 24


def test_wrong_and_right_answers_through_nbgrader(solved, hand_in):
    """What test_answers.py finds without a kernel holds in nbgrader, too: one notebook with a wrong, one with a right answer in each cell."""
    book = runpy.run_path(str(HERE / "answers_01.py"))
    wrong = edited(solved, **{cell: next(iter(texts.values())) for cell, texts in book["WRONG"].items()})
    right = edited(solved, **{cell: texts[0] for cell, texts in book["RIGHT"].items()})
    graded = hand_in({f"wrong/{UNITS}.ipynb": wrong, f"right/{UNITS}.ipynb": right})
    assert scores(graded, "wrong") == losing(*TESTS) and scores(graded, "right") == TESTS


def test_no_submission_spoils_another(solved, hand_in):
    nasty = {
        "exits": edited(solved, setup="import sys\nimport numpy as np\nsys.exit(0)"),
        "exits_later": edited(solved, to_physical=to_physical("import sys; sys.exit(0)")),
        "quits": edited(solved, to_physical=to_physical("get_ipython().ask_exit()")),
        "kills": edited(solved, mri_to_network="def mri_to_network(mri, head):\n    import os\n    os._exit(0)"),
        "loops": edited(solved, to_physical=to_physical("while True: pass")),
        "loops_on": edited(solved, mri_to_network="def mri_to_network(mri, head):\n    while True:\n        try:\n"
                                                  "            while True: pass\n        except BaseException: pass"),
        "eats": edited(solved, to_physical=to_physical("np.ones(10 * 2**30 // 8)")),
        "eats_and_hides": edited(solved, to_physical=to_physical("bytearray(10 * 2**30)"), grey="x = bytearray(10 * 2**30)"),
        "shouts": edited(solved, to_physical=to_physical("for _ in range(100_000): print('x' * 100)")),
        "warns": edited(solved, to_physical=to_physical("import warnings; warnings.warn('Overflow')")),
        "broken": edited(solved, to_physical="def to_physical(stored, gain, offset)\n    return 0"),
        "good": solved,
    }
    files = {f"{student}/{UNITS}.ipynb": notebook for student, notebook in nasty.items()}
    graded = hand_in(files | {f"garbage/{UNITS}.ipynb": b"\x89PNG not a notebook", f"empty/{UNITS}.ipynb": b""})

    first, later = "test_to_physical", ("test_mri_to_network", "test_split_by_patient", "test_too_close")
    expected = {
        "exits": TESTS, "exits_later": losing(first), "quits": losing(*TESTS), "kills": losing(*later), "loops": losing(first),
        "loops_on": losing(*later), "eats": losing(first), "eats_and_hides": losing(first, "test_grey", "test_window_error"),
        "shouts": TESTS, "warns": TESTS, "broken": losing(first), "good": TESTS,
    }
    assert {student: scores(graded, student) for student in nasty} == expected
    notes = {student: row["note"] for (student, _), row in graded.rows.items()}
    assert notes["good"] == notes["broken"] == "" and "edited and restored: setup" in notes["exits"]
    assert "cell test_to_physical was stopped after its time limit" in notes["loops"]
    assert "cell test_mri_to_network killed its kernel" in notes["kills"] and "could not be stopped" in notes["loops_on"]
    assert "ran out of memory" in notes["eats"]
    for student in ("garbage", "empty"):
        assert graded.rows[student, UNITS]["score"] == "" and "cannot be read as a notebook" in notes[student]


def test_notebooks_are_mended(solved, hand_in):
    cheat = {name: "pass" for name in TESTS}
    colab = copy.deepcopy(solved)
    colab.metadata = {"colab": {"provenance": []}, "kernelspec": {"name": "python3", "display_name": "Python 3"}, "accelerator": "GPU"}
    colab.nbformat_minor = 0
    for number, cell in enumerate(colab.cells):
        del cell["id"]
        cell.metadata.update({"id": f"aB{number}"} | ({"outputId": "1f-2e"} if cell.cell_type == "code" else {}))
        cell.metadata.pop("deletable", None), cell.metadata.pop("editable", None)
    bare = copy.deepcopy(colab)
    for cell in bare.cells:
        cell.metadata = {}
    doubled, moved = copy.deepcopy(solved), copy.deepcopy(solved)
    place = doubled.cells.index(cell_of(doubled, "to_physical"))
    doubled.cells.insert(place, copy.deepcopy(doubled.cells[place]))
    doubled.cells[place].source = "def to_physical(stored, gain, offset):\n    return stored"
    moved.cells = moved.cells[::-1]
    as_text = copy.deepcopy(solved)
    place = as_text.cells.index(cell_of(as_text, "too_close"))
    as_text.cells[place] = nbformat.v4.new_markdown_cell(as_text.cells[place].source, metadata=as_text.cells[place].metadata)
    other_kernel = copy.deepcopy(solved)
    other_kernel.metadata.kernelspec = {"name": "conda-env-mine-py", "display_name": "Mine", "language": "python"}
    own_cells = edited(solved, window_error="def window_error(*given):\n    return helper(*given)")
    place = own_cells.cells.index(cell_of(own_cells, "window_error"))
    helper = cell_of(solved, "window_error").source.replace("window_error", "helper")
    own_cells.cells.insert(place, nbformat.v4.new_code_cell(helper))

    cases = {
        "cheats": edited(solved, to_physical="def to_physical(*given):\n    return 0", **cheat),
        "deleted_tests": without(solved, *TESTS), "deleted_answer": without(solved, "to_physical", "test_to_physical"),
        "deleted_questions": without(solved, "about", "setup", "stored-question", "data-sheet", "table-answer"),
        "colab": colab, "bare": bare, "doubled": doubled, "moved": moved, "as_text": as_text, "other_kernel": other_kernel,
        "own_cells": own_cells,
    }
    graded = hand_in({f"{student}/{UNITS}.ipynb": notebook for student, notebook in cases.items()})
    expected = dict.fromkeys(cases, TESTS) | {"cheats": losing("test_to_physical"), "deleted_answer": losing("test_to_physical")}
    assert {student: scores(graded, student) for student in cases} == expected
    notes = {student: row["note"] for (student, _), row in graded.rows.items()}
    assert notes["cheats"] == f"edited and restored: {', '.join(TESTS)}"
    assert notes["deleted_tests"] == f"missing: {', '.join(TESTS)}" and notes["deleted_answer"] == "missing: to_physical, test_to_physical"
    assert notes["colab"] == notes["moved"] == notes["own_cells"] == "" and notes["bare"].startswith("without its name: to_physical, grey")


def test_grades_given_by_hand_survive_a_second_call(solved, hand_in, course):
    from nbgrader.api import Gradebook

    answered = edited(solved, **{"eight__bit__answer": "1.6 HU", "table__answer": "Air and bone"})
    first = hand_in({f"hanna/{UNITS}.ipynb": answered})
    assert first.rows["hanna", UNITS]["score"] == 22
    with Gradebook(f"sqlite:///{course.root / 'gradebook.db'}") as gradebook:
        grade = gradebook.find_grade("eight-bit-answer", UNITS, UNITS, "hanna")
        grade.manual_score, grade.needs_manual_grade = 3.5, False
        gradebook.db.commit()
    second = hand_in({f"hanna/{UNITS}.ipynb": answered})
    assert second.rows["hanna", UNITS]["score"] == 25.5 and second.rows["hanna", UNITS]["written_score"] == 3.5


def test_files_are_found_under_the_names_that_systems_give_them(solved, hand_in, capsys):
    graded = hand_in({f"Müller, Änne_123_assignsubmission_file_/{UNITS} (1).ipynb": solved, f"lee_7_{UNITS}-2.ipynb": solved,
                      f"kim/deep/er/Copy_of_{UNITS}.ipynb": solved, "kim/.ipynb_checkpoints/x.ipynb": solved, "kim/notes.ipynb": solved,
                      f"{UNITS}.ipynb": solved})
    assert set(graded.rows) == {("Müller_Änne_123_assignsubmission_file", UNITS), ("lee_7", UNITS), ("kim", UNITS)}
    assert {row["score"] for row in graded.rows.values()} == {22}
    ignored = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ignored")]
    assert len(ignored) == 2 and any("notes.ipynb" in line for line in ignored)


def test_an_empty_folder_is_named(hand_in, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no notebook of an assignment"):
        hand_in({"anna/holiday.ipynb": b"{}"})

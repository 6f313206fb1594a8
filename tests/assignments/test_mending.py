"""What happens to a notebook on its way to the teacher is undone.

The released notebook, the student's answers and own cells.
"""

import copy

import nbformat
import pytest

from ctmri_utils.course.classroom.mending import mend
from ctmri_utils.course.classroom.notebook_files import grade_id

UNITS = "01_units_windows_splits"
TESTS = [
    "test_to_physical",
    "test_grey",
    "test_window_error",
    "test_mri_to_network",
    "test_split_by_patient",
    "test_too_close",
]


def place(notebook, name):
    return next(i for i, cell in enumerate(notebook.cells) if grade_id(cell) == name)


def without(notebook, *names):
    notebook.cells = [cell for cell in notebook.cells if grade_id(cell) not in names]
    return notebook


def untouched(notebook):
    return notebook


def through_colab(notebook):
    """As Colab saves it: other metadata, no cell ids, an older minor version, nbgrader's names."""
    notebook.metadata = {"colab": {"provenance": []}, "accelerator": "GPU"}
    notebook.nbformat_minor = 0
    for number, cell in enumerate(notebook.cells):
        del cell["id"]
        kept = {name: cell.metadata[name] for name in cell.metadata if name == "nbgrader"}
        cell.metadata = kept | {"id": f"aB{number}", "outputId": "1f-2e"}
    return notebook


def without_metadata(notebook):
    for cell in through_colab(notebook).cells:
        cell.metadata = {}
    return notebook


def without_tests(notebook):
    return without(notebook, *TESTS)


def without_questions(notebook):
    return without(notebook, "about", "setup", "stored-question", "data-sheet", "table-answer")


def doubled(notebook):
    i = place(notebook, "to_physical")
    notebook.cells.insert(i, copy.deepcopy(notebook.cells[i]))
    notebook.cells[i].source = "def to_physical(stored, gain, offset):\n    return stored"
    return notebook


def moved(notebook):
    notebook.cells = notebook.cells[::-1]
    return notebook


def as_text(notebook):
    cell = notebook.cells[place(notebook, "too_close")]
    text = nbformat.v4.new_markdown_cell(cell.source, metadata=cell.metadata)
    notebook.cells[place(notebook, "too_close")] = text
    return notebook


def other_kernel(notebook):
    notebook.metadata.kernelspec = {"name": "conda-env-mine-py", "display_name": "Mine"}
    return notebook


def own_helper(notebook):
    i = place(notebook, "window_error")
    helper = notebook.cells[i].source.replace("window_error", "helper")
    notebook.cells[
        i
    ].source = (
        "def window_error(ct_hu, head, level, width):\n    return helper(ct_hu, head, level, width)"
    )
    notebook.cells.insert(i, nbformat.v4.new_code_cell(helper))
    return notebook


ANSWERS = (
    "to_physical, grey, window_error, mri_to_network, split_by_patient, too_close, "
    "eight-bit-answer, table-answer"
)


@pytest.mark.parametrize(
    "damage, note",
    [
        (untouched, None),
        (through_colab, None),
        (moved, None),
        (doubled, None),
        (as_text, None),
        (other_kernel, None),
        (own_helper, None),
        (without_metadata, f"without its name: {ANSWERS}"),
        (without_tests, f"missing: {', '.join(TESTS)}"),
        (without_questions, "missing: about, setup, stored-question, table-answer, data-sheet"),
    ],
)
def test_a_good_answer_keeps_its_marks(sources, solved, released, marks, damage, note):
    handed_in = nbformat.reads(nbformat.writes(damage(copy.deepcopy(solved))), as_version=4)
    mended, notes = mend(handed_in, released(UNITS))
    assert notes == ([note] if note else [])
    assert mended.metadata == released(UNITS).metadata
    nbformat.validate(mended)
    assert marks(mended) == dict.fromkeys(TESTS, True)


def test_tests_are_restored_and_a_lost_answer_is_a_blank(solved, released, marks, edited):
    cheat = edited(
        solved, to_physical="def to_physical(*given):\n    return 0", **dict.fromkeys(TESTS, "pass")
    )
    mended, notes = mend(cheat, released(UNITS))
    assert notes == [f"edited and restored: {', '.join(TESTS)}"]
    assert marks(mended) == dict.fromkeys(TESTS, True) | {"test_to_physical": False}
    mended, notes = mend(without(copy.deepcopy(solved), "grey", "test_grey"), released(UNITS))
    assert notes == ["missing: grey, test_grey"]
    assert marks(mended) == dict.fromkeys(TESTS, True) | {"test_grey": False}


def test_work_of_the_student_stays_where_it_was(solved, released):
    note = nbformat.v4.new_markdown_cell("my notes")
    picture = {"a.png": {"image/png": "iVBORw0KGgo="}}
    solved.cells.insert(place(solved, "test_grey"), note)
    solved.cells[place(solved, "eight-bit-answer")]["attachments"] = picture
    mended, _ = mend(solved, released(UNITS))
    at = next(i for i, cell in enumerate(mended.cells) if cell.source == "my notes")
    assert [grade_id(mended.cells[i]) for i in (at - 1, at + 1)] == ["check_grey", "test_grey"]
    assert mended.cells[place(mended, "eight-bit-answer")].attachments == picture
    assert mended.cells[-1].source.startswith("# your work for part 9")


def test_of_doubled_cells_the_last_is_the_answer(solved, released):
    i = place(solved, "eight-bit-answer")
    solved.cells[i].source = "final"
    solved.cells.insert(i, copy.deepcopy(solved.cells[i]))
    solved.cells[i].source = "draft"
    mended, _ = mend(solved, released(UNITS))
    names = [grade_id(cell) for cell in mended.cells if grade_id(cell)]
    assert len(names) == len(set(names))
    assert len({cell.id for cell in mended.cells}) == len(mended.cells)
    assert mended.cells[place(mended, "eight-bit-answer")].source == "final"
    assert "draft" in [cell.source for cell in mended.cells]


def test_a_notebook_of_something_else_is_a_blank(released, marks):
    other = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print('hello')")])
    mended, notes = mend(other, released(UNITS))
    assert marks(mended) == dict.fromkeys(TESTS, False)
    assert notes[0].startswith("missing: about, install, setup")

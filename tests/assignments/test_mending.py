"""What happens to a notebook on its way to the teacher is undone.

The released notebook, the student's answers and own cells.
"""

import copy

import nbformat
import pytest

from ctmri_utils.course.mending import mend

UNITS = "01_units_windows_splits"
TESTS = [
    "test_to_physical",
    "test_grey",
    "test_window_error",
    "test_mri_to_network",
    "test_split_by_patient",
    "test_too_close",
]


def name_of(cell):
    return cell.metadata.get("nbgrader", {}).get("grade_id")


def place(notebook, name):
    return next(i for i, cell in enumerate(notebook.cells) if name_of(cell) == name)


def without(notebook, *names):
    notebook.cells = [cell for cell in notebook.cells if name_of(cell) not in names]
    return notebook


def through_colab(notebook):
    """As Colab saves it: other metadata, no cell ids, an older minor version.

    Nbgrader's names are kept.
    """
    notebook.metadata = {
        "colab": {"provenance": []},
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "accelerator": "GPU",
    }
    notebook.nbformat_minor = 0
    for number, cell in enumerate(notebook.cells):
        del cell["id"]
        cell.metadata = (
            {"nbgrader": cell.metadata.nbgrader, "id": f"aB{number}"}
            if "nbgrader" in cell.metadata
            else {"id": f"aB{number}"}
        )
        cell.metadata |= {"outputId": "1f-2e"} if cell.cell_type == "code" else {}
    return notebook


def bare(notebook):
    for cell in through_colab(notebook).cells:
        cell.metadata = {}
    return notebook


def doubled(notebook):
    i = place(notebook, "to_physical")
    notebook.cells.insert(i, copy.deepcopy(notebook.cells[i]))
    notebook.cells[i].source = "def to_physical(stored, gain, offset):\n    return stored"
    return notebook


def moved(notebook):
    notebook.cells = notebook.cells[::-1]
    return notebook


def as_text(notebook):
    i = place(notebook, "too_close")
    notebook.cells[i] = nbformat.v4.new_markdown_cell(
        notebook.cells[i].source, metadata=notebook.cells[i].metadata
    )
    return notebook


def other_kernel(notebook):
    notebook.metadata.kernelspec = {
        "name": "conda-env-mine-py",
        "display_name": "Mine",
        "language": "python",
    }
    return notebook


def own_helper(notebook):
    i = place(notebook, "window_error")
    notebook.cells.insert(
        i, nbformat.v4.new_code_cell(notebook.cells[i].source.replace("window_error", "helper"))
    )
    notebook.cells[
        i + 1
    ].source = (
        "def window_error(ct_hu, head, level, width):\n    return helper(ct_hu, head, level, width)"
    )
    return notebook


@pytest.mark.parametrize(
    "damage, note",
    [
        (lambda notebook: notebook, None),
        (through_colab, None),
        (moved, None),
        (doubled, None),
        (as_text, None),
        (other_kernel, None),
        (own_helper, None),
        (
            bare,
            "without its name: to_physical, grey, window_error, mri_to_network, split_by_patient, "
            "too_close, eight-bit-answer, table-answer",
        ),
        (lambda notebook: without(notebook, *TESTS), f"missing: {', '.join(TESTS)}"),
        (
            lambda notebook: without(
                notebook, "about", "setup", "stored-question", "data-sheet", "table-answer"
            ),
            "missing: about, setup, stored-question, table-answer, data-sheet",
        ),
    ],
    ids=[
        "untouched",
        "colab",
        "moved",
        "doubled",
        "as text",
        "other kernel",
        "own helper",
        "bare",
        "no tests",
        "no questions",
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
    note, picture = (
        nbformat.v4.new_markdown_cell("my notes"),
        {"a.png": {"image/png": "iVBORw0KGgo="}},
    )
    solved.cells.insert(place(solved, "test_grey"), note)
    solved.cells[place(solved, "eight-bit-answer")]["attachments"] = picture
    mended, _ = mend(solved, released(UNITS))
    at = next(i for i, cell in enumerate(mended.cells) if cell.source == "my notes")
    assert [name_of(mended.cells[i]) for i in (at - 1, at + 1)] == ["check_grey", "test_grey"]
    assert mended.cells[place(mended, "eight-bit-answer")].attachments == picture
    assert mended.cells[-1].source.startswith("# your work for part 9")


def test_of_doubled_cells_the_last_is_the_answer(solved, released):
    i = place(solved, "eight-bit-answer")
    solved.cells[i].source = "final"
    solved.cells.insert(i, copy.deepcopy(solved.cells[i]))
    solved.cells[i].source = "draft"
    mended, _ = mend(solved, released(UNITS))
    names = [name_of(cell) for cell in mended.cells if name_of(cell)]
    assert len(names) == len(set(names)) and len({cell.id for cell in mended.cells}) == len(
        mended.cells
    )
    assert mended.cells[place(mended, "eight-bit-answer")].source == "final"
    assert "draft" in [cell.source for cell in mended.cells]


def test_a_notebook_of_something_else_is_a_blank(released, marks):
    other = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print('hello')")])
    mended, notes = mend(other, released(UNITS))
    assert marks(mended) == dict.fromkeys(TESTS, False) and notes[0].startswith(
        "missing: about, install, setup"
    )

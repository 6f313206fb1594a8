"""Every test cell tells wrong answers, such as students give, from right ones, however they are
written.

The answers stand in answers_NN.toml.
"""

import tomllib
from pathlib import Path

import pytest

FILES = sorted(Path(__file__).parent.glob("answers_*.toml"))
ANSWERS = [tomllib.loads(path.read_text(encoding="utf-8")) for path in FILES]
WRONG = [
    pytest.param(book["NAME"], cell, text, id=f"{book['NAME'][:2]} {cell}: {why}")
    for book in ANSWERS
    for cell, texts in book["WRONG"].items()
    for why, text in texts.items()
]
RIGHT = [
    pytest.param(book["NAME"], cell, text, id=f"{book['NAME'][:2]} {cell} {number}")
    for book in ANSWERS
    for cell, texts in book["RIGHT"].items()
    for number, text in enumerate(texts, 1)
]


@pytest.mark.parametrize("name, cell, text", WRONG)
def test_wrong_answer_loses_its_marks_and_no_others(answered, name, cell, text):
    errors = {test: error for test, error in answered(name, cell, text).items() if error}
    assert list(errors) == [f"test_{cell}"]
    assert not isinstance(errors[f"test_{cell}"], (NameError, SyntaxError, TypeError)), errors


@pytest.mark.parametrize("name, cell, text", RIGHT)
def test_right_answer_keeps_its_marks(answered, name, cell, text):
    assert set(answered(name, cell, text).values()) == {None}


def test_a_blank_earns_nothing(sources, released, marks):
    for name in sources:
        assert list(marks(released(name), name).values()) == [False] * 6


def test_every_autograded_cell_has_wrong_and_right_answers(sources):
    assert [book["NAME"] for book in ANSWERS] == list(sources)
    for book, notebook in zip(ANSWERS, sources.values(), strict=True):
        graded = {
            cell.metadata.nbgrader.grade_id
            for cell in notebook.cells
            if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("grade")
        }
        for kind, least in (("WRONG", 3), ("RIGHT", 2)):
            assert {f"test_{cell}" for cell in book[kind]} == graded
            assert min(map(len, book[kind].values())) >= least

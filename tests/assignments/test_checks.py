"""Students' own checks: they find what answers_NN.toml calls wrong, hint, and give nothing away."""

import contextlib
import copy
import io
import re
import socket
import tomllib
import warnings
from pathlib import Path

import pytest

from ctmri_utils.course.classroom.notebook_files import grade_id
from ctmri_utils.teaching import check_answer
from ctmri_utils.teaching.checking import CHECKS, checks_of

FILES = sorted(Path(__file__).parent.glob("answers_*.toml"))
BOOKS = [tomllib.loads(path.read_text(encoding="utf-8")) for path in FILES]


def printed(notebook, answer, text=None):
    """What the check of one answer prints, the answer being replaced by `text`."""
    names = {}
    output = io.StringIO()
    with contextlib.redirect_stdout(output), warnings.catch_warnings(action="ignore"):
        for cell in notebook.cells:
            if grade_id(cell) == f"check_{answer}":
                exec(cell.source, names)
                return output.getvalue()
            is_answer = cell.metadata.get("nbgrader", {}).get("solution")
            if cell.cell_type != "code" or not (is_answer or grade_id(cell) == "setup"):
                continue
            own = text is not None and grade_id(cell) == answer
            exec(text if own else cell.source, names)
            output.seek(0)
            output.truncate()
    raise AssertionError(f"{answer} has no check")


ANSWERS = [(book["NAME"], answer) for book in BOOKS for answer in book["WRONG"]]


@pytest.fixture
def offline(monkeypatch):
    def refuse(*given, **options):
        raise AssertionError("a check uses the network")

    monkeypatch.setattr(socket, "socket", refuse)


@pytest.mark.parametrize("name, answer", ANSWERS)
def test_a_check_knows_right_blank_and_wrong(sources, released, offline, name, answer):
    book = next(book for book in BOOKS if book["NAME"] == name)
    right = printed(copy.deepcopy(sources[name]), answer)
    assert "every check holds" in right and "Hint" not in right
    for text in book["RIGHT"][answer]:
        assert "every check holds" in printed(sources[name], answer, text)

    blank = printed(released(name), answer)
    assert blank.endswith("is not answered yet\n") and "[ok]" not in blank

    outputs = [printed(sources[name], answer, text) for text in book["WRONG"][answer].values()]
    hints = [output for output in outputs if "Hint: " in output]
    # The tests ask for more, or there would be nothing left to think about.
    assert len(hints) >= 2, outputs


def test_hints_give_no_answer_away(sources):
    for name, notebook in sources.items():
        solutions = "\n".join(cell.source for cell in notebook.cells if "SOLUTION" in cell.source)
        lines = {line.strip() for line in solutions.splitlines() if len(line.strip()) > 25}
        number = name[1]
        for part in range(1, 7):
            for check in checks_of(f"A{number}.{part}"):
                assert check.hint not in solutions and not lines & {check.hint, check.claim}
                assert not re.search(r"\d\.\d\d", check.hint)
    assert sum(key.startswith("A") for key in CHECKS) == 24


def test_an_unknown_part_and_an_odd_answer(capsys):
    with pytest.raises(ValueError, match="no checks for 'A9.1'"):
        check_answer("A9.1", None)
    check_answer("A1.1", "no function")
    assert "stopped with TypeError" in capsys.readouterr().out


def test_the_install_cell_installs_nothing_where_the_package_is(released, sources):
    for name in sources:
        [install] = [cell for cell in released(name).cells if grade_id(cell) == "install"]
        assert 'find_spec("ctmri_utils") is None' in install.source

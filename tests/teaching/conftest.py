"""Answers to the exercises, and what is printed about them."""

import pytest

from ctmri_utils.teaching import check_answer


@pytest.fixture
def passes(capsys):
    """Checks that an answer is right: (part, answers)."""

    def check(part, *answers):
        check_answer(part, *answers)
        printed = capsys.readouterr().out
        assert printed.endswith(f"{part}: every check holds.\n"), printed

    return check


@pytest.fixture
def gets_a_hint(capsys):
    """Checks that an answer gets one hint, with these words in it, or stops a check."""

    def check(part, *answers, hint="", stops=False):
        check_answer(part, *answers)
        printed = capsys.readouterr().out
        assert printed.count("Hint: ") == 1 and "every check holds" not in printed, printed
        assert hint in printed and ("stopped with" in printed) == stops, printed

    return check

"""Every exercise has checks, and they say nothing before there is an answer."""

import importlib

import pytest

from ctmri_utils.teaching import check_answer
from ctmri_utils.teaching.checking import CHECKS


@pytest.mark.parametrize("lesson", range(1, 9))
def test_no_answer_yet_gets_no_hint(lesson, capsys):
    importlib.import_module(f"ctmri_utils.teaching.exercises_{lesson}")
    parts = [part for part in CHECKS if part.startswith(f"{lesson}.")]
    assert len(parts) >= 3
    for part in parts:
        check_answer(part, None)
        assert capsys.readouterr().out == f"[    ] {part} is not answered yet\n"

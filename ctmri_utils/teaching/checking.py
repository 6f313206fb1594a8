"""Students check their own answers: what holds, what does not, and a hint, but no solution.

The checks of assignment N stand in `checks_N.py`, those of lesson N in `exercises_N.py`.

The checks need no network and no files, so they work in JupyterLab, Colab and Kaggle alike. They
never raise, and they never change a mark: marks come from the tests.
"""

from __future__ import annotations

import importlib
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One thing that a right answer does.

    Args:
        claim: what it does, as a sentence about "your answer".
        hint: what to think about if it does not.
        holds: takes the answers and returns whether the claim holds.
    """

    claim: str
    hint: str
    holds: Callable[..., bool]


CHECKS: dict[str, list[Check]] = defaultdict(list)


def check(part: str, claim: str, hint: str) -> Callable:
    """Add the function below as a check of a part, such as "A1.3" or "3.2" (see `check_answer`)."""

    def add(holds: Callable[..., bool]) -> Callable[..., bool]:
        CHECKS[part].append(Check(claim, hint, holds))
        return holds

    return add


def refuses(function: Callable, *arguments: object) -> bool:
    """Whether a function raises ValueError, for a check."""
    try:
        function(*arguments)
    except ValueError:
        return True
    return False


def check_answer(part: str, *answers: object) -> None:
    """Say what is right about an answer, and give a hint for the first thing that is not.

    Args:
        part: "A1.3" is part 3 of assignment 1, "3.2" exercise 2 of lesson 3.
        *answers: the functions or values that the part asks for, in its order; one that is still
            None is not answered yet.

    Raises:
        ValueError: there is no such part.
    """
    checks = checks_of(part)
    if any(answer is None for answer in answers):
        print(f"[    ] {part} is not answered yet")
        return

    for check in checks:
        problem = problem_of(check, answers)
        if problem is None:
            print(f"[ok]   {check.claim}")
        elif problem == "unanswered":
            print(f"[    ] {part} is not answered yet")
            return
        else:
            print(f"[open] {check.claim}{problem}\n       Hint: {check.hint}")
            return
    more = " The test below checks more than these do." if part.startswith("A") else ""
    print(f"{part}: every check holds.{more}")


def checks_of(part: str) -> list[Check]:
    """The checks of a part; the file in which they stand is loaded when they are first needed."""
    known = re.match(r"(A?)([1-9])\.", part)
    if part not in CHECKS and known:
        file = f"{'checks' if known[1] else 'exercises'}_{known[2]}"
        try:
            importlib.import_module(f".{file}", __package__)
        except ModuleNotFoundError as error:
            if file not in str(error):
                raise
    if part not in CHECKS:
        raise ValueError(f"there are no checks for {part!r}: take its name from the notebook")
    return CHECKS[part]


def problem_of(check: Check, answers: tuple) -> str | None:
    """None if the claim holds, "unanswered", or what to print behind the claim."""
    try:
        return None if check.holds(*answers) else ""
    except NotImplementedError:
        return "unanswered"
    except Exception as error:
        # An answer may do anything at all.
        return f" (it stopped with {type(error).__name__}: {error})"

"""Every error of the package is one sentence that says what is wrong and what would be right.

The wording of an error is checked here, by one rule; elsewhere tests look at its type and at what
was kept.
"""

import ast
import re
from pathlib import Path

import pytest

import ctmri_utils

PACKAGE = Path(ctmri_utils.__file__).parent

# What to do stands behind a colon or semicolon, or the sentence says what is needed.
ADVICE = re.compile(r"[:;] |\b(needs?|needed|should|must|at most|at least)\b")

# Their messages are parts of a sentence, which the caller completes.
PARTS = {"BadSlice", "NotANotebook", "TypeError", "zipfile.BadZipFile"}
PART_BEGINNINGS = ("{} MB, ", "its ", "it has ", "{} x {} pixels")


def message(node):
    """The text of a message, with {} for each value in it; "" if it is written elsewhere."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
        return "".join(parts)
    return ""


def raised(source):
    """(line, class, message) of every error that a source raises with a message of its own."""
    errors = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            text = message(node.exc.args[0])
            if re.search(r"[a-z]{3}", text):
                errors.append((node.lineno, ast.unparse(node.exc.func), text))
    return errors


def faults(text):
    """What the rule says against the text of an error."""
    complaints = []
    if "\n" in text or re.search(r"[.!?] [A-Z]", text):
        complaints.append("more than one sentence")
    if text.endswith("."):
        complaints.append("it ends with a full stop")
    if not ADVICE.search(text):
        complaints.append("it does not say what would be right")
    if len(text) > 400:
        complaints.append("too long to be read")
    if re.search(r"\bdelete (it|the file)\b", text):
        complaints.append("it advises to delete something")
    return complaints


ERRORS = [
    pytest.param(text, id=f"{path.relative_to(PACKAGE)}:{line}")
    for path in sorted(PACKAGE.rglob("*.py"))
    for line, kind, text in raised(path.read_text(encoding="utf-8"))
    if kind not in PARTS and not text.startswith(PART_BEGINNINGS)
]


def test_the_rule_sees_the_errors():
    assert len(ERRORS) > 200


@pytest.mark.parametrize("text", ERRORS)
def test_an_error_is_one_sentence_with_advice(text):
    assert faults(text) == [], text


@pytest.mark.parametrize(
    "text",
    [
        "it is broken (by {})",
        "it is broken: choose another.",
        "{} is broken. Try again: choose another",
        "{} cannot be read: delete it",
        "{} is broken:\nchoose another",
    ],
)
def test_the_rule_bites(text):
    assert faults(text)

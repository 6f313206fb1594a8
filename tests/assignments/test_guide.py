"""The instructor's guide: what it says of lessons, files and options is so."""

import re

import nbformat
import pytest

from ctmri_utils.machine import CHECKOUT

NOTEBOOKS = CHECKOUT / "notebooks"
GUIDE = (NOTEBOOKS / "assignments" / "README.md").read_text(encoding="utf-8")


def chapter(title):
    """All between one heading of the guide and the next."""
    return re.search(rf"^## {re.escape(title)}.*?\n(.+?)(?=^## |\Z)", GUIDE, flags=re.M | re.S)[1]


@pytest.fixture(scope="module")
def sections():
    """The numbers of all sections of all lessons."""
    numbers = set()
    for path in NOTEBOOKS.glob("0*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            numbers |= set(re.findall(r"^## (\d\.\d+) ", cell.source, flags=re.M))
    return numbers


@pytest.mark.parametrize("title", ["A semester", "A workshop"])
def test_sections_that_the_plans_name_exist(sections, title):
    named = set(re.findall(r"\b\d\.\d+\b", chapter(title)))
    assert len(named) > 5 and named <= sections


def test_the_numbers_of_parts_are_those_of_parts_csv(sources):
    parts = set(re.findall(r"^\| (\d\.\d) \|", chapter("Common wrong answers"), flags=re.M))
    known = {f"{name[1]}.{number}" for name in sources for number in range(1, 10)}
    assert len(parts) > 15 and parts <= known


def test_the_guide_names_every_assignment_by_its_file(sources):
    assert all(f"| `{name}` |" in GUIDE for name in sources)

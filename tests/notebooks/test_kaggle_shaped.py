"""What lessons do with a set shaped as Kaggle's is, which has no HU.

Here run the sections that look at the data set or use its networks; the nightly workflow runs every
lesson as a whole.
"""

import re
from pathlib import Path

import kaggle_shaped
import nbformat
import pytest
import rules

from ctmri_utils.__main__ import main
from ctmri_utils.course.lessons import run_course

SECTIONS = {
    "04_evaluate_translations": ("4.1", "4.8"),
    "05_compare_real_and_translated": ("5.1", "5.4", "5.5"),
    "08_translate_a_volume": ("8.2", "8.6"),
}

pytestmark = pytest.mark.timeout(900)


def write_sections(folder: Path, name: str, kept: tuple[str, ...]) -> None:
    """Write a lesson without its other sections."""
    notebook = nbformat.read(rules.ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    cells, section = [], None
    for cell in notebook.cells:
        headings = re.findall(r"^## (\d\.\d+)", cell.source, flags=re.M)
        section = headings[-1] if headings else section
        if section is None or section in kept:
            cells.append(cell)

    notebook.cells = cells
    folder.mkdir(exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Where the lessons ran, after a training of two steps in place of lesson 3's."""
    root = tmp_path_factory.mktemp("kaggle")
    dataset, build = kaggle_shaped.write(root / "ct-to-mri-cgan"), root / "build"
    run = build / "runs" / "ct-to-mri-cgan-ci-2026"
    command = ["train", "--dataset", str(dataset), "--profile", "ci", "--steps", "2"]
    assert main([*command, "--output", str(run)]) == 0

    for name, kept in SECTIONS.items():
        write_sections(root / "notebooks", name, kept)
    run_course("ci", build, None, {"DATASET": str(dataset)}, root / "notebooks")
    return build


def printed(build, name):
    cells = nbformat.read(build / f"{name}.ipynb", as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


def test_lesson_4_claims_nothing_in_hu_of_a_set_without(build):
    text = printed(build, "04_evaluate_translations")
    assert "ct-to-mri-cgan: your own training run, 2 steps" in text
    assert "this set's CT is in grey level" in text
    assert "cycle error of the MR slices" in text
    assert "the CT of this data set is not in HU" in text and "HU distribution" not in text


def test_lesson_5_shows_grey_levels_and_subtracts_no_mr_from_ct(build):
    text = printed(build, "05_compare_real_and_translated")
    assert "20 file(s) hold grey stored as colour" in text
    [modes] = re.findall("grey level and MR grey level can be compared by (.*)", text)
    assert "wipe" in modes and "difference" not in modes
    assert re.search(r"mean round-trip error where CT is bright +\d+ grey level", text)


def test_lesson_8_translates_volumes_by_networks_that_know_hu(build):
    text = printed(build, "08_translate_a_volume")
    assert "ct-to-mri-cgan: your own training run, 2 steps" in text
    assert "The first pair knows no HU, so the second stands in for it." in text

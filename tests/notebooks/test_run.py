"""The lessons run (PROFILE=ci, by papermill, in order), print the same when run again (nbval), and
describe their pictures.

The tests of this file follow each other on one worker (`--dist loadfile`): lesson 04 reads what 03
trained.
"""

import html.parser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import nbformat.v4 as nb
import pytest
import rules

from ctmri_utils.course.lessons import run_course
from ctmri_utils.course.site.notebook_pages import without_kernel

BUILD = rules.ROOT / "build" / "ci"


def nbval(executed: Path) -> subprocess.CompletedProcess:
    """Run an executed copy again, with the parameters it was given, and compare its marked cells
    letter by letter.
    """
    sanitize = Path(__file__).with_name("sanitize.cfg")
    flags = [
        "--nbval-lax",
        "--nbval-current-env",
        "--nbval-cell-timeout=300",
        f"--nbval-sanitize-with={sanitize}",
    ]
    plain = [
        "-q",
        "-p",
        "no:playwright",
        "-p",
        "no:cacheprovider",
        "-o",
        "addopts=",
        "-o",
        "timeout=0",
        "-c",
        os.devnull,
    ]
    paths = [str(rules.ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "CTMRI_BUILD": str(executed.parent),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            *flags,
            *plain,
            f"--rootdir={executed.parent}",
            str(executed),
        ],
        capture_output=True,
        text=True,
        env=environment,
    )


def compared_cells(executed: Path) -> int:
    """How many cells nbval compares for their text.

    Marked, run, and with text that is not the mere name of an object.
    """

    def text(output):
        return output.get("text") or output.get("data", {}).get("text/plain", "")

    cells = [
        cell
        for cell in nbformat.read(executed, as_version=4).cells
        if "nbval-check-output" in cell.metadata.get("tags", [])
    ]
    return sum(
        bool(cell.execution_count)
        and any(
            text(output).strip() and not text(output).startswith("<") for output in cell.outputs
        )
        for cell in cells
    )


class Pictures(html.parser.HTMLParser):
    """Collects the alt text of every picture of a page, None where it lacks one."""

    def __init__(self, page: str):
        super().__init__()
        self.alts = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.alts.append(dict(attributes).get("alt"))


@pytest.fixture(scope="session")
def fresh_build():
    shutil.rmtree(BUILD, ignore_errors=True)
    return BUILD


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", rules.LESSONS)
def test_lesson_runs(name, fresh_build):
    [executed] = run_course("ci", fresh_build, lessons=[int(name[:2])])
    assert executed.notebook == fresh_build / f"{name}.ipynb"
    assert compared_cells(executed.notebook) >= 5


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", rules.LESSONS)
def test_lesson_prints_the_same_again(name):
    again = nbval(BUILD / f"{name}.ipynb")
    assert again.returncode == 0, again.stdout[-6000:]


@pytest.mark.parametrize("name", rules.LESSONS)
def test_every_picture_on_the_page_is_described(name, tmp_path):
    notebook = nbformat.read(BUILD / f"{name}.ipynb", as_version=4)
    without_kernel(notebook, tmp_path, "figures")
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    kinds = [set(output.get("data", {})) for output in outputs]
    assert all("text/html" in kind or kind <= {"text/plain", "text/markdown"} for kind in kinds)

    alts = Pictures("".join(output.get("data", {}).get("text/html", "") for output in outputs)).alts
    assert alts and all(alts), alts


def tiny_lesson(folder: Path, *sources: str) -> Path:
    """A lesson 01_tiny.ipynb: a parameters cell and the given cells, all marked to compare."""
    cells = [nb.new_code_cell('PROFILE = "laptop"\nSEED = 0', metadata={"tags": ["parameters"]})]
    cells += [
        nb.new_code_cell(source, metadata={"tags": ["nbval-check-output"]}) for source in sources
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(
        nb.new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / "01_tiny.ipynb"
    )
    return folder


def executed_copy(tmp_path: Path, *sources: str) -> Path:
    [executed] = run_course(
        "ci", tmp_path / "build", notebooks=tiny_lesson(tmp_path / "notebooks", *sources)
    )
    return executed.notebook


def test_nbval_passes_what_repeats_and_bites_on_a_changed_number(tmp_path):
    copy = executed_copy(
        tmp_path,
        "import random",
        "random.seed(SEED)\nprint(PROFILE, round(random.random(), 3))",
        "object()",
    )
    assert compared_cells(copy) == 1
    kept = nbval(copy)
    assert kept.returncode == 0, kept.stdout

    text = copy.read_text(encoding="utf-8")
    assert "ci 0.844" in text
    copy.write_text(text.replace("ci 0.844", "ci 0.845"), encoding="utf-8")
    bitten = nbval(copy)
    assert bitten.returncode == 1
    assert "1 failed, 4 passed" in bitten.stdout


def test_nbval_bites_on_an_unseeded_number_and_on_a_broken_slider(tmp_path):
    copy = executed_copy(
        tmp_path,
        "import random\n\nfrom ipywidgets import interact",
        "print(random.random())",
        "@interact(level=(0, 9))\ndef look(level):\n    raise ValueError('the picture is missing')",
    )
    bitten = nbval(copy)
    assert bitten.returncode == 1
    assert "2 failed" in bitten.stdout

"""What students get: a repository of the released notebooks, with links and a workflow."""

from __future__ import annotations

import shutil
import tomllib
from importlib.metadata import metadata
from pathlib import Path

from ..files import remove
from ..machine import CHECKOUT

COLAB = "https://colab.research.google.com"
KAGGLE = "https://www.kaggle.com/kernels/welcome?src="

# The branch that holds the template's files, and nothing else.
BRANCH = "assignments"

PAGE = """# Assignments

| assignment | in the browser |
|---|---|
{rows}

Work in JupyterLab, Colab or Kaggle (on Kaggle, switch *Internet* on once, for the first cell).
Below each answer, `check_answer` says what holds already and gives a hint; the test below it counts
as one part of the marks. Hand in the notebook itself: *File > Download > Download .ipynb*, or push
it, and read in *Actions* what the visible tests say.
"""


def repository() -> str:
    """The address of the course's repository, from pyproject.toml or the installed package."""
    if CHECKOUT is None:
        addresses = metadata("ctmri-utils").get_all("Project-URL")
        named = dict(line.split(", ") for line in addresses)
        return named["Repository"].removesuffix("/")
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["urls"]["Repository"].removesuffix("/")


def open_links(place: str, address: str) -> tuple[str, str]:
    """Where a notebook opens in Colab and in Kaggle, once it is pushed.

    Args:
        place: its path below the repository's address, such as blob/main/notebooks/x.ipynb.
        address: of the repository.
    """
    path = address.removeprefix("https://github.com/")
    return f"{COLAB}/github/{path}/{place}", f"{KAGGLE}{address}/{place}"


def write_template(notebooks: dict[str, Path], folder: Path, address: str) -> None:
    """Write the repository that is pushed as branch `assignments`, or given to GitHub Classroom.

    Args:
        notebooks: {assignment: its student version}.
        folder: is replaced.
        address: of the course's repository.
    """
    remove(folder)
    rows = []
    for name, notebook in notebooks.items():
        (folder / name).mkdir(parents=True)
        shutil.copy(notebook, folder / name / f"{name}.ipynb")
        colab, kaggle = open_links(f"blob/{BRANCH}/{name}/{name}.ipynb", address)
        rows.append(f"| [{name}]({name}/{name}.ipynb) | [Colab]({colab}), [Kaggle]({kaggle}) |")
    (folder / "README.md").write_text(PAGE.format(rows="\n".join(rows)), encoding="utf-8")

    workflows = folder / ".github" / "workflows"
    workflows.mkdir(parents=True)
    workflow = (CHECKOUT / ".github" / "classroom" / "classroom.yml").read_text(encoding="utf-8")
    text = workflow.replace("REPOSITORY", address)
    (workflows / "classroom.yml").write_text(text, encoding="utf-8")

"""Release the assignments: a zip for each, and a repository of all of them for students."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from ...files import remove
from ...machine import CHECKOUT, build_folder
from ..addresses import open_links, repository
from .nbgrader_course import generate, open_course

# The branch that holds the students' repository, and nothing else.
BRANCH = "assignments"

PAGE = Path(__file__).with_name("students_page.md")


def release(output: Path | None = None, root: Path | None = None) -> list[Path]:
    """Generate the student version of every assignment and zip it.

    Args:
        output: a folder for the zips, by default build/assignments.
        root: see `open_course`.

    Returns:
        The zips, output/NAME.zip with NAME/NAME.ipynb inside. Beside them lies output/classroom,
        the same notebooks as a repository with links to Colab and Kaggle, see `write_template`.

    Raises:
        ValueError: a source is not in order; with nbgrader's reason.
    """
    output = Path(output or build_folder() / "assignments")
    output.mkdir(parents=True, exist_ok=True)
    notebooks = generate(open_course(root))
    zips = []
    for name, notebook in notebooks.items():
        path = output / f"{name}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(notebook, f"{name}/{name}.ipynb")
        zips.append(path)
    write_template(notebooks, output / "classroom")
    return zips


def write_template(notebooks: dict[str, Path], folder: Path) -> None:
    """Write the repository that is pushed as branch `assignments`, or given to GitHub Classroom.

    Args:
        notebooks: {assignment: its student version}.
        folder: is replaced.
    """
    remove(folder)
    address = repository()
    rows = []
    for name, notebook in notebooks.items():
        (folder / name).mkdir(parents=True)
        shutil.copy(notebook, folder / name / f"{name}.ipynb")
        colab, kaggle = open_links(f"blob/{BRANCH}/{name}/{name}.ipynb", address)
        rows.append(f"| [{name}]({name}/{name}.ipynb) | [Colab]({colab}), [Kaggle]({kaggle}) |")
    page = PAGE.read_text(encoding="utf-8").replace("ROWS", "\n".join(rows))
    (folder / "README.md").write_text(page, encoding="utf-8")

    workflow = (CHECKOUT / ".github" / "classroom" / "classroom.yml").read_text(encoding="utf-8")
    workflows = folder / ".github" / "workflows"
    workflows.mkdir(parents=True)
    text = workflow.replace("REPOSITORY", address)
    (workflows / "classroom.yml").write_text(text, encoding="utf-8")

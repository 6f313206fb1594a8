"""Grade notebooks by their visible tests, in a student's own repository.

`python -m ctmri_utils.course.visible FOLDER` is what the workflow of GitHub Classroom runs; as
students' repositories hold that line, this module stays where it is. The hidden tests, and the
marks that count, stay with the teacher.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path

from nbformat import NotebookNode

from .classroom.notebook_files import read_notebook

CELL_SECONDS = 60


def visible_marks(path: Path) -> list[dict]:
    """Run a notebook and look at its tests.

    Args:
        path: a released notebook with answers in it.

    Returns:
        For each test, as GitHub Classroom's reporter reads it: name, status, score, max_score and,
        if it failed, message.
    """
    from nbclient import NotebookClient

    notebook = read_notebook(path.read_bytes(), path.name)
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        allow_errors=True,
        interrupt_on_timeout=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()

    tests = []
    for cell in notebook.cells:
        nbgrader = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "code" and nbgrader.get("grade"):
            tests.append(mark(cell, nbgrader["grade_id"], nbgrader["points"]))
    return tests


def mark(cell: NotebookNode, name: str, points: float) -> dict:
    """What one executed test is worth."""
    passed = {"name": name, "status": "pass", "score": points, "max_score": points}
    errors = [output for output in cell.outputs if output.output_type == "error"]
    if not errors:
        return passed
    message = f"{errors[0].ename}: {errors[0].evalue}"
    return passed | {"status": "fail", "score": 0, "message": message}


def result_of(tests: list[dict]) -> str:
    """The tests in the form that GitHub Classroom's reporter takes from a step's output."""
    failed = any(test["status"] == "fail" for test in tests)
    result = {
        "version": 1,
        "status": "fail" if failed else "pass",
        "max_score": sum(test["max_score"] for test in tests),
        "tests": tests,
    }
    return base64.b64encode(json.dumps(result).encode()).decode()


def main(folder: Path) -> None:
    """Print a line for each test, and hand the result to GitHub if this runs there."""
    tests = []
    for path in sorted(folder.glob("[0-9][0-9]_*/[0-9][0-9]_*.ipynb")):
        print(path.stem)
        for test in visible_marks(path):
            message = test.get("message", "")
            print(f"  {test['score']:g} of {test['max_score']:g}  {test['name']}  {message}")
            tests.append({**test, "name": f"{path.stem}: {test['name']}"})
    if not tests:
        sys.exit(f"{folder} holds no assignment (looked for NN_name/NN_name.ipynb)")

    earned = sum(test["score"] for test in tests)
    print(f"{earned:g} of {sum(test['max_score'] for test in tests):g} by the visible tests")
    if "GITHUB_OUTPUT" in os.environ:
        with open(os.environ["GITHUB_OUTPUT"], "a", encoding="utf-8") as file:
            file.write(f"result={result_of(tests)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))

"""The page of feedback that a student gets for one notebook."""

from __future__ import annotations

import re
from pathlib import Path

from nbconvert.exporters import HTMLExporter
from nbformat import NotebookNode
from nbgrader.preprocessors import GetGrades
from nbgrader.utils import is_grade, is_task

from .notebook_files import grade_id

# The folder that holds the folder of the template.
TEMPLATES = Path(__file__).parent

NOT_GRADED = "not graded yet"
MARK_SCHEME = re.compile(r"^=== (BEGIN|END) MARK SCHEME ===$", flags=re.M)


class FeedbackPage(HTMLExporter):
    """Makes a page of a graded notebook.

    It is a class of its own, so that nbgrader_config.py can give it a template without changing
    that of nbgrader's form.
    """


class FeedbackGrades(GetGrades):
    """Puts points, comments and the titles of the parts into a graded notebook."""

    def preprocess(self, nb, resources):
        nb, resources = super().preprocess(nb, resources)

        # Grading does not run the students' own checks, so they would be empty.
        nb.cells = [cell for cell in nb.cells if not grade_id(cell).startswith("check_")]

        titles = part_titles(nb)
        parts = []
        for cell in nb.cells:
            if grade_id(cell) in titles:
                cell.source = MARK_SCHEME.sub(scheme_heading, cell.source)
                cell.metadata.nbgrader["title"] = titles[grade_id(cell)]
                parts.append(cell.metadata.nbgrader)
        resources["nbgrader"]["parts"] = parts
        return nb, resources

    def _get_score(self, cell, resources):
        super()._get_score(cell, resources)
        names = (grade_id(cell), self.notebook_id, self.assignment_id, self.student_id)
        grade = self.gradebook.find_grade(*names)

        part = cell.metadata.nbgrader
        is_open = grade.needs_manual_grade and grade.manual_score is None
        part["result"] = NOT_GRADED if is_open else f"{grade.score:g} of {grade.max_score:g}"


def part_titles(notebook: NotebookNode) -> dict[str, str]:
    """{name of a graded cell: title of its question, such as "5. Split by patient"}, in order."""
    titles = {}
    title = ""
    for cell in notebook.cells:
        heading = re.match(r"## (\d+\. [^(\n]+)", cell.source)
        if heading and cell.cell_type == "markdown":
            title = heading[1].strip()
        if is_grade(cell) or is_task(cell):
            titles[grade_id(cell)] = title or grade_id(cell)
    return titles


def scheme_heading(line: re.Match) -> str:
    """What stands on the page for a line that marks the beginning or end of a mark scheme."""
    return "**How it is marked:**\n" if line[1] == "BEGIN" else ""

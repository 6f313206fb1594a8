"""Marks given by hand: they stay while the answer does, and are asked for again when it changes."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbformat import NotebookNode
    from nbgrader.api import Gradebook
    from nbgrader.apps import NbGraderAPI


def answers(notebook: NotebookNode) -> dict[str, list]:
    """What a student has written for each part.

    Args:
        notebook: a mended one.

    Returns:
        {name of a cell of the assignment: what the student wrote into it and behind it}.
    """
    texts = defaultdict(list)
    name = None
    for cell in notebook.cells:
        part = cell.metadata.get("nbgrader")
        if part:
            name = part.grade_id
        if not part or part.solution:
            texts[name].append((cell.source, cell.get("attachments")))
    return texts


def changed_parts(
    api: NbGraderAPI,
    student: str,
    assignment: str,
    graded: NotebookNode | None,
    submitted: NotebookNode,
) -> tuple[list[str], list[str]]:
    """Find the parts with marks by hand whose answer has changed, and ask for those marks again.

    Args:
        api: of the course.
        student: whose answers these are.
        assignment: its name.
        graded: the notebook that was graded last, mended; None if there is none.
        submitted: the notebook that is going to be graded, mended.

    Returns:
        The parts that have changed since they were marked, and those whose mark still holds.
    """
    if graded is None:
        return [], []
    old_answers = answers(graded)
    new_answers = answers(submitted)
    changed = []
    marked = []
    with api.gradebook as gradebook:
        for grade in grades_by_hand(gradebook, student, assignment):
            # The answer that a test checks stands in a cell of its own.
            cell = grade.name.removeprefix("test_")
            if grade.needs_manual_grade or old_answers.get(cell) != new_answers.get(cell):
                grade.needs_manual_grade = True
                changed.append(grade.name)
            else:
                marked.append(grade.name)
        gradebook.db.commit()
    return changed, marked


def keep_marked(api: NbGraderAPI, student: str, assignment: str, marked: list[str]) -> None:
    """Undo that nbgrader asks for these parts to be marked again after each grading."""
    with api.gradebook as gradebook:
        for grade in grades_by_hand(gradebook, student, assignment):
            if grade.name in marked:
                grade.needs_manual_grade = False
        gradebook.db.commit()


def grades_by_hand(gradebook: Gradebook, student: str, assignment: str) -> list:
    """The gradebook's grades that were given by hand."""
    from nbgrader.api import MissingEntry

    try:
        submission = gradebook.find_submission(assignment, student)
    except MissingEntry:
        return []
    grades = [grade for notebook in submission.notebooks for grade in notebook.grades]
    return [grade for grade in grades if grade.manual_score is not None]

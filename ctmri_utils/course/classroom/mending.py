"""Mending of submitted notebooks: the released notebook, with the student's work put into it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from .notebook_files import grade_id

if TYPE_CHECKING:
    from nbformat import NotebookNode


def mend(submission: NotebookNode, released: NotebookNode) -> tuple[NotebookNode, list[str]]:
    """Put the student's answers and own cells into the released notebook.

    This undoes what happens to notebooks on their way: deleted, moved, doubled or edited cells of
    the assignment, lost or foreign metadata, a changed kernel or cell type.

    Args:
        submission: the student's notebook; its cells may be changed.
        released: the notebook that was handed out; it is filled.

    Returns:
        The filled notebook, and notes on what had to be mended.
    """
    assigned = {
        cell.metadata.nbgrader.grade_id: cell
        for cell in released.cells
        if "nbgrader" in cell.metadata
    }
    answers = {name for name, cell in assigned.items() if cell.metadata.nbgrader.solution}
    known_names = names_of_cells(submission, assigned, answers)
    names = with_guessed_answers(known_names, submission, assigned, answers)

    # Of doubled cells the last one counts, as in nbgrader.
    position = {name: i for i, name in enumerate(names) if name}
    further_cells = cells_of_student(submission, names, position)

    released.cells = further_cells[None]
    edited = []
    for name, cell in assigned.items():
        submitted = submission.cells[position[name]] if name in position else cell
        if name in answers:
            cell.source = submitted.source
            if "attachments" in submitted:
                cell["attachments"] = submitted.attachments
        elif cell.source.strip() != submitted.source.strip():
            edited.append(name)
        released.cells += [cell, *further_cells[name]]

    for number, cell in enumerate(released.cells):
        cell["id"] = f"cell-{number}"

    unnamed = [name for name in assigned if name in position and name not in known_names]
    damage = {
        "missing": [name for name in assigned if name not in position],
        "edited and restored": edited,
        "without its name": unnamed,
    }
    return released, [f"{kind}: {', '.join(cells)}" for kind, cells in damage.items() if cells]


def names_of_cells(
    submission: NotebookNode, assigned: dict[str, NotebookNode], answers: set[str]
) -> list[str | None]:
    """The assignment's name of each submitted cell, None if it has none.

    A cell that has lost its name is known by its text, unless it is an answer.
    """
    by_text = {}
    for name, cell in assigned.items():
        if name not in answers:
            by_text[cell.source.strip()] = name

    names = []
    for cell in submission.cells:
        name = grade_id(cell)
        names.append(name if name in assigned else by_text.get(cell.source.strip()))
    return names


def with_guessed_answers(
    names: list[str | None],
    submission: NotebookNode,
    assigned: dict[str, NotebookNode],
    answers: set[str],
) -> list[str | None]:
    """The names, with those of nameless answers, which are known by the cell in front of them.

    Only an answer that nobody has named is guessed, and only for a cell of the same type.
    """
    order = list(assigned)
    next_name = dict(zip(order, order[1:]))
    unseen_answers = answers - set(names)

    guessed = list(names)
    for i in range(1, len(names)):
        expected = next_name.get(names[i - 1])
        if guessed[i] is None and expected in unseen_answers:
            if submission.cells[i].cell_type == assigned[expected].cell_type:
                guessed[i] = expected
    return guessed


def cells_of_student(
    submission: NotebookNode, names: list[str | None], position: dict[str, int]
) -> dict[str | None, list[NotebookNode]]:
    """{name: the student's further cells behind that cell of the assignment}; None is the start."""
    further_cells = defaultdict(list)
    assigned_name = None
    for i, (name, cell) in enumerate(zip(names, submission.cells)):
        if name and position[name] == i:
            assigned_name = name
        else:
            cell.metadata.pop("nbgrader", None)
            further_cells[assigned_name].append(cell)
    return further_cells

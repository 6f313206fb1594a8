"""Mending of submitted notebooks: the released notebook, with the student's work put into it."""

from __future__ import annotations

from collections import defaultdict

from .notebook_files import grade_id


def mend(submission, released) -> tuple:
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
    last = {name: i for i, name in enumerate(names) if name}
    own_cells = cells_of_student(submission, names, last)

    released.cells = own_cells[None]
    edited = []
    for name, cell in assigned.items():
        handed_in = submission.cells[last[name]] if name in last else cell
        if name in answers:
            cell.source = handed_in.source
            if "attachments" in handed_in:
                cell["attachments"] = handed_in.attachments
        elif cell.source.strip() != handed_in.source.strip():
            edited.append(name)
        released.cells += [cell, *own_cells[name]]

    for number, cell in enumerate(released.cells):
        cell["id"] = f"cell-{number}"

    missing = [name for name in assigned if name not in last]
    unnamed = [name for name in assigned if name in last and name not in known_names]
    damage = {
        "missing": missing,
        "edited and restored": edited,
        "without its name": unnamed,
    }
    return released, [f"{kind}: {', '.join(cells)}" for kind, cells in damage.items() if cells]


def names_of_cells(submission, assigned: dict, answers: set[str]) -> list[str | None]:
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
    names: list[str | None], submission, assigned: dict, answers: set[str]
) -> list[str | None]:
    """The names, with those of nameless answers, which are known by standing behind their question.

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


def cells_of_student(submission, names: list[str | None], last: dict[str, int]) -> dict:
    """{name: the student's further cells behind that cell of the assignment}; None is the start."""
    own_cells = defaultdict(list)
    before = None
    for i, (name, cell) in enumerate(zip(names, submission.cells)):
        if name and last[name] == i:
            before = name
        else:
            cell.metadata.pop("nbgrader", None)
            own_cells[before].append(cell)
    return own_cells

"""Who handed in what: one submission for each student and assignment, and none is lost.

Whoever handed in anything has a submission, with the reason if it cannot be graded.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .handed_in import HandedInFile, gather, stem
from .notebook_files import NotANotebook, read_notebook, recognise
from .owners import Owner, attempt_of, key_of, owner_of, split_name, without_wrappers
from .roster import Roster

if TYPE_CHECKING:
    from nbformat import NotebookNode

UNKNOWN = "unknown"
NAMELESS = "no student is named: put it into a folder with the student's name"
NOTHING = "nothing handed in"

# The class list of a class that has none.
NO_ROSTER = Roster("", "plain", [], {})


@dataclass(frozen=True)
class Submission:
    """What a student has handed in for one assignment.

    Args:
        student: the name that nbgrader knows; one for each student.
        assignment: its name; "" if it cannot be told.
        file: that was handed in; None if there is none.
        owner: what the file's path and the class list say of the student.
        notebook: to be graded; None if it cannot be.
        note: why it cannot be graded, or what is odd.
        attempt: counted from 1; None if there is none.
    """

    student: str
    assignment: str
    file: HandedInFile | None = field(default=None, repr=False)
    owner: Owner = Owner("")
    notebook: NotebookNode | None = field(default=None, repr=False)
    note: str = ""
    attempt: int | None = 1


def collect(
    source: Path, released: dict[str, NotebookNode], roster: Roster | None = None
) -> tuple[list[Submission], list[str]]:
    """Find all submissions.

    Args:
        source: a folder or a zip: a folder or a zip for each student, or loose files that begin
            with the student's name.
        released: {assignment: the notebook that was handed out}.
        roster: the class list, if there is one.

    Returns:
        The submissions, in order, and the paths of files that are not graded because the student
        has a newer or better one.

    Raises:
        ValueError: two students would get one name.
    """
    roster = roster or NO_ROSTER
    files = without_wrappers(gather(source), sorted(released), roster.knows)
    examined = [examine(file, released, roster) for file in files]

    submissions = []
    ignored = []
    for student, of_student in by_student(examined).items():
        newest, older = newest_of(student, of_student)
        submissions += newest
        ignored += older

    submissions = with_only_assignment(submissions)
    submissions += nothing_handed_in(submissions, roster)
    order = sorted(submissions, key=lambda submission: (submission.student, submission.assignment))
    return order, sorted(ignored)


def examine(file: HandedInFile, released: dict[str, NotebookNode], roster: Roster) -> Submission:
    """All that can be told of one file; its student's final name is not decided yet."""
    assignments = sorted(released)
    owner = roster.completed(owner_of(file, assignments), file.parts)

    notebook = None
    assignment = None
    problem = file.problem
    if not problem:
        try:
            notebook = read_notebook(file.data, file.parts[-1])
            assignment = recognise(notebook, released)
        except NotANotebook as error:
            problem = str(error)

    # The content tells more than the names of the file and its folders.
    for part in (stem(file.parts[-1]), *reversed(file.parts[:-1])):
        split = split_name(part, assignments)
        if split and not assignment:
            assignment = split[1]
    if notebook is not None and assignment is None:
        problem = "a notebook, but not of any of these assignments"

    name = file.parts[-1] or file.parts[-2]
    return Submission(
        student=owner.key or key_of(owner.name) or UNKNOWN,
        assignment=assignment or "",
        file=file,
        owner=owner,
        notebook=None if problem else notebook,
        note=f"not graded: {name} is {problem}" if problem else "",
        attempt=attempt_of(file, assignments),
    )


def by_student(submissions: list[Submission]) -> dict[str, list[Submission]]:
    """The submissions of each student, under a name that no other student has.

    Raises:
        ValueError: two students cannot be told apart.
    """
    by_name = defaultdict(list)
    for submission in submissions:
        by_name[submission.student.casefold()].append(submission)

    students = {}
    for of_name in by_name.values():
        for student, of_student in namesakes(of_name):
            students[unused(student, students)] = of_student
    return students


def namesakes(submissions: list[Submission]) -> list[tuple[str, list[Submission]]]:
    """The students who have handed in the submissions of one name, each under a name of its own.

    Raises:
        ValueError: two of them cannot be told apart.
    """
    by_owner = defaultdict(list)
    for submission in submissions:
        by_owner[source_of(submission), submission.owner.user].append(submission)

    name = submissions[0].student
    if name == UNKNOWN:
        numbered = enumerate(by_owner.values(), 1)
        return [(f"{UNKNOWN}-{number}", list(map(nameless, files))) for number, files in numbered]
    if not compete(list(by_owner.values())):
        return [(name, submissions)]
    if all(user for _, user in by_owner):
        return [(f"{name}_{user}", of_owner) for (_, user), of_owner in by_owner.items()]

    sources = [source or of_owner[0].file.path for (source, _), of_owner in by_owner.items()]
    raise ValueError(
        f"the students {sources[0]!r} and {sources[1]!r} would both be {name!r}: rename one of them"
    )


def source_of(submission: Submission) -> str:
    """What tells two students of one name apart: their folders; "" if there is only the name."""
    file, owner = submission.file, submission.owner
    if owner.key:
        return owner.key
    if not owner.name:
        return file.path
    in_folder = len(file.parts) > 1 and not owner.user
    return file.parts[0] if in_folder else ""


def nameless(submission: Submission) -> Submission:
    """The submission, with a note that no student is named."""
    return replace(submission, note=joined_notes(submission.note, NAMELESS))


def joined_notes(*notes: str) -> str:
    """Several notes as one."""
    return "; ".join(note for note in notes if note)


def unused(name: str, students: dict[str, list[Submission]]) -> str:
    """The name, or the name with a letter behind it if another student has it."""
    while name in students:
        name += "x"
    return name


def compete(owners: list[list[Submission]]) -> bool:
    """Whether two owners have handed in one assignment, and so must be two students."""
    earlier = set()
    for of_owner in owners:
        assignments = {submission.assignment for submission in of_owner}
        if earlier & assignments:
            return True
        earlier |= assignments
    return False


def newest_of(student: str, submissions: list[Submission]) -> tuple[list[Submission], list[str]]:
    """A student's submissions that count, and the paths of the others."""
    by_assignment = defaultdict(list)
    for submission in submissions:
        by_assignment[submission.assignment].append(replace(submission, student=student))

    newest = []
    ignored = []
    for assignment, candidates in by_assignment.items():
        first, *older = sorted(candidates, key=preference)
        ignored += [submission.file.path for submission in older]

        readable = sum(submission.notebook is not None for submission in candidates)
        if readable > 1:
            name = first.file.parts[-1]
            newest_note = f"the newest of {readable} files was graded: {name}"
            first = replace(first, note=joined_notes(first.note, newest_note))
        if assignment == "" and len(by_assignment) > 1:
            ignored.append(first.file.path)
        else:
            newest.append(first)
    return newest, ignored


def preference(submission: Submission) -> tuple[bool, float, int]:
    """Sorts first what counts most: notebooks, then what is newer, then later attempts."""
    return submission.notebook is None, -submission.file.modified, -submission.attempt


def with_only_assignment(submissions: list[Submission]) -> list[Submission]:
    """The submissions; those that cannot be told are of the only assignment, if there is one."""
    assignments = {submission.assignment for submission in submissions} - {""}
    if len(assignments) != 1:
        return submissions
    [only] = assignments
    return [
        submission if submission.assignment else replace(submission, assignment=only)
        for submission in submissions
    ]


def nothing_handed_in(submissions: list[Submission], roster: Roster) -> list[Submission]:
    """A submission for each student and assignment of the class that are missing."""
    present = {(submission.student, submission.assignment) for submission in submissions}
    assignments = {submission.assignment for submission in submissions} - {""}
    missing = []
    for student in roster.students:
        for assignment in assignments:
            # A submission whose assignment cannot be told may be of this one.
            if (student, assignment) not in present and (student, "") not in present:
                missing.append(Submission(student, assignment, note=NOTHING, attempt=None))
    return missing

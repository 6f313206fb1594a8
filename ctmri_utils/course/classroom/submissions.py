"""Who handed in what: one submission for each student and assignment, and none is lost.

Whoever handed in anything has a submission, with the reason if it cannot be graded.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .handed_in import (
    HandedInFile,
    attempt_of,
    gather,
    key_of,
    owner_of,
    split_name,
    stem,
    without_wrappers,
)
from .notebook_files import NotANotebook, read_notebook, recognise
from .roster import Roster

UNKNOWN = "unknown"
NAMELESS = "no student is named: put it into a folder with the student's name"
NOTHING = "nothing handed in"

# The class list of a class that has none.
NOBODY = Roster("", "plain", [], {})


@dataclass(frozen=True)
class Submission:
    """What a student has handed in for one assignment.

    Attributes:
        student: the name that nbgrader knows; one for each student.
        assignment: its name; "" if it cannot be told.
        path: of the file, "" if there is none.
        notebook: to be graded; None if it cannot be.
        note: why not, or what is odd.
        given_name: the student's name as it was found.
        late: "yes" if the learning system says so, else "".
        attempt: counted from 1; None if there is none.
        user: the student's number in the learning system, "" if unknown.
        upload: the number of the uploaded file in Canvas, "" if unknown.
    """

    student: str
    assignment: str
    path: str = ""
    notebook: Any = field(default=None, repr=False)
    note: str = ""
    given_name: str = ""
    late: str = ""
    attempt: int | None = 1
    user: str = ""
    upload: str = ""
    modified: float = 0.0


def collect(
    place: Path, released: dict, roster: Roster | None = None
) -> tuple[list[Submission], list[str]]:
    """Find all submissions.

    Args:
        place: a folder or a zip: a folder or a zip for each student, or loose files that begin
            with the student's name.
        released: {assignment: the notebook that was handed out}.
        roster: the class list, if there is one.

    Returns:
        The submissions, in order, and the paths of files that are not graded because the student
        has a newer or better one.

    Raises:
        ValueError: two students would get one name.
    """
    roster = roster or NOBODY
    files = without_wrappers(gather(place), sorted(released), roster.knows)

    found = [examine(file, released, roster) for file in files]
    submissions = []
    ignored = []
    for student, own in by_student(found).items():
        kept, rest = newest(student, own)
        submissions += kept
        ignored += rest

    submissions = with_only_assignment(submissions)
    submissions += nothing_handed_in(submissions, roster)
    order = sorted(submissions, key=lambda submission: (submission.student, submission.assignment))
    return order, sorted(ignored)


def examine(file: HandedInFile, released: dict, roster: Roster) -> Submission:
    """All that can be told of one file; its student's final name is not decided yet."""
    names = sorted(released)
    owner = roster.completed(owner_of(file, names), file.parts)

    notebook = None
    assignment = None
    problem = file.problem
    if not problem:
        try:
            notebook = read_notebook(file.data, file.parts[-1])
            assignment = recognise(notebook, released)
        except NotANotebook as error:
            problem = str(error)

    # The content tells more than the name.
    for part in (stem(file.parts[-1]), *reversed(file.parts[:-1])):
        split = split_name(part, names)
        assignment = assignment or (split[1] if split else None)
    if notebook is not None and assignment is None:
        problem = "a notebook, but not of any of these assignments"

    name = file.parts[-1] or file.parts[-2]
    return Submission(
        student=owner.get("key") or key_of(owner["name"]) or UNKNOWN,
        assignment=assignment or "",
        path=file.path,
        notebook=None if problem else notebook,
        note=f"not graded: {name} is {problem}" if problem else "",
        given_name=given_name(file, owner),
        late=owner["late"],
        attempt=attempt_of(file, names),
        user=owner["user"],
        upload=owner["upload"],
        modified=file.modified,
    )


def given_name(file: HandedInFile, owner: dict[str, str]) -> str:
    """By what two students are told apart: their folders, or else nothing but their names."""
    if "key" in owner:
        return owner["key"]
    if not owner["name"]:
        return file.path
    return file.parts[0] if len(file.parts) > 1 and not owner["user"] else ""


def by_student(found: list[Submission]) -> dict[str, list[Submission]]:
    """The submissions of each student, under a name that no other student has.

    Raises:
        ValueError: two students cannot be told apart.
    """
    groups = defaultdict(lambda: defaultdict(list))
    for submission in found:
        owner = (submission.given_name, submission.user)
        groups[submission.student.casefold()][owner].append(submission)

    students = {}
    for owners in groups.values():
        student = next(iter(owners.values()))[0].student
        if student == UNKNOWN:
            for number, own in enumerate(owners.values(), 1):
                nameless = [replace(one, note=joined(one.note, NAMELESS)) for one in own]
                students[unused(f"{UNKNOWN}-{number}", students)] = nameless
        elif not compete(owners):
            own = [submission for own in owners.values() for submission in own]
            students[unused(student, students)] = own
        elif all(user for _, user in owners):
            for (_, user), own in owners.items():
                students[unused(f"{student}_{user}", students)] = own
        else:
            first, second = [name or own[0].path for (name, _), own in owners.items()][:2]
            raise ValueError(
                f"the students {first!r} and {second!r} would both be {student!r}: rename one of "
                "them"
            )
    return students


def joined(*notes: str) -> str:
    """Several notes as one."""
    return "; ".join(note for note in notes if note)


def unused(name: str, students: dict) -> str:
    """The name, or the name with a sign behind it if another student has it."""
    while name in students:
        name += "x"
    return name


def compete(owners: dict) -> bool:
    """Whether two owners have handed in one assignment, and so must be two students."""
    seen = set()
    for own in owners.values():
        assignments = {submission.assignment for submission in own}
        if seen & assignments:
            return True
        seen |= assignments
    return False


def newest(student: str, own: list[Submission]) -> tuple[list[Submission], list[str]]:
    """A student's submissions that count, and the paths of the others."""
    by_assignment = defaultdict(list)
    for submission in own:
        by_assignment[submission.assignment].append(replace(submission, student=student))

    kept = []
    ignored = []
    for assignment, candidates in by_assignment.items():
        # A notebook counts more than none, then a newer one more than an older one.
        candidates.sort(key=lambda one: (one.notebook is None, -one.modified, -one.attempt))
        first, *rest = candidates
        ignored += [one.path for one in rest]
        readable = sum(one.notebook is not None for one in candidates)
        if readable > 1:
            name = first.path.rpartition("/")[2]
            newest_note = f"the newest of {readable} files was graded: {name}"
            first = replace(first, note=joined(first.note, newest_note))
        if assignment == "" and len(by_assignment) > 1:
            ignored.append(first.path)
        else:
            kept.append(first)
    return kept, ignored


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
    for key in roster.people:
        for assignment in assignments:
            # The one whose assignment cannot be told may be this one.
            if (key, assignment) not in present and (key, "") not in present:
                missing.append(Submission(key, assignment, note=NOTHING, attempt=None))
    return missing

"""The commands course, site, assignments and grade; what they run is imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from ..command_line import Parameters, Profile, Switch, default_is, literal, optional

BuildFolder = Annotated[Path | None, default_is("$CTMRI_BUILD, else build/", "FOLDER")]


def course(
    *,
    profile: Profile = "laptop",
    build: BuildFolder = None,
    lessons: Annotated[tuple[int, ...], default_is("all", "N ...")] = (),
    parameter: Parameters = (),
    again: Switch = False,
) -> None:
    """Run the lessons and build the site from them.

    Lessons that are up to date are kept, so a course that was stopped resumes.

    Args:
        profile: sizes for this kind of machine.
        build: folder for executed copies, runs and the site.
        lessons: the numbers of the lessons to run.
        parameter: another parameter for every lesson, such as -p SEED 1.
        again: also run lessons that are up to date; finished training runs are kept.
    """
    from .lessons import dataset_parameter, run_course
    from .site import build_site, check_sphinx

    check_sphinx()
    parameters = {name: literal(value) for name, value in parameter}
    if "DATASET" in parameters:
        parameters["DATASET"] = dataset_parameter(str(parameters["DATASET"]))

    executed = run_course(profile, build, list(lessons), parameters, again=again)
    minutes = sum(lesson.minutes for lesson in executed if not lesson.up_to_date)
    up_to_date = sum(lesson.up_to_date for lesson in executed)
    print(f"{len(executed) - up_to_date} lessons in {minutes:.1f} min.")
    if up_to_date:
        print(f"{up_to_date} were up to date (--again, or make course AGAIN=1, runs them too).")
    print(f"Open {build_site(build)} in a browser, or read and change the lessons with `make lab`.")


def site(*, build: BuildFolder = None) -> None:
    """Build the site from lessons that were run before.

    Args:
        build: folder of the executed copies and of the site.
    """
    from .site import build_site

    print(build_site(build))


def assignments(
    *, output: Annotated[Path | None, default_is("build/assignments", "FOLDER")] = None
) -> None:
    """Write the student version of every assignment as a zip.

    Args:
        output: folder for the zips.
    """
    from .classroom import release

    for path in release(output):
        print(path)


def grade(
    submissions: Positional[Path],
    /,
    *,
    output: Annotated[Path | None, default_is("build/grades", "FOLDER")] = None,
    roster: Annotated[Path | None, optional("FILE")] = None,
    format: Literal["csv", "canvas", "moodle"] = "csv",
    unsafe: Switch = False,
) -> int:
    """Grade a folder of submissions, each notebook in a sandbox.

    With --format canvas or moodle, marks that would be lost give the status 1.

    Args:
        submissions: a folder or zip with one folder or zip per student, or with files named
            STUDENT_NAME.ipynb.
        output: folder for grades.csv, parts.csv and feedback, which replace those of an earlier
            grading.
        roster: class list with columns id, email and name, or an export of Canvas or Moodle.
        format: also write marks and feedback for this learning system, besides grades.csv.
        unsafe: run the notebooks without a sandbox, with all your rights.
    """
    from ..machine import build_folder
    from .classroom import grade as grade_submissions
    from .classroom.learning_systems import lost_marks, summary, to_be_marked
    from .classroom.roster import read_roster

    output = output or build_folder() / "grades"
    grades = grade_submissions(
        submissions, output, roster_file=roster, format=format, unsafe=unsafe
    )
    print(f"{summary(grades)}. See grades.csv, parts.csv and feedback in {output}")
    if format == "csv":
        return 0

    by_hand = to_be_marked(grades)
    if by_hand:
        print(
            f"{by_hand} rows have parts not yet graded by hand, which count as 0 until they are "
            "marked: do not import yet"
        )
    lost = len(lost_marks(grades, read_roster(roster)))
    if lost:
        print(f"not for import: {lost} marks of students who are not in {roster.name}")
    return 1 if lost else 0

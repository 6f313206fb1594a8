"""Grading: full marks for the instructor, none for a blank, and no submission, whatever it does,
spoils another one's grade.

Most of it is tried on assignment 1, which does not load torch.
"""

import contextlib
import io
import re
import tomllib
from pathlib import Path

import pytest
from nbgrader.api import Gradebook

from ctmri_utils.course.classroom.marked_by_hand import answers
from ctmri_utils.course.classroom.notebook_files import grade_id

# Kernels start slowly on a busy machine.
pytestmark = pytest.mark.timeout(900)
UNITS = "01_units_windows_splits"
TESTS = {
    "test_to_physical": 3,
    "test_grey": 4,
    "test_window_error": 3,
    "test_mri_to_network": 4,
    "test_split_by_patient": 4,
    "test_too_close": 4,
}


def to_physical(body):
    return (
        f"def to_physical(stored, gain, offset):\n    {body}\n    return np.asarray(stored, "
        "dtype=float) * gain + offset"
    )


def answer_of(notebook, name):
    return next(cell.source for cell in notebook.cells if grade_id(cell) == name)


def scores(graded, student):
    return {test: graded.points[student, test] for test in TESTS}


def losing(*tests):
    return TESTS | dict.fromkeys(tests, 0)


@pytest.fixture(scope="module")
def written(solve, edited):
    """Assignment 1 with an answer to each written part."""
    return edited(solve(), eight__bit__answer="1.6 HU", table__answer="Air and bone")


@pytest.fixture(scope="module")
def graded(sources, released, edited, written, hand_in):
    """A class that behaves: what each student handed in, graded in one go; `said` was printed."""
    path = Path(__file__).with_name("answers_01.toml")
    book = tomllib.loads(path.read_text(encoding="utf-8"))
    wrong = {cell: next(iter(texts.values())) for cell, texts in book["WRONG"].items()}
    right = {cell: texts[0] for cell, texts in book["RIGHT"].items()}
    files = {f"instructor/{name}.ipynb": notebook for name, notebook in sources.items()}
    files |= {
        f"blank/{UNITS}.ipynb": released(UNITS),
        f"wrong/{UNITS}.ipynb": edited(sources[UNITS], **wrong),
        f"Müller, Änne_123_assignsubmission_file_/{UNITS} (1).ipynb": edited(
            sources[UNITS], **right
        ),
        "Müller, Änne_123_assignsubmission_file_/notes.ipynb": b"{}",
        f"jo/{UNITS}.ipynb": edited(sources[UNITS], grey="def to_grey(*given):\n    return 0"),
        f"hanna/{UNITS}.ipynb": written,
        f"ida/{UNITS}.ipynb": written,
        f"{UNITS}.ipynb": b"",
    }
    with contextlib.redirect_stdout(io.StringIO()) as said:
        graded = hand_in(files)
    graded.said = said.getvalue()
    return graded


def test_instructor_earns_all_marks_and_a_blank_none(sources, graded):
    for name in sources:
        row = graded.rows["instructor", name]
        assert row["score"] == row["code_score"] == row["max_code_score"] == 22
        assert row["max_score"] == 40 and row["needs_manual_grade"]
    blank = graded.rows["blank", UNITS]
    assert (blank["score"], blank["max_score"], blank["note"]) == (0, 40, "")
    assert (blank["max_written_score"], blank["max_task_score"]) == (8, 10)
    assert scores(graded, "blank") == losing(*TESTS)


def test_wrong_and_right_answers_through_nbgrader(graded):
    """What test_answers.py finds without a kernel holds in nbgrader, too."""
    assert scores(graded, "wrong") == losing(*TESTS)
    assert scores(graded, "Müller_Änne") == TESTS


def test_files_without_a_student_have_a_row_and_other_files_are_said(graded):
    unknown = graded.rows["unknown-1", UNITS]
    assert unknown["score"] == "" and "no student is named" in unknown["note"]
    ignored = [line for line in graded.said.splitlines() if line.startswith("ignored")]
    assert len(ignored) == 1 and "notes.ipynb" in ignored[0]


def test_the_feedback_page_says_what_is_graded(graded):
    page = graded.page("jo")
    assert f'<h1 id="top">jo: {UNITS}</h1>' in page
    assert "<b>18 of 40 points</b>, without the parts" in page

    rows = re.findall(r'<tr><td><a href="#([\w-]+)">(.+?)</a></td><td>(.+?)</td></tr>', page)
    titles = [title for _, title, _ in rows]
    results = [result for *_, result in rows]
    assert titles[1] == "2. Windows, there and back"
    assert titles[8] == "9. Open task: plan a data set"
    assert results[:3] == ["3 of 3", "0 of 4", "3 of 3"] and results[6:] == ["not graded yet"] * 3
    assert all(page.count(f'id="{anchor}"') == 1 for anchor, *_ in rows)

    assert "MARK SCHEME" not in page and "How it is marked" in page
    assert "check_answer(" not in re.sub("<[^>]+>", "", page)


def test_the_parts_have_the_numbers_of_their_questions(graded):
    numbers = graded.numbers["jo"]
    assert list(numbers.astype(str)) == [f"1.{number}" for number in range(1, 10)]
    assert (numbers["test_grey"], numbers["data-sheet"]) == (1.2, 1.9)


def test_no_submission_spoils_another(solved, edited, hand_in):
    nasty = {
        "cheats": edited(
            solved,
            setup="import sys\nimport numpy as np\nsys.exit(0)",
            to_physical="def to_physical(*given):\n    return 0",
            **dict.fromkeys(TESTS, "pass"),
        ),
        "eats": edited(
            solved,
            to_physical=to_physical("np.ones(10 * 2**30 // 8)"),
            grey="x = bytearray(10 * 2**30)",
        ),
        "exits": edited(
            solved,
            to_physical=to_physical("import sys; sys.exit(0)"),
            window_error="def window_error(ct_hu, head, level, width)\n    return 0",
            mri_to_network="def mri_to_network(mri, head):\n    import os\n    os._exit(0)",
        ),
        # The second one as a long call into C would.
        "loops": edited(
            solved,
            to_physical=to_physical("while True: pass"),
            mri_to_network="import signal\n\ndef mri_to_network(mri, head):\n"
            "    signal.signal(signal.SIGINT, signal.SIG_IGN)\n    while True: pass",
        ),
        "quits": edited(solved, to_physical=to_physical("get_ipython().ask_exit()")),
        "shouts": edited(
            solved,
            to_physical=to_physical("for _ in range(5000): print('x' * 100)"),
            grey="import warnings\nwarnings.warn('Overflow')\n" + answer_of(solved, "grey"),
        ),
    }
    files = {f"{student}/{UNITS}.ipynb": notebook for student, notebook in nasty.items()}
    graded = hand_in(files | {f"garbage/{UNITS}.ipynb": b"\x89PNG not a notebook"}, cell_seconds=6)

    later = ("test_mri_to_network", "test_split_by_patient", "test_too_close")
    expected = {
        "cheats": losing("test_to_physical"),
        "eats": losing("test_to_physical", "test_grey"),
        "exits": losing("test_to_physical", "test_window_error", *later),
        "loops": losing("test_to_physical", *later),
        "shouts": TESTS,
    }
    assert {student: scores(graded, student) for student in expected} == expected
    # How much is run before the kernel goes is a matter of chance.
    assert 0 <= graded.rows["quits", UNITS]["score"] <= 22

    notes = {student: row["note"] for (student, _), row in graded.rows.items()}
    assert notes["shouts"] == ""
    assert notes["cheats"] == f"edited and restored: setup, {', '.join(TESTS)}"
    assert "ran out of memory" in notes["eats"]
    assert "cell test_to_physical was stopped after its time limit" in notes["loops"]
    assert "could not be stopped" in notes["loops"]
    assert "cell test_mri_to_network killed its kernel" in notes["exits"]
    assert graded.rows["garbage", UNITS]["score"] == ""
    assert f"not graded: {UNITS}.ipynb is a picture" in notes["garbage"]


def mark(course, student, marks):
    """Enter marks for assignment 1, as nbgrader's form does."""
    with Gradebook(f"sqlite:///{course.root / 'gradebook.db'}") as gradebook:
        for part, points in marks.items():
            grade = gradebook.find_grade(part, UNITS, UNITS, student)
            grade.manual_score, grade.needs_manual_grade = points, False
        gradebook.db.commit()


def test_grades_given_by_hand_survive_another_grading(graded, written, hand_in, course):
    files = {f"hanna/{UNITS}.ipynb": written}
    assert graded.rows["hanna", UNITS]["score"] == 22
    mark(course, "hanna", {"eight-bit-answer": 3.5})
    row = hand_in(files).rows["hanna", UNITS]
    assert (row["score"], row["written_score"]) == (25.5, 3.5)
    assert row["needs_manual_grade"] and not row["note"]

    # With the last mark, nothing is left to do, however often it is graded again.
    mark(course, "hanna", {"table-answer": 1, "data-sheet": 8, "test_grey": 2})
    for _ in range(2):
        again = hand_in(files)
        row = again.rows["hanna", UNITS]
        assert (row["score"], row["needs_manual_grade"], row["note"]) == (32.5, False, "")
    page = again.page("hanna")
    assert "not graded yet" not in page and "<td>3.5 of 4</td>" in page


def test_an_answer_that_has_changed_is_to_be_marked_again(graded, written, edited, hand_in, course):
    marks = {"eight-bit-answer": 3.5, "table-answer": 1, "data-sheet": 8}
    mark(course, "ida", marks)

    changed = edited(written, table__answer="Air, bone and gain")
    changed.cells[-1].source += "\nprint('more for part 9')"
    # The teacher may grade more than once before marking again.
    for _ in range(2):
        row = hand_in({f"ida/{UNITS}.ipynb": changed}).rows["ida", UNITS]
        assert row["note"] == "answer changed since it was marked: table-answer, data-sheet"
        assert (row["score"], row["needs_manual_grade"]) == (34.5, True)

    mark(course, "ida", marks)
    row = hand_in({f"ida/{UNITS}.ipynb": changed}).rows["ida", UNITS]
    assert (row["note"], row["needs_manual_grade"]) == ("", False)


def test_only_what_students_write_is_an_answer(solved, edited):
    reworded = edited(solved, data__sheet="## 9. The task in other words")
    assert answers(reworded) == answers(solved)
    reworded.cells[-1].source += "\nmore"
    changed = {name for name, text in answers(reworded).items() if text != answers(solved)[name]}
    assert changed == {"data-sheet"}


def test_what_cannot_be_graded_is_said_before_anything_is(hand_in):
    with pytest.raises(FileNotFoundError):
        hand_in({"anna/holiday.ipynb": b"{}"})
    with pytest.raises(ValueError, match="canvas"):
        hand_in({f"anna/{UNITS}.ipynb": b"{}"}, format="canvas")

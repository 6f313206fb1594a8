"""Grading: full marks for the instructor, none for a blank, and no submission, whatever it does,
spoils another one's grade.

Most of it is tried on assignment 1, which does not load torch.
"""

import csv
import re
import runpy
from pathlib import Path

import pytest
from nbgrader.api import Gradebook

from ctmri_utils.course.marked_by_hand import answers

# kernels start slowly on a busy machine
pytestmark = pytest.mark.timeout(900)
HERE = Path(__file__).parent
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


def scores(graded, student):
    return {test: graded.parts[student, test] for test in TESTS}


def losing(*tests):
    return TESTS | dict.fromkeys(tests, 0)


def test_instructor_earns_all_marks_and_a_blank_none(sources, released, hand_in):
    solved = {f"instructor/{name}.ipynb": notebook for name, notebook in sources.items()}
    graded = hand_in(solved | {f"blank/{name}.ipynb": released(name) for name in sources})
    for name in sources:
        instructor, blank = graded.rows["instructor", name], graded.rows["blank", name]
        assert instructor["score"] == instructor["code_score"] == instructor["max_code_score"] == 22
        assert (
            blank["score"] == 0
            and blank["max_score"] == 40
            and blank["max_written_score"] == 8
            and blank["max_task_score"] == 10
        )
        assert instructor["needs_manual_grade"] and blank["note"] == ""
        assert "test_" in (graded.output / "feedback" / "blank" / f"{name}.html").read_text(
            encoding="utf-8"
        )
    autograded = [
        score
        for (student, part), score in graded.parts.items()
        if student == "blank" and part.startswith("test_")
    ]
    assert autograded == [0] * 24


def test_wrong_and_right_answers_through_nbgrader(solved, edited, hand_in):
    """What test_answers.py finds without a kernel holds in nbgrader, too."""
    book = runpy.run_path(str(HERE / "answers_01.py"))
    wrong = edited(
        solved, **{cell: next(iter(texts.values())) for cell, texts in book["WRONG"].items()}
    )
    right = edited(solved, **{cell: texts[0] for cell, texts in book["RIGHT"].items()})
    graded = hand_in({f"wrong/{UNITS}.ipynb": wrong, f"right/{UNITS}.ipynb": right})
    assert scores(graded, "wrong") == losing(*TESTS) and scores(graded, "right") == TESTS


def test_no_submission_spoils_another(solved, edited, hand_in):
    nasty = {
        "exits": edited(solved, setup="import sys\nimport numpy as np\nsys.exit(0)"),
        "exits_later": edited(solved, to_physical=to_physical("import sys; sys.exit(0)")),
        "quits": edited(solved, to_physical=to_physical("get_ipython().ask_exit()")),
        "kills": edited(
            solved, mri_to_network="def mri_to_network(mri, head):\n    import os\n    os._exit(0)"
        ),
        "loops": edited(solved, to_physical=to_physical("while True: pass")),
        # as a long call into C would
        "loops_on": edited(
            solved,
            mri_to_network="import signal\n\ndef mri_to_network(mri, head):\n"
            "    signal.signal(signal.SIGINT, signal.SIG_IGN)\n    while True: pass",
        ),
        "eats": edited(solved, to_physical=to_physical("np.ones(10 * 2**30 // 8)")),
        "eats_and_hides": edited(
            solved,
            to_physical=to_physical("bytearray(10 * 2**30)"),
            grey="x = bytearray(10 * 2**30)",
        ),
        "shouts": edited(
            solved, to_physical=to_physical("for _ in range(100_000): print('x' * 100)")
        ),
        "warns": edited(
            solved, to_physical=to_physical("import warnings; warnings.warn('Overflow')")
        ),
        "broken": edited(solved, to_physical="def to_physical(stored, gain, offset)\n    return 0"),
        "cheats": edited(
            solved,
            to_physical="def to_physical(*given):\n    return 0",
            **dict.fromkeys(TESTS, "pass"),
        ),
        "good": solved,
    }
    files = {f"{student}/{UNITS}.ipynb": notebook for student, notebook in nasty.items()}
    graded = hand_in(
        files | {f"garbage/{UNITS}.ipynb": b"\x89PNG not a notebook", f"empty/{UNITS}.ipynb": b""},
        seconds=10,
    )

    first, later = (
        "test_to_physical",
        ("test_mri_to_network", "test_split_by_patient", "test_too_close"),
    )
    expected = {
        "exits": TESTS,
        "exits_later": losing(first),
        "kills": losing(*later),
        "loops": losing(first),
        "loops_on": losing(*later),
        "eats": losing(first),
        "eats_and_hides": losing(first, "test_grey"),
        "shouts": TESTS,
        "warns": TESTS,
        "broken": losing(first),
        "cheats": losing(first),
        "good": TESTS,
    }
    assert {student: scores(graded, student) for student in expected} == expected
    # how much is run before the kernel goes is a matter of chance
    assert 0 <= graded.rows["quits", UNITS]["score"] <= 22
    notes = {student: row["note"] for (student, _), row in graded.rows.items()}
    assert notes["good"] == notes["broken"] == "" and "edited and restored: setup" in notes["exits"]
    assert "cell test_to_physical was stopped after its time limit" in notes["loops"]
    assert (
        "cell test_mri_to_network killed its kernel" in notes["kills"]
        and "could not be stopped" in notes["loops_on"]
    )
    assert notes["cheats"] == f"edited and restored: {', '.join(TESTS)}"
    assert "ran out of memory" in notes["eats"]
    for student, reason in (("garbage", "a picture"), ("empty", "an empty file")):
        assert graded.rows[student, UNITS]["score"] == ""
        assert f"not graded: {UNITS}.ipynb is {reason}" in notes[student]


def test_grades_given_by_hand_survive_a_second_call(solved, edited, hand_in, course):
    answered = edited(solved, eight__bit__answer="1.6 HU", table__answer="Air and bone")
    files = {f"hanna/{UNITS}.ipynb": answered}
    assert hand_in(files).rows["hanna", UNITS]["score"] == 22
    mark(course, "hanna", {"eight-bit-answer": 3.5})
    graded = hand_in(files).rows["hanna", UNITS]
    assert (graded["score"], graded["written_score"]) == (25.5, 3.5)
    assert graded["needs_manual_grade"] and not graded["note"]

    # With the last mark, nothing is left to do, however often it is graded again.
    mark(course, "hanna", {"table-answer": 1, "data-sheet": 8, "test_grey": 2})
    for _ in range(2):
        again = hand_in(files)
        graded = again.rows["hanna", UNITS]
        assert (graded["score"], graded["needs_manual_grade"]) == (32.5, False)
        assert not graded["note"]
    page = (again.output / "feedback" / "hanna" / f"{UNITS}.html").read_text(encoding="utf-8")
    assert "not graded yet" not in page and "<td>3.5 of 4</td>" in page


def test_an_answer_that_has_changed_is_to_be_marked_again(solved, edited, hand_in, course):
    answered = edited(solved, eight__bit__answer="1.6 HU", table__answer="Air and bone")
    hand_in({f"ida/{UNITS}.ipynb": answered})
    marks = {"eight-bit-answer": 3.5, "table-answer": 1, "data-sheet": 8}
    mark(course, "ida", marks)

    changed = edited(answered, table__answer="Air, bone and gain")
    changed.cells[-1].source += "\nprint('more for part 9')"
    sentence = "answer changed since it was marked: table-answer, data-sheet"
    # The teacher may grade more than once before marking again.
    for _ in range(2):
        graded = hand_in({f"ida/{UNITS}.ipynb": changed}).rows["ida", UNITS]
        assert graded["note"] == sentence
        assert (graded["score"], graded["needs_manual_grade"]) == (34.5, True)

    mark(course, "ida", marks)
    graded = hand_in({f"ida/{UNITS}.ipynb": changed}).rows["ida", UNITS]
    assert (graded["note"], graded["needs_manual_grade"]) == ("", False)


def test_only_what_students_write_is_an_answer(solved, edited):
    reworded = edited(solved, data__sheet="## 9. The task in other words")
    assert answers(reworded) == answers(solved)
    reworded.cells[-1].source += "\nmore"
    changed = {name for name, text in answers(reworded).items() if text != answers(solved)[name]}
    assert changed == {"data-sheet"}


def mark(course, student, marks):
    """Enter marks for assignment 1, as nbgrader's form does."""
    with Gradebook(f"sqlite:///{course.root / 'gradebook.db'}") as gradebook:
        for part, points in marks.items():
            grade = gradebook.find_grade(part, UNITS, UNITS, student)
            grade.manual_score, grade.needs_manual_grade = points, False
        gradebook.db.commit()


def test_the_feedback_page_says_what_is_graded(sources, edited, hand_in):
    wrong = edited(sources[UNITS], grey="def to_grey(*given):\n    return 0", table__answer="Air")
    graded = hand_in({f"jo/{UNITS}.ipynb": wrong})
    page = (graded.output / "feedback" / "jo" / f"{UNITS}.html").read_text(encoding="utf-8")
    assert f'<h1 id="top">jo: {UNITS}</h1>' in page
    assert "<b>18 of 40 points</b>, without the parts" in page

    rows = re.findall(r'<tr><td><a href="#([\w-]+)">(.+?)</a></td><td>(.+?)</td></tr>', page)
    titles = [title for _, title, _ in rows]
    results = [result for *_, result in rows]
    assert (
        titles[1] == "2. Windows, there and back" and titles[8] == "9. Open task: plan a data set"
    )
    assert results[:3] == ["3 of 3", "0 of 4", "3 of 3"] and results[6:] == ["not graded yet"] * 3
    assert all(page.count(f'id="{anchor}"') == 1 for anchor, *_ in rows)

    assert "MARK SCHEME" not in page and "How it is marked" in page
    assert "check_answer(" not in re.sub("<[^>]+>", "", page)
    with (graded.output / "parts.csv").open(encoding="utf-8") as file:
        numbers = {row["part"]: row["number"] for row in csv.DictReader(file)}
    assert list(numbers.values()) == [f"1.{number}" for number in range(1, 10)]
    assert (numbers["test_grey"], numbers["data-sheet"]) == ("1.2", "1.9")


def test_files_are_found_under_the_names_that_systems_give_them(solved, hand_in, capsys):
    graded = hand_in(
        {
            f"Müller, Änne_123_assignsubmission_file_/{UNITS} (1).ipynb": solved,
            f"lee_7_{UNITS}-2.ipynb": solved,
            f"kim/deep/er/Copy_of_{UNITS}.ipynb": solved,
            "kim/.ipynb_checkpoints/x.ipynb": solved,
            "kim/notes.ipynb": b"{}",
            f"{UNITS}.ipynb": b"",
        }
    )
    students = ("Müller_Änne", "lee_7", "kim", "unknown-1")
    assert set(graded.rows) == {(student, UNITS) for student in students}
    assert [graded.rows[student, UNITS]["score"] for student in students] == [22, 22, 22, ""]
    assert "no student is named" in graded.rows["unknown-1", UNITS]["note"]
    ignored = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ignored")]
    assert len(ignored) == 1 and "notes.ipynb" in ignored[0]


def test_what_cannot_be_graded_is_said_before_anything_is(hand_in):
    with pytest.raises(FileNotFoundError, match="holds no notebook of an assignment"):
        hand_in({"anna/holiday.ipynb": b"{}"})
    with pytest.raises(ValueError, match="would both be 'a_b': rename one"):
        hand_in({f"a b/{UNITS}.ipynb": b"{}", f"a_b/{UNITS}.ipynb": b"{}"})
    with pytest.raises(ValueError, match="marks for canvas need the class list"):
        hand_in({f"anna/{UNITS}.ipynb": b"{}"}, format="canvas")

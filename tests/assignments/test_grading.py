"""Grading: full marks for the instructor, none for a blank, and no submission, whatever it does,
spoils another one's grade.

Most of it is tried on assignment 1, which does not load torch.
"""

import runpy
from pathlib import Path

import pytest

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
    from nbgrader.api import Gradebook

    answered = edited(solved, **{"eight__bit__answer": "1.6 HU", "table__answer": "Air and bone"})
    first = hand_in({f"hanna/{UNITS}.ipynb": answered})
    assert first.rows["hanna", UNITS]["score"] == 22
    with Gradebook(f"sqlite:///{course.root / 'gradebook.db'}") as gradebook:
        grade = gradebook.find_grade("eight-bit-answer", UNITS, UNITS, "hanna")
        grade.manual_score, grade.needs_manual_grade = 3.5, False
        gradebook.db.commit()
    second = hand_in({f"hanna/{UNITS}.ipynb": answered})
    assert (
        second.rows["hanna", UNITS]["score"] == 25.5
        and second.rows["hanna", UNITS]["written_score"] == 3.5
    )


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
    ignored = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ignored")]
    assert len(ignored) == 1 and "notes.ipynb" in ignored[0]


def test_what_cannot_be_graded_is_said_before_anything_is(hand_in):
    with pytest.raises(FileNotFoundError, match="holds no notebook of an assignment"):
        hand_in({"anna/holiday.ipynb": b"{}"})
    with pytest.raises(ValueError, match="would both be 'a_b': rename one"):
        hand_in({f"a b/{UNITS}.ipynb": b"{}", f"a_b/{UNITS}.ipynb": b"{}"})
    with pytest.raises(ValueError, match="marks for canvas need the class list"):
        hand_in({f"anna/{UNITS}.ipynb": b"{}"}, format="canvas")

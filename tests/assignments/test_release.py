"""The student version asks everything and gives nothing away.

The source says what each part is worth.
"""

import re
import zipfile
from collections import defaultdict

import nbformat
import pytest
from nbgrader.nbgraderformat import MetadataValidator
from nbgrader.validator import Validator

from ctmri_utils.machine import CHECKOUT

SOURCE = CHECKOUT / "notebooks" / "assignments" / "source"
SECRETS = ("SOLUTION", "HIDDEN TESTS", "MARK SCHEME", "Rubric", "Model answer", "weak answer")
SECRET_REGION = r"[^\n]*BEGIN (SOLUTION|HIDDEN TESTS|MARK SCHEME).*?END \1[^\n]*"


def graded(notebook):
    return [cell for cell in notebook.cells if "points" in cell.metadata.get("nbgrader", {})]


@pytest.fixture(params=sorted(path.name for path in SOURCE.glob("0*")))
def name(request):
    return request.param


def test_the_zip_holds_the_student_version(course, released, name):
    [path] = [path for path in course.zips if path.stem == name]
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [f"{name}/{name}.ipynb"]
        text = archive.read(f"{name}/{name}.ipynb").decode()
    assert nbformat.reads(text, as_version=4) == released(name)


def test_nothing_leaks(released, sources, name):
    notebook = released(name)
    assert not [secret for secret in SECRETS if secret in nbformat.writes(notebook)]
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert not cell.get("outputs") and not cell.get("execution_count")
        assert set(cell.metadata) <= {"nbgrader", "deletable", "editable"}

    # Not even a line of a solution that stands nowhere else.
    shown = lines("\n".join(cell.source for cell in notebook.cells))
    texts = [cell.source for cell in sources[name].cells]
    visible = lines("\n".join(re.sub(SECRET_REGION, "", text, flags=re.S) for text in texts))
    secret = lines("\n".join(texts)) - visible
    assert len(secret) > 60 and not {line for line in secret & shown if len(line) > 30}


def lines(text):
    return {line.strip() for line in text.splitlines()}


def test_the_source_is_of_schema_3_and_clean(sources, name):
    MetadataValidator().validate_nb(sources[name])
    for cell in sources[name].cells:
        assert not cell.get("outputs")
        assert cell.metadata.get("nbgrader", {}).get("schema_version", 3) == 3


def test_code_words_and_an_open_task_make_40_points(sources, name):
    kinds = defaultdict(list)
    for cell in graded(sources[name]):
        kind = "task" if cell.metadata.nbgrader.task else cell.cell_type
        kinds[kind].append(cell.metadata.nbgrader.points)
    found = {kind: (len(points), sum(points)) for kind, points in kinds.items()}
    assert found == {"code": (6, 22), "markdown": (2, 8), "task": (1, 10)}


def test_each_part_states_points_minutes_and_goal(sources, name):
    about, *rest = [cell.source for cell in sources[name].cells if cell.cell_type == "markdown"]
    rows = re.findall(r"^\| ([\d, ]+) \| (.+?) \| (\d+) \| (\d+) \| (.+?) \|$", about, flags=re.M)
    assert [part for row in rows for part in row[0].split(", ")] == list("123456789")
    total, minutes = (sum(int(row[column]) for row in rows) for column in (2, 3))
    said = re.search(r"About (\d+) minutes, (\d+) points", about)
    assert total == int(said[2]) == 40 and 60 <= minutes <= 130 and abs(minutes - int(said[1])) <= 5
    titles = re.findall(r"^## (\d)\. .+ \((\d+) points, (\d+) min\)$", "\n".join(rest), flags=re.M)
    assert [part for part, _, _ in titles] == list("123456789")
    assert sum(int(time) for _, _, time in titles) == minutes
    points = [str(cell.metadata.nbgrader.points) for cell in graded(sources[name])]
    assert points == [points for _, points, _ in titles]


def test_visible_tests_tell_what_they_expect(released, name):
    for cell in graded(released(name)):
        if cell.cell_type == "code":
            message = r'assert .+, \(?\s*f?".{20,}"'
            assert re.search(message, cell.source, flags=re.S), cell.source


def test_the_validate_button_tells_a_blank_from_a_good_answer(course, solved, tmp_path):
    """What JupyterLab's Validate button calls, on the student's machine.

    No gradebook, only the visible tests.
    """
    nbformat.write(solved, tmp_path / "solved.ipynb")
    assert Validator().validate(str(tmp_path / "solved.ipynb")) == {}
    blank = course.notebooks["01_units_windows_splits"]
    # six tests, and two written answers without a word
    assert len(Validator().validate(str(blank))["failed"]) == 8


def test_students_are_told_the_limits_of_grading(sources, name):
    text = (SOURCE.parent / "nbgrader_config.py").read_text(encoding="utf-8")
    cell, notebook = re.search(r"CELL_SECONDS = (\d+)\nNOTEBOOK_SECONDS = (\d+)\n", text).groups()
    minutes = int(notebook) // 60
    sentence = f"a cell is stopped after {cell} s, and the whole notebook after {minutes} min"
    assert sentence in sources[name].cells[0].source

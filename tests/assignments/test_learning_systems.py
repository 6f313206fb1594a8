"""Marks arrive: tables as Canvas and Moodle read them, checked by what their importers ask for.

The samples are what the two systems export, in the columns of Canvas's lib/gradebook_exporter.rb
and Moodle's mod/assign/gradingtable.php.
"""

import csv
import re
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from ctmri_utils.course.classroom.grading import COLUMNS
from ctmri_utils.course.classroom.learning_systems import (
    check_format,
    lost_marks,
    summary,
    write_marks,
)
from ctmri_utils.course.classroom.roster import read_roster

SAMPLES = Path(__file__).parent / "samples"
UNITS = "01_units_windows_splits"
NETWORKS = "02_networks_receptive_fields"


def row(student, assignment, score=None, user="", upload="", note=""):
    """A graded submission of a table; without a score one that has no grade."""
    graded = {} if score is None else {"score": score, "max_score": 40.0}
    return graded | {
        "student": student,
        "assignment": assignment,
        "user": user,
        "upload": upload,
        "note": note,
    }


def grades(*rows):
    return pd.DataFrame(list(rows), columns=COLUMNS)


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def page(output, student, assignment):
    path = output / "feedback" / student / f"{assignment}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"feedback for {student}")


def canvas_accepts(rows):
    """What GradebookImporter asks of a table: its header, and the row of points."""
    header = rows[0]
    assert len(header) > 3 and "Student" in header[0] and "ID" in header[1]
    assert re.search(r"SIS\s+User\s+ID", header[2]) and re.search(r"SIS\s+Login\s+ID", header[3])
    assert "Section" in header[4]
    assert "Points Possible" in rows[1][0]
    assert {len(row) for row in rows} == {len(header)}
    for row in rows[1:]:
        assert all(re.fullmatch(r"(\d+(\.\d+)?)?", cell) for cell in row[5:]), row
    return True


def test_canvas_gets_its_own_columns_back(tmp_path, capsys):
    roster = read_roster(SAMPLES / "canvas.csv")
    table = grades(
        row("s1", UNITS, 22.5, "1003", "88"),
        row("s2", UNITS),
        row("s1", NETWORKS, 30.0),
        row("guest", UNITS, 9.0),
    )
    page(tmp_path, "s1", UNITS)
    # Of an earlier grading.
    page(tmp_path, "s2", UNITS)
    write_marks("canvas", table, roster, tmp_path)
    said = capsys.readouterr().out
    assert said.endswith("guest is not in canvas.csv: 9.0 is not in canvas.csv\n")
    assert f"not in feedback-canvas-{UNITS}.zip: guest, because the names" in said
    assert f"not in feedback-canvas-{NETWORKS}.zip: everybody, because" in said

    lines = read(tmp_path / "canvas.csv")
    assert canvas_accepts(lines)
    assert lines[0][5:] == [f"{UNITS} (771)", NETWORKS]
    assert lines[1] == ["    Points Possible", "", "", "", "", "40", "40"]
    assert lines[2] == ["Kim, Dora", "1001", "s4", "dora@uni.edu", "Group A", "12.00", ""]
    assert lines[3] == ["Lee, Ben", "1002", "s2", "ben@uni.edu", "Group A", "", ""]
    assert lines[4] == ["Smith, Anna", "1003", "s1", "anna.smith@uni.edu", "Group B", "22.5", "30"]
    assert len(lines) == 5

    # Canvas takes the first two numbers between underscores: the user, and the uploaded file.
    [name] = zipfile.ZipFile(tmp_path / f"feedback-canvas-{UNITS}.zip").namelist()
    numbers = [part for part in name.split("_") if part.isdigit()]
    assert numbers[:2] == ["1003", "88"] and name.endswith(f"{UNITS}.html")


@pytest.mark.parametrize(
    "header", ["id,email,name", "Student ID;E-Mail;Full name", "ID\tMail\tName"]
)
def test_a_plain_class_list_serves_canvas_and_moodle(tmp_path, header):
    delimiter = re.search(r"[,;\t]", header)[0]
    path = tmp_path / "roster.csv"
    line = delimiter.join(["s1", "anna.smith@uni.edu", "Anna Smith"])
    path.write_text(f"{header}\n{line}\n", encoding="utf-16")
    roster = read_roster(path)
    table = grades(row("s1", UNITS, 22.0), row("s1", NETWORKS))

    write_marks("canvas", table, roster, tmp_path)
    canvas = read(tmp_path / "canvas.csv")
    assert canvas_accepts(canvas)
    assert canvas[2] == ["Anna Smith", "", "s1", "anna.smith@uni.edu", "", "22", ""]

    write_marks("moodle", table, roster, tmp_path)
    assert read(tmp_path / "moodle.csv") == [
        ["ID number", "Email address", "Full name", UNITS, NETWORKS],
        ["s1", "anna.smith@uni.edu", "Anna Smith", "22", ""],
    ]


def test_moodle_gets_its_worksheet_back(tmp_path):
    roster = read_roster(SAMPLES / "moodle.csv")
    anna, ben, dora = roster.students.values()
    assert (anna.late, ben.late, dora.user) == ("", "yes", "503")
    assert roster.find("whoever", user="502") == ben and roster.find("smith anna") == anna

    page(tmp_path, anna.key, UNITS)
    table = grades(row(anna.key, UNITS, 22.5), row(ben.key, UNITS))
    write_marks("moodle", table, roster, tmp_path)

    before, after = read(SAMPLES / "moodle.csv"), read(tmp_path / f"moodle-{UNITS}.csv")
    # What Moodle's importer of worksheets looks for.
    assert {"Identifier", "Grade", "Last modified (grade)"} <= set(after[0])
    assert after[0] == before[0] and [line[:4] for line in after] == [line[:4] for line in before]
    assert [line[4] for line in after[1:]] == ["22.5", "", ""]
    assert re.fullmatch(r"\w+day, \d\d \w+ \d{4}, \d\d:\d\d [AP]M", after[1][8])
    assert after[2][8] == after[3][8] == "-"

    # Moodle reads fullname_number_plugintype_plugin from the folder.
    [name] = zipfile.ZipFile(tmp_path / f"feedback-moodle-{UNITS}.zip").namelist()
    assert name == f"Anna Smith_501_assignsubmission_file/{UNITS}.html"


def test_what_could_not_be_written_is_said_first():
    worksheet = read_roster(SAMPLES / "moodle.csv")
    check_format("csv", None, [UNITS, NETWORKS])
    check_format("moodle", worksheet, [UNITS])
    with pytest.raises(ValueError, match="class list"):
        check_format("moodle", None, [UNITS])
    with pytest.raises(ValueError, match="worksheet"):
        check_format("moodle", worksheet, [UNITS, NETWORKS])
    with pytest.raises(ValueError, match="blackboard"):
        check_format("blackboard", worksheet, [UNITS])


@pytest.mark.parametrize(
    "text, problem",
    [
        ("nr,emial\n1,2\n", "nr, emial"),
        ("id,email\ns1,a\ns1,b\n", "s1 twice"),
        ("PK\x03\x04", "spreadsheet"),
    ],
)
def test_a_wrong_class_list_is_refused(tmp_path, text, problem):
    path = tmp_path / "roster.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=problem):
        read_roster(path)


@pytest.mark.parametrize(
    "header, sentence",
    [
        ("id,email,name", ""),
        ("ID number;E-Mail;First name;Surname", ""),
        ("id,emial,nmae", "r.csv: columns not used: emial, nmae; no column email or name"),
        ("student_nr,email,name", "r.csv: columns not used: student_nr; no column id"),
        ("id,email,name,group", "r.csv: columns not used: group"),
    ],
)
def test_columns_that_are_not_used_are_said(tmp_path, header, sentence):
    (tmp_path / "r.csv").write_text(f"{header}\n")
    assert read_roster(tmp_path / "r.csv").unused == sentence


def test_exports_have_columns_that_need_no_word():
    for name in ("canvas.csv", "moodle.csv"):
        assert read_roster(SAMPLES / name).unused == ""


def test_a_student_with_nothing_but_a_name_is_kept(tmp_path):
    (tmp_path / "r.csv").write_text("id,email,name\ns1,,\n,,Ben Lee\n,,\n")
    assert list(read_roster(tmp_path / "r.csv").students) == ["s1", "Ben_Lee"]


def test_an_assignment_of_another_name_is_said(tmp_path, capsys):
    text = (SAMPLES / "canvas.csv").read_text()
    check_format("canvas", read_roster(SAMPLES / "canvas.csv"), [UNITS])
    assert capsys.readouterr().out == ""

    (tmp_path / "export.csv").write_text(text.replace(UNITS, "Assignment 1"))
    check_format("canvas", read_roster(tmp_path / "export.csv"), [UNITS])
    said = capsys.readouterr().out
    assert said.startswith(f"export.csv has no column {UNITS}, so Canvas will create one; it has: ")
    assert said.endswith("Assignment 1 (771), Quiz (772)\n")


def test_only_points_can_be_lost():
    roster = read_roster(SAMPLES / "canvas.csv")
    table = grades(row("s1", UNITS, 22.5), row("guest", UNITS, 9.0), row("empty", UNITS))
    assert list(lost_marks(table, roster)["student"]) == ["guest"]


def test_the_summary_tells_graded_from_empty():
    graded = row("s1", UNITS, 0.0, note="missing: grey") | {"needs_manual_grade": True}
    page = row("s2", UNITS, note="not graded: a PDF")
    nothing = row("s3", UNITS, note="nothing handed in")
    assert summary(grades(graded, page, nothing, nothing)) == (
        "4 rows: 1 graded, 1 not gradable, 2 nothing handed in; 1 with parts to be graded by hand"
    )
    assert summary(grades(page)).startswith("1 rows: 0 graded")


def test_a_class_without_a_grade_has_a_table_for_import(tmp_path):
    roster = read_roster(SAMPLES / "canvas.csv")
    write_marks("canvas", grades(row("s1", UNITS), row("s2", "")), roster, tmp_path)
    lines = read(tmp_path / "canvas.csv")
    assert canvas_accepts(lines) and [line[5] for line in lines[1:]] == ["", "12.00", "", ""]

"""No student is lost: students in, rows out, however the files come back."""

import copy
import io
import os
import random
import sys
import zipfile

import nbformat
import pytest

from ctmri_utils.course.classroom import handed_in
from ctmri_utils.course.classroom.handed_in import UnpackLimit, gather
from ctmri_utils.course.classroom.notebook_files import read_notebook, recognise
from ctmri_utils.course.classroom.owners import Owner
from ctmri_utils.course.classroom.roster import read_roster
from ctmri_utils.course.classroom.submissions import collect

UNITS = "01_units_windows_splits"
NETWORKS = "02_networks_receptive_fields"


@pytest.fixture(scope="session")
def handed_out(sources, released):
    return {name: released(name) for name in sources}


@pytest.fixture
def found(handed_out, tmp_path):
    """found({"anna/NAME.ipynb": content}): {(student, assignment): submission}, ignored paths."""

    def find(files, roster=None):
        write(tmp_path / "handed_in", files)
        submissions, ignored = collect(tmp_path / "handed_in", handed_out, roster)
        rows = {(one.student, one.assignment): one for one in submissions}
        assert len(rows) == len(submissions)
        return rows, ignored

    return find


def write(folder, files):
    for place, content in files.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(as_bytes(content))


def as_bytes(content):
    if isinstance(content, bytes):
        return content
    return nbformat.writes(content, version=nbformat.NO_CONVERT).encode()


def zipped(files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for place, content in files.items():
            archive.writestr(place, as_bytes(content))
    return data.getvalue()


def without_names(notebook):
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
    return notebook


@pytest.mark.parametrize(
    "place, student",
    [
        (f"anna/{UNITS}.ipynb", "anna"),
        ("anna/assignment1_anna.ipynb", "anna"),
        (f"anna/{UNITS} (1).ipynb", "anna"),
        (f"anna/{UNITS.upper()}.ipynb", "anna"),
        (f"anna/{UNITS.replace('_', ' ')}.ipynb", "anna"),
        (f"anna/Copy of {UNITS}.ipynb", "anna"),
        (f"anna/anna/deep/er/{UNITS}.ipynb.txt", "anna"),
        (f"anna_{UNITS}.ipynb", "anna"),
        (f"Anna Smith_{UNITS}-2.ipynb", "Anna_Smith"),
        (f"smithanna_LATE_12345_67890_{UNITS}.ipynb", "smithanna"),
        ("smithanna_12345_67890_homework.ipynb", "smithanna"),
        (f"Anna Smith_123_assignsubmission_file/{UNITS}.ipynb", "Anna_Smith"),
        (f"Anna Smith_123_assignsubmission_file_/sub/{UNITS}.ipynb", "Anna_Smith"),
        (f"Anna Smith_123_assignsubmission_file_{UNITS}.ipynb", "Anna_Smith"),
        (f"{UNITS}/anna.ipynb", "anna"),
    ],
)
def test_the_student_and_the_assignment_are_found(found, released, place, student):
    rows, ignored = found({place: released(UNITS), "ben/other.ipynb": released(UNITS)})
    assert set(rows) == {(student, UNITS), ("ben", UNITS)} and not ignored
    assert all(row.notebook and not row.note for row in rows.values())


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-16-le"),
        lambda text: text.encode("utf-16-be"),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("Hounsfield", "Höunsfield").encode("cp1252", errors="replace"),
        lambda text: text.replace('"metadata": {}', '"metadata": null').encode(),
    ],
    ids=["BOM", "UTF-16", "UTF-16 LE", "UTF-16 BE", "CRLF", "Windows", "no metadata"],
)
def test_encodings_cost_nothing(handed_out, damage):
    data = damage(nbformat.writes(handed_out[UNITS]))
    assert recognise(read_notebook(data, "x.ipynb"), handed_out) == UNITS


def test_an_assignment_is_recognised_by_names_or_by_its_text(handed_out):
    for name, notebook in handed_out.items():
        assert recognise(notebook, handed_out) == name
        assert recognise(without_names(notebook), handed_out) == name
    other = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import numpy as np")])
    assert recognise(other, handed_out) is None


@pytest.mark.parametrize(
    "name, content, reason",
    [
        (f"{UNITS}.py", b"# exported", "a script, not the notebook"),
        (f"{UNITS}.html", b"exported", "an HTML page, not the notebook: File > Download"),
        (f"{UNITS}.ipynb", b" <!DOCTYPE html><html>", "an HTML page, not the notebook"),
        (f"{UNITS}.ipynb", b"", "an empty file"),
        (f"{UNITS}.ipynb", b"\xef\xbb\xbf\n", "no notebook"),
        (f"{UNITS}.ipynb", b"\x89PNG not a notebook", "a picture"),
        ("answers.pdf", b"%PDF-1.7", "a PDF"),
        ("answers.docx", zipped({"word/document.xml": b""}), "a text document"),
        (f"{UNITS}.ipynb", b'{"cells": [{"cell_type": "code"', "cut off"),
        (f"{UNITS}.ipynb", b'{"cells": 3}', "a damaged notebook"),
        (f"{UNITS}.ipynb", b"[1]", "no notebook"),
        ("work.zip", b"PK\x03\x04 cut off", "an archive that cannot be opened"),
        ("work.rar", b"Rar!\x1a\x07", "a RAR archive"),
        ("holiday.ipynb", b'{"cells": [], "nbformat": 4}', "not of any of these assignments"),
    ],
)
def test_what_cannot_be_graded_has_a_row_that_says_why(found, released, name, content, reason):
    rows, _ = found({f"anna/{name}": content, f"ben/{UNITS}.ipynb": released(UNITS)})
    row = rows["anna", UNITS]
    assert row.notebook is None
    assert row.note.startswith(f"not graded: {name} is ") and reason in row.note


def test_empty_folders_and_nameless_files_have_rows(found, released, tmp_path):
    (tmp_path / "handed_in" / "anna").mkdir(parents=True)
    rows, _ = found(
        {
            f"{UNITS}.ipynb": released(UNITS),
            f"ben/{UNITS}.ipynb": released(UNITS),
            "cleo/.ipynb_checkpoints/x.ipynb": b"",
            "dora/table.csv": b"1,2",
            "roster.csv": b"id,email",
        }
    )
    students = ("anna", "ben", "cleo", "dora", "unknown-1")
    assert set(rows) == {(student, UNITS) for student in students}
    assert all("empty folder" in rows[student, UNITS].note for student in ("anna", "cleo"))
    assert rows["unknown-1", UNITS].note.startswith("no student is named: put it into a folder")


def test_zips_in_zips_and_a_folder_around_all(handed_out, released, tmp_path):
    inner = zipped({f"{UNITS}/{UNITS}.ipynb": released(UNITS)})
    everything = zipped(
        {
            "class/anna/work.zip": inner,
            "class/ben.zip": zipped({"again.zip": inner}),
            f"class/cleo_123456_98765_{UNITS}.ipynb": released(UNITS),
            "class/__MACOSX/._x": b"",
            "class/.DS_Store": b"",
            "class/roster.csv": b"id,email",
        }
    )
    (tmp_path / "all.zip").write_bytes(everything)
    submissions, ignored = collect(tmp_path / "all.zip", handed_out)
    assert [one.student for one in submissions] == ["anna", "ben", "cleo"] and not ignored
    assert all(one.notebook for one in submissions)


@pytest.mark.parametrize("form", ["zips", "folders", "zips in folders"])
def test_each_assignment_has_a_download_of_its_own(found, released, form):
    """Canvas and Moodle give one for each assignment; its name is no student's."""
    downloads = {
        "submissions": {
            f"smithanna_1001_2001_{UNITS}.ipynb": released(UNITS),
            f"leeben_LATE_1002_2002_{UNITS}-1.ipynb": released(UNITS),
            "class.csv": b"id,email",
        },
        "submissions (1)": {"smithanna_1001_2003_homework.ipynb": released(NETWORKS)},
        "moodle": {f"Cleo Roux_501_assignsubmission_file/{NETWORKS}.ipynb": released(NETWORKS)},
    }
    files = {f"dora/{UNITS}.ipynb": released(UNITS), "class.csv": b"id,email"}
    for name, inside in downloads.items():
        if form == "zips":
            files[f"{name}.zip"] = zipped(inside)
        elif form == "zips in folders":
            files[f"{name}/submissions.zip"] = zipped(inside)
        else:
            files |= {f"{name}/{place}": content for place, content in inside.items()}

    rows, ignored = found(files)
    owners = [("smithanna", UNITS), ("leeben", UNITS), ("smithanna", NETWORKS)]
    assert set(rows) == {*owners, ("Cleo_Roux", NETWORKS), ("dora", UNITS)} and not ignored
    assert (
        rows["leeben", UNITS].owner.late == "yes"
        and rows["smithanna", NETWORKS].owner.user == "1001"
    )


def test_a_folder_of_a_student_is_no_download(found, released, tmp_path):
    path = tmp_path / "roster.csv"
    path.write_text("id\ns1\ns2\n")
    files = {
        f"s1/report_2026_1128_{UNITS}.ipynb": released(UNITS),
        f"anna_1_2_assignsubmission_file/x_1_2_{UNITS}.ipynb": released(UNITS),
        f"ben/report_2026_1128_{UNITS}.ipynb": released(UNITS),
        f"ben/{NETWORKS}.ipynb": released(NETWORKS),
    }
    rows, _ = found(files, read_roster(path))
    students = {student for (student, assignment), row in rows.items() if row.notebook}
    assert students == {"s1", "anna_1", "ben"}


def test_a_place_that_is_no_zip_is_refused(tmp_path):
    write(tmp_path, {"handed_in.rar": b"Rar!"})
    with pytest.raises(ValueError):
        gather(tmp_path / "handed_in.rar")


def test_a_zip_bomb_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(handed_in, "UnpackLimit", lambda: UnpackLimit(megabytes=10))
    write(tmp_path, {"anna/bomb.zip": zipped({"zeros": bytes(11 << 20)})})
    [file] = gather(tmp_path)
    assert "cannot be opened (11 MB" in file.problem


def test_zips_in_a_zip_share_one_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(handed_in, "UnpackLimit", lambda: UnpackLimit(megabytes=10))
    bomb = zipped({"zeros": bytes(4 << 20)})
    write(tmp_path, {"anna/bombs.zip": zipped({f"{number}.zip": bomb for number in range(9)})})
    problems = [file.problem for file in gather(tmp_path)]
    assert sum("cannot be opened" in problem for problem in problems) == 7


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_to_the_solution_is_not_followed(found, released, tmp_path):
    solution = tmp_path / "solution.ipynb"
    solution.write_bytes(as_bytes(released(UNITS)))
    (tmp_path / "handed_in" / "anna").mkdir(parents=True)
    (tmp_path / "handed_in" / "anna" / f"{UNITS}.ipynb").symlink_to(solution)
    (tmp_path / "handed_in" / "dora").symlink_to(tmp_path)
    rows, _ = found({f"ben/{UNITS}.ipynb": released(UNITS)})
    assert rows["anna", UNITS].notebook is None and "a link" in rows["anna", UNITS].note
    assert rows["dora", UNITS].notebook is None


def test_the_newest_of_two_copies_counts(found, released, tmp_path):
    first, second = f"anna/{UNITS}.ipynb", f"anna/{UNITS} (1).ipynb"
    files = {name: released(UNITS) for name in (first, second, f"anna/old/{UNITS}.ipynb")}
    write(tmp_path / "handed_in", files)
    for age, name in zip((200, 100, 300), files):
        os.utime(tmp_path / "handed_in" / name, (1e9 - age, 1e9 - age))
    submissions, ignored = collect(tmp_path / "handed_in", {UNITS: released(UNITS)})
    assert [submission.file.path for submission in submissions] == [second] and len(ignored) == 2
    assert submissions[0].note == f"the newest of 3 files was graded: {UNITS} (1).ipynb"


def test_late_and_attempt_are_read_from_names(found, released):
    rows, _ = found(
        {
            f"annasmith_LATE_12345_67890_{UNITS}-1.ipynb": released(UNITS),
            f"benlee_12346_67891_{UNITS}.ipynb": released(UNITS),
        }
    )
    anna, ben = rows["annasmith", UNITS], rows["benlee", UNITS]
    assert anna.attempt == 2 and anna.owner == Owner("annasmith", "12345", "67890", late="yes")
    assert (ben.owner.late, ben.attempt) == ("", 1)


def test_two_students_of_one_name_stay_two(found, released):
    rows, _ = found(
        {
            f"lee_12345_1_{UNITS}.ipynb": released(UNITS),
            f"lee_12346_2_{UNITS}.ipynb": released(UNITS),
        }
    )
    assert set(rows) == {("lee_12345", UNITS), ("lee_12346", UNITS)}


def test_students_whom_nobody_can_tell_apart_are_refused(found, released):
    with pytest.raises(ValueError):
        found({f"a b/{UNITS}.ipynb": released(UNITS), f"a_b/{UNITS}.ipynb": released(UNITS)})


def test_a_roster_names_students_and_those_who_are_missing(found, released, tmp_path):
    path = tmp_path / "roster.csv"
    path.write_text(
        "ID;E-mail;Name\ns1;anna.smith@uni.edu;Anna Smith\ns2;ben@uni.edu;Lee, Ben\n"
        "s3;cleo@uni.edu;Cléo Roux\ns4;dora@uni.edu;Dora Kim\n",
        encoding="utf-8-sig",
    )
    rows, _ = found(
        {
            f"smithanna_12345_67890_{UNITS}.ipynb": released(UNITS),
            f"work/Ben Lee/{UNITS}.ipynb": released(UNITS),
            f"work/cleo/{UNITS}.ipynb": released(UNITS),
            f"guest_{UNITS}.ipynb": released(UNITS),
        },
        read_roster(path),
    )
    assert set(rows) == {(student, UNITS) for student in ("s1", "s2", "s3", "s4", "guest")}
    assert rows["s4", UNITS].note == "nothing handed in" and rows["s4", UNITS].attempt is None
    assert rows["s3", UNITS].attempt == 1


def test_students_in_are_rows_out(handed_out, tmp_path):
    """Two hundred classes, each student with files as odd as chance makes them."""
    texts = {name: nbformat.writes(notebook) for name, notebook in handed_out.items()}
    for seed in range(200):
        draw = random.Random(seed)
        students = [f"student{number:02}x" for number in range(draw.randint(2, 12))]
        files = {}
        expected = set()
        for number, student in enumerate(students):
            own, is_good = odd_files(draw, texts)
            files |= placed(draw, own, student, number)
            expected |= {student} if is_good else set()
        data = zipped(files)
        if draw.random() < 0.5:
            data = zipped({"download.zip": data})
        place = tmp_path / "class.zip"
        place.write_bytes(data)

        submissions, _ = collect(place, handed_out)
        assert {one.student for one in submissions} == set(students), (seed, sorted(files))
        graded = {one.student for one in submissions if one.notebook is not None}
        assert graded == expected, (seed, sorted(files))
        assert all(one.note for one in submissions if one.notebook is None)


def odd_files(draw, texts):
    """The files of one student, and whether one of them can be graded."""
    name = draw.choice(sorted(texts))
    form = draw.choice(
        [name, name.upper(), name.replace("_", " "), f"Copy of {name}", f"{name} (1)", f"{name}-2"]
    )
    files = {}
    is_good = draw.random() < 0.8
    if is_good:
        ending = draw.choice([".ipynb", ".ipynb.txt", ".json"])
        encoding = draw.choice(["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
        text = texts[name].replace("\n", draw.choice(["\n", "\r\n"]))
        files[form + ending] = text.encode(encoding)
    if not is_good or draw.random() < 0.3:
        other = draw.choice(["notes.pdf", "page.html", "code.py", "empty.ipynb"])
        files[other] = draw.choice([b"", b"<html>", b"%PDF", b"x = 1"])
    return files, is_good


def placed(draw, files, student, number):
    """The files where one of the ways to hand in leaves them."""
    way = draw.choice(["folder", "nested", "zip", "canvas", "moodle"])
    if way == "canvas":
        late = draw.choice(["", "LATE_"])
        start = draw.choice(["", "submissions/", "submissions-1/"]) + student
        return {
            f"{start}_{late}{1000 + number}_{5000 + 10 * number + place}_{file}": content
            for place, (file, content) in enumerate(files.items())
        }
    if way == "zip":
        return {f"{student}.zip": zipped({f"{UNITS}/{file}": files[file] for file in files})}
    folder = {
        "folder": student,
        "nested": f"{student}/{student}/work",
        "moodle": f"{student}_{100 + number}_assignsubmission_file",
    }[way]
    return {f"{folder}/{file}": content for file, content in files.items()}

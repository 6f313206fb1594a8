"""`python -m ctmri_utils course`: what it leaves behind, and what it says of errors."""

import io
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import nbformat
import nbformat.v4 as nb
import pytest
import torch
from PIL import Image
from rules import LESSONS

from ctmri_utils.__main__ import main
from ctmri_utils.command_line import literal
from ctmri_utils.course.lessons import run as course
from ctmri_utils.course.lessons.records import Record, read_record
from ctmri_utils.course.lessons.run import (
    LessonFailed,
    check_parameters,
    find_lessons,
    run_course,
)
from ctmri_utils.course.lessons.time_left import TABLE, TimeLeft, span, training_left
from ctmri_utils.settings import DATASETS
from ctmri_utils.viewers.progress import PROGRESS_FILE, Progress

PARAMETERS = 'PROFILE = "laptop"\nSEED = 0'


def write_lesson(folder, name="01_tiny", cells=(), parameters=1):
    tagged = [nb.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})] * parameters
    cells = [nb.new_markdown_cell("# Tiny & short"), *tagged, *map(nb.new_code_cell, cells)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nb.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder


def one_pixel_png():
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    return buffer.getvalue()


def printed(executed):
    cells = nbformat.read(executed.notebook, as_version=4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


def test_a_course_leaves_executed_copies(tmp_path, monkeypatch, capfd):
    picture = (
        f"from IPython.display import Image, display\ndisplay(Image({one_pixel_png()!r}, "
        "alt=PROFILE + ' \"red\" & green'))"
    )
    where = (
        "import os, sys, ctmri_utils\nprint(PROFILE, SEED, sys.executable, "
        "os.environ['CTMRI_BUILD'], os.getcwd())"
    )
    leave = "open('left_by_01.txt', 'w').write('seen by 02')"
    notebooks = write_lesson(tmp_path / "notebooks", cells=[where, picture, leave])
    write_lesson(notebooks, "02_more", cells=["print(open('left_by_01.txt').read())"])

    # a user's own python3 kernel must not win
    foreign = tmp_path / "home" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    foreign.joinpath("kernel.json").write_text(
        '{"argv": ["/bin/false"], "display_name": "foreign", "language": "python"}'
    )
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    monkeypatch.chdir(tmp_path)
    build = tmp_path / "build"

    first, second = run_course("ci", build, parameters={"SEED": 3}, notebooks=notebooks)

    assert printed(first).split() == ["ci", "3", sys.executable, str(build), str(build)]
    assert printed(second).strip() == "seen by 02"
    # a bare kernel holds some 0.07 GB
    assert first.minutes > 0 and 0.01 < first.peak_gb < 5
    assert "CTMRI_BUILD" not in os.environ
    out, err = capfd.readouterr()
    # nothing about TCP, frozen modules or missing alt texts
    assert "01_tiny: 0." in out and err == ""


def test_a_failing_cell_is_named_and_the_copy_kept(tmp_path):
    notebooks = write_lesson(
        tmp_path / "notebooks", cells=["print('so far')", "ct_hu = [1]\nct_hu[3]", "print('never')"]
    )
    with pytest.raises(LessonFailed, match=r"cell \[4\] `ct_hu = \[1\]` with IndexError"):
        run_course("ci", tmp_path / "build", notebooks=notebooks)
    kept = (tmp_path / "build" / "01_tiny.ipynb").read_text()
    assert "so far" in kept and "IndexError" in kept


@pytest.fixture
def course_of_three(tmp_path, monkeypatch):
    """Three lessons, a package and data of one file each, and a papermill that only copies.

    A lesson with the text "stop" is interrupted. Returns a function that runs the course in a
    build folder of its own, and returns the numbers of the lessons that ran.
    """
    for name in ("package", "data/scans", "my scans"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text("1")
    for name in ("01_a", "02_b", "03_c"):
        write_lesson(tmp_path / "notebooks", name)
    ran = []

    def execute_notebook(source, target, *_, **__):
        ran.append(int(Path(source).name[:2]))
        Path(target).write_text(Path(source).read_text())
        if "stop" in Path(source).read_text():
            raise KeyboardInterrupt

    monkeypatch.setattr("papermill.execute_notebook", execute_notebook)
    monkeypatch.setattr("ctmri_utils.course.lessons.records.PACKAGE", tmp_path / "package")
    monkeypatch.setattr("ctmri_utils.course.lessons.records.data_folder", lambda: tmp_path / "data")

    def run(**options):
        ran.clear()
        run_course("ci", tmp_path / "build", notebooks=tmp_path / "notebooks", **options)
        return list(ran)

    run.ran = ran
    return run


def edit(path, before, after):
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_what_is_up_to_date_is_not_run_again_unless_asked(course_of_three, capsys):
    assert course_of_three() == [1, 2, 3]
    assert course_of_three() == course_of_three(lessons=[2]) == []
    assert "02_b: up to date (took " in capsys.readouterr().out
    assert course_of_three(again=True) == [1, 2, 3]
    assert course_of_three(parameters={"SEED": 1}) == [1, 2, 3]


def test_a_changed_lesson_is_run_again_with_all_after_it(course_of_three, tmp_path):
    course_of_three()
    edit(tmp_path / "notebooks" / "02_b.ipynb", "Tiny", "Large")
    assert course_of_three(lessons=[2]) == [2]
    # 3 is older than what it may build on
    assert course_of_three() == [3]
    (tmp_path / "build" / "01_a.ipynb").unlink()
    assert course_of_three() == [1, 2, 3]


def test_a_change_of_the_package_or_of_the_data_runs_all_again(course_of_three, tmp_path):
    for path in sorted((tmp_path / "notebooks").iterdir()):
        edit(path, "SEED = 0", "SEED = 0\\nDATASET = 0")
    own = {"DATASET": str(tmp_path / "my scans")}
    course_of_three(parameters=own)
    for name in ("package", "data/scans", "my scans"):
        (tmp_path / name / "file").write_text("2")
        assert course_of_three(parameters=own) == [1, 2, 3]
    assert course_of_three(parameters=own) == []


def test_a_course_that_was_stopped_goes_on_with_the_unfinished_lesson(course_of_three, tmp_path):
    edit(tmp_path / "notebooks" / "02_b.ipynb", "Tiny", "stop")
    with pytest.raises(KeyboardInterrupt):
        course_of_three()
    assert course_of_three.ran == [1, 2]

    with pytest.raises(KeyboardInterrupt):
        course_of_three()
    assert course_of_three.ran == [2]
    edit(tmp_path / "notebooks" / "02_b.ipynb", "stop", "Tiny")
    assert course_of_three() == [2, 3]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no Ctrl-C to one process")
def test_ctrl_c_ends_the_lesson_and_says_that_it_goes_on(tmp_path):
    waits = "import pathlib, time\npathlib.Path('waits').touch()\ntime.sleep(60)"
    write_lesson(tmp_path / "notebooks", cells=[waits])
    program = (
        "import sys; from ctmri_utils.course.lessons import run; from pathlib import Path\n"
        f"run.CHECKOUT = Path({str(tmp_path)!r})\n"
        "from ctmri_utils.__main__ import main\n"
        f"sys.exit(main(['course', '--profile', 'ci', '--build', {str(tmp_path)!r}]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "waits").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.strip() == "ctmri course: interrupted; the same command resumes it"
    assert read_record(tmp_path / "01_tiny.ipynb") is None


def test_a_dead_kernel_is_said(tmp_path):
    notebooks = write_lesson(tmp_path / "notebooks", cells=["import os\nos._exit(9)"])
    with pytest.raises(LessonFailed, match="kernel died"):
        run_course("ci", tmp_path / "build", notebooks=notebooks)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--profile", "labtop"], "ctmri course: unknown profile 'labtop'"),
        (
            ["-p", "SEEED", "1"],
            "ctmri course: 01_tiny.ipynb has no parameter 'SEEED': it knows PROFILE",
        ),
        (["--lessons", "7"], "ctmri course: there is no lesson 7 in "),
    ],
)
def test_wrong_input_gives_one_sentence(tmp_path, monkeypatch, capsys, arguments, sentence):
    write_lesson(tmp_path / "notebooks")
    monkeypatch.setattr(course, "CHECKOUT", tmp_path)
    assert main(["course", "--build", str(tmp_path / "build"), *arguments]) == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith(sentence) and "\n" not in said
    # it was said before anything ran
    assert not (tmp_path / "build").exists()


def test_a_lesson_needs_exactly_one_parameters_cell(tmp_path):
    for count in (0, 2):
        [lesson] = find_lessons(write_lesson(tmp_path, parameters=count))
        with pytest.raises(ValueError):
            check_parameters(lesson, {"PROFILE": "ci"})


def test_no_lessons_is_said(tmp_path):
    with pytest.raises(FileNotFoundError):
        find_lessons(tmp_path)


def test_lessons_come_in_order_and_can_be_chosen(tmp_path):
    for name in ("10_last", "02_b", "01_a", "notes"):
        write_lesson(tmp_path, name)
    assert [path.stem for path in find_lessons(tmp_path)] == ["01_a", "02_b", "10_last"]
    assert [path.stem for path in find_lessons(tmp_path, [10, 1])] == ["01_a", "10_last"]


def test_values_from_the_command_line_are_python_or_text():
    texts = ("1", "0.5", "True", "scans", "data/my_scans")
    assert list(map(literal, texts)) == [1, 0.5, True, "scans", "data/my_scans"]


def test_without_the_extra_the_command_says_what_to_install(tmp_path):
    write_lesson(tmp_path / "notebooks")
    program = (
        "import sys; sys.modules['papermill'] = None\n"
        "from ctmri_utils.course.lessons import run; from pathlib import Path\n"
        f"run.CHECKOUT = Path({str(tmp_path)!r})\n"
        "from ctmri_utils.__main__ import main; sys.exit(main(['course']))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 1
    assert (
        run.stderr.strip()
        == "ctmri course: this needs papermill: pip install 'ctmri-utils[course]'"
    )


def test_a_folder_on_the_command_line_means_the_one_in_this_place(tmp_path, monkeypatch, capsys):
    given = []
    monkeypatch.setattr(
        "ctmri_utils.course.lessons.run_course",
        lambda *arguments, **_: given.append(arguments[3]) or [],
    )
    monkeypatch.setattr("ctmri_utils.course.site.build_site", lambda build: "index.html")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my scans").mkdir()
    for dataset in ("my scans", "phantom"):
        assert main(["course", "-p", "DATASET", dataset]) == 0
    datasets = [parameters["DATASET"] for parameters in given]
    assert datasets == [str(tmp_path / "my scans"), "phantom"]
    assert main(["course", "-p", "DATASET", "phantm"]) == 1 and len(given) == 2
    assert f"'phantm': choose {', '.join(DATASETS)}, or" in capsys.readouterr().err


@pytest.fixture
def usual_minutes(tmp_path, monkeypatch):
    """Stands for the table, whose numbers follow the machine that was timed last."""
    (tmp_path / "minutes.toml").write_text("[laptop]\n01 = 0.3\n02 = 0.2\n03 = 11\n")
    monkeypatch.setattr("ctmri_utils.course.lessons.time_left.TABLE", tmp_path / "minutes.toml")


def test_the_time_left_follows_what_the_lessons_take(usual_minutes):
    names = ["01_a", "02_b", "03_c"]
    time_left = TimeLeft("laptop", names, {})
    assert time_left.minutes() == pytest.approx(0.3 + 0.2 + 11)
    # twice as slow as the table says
    time_left.finish("01_a", 0.6)
    assert time_left.minutes() == pytest.approx(0.4 + 22)
    time_left.finish("02_b", 0.4)
    assert time_left.minutes(elapsed=20) == pytest.approx(2)
    # the training knows better
    assert time_left.minutes(elapsed=20, training=7) == 7
    time_left.finish("03_c", 22)
    assert time_left.minutes() == 0


def test_every_lesson_has_its_minutes():
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    assert set(table) == {"laptop", "ci"}
    assert all(list(minutes) == [name[:2] for name in LESSONS] for minutes in table.values())


def test_the_time_left_is_known_from_last_time_in_the_same_profile(usual_minutes):
    record = Record("", "gpu", minutes=4, peak_gb=1, hardware="", finished=0)
    assert TimeLeft("gpu", ["03_c"], {"03_c": record}).minutes() == 4
    assert TimeLeft("laptop", ["03_c"], {"03_c": record}).minutes() == 11
    assert TimeLeft("gpu", ["03_c"], {}).minutes() is None


def test_a_training_says_how_far_it_is_to_whoever_runs_the_lesson(tmp_path, monkeypatch):
    path = tmp_path / "progress.json"
    assert training_left(path) == ("", 0)
    monkeypatch.setenv(PROGRESS_FILE, str(path))
    slices = torch.zeros(2, 1, 16, 16)
    progress = Progress(None, slices, slices, steps=40, every=10)
    monkeypatch.setattr(progress, "refresh", lambda step: None)
    for step in range(1, 41):
        progress(step, {"loss": 1.0})
        if step == 15:
            time.sleep(0.01)
            words, minutes = training_left(path)
            assert words.startswith("; training 10 of 40 steps, ") and minutes >= 0
    assert training_left(path) == ("", 0)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_one_line_while_a_lesson_runs(usual_minutes, tmp_path, monkeypatch):
    progress = tmp_path / "progress.json"
    progress.write_text('{"step": 10, "steps": 40, "seconds_left": 300}')
    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "120")
    with course.watched("03_c", TimeLeft("laptop", ["03_c"], {}), progress, every_s=0.01):
        while "in all" not in sys.stdout.getvalue():
            time.sleep(0.01)

    text = sys.stdout.getvalue()
    line = "03_c: 1 s so far; training 10 of 40 steps, 5 min left; about 11 min left in all"
    assert line in text and "\n" not in text
    # it is wiped away at the end
    assert text.split("\r")[-2].strip() == ""


def test_a_time_is_said_as_people_do():
    times = [span(minutes) for minutes in (0, 0.5, 1.4, 1.6, 12.4)]
    assert times == ["1 s", "30 s", "84 s", "2 min", "12 min"]

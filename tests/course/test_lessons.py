"""`python -m ctmri_utils course`: what it leaves behind, and what it says of errors."""

import io
import os
import subprocess
import sys

import nbformat
import nbformat.v4 as nb
import pytest
from PIL import Image

from ctmri_utils.__main__ import main
from ctmri_utils.course import lessons as course
from ctmri_utils.course.lessons import LessonFailed, check_parameters, find_lessons, run_course
from ctmri_utils.scans.datasets import NAMED
from ctmri_utils.settings import literal

PARAMETERS = 'PROFILE = "laptop"\nSEED = 0'


def write_lesson(folder, name="01_tiny", cells=(), parameters=1):
    tagged = [
        nb.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}) for _ in range(parameters)
    ]
    notebook = nb.new_notebook(
        cells=[nb.new_markdown_cell("# Tiny & short"), *tagged, *map(nb.new_code_cell, cells)],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        },
    )
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
    notebooks = write_lesson(tmp_path / "notebooks", cells=[where, picture])
    write_lesson(notebooks, "02_more", cells=["print(open('left_by_01.txt').read())"])
    write_lesson(
        notebooks, cells=[where, picture, "open('left_by_01.txt', 'w').write('seen by 02')"]
    )
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
    with pytest.raises(
        LessonFailed,
        match=r"01_tiny stopped in cell \[4\] `ct_hu = \[1\]` with IndexError: list index out of "
        r"range",
    ):
        run_course("ci", tmp_path / "build", notebooks=notebooks)
    kept = (tmp_path / "build" / "01_tiny.ipynb").read_text()
    assert "so far" in kept and "IndexError" in kept


def test_a_dead_kernel_is_said(tmp_path):
    notebooks = write_lesson(tmp_path / "notebooks", cells=["import os\nos._exit(9)"])
    with pytest.raises(LessonFailed, match="01_tiny stopped because its kernel died"):
        run_course("ci", tmp_path / "build", notebooks=notebooks)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--profile", "labtop"],
            "course: PROFILE='labtop' is not known: choose one of ci, laptop, gpu",
        ),
        (
            ["--profile", "ci", "-p", "SEEED", "1"],
            "course: 01_tiny.ipynb has no parameter 'SEEED': it knows PROFILE, SEED",
        ),
        (["--profile", "ci", "--lessons", "7"], "course: there is no lesson 7 in "),
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
        with pytest.raises(
            ValueError, match=f"01_tiny.ipynb has {count} cells tagged 'parameters'"
        ):
            check_parameters(lesson, {"PROFILE": "ci"})


def test_no_lessons_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no lessons"):
        find_lessons(tmp_path)


def test_lessons_come_in_order_and_can_be_chosen(tmp_path):
    for name in ("10_last", "02_b", "01_a", "notes"):
        write_lesson(tmp_path, name)
    assert [path.stem for path in find_lessons(tmp_path)] == ["01_a", "02_b", "10_last"]
    assert [path.stem for path in find_lessons(tmp_path, [10, 1])] == ["01_a", "10_last"]


def test_values_from_the_command_line_are_python_or_text():
    assert [literal(text) for text in ("1", "0.5", "True", "scans", "data/my_scans")] == [
        1,
        0.5,
        True,
        "scans",
        "data/my_scans",
    ]


def test_without_the_extra_the_command_says_what_to_install(tmp_path):
    write_lesson(tmp_path / "notebooks")
    program = (
        "import sys; sys.modules['papermill'] = None; from ctmri_utils.course import lessons as "
        "course; from pathlib import Path\n"
        f"course.CHECKOUT = Path({str(tmp_path)!r})\n"
        "from ctmri_utils.__main__ import main; sys.exit(main(['course']))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 1
    assert (
        run.stderr.strip()
        == "course: running the lessons needs papermill: pip install 'ctmri-utils[course]'"
    )


def test_a_folder_on_the_command_line_means_the_one_in_this_place(tmp_path, monkeypatch, capsys):
    given = []
    monkeypatch.setattr(
        "ctmri_utils.course.lessons.run_course", lambda *arguments: given.append(arguments[3]) or []
    )
    monkeypatch.setattr("ctmri_utils.course.site.build_site", lambda build: "index.html")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my scans").mkdir()
    for dataset in ("my scans", "phantom"):
        assert main(["course", "-p", "DATASET", dataset]) == 0
    assert [parameters["DATASET"] for parameters in given] == [
        str(tmp_path / "my scans"),
        "phantom",
    ]
    assert main(["course", "-p", "DATASET", "phantm"]) == 1 and len(given) == 2
    assert (
        f"DATASET='phantm' is neither {', '.join(NAMED)} nor a folder in" in capsys.readouterr().err
    )

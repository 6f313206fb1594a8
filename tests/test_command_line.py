"""The command line: what it loads, what its help says, and how it refuses."""

import inspect
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from importlib import metadata
from pathlib import Path

import pytest
import torch

from ctmri_utils import issue_report
from ctmri_utils.__main__ import COMMANDS, main, out_of_memory
from ctmri_utils.course.lessons import LessonFailed
from ctmri_utils.scans.datasets import NAMED
from ctmri_utils.settings import DEFAULT_RUN, PRESETS, PROFILES, Settings, read_settings

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def trained_with(monkeypatch):
    """What `train` is called with, as (file, output, tensorboard, changes)."""
    calls = []
    monkeypatch.setattr("ctmri_utils.runs.train.train", lambda *words: calls.append(words))
    return calls


def help_of(capsys, monkeypatch, *words):
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["train", "--lr", "1"]])
def test_help_and_usage_errors_load_neither_torch_nor_numpy(words):
    """Quick is tested by what is not loaded; seconds would depend on the machine."""
    program = (
        "import sys, atexit\nfrom ctmri_utils.__main__ import main\n"
        "atexit.register(lambda: print('LOADED', {'torch', 'numpy', 'scipy'} & set(sys.modules)))\n"
        f"main({words})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "LOADED set()", done.stderr


def test_the_console_script_is_the_same_program():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    script = metadata.EntryPoint("ctmri", project["scripts"]["ctmri"], "console_scripts")
    assert script.load() is main


def test_output_that_nobody_reads_on_is_no_error():
    ran = subprocess.run(
        f"{sys.executable} -m ctmri_utils train --help | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert ran.stdout.startswith("usage") and ran.stderr == ""


def test_help_lists_every_command(capsys, monkeypatch):
    text = help_of(capsys, monkeypatch)
    for name, function in COMMANDS.items():
        assert f"• {name} " in text and function.__doc__.splitlines()[0] in text


@pytest.mark.parametrize("function", COMMANDS.values(), ids=COMMANDS)
def test_every_flag_of_a_command_has_its_help(function):
    """The groups of settings have theirs from the fields."""
    for name, parameter in inspect.signature(function).parameters.items():
        assert f"    {name}: " in function.__doc__ or "Flags]" in parameter.annotation


def test_every_setting_is_a_flag_with_default_limits_and_choices(capsys, monkeypatch):
    text = help_of(capsys, monkeypatch, "train")
    for spec in fields(Settings):
        assert f"--{spec.name.replace('_', '-')} " in text and spec.metadata["help"] in text
        for choice in spec.metadata["choices"]:
            assert choice in text
    assert "(default: 16, ci: 8, gpu: 64; 1 to 65536)" in text
    for title in ("run", "architecture", "objective", "training", "sizes"):
        assert f"{title} options" in text


def test_flags_are_settings_and_only_those_that_are_given(trained_with):
    words = "train --gan-mode hinge --cycle_ct 5 --flip false --steps 1e3 --profile ci --dataset 12"
    assert main([*words.split(), "--seed", "1", "--preset", "heads"]) == 0
    [(file, output, tensorboard, changes)] = trained_with
    assert (file, output, tensorboard) == (None, None, False)
    run, settings = read_settings(None, changes)
    assert run.items() >= {"profile": "ci", "dataset": "12", "seed": 1}.items()
    assert (settings.gan_mode, settings.flip, settings.steps) == ("hinge", False, 1000)
    assert settings.mind == PRESETS["heads"]["mind"]
    assert settings.ngf == PROFILES["ci"].ngf


def test_flags_win_over_p_and_p_over_the_file(trained_with, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("ngf = 5\nndf = 5\nn_blocks = 5")
    assert main(["train", str(file), "-p", "ngf", "6", "-p", "ndf", "6", "--ngf", "7"]) == 0
    [(path, *_, changes)] = trained_with
    _, settings = read_settings(path, changes)
    assert (settings.ngf, settings.ndf, settings.n_blocks) == (7, 6, 5)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--ngf", "0"], "ngf=0"),
        (["--steps", "1.5"], "steps=1.5"),
        (["--jitter", "-1"], "jitter=-1"),
        (["--profile", "huge"], "unknown profile 'huge'"),
        (["--preset", "huge"], "unknown preset 'huge'"),
        (["-p", "netG", "x"], "netG"),
    ],
)
def test_a_wrong_value_gets_the_settings_own_sentence(capsys, trained_with, words, named):
    assert main(["train", *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"train: {named}") and error.count("\n") == 1 and not trained_with


@pytest.mark.parametrize(
    ("flag", "ours"),
    [("--lr", "learning_rate"), ("--lambda_A=3", "cycle_ct"), ("--no-flip", "flip to false")],
)
def test_a_flag_of_the_reference_is_told_ours(capsys, flag, ours):
    assert main(["train", flag]) == 2
    assert capsys.readouterr().err.endswith(f": set {ours}\n")


def test_a_misspelled_flag_is_told_the_nearest(capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", "--learning-rte", "1"])
    assert end.value.code == 2 and "--learning-rate" in capsys.readouterr().err


@pytest.mark.parametrize(("word", "advice"), [("trian", "did you mean train?"), ("xyz", "course")])
def test_an_unknown_command_is_told_the_nearest_or_all(capsys, word, advice):
    assert main([word]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"ctmri: {word} ") and advice in error and error.count("\n") == 1


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ctmri-utils {metadata.version('ctmri-utils')}\n"


@pytest.mark.parametrize("words", [[], ["page"], ["export", "a", "b", "--to", "pet"]])
def test_usage_errors_end_with_2(words):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2


def test_only_memory_that_ran_out_is_called_so():
    assert out_of_memory(MemoryError()) and out_of_memory(torch.OutOfMemoryError())
    assert not out_of_memory(RuntimeError("something else"))
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50)
    assert out_of_memory(error.value)


def test_a_failed_lesson_gets_its_sentence(capsys, monkeypatch):
    def failed(*_, **__):
        raise LessonFailed("01_tiny stopped")

    monkeypatch.setattr("ctmri_utils.course.lessons.run_course", failed)
    assert main(["course"]) == 1 and capsys.readouterr().err == "course: 01_tiny stopped\n"


def test_ctrl_c_ends_with_130(capsys, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("ctmri_utils.scans.kaggle.download", interrupted)
    assert main(["download"]) == 130 and capsys.readouterr().err == "download: interrupted\n"


def test_the_report_says_what_an_issue_needs(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("CTMRI_THREADS", "3")
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path))
    assert main(["report"]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["ctmri-utils"] == metadata.version("ctmri-utils")
    assert lines["torch"] == metadata.version("torch") and "nibabel" in lines
    assert lines["build"] == str(tmp_path) and "CTMRI_THREADS 3" in lines["threads"]
    assert {"Python", "platform", "machine", "checkout", "data", "git revision"} <= lines.keys()


def test_the_report_does_without_what_is_missing(monkeypatch):
    monkeypatch.setattr(issue_report, "packages", lambda: ["no-such-package"])
    monkeypatch.setitem(sys.modules, "ctmri_utils.machine", None)
    text = issue_report.report_text()
    assert "no-such-package: not installed\n" in text and "machine: " in text


def test_the_help_names_every_data_set_that_has_a_name(capsys, monkeypatch):
    text = help_of(capsys, monkeypatch, "train")
    [line] = [line for line in text.splitlines() if "--dataset " in line]
    assert all(name in line for name in NAMED)


@pytest.mark.parametrize("command", COMMANDS)
def test_values_are_named_in_one_style_and_texts_keep_no_line_breaks(capsys, monkeypatch, command):
    text = help_of(capsys, monkeypatch, command)
    assert not re.search(r"\b(INT|STR|FLOAT)\b", text)
    for line in COMMANDS[command].__doc__.splitlines():
        if line.startswith("    "):
            assert line.split(": ", 1)[1] in text


def test_the_run_flags_are_what_a_settings_file_names(capsys, monkeypatch):
    text = help_of(capsys, monkeypatch, "train")
    for name, default in DEFAULT_RUN.items():
        assert f"--{name} " in text and f"(default: {default or 'none'})" in text

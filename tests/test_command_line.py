"""The command line: what it loads, what its help says, and how it refuses."""

import functools
import inspect
import re
import subprocess
import sys
import tomllib
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import Literal, get_args, get_origin

import nibabel
import numpy as np
import pytest
import torch

from ctmri_utils import issue_report
from ctmri_utils.__main__ import COMMANDS, main, out_of_memory
from ctmri_utils.command_line import Pairs, flag_types
from ctmri_utils.course.classroom import grade
from ctmri_utils.course.lessons import LessonFailed
from ctmri_utils.runs.export import export
from ctmri_utils.runs.locations import run_folder
from ctmri_utils.settings import PRESETS, PROFILES, Run, Settings, read_settings
from ctmri_utils.volumes.axial_slices import FIELD_MM
from ctmri_utils.volumes.network_slices import ASSUMED_SIZE
from ctmri_utils.volumes.prepare import Preparation
from ctmri_utils.volumes.translate import TranslationOptions

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def trained_with(monkeypatch):
    """The settings files and the changes that `train` is called with."""
    calls = []

    def train(file, *, output, tensorboard, changes):
        calls.append((file, changes))

    monkeypatch.setattr("ctmri_utils.runs.train.train", train)
    return calls


def help_of(capsys, monkeypatch, command):
    """The help of a command in 80 columns, and the same with its lines joined."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    return text, " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["train", "--lr", "1"]])
def test_help_and_usage_errors_load_neither_torch_nor_numpy(words):
    """Quick is tested by what is not loaded; seconds would depend on the machine."""
    program = (
        "import sys, atexit\nfrom ctmri_utils.__main__ import main\n"
        "atexit.register(lambda: print('LOADED', {'torch', 'numpy', 'scipy'} & set(sys.modules)))\n"
        f"main({words})"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.splitlines()[-1] == "LOADED set()", run.stderr


def test_the_console_script_is_the_same_program():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    script = metadata.EntryPoint("ctmri", project["scripts"]["ctmri"], "console_scripts")
    assert script.load() is main


def test_a_closed_pipe_is_no_error():
    run = subprocess.run(
        f"{sys.executable} -m ctmri_utils train --help | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert run.stdout.startswith("usage") and run.stderr == ""


def test_help_lists_every_command_in_80_columns(capsys):
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines if re.match("  [a-z]", line)} == COMMANDS.keys()
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_parameter_in_80_columns(capsys, monkeypatch, command):
    narrow, text = help_of(capsys, monkeypatch, command)
    # tyro does not break the first line, which is the usage.
    assert max(map(len, narrow.splitlines()[1:])) <= 80
    assert not re.search(r"\b(INT|STR|FLOAT)\b|default: (none|off)|by default\)", text)

    explained = dict(re.findall(r"^    (\w+): (.+)$", COMMANDS[command].__doc__, re.MULTILINE))
    for name, parameter in inspect.signature(COMMANDS[command]).parameters.items():
        # The flags of the settings have their help from the fields.
        if "Flags]" not in parameter.annotation:
            assert explained[name] in text


def test_every_setting_is_a_flag_with_default_limits_and_choices(capsys, monkeypatch):
    _, text = help_of(capsys, monkeypatch, "train")
    for spec in [*fields(Settings), *fields(Run)]:
        assert f"--{spec.name.replace('_', '-')} " in text and spec.metadata["help"] in text
        for choice in spec.metadata["choices"]:
            assert choice in text
    assert ". (default: 16, ci: 8, gpu: 64; 1 to 65536)" in text
    assert f"(default: {Run().seed}; 0 to " in text
    for title in ("run", "architecture", "objective", "training", "size"):
        assert f"{title} options" in text


@pytest.mark.parametrize(
    ("command", "function"),
    [
        ("prepare", Preparation),
        ("translate", TranslationOptions),
        ("export", export),
        ("grade", grade),
    ],
)
def test_a_flag_has_the_default_of_the_function_behind_it(command, function):
    flags = inspect.signature(COMMANDS[command]).parameters
    parameters = inspect.signature(function).parameters
    shared = flags.keys() & parameters.keys()
    for name in shared:
        assert flags[name].default == parameters[name].default
    assert len(shared) > 2


def test_defaults_that_the_help_words_are_true(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path / "build"))

    def joined_help(command):
        return help_of(capsys, monkeypatch, command)[1]

    run = run_folder("DATASET", "PROFILE", "SEED").relative_to(tmp_path).as_posix()
    assert f"(default: {run})" in joined_help("train")
    for command in ("translate", "evaluate"):
        text = joined_help(command)
        assert f"or {ASSUMED_SIZE})" in text and f"or {FIELD_MM:g} / SIZE)" in text
    studies = tomllib.loads((ROOT / "ctmri_utils/runs/studies.toml").read_text(encoding="utf-8"))
    assert studies.keys() <= set(re.findall(r"\w+", joined_help("study")))

    head_hu = np.pad(np.full((40, 40, 16), 40, np.int16), 4, constant_values=-1000)
    path = tmp_path / "NAME.nii.gz"
    nibabel.save(nibabel.Nifti1Image(head_hu, np.diag([4, 4, 4, 1])), path)
    assert main(["evaluate", str(path), "--truth", str(path)]) == 0
    [hint] = re.findall(r"\(default: (build/evaluations/\w+)\)", joined_help("evaluate"))
    assert (tmp_path / hint / "scores.csv").is_file()


def test_flags_are_settings_and_only_those_that_are_given(trained_with):
    words = "train --gan-mode hinge --cycle_ct 5 --flip false --steps 1e3 --profile ci --dataset 12"
    assert main([*words.split(), "--seed", "1", "--preset", "heads"]) == 0
    [(file, changes)] = trained_with
    run, settings = read_settings(file, changes)
    assert run == Run(profile="ci", dataset="12", seed=1)
    assert (settings.gan_mode, settings.flip, settings.steps) == ("hinge", False, 1000)
    assert settings.mind == PRESETS["heads"]["mind"]
    assert settings.ngf == PROFILES["ci"].ngf


def test_flags_win_over_p_and_p_over_the_file(trained_with, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("ngf = 5\nndf = 5\nn_blocks = 5")
    assert main(["train", str(file), "-p", "ngf", "6", "-p", "ndf", "6", "--ngf", "7"]) == 0
    [(path, changes)] = trained_with
    _, settings = read_settings(path, changes)
    assert (settings.ngf, settings.ndf, settings.n_blocks) == (7, 6, 5)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--ngf 0", "ngf=0"),
        ("--steps 1.5", "steps=1.5"),
        ("--jitter -1", "jitter=-1"),
        ("-p profile huge", "profile='huge'"),
        ("-p preset huge", "unknown preset 'huge'"),
        ("-p netG x", "netG"),
    ],
)
def test_a_wrong_setting_gets_its_own_sentence(capsys, trained_with, words, named):
    assert main(["train", *words.split()]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"ctmri train: {named}") and error.count("\n") == 1 and not trained_with


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "ctmri: no command is given: choose from course, "),
        ("trian", "ctmri: trian is not a command: did you mean train?"),
        ("translate", "ctmri translate: INPUT, OUTPUT, --weights must be given"),
        ("translate in out --weights", "ctmri translate: --weights needs a value"),
        ("export a", "ctmri export: OUTPUT must be given"),
        ("export a b --to pet", "ctmri export: --to pet is not known: choose from ct, mri"),
        ("course 1", "ctmri course: 1 is one argument too many"),
        ("course --lessons 1 x", "ctmri course: --lessons x should be a whole number"),
        ("evaluate --page --size -1 --weights --page", "ctmri evaluate: --weights needs a value"),
        (
            "evaluate x --spacing-mm=nan",
            "ctmri evaluate: --spacing-mm nan should be a finite number",
        ),
        ("evaluate x --page=true", "ctmri evaluate: true is one argument too many"),
        ("check . -x", "ctmri check: -x is not a flag"),
        ("train -p steps", "ctmri train: -p needs a name and a value"),
        (
            "train --learning-rte 1",
            "ctmri train: --learning-rte is not a flag: did you mean --learning-",
        ),
        ("train --lambda_A=3", "ctmri train: --lambda-A is not a flag: set --cycle-ct"),
        ("train --no-flip", "ctmri train: --no-flip is not a flag: set --flip to false"),
        ("train --gan-mode hing", "ctmri train: --gan-mode hing is not known: did you mean hinge?"),
        ("train --preset huge", "ctmri train: --preset huge is not known: choose from "),
        ("prepare out", "ctmri prepare: nothing to prepare: give --ct and --mri"),
        ("evaluate x", "ctmri evaluate: nothing to compare with: give --truth"),
    ],
)
def test_a_mistake_in_the_command_gets_one_sentence(capsys, words, sentence):
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith(sentence)
    assert error.endswith("--help`)\n") and error.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_not_refused_tyro_takes(monkeypatch, command):
    """With every argument and every flag."""
    calls = []
    function = COMMANDS[command]

    @functools.wraps(function)
    def stand_in(*arguments, **flags):
        calls.append((arguments, flags))

    monkeypatch.setitem(COMMANDS, command, stand_in)
    parameters = inspect.signature(function).parameters.values()
    words = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
    for flag, kind in flag_types(function).items():
        words += [flag, *values_of(kind)]
    assert main([command, *words]) == 0 and len(calls) == 1


def values_of(kind):
    if kind is bool:
        return []
    if kind == Pairs:
        return ["name", "1"]
    for part in (kind, *get_args(kind)):
        if get_origin(part) is Literal:
            return [get_args(part)[-1]]
    return ["1"]


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
    assert main(["course"]) == 1 and capsys.readouterr().err == "ctmri course: 01_tiny stopped\n"


def test_ctrl_c_ends_with_130(capsys, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("ctmri_utils.scans.kaggle.download", interrupted)
    assert main(["download"]) == 130 and capsys.readouterr().err == "ctmri download: interrupted\n"


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ctmri-utils {metadata.version('ctmri-utils')}\n"


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

"""The settings: what is refused, what a profile says, and what goes through a file and back."""

import re
from dataclasses import fields, replace

import pytest

from ctmri_utils.settings import (
    DEFAULT_RUN,
    PROFILES,
    REFERENCE_NAMES,
    Architecture,
    Objective,
    Options,
    Settings,
    Training,
    literal,
    option,
    read_settings,
    read_toml,
    read_words,
    to_toml,
)


def test_the_defaults_are_the_references():
    a, o, t = Architecture(), Objective(), Training()
    assert (a.ngf, a.ndf, a.n_blocks, a.n_layers, a.norm, a.dropout) == (
        64,
        64,
        9,
        3,
        "instance",
        False,
    )
    assert (a.init, a.init_gain) == ("normal", 0.02)
    assert (o.cycle_ct, o.cycle_mri, o.identity, o.gan_mode, o.pool_size) == (
        10,
        10,
        5,
        "lsgan",
        50,
    )
    assert (t.batch_size, t.learning_rate, t.beta1, t.beta2, t.lr_policy, t.clip_norm) == (
        1,
        2e-4,
        0.5,
        0.999,
        "linear",
        0,
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ngff": 3}, "ngff is no option here: did you mean ngf?"),
        ({"colour": 3}, "colour is no option here: choose from ngf, ndf, "),
        ({"ngf": "8"}, "ngf='8' should be a whole number"),
        ({"ngf": 8.5}, "ngf=8.5 should be a whole number"),
        ({"init_type": "normal"}, "init_type is no option here: set init"),
        ({"ngf": True}, "ngf=True should be a whole number"),
        ({"ngf": 0}, "ngf=0 should be at least 1"),
        ({"dropout": 1}, "dropout=1 should be true or false"),
        ({"norm": "group"}, "norm='group' is not known: choose one of instance, batch, none"),
        ({"init_gain": float("nan")}, "init_gain=nan should be at least 0"),
        ({"init_gain": None}, "init_gain=None should be a number"),
        ({"init_gain": float("inf")}, "init_gain=inf should be at least 0 and finite"),
    ],
)
def test_a_wrong_option_gets_one_sentence(values, message):
    with pytest.raises(ValueError) as error:
        Architecture.of(values)
    assert str(error.value).startswith(message)


def test_limits_bind_at_both_ends():
    class Both(Options):
        pass

    with pytest.raises(ValueError, match="beta1=1.5 should be at least 0 and at most 1"):
        Training(beta1=1.5)
    assert Training(beta1=1, shift=0).beta1 == 1.0 and option(3, "help", low=2).metadata["low"] == 2


def test_a_whole_number_serves_as_a_number_and_1e3_as_a_whole_one():
    assert type(Objective(cycle_ct=5).cycle_ct) is float
    assert Objective(cycle_ct=5) == Objective(cycle_ct=5.0)
    steps = Training(steps=1e3).steps
    assert steps == 1000 and type(steps) is int
    with pytest.raises(ValueError):
        Training(steps=1.5)


def test_a_settings_file_takes_1e3_too(tmp_path):
    (tmp_path / "mine.toml").write_text("steps = 1e3\nseed = 7.0")
    run, settings = read_settings(tmp_path / "mine.toml", {})
    assert (settings.steps, run["seed"]) == (1000, 7) and type(run["seed"]) is int


@pytest.mark.parametrize("path", ["C:\\Users\\me", "C:\\temp"])
def test_a_windows_path_gets_a_hint(tmp_path, path):
    """TOML reads the first as an error, and the second as a tab."""
    file = tmp_path / "mine.toml"
    file.write_text(f'steps = 1\ndataset = "{path}"')
    with pytest.raises(ValueError, match="write it in single quotes or with forward slashes"):
        read_toml(file)
    for good in (f"'{path}'", '"C:/temp"', '"C:\\\\temp"'):
        file.write_text(f"dataset = {good}")
        assert read_toml(file)["dataset"].startswith("C:")


def test_every_name_of_the_reference_is_told_from_ours():
    known = {spec.name for spec in fields(Settings)}
    assert not known & REFERENCE_NAMES.keys()
    for name, advice in REFERENCE_NAMES.items():
        with pytest.raises(ValueError) as error:
            read_settings(None, {name: 1})
        assert str(error.value) == f"the settings: {name} is no option here: {advice}"
        # What it says to set exists.
        settable = re.match(r"set (\w+)", advice)
        assert settable is None or settable[1] in known | DEFAULT_RUN.keys()


def test_words_that_are_texts_stay_as_they_were_typed():
    words = {"dataset": "123", "generator": "1", "ngf": "8", "steps": "1e3", "flip": "false"}
    assert read_words(words) == {
        "dataset": "123",
        "generator": "1",
        "ngf": 8,
        "steps": 1000.0,
        "flip": False,
    }


def test_settings_are_the_sum_of_their_parts():
    settings = PROFILES["laptop"]
    for part in (Architecture, Objective, Training):
        assert {spec.name for spec in fields(part)} <= {spec.name for spec in fields(Settings)}
        assert isinstance(settings.pick(part), part)
    assert settings.pick(Architecture).ngf == settings.ngf == 16
    assert (
        Settings().pick(Architecture) == Architecture() and Settings().pick(Training) == Training()
    )


def test_training_steps_follow_the_data_set_unless_they_are_set():
    laptop = PROFILES["laptop"]
    assert (
        laptop.training_steps("phantom") == laptop.phantom_steps
        and laptop.training_steps("a folder") == laptop.scans_steps
    )
    assert replace(laptop, steps=7).training_steps("phantom") == 7
    assert laptop.training.learning_rate == laptop.learning_rate
    assert replace(laptop, steps=9).training.steps == 9


def test_toml_brings_every_setting_back(tmp_path):
    values = {spec.name: getattr(PROFILES["gpu"], spec.name) for spec in fields(Settings)} | {
        "dataset": 'a "folder" with\\é'
    }
    (tmp_path / "settings.toml").write_text(to_toml(values), encoding="utf-8")
    assert read_toml(tmp_path / "settings.toml") == values


def test_a_bad_settings_file_gets_one_sentence(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match="none.toml cannot be read .No such file.*: give the path of a settings file",
    ):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(
        IsADirectoryError, match="cannot be read .Is a directory.: give the path of a settings file"
    ):
        read_toml(tmp_path)
    (tmp_path / "bad.toml").write_text("ngf = = 3")
    with pytest.raises(
        ValueError, match="bad.toml is no TOML text .*: write lines such as learning_rate = 0.0002"
    ):
        read_toml(tmp_path / "bad.toml")
    (tmp_path / "deep.toml").write_text("ngf = " + 9999 * "[")
    with pytest.raises(ValueError, match="deep.toml is no TOML text"):
        read_toml(tmp_path / "deep.toml")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1", 1),
        ("6e-4", 6e-4),
        ("true", True),
        ("False", False),
        ("None", None),
        ("hinge", "hinge"),
    ],
)
def test_words_of_the_command_line(word, value):
    assert literal(word) == value and type(literal(word)) is type(value)

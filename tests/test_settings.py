"""The settings: what is refused, what a profile says, and what goes through a file and back."""

import re
from dataclasses import fields, replace

import pytest

from ctmri_utils.command_line import literal, read_words
from ctmri_utils.settings import (
    DEFAULT_RUN,
    PROFILES,
    REFERENCE_NAMES,
    Architecture,
    Objective,
    Options,
    Settings,
    Training,
    option,
    read_settings,
    read_toml,
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
    ("values", "named"),
    [
        ({"ngff": 3}, "ngff.* ngf"),
        ({"colour": 3}, "colour.* ngf, ndf, "),
        ({"init_type": "normal"}, "init_type.* init"),
        ({"ngf": "8"}, "ngf='8'"),
        ({"ngf": 8.5}, "ngf=8.5"),
        ({"ngf": True}, "ngf=True"),
        ({"ngf": 0}, "ngf=0.* 1"),
        ({"dropout": 1}, "dropout=1"),
        ({"generator": 1}, "generator=1"),
        ({"norm": "group"}, "norm='group'.* instance, batch"),
        ({"init_gain": float("nan")}, "init_gain=nan.* 0"),
        ({"init_gain": None}, "init_gain=None"),
        ({"init_gain": float("inf")}, "init_gain=inf.* 0"),
    ],
)
def test_a_wrong_option_is_named_with_what_would_do(values, named):
    with pytest.raises(ValueError, match=named):
        Architecture.of(values)


@pytest.mark.parametrize("name", ["profile", "preset"])
def test_an_unknown_profile_or_preset_is_named_with_the_known_ones(name):
    with pytest.raises(ValueError, match="'huge'.* (laptop|reference)"):
        read_settings(None, {name: "huge"})


@pytest.mark.parametrize("run", [{"seed": "one"}, {"dataset": 12}])
def test_a_run_of_the_wrong_type_is_named(run):
    [name] = run
    with pytest.raises(ValueError, match=name):
        read_settings(None, run)


def test_limits_bind_at_both_ends():
    class Both(Options):
        pass

    with pytest.raises(ValueError, match="beta1=1.5.* 0 .* 1"):
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
    with pytest.raises(ValueError, match="mine.toml.* single quotes"):
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
        assert name in str(error.value) and str(error.value).endswith(f": {advice}")
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


def test_a_bad_settings_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.toml"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        read_toml(tmp_path)
    (tmp_path / "bad.toml").write_text("ngf = = 3")
    with pytest.raises(ValueError, match="bad.toml"):
        read_toml(tmp_path / "bad.toml")
    (tmp_path / "deep.toml").write_text("ngf = " + 9999 * "[")
    with pytest.raises(ValueError, match="deep.toml"):
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

"""The settings: what is refused, what a profile says, and what goes through a file and back."""

from dataclasses import fields, replace

import pytest

from ctmri_utils.settings import (
    PROFILES,
    Architecture,
    Objective,
    Options,
    Settings,
    Training,
    literal,
    option,
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
    ("values", "message"),
    [
        ({"ngff": 3}, "ngff is no option here: did you mean ngf?"),
        ({"colour": 3}, "colour is no option here: choose from ngf, ndf, "),
        ({"ngf": "8"}, "ngf='8' should be a whole number"),
        ({"ngf": 8.0}, "ngf=8.0 should be a whole number"),
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


def test_a_whole_number_serves_as_a_number():
    assert type(Objective(cycle_ct=5).cycle_ct) is float and Objective(cycle_ct=5) == Objective(
        cycle_ct=5.0
    )


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

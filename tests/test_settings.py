"""The settings: what is refused, what a profile or preset says, and files of them."""

import re
from dataclasses import asdict, fields, replace

import pytest

import ctmri_utils
from ctmri_utils.cyclegan.model import CycleGAN
from ctmri_utils.options import REFERENCE_NAMES, read_toml, to_toml
from ctmri_utils.runs.setting_flags import read_words
from ctmri_utils.settings import (
    DATASETS,
    PRESETS,
    PROFILES,
    Architecture,
    Objective,
    Run,
    Settings,
    Training,
    read_settings,
    settings_for,
)

PARTS = (Architecture, Objective, Training)
# The reference's options, by our names.
REFERENCE = {
    "ngf": 64,
    "ndf": 64,
    "n_blocks": 9,
    "n_layers": 3,
    "norm": "instance",
    "dropout": False,
    "init": "normal",
    "init_gain": 0.02,
    "cycle_ct": 10,
    "cycle_mri": 10,
    "identity": 5,
    "gan_mode": "lsgan",
    "pool_size": 50,
    "batch_size": 1,
    "learning_rate": 2e-4,
    "beta1": 0.5,
    "beta2": 0.999,
    "lr_policy": "linear",
    "clip_norm": 0,
}


def test_the_defaults_are_the_references():
    assert asdict(Settings()).items() >= REFERENCE.items()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"ngff": 3}, "ngff.* ngf"),
        ({"colour": 3}, "colour.* see .ctmri train --help"),
        ({"init_type": "normal"}, "init_type.* init"),
        ({"ngf": "8"}, "ngf"),
        ({"ngf": 8.5}, "ngf"),
        ({"ngf": True}, "ngf"),
        ({"ngf": 0}, "ngf.* 1"),
        ({"ngf": 2**20}, "ngf.* 65536"),
        ({"dropout": 1}, "dropout"),
        ({"generator": 1}, "generator"),
        ({"norm": "group"}, "norm.* instance, batch"),
        ({"init_gain": float("nan")}, "init_gain"),
        ({"init_gain": float("inf")}, "init_gain"),
        ({"init_gain": None}, "init_gain"),
    ],
)
def test_a_wrong_option_is_named_with_what_would_do(values, named):
    with pytest.raises(ValueError, match=named):
        Architecture(**values)


def test_a_misspelt_setting_or_public_name_suggests_the_nearest():
    for name in ("nfg", "lambda_A"):
        with pytest.raises(ValueError, match=f"{name}.*(ngf|cycle_ct)"):
            replace(Settings(), **{name: 3})
    with pytest.raises(AttributeError, match="did you mean load_scans"):
        ctmri_utils.load_scan  # noqa: B018


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"profile": "huge"}, "huge.* laptop"),
        ({"preset": "huge"}, "huge.* reference"),
        ({"seed": "one"}, "seed"),
        ({"seed": -1}, "seed"),
        ({"dataset": 12}, "dataset"),
    ],
)
def test_a_wrong_run_is_named_with_what_would_do(values, named):
    with pytest.raises(ValueError, match=named):
        read_settings(None, values)


def test_numbers_are_converted_where_that_changes_nothing(tmp_path):
    assert type(Objective(cycle_ct=5).cycle_ct) is float
    with pytest.raises(ValueError):
        Training(steps=1.5)

    (tmp_path / "mine.toml").write_text("steps = 1e3\nseed = 7.0")
    run, settings = read_settings(tmp_path / "mine.toml", {})
    assert (settings.steps, run.seed) == (1000, 7)
    assert type(settings.steps) is type(run.seed) is int


@pytest.mark.parametrize("path", ["C:\\Users\\me", "C:\\temp"])
def test_a_windows_path_gets_a_hint(tmp_path, path):
    """TOML reads the first as an error, and the second as a tab."""
    file = tmp_path / "mine.toml"
    file.write_text(f'steps = 1\ndataset = "{path}"')
    with pytest.raises(ValueError, match="single quotes"):
        read_toml(file)
    for good in (f"'{path}'", '"C:/temp"', '"C:\\\\temp"'):
        file.write_text(f"dataset = {good}")
        assert read_toml(file)["dataset"].startswith("C:")


def test_every_name_of_the_reference_is_told_from_ours():
    known = {spec.name for part in (Settings, Run) for spec in fields(part)}
    assert not known & REFERENCE_NAMES.keys()
    for name, advice in REFERENCE_NAMES.items():
        with pytest.raises(ValueError) as error:
            read_settings(None, {name: 1})
        assert name in str(error.value) and str(error.value).endswith(f": {advice}")
        # What it says to set exists.
        settable = re.match(r"set (\w+)", advice)
        assert settable is None or settable[1] in known


def test_words_are_read_as_toml_but_texts_stay_as_typed():
    words = {"dataset": "123", "generator": "1", "gan_mode": "hinge", "ngf": "8", "steps": "1e3"}
    read = {"dataset": "123", "generator": "1", "gan_mode": "hinge", "ngf": 8, "steps": 1000.0}
    words |= {"learning_rate": "6e-4", "flip": "false", "dropout": "True", "identity": "None"}
    read |= {"learning_rate": 6e-4, "flip": False, "dropout": True, "identity": None}
    assert read_words(words) == read


def test_settings_are_the_sum_of_their_parts():
    settings = PROFILES["laptop"]
    parts = (settings.architecture, settings.objective, settings.training)
    for kind, part in zip(PARTS, parts, strict=True):
        assert type(part) is kind and asdict(part).items() <= asdict(settings).items()


def test_training_steps_follow_the_data_set_unless_they_are_set():
    laptop = PROFILES["laptop"]
    synthetic = {name for name in DATASETS if laptop.training_steps(name) == laptop.phantom_steps}
    assert synthetic == {"phantom", "atlas", "heads"}
    for name in ("scans", "kaggle", "a/folder"):
        assert laptop.training_steps(name) == laptop.scans_steps
    assert replace(laptop, steps=7).training_steps("phantom") == 7


def test_profiles_grow_from_ci_to_gpu():
    for name in ("size", "patients", "ngf", "n_blocks", "scans_steps", "phantom_steps"):
        ci, laptop, gpu = (getattr(PROFILES[profile], name) for profile in ("ci", "laptop", "gpu"))
        assert ci <= laptop <= gpu


def test_the_gpu_profile_warns_where_there_is_none(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.warns(UserWarning, match="without a GPU"):
        assert settings_for("gpu") is PROFILES["gpu"]


def test_a_misspelt_profile_gets_one_sentence():
    with pytest.raises(ValueError, match="'labtop'.* ci, laptop, gpu"):
        settings_for("labtop")


def test_a_preset_overrides_the_profile_and_yields_to_the_file(tmp_path):
    _, plain = read_settings(None, {"profile": "laptop"})
    _, paper = read_settings(None, {"profile": "laptop", "preset": "reference"})
    assert paper == replace(plain, cycle_ct=10, cycle_mri=10, identity=5) != plain

    (tmp_path / "mine.toml").write_text('preset = "reference"\nidentity = 1\n')
    _, mine = read_settings(tmp_path / "mine.toml", {"cycle_ct": 7})
    assert mine == replace(paper, identity=1, cycle_ct=7)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_made_of_settings_that_build_a_model(name):
    _, settings = read_settings(None, {"profile": "ci", "preset": name})
    CycleGAN(settings.architecture, settings.objective)


def test_toml_brings_every_setting_back(tmp_path):
    values = asdict(PROFILES["gpu"]) | {"dataset": 'a "folder" with\\é'}
    (tmp_path / "settings.toml").write_text(to_toml(values), encoding="utf-8")
    assert read_toml(tmp_path / "settings.toml") == values


@pytest.mark.parametrize(
    "content", ["ngf = = 3", "ngf = " + 9999 * "[", "ngff = 3", "seed = 'one'"]
)
def test_a_bad_settings_file_is_named(tmp_path, content):
    (tmp_path / "bad.toml").write_text(content)
    with pytest.raises(ValueError, match=r"bad\.toml"):
        read_settings(tmp_path / "bad.toml", {})


def test_what_is_no_settings_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.toml"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        read_toml(tmp_path)

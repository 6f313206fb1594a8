"""Profiles, seeds, threads and folders."""

import os
import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ctmri_utils import machine as settings
from ctmri_utils.cyclegan.model import CycleGAN
from ctmri_utils.machine import (
    accelerator_precision,
    build_folder,
    environment_variables,
    report,
    training_device,
)
from ctmri_utils.seeds import random_states, restore_random_states, set_up
from ctmri_utils.settings import (
    PRESETS,
    PROFILES,
    Architecture,
    Objective,
    read_settings,
    settings_for,
)


def test_profiles_grow_from_ci_to_gpu():
    for name in ("size", "patients", "ngf", "n_blocks", "scans_steps", "phantom_steps"):
        ci, laptop, gpu = (getattr(PROFILES[profile], name) for profile in ("ci", "laptop", "gpu"))
        assert ci <= laptop <= gpu
    assert settings_for("laptop") is PROFILES["laptop"]
    assert [PROFILES["gpu"].training_steps(name) for name in ("phantom", "scans", "my/folder")] == [
        3300,
        1200,
        1200,
    ]


def test_the_gpu_profile_warns_where_there_is_none(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.warns(UserWarning, match="'gpu' without a GPU"):
        assert settings_for("gpu") is PROFILES["gpu"]


def test_a_misspelt_profile_gets_one_sentence():
    with pytest.raises(ValueError, match="'labtop'.* ci, laptop or gpu"):
        settings_for("labtop")


def test_set_up_seeds_everything_and_sets_the_threads(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setenv("CTMRI_THREADS", "1")
    draws = []
    for seed in (5, 5, 6):
        set_up(seed)
        draws.append((random.random(), np.random.rand(), torch.rand(()).item()))
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)
    assert draws[0] == draws[1] and all(
        one != other for one, other in zip(draws[1], draws[2], strict=True)
    )


@pytest.mark.parametrize("threads", ["0", "two", "-1", ""])
def test_a_wrong_thread_count_gets_one_sentence(threads, monkeypatch):
    monkeypatch.setenv("CTMRI_THREADS", threads)
    with pytest.raises(ValueError, match="CTMRI_THREADS='.*' must be a whole number above zero"):
        set_up(0)


def test_build_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path / "elsewhere"))
    assert build_folder() == tmp_path / "elsewhere" and build_folder().is_dir()
    monkeypatch.setenv("CTMRI_BUILD", "")
    assert build_folder().name == "build"


def test_variables_are_set_for_a_block_and_then_as_they_were(monkeypatch):
    monkeypatch.setenv("CTMRI_OLD", "old")
    monkeypatch.delenv("CTMRI_NEW", raising=False)
    monkeypatch.setenv("CTMRI_EMPTY", "")
    with (
        pytest.raises(ZeroDivisionError),
        environment_variables(CTMRI_NEW="new", CTMRI_EMPTY="full", CTMRI_OLD="other"),
    ):
        assert [os.environ[f"CTMRI_{name}"] for name in ("OLD", "NEW", "EMPTY")] == [
            "other",
            "new",
            "full",
        ]
        del os.environ["CTMRI_NEW"]
        raise ZeroDivisionError
    with pytest.raises(TypeError), environment_variables(CTMRI_OLD="other", CTMRI_NEW=1):
        pass
    assert (os.environ["CTMRI_OLD"], os.environ["CTMRI_EMPTY"]) == (
        "old",
        "",
    ) and "CTMRI_NEW" not in os.environ


def test_data_folder_falls_back_to_the_installed_copy(monkeypatch):
    assert settings.data_folder() == settings.CHECKOUT / "data"
    monkeypatch.setattr(settings, "CHECKOUT", None)
    assert settings.data_folder() == settings.PACKAGE / "data"


def test_report_names_the_versions():
    assert torch.__version__ in report() and "Python" in report()


def test_a_preset_changes_a_profile_and_gives_way_to_what_is_said(tmp_path):
    _, plain = read_settings(None, {"profile": "laptop"})
    _, paper = read_settings(None, {"profile": "laptop", "preset": "reference"})
    assert (paper.cycle_ct, paper.cycle_mri, paper.identity) == (10, 10, 5) and plain.cycle_ct == 5
    assert replace(paper, cycle_ct=5.0, cycle_mri=5.0, identity=0.5) == plain
    (tmp_path / "mine.toml").write_text('preset = "reference"\nidentity = 1\n')
    assert read_settings(tmp_path / "mine.toml", {"cycle_ct": 7})[1] == replace(
        paper, identity=1.0, cycle_ct=7.0
    )
    with pytest.raises(ValueError, match="'best'.* reference"):
        read_settings(None, {"preset": "best"})


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_made_of_settings_that_build_a_model(name):
    _, settings = read_settings(None, {"profile": "ci", "preset": name})
    CycleGAN(settings.pick(Architecture), settings.pick(Objective))


# ---- devices that are not here


class FakeAccelerator:
    """What torch says where there is an accelerator of a kind."""

    def __init__(self, monkeypatch, kind):
        found = SimpleNamespace(
            is_available=lambda: True, current_accelerator=lambda: torch.device(kind)
        )
        monkeypatch.setattr(torch, "accelerator", found, raising=False)


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_the_accelerator_that_torch_finds_is_trained_on(monkeypatch, kind):
    FakeAccelerator(monkeypatch, kind)
    assert training_device() == torch.device(kind)


def test_without_an_accelerator_the_cpu_is(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert training_device() == torch.device("cpu")


def test_an_old_torch_knows_cuda_alone(monkeypatch):
    monkeypatch.delattr(torch, "accelerator")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert training_device() == torch.device("cuda")


@pytest.mark.parametrize(
    ("capability", "precision"),
    [((6, 1), "fp32"), ((7, 0), "fp16"), ((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")],
)
def test_a_card_gets_the_precision_that_it_has(monkeypatch, capability, precision):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    assert accelerator_precision(torch.device("cuda")) == precision


def test_nothing_is_emulated(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "torch.xpu.is_bf16_supported",
        lambda including_emulation: asked.append(including_emulation) or False,
    )
    assert accelerator_precision(torch.device("xpu")) == "fp32" and asked == [False]
    assert accelerator_precision(torch.device("mps")) == "fp32"


@pytest.mark.parametrize("several", [True, False])
def test_the_random_states_of_an_accelerator_come_back(monkeypatch, several):
    """cuda and xpu have one for each card, mps has one."""
    FakeAccelerator(monkeypatch, "mps")
    state = [torch.arange(3), torch.arange(4)][: 1 + several]
    restored = []
    module = SimpleNamespace(
        get_rng_state=lambda: state[0], set_rng_state=lambda one: restored.append(one)
    )
    if several:
        module.get_rng_state_all = lambda: state
        module.set_rng_state_all = restored.extend
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    restore_random_states(random_states())
    assert [one.tolist() for one in restored] == [one.tolist() for one in state]

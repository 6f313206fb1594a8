"""The machine and its seeds: threads, folders, environment variables, accelerators."""

import os
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ctmri_utils import machine
from ctmri_utils.machine import (
    accelerator_precision,
    build_folder,
    environment_variables,
    report,
    training_device,
)
from ctmri_utils.seeds import random_states, restore_random_states, set_up


def test_set_up_seeds_everything_and_sets_the_threads(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setenv("CTMRI_THREADS", "1")
    draws = []
    for seed in (5, 5, 6):
        set_up(seed)
        draws.append((random.random(), np.random.rand(), torch.rand(()).item()))
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)
    assert draws[0] == draws[1] and not set(draws[1]) & set(draws[2])


@pytest.mark.parametrize("threads", ["0", "two", "-1", ""])
def test_a_wrong_thread_count_gets_one_sentence(threads, monkeypatch):
    monkeypatch.setenv("CTMRI_THREADS", threads)
    with pytest.raises(ValueError, match="CTMRI_THREADS"):
        set_up(0)


def test_build_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path / "elsewhere"))
    assert build_folder() == tmp_path / "elsewhere" and build_folder().is_dir()
    monkeypatch.setenv("CTMRI_BUILD", "")
    assert build_folder().name == "build"


def test_variables_are_set_for_a_block_and_then_as_they_were(monkeypatch):
    monkeypatch.setenv("CTMRI_OLD", "old")
    monkeypatch.delenv("CTMRI_NEW", raising=False)
    before = dict(os.environ)

    with pytest.raises(ZeroDivisionError), environment_variables(CTMRI_NEW="1", CTMRI_OLD="2"):
        assert (os.environ["CTMRI_NEW"], os.environ["CTMRI_OLD"]) == ("1", "2")
        del os.environ["CTMRI_NEW"]
        raise ZeroDivisionError
    assert dict(os.environ) == before

    with pytest.raises(TypeError), environment_variables(CTMRI_OLD="2", CTMRI_NEW=1):
        pass
    assert dict(os.environ) == before


def test_data_folder_falls_back_to_the_installed_copy(monkeypatch):
    assert machine.data_folder() == machine.CHECKOUT / "data"
    monkeypatch.setattr(machine, "CHECKOUT", None)
    assert machine.data_folder() == machine.PACKAGE / "data"


def test_report_names_the_versions():
    assert torch.__version__ in report() and "Python" in report()


def pretend(monkeypatch, kind):
    """Let torch say that there is an accelerator of a kind."""
    found = SimpleNamespace(
        is_available=lambda: True, current_accelerator=lambda: torch.device(kind)
    )
    monkeypatch.setattr(torch, "accelerator", found, raising=False)


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_the_accelerator_that_torch_finds_is_trained_on(monkeypatch, kind):
    pretend(monkeypatch, kind)
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
    pretend(monkeypatch, "mps")
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

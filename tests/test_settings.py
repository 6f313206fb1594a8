"""Profiles, seeds, threads and folders."""
import random

import numpy as np
import pytest
import torch

from ctmri_utils import settings
from ctmri_utils.settings import PROFILES, build_folder, report, set_up, settings_for


def test_profiles_grow_from_ci_to_gpu():
    for name in ("size", "patients", "ngf", "n_blocks", "scans_steps", "phantom_steps"):
        ci, laptop, gpu = (getattr(PROFILES[profile], name) for profile in ("ci", "laptop", "gpu"))
        assert ci <= laptop <= gpu
    assert settings_for("laptop") is PROFILES["laptop"]
    assert [PROFILES["gpu"].training_steps(name) for name in ("phantom", "scans", "my/folder")] == [20000, 10000, 10000]


def test_the_gpu_profile_warns_where_there_is_none(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.warns(UserWarning, match="PROFILE='gpu' without a GPU trains for days: choose 'laptop'"):
        assert settings_for("gpu") is PROFILES["gpu"]


def test_a_misspelt_profile_gets_one_sentence():
    with pytest.raises(ValueError, match="PROFILE='labtop' is not known: choose one of ci, laptop, gpu"):
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
    assert draws[0] == draws[1] and all(one != other for one, other in zip(draws[1], draws[2], strict=True))


@pytest.mark.parametrize("threads", ["0", "two", "-1", ""])
def test_a_wrong_thread_count_gets_one_sentence(threads, monkeypatch):
    monkeypatch.setenv("CTMRI_THREADS", threads)
    with pytest.raises(ValueError, match="CTMRI_THREADS='.*' must be a whole number above zero"):
        set_up(0)


def test_build_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path / "elsewhere"))
    assert build_folder() == tmp_path / "elsewhere" and build_folder().is_dir()


def test_data_folder_falls_back_to_the_installed_copy(monkeypatch):
    assert settings.data_folder() == settings.CHECKOUT / "data"
    monkeypatch.setattr(settings, "CHECKOUT", None)
    assert settings.data_folder() == settings.PACKAGE / "data"


def test_report_names_the_versions():
    assert torch.__version__ in report() and "Python" in report()

"""In a notebook on Kaggle: the attached set is found, read-only and nested, without the network."""

import socket

import pytest
from helpers.loopback_kaggle import slices

from ctmri_utils.machine import build_folder
from ctmri_utils.scans.checks import check_folder
from ctmri_utils.scans.datasets import load_scans
from ctmri_utils.scans.kaggle import download
from ctmri_utils.settings import PROFILES

SETTINGS = PROFILES["ci"]

# As Kaggle mounted it at first, and as it does now.
PLACES = ["ct-to-mri-cgan", "datasets/darren2020/ct-to-mri-cgan"]


def attach(kaggle, place):
    """Attach a small set of the course's layout, read-only; returns its folder of images."""
    mount = kaggle / "input" / place
    for name, data in slices().items():
        (mount / name).parent.mkdir(parents=True, exist_ok=True)
        (mount / name).write_bytes(data)
    for path in [mount, *mount.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return mount / "Dataset" / "images"


def state(folder):
    return {path: path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """A notebook on Kaggle with nothing attached, without a checkout and a network."""

    def blocked(*_):
        raise AssertionError("the network was used")

    for name in ("input", "working", "site-packages"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    monkeypatch.delenv("CTMRI_BUILD", raising=False)
    monkeypatch.setattr("ctmri_utils.machine.KAGGLE", tmp_path)
    monkeypatch.setattr("ctmri_utils.machine.CHECKOUT", None)
    monkeypatch.setattr("ctmri_utils.scans.kaggle.data_folder", lambda: tmp_path / "site-packages")
    monkeypatch.setattr(socket.socket, "connect", blocked)
    monkeypatch.setattr(socket, "getaddrinfo", blocked)
    yield tmp_path
    for path in tmp_path.rglob("*"):
        path.chmod(0o755)


@pytest.mark.parametrize("place", PLACES)
def test_the_attached_set_is_used_and_left_as_it_is(kaggle, place):
    images = attach(kaggle, place)
    before = state(kaggle)
    scans = load_scans("kaggle", SETTINGS, seed=0)
    assert (len(scans.train.ct), len(scans.train.mri)) == (4, 5)
    assert (len(scans.test.ct), len(scans.test.mri)) == (3, 2)
    assert download() == images
    assert "trainA" in str(check_folder(images))
    assert state(kaggle) == before


def test_the_course_s_set_goes_before_others(kaggle):
    attach(kaggle, "a-horse2zebra")
    images = attach(kaggle, PLACES[1])
    assert download() == images


def test_a_set_of_any_name_is_used_if_it_is_the_only_one(kaggle):
    images = attach(kaggle, "my-copy")
    assert download() == images


def test_of_several_unknown_sets_none_is_guessed(kaggle):
    attach(kaggle, "one")
    attach(kaggle, "two")
    with pytest.raises(ValueError, match=r"\(.*one.*, .*two.*\): name one of these folders"):
        load_scans("kaggle", SETTINGS, seed=0)


def test_without_it_the_message_says_how_to_attach_it(kaggle):
    with pytest.raises(FileNotFoundError, match='attach darren2020/ct-to-mri-cgan by "Add Input"'):
        load_scans("kaggle", SETTINGS, seed=0)


def test_elsewhere_nothing_is_looked_for_below_kaggle(kaggle, monkeypatch):
    attach(kaggle, PLACES[0])
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE")
    with pytest.raises(FileNotFoundError, match="run `ctmri download`"):
        load_scans("kaggle", SETTINGS, seed=0)


def test_results_go_where_kaggle_keeps_them(kaggle, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert build_folder() == kaggle / "working" / "build" and build_folder().is_dir()
    monkeypatch.setenv("CTMRI_BUILD", str(kaggle / "working" / "mine"))
    assert build_folder() == kaggle / "working" / "mine"

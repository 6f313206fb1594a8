"""Kaggle's real client against a server on loopback.

What it refuses, every way to break off, and no secret anywhere.
"""

import errno
import hashlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from unittest import mock

import nbformat
import numpy as np
import pytest
from helpers.loopback_kaggle import (
    CHUNK,
    KEY,
    TOKEN,
    clean_environment,
    failure,
    served,
    sign_in,
    slices,
    zipped,
)

from ctmri_utils.__main__ import main
from ctmri_utils.scans import kaggle as kaggle_download
from ctmri_utils.scans.checks import check_folder
from ctmri_utils.scans.datasets import load_scans
from ctmri_utils.scans.kaggle import DATASET, MANIFEST, UNFINISHED, download
from ctmri_utils.scans.kaggle_access import DownloadFailed, client
from ctmri_utils.settings import PROFILES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def kaggle(tmp_path, monkeypatch, capfd, caplog):
    with served(tmp_path, monkeypatch, capfd, caplog) as server:
        yield server


def bytes_below(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_download_has_a_manifest_and_a_second_call_does_nothing(kaggle, tmp_path, monkeypatch):
    sign_in(monkeypatch)
    folder, target = download(), tmp_path / "data" / "kaggle"
    assert folder == target / "Dataset" / "images"
    found = bytes_below(target)
    manifest = json.loads(found.pop(MANIFEST))
    assert (
        found == kaggle.files
        and kaggle.authorizations == [f"Bearer {TOKEN}"]
        and kaggle.starts == [0]
    )
    counts = {"trainA": 4, "trainB": 5, "testA": 3, "testB": 2}
    assert manifest["dataset"] == DATASET
    assert manifest["counts"] == {f"Dataset/images/{name}": n for name, n in counts.items()}
    assert manifest["files"] == {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in kaggle.files.items()
    }
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    assert download() == folder and len(kaggle.authorizations) == 1
    assert before == {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    scans = load_scans("kaggle", PROFILES["ci"], seed=0)
    assert (len(scans.train.ct), len(scans.train.mri)) == (4, 5)
    assert (len(scans.test.ct), len(scans.test.mri)) == (3, 2)
    table = str(check_folder(folder))
    assert re.search(r"trainA +4 +PNG +RGB +64x64 .*ct#\.png", table)
    assert re.search(r"testB +2 +JPEG +L +64x64 .*mri#\.jpg", table)
    assert "JPEG on one side" in table and "swapped" not in table


@pytest.mark.parametrize(
    ("status", "pause"),
    [(401, ""), (403, ""), (404, ""), (429, ""), (429, "30"), (500, ""), (503, "")],
)
def test_what_kaggle_refuses_is_said(kaggle, monkeypatch, status, pause):
    sign_in(monkeypatch)
    kaggle.status, kaggle.headers = status, {"Retry-After": pause}
    assert ("in 30 seconds" in failure(str(status))) == bool(pause)
    kaggle.status = None
    assert download().is_dir()


def test_no_network_is_said(kaggle, monkeypatch):
    sign_in(monkeypatch)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    failure("connection")


def noise(chunks):
    """Bytes that no zip makes shorter."""
    return {"noise.bin": np.random.default_rng(0).bytes(chunks * CHUNK)}


def test_a_connection_that_breaks_off_once_is_taken_up_again(kaggle, monkeypatch):
    sign_in(monkeypatch)
    kaggle.body = zipped(kaggle.files | noise(2))
    kaggle.drops = 1
    download()
    assert kaggle.starts == [0, CHUNK]


def test_after_a_broken_connection_the_next_call_continues(kaggle, tmp_path, monkeypatch):
    sign_in(monkeypatch)
    kaggle.body = zipped(kaggle.files | noise(5))
    kaggle.drops = 4
    failure("connection")
    assert kaggle.starts == [0, CHUNK, 2 * CHUNK, 3 * CHUNK]
    assert_unfinished()
    assert download().is_dir() and kaggle.starts[4:] == [0, 4 * CHUNK]
    assert not (tmp_path / "data" / "kaggle" / UNFINISHED).exists()


def assert_unfinished():
    with pytest.raises(FileNotFoundError, match="unfinished"):
        load_scans("kaggle", PROFILES["ci"], seed=0)


def test_what_was_fetched_of_another_version_is_not_built_on(kaggle, monkeypatch):
    sign_in(monkeypatch)
    good, kaggle.body = kaggle.body, zipped(noise(5))
    kaggle.drops = 4
    # And leaves more than the good version has in all.
    failure("connection")
    kaggle.body = good
    assert download().is_dir() and kaggle.starts[4:] == [0]


def interrupt_at(monkeypatch, place, call):
    """Ctrl-C at one call of a function."""
    module, _, name = place.rpartition(".")
    calls = []
    original = getattr(importlib.import_module(module), name)

    def stop(*arguments, **options):
        calls.append(arguments)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(place, stop)


@pytest.mark.parametrize(
    ("place", "call"),
    [
        ("ctmri_utils.scans.archives.extract_entry", 5),
        ("os.replace", 5),
        ("ctmri_utils.scans.kaggle.Counter", 1),
    ],
)
def test_an_interruption_is_seen_and_repeated_without_fetching_again(
    kaggle, tmp_path, monkeypatch, place, call
):
    """While unpacking, while moving, and before the manifest is written."""
    sign_in(monkeypatch)
    target = tmp_path / "data" / "kaggle"
    with monkeypatch.context() as interrupted, pytest.raises(KeyboardInterrupt):
        interrupt_at(interrupted, place, call)
        download()
    assert not (target / MANIFEST).exists()
    assert_unfinished()
    # Nothing more can be fetched, nor need it be.
    kaggle.drops = 9
    download()
    found = bytes_below(target)
    del found[MANIFEST]
    assert found == kaggle.files and len(kaggle.authorizations) == 2
    assert sorted(os.listdir(target)) == ["Dataset", MANIFEST]


def test_a_repair_that_is_interrupted_is_unfinished(kaggle, tmp_path, monkeypatch):
    sign_in(monkeypatch)
    next(download().rglob("ct1.png")).unlink()
    with monkeypatch.context() as interrupted, pytest.raises(KeyboardInterrupt):
        interrupt_at(interrupted, "os.replace", 1)
        download()
    assert_unfinished()


@pytest.mark.parametrize(
    "damage",
    [
        lambda target: next(target.rglob("ct1.png")).unlink(),
        lambda target: next(target.rglob("ct1.png")).write_bytes(b"cut"),
        lambda target: (target / MANIFEST).write_text("{}"),
        lambda target: (target / MANIFEST).write_text("[1]"),
        lambda target: (target / MANIFEST).write_bytes(b"\xff"),
        lambda target: (target / MANIFEST).unlink(),
    ],
)
def test_only_missing_or_changed_files_are_fetched_again(kaggle, tmp_path, monkeypatch, damage):
    sign_in(monkeypatch)
    target = tmp_path / "data" / "kaggle"
    download()
    (target / "notes.txt").write_text("mine")
    damage(target)
    download()
    found = bytes_below(target)
    assert found.pop("notes.txt") == b"mine" and found.pop(MANIFEST)
    assert found == kaggle.files and len(kaggle.authorizations) == 2


def test_a_full_disk_is_said_before_and_while_writing(kaggle, tmp_path, monkeypatch):
    sign_in(monkeypatch)
    almost_full = shutil.disk_usage(tmp_path)._replace(free=1000)
    with mock.patch("shutil.disk_usage", return_value=almost_full):
        failure("the disk of .*kaggle is full")
        assert kaggle.starts == [0] and not list((tmp_path / "data").rglob("*.zip"))
    full = OSError(errno.ENOSPC, "No space left on device")
    with mock.patch.object(zipfile.ZipExtFile, "read", side_effect=full):
        failure("is full")
    # The last time only the head of the answer was looked at.
    assert download().is_dir() and kaggle.starts == [0] * 3


def test_a_folder_that_cannot_be_written_is_said(kaggle, tmp_path, monkeypatch):
    sign_in(monkeypatch)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "kaggle").write_text("a file")
    failure("data.kaggle cannot be written")


def test_an_absurd_size_is_refused_before_it_is_fetched(kaggle, tmp_path, monkeypatch):
    sign_in(monkeypatch)
    monkeypatch.setattr(kaggle_download, "MOST_BYTES", 1000)
    failure("far more than this data set has")
    assert not list((tmp_path / "data").rglob("*.zip"))


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"<html>Please sign in to the network</html>", "not a zip file"),
        (zipped(slices())[:-3000], "damaged"),
        (zipped({"../../evil.png": b"x"}), "unsafe path"),
        (zipped({f"{UNFINISHED}/x": b"x"}), "unsafe path"),
        (zipped({MANIFEST: b"{}"}), "unsafe path"),
        (zipped({"Dataset/images/trainA/ct1.png": b"x"}), "holds no trainA"),
    ],
)
def test_a_bad_zip_is_refused_and_deleted_so_that_it_is_fetched_again(
    kaggle, tmp_path, monkeypatch, body, sentence
):
    sign_in(monkeypatch)
    good, kaggle.body = kaggle.body, body
    failure(sentence)
    assert not list(tmp_path.rglob("evil*")) and not list(tmp_path.rglob("*.zip"))
    kaggle.body = good
    assert download().is_dir()


def test_a_missing_client_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglesdk", None)
    with pytest.raises(ModuleNotFoundError, match=r"ctmri-utils\[course\]"):
        client()


def test_an_old_client_that_ends_the_program_is_said(monkeypatch):
    class Old:
        def find_spec(self, name, path=None, target=None):
            if name.startswith("kaggle.api"):
                sys.exit(1)

    monkeypatch.setattr(sys, "meta_path", [Old(), *sys.meta_path])
    for name in [name for name in sys.modules if name.startswith("kaggle.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(DownloadFailed, match="pip install --upgrade kaggle"):
        client()


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A checkout of its own, so that a real command downloads into its data folder and not into
    ours.
    """
    place = tmp_path_factory.mktemp("checkout")
    for name in ("ctmri_utils", "data", "notebooks"):
        shutil.copytree(
            ROOT / name,
            place / name,
            ignore=shutil.ignore_patterns("kaggle", "__pycache__", "pictures"),
        )
    shutil.copy(ROOT / "pyproject.toml", place)
    return place


def run(copy, home, server, *arguments, **variables):
    """`python -m ctmri_utils ARGUMENTS` in the copy, as that person: (status, output)."""
    wanted = {
        **os.environ,
        **clean_environment(home, server.url),
        "PYTHONPATH": str(copy),
        "CTMRI_BUILD": str(copy / "build"),
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-m", "ctmri_utils", *arguments],
        cwd=copy,
        capture_output=True,
        text=True,
        env={name: value for name, value in wanted.items() if value is not None},
    )
    assert TOKEN not in done.stdout + done.stderr and KEY not in done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr


def test_the_commands_download_check_and_refuse(kaggle, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path / "build"))
    assert main(["download"]) == 1
    said = capfd.readouterr().err
    assert said.startswith("ctmri download: ") and "(401)" in said and said.count("\n") == 1
    sign_in(monkeypatch)
    assert main(["download"]) == 0
    assert re.search(r'use DATASET="kaggle"\..*trainB +5 +JPEG', capfd.readouterr().out, re.S)
    folder = str(tmp_path / "data" / "kaggle")
    assert main(["check", folder]) == 0 and main(["check", folder, "--strict"]) == 1
    assert (tmp_path / "build" / "check-kaggle.png").is_file()
    assert "JPEG on one side" in capfd.readouterr().out


def test_a_real_process_that_is_told_to_be_verbose_prints_no_secret(kaggle, tmp_path, copy):
    status, printed = run(
        copy, tmp_path / "home", kaggle, "download", KAGGLE_API_TOKEN=TOKEN, VERBOSE="true"
    )
    assert status == 0 and "trainA" in printed and "DEBUG:" in printed and "100%" in printed
    shutil.rmtree(copy / "data" / "kaggle")


def test_lesson_01_downloads_and_shows_the_set_as_written(kaggle, tmp_path, copy):
    command = "course --profile ci --lessons 1 -p DATASET kaggle".split()
    status, printed = run(copy, tmp_path / "home", kaggle, *command, KAGGLE_API_TOKEN=TOKEN)
    assert status == 0, printed
    lesson = (copy / "build" / "01_meet_the_scans.ipynb").read_text(encoding="utf-8")
    assert TOKEN not in lesson and KEY not in lesson
    assert (copy / "data" / "kaggle" / MANIFEST).is_file()
    outputs = [out for cell in nbformat.reads(lesson, 4).cells for out in cell.get("outputs", [])]
    texts = "".join(output.get("text", "") for output in outputs)
    assert "JPEG on one side" in texts and "pixels of unknown size, CT in grey level" in texts

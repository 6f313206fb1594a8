"""Atomic file writing, and tensors that need more room than memory has."""

import errno
import gc
import os
from collections import namedtuple

import numpy as np
import pytest
import torch

from ctmri_utils import files
from ctmri_utils.files import atomic_write, check_writable, existing, large_tensor


def test_a_file_or_folder_takes_the_place_only_when_it_is_whole(tmp_path):
    target = tmp_path / "new" / "weights.pth"
    with atomic_write(target) as temporary:
        temporary.write_text("one")
        assert (
            temporary.parent == target.parent and temporary.suffix == ".pth" and not target.exists()
        )
    with pytest.raises(KeyboardInterrupt), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "one" and os.listdir(target.parent) == ["weights.pth"]
    with atomic_write(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "0001.dcm").write_text("slice")
    assert (tmp_path / "folder" / "0001.dcm").read_text() == "slice" and sorted(
        os.listdir(tmp_path)
    ) == ["folder", "new"]


def test_the_new_file_appears_in_one_moment_and_after_it_is_on_the_disk(tmp_path, monkeypatch):
    """Whoever holds the old file keeps reading it.

    And nothing is renamed that a power cut could empty.
    """
    order, target = [], tmp_path / "run.pt"
    target.write_text("old")
    for name, call in (("fsync", os.fsync), ("replace", os.replace)):
        monkeypatch.setattr(
            os, name, lambda *args, name=name, call=call: order.append(name) or call(*args)
        )
    with target.open() as old:
        with atomic_write(target) as temporary:
            temporary.write_text("new")
        assert (old.read(), target.read_text(), order) == ("old", "new", ["fsync", "replace"])


def test_what_a_killed_process_left_is_no_hindrance(tmp_path):
    for half in (lambda path: path.mkdir(), lambda path: path.write_text("half")):
        with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "series") as left:
            raise ZeroDivisionError
        half(left)
        with atomic_write(tmp_path / "series") as temporary:
            temporary.mkdir()
        (tmp_path / "series").rmdir()
        assert not any(tmp_path.iterdir())


def test_a_missing_file_is_named_with_advice(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="none.pt does not exist or is no file: train first"
    ):
        existing(tmp_path / "none.pt", "train first")
    with pytest.raises(FileNotFoundError, match="is no file"):
        existing(tmp_path, "train first")
    (tmp_path / "here").touch()
    assert existing(str(tmp_path / "here"), "") == tmp_path / "here"


def test_whether_a_folder_can_be_written_is_found_without_a_trace(tmp_path, monkeypatch):
    check_writable(tmp_path / "not" / "there" / "yet")
    assert not any(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(
        OSError,
        match="run cannot be written to .Not a directory.: choose another folder for the run",
    ):
        check_writable(tmp_path / "file" / "run")

    def read_only(dir):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(files.tempfile, "TemporaryFile", read_only)
    with pytest.raises(
        OSError, match="cannot be written to .Read-only file system.: choose another folder"
    ):
        check_writable(tmp_path)


def test_large_tensors_lie_in_a_file_that_goes_with_them(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LARGE", 4096)
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    small, large = large_tensor((1024,), torch.float32), large_tensor((1025,), torch.float32)
    mapped = (
        [line for line in open("/proc/self/maps") if str(tmp_path) in line]
        if os.path.exists("/proc/self/maps")
        else ["?"]
    )
    # nameless: a killed process leaves none behind
    assert len(mapped) == 1 and not any(tmp_path.iterdir())
    large.copy_(torch.arange(1025))
    assert (small.shape, large.shape, large.dtype, float(large.sum())) == (
        (1024,),
        (1025,),
        torch.float32,
        1024 * 1025 / 2,
    )
    del large
    gc.collect()
    assert not os.path.exists("/proc/self/maps") or not any(
        str(tmp_path) in line for line in open("/proc/self/maps")
    )
    assert large_tensor((3, 2000), torch.int16).dtype == torch.int16


def test_no_room_for_them_is_said_before_any_is_used(tmp_path, monkeypatch):
    """A mapped file that meets a full disk ends the process by a signal."""
    monkeypatch.setattr(files, "LARGE", 0)
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(
        files.shutil, "disk_usage", lambda folder: namedtuple("Usage", "free")(int(2e9))
    )
    with pytest.raises(
        OSError,
        match="has 2.0 GB free, and 2.4 GB of slices are to be kept .*: make room, or set TMPDIR",
    ):
        large_tensor((600_000_000,), torch.float32)
    monkeypatch.setattr(np, "memmap", lambda *_, shape, **__: np.zeros(3))
    large_tensor((500_000_000,), torch.float32)

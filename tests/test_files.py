"""Atomic file writing, and tensors that need more room than memory has."""

import errno
import gc
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ctmri_utils import files
from ctmri_utils.files import (
    InUseError,
    atomic_write,
    check_writable,
    existing,
    large_tensor,
    only_writer,
    read_start,
)


def test_a_file_or_folder_takes_the_place_only_when_it_is_whole(tmp_path):
    target = tmp_path / "new" / "weights.pth"
    with atomic_write(target) as temporary:
        temporary.write_text("one")
        assert temporary.parent == target.parent and temporary.suffix == ".pth"
        assert not target.exists()
    with pytest.raises(KeyboardInterrupt), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "one" and os.listdir(target.parent) == ["weights.pth"]

    with atomic_write(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "0001.dcm").write_text("slice")
    assert (tmp_path / "folder" / "0001.dcm").read_text() == "slice"
    assert sorted(os.listdir(tmp_path)) == ["folder", "new"]


def test_an_error_names_the_file_and_not_its_temporary_neighbour(tmp_path):
    target = tmp_path / "set"
    with pytest.raises(OSError) as caught, atomic_write(target) as temporary:
        temporary.mkdir()
        (temporary / "trainA" / "slice.png").write_text("the folder is missing")
    assert caught.value.filename == str(target / "trainA" / "slice.png")

    target.mkdir()
    (target / "full").touch()
    with pytest.raises(OSError) as caught, atomic_write(target) as temporary:
        temporary.mkdir()
    assert files.PARTIAL not in str(caught.value) and str(target) in str(caught.value)


def test_a_new_file_replaces_the_old_once_it_is_on_the_disk(tmp_path, monkeypatch):
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


KILLED_WRITER = """
import sys
from pathlib import Path
from ctmri_utils.files import atomic_write, only_writer
with only_writer(Path(sys.argv[1])), atomic_write(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("half-written", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path):
    """A process that holds the lock on run.pt, half-written."""
    command = [sys.executable, "-c", KILLED_WRITER, str(tmp_path / "run.pt")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline().strip() == b"half-written"
        yield process
        process.kill()


def test_what_a_killed_process_left_is_deleted_by_the_next(tmp_path, writer):
    [half] = tmp_path.glob(".partial-*")
    writer.kill()
    writer.wait()
    with atomic_write(tmp_path / "run.pt") as temporary:
        assert not half.exists() and temporary != half
        temporary.write_text("whole")
    assert (tmp_path / "run.pt").read_text() == "whole"
    assert not list(tmp_path.glob(".partial-*"))


def test_what_a_living_process_writes_is_left_alone(tmp_path, writer):
    [half] = tmp_path.glob(".partial-*")
    with atomic_write(tmp_path / "run.pt") as temporary:
        temporary.write_text("whole")
    assert half.read_text() == "half" and (tmp_path / "run.pt").read_text() == "whole"


def test_what_another_machine_left_is_left_alone(tmp_path):
    foreign = tmp_path / ".partial-elsewhere-99999-abc-run.pt"
    foreign.touch()
    with atomic_write(tmp_path / "run.pt") as temporary:
        temporary.write_text("whole")
    assert foreign.exists()


def test_two_writers_at_once_never_share_a_file(tmp_path):
    """The worst order: one writes, the other begins, the first one ends, the other is killed."""
    first, second = atomic_write(tmp_path / "run.pt"), atomic_write(tmp_path / "run.pt")
    first.__enter__().write_text("good")
    second.__enter__().write_text("half of a")
    first.__exit__(None, None, None)
    assert (tmp_path / "run.pt").read_text() == "good"


def test_a_second_writer_is_refused_and_told_of_the_first(tmp_path, writer):
    with pytest.raises(InUseError, match=rf"process {writer.pid}, started 20.*run\.pt: wait"):
        with only_writer(tmp_path / "run.pt"):
            pass
    # Another file in the same folder is another run's.
    with only_writer(tmp_path / "other.pt"):
        pass


def test_a_dead_process_holds_no_lock(tmp_path, writer):
    writer.kill()
    writer.wait()
    with only_writer(tmp_path / "run.pt"):
        pass


def test_a_drive_without_locks_gets_one_warning(tmp_path, monkeypatch, recwarn):
    def refuse(self, timeout):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with only_writer(tmp_path / "run.pt"):
        (tmp_path / "run.pt").touch()
    [warning] = recwarn
    assert "a drive without file locks" in str(warning.message) and (tmp_path / "run.pt").exists()


def test_a_missing_file_is_named_with_advice(tmp_path):
    for missing in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"{missing} .*train first"):
            existing(missing, "train first")
    (tmp_path / "here").touch()
    assert existing(str(tmp_path / "here"), "") == tmp_path / "here"


def test_the_start_of_a_file_is_read(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert read_start(tmp_path / "a", 2) == b"ab" and read_start(tmp_path / "a", 9) == b"abc"
    with pytest.raises(FileNotFoundError, match="none"):
        read_start(tmp_path / "none", 2)


def test_check_writable_leaves_no_trace(tmp_path, monkeypatch):
    check_writable(tmp_path / "not" / "there" / "yet")
    assert not any(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="run .*Not a directory"):
        check_writable(tmp_path / "file" / "run")

    def read_only(dir):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(files.tempfile, "TemporaryFile", read_only)
    with pytest.raises(OSError, match="Read-only file system"):
        check_writable(tmp_path)


def mapped_files(folder):
    """The files below a folder that are mapped into this process (Linux)."""
    with open("/proc/self/maps") as maps:
        return [line for line in maps if str(folder) in line]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists what is mapped")
def test_large_tensors_lie_in_a_file_that_goes_with_them(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LARGE", 4096)
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    small, large = large_tensor((1024,), torch.float32), large_tensor((1025,), torch.float32)

    # Nameless: a killed process leaves none behind.
    assert len(mapped_files(tmp_path)) == 1 and not any(tmp_path.iterdir())
    large.copy_(torch.arange(1025))
    assert small.shape == (1024,) and large.shape == (1025,) and large.dtype == torch.float32
    assert float(large.sum()) == 1024 * 1025 / 2
    del large
    gc.collect()
    assert not mapped_files(tmp_path)
    assert large_tensor((3, 2000), torch.int16).dtype == torch.int16


def test_no_room_for_them_is_said_before_any_is_used(tmp_path, monkeypatch):
    """A mapped file that meets a full disk ends the process by a signal."""
    monkeypatch.setattr(files, "LARGE", 0)
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    free = SimpleNamespace(free=int(2e9))
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: free)
    with pytest.raises(OSError, match="2.0 GB .* 2.4 GB .* TMPDIR"):
        large_tensor((600_000_000,), torch.float32)
    monkeypatch.setattr(np, "memmap", lambda *_, shape, **__: np.zeros(3))
    large_tensor((500_000_000,), torch.float32)

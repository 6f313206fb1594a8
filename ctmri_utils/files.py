"""Atomic file writing, and tensors too large for memory."""

from __future__ import annotations

import glob
import math
import os
import platform
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import filelock
import numpy as np
import torch
from torch import Tensor

# Larger tensors stay on disk, mapped into memory.
LARGE = 2**30  # bytes

# The names of files that are still being written begin so.
PARTIAL = ".partial-"


class InUseError(OSError):
    """Another process is writing to the same file."""


def existing(path: str | Path, advice: str) -> Path:
    """Return the path of a file that must exist.

    Args:
        path: the file.
        advice: what the reader should do if it is missing; ends the error's sentence.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist or is not a file: {advice}")
    return Path(path)


def read_start(path: Path, length: int) -> bytes:
    """The first `length` bytes of a file.

    Raises:
        OSError: it cannot be opened; in one sentence.
    """
    try:
        with path.open("rb") as file:
            return file.read(length)
    except OSError as error:
        raise cannot_open(path, error) from error


def cannot_open(path: Path, error: OSError) -> OSError:
    """The same error in one sentence that names the file."""
    return type(error)(
        f"{path} cannot be opened ({error.strerror}): check the path, its permissions and the disk"
    )


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Write a file or a folder atomically.

    The block writes to a temporary neighbour, which replaces `path` only if the block succeeds and
    is deleted if it fails. A killed process or a full disk therefore leaves the last good file.

    Args:
        path: the file or folder to create or replace; missing parents are created.

    Yields:
        The temporary path to write to, with the same suffix.

    Raises:
        OSError: the system refuses to write; it names `path`, not its temporary neighbour.
    """
    path = Path(path)

    # Each writer has its own name, so that two processes never write to one file. The suffix stays,
    # because some writers choose the format by it.
    writer = f"{PARTIAL}{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(f"{writer}-{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)

    try:
        yield temporary

        # A power cut must not leave a file that is renamed but still empty.
        if temporary.is_file():
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        # The user knows the target's name only, not the temporary one.
        if error.filename is not None:
            error.filename = str(error.filename).replace(str(temporary), str(path))
            error.filename2 = None
        raise
    finally:
        remove(temporary)


def remove_leftovers(path: Path) -> None:
    """Delete what killed processes of this machine left half-written for `path`."""
    prefix = f"{PARTIAL}{platform.node()}-"
    for leftover in path.parent.glob(glob.escape(prefix) + "*-" + glob.escape(path.name)):
        process = leftover.name.removeprefix(prefix).partition("-")[0]
        if process.isdecimal() and not process_runs(int(process)):
            remove(leftover)


def process_runs(process: int) -> bool:
    """Whether a process of this number runs here; True where the system does not say (Windows)."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # The process runs and belongs to another user.
        return True
    return True


def remove(path: Path) -> None:
    """Delete a file or a folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Inside the block this process alone writes `path`, with whatever belongs to it.

    The lock is free again when the process ends, however it ends. Where the file system knows no
    locks, as on some network drives, the block runs after a warning.

    Args:
        path: the file; the lock lies beside it.

    Raises:
        InUseError: another process holds the lock; it says which, and since when.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = path.with_name(f".{path.name}.owner")
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise InUseError(
            f"another process ({read_owner(owner)}) is writing to {path}: wait for it, stop it, or "
            "choose another folder"
        ) from None
    except (OSError, NotImplementedError) as error:
        warnings.warn(
            f"{path.parent} lies on a drive without file locks ({error}): make sure that only one "
            "process writes to it",
            stacklevel=3,
        )
        yield
        return

    try:
        owner.write_text(f"process {os.getpid()}, started {datetime.now():%Y-%m-%d %H:%M:%S}")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def read_owner(path: Path) -> str:
    """Which process holds a lock, and since when; the file may not be written yet."""
    try:
        return path.read_text()
    except OSError:
        return "unknown"


def check_writable(folder: Path) -> None:
    """Check that files can be written in a folder, which need not exist yet.

    Nothing is left behind.

    Raises:
        OSError: the folder, or the nearest one above it that exists, cannot be written to.
    """
    nearest = Path(folder)
    try:
        while not nearest.exists():
            nearest = nearest.parent
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise OSError(
            f"{folder} cannot be written to ({error.strerror}): choose another folder"
        ) from error


def is_large(shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    """Whether a tensor needs more than `LARGE` bytes."""
    return math.prod(shape) * dtype.itemsize > LARGE


def large_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Create an uninitialised tensor, on disk if it needs more than `LARGE` bytes.

    On disk means a nameless temporary file that is mapped into memory and deleted with the tensor.
    It lies in the system's temporary folder, or in the one that the environment variable TMPDIR
    names. That folder should be on a disk: one in memory saves nothing.

    Args:
        shape: of the tensor.
        dtype: of the tensor.

    Returns:
        A tensor of this shape and type, in memory or on disk.

    Raises:
        OSError: the disk has too little room.
    """
    if not is_large(shape, dtype):
        return torch.empty(shape, dtype=dtype)

    # A disk that fills up later would end the process without a message.
    folder = tempfile.gettempdir()
    needed = math.prod(shape) * dtype.itemsize
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"{folder} has {free / 1e9:.1f} GB free, but must hold {needed / 1e9:.1f} GB of slices "
            "while they are used: free some space, or set TMPDIR to a folder on a larger disk"
        )

    numpy_dtype = torch.empty(0, dtype=dtype).numpy().dtype
    return torch.from_numpy(np.memmap(tempfile.TemporaryFile(), numpy_dtype, shape=shape))

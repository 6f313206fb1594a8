"""Atomic file writing, and tensors too large for memory."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

# Larger tensors stay on disk, mapped into memory.
LARGE = 2**30  # bytes


def existing(path: str | Path, advice: str) -> Path:
    """Return the path of a file that must exist.

    Args:
        path: the file.
        advice: what the reader should do if it is missing; ends the error's sentence.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist or is no file: {advice}")
    return Path(path)


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
        OSError: the system refuses to write.
    """
    path = Path(path)

    # The suffix stays, because some writers choose the format by it.
    temporary = path.with_name(f".partial-{path.name}")

    # A killed process may have left one.
    remove(temporary)
    path.parent.mkdir(parents=True, exist_ok=True)

    try:
        yield temporary

        # Without this, a power cut could leave a renamed but empty file.
        if temporary.is_file():
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        remove(temporary)


def remove(path: Path) -> None:
    """Delete a file or a folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Check that files can be written in a folder, which need not exist yet.

    Nothing is left behind.

    Raises:
        OSError: the folder, or the nearest one above it that exists, cannot be written to.
    """
    place = Path(folder)
    try:
        while not place.exists():
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise OSError(
            f"{folder} cannot be written to ({error.strerror}): choose another folder for the run"
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

    # Check now: a disk that fills up later would end the process without a message.
    folder = tempfile.gettempdir()
    needed = math.prod(shape) * dtype.itemsize
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            f"{folder} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB of slices are to be "
            "kept there while they are used: make room, or set TMPDIR to a folder on a larger disk"
        )

    numpy_dtype = torch.empty(0, dtype=dtype).numpy().dtype
    return torch.from_numpy(np.memmap(tempfile.TemporaryFile(), numpy_dtype, shape=shape))

"""Files that are written whole or not at all, and tensors too large for memory that lie in one."""

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

# bytes from which a tensor stays on disk, mapped into memory
LARGE = 2**30


def existing(path: str | Path, advice: str) -> Path:
    """The path, if a file is there. Raises FileNotFoundError, with advice on what to do, if not."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist or is no file: {advice}")
    return Path(path)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary neighbour to write, a file or a folder.

    It takes the place of `path` if the block ends well, and is gone if not.

    So whatever is killed at any moment, or out of disk, leaves the last good file. Raises OSError.
    """
    path = Path(path)
    # the ending stays: some writers read it
    temporary = path.with_name(f".partial-{path.name}")
    # of a process that was killed
    remove(temporary)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        if temporary.is_file():
            with temporary.open("rb+") as file:
                # else a power cut could leave a renamed, empty file
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        remove(temporary)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Raise OSError, in one sentence, if nothing could be written in this folder, which may not
    exist yet. Leaves nothing there.
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
    return math.prod(shape) * dtype.itemsize > LARGE


def roomy(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor.

    One of more than LARGE bytes lies in a temporary file, of which the system holds in memory what
    is in use.

    The file is nameless and goes with the tensor. Its folder is the system's for such files; the
    environment variable TMPDIR names another, which should be on a disk: a folder in memory saves
    none. Raises OSError, in one sentence, if there is no room.
    """
    if not is_large(shape, dtype):
        return torch.empty(shape, dtype=dtype)
    folder, needed = tempfile.gettempdir(), math.prod(shape) * dtype.itemsize
    free = shutil.disk_usage(folder).free
    # said now: later, a full disk would end the process without a word
    if needed > free:
        raise OSError(
            f"{folder} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB of slices are to be "
            "kept there while they are used: make room, or set TMPDIR to a folder on a larger disk"
        )
    return torch.from_numpy(
        np.memmap(tempfile.TemporaryFile(), torch.empty(0, dtype=dtype).numpy().dtype, shape=shape)
    )

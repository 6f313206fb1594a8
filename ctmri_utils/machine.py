"""The one place where profiles are chosen, and seeds, threads and folders are set."""

from __future__ import annotations

import os
import platform
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch


def set_up(seed: int) -> torch.device:
    """Seed Python, NumPy and torch, set the thread count on purpose, and return the device to train
    on.

    Threads: CTMRI_THREADS if set, else one for every two cores, since threads that wait for a busy
    core cost many times what they bring. On the CPU the same seed and thread count give the same
    digits twice; a GPU may differ in the last ones. Raises ValueError if CTMRI_THREADS is no whole
    number above zero.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    threads = os.environ.get("CTMRI_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))
    if not threads.isdecimal() or int(threads) < 1:
        raise ValueError(
            f"CTMRI_THREADS={threads!r} must be a whole number above zero: correct or unset it"
        )
    torch.set_num_threads(int(threads))
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
"""Environment variables for processes whose every product of matrices is to be summed on one
thread: on two it rounds differently.
"""


@contextmanager
def environment_variables(**variables: str) -> Iterator[None]:
    """Inside the block these environment variables are set, here and for every process that starts;
    then they are as they were.

    They belong to the whole process: blocks in two threads must not overlap.
    """
    before = {name: os.environ.get(name) for name in variables}
    try:
        os.environ.update(variables)
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None
"""The folder of the checkout this package runs from.

None where it was installed without one, as on Colab.
"""


def data_folder() -> Path:
    """Where the embedded scans lie.

    `data` in the checkout, or the copy installed inside the package.
    """
    return CHECKOUT / "data" if CHECKOUT else PACKAGE / "data"


def build_folder() -> Path:
    """Where executed lessons and training runs go.

    $CTMRI_BUILD, else `build` in the checkout or here. Created if missing.
    """
    folder = Path(os.environ.get("CTMRI_BUILD", (CHECKOUT or Path.cwd()) / "build"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run_folder(name: str, profile: str, seed: int) -> Path:
    """Where the training run on the data set `name` lies.

    Lesson 03 or `python -m ctmri_utils train` writes it, later lessons find it.
    """
    return build_folder() / "runs" / f"{name}-{profile}-{seed}"


def checkpoint_file(name: str, profile: str, seed: int) -> Path:
    """The run's checkpoint, inside `run_folder`."""
    return run_folder(name, profile, seed) / "checkpoint.pt"


def report() -> str:
    """One line on the machine.

    Python, torch, device and threads; to be printed at the top of a lesson or an issue.
    """
    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU, {torch.get_num_threads()} threads"
    )
    return (
        f"Python {platform.python_version()}, torch {torch.__version__}, {device}, "
        f"{platform.system()} {platform.machine()}"
    )

"""Seeds and random states, and the number of threads, on which rounding depends."""

from __future__ import annotations

import os
import random

import numpy as np
import torch


def set_up(seed: int) -> torch.device:
    """Seed Python, NumPy and torch, set the number of threads, and return the device to train on.

    Threads: CTMRI_THREADS if set, else one for every two cores, since threads that wait for a busy
    core cost many times what they bring. On the CPU the same seed and number of threads give the
    same digits twice; a GPU may differ in the last ones.

    Raises:
        ValueError: CTMRI_THREADS is no whole number above zero.
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


def random_states() -> dict:
    """The states of all random sources here; `restore_random_states` sets them again."""
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), *rest),
    }


def restore_random_states(states: dict) -> None:
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])

"""Seeds and random states, and the number of threads, on which rounding depends."""

from __future__ import annotations

import os
import random

import numpy as np
import torch

from .machine import training_device


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
    return training_device()


def random_states() -> dict:
    """The states of all random sources here; `restore_random_states` sets them again."""
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": accelerator_states(),
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), *rest),
    }


def accelerator_states() -> list[torch.Tensor]:
    """The random states of all accelerators of the kind that is trained on; [] on the CPU."""
    device = training_device()
    if device.type == "cpu":
        return []
    module = torch.get_device_module(device)
    if hasattr(module, "get_rng_state_all"):
        return module.get_rng_state_all()
    return [module.get_rng_state()]


def restore_random_states(states: dict) -> None:
    """Set all random sources to what `random_states` returned."""
    torch.set_rng_state(states["torch"])
    if states["cuda"] and len(states["cuda"]) == len(accelerator_states()):
        module = torch.get_device_module(training_device())
        if hasattr(module, "set_rng_state_all"):
            module.set_rng_state_all(states["cuda"])
        else:
            module.set_rng_state(states["cuda"][0])
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])

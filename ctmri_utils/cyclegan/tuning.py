"""With how many threads and with which precision a training is fastest here: measured once.

Threads that wait for a busy core cost many times what they bring, and small networks gain little
from a second one, so no rule serves all machines. The same holds for bf16 on a CPU.
"""

from __future__ import annotations

import os
import statistics
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ..machine import accelerator_precision, cpu_lacks_bf16
from .batches import Slices, UnpairedBatches
from .model import CycleGAN

if TYPE_CHECKING:
    from .training import Trainer

# Steps that are timed with each number of threads, after one to warm up.
TIMED_STEPS = 3

# More threads must be faster by this share to be worth their cores.
WORTHWHILE = 0.1

# In a shorter training the measurement would cost more than it brings.
SHORTEST_TRAINING = 100

SLOWDOWN = 3
WATCHED_STEPS = 10


def choose_threads(trainer: Trainer, batches: UnpairedBatches) -> None:
    """Set the number of threads with which this training's steps are fastest.

    The steps are made by a copy of the model, and what torch draws at random afterwards stays the
    same. Nothing is measured where CTMRI_THREADS decides, on a GPU, with several processes, and in
    short trainings.
    """
    decided = "CTMRI_THREADS" in os.environ or trainer.device.type != "cpu" or trainer.engine
    if decided or trainer.training.steps < SHORTEST_TRAINING:
        return

    trial = type(trainer)(deepcopy(trainer.model), replace(trainer.training, compile=False))
    batch = batches(0)
    with torch.random.fork_rng(devices=[]):
        threads = fastest_threads(lambda: trial.train_one_step(*batch), available_cores())
    torch.set_num_threads(threads)


def choose_precision(model: CycleGAN, slices: Slices) -> str:
    """What precision "auto" means on the model's device.

    On an accelerator its kind decides. A CPU takes bf16 if it has instructions for it and its steps
    are faster with it; nothing is ever emulated.
    """
    device = next(model.parameters()).device
    if device.type != "cpu":
        return accelerator_precision(device)
    if cpu_lacks_bf16():
        return "fp32"

    seconds = {}
    for precision, dtype in (("fp32", None), ("bf16", torch.bfloat16)):
        trial = deepcopy(model)

        def make_step(trial=trial, dtype=dtype):
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                step = trial(slices.ct[:1], slices.mri[:1])
            (step.generator_loss + step.discriminator_loss).backward()

        with torch.random.fork_rng(devices=[]):
            make_step()
            seconds[precision] = seconds_of(make_step)
    return min(seconds, key=seconds.get)


def fastest_threads(make_step: Callable[[], object], cores: int) -> int:
    """The number of threads, 1, 2, 4 ... up to the cores, with which a step is fastest.

    Fewer are preferred where more gain less than 10 %.
    """
    best, best_seconds = 1, float("inf")
    threads = 1
    while threads <= cores:
        torch.set_num_threads(threads)
        make_step()
        seconds = statistics.median(seconds_of(make_step) for _ in range(TIMED_STEPS))
        if seconds < (1 - WORTHWHILE) * best_seconds:
            best, best_seconds = threads, seconds
        threads *= 2
    return best


def seconds_of(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def available_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class SlowdownWatch:
    """Warns once if steps take three times as long as they did at first."""

    def __init__(self):
        self.usual = None
        self.recent = []
        self.warned = False

    def __call__(self, seconds: float) -> None:
        """Take note of a step that took so many seconds."""
        self.recent.append(seconds)
        if len(self.recent) < WATCHED_STEPS:
            return

        typical = statistics.median(self.recent)
        self.recent = []
        if self.usual is None:
            self.usual = typical
        elif typical > SLOWDOWN * self.usual and not self.warned:
            self.warned = True
            warnings.warn(
                f"steps take {typical:.2f} s now and took {self.usual:.2f} s at first: another "
                "program may be using the cores; CTMRI_THREADS=1 suffers least",
                stacklevel=3,
            )

"""With how many threads and with which precision a training is fastest here: measured once.

Threads that wait for a busy core cost many times what they bring, and small networks gain little
from a second one, so no rule serves all machines. The same holds for bf16 on a CPU.
"""

from __future__ import annotations

import os
import statistics
import timeit
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..machine import accelerator_precision, cpu_lacks_bf16
from .batches import Slices, UnpairedBatches
from .engine import step_in_precision
from .model import CycleGAN

if TYPE_CHECKING:
    from .training import Trainer

# Steps that are timed in each way, after one to warm up.
TIMED_STEPS = 3

# More threads must be faster by this share to be worth their cores.
WORTHWHILE = 0.1

# In a shorter training the measurement would cost more than it brings.
SHORTEST_TRAINING = 100


def choose_threads(trainer: Trainer, batches: UnpairedBatches) -> None:
    """Set the number of threads with which this training's steps are fastest.

    The steps are made by a copy of the model, and what torch draws at random afterwards stays the
    same. Nothing is measured where CTMRI_THREADS decides, on a GPU, with several processes, and in
    short trainings.
    """
    worker = trainer.engine.worker
    one_on_cpu = worker.device.type == "cpu" and worker.processes == 1
    is_long = trainer.training.steps >= SHORTEST_TRAINING
    if not one_on_cpu or not is_long or "CTMRI_THREADS" in os.environ:
        return

    model, precision = deepcopy(trainer.model), trainer.training.precision
    ct, mri = batches(0)
    make_step = partial(forward_and_backward, model, precision, ct, mri)
    with torch.random.fork_rng(devices=[]):
        threads = fastest_threads(make_step, available_cores())
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

    ct, mri = slices.ct[:1], slices.mri[:1]
    seconds = {}
    for precision in ("fp32", "bf16"):
        make_step = partial(forward_and_backward, deepcopy(model), precision, ct, mri)
        with torch.random.fork_rng(devices=[]):
            seconds[precision] = median_seconds(make_step)
    return min(seconds, key=seconds.get)


def fastest_threads(make_step: Callable[[], object], cores: int) -> int:
    """The number of threads, 1, 2, 4 ... up to the cores, with which a step is fastest.

    Fewer are preferred where more gain less than 10 %.
    """
    best, best_seconds = 1, float("inf")
    threads = 1
    while threads <= cores:
        torch.set_num_threads(threads)
        seconds = median_seconds(make_step)
        if seconds < (1 - WORTHWHILE) * best_seconds:
            best, best_seconds = threads, seconds
        threads *= 2
    return best


def forward_and_backward(model: CycleGAN, precision: str, ct: Tensor, mri: Tensor) -> None:
    """The two parts of a training step that take time: the losses and their gradients."""
    step = step_in_precision(model, precision, ct, mri)
    (step.generator_loss + step.discriminator_loss).backward()


def median_seconds(make_step: Callable[[], object]) -> float:
    """The median time of a few steps, after one to warm up."""
    _, *seconds = timeit.repeat(make_step, number=1, repeat=1 + TIMED_STEPS)
    return statistics.median(seconds)


def available_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

"""The machine's side of a training: device, processes, precision, and whole steps.

What a training step does with the model stands in training.py.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..machine import cpu_lacks_bf16, delayed_interrupt, distribute, start_accelerator
from ..settings import Training
from .fast_cpu import use_fast_layers

if TYPE_CHECKING:
    from .model import CycleGAN, Step

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

# A warning comes if the last ten steps took three times as long as the first ten.
SLOWDOWN = 3
WATCHED_STEPS = 10


@dataclass(frozen=True)
class Worker:
    """One of the processes that train a model together, counted from 0, and its device."""

    device: torch.device | str = "cpu"
    process: int = 0
    processes: int = 1


class Engine:
    """Runs a model on its device, alone or together with other processes.

    Args:
        model: the CycleGAN; it gets the layers and the memory layout that are fastest here.
        training: its precision, clip_norm and compile.

    Raises:
        ValueError: a precision that the device lacks.
    """

    def __init__(self, model: CycleGAN, training: Training):
        self.training = training
        self.accelerator = start_accelerator()
        if self.accelerator:
            self.worker = Worker(
                self.accelerator.device,
                self.accelerator.process_index,
                self.accelerator.num_processes,
            )
        else:
            self.worker = Worker(next(model.parameters()).device)
        if self.worker.process > 0:
            # Processes with the same seed would draw the same dropout.
            torch.manual_seed(torch.initial_seed() + self.worker.process)

        device = self.worker.device
        check_precision(training.precision, device)
        make_fast(model, device, training.compile)
        self.model = distribute(model, self.accelerator) if self.accelerator else model
        self.scaler = torch.amp.GradScaler(device.type, enabled=training.precision == "fp16")
        self.has_fused_adam = device.type in ("cpu", "cuda", "mps", "xpu")

        # Within a step the run is in a state that cannot be resumed.
        self.between_steps = True
        self.watch = SlowdownWatch()

    @contextmanager
    def whole_step(self) -> Iterator[None]:
        """Around a training step: Ctrl-C takes effect at its end, and its time is watched."""
        with delayed_interrupt():
            self.between_steps = False
            start = time.perf_counter()
            yield
            self.watch(time.perf_counter() - start)
            self.between_steps = True

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss; of fp16 they are scaled, so that small ones survive."""
        self.scaler.scale(loss).backward()

    def update(self, *optimizers: torch.optim.Optimizer) -> None:
        """A step of each optimizer, by gradients of at most `clip_norm`."""
        for optimizer in optimizers:
            if self.training.clip_norm:
                self.scaler.unscale_(optimizer)
                [group] = optimizer.param_groups
                torch.nn.utils.clip_grad_norm_(group["params"], self.training.clip_norm)
            self.scaler.step(optimizer)
        self.scaler.update()

    def mean_losses(self, losses: dict[str, Tensor]) -> dict[str, float]:
        """Losses averaged over the processes."""
        # Apple's accelerator has no float64.
        dtype = torch.float32 if self.worker.device.type == "mps" else torch.float64
        values = torch.stack([loss.to(dtype) for loss in losses.values()])
        if self.accelerator:
            values = self.accelerator.reduce(values, "mean")
        return dict(zip(losses, values.tolist(), strict=True))

    def gather(self, state: Any) -> list:
        """What all processes give here, in their order."""
        if not self.accelerator:
            return [state]
        from accelerate.utils import gather_object

        return gather_object([state])


def check_precision(precision: str, device: torch.device) -> None:
    """Raise ValueError for a precision that the device lacks; warn if it would be imitated."""
    if device.type != "cpu":
        return
    if precision == "fp16":
        raise ValueError('precision="fp16" needs a GPU: choose "bf16" or "fp32" on the CPU')
    if precision == "bf16" and cpu_lacks_bf16():
        warnings.warn(
            "this CPU has no bf16, and to imitate it takes longer than fp32: choose "
            'precision="fp32"',
            stacklevel=5,
        )


def make_fast(model: CycleGAN, device: torch.device, compiled: bool) -> None:
    """Give the model the layers and the memory layout that are fastest on its device."""
    if device.type == "cpu":
        use_fast_layers(model)
    elif device.type == "cuda":
        model.to(memory_format=torch.channels_last)

    if compiled:
        model.G_ct2mri.compile()
        model.G_mri2ct.compile()

        # The gradient penalty needs a second derivative, which compiled networks do not have.
        if model.objective.gan_mode != "wgangp":
            model.D_ct.compile()
            model.D_mri.compile()


def step_in_precision(model: torch.nn.Module, precision: str, ct: Tensor, mri: Tensor) -> Step:
    """A model's training step on a batch of each modality, computed in a precision."""
    weights = next(model.parameters())
    dtype = PRECISIONS[precision]
    with torch.autocast(weights.device.type, dtype, enabled=dtype is not None):
        return model(ct.to(weights.dtype), mri.to(weights.dtype))


class SlowdownWatch:
    """Warns once if steps take three times as long as they did at first."""

    def __init__(self):
        self.seconds = []
        self.warned = False

    def __call__(self, seconds: float) -> None:
        """Take note of a step that took so many seconds."""
        self.seconds.append(seconds)
        if self.warned or len(self.seconds) % WATCHED_STEPS:
            return

        first = statistics.median(self.seconds[:WATCHED_STEPS])
        now = statistics.median(self.seconds[-WATCHED_STEPS:])
        if now > SLOWDOWN * first:
            self.warned = True
            warnings.warn(
                f"steps take {now:.2f} s now and took {first:.2f} s at first: another program may "
                "be using the cores; CTMRI_THREADS=1 suffers least",
                stacklevel=5,
            )

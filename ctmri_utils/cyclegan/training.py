"""The training: `fit`, on one process or several, resumed exactly from its checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import lr_scheduler

from ..files import check_writable, only_writer
from ..machine import delayed_interrupt, several_processes, shared_by_processes
from ..settings import Training
from .batches import Slices, UnpairedBatches
from .fast_cpu import use_fast_layers
from .inputs import (
    check_finite,
    check_inputs,
    check_numbers,
    check_precision,
    describe_batch,
    describe_data,
)
from .model import CycleGAN
from .resume import resume_run, save_run, saved_precision
from .tuning import SlowdownWatch, choose_precision, choose_threads

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

# How often in a training "plateau" looks at its metric.
PLATEAU_CHECKS = 50


def fit(
    model: CycleGAN,
    slices: Slices,
    training: Training = Training(),
    *,
    seed: int,
    steps: int | None = None,
    checkpoint: Path | None = None,
    stop_at: int | None = None,
    save_every: int = 100,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
    validate: Callable[[CycleGAN], float] | None = None,
    start: str | None = None,
) -> list[dict[str, float]]:
    """Train a CycleGAN, in place.

    With `checkpoint`, the run is saved there every `save_every` steps and at the end, and a call
    that finds the file resumes it. Ctrl-C ends the step, saves, and is then raised; resuming
    continues the very same run.

    Args:
        model: the CycleGAN; on the CPU its layers are replaced by faster ones.
        slices: what to train on, a `Slices` or a `scans.Split`.
        training: length, rate, precision and augmentation.
        seed: of the order of the slices and of their augmentation.
        steps: length of the whole training, over which the rate falls, instead of
            `training.steps`.
        checkpoint: the file to resume from and to save to.
        stop_at: end this call after so many steps of the whole training; None: after all.
        save_every: steps between two saves.
        on_step: called as on_step(step, losses) after each step, for progress and pictures.
        validate: called as validate(model), gives the "plateau" policy its metric.
        start: digest of the weights that the model starts from, see `runs.start_from`.

    Returns:
        A dict of losses for each step, from the first step of the run on.

    Raises:
        ValueError: slices or settings that do not fit together, or a checkpoint of another run.
        OSError: the checkpoint cannot be written; raised before the first step.
        FloatingPointError: a loss or a weight is not finite.

    Example:
        >>> from ctmri_utils import CycleGAN, fit, load_scans, settings_for
        >>> settings = settings_for("ci")
        >>> scans = load_scans("phantom", settings, seed=2026)
        >>> model = CycleGAN(settings.architecture, settings.objective)
        >>> losses = fit(model, scans.train, settings.training, seed=2026, steps=2)
        >>> len(losses), "cycle" in losses[0]
        (2, True)
    """
    # A whole `Settings` is a `Training` too; its other fields belong to the model.
    training = training.pick(Training)
    if steps is not None:
        training = replace(training, steps=steps)
    check_inputs(model, slices, training, validate)
    check_numbers(seed=seed, stop_at=stop_at, save_every=save_every)
    if training.precision == "auto":
        precision = saved_precision(checkpoint) or choose_precision(model, slices)
        training = replace(training, precision=precision)
    trainer = Trainer(model, training, seed=seed, data=describe_data(slices), start=start)
    check_finite(slices)
    batches = UnpairedBatches(
        slices.ct,
        slices.mri,
        training,
        seed,
        trainer.device,
        trainer.process,
        trainer.processes,
        slices.positions,
    )
    if checkpoint is not None:
        checkpoint = Path(checkpoint)
        if trainer.process == 0:
            check_writable(checkpoint.parent)

    # Only the first process writes the checkpoint, so only that one locks it.
    writes = checkpoint is not None and trainer.process == 0
    with only_writer(checkpoint) if writes else nullcontext():
        if checkpoint is not None and checkpoint.exists():
            resume_run(trainer, checkpoint)
        else:
            choose_threads(trainer, batches)
        last_step = training.steps if stop_at is None else min(training.steps, stop_at)
        run_steps(trainer, slices, batches, last_step, checkpoint, save_every, on_step, validate)
    return trainer.losses


def run_steps(
    trainer: Trainer,
    slices: Slices,
    batches: UnpairedBatches,
    last_step: int,
    checkpoint: Path | None,
    save_every: int,
    on_step: Callable[[int, dict[str, float]], None] | None,
    validate: Callable[[CycleGAN], float] | None,
) -> None:
    """Make the steps up to the last one, and save the run whatever happens."""
    watch = SlowdownWatch()

    # Outside a step the state is one that can be resumed.
    resumable = True
    try:
        while trainer.step < last_step:
            with delayed_interrupt():
                resumable = False
                start = time.perf_counter()
                place = describe_batch(slices, batches, trainer.step)
                losses = trainer.train_one_step(*batches(trainer.step), place)
                trainer.adapt_learning_rate(validate)
                watch(time.perf_counter() - start)
                resumable = True
            if on_step:
                on_step(trainer.step, losses)
            if checkpoint is not None and trainer.step % save_every == 0:
                save_run(trainer, checkpoint)
    except BaseException:
        # After an error, other processes may be at another step.
        resumable = resumable and trainer.processes == 1
        raise
    finally:
        # In the middle of a step nothing is saved: the file keeps the last whole one.
        if checkpoint is not None and resumable:
            save_run(trainer, checkpoint)


class Trainer:
    """A model, its optimizers and schedulers, and its step count: a training run.

    Args:
        model: the CycleGAN to train.
        training: how.
        details: what else tells this run from others, such as its seed. With the settings they are
            the run's `fingerprint`; a checkpoint with another fingerprint is refused.

    Raises:
        ValueError: a precision that the device lacks.
    """

    def __init__(self, model: CycleGAN, training: Training, **details):
        self.model = model
        self.training = training
        self.step = 0
        self.losses = []

        self.engine = several_processes()
        self.process = self.engine.process_index if self.engine else 0
        self.processes = self.engine.num_processes if self.engine else 1
        self.device = self.engine.device if self.engine else next(model.parameters()).device
        check_precision(training.precision, self.device)
        if self.process:
            # Without this, all processes would draw the same dropout.
            torch.manual_seed(torch.initial_seed() + self.process)

        settings = model.settings() | asdict(training)
        self.fingerprint = settings | details | {"processes": self.processes}

        self.prepare_model()
        self.wrapped = shared_by_processes(model, self.engine) if self.engine else model
        self.groups = [model.generator_parameters, model.discriminator_parameters]
        self.optimizers = [
            torch.optim.Adam(
                group,
                training.learning_rate,
                (training.beta1, training.beta2),
                fused=self.device.type in ("cpu", "cuda", "mps", "xpu"),
            )
            for group in self.groups
        ]
        self.schedulers = [schedule(optimizer, training) for optimizer in self.optimizers]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=training.precision == "fp16")

    def prepare_model(self) -> None:
        """Give the model the layers and the memory layout that are fastest on its device."""
        model = self.model
        if self.device.type == "cpu":
            use_fast_layers(model)
        elif self.device.type == "cuda":
            model.to(memory_format=torch.channels_last)

        if self.training.compile:
            model.G_ct2mri.compile()
            model.G_mri2ct.compile()

            # The gradient penalty needs a second derivative, which compiled networks do not have.
            if model.objective.gan_mode != "wgangp":
                model.D_ct.compile()
                model.D_mri.compile()

    def train_one_step(self, ct: Tensor, mri: Tensor, place: str = "") -> dict[str, float]:
        """One step of both optimizers on a batch of each modality.

        Args:
            ct, mri: (N, C, H, W) in [-1, 1].
            place: names the batch in an error message.

        Returns:
            The losses, averaged over the processes.

        Raises:
            FloatingPointError: a loss is not finite; no weight has changed then.
        """
        dtype = next(self.model.parameters()).dtype
        precision = PRECISIONS[self.training.precision]
        with torch.autocast(self.device.type, precision, enabled=precision is not None):
            generator_loss, discriminator_loss, losses = self.wrapped(ct.to(dtype), mri.to(dtype))

        losses = self.mean_over_processes(losses)
        bad = [f"{name} ({value})" for name, value in losses.items() if not math.isfinite(value)]
        if bad:
            raise FloatingPointError(
                f"training stopped at step {self.step + 1}: {', '.join(bad)} is not finite{place}; "
                "lower the learning rate, or look for broken slices"
            )

        for optimizer in self.optimizers:
            optimizer.zero_grad()

        # No weight has a gradient from both losses, so one backward pass serves both optimizers.
        self.scaler.scale(generator_loss + discriminator_loss).backward()
        for optimizer, group in zip(self.optimizers, self.groups, strict=True):
            if self.training.clip_norm:
                self.scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(group, self.training.clip_norm)
            self.scaler.step(optimizer)
        self.scaler.update()

        self.step += 1
        self.model.update_averages(self.step, self.training.ema)
        self.losses.append(losses)
        return losses

    def mean_over_processes(self, losses: dict[str, Tensor]) -> dict[str, float]:
        # Apple's accelerator has no float64.
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        values = torch.stack([loss.to(dtype) for loss in losses.values()])
        if self.engine:
            values = self.engine.reduce(values, "mean")
        return dict(zip(losses, values.tolist(), strict=True))

    def adapt_learning_rate(self, validate: Callable[[CycleGAN], float] | None) -> None:
        """Let the schedulers see that a step was made.

        "plateau" looks at the metric, by default the mean cycle loss since it last looked.
        """
        if self.training.lr_policy != "plateau":
            for scheduler in self.schedulers:
                scheduler.step()
            return

        every = max(1, self.training.steps // PLATEAU_CHECKS)
        if self.step % every == 0:
            if validate:
                metric = validate(self.model)
            else:
                metric = sum(losses["cycle"] for losses in self.losses[-every:]) / every
            for scheduler in self.schedulers:
                scheduler.step(metric)


def schedule(optimizer: torch.optim.Optimizer, training: Training):
    """The learning rate's scheduler, stepped after each training step; plateau at each check.

    "linear" is flat, then falls over the last `decay_share`; "step" takes a tenth after each
    quarter; "cosine" is half a wave; "plateau" takes a fifth once the metric has not fallen by 1 %
    for more than five checks. No policy ever trains at zero. (In the reference the last linear
    epoch is at zero, and plateau has no metric.)
    """
    steps = training.steps
    if training.lr_policy == "linear":
        decay = round(steps * training.decay_share)
        return lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (steps - step) / (decay + 1)))
    if training.lr_policy == "step":
        return lr_scheduler.StepLR(optimizer, math.ceil(steps / 4), gamma=0.1)
    if training.lr_policy == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.2, threshold=0.01, patience=5, min_lr=training.learning_rate / 1000
    )

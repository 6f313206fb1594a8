"""The training: `fit`, the loop over steps, one step, and the learning rate's schedule.

What belongs to the machine is in engine.py; what belongs to the checkpoint, in resume.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import lr_scheduler

from ..settings import Training
from .batches import Slices, UnpairedBatches
from .engine import Engine, step_in_precision
from .inputs import check_inputs, check_numbers
from .model import CycleGAN
from .resume import describe_data, save_run, saved_precision, saved_run
from .tuning import choose_precision, choose_threads

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
    checkpoint = None if checkpoint is None else Path(checkpoint)
    check_inputs(model, slices, training, validate)
    check_numbers(seed, stop_at, save_every)

    if training.precision == "auto":
        precision = saved_precision(checkpoint) or choose_precision(model, slices)
        training = replace(training, precision=precision)
    trainer = Trainer(model, training, seed=seed, data=describe_data(slices), start=start)
    batches = UnpairedBatches(slices, training, seed, trainer.engine.worker)
    last_step = training.steps if stop_at is None else min(training.steps, stop_at)

    # The run goes on from its checkpoint, and is saved at the end, also after Ctrl-C.
    with saved_run(trainer, checkpoint):
        if trainer.step == 0:
            choose_threads(trainer, batches)

        while trainer.step < last_step:
            with trainer.engine.whole_step():
                ct, mri = batches(trainer.step)
                losses = trainer.train_one_step(ct, mri, batches.describe)
                trainer.adapt_learning_rate(validate)
            if on_step:
                on_step(trainer.step, losses)
            if checkpoint and trainer.step % save_every == 0:
                save_run(trainer, checkpoint)
    return trainer.losses


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

        self.engine = Engine(model, training)
        processes = {"processes": self.engine.worker.processes}
        self.fingerprint = model.settings() | asdict(training) | details | processes

        self.optimizers = [
            torch.optim.Adam(
                weights,
                training.learning_rate,
                (training.beta1, training.beta2),
                fused=self.engine.has_fused_adam,
            )
            for weights in (model.generator_parameters, model.discriminator_parameters)
        ]
        self.schedulers = [schedule(optimizer, training) for optimizer in self.optimizers]

    def train_one_step(
        self, ct: Tensor, mri: Tensor, describe: Callable[[int], str] | None = None
    ) -> dict[str, float]:
        """One step of both optimizers on a batch of each modality.

        Args:
            ct, mri: (N, C, H, W) in [-1, 1].
            describe: called as describe(step), says in an error what the batch shows.

        Returns:
            The losses, averaged over the processes.

        Raises:
            FloatingPointError: a loss is not finite; no weight has changed then.
        """
        step = step_in_precision(self.engine.model, self.training.precision, ct, mri)
        losses = self.engine.mean_losses(step.losses)
        broken = [f"{name} ({loss})" for name, loss in losses.items() if not math.isfinite(loss)]
        if broken:
            names = describe(self.step) if describe else "this batch"
            raise FloatingPointError(
                f"training stopped at step {self.step + 1}: {', '.join(broken)} is not finite, on "
                f"{names}; lower the learning rate, or look for broken slices"
            )

        for optimizer in self.optimizers:
            optimizer.zero_grad()

        # No weight has a gradient from both losses, so one backward pass serves both optimizers.
        self.engine.backward(step.generator_loss + step.discriminator_loss)
        self.engine.update(*self.optimizers)

        self.step += 1
        self.model.update_averages(self.step, self.training.ema)
        self.losses.append(losses)
        return losses

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


def schedule(optimizer: torch.optim.Optimizer, training: Training) -> lr_scheduler.LRScheduler:
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

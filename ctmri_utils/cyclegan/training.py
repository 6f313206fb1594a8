"""The training engine: `fit`, on one process or several, with one checkpoint that a later call
resumes from, exactly.
"""

from __future__ import annotations

import math
import os
import random
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.optim import lr_scheduler

from ..files import check_writable
from ..settings import Training
from .batches import UnpairedBatches
from .model import CycleGAN
from .resume import load_checkpoint, save_checkpoint

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
# what CPUs that compute in it call it; the last two are ARM's
BF16 = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
# how often in a training "plateau" looks at its metric
CHECKS = 50


def schedule(optimizer: torch.optim.Optimizer, training: Training):
    """The learning rate's scheduler, stepped after each training step (plateau: at each check).

    No policy ever trains at zero.

    "linear": flat, then down over the last `decay_share`; "step": a tenth after each quarter;
    "cosine": half a wave; "plateau": a fifth once the metric has not fallen by 1 % for more than
    five checks. (In the reference the last linear epoch is at zero, and plateau has no metric.)
    """
    steps, rate = training.steps, training.learning_rate
    if training.lr_policy == "linear":
        decay = round(steps * training.decay_share)
        return lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (steps - step) / (decay + 1)))
    if training.lr_policy == "step":
        return lr_scheduler.StepLR(optimizer, math.ceil(steps / 4), gamma=0.1)
    if training.lr_policy == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.2, threshold=0.01, patience=5, min_lr=rate / 1000
    )


def several_processes():
    """Accelerate's handle where it started this process as one of several (`accelerate launch`,
    `notebook_launcher`), else None.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "training on several processes needs accelerate: pip install 'ctmri-utils[course]'"
        ) from error
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )


def bf16_is_imitated() -> bool:
    """Whether this CPU has no instructions for bf16; False where torch is too old to tell."""
    tell = getattr(torch.cpu, "get_capabilities", None)
    return tell is not None and not any(tell().get(name) for name in BF16)


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


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Inside, Ctrl-C (in a notebook.

    The stop button) is heard at the end only, so that a step or file is made whole; a second one at
    once.

    Python gives signals to the main thread alone, so in any other this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = []

    def hear(*_):
        heard.append(True)
        if len(heard) > 1:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if heard:
        raise KeyboardInterrupt


class Trainer:
    """A model, its optimizers and schedulers, and its step count.

    The whole state of a training run.

    `state()` and `load_state()` carry all of it, pools and random states included, so a resumed run
    on the CPU continues the very same run. `identity` says which run that is: the state of another
    one is refused. Raises ValueError for a precision that the device lacks.
    """

    def __init__(self, model: CycleGAN, training: Training, **identity):
        self.engine = several_processes()
        self.device = self.engine.device if self.engine else next(model.parameters()).device
        if training.precision == "fp16" and self.device.type == "cpu":
            raise ValueError('precision="fp16" needs a GPU: choose "bf16" or "fp32" on the CPU')
        if training.precision == "bf16" and self.device.type == "cpu" and bf16_is_imitated():
            warnings.warn(
                "this CPU has no bf16, and to imitate it takes longer than fp32: choose "
                'precision="fp32"',
                stacklevel=3,
            )
        self.process, self.processes = (
            (self.engine.process_index, self.engine.num_processes) if self.engine else (0, 1)
        )
        if self.process:
            # else all would draw the same dropout
            torch.manual_seed(torch.initial_seed() + self.process)
        self.model, self.training, self.step, self.losses = model, training, 0, []
        self.identity = (
            model.settings() | asdict(training) | identity | {"processes": self.processes}
        )
        if self.device.type == "cuda":
            # on the CPU it is slower
            model.to(memory_format=torch.channels_last)
        if training.compile:
            # by a slope of the critics' slope, which compiled networks do not have
            penalised = model.objective.gan_mode == "wgangp"
            for network in (
                model.G_ct2mri,
                model.G_mri2ct,
                *[model.D_ct, model.D_mri] * (not penalised),
            ):
                network.compile()
        self.wrapped = self.engine.prepare(model) if self.engine else model
        self.groups = (model.generators, model.critics)
        betas, fused = (training.beta1, training.beta2), self.device.type in ("cpu", "cuda")
        self.optimizers = [
            torch.optim.Adam(group, training.learning_rate, betas, fused=fused)
            for group in self.groups
        ]
        self.schedulers = [schedule(optimizer, training) for optimizer in self.optimizers]
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=training.precision == "fp16")

    def train_one_step(self, ct: Tensor, mri: Tensor, where: str = "") -> dict[str, float]:
        """One step of both optimizers on a batch of each modality.

        The losses, averaged over the processes.

        Raises FloatingPointError, naming the step, the losses and `where` (the batch), if one is
        not finite; no weight has changed then.
        """
        dtype = next(self.model.parameters()).dtype
        precision = PRECISIONS[self.training.precision]
        with torch.autocast(self.device.type, precision, enabled=precision is not None):
            generators, critics, parts = self.wrapped(ct.to(dtype), mri.to(dtype))
        values = torch.stack([part.double() for part in parts.values()])
        losses = dict(
            zip(
                parts,
                (self.engine.reduce(values, "mean") if self.engine else values).tolist(),
                strict=True,
            )
        )
        if bad := [
            f"{name} ({value})" for name, value in losses.items() if not math.isfinite(value)
        ]:
            raise FloatingPointError(
                f"training stopped at step {self.step + 1}: {', '.join(bad)} is not finite{where}; "
                "lower the learning rate, or look for broken slices"
            )
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        # no weight is in both, so one pass backward serves both
        self.scaler.scale(generators + critics).backward()
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

    def adapt_learning_rate(self, validate: Callable[[CycleGAN], float] | None) -> None:
        """Let the schedulers see that a step was made.

        "plateau" looks at the metric, by default the mean cycle loss since then.
        """
        if self.training.lr_policy != "plateau":
            for scheduler in self.schedulers:
                scheduler.step()
            return
        every = max(1, self.training.steps // CHECKS)
        if self.step % every == 0:
            metric = (
                validate(self.model)
                if validate
                else sum(losses["cycle"] for losses in self.losses[-every:]) / every
            )
            for scheduler in self.schedulers:
                scheduler.step(metric)

    def state(self) -> dict:
        mine = {
            "pools": [pool.images.cpu() for pool in (self.model.pool_ct, self.model.pool_mri)],
            "random": random_states(),
        }
        if self.engine:
            from accelerate.utils import gather_object
        return {
            "identity": self.identity,
            "model": self.model.state_dict(),
            "step": self.step,
            "losses": self.losses,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "scaler": self.scaler.state_dict(),
            "processes": gather_object([mine]) if self.engine else [mine],
        }

    def load_state(self, state: dict) -> None:
        other = [
            f"{name} {state['identity'].get(name)} instead of {value}"
            for name, value in self.identity.items()
            if state["identity"].get(name) != value
        ]
        if other:
            raise ValueError(f"it belongs to another run, with {'; '.join(other)}")
        self.model.load_state_dict(state["model"])
        for ours, theirs in ((self.optimizers, "optimizers"), (self.schedulers, "schedulers")):
            for part, saved in zip(ours, state[theirs], strict=True):
                part.load_state_dict(saved)
        self.scaler.load_state_dict(state["scaler"])
        mine = state["processes"][self.process]
        for pool, images in zip(
            (self.model.pool_ct, self.model.pool_mri), mine["pools"], strict=True
        ):
            pool.images = images.to(self.device)
        restore_random_states(mine["random"])
        self.step, self.losses = state["step"], state["losses"]

    def save(self, path: Path) -> None:
        """Every process takes part; the first one writes.

        Raises FloatingPointError, and keeps the file, if a weight is not finite.
        """
        if not all(weight.isfinite().all() for weight in self.model.state_dict().values()):
            raise FloatingPointError(
                f"the weights after step {self.step} are not finite: lower the learning rate; "
                f"{path} stays as is"
            )
        with interrupts_wait():
            state = self.state()
            if self.process == 0:
                save_checkpoint(state, path)


def data_name(ct: Tensor, mri: Tensor) -> str:
    """A short description by which a run recognises its slices, also where another machine rounds
    their last digits differently.
    """
    # large sets too
    means = [
        sum(float(part.double().sum()) for part in images.split(64)) / images.numel()
        for images in (ct, mri)
    ]
    return (
        f"{len(ct)} CT slices of mean {means[0]:.3f} and {len(mri)} MR slices of mean "
        f"{means[1]:.3f}"
    )


def check_sampling(
    model: CycleGAN, training: Training, ct: Tensor, mri: Tensor, positions, paired: bool
) -> None:
    """Raise ValueError where a loss or a sampling asks for what the data do not have."""
    if training.sampling == "paired" and not (paired and len(ct) == len(mri)):
        raise ValueError(
            'sampling="paired" needs CT and MR of the same slices of the same patients, and these '
            'are not: choose "random"'
        )
    if training.sampling == "position" and not (
        positions and [len(ct), len(mri)] == [len(heights) for heights in positions]
    ):
        raise ValueError(
            'sampling="position" needs the height of every slice, and this set does not say it: '
            'choose "random"'
        )
    if model.objective.supervised and training.sampling != "paired":
        raise ValueError(
            f"supervised={model.objective.supervised:g} needs pairs, and "
            f'sampling="{training.sampling}" gives none: set '
            'sampling = "paired" with paired data, or supervised = 0'
        )


def fit(
    model: CycleGAN,
    ct: Tensor,
    mri: Tensor,
    *,
    seed: int,
    checkpoint: Path | None = None,
    stop_at: int | None = None,
    save_every: int = 100,
    on_step: Callable[[int, dict[str, float]], None] = lambda step, losses: None,
    validate: Callable[[CycleGAN], float] | None = None,
    names: Sequence[Sequence[str]] | None = None,
    positions: Sequence[Sequence[float]] | None = None,
    paired: bool = False,
    **options,
) -> list[dict[str, float]]:
    """Train on unpaired slices and return one dict of losses per step, from the first step of the
    run on.

    ct, mri: (N, C, H, W) and (M, C, H, W) in [-1, 1]; names: a name for each slice of both, for
    error messages; positions: the height in the head of each slice of both, 0 to 1; paired: ct[i]
    and mri[i] are one slice of one patient. `options` are those of `Training`; its `steps` is the
    length of the whole training, over which the learning rate falls, and `stop_at` ends this call
    earlier. With `checkpoint`, the run is saved there every `save_every` steps and at the end, and
    a call that finds the file resumes it. `on_step(step, losses)` is called after each step, for
    progress and pictures; `validate(model)` gives the "plateau" policy its metric. Ctrl-C ends the
    step, saves, and is then raised; resuming continues the very same run. Raises FloatingPointError
    if a loss is not finite; ValueError for unknown options, slices that are not finite or do not
    suit the model, a checkpoint of another run; OSError if the checkpoint cannot be written, before
    the first step.
    """
    training = Training.of(options)
    if not training.steps:
        raise ValueError("steps=0 trains nothing: say how many steps the whole training has")
    for images, modality in ((ct, "ct"), (mri, "mri")):
        channels = getattr(model.architecture, f"{modality}_channels")
        if images.ndim != 4 or images.shape[1] != channels or len(images) == 0:
            raise ValueError(
                f"{modality} is of shape {tuple(images.shape)} and should be (N, {channels}, H, "
                "W), N at least 1: give such slices, or build the model with other "
                f"{modality}_channels"
            )
    check_sampling(model, training, ct, mri, positions, paired)
    if training.lr_policy == "plateau" and not (
        validate or model.objective.cycle_ct or model.objective.cycle_mri
    ):
        raise ValueError(
            'lr_policy="plateau" watches the cycle loss, and there is none: pass validate, or '
            "choose another policy"
        )
    trainer = Trainer(model, training, seed=seed, data=data_name(ct, mri))
    names = names or [[f"number {i}" for i in range(len(images))] for images in (ct, mri)]
    for images, called, modality in zip((ct, mri), names, ("CT", "MR"), strict=True):
        if broken := [
            name for name, image in zip(called, images, strict=True) if not image.isfinite().all()
        ]:
            raise ValueError(
                f"{modality} slice {broken[0]} holds values that are not finite: remove or repair "
                "it before training"
            )
    batches = UnpairedBatches(
        ct, mri, training, seed, trainer.device, trainer.process, trainer.processes, positions
    )
    if checkpoint is not None:
        checkpoint = Path(checkpoint)
        if trainer.process == 0:
            check_writable(checkpoint.parent)
        if checkpoint.exists():
            try:
                trainer.load_state(load_checkpoint(checkpoint))
            except (LookupError, ValueError, RuntimeError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{checkpoint} cannot be resumed: {error}; delete it, or use another file"
                ) from error

    def where(step: int) -> str:
        ct_names, mri_names = (
            ", ".join(called[i] for i in batches.indexes(step, k)) for k, called in enumerate(names)
        )
        return f", on CT {ct_names} and MR {mri_names}"

    # outside a step, when the state is one that can be resumed
    clean = True
    try:
        while trainer.step < min(training.steps, stop_at or training.steps):
            with interrupts_wait():
                clean = False
                losses = trainer.train_one_step(*batches(trainer.step), where(trainer.step))
                trainer.adapt_learning_rate(validate)
                clean = True
            on_step(trainer.step, losses)
            if checkpoint is not None and trainer.step % save_every == 0:
                trainer.save(checkpoint)
    except BaseException:
        # the others may not have come as far
        clean = clean and trainer.processes == 1
        raise
    finally:
        # else the file stays at its last good step
        if checkpoint is not None and clean:
            trainer.save(checkpoint)
    return trainer.losses

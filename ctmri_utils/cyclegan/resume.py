"""Checkpoints: the state of a training run as a file, from which it resumes to the same bits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..files import atomic_write, cannot_open, check_writable, existing, only_writer
from ..machine import delayed_interrupt
from ..seeds import random_states, restore_random_states
from ..settings import Architecture, Objective, Training
from ..units import MODALITIES
from .batches import Slices

if TYPE_CHECKING:
    from .training import Trainer

# What a checkpoint must hold, by name and type; "identity" is the run's fingerprint. Since version
# 0.2 it also holds threads and contract.
PARTS = {
    "identity": dict,
    "model": dict,
    "optimizers": list,
    "schedulers": list,
    "scaler": dict,
    "processes": list,
    "step": int,
    "losses": list,
}

TRAIN_FIRST = "train first, lesson 03 shows how"

# Names of losses in checkpoints of version 0.1.
OLD_LOSSES = {"critic mri": "discriminator_mri", "critic ct": "discriminator_ct"}


@contextmanager
def saved_run(trainer: Trainer, path: Path | None) -> Iterator[None]:
    """Inside the block a run goes on from its checkpoint, and it is saved there at the end.

    It is also saved after Ctrl-C and after an error. The file is locked meanwhile. Without a path
    nothing is resumed or saved.

    Raises:
        ValueError: the checkpoint cannot be read, or belongs to another run.
        OSError: it cannot be written, or another training writes to it.
    """
    if path is None:
        yield
        return

    # Only the first process writes the checkpoint, so only that one locks it.
    writes = trainer.engine.worker.process == 0
    if writes:
        check_writable(path.parent)
    with only_writer(path) if writes else nullcontext():
        if path.exists():
            resume_run(trainer, path)
        try:
            yield
        except BaseException:
            # Nothing is saved in the middle of a step, nor by several processes, which may be at
            # different steps: the file keeps the last whole step.
            if trainer.engine.between_steps and trainer.engine.worker.processes == 1:
                save_run(trainer, path)
            raise
        save_run(trainer, path)


def resume_run(trainer: Trainer, path: Path) -> None:
    """Go on with the run in a checkpoint.

    Raises:
        ValueError: it cannot be read, or belongs to another run.
    """
    state = load_checkpoint(path)
    try:
        differences = changed_settings(trainer.fingerprint, state["identity"])
        if not differences:
            restore_run(trainer, state)
    except (LookupError, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be resumed: {error}; move it away, or use another file"
        ) from error

    if differences:
        # A new run can start from these weights if its networks are the same.
        advice = "choose another folder for this one"
        if not differences.keys() & asdict(Architecture()).keys():
            advice += ", and set start to that file to go on from its weights"
        raise ValueError(
            f"{path} cannot be resumed: it belongs to another run, with "
            f"{'; '.join(differences.values())}: {advice}"
        )


def changed_settings(fingerprint: dict, saved: dict) -> dict[str, str]:
    """What differs between a run and a saved one, in words, by the setting's name."""
    # A setting that is newer than the checkpoint had its default.
    saved = asdict(Architecture()) | asdict(Objective()) | asdict(Training()) | saved
    return {
        name: f"{name} {saved.get(name)} instead of {value}"
        for name, value in fingerprint.items()
        if saved.get(name) != value
    }


def run_state(trainer: Trainer) -> dict:
    """The whole state of a run, pools and random states of all processes included."""
    model = trainer.model
    pools = [pool.images.cpu() for pool in (model.pool_ct, model.pool_mri)]
    return {
        "identity": trainer.fingerprint,
        "model": model.state_dict(),
        "step": trainer.step,
        "losses": trainer.losses,
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedulers": [scheduler.state_dict() for scheduler in trainer.schedulers],
        "scaler": trainer.engine.scaler.state_dict(),
        "processes": trainer.engine.gather({"pools": pools, "random": random_states()}),
        "threads": torch.get_num_threads(),
        "contract": None if model.contract is None else asdict(model.contract),
    }


def restore_run(trainer: Trainer, state: dict) -> None:
    """Put a trainer into the state that `run_state` returned."""
    model, worker = trainer.model, trainer.engine.worker
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(trainer.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    for scheduler, saved in zip(trainer.schedulers, state["schedulers"], strict=True):
        scheduler.load_state_dict(saved)
    trainer.engine.scaler.load_state_dict(state["scaler"])

    process_state = state["processes"][worker.process]
    for pool, images in zip((model.pool_ct, model.pool_mri), process_state["pools"], strict=True):
        pool.images = images.to(worker.device)
    restore_random_states(process_state["random"])
    trainer.step = state["step"]
    trainer.losses = state["losses"]

    # Another number of threads would round differently. Checkpoints of version 0.1 lack it.
    if "threads" in state and "CTMRI_THREADS" not in os.environ:
        torch.set_num_threads(state["threads"])


def save_run(trainer: Trainer, path: Path) -> None:
    """Save a run; every process takes part, and the first one writes.

    Raises:
        FloatingPointError: a weight is not finite; the file stays as it is.
        OSError: the file cannot be written.
    """
    weights = trainer.model.state_dict().values()
    if not all(weight.isfinite().all() for weight in weights):
        raise FloatingPointError(
            f"the weights after step {trainer.step} are not finite: lower the learning rate; "
            f"{path} stays as is"
        )
    with delayed_interrupt():
        state = run_state(trainer)
        if trainer.engine.worker.process == 0:
            save_checkpoint(state, path)


def saved_precision(path: Path | None) -> str | None:
    """The precision of the run in a checkpoint, or None if there is no such file."""
    if path is None or not path.exists():
        return None
    return load_checkpoint(path)["identity"].get("precision")


def describe_data(slices: Slices) -> str:
    """A short description by which a run recognises its slices.

    Three digits, since another machine may round the last ones differently.
    """
    parts = []
    for title, images in zip(MODALITIES.values(), (slices.ct, slices.mri), strict=True):
        # float64 copies of a large set would not fit into memory at once.
        total = sum(float(part.double().sum()) for part in images.split(64))
        parts.append(f"{len(images)} {title} slices of mean {total / images.numel():.3f}")
    return " and ".join(parts)


def save_checkpoint(state: dict, path: Path) -> None:
    """Write a checkpoint atomically.

    Raises:
        OSError: in one sentence, if the system does not let it be written.
    """
    try:
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        kept = "nothing was saved"
        if path.exists():
            kept = "the checkpoint of an earlier step is kept"

        # On a full disk, torch raises a RuntimeError; the OSError behind it says why.
        reason = error.__context__ if isinstance(error.__context__, OSError) else error
        raise OSError(
            f"{path} cannot be written ({str(reason).splitlines()[0]}): make room or choose "
            f"another folder; {kept}"
        ) from error


def load_checkpoint(path: Path) -> dict:
    """Read a checkpoint that `fit` wrote, running nothing that is in it.

    Returns:
        The state of the run, with the names of `PARTS`.

    Raises:
        FileNotFoundError: it does not exist.
        OSError: the system does not let it be read.
        ValueError: it is damaged, or not a checkpoint of `fit`.
    """
    existing(path, TRAIN_FIRST)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise cannot_open(path, error) from error
    except Exception as error:
        raise ValueError(
            f"{path} is not a readable checkpoint ({type(error).__name__}): move it away and train "
            "again"
        ) from error
    return checkpoint_content(state, path)


def checkpoint_content(state: Any, path: Path) -> dict:
    """What was read, with today's names of losses; ValueError if it is no checkpoint of `fit`."""
    complete = isinstance(state, dict) and all(
        isinstance(state.get(part), kind) for part, kind in PARTS.items()
    )
    if not complete or not all(isinstance(losses, dict) for losses in state["losses"]):
        raise ValueError(
            f"{path} was not written by `fit`: for a reference .pth file use `runs.load_reference`"
        )
    renamed = []
    for losses in state["losses"]:
        renamed.append({OLD_LOSSES.get(name, name): value for name, value in losses.items()})
    state["losses"] = renamed
    return state

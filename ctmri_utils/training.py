"""A plain training loop: `fit`, with one checkpoint that a later call resumes from, exactly."""
from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from .translators import CycleGAN

LEARNING_RATE = 2e-4                                             # the paper's, for its wide networks
BETAS = (0.5, 0.999)


def learning_rate_factor(step: int, steps: int) -> float:
    """1 for the first half of the training, then linearly down; the last step still learns (the reference's last epoch does not)."""
    return min(1.0, 2 * (steps - step) / (steps + 1))


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the images left to right and move each by up to 1/32 of its side; (N, C, H, W) in [-1, 1], same out.

    Whole pixels only: interpolation would blur, and the networks would learn to blur. What moves in is background, -1. Never top to
    bottom: heads are not scanned upside down.
    """
    reach = images.shape[-1] // 32
    padded = nn.functional.pad(images, [reach] * 4, value=-1)
    moved = []
    for image in padded:
        top, left = torch.randint(2 * reach + 1, (2,), generator=generator).tolist()
        image = image[:, top:top + images.shape[-2], left:left + images.shape[-1]]
        moved.append(image.flip(-1) if torch.rand((), generator=generator) < 0.5 else image)
    return torch.stack(moved)


class Trainer:
    """A model, its two optimizers, its random source and its step count: the whole state of a training run.

    `state()` and `load_state()` carry all of it, the sampler's and torch's random states included, so a resumed run on the CPU continues
    the very same run. `identity` says which run that is: the state of another one is refused.
    """

    def __init__(self, model: CycleGAN, seed: int, **identity):
        self.model, self.step = model, 0
        self.identity = model.settings() | {"seed": seed} | identity
        self.optimizers = [torch.optim.Adam(parameters, LEARNING_RATE, BETAS) for parameters in (model.generators, model.critics)]
        self.sampler = torch.Generator().manual_seed(seed)
        self.losses: list[dict[str, float]] = []

    def batch(self, images: Tensor, batch_size: int) -> Tensor:
        """Draw images of one modality at random, independently of the other modality: that is what unpaired means."""
        chosen = torch.randint(len(images), (batch_size,), generator=self.sampler)
        return augment(images[chosen], self.sampler)             # (batch_size, 1, H, W) in [-1, 1]

    def train_one_step(self, ct: Tensor, mri: Tensor, learning_rate: float) -> dict[str, float]:
        generators, critics, parts = self.model.training_step(ct, mri)
        parts = {name: float(part) for name, part in parts.items()}
        if not all(map(math.isfinite, parts.values())):
            raise FloatingPointError(f"training stopped at step {self.step + 1}: a loss is not finite ({parts}); "
                                     "lower the learning rate, or look for broken slices")
        for optimizer, loss in zip(self.optimizers, (generators, critics), strict=True):
            optimizer.param_groups[0]["lr"] = learning_rate
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.step += 1
        self.model.update_averages(self.step)
        self.losses.append(parts)
        return parts

    def state(self) -> dict:
        return {
            "settings": self.model.settings(), "identity": self.identity, "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "sampler": self.sampler.get_state(), "torch": torch.get_rng_state(),
            "step": self.step, "losses": self.losses,
        }

    def load_state(self, state: dict) -> None:
        other = [f"{name} {state['identity'].get(name)} instead of {value}" for name, value in self.identity.items()
                 if state["identity"].get(name) != value]
        if other:
            raise ValueError(f"it belongs to another run, with {'; '.join(other)}")
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.sampler.set_state(state["sampler"])
        torch.set_rng_state(state["torch"])
        self.step, self.losses = state["step"], state["losses"]


def save_checkpoint(state: dict, path: Path) -> None:
    """Write to a temporary neighbour, then rename: a run killed at any moment keeps its last good checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    torch.save(state, temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path) -> dict:
    """Read a checkpoint written by `fit`. FileNotFoundError or ValueError, in one sentence, if it is missing, damaged or not `fit`'s."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist or is no file: train first, lesson 03 shows how")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is not a readable checkpoint ({type(error).__name__}): delete it and train again") from error
    if not isinstance(state, dict) or not {"settings", "identity", "model", "optimizers", "sampler", "step", "losses"} <= state.keys():
        raise ValueError(f"{path} was not written by `fit`: a reference .pth file goes into `ResnetGenerator().load_state_dict`")
    return state


def load_translator(path: Path) -> CycleGAN:
    """The trained model in a checkpoint written by `fit`, ready to `translate`. Errors as `load_checkpoint`."""
    state = load_checkpoint(path)
    try:
        model = CycleGAN.from_settings(state["settings"])
        model.load_state_dict(state["model"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} does not fit this version's networks ({' '.join(str(error).split())[:200]}): train again") from error
    return model.eval()


def data_name(ct: Tensor, mri: Tensor) -> str:
    """A short description by which a run recognises its slices, also where another machine rounds their last digits differently."""
    return " and ".join(f"{len(images)} {name} slices of mean {float(images.double().mean()):.3f}"
                        for name, images in (("CT", ct), ("MR", mri)))


def fit(model: CycleGAN, ct: Tensor, mri: Tensor, *, steps: int, batch_size: int, seed: int, learning_rate: float = LEARNING_RATE,
        checkpoint: Path | None = None, stop_at: int | None = None, save_every: int = 100,
        on_step: Callable[[int, dict[str, float]], None] = lambda step, losses: None) -> list[dict[str, float]]:
    """Train on unpaired slices and return one dict of losses per step, from the first step of the run on.

    ct, mri: (N, 1, H, W) and (M, 1, H, W) in [-1, 1]. `steps` is the length of the whole training, over whose second half the learning
    rate falls; `stop_at` ends this call earlier. With `checkpoint`, the run is saved there every `save_every` steps and at the end,
    and a call that finds the file resumes it. `on_step(step, losses)` is called after each step, for progress and pictures. An interrupt
    in the middle of a step costs the steps since the last save, so that resuming continues the very same run. Raises
    FloatingPointError if a loss is not finite, ValueError for a checkpoint of another run.
    """
    device = next(model.parameters()).device
    ct, mri = ct.to(device), mri.to(device)
    trainer = Trainer(model, seed, steps=steps, batch_size=batch_size, learning_rate=learning_rate, data=data_name(ct, mri))
    if checkpoint is not None and Path(checkpoint).exists():
        try:
            trainer.load_state(load_checkpoint(checkpoint))
        except (KeyError, ValueError, RuntimeError) as error:
            raise ValueError(f"{checkpoint} cannot be resumed: {error}; delete it, or use another file") from error
    whole_step = True
    try:
        while trainer.step < min(steps, stop_at or steps):
            rate = learning_rate * learning_rate_factor(trainer.step, steps)
            whole_step = False
            losses = trainer.train_one_step(trainer.batch(ct, batch_size), trainer.batch(mri, batch_size), rate)
            whole_step = True
            on_step(trainer.step, losses)
            if checkpoint is not None and trainer.step % save_every == 0:
                save_checkpoint(trainer.state(), checkpoint)
    finally:
        if checkpoint is not None and whole_step:                # else the file stays at its last good step
            save_checkpoint(trainer.state(), checkpoint)
    return trainer.losses

"""A plain training loop: `fit`, with one checkpoint that a later call resumes from, exactly."""
from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from .translators import CycleGAN

LEARNING_RATE = 2e-4
BETAS = (0.5, 0.999)


def learning_rate_factor(step: int, steps: int) -> float:
    """1 for the first half of the training, then linearly down; the last step still learns (the reference's last epoch does not)."""
    return min(1.0, 2 * (steps - step) / (steps + 1))


def augment(images: Tensor, generator: torch.Generator, *, degrees: float = 8.0, shift: float = 0.06, zoom: float = 0.08) -> Tensor:
    """Mirror half of the images left to right, and rotate, shift and zoom each a little; (N, C, H, W) in [-1, 1], same out.

    degrees, shift (in image widths) and zoom are the largest changes, drawn evenly. What moves in from outside is background, -1.
    Never top to bottom: heads are not scanned upside down.
    """
    n = len(images)
    uniform = (2 * torch.rand(5, n, generator=generator) - 1).to(images.device)
    angle, scale, mirror = uniform[0] * torch.pi * degrees / 180, 1 + zoom * uniform[1], torch.sign(uniform[2])
    cos, sin = scale * angle.cos(), scale * angle.sin()
    theta = torch.stack([torch.stack([mirror * cos, -sin, 2 * shift * uniform[3]], 1), torch.stack([mirror * sin, cos, 2 * shift * uniform[4]], 1)], 1)
    grid = nn.functional.affine_grid(theta, list(images.shape), align_corners=False)   # (N, H, W, 2)
    return nn.functional.grid_sample(images + 1, grid, align_corners=False) - 1


class Trainer:
    """A model, its two optimizers, its random source and its step count: the whole state of a training run.

    `state()` and `load_state()` carry all of it, the sampler's and torch's random states included, so a resumed run on the CPU continues
    the very same run.
    """

    def __init__(self, model: CycleGAN, seed: int):
        self.model, self.seed, self.step = model, seed, 0
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
            raise FloatingPointError(f"training stopped at step {self.step + 1}: a loss is not finite ({parts}); lower the learning rate, or look for broken slices")
        for optimizer, loss in zip(self.optimizers, (generators, critics), strict=True):
            optimizer.param_groups[0]["lr"] = learning_rate
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.step += 1
        self.losses.append(parts)
        return parts

    def state(self) -> dict:
        return {
            "settings": self.model.settings(), "model": self.model.state_dict(), "optimizers": [o.state_dict() for o in self.optimizers],
            "sampler": self.sampler.get_state(), "torch": torch.get_rng_state(), "seed": self.seed, "step": self.step, "losses": self.losses,
        }

    def load_state(self, state: dict) -> None:
        if state["settings"] != self.model.settings() or state["seed"] != self.seed:
            raise ValueError(f"the checkpoint was made with {state['settings']}, seed {state['seed']}, not with {self.model.settings()}, seed {self.seed}: use another run folder")
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
    """Read a checkpoint written by `fit`. Raises FileNotFoundError or ValueError, in one sentence, if it is missing or damaged."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist: train first, lesson 03 shows how")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is not a readable checkpoint ({type(error).__name__}): delete it and train again") from error


def load_translator(path: Path) -> CycleGAN:
    """The trained model in a checkpoint written by `fit`, ready to `translate`. Errors as `load_checkpoint`."""
    state = load_checkpoint(path)
    model = CycleGAN.from_settings(state["settings"])
    model.load_state_dict(state["model"])
    return model.eval()


def fit(model: CycleGAN, ct: Tensor, mri: Tensor, *, steps: int, batch_size: int, seed: int, checkpoint: Path | None = None, stop_at: int | None = None,
        save_every: int = 200, on_step: Callable[[int, dict[str, float]], None] = lambda step, losses: None) -> list[dict[str, float]]:
    """Train on unpaired slices and return one dict of losses per step, from the first step of the run on.

    ct, mri: (N, 1, H, W) and (M, 1, H, W) in [-1, 1]. `steps` is the length of the whole training, which sets the learning rate; `stop_at` ends
    this call earlier. With `checkpoint`, the run is saved there every `save_every` steps and at the end, and a call that finds the
    file resumes it. `on_step(step, losses)` is called after each step, for progress and pictures; an interrupt keeps the last step.
    """
    device = next(model.parameters()).device
    ct, mri = ct.to(device), mri.to(device)
    trainer = Trainer(model, seed)
    if checkpoint is not None and Path(checkpoint).is_file():
        trainer.load_state(load_checkpoint(checkpoint))
    try:
        while trainer.step < min(steps, stop_at or steps):
            learning_rate = LEARNING_RATE * learning_rate_factor(trainer.step, steps)
            losses = trainer.train_one_step(trainer.batch(ct, batch_size), trainer.batch(mri, batch_size), learning_rate)
            on_step(trainer.step, losses)
            if checkpoint is not None and trainer.step % save_every == 0:
                save_checkpoint(trainer.state(), checkpoint)
    except FloatingPointError:
        checkpoint = None                                        # the pools hold broken images: leave the file at its last good step
        raise
    finally:
        if checkpoint is not None:
            save_checkpoint(trainer.state(), checkpoint)
    return trainer.losses

"""What looks wrong in a training: collapse, identity mapping and diverging losses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cyclegan.model import Translator

# Translations vary suspiciously little below this share of what real slices do.
SUSPICIOUS_SHARE = 0.1

# A training diverges if its last losses are so many times its first. The last ones are a
# mean over some steps, because single bursts of a discriminator's loss are harmless.
DIVERGENCE = 10
LAST_STEPS = 8


@torch.no_grad()
def symptoms(model: Translator, ct: Tensor, mri: Tensor) -> str:
    """What looks wrong with the generators of the last step.

    Mode collapse: the translations differ from each other (standard deviation over slices) less
    than a tenth as much as real slices do. Identity mapping: a translation differs from its input
    less than a tenth as much as the mean real slice of the other modality does.

    Args:
        model: a CycleGAN.
        ct: at least two different slices, (N, C, H, W) in [-1, 1].
        mri: the same; the size may differ.

    Returns:
        A few words; "" if nothing looks wrong.
    """
    warnings = []
    for to, images, real in (("mri", ct, mri), ("ct", mri, ct)):
        fakes = model.translate(images, to, averaged=False)
        if spread(fakes) < SUSPICIOUS_SHARE * spread(real):
            warnings.append(f"every fake_{to} looks alike (mode collapse)")

        # With other channels, no generator could hand on its input.
        elif fakes.shape == images.shape:
            mean_slice = F.interpolate(real.mean(0, keepdim=True), images.shape[-2:], mode="area")
            expected_change = (mean_slice - images).abs().mean()
            if (fakes - images).abs().mean() < SUSPICIOUS_SHARE * expected_change:
                warnings.append(f"fake_{to} is its input (identity mapping)")
    return ", ".join(warnings)


def diverges(history: list[dict[str, float]]) -> bool:
    """Whether the losses of the last steps are ten times those of the first one."""
    if len(history) <= LAST_STEPS:
        return False
    last = sum(total(losses) for losses in history[-LAST_STEPS:]) / LAST_STEPS
    return last > DIVERGENCE * total(history[0])


def total(losses: dict[str, float]) -> float:
    """The sum of the losses' sizes, since some are negative with "hinge" and "wgangp"."""
    return sum(abs(loss) for loss in losses.values())


def spread(images: Tensor) -> Tensor:
    """Standard deviation over slices, averaged over pixels."""
    return images.std(0, correction=0).mean()

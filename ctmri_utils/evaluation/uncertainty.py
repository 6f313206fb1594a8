"""Where not to believe a translation.

Signs that need no truth, their calibration on a phantom, and how well they find the errors.

A doubt map shows where a translation is unsteady, or near what is hard. It is calibrated on the
errors that are common: a bleed that is calmly painted over raises it too little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage, optimize, stats
from torch import Tensor

from ..cyclegan.model import Translator
from ..units import Scale
from .metrics import BONE_ABOVE_HU, check_shapes, checked_mask, numbers
from .scores import check_unit

# 16 bring 0.005 of AUC for twice the time
MOVES = 8
FURTHEST_PX = 2
# SD, of the network's range of 2
NOISE = 0.02
CONSTANT = "constant"


def moved_copies(images: Tensor, seed: int) -> Iterator[tuple[Tensor, Callable[[Tensor], Tensor]]]:
    """The images (N, C, H, W), slightly moved, MOVES times, each with the function that moves what
    was made of them back.

    Every second copy is mirrored, all are shifted by up to 2 whole pixels and get a little Gaussian
    noise. What leaves at one edge enters at the other: the pixels stay the same, and so does what
    instance norm makes of them.
    """
    draw = torch.Generator().manual_seed(seed)
    for k in range(MOVES):
        shift = torch.randint(-FURTHEST_PX, FURTHEST_PX + 1, (2,), generator=draw).tolist()
        mirrored = [-1] if k % 2 else []
        noise = NOISE * torch.randn(images.shape, generator=draw).to(images)

        def back(made, shift=shift, mirrored=mirrored):
            return made.roll([-pixels for pixels in shift], (-2, -1)).flip(mirrored)

        yield images.flip(mirrored).roll(shift, (-2, -1)) + noise, back


def disagreement(
    models: Sequence[Translator], images: Tensor, to: str, scale: Scale, seed: int
) -> np.ndarray:
    """Standard deviation (N, H, W) of the translation between models and moved copies, in the
    scale's unit (HU for CT).

    models: one, or several of other seeds; images (N, C, H, W) in [-1, 1]; scale: its
    `from_network` makes values of translations. ValueError without a model. Sources: for moves Wang
    et al. 2019 (arXiv 1807.07356), for seeds Lakshminarayanan et al. 2017 (1612.01474).
    """
    if not models:
        raise ValueError(
            "disagreement needs a model to disagree with itself, or several with each other, got "
            "none."
        )
    made = [
        scale.from_network(back(model.translate(moved, to)))[:, 0].cpu().numpy()
        for model in models
        for moved, back in moved_copies(images, seed)
    ]
    return np.std(made, axis=0)


def cycle_residual(model: Translator, images: Tensor, to: str, seed: int) -> np.ndarray:
    """|round trip - image| (N, H, W) in network units, averaged over channels and moved copies.

    Images (N, C, H, W) in [-1, 1].

    `to`: where the round trip turns. It is small, too, where a network hides what it needs for the
    way back: Chu et al. 2017.
    """
    origin = "mri" if to == "ct" else "ct"
    rests = [
        back((model.translate(model.translate(moved, to), origin) - moved).abs())
        for moved, back in moved_copies(images, seed)
    ]
    return torch.stack(rests).mean(dim=(0, 2)).cpu().numpy()


def near_skull(ct_hu) -> np.ndarray:
    """exp(-d), d the distance in pixels to the nearest bone of its slice (> 250 HU).

    1 in bone, 0 far away or without any; (N, H, W).

    Raises ValueError for another shape.
    """
    bone = numbers(ct_hu, "CT") > BONE_ABOVE_HU
    if bone.ndim != 3:
        raise ValueError(
            f"the distance to the skull is taken in slices (N, H, W), got {bone.shape}: pass a "
            "stack of them."
        )
    return np.stack(
        [np.exp(-ndimage.distance_transform_edt(~slice_)) * slice_.any() for slice_ in bone]
    )


def signs_of_doubt(
    models: Sequence[Translator], mri: Tensor, ct_scale: Scale, seed: int
) -> dict[str, np.ndarray]:
    """The three signs of an MR's translation into CT, (N, H, W) each.

    Round trip and skull are those of the first model.

    mri (N, C, H, W) in [-1, 1]. Nearness to the skull is a rival that needs no model of doubt: on
    the phantom it finds large errors about as well as disagreement does, and the two together
    better. Raises ValueError without a model, or if ct_scale is not in HU.
    """
    check_unit(ct_scale)
    return {
        "disagreement": disagreement(models, mri, "ct", ct_scale, seed),
        "cycle residual": cycle_residual(models[0], mri, "ct", seed),
        "near the skull": near_skull(
            ct_scale.from_network(models[0].translate(mri, "ct"))[:, 0].cpu()
        ),
    }


@dataclass(frozen=True)
class Doubt:
    """A calibrated doubt map.

    What absolute error to expect, as a sum of signs, each times a coefficient >= 0, and a constant.
    """

    coefficients: dict[str, float]

    @classmethod
    def calibrated(cls, signs: dict[str, np.ndarray], error, mask) -> Doubt:
        """Non-negative least squares of |error| on the signs inside the mask, all (N, H, W).

        Use patients that neither the model nor the test knows. The result holds on average, and for
        patients and pixels like these only. ValueError if shapes differ or the mask is empty.
        Source: Lawson & Hanson 1974, chapter 23.
        """
        mask, error = checked_mask(mask), numbers(error, "error")
        signs = {CONSTANT: np.ones(mask.shape)} | {
            name: numbers(sign, name) for name, sign in signs.items()
        }
        check_shapes(mask, error=error, **signs)
        found, _ = optimize.nnls(
            np.stack([sign[mask] for sign in signs.values()], axis=1), np.abs(error[mask])
        )
        return cls(dict(zip(signs, found.tolist(), strict=True)))

    def __call__(self, signs: dict[str, np.ndarray]) -> np.ndarray:
        """Expected absolute error (N, H, W), in the unit of the errors it was calibrated on.

        ValueError unless the signs are the same.
        """
        wanted = [name for name in self.coefficients if name != CONSTANT]
        if signs.keys() != set(wanted):
            raise ValueError(
                f"calibrated on {', '.join(wanted)}, not on {', '.join(signs) or 'nothing'}: give "
                "the same signs."
            )
        return self.coefficients[CONSTANT] + sum(
            self.coefficients[name] * numbers(sign, name) for name, sign in signs.items()
        )


def auc(doubt, error, mask, above_hu: float) -> float:
    """Area under the ROC curve of finding, by doubt, the mask's pixels with |error| > above_hu.

    1 = all first, 0.5 = by chance.

    The probability that such a pixel has more doubt than another, ties counting half. All of one
    shape, (H, W) or (N, H, W). Raises ValueError if shapes differ, or if no pixel or every pixel is
    above. Source: Hanley & McNeil 1982.
    """
    doubt, error = inside(doubt, error, mask)
    wrong = error > above_hu
    if wrong.all() or not wrong.any():
        raise ValueError(
            f"{int(wrong.sum())} of {wrong.size} pixels have an error above {above_hu:g} HU, and "
            "finding them needs some and some not: choose another limit, errors reach from "
            f"{error.min():.3g} to {error.max():.3g}."
        )
    ranks, many = stats.rankdata(doubt), int(wrong.sum())
    return float((ranks[wrong].mean() - (many + 1) / 2) / (wrong.size - many))


def risk_coverage(
    doubt,
    error,
    mask,
    coverages: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
) -> np.ndarray:
    """Mean |error| of the most trusted share of the mask's pixels, one for each coverage in (0, 1];
    at 1 it is the mean of all.

    Where pixels of one doubt are only partly covered, their mean counts. The error as its own doubt
    gives the best curve there can be. Raises ValueError if shapes differ, the mask is empty or a
    coverage is none. Source: Geifman & El-Yaniv 2017 (arXiv 1705.08500).
    """
    doubt, error = inside(doubt, error, mask)
    if not all(0 < coverage <= 1 for coverage in coverages):
        raise ValueError(
            f"a coverage is a share of the pixels above 0 and at most 1, got {tuple(coverages)}."
        )
    levels, level = np.unique(doubt, return_inverse=True)
    means = (np.bincount(level, error) / np.bincount(level))[np.sort(level)]
    counts = [max(1, round(coverage * len(means))) for coverage in coverages]
    return np.cumsum(means)[np.array(counts) - 1] / counts


def inside(doubt, error, mask) -> tuple[np.ndarray, np.ndarray]:
    """Doubt and |error| of the mask's pixels, (K,) each, or ValueError in one sentence."""
    doubt, error, mask = numbers(doubt, "doubt"), numbers(error, "error"), checked_mask(mask)
    check_shapes(mask, doubt=doubt, error=error)
    return doubt[mask], np.abs(error[mask])

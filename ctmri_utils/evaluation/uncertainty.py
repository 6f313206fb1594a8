"""Where not to believe a translation: signs that need no truth, combined into an uncertainty map.

The map is calibrated on a phantom, where the errors are known, and judged by how well it finds
large errors. It shows where a translation is unsteady, or near what is hard. It knows only errors
that are common: a bleed that is calmly painted over raises it too little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import ndimage, optimize, stats
from torch import Tensor

from ..cyclegan.model import Translator
from ..units import Scale, other_modality
from .checked_inputs import check_shapes, check_unit, checked_mask, checked_numbers
from .metrics import BONE_ABOVE_HU

__all__ = [
    "UncertaintyMap",
    "auc",
    "cycle_residual",
    "disagreement",
    "moved_copies",
    "near_skull",
    "risk_coverage",
    "uncertainty_signs",
]

# With 16 copies the AUC rises by 0.005, for twice the time.
MOVES = 8
FURTHEST_PX = 2

# The noise's standard deviation; the network's range is 2 wide.
NOISE = 0.02

# The name of the constant among the coefficients of a map.
CONSTANT = "constant"


def moved_copies(images: Tensor, seed: int) -> Iterator[tuple[Tensor, Callable[[Tensor], Tensor]]]:
    """Slightly moved copies of the images, MOVES times.

    Every second copy is mirrored, all are shifted by up to 2 whole pixels and get a little Gaussian
    noise. What leaves at one edge enters at the other: the pixels stay the same, and so does what
    instance norm makes of them.

    Args:
        images: (N, C, H, W).
        seed: of shifts and noise.

    Yields:
        A copy, and the function that moves what was made of it back.
    """
    generator = torch.Generator().manual_seed(seed)
    for k in range(MOVES):
        shift = torch.randint(-FURTHEST_PX, FURTHEST_PX + 1, (2,), generator=generator).tolist()
        noise = NOISE * torch.randn(images.shape, generator=generator).to(images)
        mirrored = k % 2 == 1

        copy = images.flip(-1) if mirrored else images
        yield copy.roll(shift, (-2, -1)) + noise, partial(moved_back, shift, mirrored)


def moved_back(shift: list[int], mirrored: bool, images: Tensor) -> Tensor:
    """Undo the shift and the mirroring of `moved_copies`."""
    images = images.roll([-pixels for pixels in shift], (-2, -1))
    return images.flip(-1) if mirrored else images


def disagreement(
    models: Sequence[Translator], images: Tensor, to: str, scale: Scale, seed: int
) -> np.ndarray:
    """Standard deviation of the translation between models and moved copies.

    Args:
        models: one, or several trained with other seeds.
        images: (N, C, H, W) in [-1, 1].
        to: "ct" or "mri", what is translated into.
        scale: turns translations into physical values.
        seed: of the moved copies.

    Returns:
        (N, H, W) in the scale's unit, HU for CT.

    Raises:
        ValueError: there is no model.

    Source: Wang et al. 2019 (arXiv 1807.07356) for moves, Lakshminarayanan et al. 2017 (1612.01474)
    for seeds.
    """
    if not models:
        raise ValueError(
            "disagreement needs at least one model, got none: pass one model, or several of one "
            "task"
        )

    translations = []
    for model in models:
        for moved, move_back in moved_copies(images, seed):
            translation = scale.from_network(move_back(model.translate(moved, to)))
            translations.append(translation[:, 0].cpu().numpy())
    return np.std(translations, axis=0)


def cycle_residual(model: Translator, images: Tensor, to: str, seed: int) -> np.ndarray:
    """|round trip - image|, averaged over channels and moved copies.

    It is small, too, where a network hides what it needs for the way back (Chu et al. 2017).

    Args:
        model: translates both ways.
        images: (N, C, H, W) in [-1, 1].
        to: "ct" or "mri", where the round trip turns.
        seed: of the moved copies.

    Returns:
        (N, H, W) in network units.
    """
    residuals = []
    for moved, move_back in moved_copies(images, seed):
        cycled = model.translate(model.translate(moved, to), other_modality(to))
        residuals.append(move_back((cycled - moved).abs()))
    return torch.stack(residuals).mean(dim=(0, 2)).cpu().numpy()


def near_skull(ct_hu: ArrayLike) -> np.ndarray:
    """exp(-d), with d the distance in pixels to the nearest bone of the slice (> 250 HU).

    Args:
        ct_hu: slices (N, H, W) in HU.

    Returns:
        1 in bone, 0 far away or in a slice without any, (N, H, W).

    Raises:
        ValueError: the shape is another.
    """
    bones = checked_numbers(ct_hu, "CT") > BONE_ABOVE_HU
    if bones.ndim != 3:
        raise ValueError(
            f"the distance to the skull is taken in slices (N, H, W), got {bones.shape}: pass a "
            "stack of them"
        )

    nearness = np.zeros(bones.shape)
    for i, bone in enumerate(bones):
        if bone.any():
            nearness[i] = np.exp(-ndimage.distance_transform_edt(~bone))
    return nearness


def uncertainty_signs(
    models: Sequence[Translator], mri: Tensor, ct_scale: Scale, seed: int
) -> dict[str, np.ndarray]:
    """Three signs that an MR's translation into CT may be wrong.

    Nearness to the skull is a rival that needs no model of uncertainty: on the phantom it finds
    large errors about as well as disagreement does, and the two together better.

    Args:
        models: one, or several trained with other seeds. Round trip and skull are the first one's.
        mri: (N, C, H, W) in [-1, 1].
        ct_scale: of the models' CT, in HU.
        seed: of the moved copies.

    Returns:
        "disagreement" in HU, "cycle residual" in network units and "near the skull", (N, H, W)
        each.

    Raises:
        ValueError: there is no model, or ct_scale is not in HU.
    """
    check_unit(ct_scale)
    signs = {
        "disagreement": disagreement(models, mri, "ct", ct_scale, seed),
        "cycle residual": cycle_residual(models[0], mri, "ct", seed),
    }

    fake_ct = models[0].translate(mri, "ct")
    signs["near the skull"] = near_skull(ct_scale.from_network(fake_ct)[:, 0].cpu())
    return signs


@dataclass(frozen=True)
class UncertaintyMap:
    """A calibrated map of the absolute error to expect.

    It is a sum of signs, each times a coefficient >= 0, and a constant.
    """

    coefficients: dict[str, float]

    @classmethod
    def calibrated(
        cls, signs: dict[str, np.ndarray], error: ArrayLike, mask: ArrayLike
    ) -> UncertaintyMap:
        """Fit |error| by the signs inside the mask with non-negative least squares.

        Use patients that neither the model nor the test knows. The result holds on average, and for
        patients and pixels like these only.

        Args:
            signs: name -> (N, H, W).
            error: prediction minus truth, (N, H, W).
            mask: (N, H, W), > 0 counts.

        Returns:
            The map.

        Raises:
            ValueError: the shapes differ or the mask is empty.

        Source: Lawson & Hanson 1974, chapter 23.
        """
        mask = checked_mask(mask)
        error = checked_numbers(error, "error")
        columns = {CONSTANT: np.ones(mask.shape)}
        for name, sign in signs.items():
            columns[name] = checked_numbers(sign, name)
        check_shapes(mask, error=error, **columns)

        design = np.stack([column[mask] for column in columns.values()], axis=1)
        coefficients, _ = optimize.nnls(design, np.abs(error[mask]))
        return cls(dict(zip(columns, coefficients.tolist(), strict=True)))

    def __call__(self, signs: dict[str, np.ndarray]) -> np.ndarray:
        """The expected absolute error, in the unit of the errors it was calibrated on.

        Args:
            signs: name -> (N, H, W), the same names as in calibration.

        Returns:
            (N, H, W).

        Raises:
            ValueError: the signs are others.
        """
        names = [name for name in self.coefficients if name != CONSTANT]
        if signs.keys() != set(names):
            raise ValueError(
                f"calibrated on {', '.join(names)}, not on {', '.join(signs) or 'nothing'}: give "
                "the same signs"
            )

        weighted = [
            self.coefficients[name] * checked_numbers(sign, name) for name, sign in signs.items()
        ]
        return self.coefficients[CONSTANT] + sum(weighted)


def auc(uncertainty: ArrayLike, error: ArrayLike, mask: ArrayLike, above_hu: float) -> float:
    """Area under the ROC curve of finding large errors by their uncertainty.

    It is the probability that a pixel with a large error is more uncertain than one without, ties
    counting half.

    Args:
        uncertainty: (H, W) or (N, H, W).
        error: prediction minus truth, same shape.
        mask: same shape, > 0 counts.
        above_hu: an |error| above this is large.

    Returns:
        1 if all large errors come first, 0.5 by chance.

    Raises:
        ValueError: the shapes differ, or no pixel or every pixel is above.

    Source: Hanley & McNeil 1982.
    """
    uncertainty, error = values_inside(uncertainty, error, mask)
    large = error > above_hu
    if large.all() or not large.any():
        raise ValueError(
            f"{int(large.sum())} of {large.size} pixels have an error above {above_hu:g} HU, and "
            "finding them needs some and some not: choose another limit, errors reach from "
            f"{error.min():.3g} to {error.max():.3g}"
        )

    # AUC = (mean rank of the large errors - the least it can be) / number of the other errors.
    ranks = stats.rankdata(uncertainty)
    count = int(large.sum())
    least_mean_rank = (count + 1) / 2
    return float((ranks[large].mean() - least_mean_rank) / (large.size - count))


def risk_coverage(
    uncertainty: ArrayLike,
    error: ArrayLike,
    mask: ArrayLike,
    coverages: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
) -> np.ndarray:
    """Mean |error| of the most trusted share of the mask's pixels.

    Where pixels of one uncertainty are only partly covered, their mean counts. The error as its own
    uncertainty gives the best curve there can be.

    Args:
        uncertainty: (H, W) or (N, H, W).
        error: prediction minus truth, same shape.
        mask: same shape, > 0 counts.
        coverages: shares in (0, 1]. At 1 the result is the mean of all.

    Returns:
        One error for each coverage.

    Raises:
        ValueError: the shapes differ, the mask is empty, or a coverage is no such share.

    Source: Geifman & El-Yaniv 2017 (arXiv 1705.08500).
    """
    uncertainty, error = values_inside(uncertainty, error, mask)
    if not all(0 < coverage <= 1 for coverage in coverages):
        raise ValueError(
            f"a coverage is a share of the pixels above 0 and at most 1, got {tuple(coverages)}"
        )

    # Every pixel counts with the mean error of all pixels that are equally uncertain.
    _, level = np.unique(uncertainty, return_inverse=True)
    error_of_level = np.bincount(level, error) / np.bincount(level)
    errors_by_trust = error_of_level[np.sort(level)]

    counts = [max(1, round(coverage * len(errors_by_trust))) for coverage in coverages]
    sums = np.cumsum(errors_by_trust)
    return sums[np.array(counts) - 1] / counts


def values_inside(
    uncertainty: ArrayLike, error: ArrayLike, mask: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Uncertainty and |error| of the mask's pixels, (K,) each."""
    uncertainty = checked_numbers(uncertainty, "uncertainty")
    error = checked_numbers(error, "error")
    mask = checked_mask(mask)
    check_shapes(mask, uncertainty=uncertainty, error=error)
    return uncertainty[mask], np.abs(error[mask])

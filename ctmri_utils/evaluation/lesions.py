"""Lesions that a translation lost or invented: their contrast, and a fixed detector of bleeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from .checked_inputs import check_one_slice, checked_hu_image, checked_numbers

# The settings of the fixed detector. Fresh blood is 60 to 90 HU, grey matter below 45.
LESION_ABOVE_HU = 55.0
LESION_BLUR_PX = 0.7
LESION_SMALLEST_PX = 6

# The erosion keeps the blurred edge of the skull out of the brain.
BRAIN_EROSION_PX = 3

# With less contrast, a recovery would divide by noise.
LEAST_CONTRAST_HU = 1.0


class Rates(NamedTuple):
    """Share of the patients with a lesion that are called (tpr), and of those without (fpr)."""

    tpr: float
    fpr: float


def lesion_contrast_hu(ct_hu: ArrayLike, lesion: ArrayLike, reference: ArrayLike) -> float:
    """Median HU of the lesion minus median HU of a reference tissue.

    Args:
        ct_hu: predicted or true CT in HU, (H, W) or (Z, H, W).
        lesion: mask of the same shape, > 0 counts.
        reference: mask of the same shape, usually of white matter.

    Returns:
        The contrast in HU, negative for a dark lesion.
    """
    ct_hu, lesion = checked_hu_image(ct_hu, lesion)
    _, reference = checked_hu_image(ct_hu, reference)
    return float(np.median(ct_hu[lesion]) - np.median(ct_hu[reference]))


def lesion_contrast_recovery(
    pred_hu: ArrayLike, true_hu: ArrayLike, lesion: ArrayLike, white_matter: ArrayLike
) -> float:
    """Contrast of the lesion to white matter in the prediction over that in the true CT.

    Args:
        pred_hu: predicted CT in HU, (H, W) or (Z, H, W).
        true_hu: true CT in HU, same shape.
        lesion: mask of the same shape, > 0 counts.
        white_matter: mask of the same shape.

    Returns:
        1 if the contrast is kept, 0 if it is erased, below 0 if it is inverted.

    Raises:
        ValueError: the true contrast is below 1 HU.

    Source: after Cohen et al. 2018 (arXiv 1805.08841).
    """
    true_contrast = lesion_contrast_hu(true_hu, lesion, white_matter)
    if abs(true_contrast) < LEAST_CONTRAST_HU:
        raise ValueError(
            f"the lesion's contrast to white matter in the true CT is {true_contrast:.2g} HU, so "
            "there is none to recover: leave this patient out"
        )
    return lesion_contrast_hu(pred_hu, lesion, white_matter) / true_contrast


def detects_lesion(ct_hu: ArrayLike, brain: ArrayLike) -> bool:
    """Whether a fixed detector calls a bleed.

    It calls 6 connected pixels above 55 HU, after a blur of 0.7 pixels, 3 pixels inside the brain.
    Sizes are in pixels of about 3.4 mm (a phantom at 64 x 64).

    Args:
        ct_hu: one slice (H, W) in HU.
        brain: mask of everything within the skull, same shape.

    Returns:
        True for a bleed.

    Raises:
        ValueError: nothing of the brain lies so far inside, so "no bleed" would be no finding.
    """
    ct_hu, brain = checked_hu_image(ct_hu, brain)
    check_one_slice(brain)

    inside = ndimage.binary_erosion(brain, iterations=BRAIN_EROSION_PX)
    if inside.sum() < LESION_SMALLEST_PX:
        raise ValueError(
            f"of the brain's {int(brain.sum())} pixels only {int(inside.sum())} lie "
            f"{BRAIN_EROSION_PX} from its edge, too few for a bleed of {LESION_SMALLEST_PX}: "
            "leave this slice out"
        )

    bright = (ndimage.gaussian_filter(ct_hu, LESION_BLUR_PX) > LESION_ABOVE_HU) & inside
    blobs, count = ndimage.label(bright, np.ones((3, 3)))
    if count == 0:
        return False
    sizes = np.bincount(blobs.ravel())[1:]
    return int(sizes.max()) >= LESION_SMALLEST_PX


def detection_rates(called: Sequence[bool], present: Sequence[bool]) -> Rates:
    """True and false positive rate of a detector.

    Args:
        called: what `detects_lesion` said, one entry per patient.
        present: whether there is a lesion, one entry per patient.

    Returns:
        Both rates, 0 to 1.

    Raises:
        ValueError: the lengths differ, or not both kinds of patients are present.
    """
    called = checked_numbers(called, "list of calls") > 0
    present = checked_numbers(present, "list of lesions") > 0
    if called.shape != present.shape or present.all() or not present.any():
        raise ValueError(
            "detection rates need patients with and without a lesion and one call for each, got "
            f"{called.size} calls and {int(present.sum())} lesions in {present.size} patients"
        )
    return Rates(float(called[present].mean()), float(called[~present].mean()))

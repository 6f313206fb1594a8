"""Checks of what the metrics are given, one helper for each kind of input.

A helper named `checked_...` returns arrays that a formula can use as they are. All raise ValueError
with one sentence that says what is wrong and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..units import HU, Scale

# Most of a CT inside its mask lies within this range.
PLAUSIBLE_HU = (-1024.0, 3000.0)
AIR_BELOW_HU = -200.0

# No head has such a median, but soft tissue stored with an offset of 1024 does.
DENSE_HEAD_HU = 700.0

# Shares of a range: an image that lies mostly further out was scaled otherwise, and so was a truth
# that varies less.
RANGE_MARGIN = 0.1
RANGE_USED = 0.02

# With fewer resamples than 40, no whole one lies in each 2.5 % tail.
FEWEST_RESAMPLES = 40


def checked_numbers(values: ArrayLike, name: str) -> np.ndarray:
    """The values as a float64 array; ValueError unless all are real and finite."""
    try:
        if np.iscomplexobj(values) or np.ma.is_masked(values):
            raise TypeError("it is complex or masked")
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        # A tensor with gradients raises RuntimeError.
        raise ValueError(
            f"the {name} is not an array of real numbers ({error}): pass a NumPy array or a CPU "
            "tensor without gradients"
        ) from error

    finite = np.isfinite(array)
    if not finite.all():
        raise ValueError(
            f"the {name} holds {int((~finite).sum())} NaN or infinite values: correct it "
            "before scoring"
        )
    return array


def checked_mask(mask: ArrayLike) -> np.ndarray:
    """The mask as a bool array, true where it is > 0; ValueError if it holds NaN."""
    return checked_numbers(mask, "mask") > 0


def checked_range(value_range: Sequence[float]) -> tuple[float, float]:
    """(low, high) as two floats; ValueError unless they are finite and low < high."""
    try:
        low, high = (float(edge) for edge in value_range)
    except (TypeError, ValueError):
        low = high = float("nan")

    if not -np.inf < low < high < np.inf:
        raise ValueError(
            f"value_range must be two finite numbers, low < high, got {value_range}: pass the "
            "range of the images, such as SYNTHRAD2023_RANGE for CT"
        )
    return low, high


def checked_spacing(spacing_mm: float | Sequence[float], axes: int) -> tuple[float, ...]:
    """One pixel spacing in mm for every axis, from one number or a sequence."""
    try:
        spacing = np.broadcast_to(np.asarray(spacing_mm, dtype=np.float64), (axes,)).tolist()
    except (TypeError, ValueError):
        spacing = []

    if not spacing or not all(0 < length < np.inf for length in spacing):
        raise ValueError(
            f"spacing_mm must be one positive number in mm or {axes} of them, got {spacing_mm}: "
            "distances cannot be scored without the pixel size"
        )
    return tuple(spacing)


def checked_pair(
    pred: ArrayLike, true: ArrayLike, mask: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The inputs of a paired metric as float64, float64 and bool arrays of one shape.

    Args:
        pred: the predicted image in any unit, (H, W) or (Z, H, W).
        true: the true image, same shape.
        mask: same shape, > 0 counts.

    Returns:
        Prediction, truth and mask.

    Raises:
        ValueError: the shapes differ, the mask is empty, or a value is not finite.
    """
    pred = checked_numbers(pred, "prediction")
    true = checked_numbers(true, "truth")
    mask = checked_mask(mask)
    check_shapes(mask, prediction=pred, truth=true)
    return pred, true, mask


def checked_pair_in_range(
    pred: ArrayLike, true: ArrayLike, mask: ArrayLike, value_range: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, float]:
    """`checked_pair` for images that must be in a range (low, high), and its two ends."""
    low, high = checked_range(value_range)
    pred, true, mask = checked_pair(pred, true, mask)
    check_inside_range("truth", true[mask], low, high)

    # A range that reaches down to air means HU. A predicted CT that was cut to a narrow window may
    # be scored: it fails visibly.
    if low <= AIR_BELOW_HU:
        check_hu("prediction", pred, mask, brightest=200)
        check_hu("truth", true, mask, brightest=0)
        return pred, true, mask, low, high

    check_inside_range("prediction", pred[mask], low, high)
    if 0 < np.ptp(true) < RANGE_USED * (high - low):
        raise ValueError(
            f"the truth spans {true.min():.4g} to {true.max():.4g}, a tiny part of {low:g} "
            f"to {high:g}, which makes every score perfect: pass the range of the images"
        )
    return pred, true, mask, low, high


def checked_hu_pair(
    pred_hu: ArrayLike, true_hu: ArrayLike, mask: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`checked_pair` for two CTs, which must be in HU."""
    return checked_pair_in_range(pred_hu, true_hu, mask, PLAUSIBLE_HU)[:3]


def checked_image(image: ArrayLike, mask: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """One image in any unit and its mask as float64 and bool arrays of one shape."""
    image = checked_numbers(image, "image")
    mask = checked_mask(mask)
    check_shapes(mask, image=image)
    return image, mask


def checked_hu_image(ct_hu: ArrayLike, mask: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """`checked_image` for a CT, predicted or true, which must be in HU."""
    ct_hu, mask = checked_image(ct_hu, mask)
    check_hu("image", ct_hu, mask, brightest=200)
    return ct_hu, mask


def check_shapes(mask: np.ndarray, **images: np.ndarray) -> None:
    """Raise ValueError unless all images have the mask's shape and the mask is not empty."""
    if any(image.shape != mask.shape for image in images.values()) or mask.ndim not in (2, 3):
        shapes = ", ".join(f"{name} {image.shape}" for name, image in images.items())
        raise ValueError(
            f"{shapes} and mask {mask.shape} must share one shape, (H, W) or (Z, H, W)"
        )
    if not mask.any():
        raise ValueError(
            f"the mask {mask.shape} is empty: a metric needs pixels to average over, so leave this "
            "slice out"
        )


def check_one_slice(image: np.ndarray) -> None:
    """Raise ValueError for a volume."""
    if image.ndim != 2:
        raise ValueError(
            f"this measure takes one slice (H, W), got {image.shape}: call it slice by slice"
        )


def check_inside_range(name: str, inside: np.ndarray, low: float, high: float) -> None:
    """Raise ValueError if most of the values inside the mask lie far outside the range."""
    margin = RANGE_MARGIN * (high - low)
    outside = np.mean((inside < low - margin) | (inside > high + margin))

    if outside > 0.5:
        raise ValueError(
            f"{outside:.0%} of the {name} inside the mask lies well outside {low:g} to {high:g} "
            f"(it spans {inside.min():.4g} to {inside.max():.4g}): scale prediction and truth "
            "alike, and pass the range of the images"
        )


def check_hu(name: str, ct_hu: np.ndarray, mask: np.ndarray, brightest: float) -> None:
    """Check that a CT can be in HU.

    Args:
        name: what the error calls the image.
        ct_hu: any shape; a constant image passes.
        mask: bool, same shape.
        brightest: an image without negative values and without air may not exceed this.

    Raises:
        ValueError: the image is in a network's range, or shows no air and is too bright for HU.
    """
    low, high = ct_hu.min(), ct_hu.max()
    if -2 <= low < high <= 4:
        raise ValueError(
            f"the {name} spans {low:.4g} to {high:.4g}, which cannot be HU because air is near "
            "-1000: undo its normalisation"
        )

    airless = AIR_BELOW_HU < low < high
    if not airless:
        return

    too_bright = low >= 0 and high > brightest
    if too_bright or np.median(ct_hu[mask]) > DENSE_HEAD_HU:
        raise ValueError(
            f"the {name} spans {low:.4g} to {high:.4g} and shows no air, so it cannot be a whole "
            "slice in HU: undo its 8-bit scaling or its offset of 1024, or score the whole slice "
            "with the crop as its mask"
        )


def check_unit(ct_scale: Scale) -> None:
    """Raise ValueError unless the scale's CT is in HU."""
    if ct_scale.unit != HU.unit:
        raise ValueError(
            f"this set's CT is in {ct_scale.unit}, which cannot be converted to HU: evaluate on a "
            "set in HU, such as the phantom"
        )


def check_resamples(resamples: int) -> None:
    """Raise ValueError for a bootstrap too short for a 95 % interval."""
    if resamples < FEWEST_RESAMPLES:
        raise ValueError(
            f"a 95 % bootstrap interval needs at least {FEWEST_RESAMPLES} resamples, got "
            f"{resamples}"
        )

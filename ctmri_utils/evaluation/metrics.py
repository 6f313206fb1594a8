"""Paired image metrics: SynthRAD's MAE, PSNR, SSIM and MS-SSIM, and errors tissue by tissue.

Images are anything that `np.asarray` takes, one slice (H, W) or one volume (Z, H, W), in HU for CT
and in the units of `value_range` for MR. The mask has the same shape, and > 0 counts.

Mask and range have no default, because a default could flatter: air outside the head alone makes an
MAE 2.5 times smaller.

All metrics raise ValueError for shapes that differ, an empty mask, values that are not finite, a
range without width, and images that cannot be in the stated unit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage, stats
from skimage.metrics import structural_similarity

from .checked_inputs import (
    AIR_BELOW_HU,
    checked_hu_pair,
    checked_pair,
    checked_pair_in_range,
)

__all__ = [
    "SYNTHRAD2023_RANGE",
    "SYNTHRAD2025_RANGE",
    "bias_hu",
    "bone_dice",
    "mae_hu",
    "ms_ssim",
    "nmae",
    "psnr_db",
    "rank_correlation",
    "ssim",
    "tissue_bias_hu",
    "tissue_mae_hu",
]

# The peak of PSNR is 4024 HU in the challenge of 2023, and 4095 HU in the evaluation container of
# 2025 since 2025-05-12.
SYNTHRAD2023_RANGE = (-1024.0, 3000.0)
SYNTHRAD2025_RANGE = (-1024.0, 3071.0)

BONE_ABOVE_HU = 250.0

# Pixels per side of a window. Windows are uniform and use the sample covariance.
SSIM_WINDOW = 7

# The finest scale comes first (Wang et al. 2003).
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

# The coarsest scale must hold one window, so shorter axes are padded to this many pixels.
MS_SSIM_SMALLEST = 97


def mae_hu(pred_hu: ArrayLike, true_hu: ArrayLike, mask: ArrayLike) -> float:
    """Mean absolute error in HU over the mask, without clipping.

    Args:
        pred_hu: predicted CT in HU, (H, W) or (Z, H, W).
        true_hu: true CT in HU, same shape.
        mask: same shape, > 0 counts.

    Returns:
        An error >= 0 in HU.

    Source: SynthRAD2023 and SynthRAD2025.

    Example:
        >>> from ctmri_utils import mae_hu, synthetic_patients
        >>> patient = synthetic_patients(1, seed=2026)
        >>> true_hu, head = patient.ct_hu[0], patient.head[0]
        >>> round(mae_hu(true_hu + 20, true_hu, head), 3)
        20.0
    """
    pred_hu, true_hu, mask = checked_hu_pair(pred_hu, true_hu, mask)
    return float(np.abs(pred_hu - true_hu)[mask].mean())


def bias_hu(pred_hu: ArrayLike, true_hu: ArrayLike, mask: ArrayLike) -> float:
    """Mean signed error in HU over the mask; arguments as in `mae_hu`.

    Returns:
        The bias in HU, positive when the prediction is too dense.
    """
    pred_hu, true_hu, mask = checked_hu_pair(pred_hu, true_hu, mask)
    return float((pred_hu - true_hu)[mask].mean())


def psnr_db(
    pred: ArrayLike, true: ArrayLike, mask: ArrayLike, value_range: tuple[float, float]
) -> float:
    """Peak signal-to-noise ratio over the mask, 10 log10(width² / mean squared error).

    Args:
        pred: predicted image, (H, W) or (Z, H, W).
        true: true image, same shape.
        mask: same shape, > 0 counts.
        value_range: (low, high). Both images are clipped to it and its width is the peak, so state
            it next to the number. For CT `SYNTHRAD2023_RANGE` or `SYNTHRAD2025_RANGE`, for MR the
            range of its normalisation.

    Returns:
        The ratio in dB, inf for a perfect prediction.

    Source: SynthRAD2023 and SynthRAD2025.

    Example:
        >>> from ctmri_utils import psnr_db, synthetic_patients
        >>> patient = synthetic_patients(1, seed=2026)
        >>> true_hu, head = patient.ct_hu[0], patient.head[0]
        >>> round(psnr_db(true_hu + 20, true_hu, head, (-1024, 3000)), 1)
        46.1
    """
    pred, true, mask, low, high = checked_pair_in_range(pred, true, mask, value_range)
    squared_error = np.square(pred.clip(low, high) - true.clip(low, high))[mask].mean()
    if squared_error == 0:
        return float("inf")
    return float(10 * np.log10((high - low) ** 2 / squared_error))


def ssim(
    pred: ArrayLike, true: ArrayLike, mask: ArrayLike, value_range: tuple[float, float]
) -> float:
    """Structural similarity over the mask, in 7 x 7 windows (7 x 7 x 7 for a volume).

    Both images are clipped to value_range and set to its low end outside the mask. K1 = 0.01, K2 =
    0.03, sample covariance. The map loses 3 pixels at every border before its mean over the mask.

    Args:
        pred: predicted image, (H, W) or (Z, H, W).
        true: true image, same shape.
        mask: same shape, > 0 counts.
        value_range: (low, high), as in `psnr_db`.

    Returns:
        The similarity, at most 1.

    Raises:
        ValueError: an axis is shorter than 7, or the mask has no pixel 3 from the border.

    Source: SynthRAD2023 metrics as of 2023-07-14. Values published earlier ignored the mask.

    Example:
        >>> from ctmri_utils import ssim, synthetic_patients
        >>> patient = synthetic_patients(1, seed=2026)
        >>> clean_hu = patient.ct_hu_clean[0]  # without the scanner's noise
        >>> round(ssim(patient.ct_hu[0], clean_hu, patient.head[0], (-1024, 3000)), 3)
        0.999
    """
    pred, true, mask, width = masked_from_zero(pred, true, mask, value_range)
    if min(mask.shape) < SSIM_WINDOW:
        raise ValueError(
            f"SSIM needs {SSIM_WINDOW} pixels along every axis, got {mask.shape}: pass single "
            "slices (H, W) one by one"
        )

    _, similarity = structural_similarity(
        true, pred, win_size=SSIM_WINDOW, data_range=width, full=True
    )
    return float(similarity[without_border(mask)].mean())


def ms_ssim(
    pred: ArrayLike, true: ArrayLike, mask: ArrayLike, value_range: tuple[float, float]
) -> float:
    """Multi-scale SSIM over the mask, the product over five scales of L^w C^w S^w.

    Other libraries give other numbers. Here, as in SynthRAD2025, luminance counts at every scale
    (in Wang et al. 2003 only at the coarsest), each term is cut at 0, short axes are padded to 97
    pixels with their edge values, and the halving averages 2 pixels per axis with zeros beyond the
    border. The challenge scores volumes; slices get the same formula with 7 x 7 windows.

    Args:
        pred: predicted image, (H, W) or (Z, H, W).
        true: true image, same shape.
        mask: same shape, > 0 counts.
        value_range: (low, high), as in `psnr_db`.

    Returns:
        The similarity, 0 to 1.

    Source: SynthRAD2025/evaluation, image_metrics.py.
    """
    pred, true, mask, width = masked_from_zero(pred, true, mask, value_range)
    pred, true, mask = padded(pred), padded(true), padded(mask)

    product = 1.0
    for weight in MS_SSIM_WEIGHTS:
        similarity = ssim_terms(true, pred, width, without_border(mask)) ** weight
        product *= np.clip(similarity.mean(), 0, 1)

        pred, true = halved(pred), halved(true)
        mask = every_second(mask)
    return float(product)


def ssim_terms(x: np.ndarray, y: np.ndarray, width: float, inside: np.ndarray) -> np.ndarray:
    """Luminance x contrast x structure at every pixel of a mask, each term cut at 0.

    Args:
        x: float image, (H, W) or (Z, H, W).
        y: same shape.
        width: of the range of both images.
        inside: bool, same shape, with K pixels.

    Returns:
        The similarity of the window around each of these pixels, (K,).

    Source: Wang et al. 2003, eq. 1-3.
    """

    def average(image: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(image, SSIM_WINDOW)[inside]

    n = SSIM_WINDOW**x.ndim
    unbiased = n / (n - 1)

    mean_x = average(x)
    mean_y = average(y)
    var_x = np.maximum(unbiased * (average(x * x) - mean_x * mean_x), 0)
    var_y = np.maximum(unbiased * (average(y * y) - mean_y * mean_y), 0)
    covariance = unbiased * (average(x * y) - mean_x * mean_y)
    spread = np.sqrt(var_x * var_y)

    c1 = (0.01 * width) ** 2
    c2 = (0.03 * width) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    contrast = (2 * spread + c2) / (var_x + var_y + c2)
    structure = (covariance + c2 / 2) / (spread + c2 / 2)
    return luminance.clip(0) * contrast.clip(0) * structure.clip(0)


def tissue_mae_hu(pred_hu: ArrayLike, true_hu: ArrayLike, mask: ArrayLike, tissue: str) -> float:
    """Mean absolute error in HU of one tissue inside the mask, classified by the true CT.

    Args:
        pred_hu: predicted CT in HU, (H, W) or (Z, H, W).
        true_hu: true CT in HU, same shape. Air is below -200 HU, bone above 250 HU.
        mask: same shape, > 0 counts.
        tissue: "air", "soft" or "bone".

    Returns:
        An error >= 0, NaN where the true CT has no such tissue.
    """
    return mean_or_nan(np.abs(errors_in_tissue(pred_hu, true_hu, mask, tissue)))


def tissue_bias_hu(pred_hu: ArrayLike, true_hu: ArrayLike, mask: ArrayLike, tissue: str) -> float:
    """Mean signed error in HU of one tissue; arguments and NaN as in `tissue_mae_hu`."""
    return mean_or_nan(errors_in_tissue(pred_hu, true_hu, mask, tissue))


def errors_in_tissue(
    pred_hu: ArrayLike, true_hu: ArrayLike, mask: ArrayLike, tissue: str
) -> np.ndarray:
    """Prediction minus truth, (K,), of the pixels in the mask that are this tissue."""
    pred_hu, true_hu, mask = checked_hu_pair(pred_hu, true_hu, mask)
    air = true_hu < AIR_BELOW_HU
    bone = true_hu > BONE_ABOVE_HU
    tissues = {"air": air, "soft": ~air & ~bone, "bone": bone}
    return (pred_hu - true_hu)[tissues[tissue] & mask]


def bone_dice(pred_hu: ArrayLike, true_hu: ArrayLike, mask: ArrayLike) -> float:
    """Dice overlap of the bone, the voxels above 250 HU inside the mask.

    Args:
        pred_hu: predicted CT in HU, (H, W) or (Z, H, W).
        true_hu: true CT in HU, same shape.
        mask: same shape, > 0 counts.

    Returns:
        The overlap, 0 to 1, NaN where neither image has bone.

    Example:
        >>> from ctmri_utils import bone_dice, synthetic_patients
        >>> patient = synthetic_patients(1, seed=2026)
        >>> clean_hu = patient.ct_hu_clean[0]  # without the scanner's noise
        >>> round(bone_dice(patient.ct_hu[0], clean_hu, patient.head[0]), 3)
        0.993
    """
    pred_hu, true_hu, mask = checked_hu_pair(pred_hu, true_hu, mask)
    return dice((pred_hu > BONE_ABOVE_HU) & mask, (true_hu > BONE_ABOVE_HU) & mask)


def dice(mask_a: np.ndarray, mask_b: np.ndarray) -> float:
    """2 |A and B| / (|A| + |B|) of two bool arrays of one shape; NaN if both are empty."""
    total = mask_a.sum() + mask_b.sum()
    if total == 0:
        return float("nan")
    return float(2 * (mask_a & mask_b).sum() / total)


def nmae(
    pred_mri: ArrayLike, true_mri: ArrayLike, mask: ArrayLike, value_range: tuple[float, float]
) -> float:
    """Mean absolute error of an MR image over the mask, as a share of the range.

    Args:
        pred_mri: predicted MR, (H, W) or (Z, H, W).
        true_mri: true MR, same shape.
        mask: same shape, > 0 counts.
        value_range: (low, high). MR has no unit: this is the interval that both images were
            normalised to, per volume, in training and here alike.

    Returns:
        An error >= 0, 1 for the whole width of the range.
    """
    pred, true, mask, low, high = checked_pair_in_range(pred_mri, true_mri, mask, value_range)
    return float(np.abs(pred - true)[mask].mean() / (high - low))


def rank_correlation(pred_mri: ArrayLike, true_mri: ArrayLike, mask: ArrayLike) -> float:
    """Spearman's rank correlation over the mask, the same for any monotone rescaling of MR.

    Args:
        pred_mri: predicted MR in any unit, (H, W) or (Z, H, W).
        true_mri: true MR in any unit, same shape.
        mask: same shape, > 0 counts.

    Returns:
        The correlation, -1 to 1, NaN if an image is constant inside the mask.
    """
    pred_mri, true_mri, mask = checked_pair(pred_mri, true_mri, mask)
    if np.ptp(pred_mri[mask]) == 0 or np.ptp(true_mri[mask]) == 0:
        return float("nan")
    return float(stats.spearmanr(pred_mri[mask], true_mri[mask]).statistic)


def mean_or_nan(values: np.ndarray) -> float:
    """The mean, or NaN of no values and of inf and -inf together."""
    if len(values) == 0:
        return float("nan")
    with np.errstate(invalid="ignore"):
        return float(values.mean())


def masked_from_zero(
    pred: ArrayLike, true: ArrayLike, mask: ArrayLike, value_range: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Both images clipped to the range and minus its low end, 0 outside the mask; mask; width."""
    pred, true, mask, low, high = checked_pair_in_range(pred, true, mask, value_range)
    pred = np.where(mask, pred.clip(low, high), low) - low
    true = np.where(mask, true.clip(low, high), low) - low
    return pred, true, mask, high - low


def without_border(mask: np.ndarray) -> np.ndarray:
    """The mask without half a window at every border; ValueError if nothing is left."""
    half = SSIM_WINDOW // 2
    core = (slice(half, -half),) * mask.ndim
    inner = np.pad(mask[core], half)
    if not inner.any():
        raise ValueError(
            f"the mask has {int(mask.sum())} pixels, none of them {half} from the "
            "border: too few for SSIM"
        )
    return inner


def padded(array: np.ndarray) -> np.ndarray:
    """The array with its edge values repeated until no axis is too short for five scales."""
    missing = np.maximum(MS_SSIM_SMALLEST - np.array(array.shape), 0)
    margins = np.stack([missing // 2, missing - missing // 2], axis=1)
    return np.pad(array, margins, mode="edge")


def halved(image: np.ndarray) -> np.ndarray:
    """The image at half its size, each pixel the mean of 2 along every axis."""
    return every_second(ndimage.uniform_filter(image, 2, mode="constant"))


def every_second(array: np.ndarray) -> np.ndarray:
    """Every second value along every axis, from the first one on."""
    return array[(slice(None, None, 2),) * array.ndim]

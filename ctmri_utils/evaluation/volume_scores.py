"""One synthetic CT volume against the true one, by the formulas of SynthRAD 2023 and 2025."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from . import distances, metrics
from .inputs import AIR_BELOW_HU

# Windows of SSIM reach so far beyond a voxel, as does the erosion that finds surfaces.
MARGIN = metrics.SSIM_WINDOW // 2

TISSUE_NAMES = {"air": "air", "soft": "soft-tissue", "bone": "bone"}


def score_volume(
    pred_hu: ArrayLike, true_hu: ArrayLike, mask: ArrayLike, spacing_mm: float | Sequence[float]
) -> dict[str, float]:
    """Every metric of one person, over the whole volume at once.

    Args:
        pred_hu: synthetic CT in HU, (Z, H, W), axial slices.
        true_hu: true CT in HU, same shape.
        mask: same shape, > 0 counts.
        spacing_mm: distances of slices, rows and columns.

    Returns:
        By name; "PSNR dB" and "SSIM" as in 2023, "PSNR 2025 dB" and "MS-SSIM" as in 2025. Bone is
        what lies above 250 HU. NaN where a metric is undefined: for want of a tissue, or where
        volume or mask are too small for the windows of SSIM or MS-SSIM.

    Raises:
        ValueError: as `metrics`.
    """
    images = metrics.checked_hu_pair(pred_hu, true_hu, mask)
    ms_ssim = _or_nan(metrics.ms_ssim, *images, metrics.SYNTHRAD2025_RANGE)

    # All others see the mask and its surroundings only, unless there is no air, by which they know
    # HU: around a tumour, for example.
    box = _box(images[2])
    near = tuple(image[box] for image in images)
    if max(near[0].min(), near[1].min()) >= AIR_BELOW_HU:
        near = images

    scores = {
        "MAE HU": metrics.mae_hu(*near),
        "bias HU": metrics.bias_hu(*near),
        "PSNR dB": metrics.psnr_db(*near, metrics.SYNTHRAD2023_RANGE),
        "SSIM": _or_nan(metrics.ssim, *near, metrics.SYNTHRAD2023_RANGE),
        "PSNR 2025 dB": metrics.psnr_db(*near, metrics.SYNTHRAD2025_RANGE),
        "MS-SSIM": ms_ssim,
    }
    errors = metrics.tissue_errors_hu(*near)
    for tissue, name in TISSUE_NAMES.items():
        scores[f"{name} MAE HU"] = errors[f"{tissue}_mae_hu"]
        scores[f"{name} bias HU"] = errors[f"{tissue}_bias_hu"]
    return scores | {
        "bone Dice": metrics.bone_dice(*near),
        "HD95 mm": distances.bone_hd95_mm(*near, spacing_mm),
        "WEPL mm": distances.wepl_error_mm(*near, spacing_mm),
    }


def _or_nan(similarity: Callable[..., float], *arguments) -> float:
    """A similarity, or NaN where it refuses images that are known to be in order: too small."""
    try:
        return similarity(*arguments)
    except ValueError:
        return float("nan")


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest part of the volume that holds the mask and a margin."""
    [found] = ndimage.find_objects(mask.astype(np.uint8))
    return tuple(
        slice(max(side.start - MARGIN, 0), min(side.stop + MARGIN, length))
        for side, length in zip(found, mask.shape, strict=True)
    )

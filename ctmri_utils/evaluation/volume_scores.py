"""One synthetic CT volume against the true one, by the formulas of SynthRAD 2023 and 2025."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from . import metrics
from .checked_inputs import AIR_BELOW_HU, checked_hu_pair
from .ct_metrics import CT_METRICS, IN_2025, CtMetric

# No local metric looks further from a voxel than the windows of SSIM do.
MARGIN = metrics.SSIM_WINDOW // 2


class VolumeMetric(NamedTuple):
    """A metric of whole volumes, and where `ctmri evaluate` shows it; scores.csv holds all.

    Args:
        formula: as for a slice.
        on_screen: whether it is a column on the screen and on the page.
        challenge: its name in metrics.json, "" if it does not stand there.
        has_windows: whether it is undefined where volume or mask are too small for its windows.
        is_local: whether it looks no further than `MARGIN` from the mask.
    """

    formula: CtMetric
    on_screen: bool = False
    challenge: str = ""
    has_windows: bool = False
    is_local: bool = True


PSNR_2025 = CtMetric(partial(metrics.psnr_db, **IN_2025), higher_is_better=True)

# What `ctmri evaluate` scores, in the order of its files and tables.
VOLUME_METRICS: dict[str, VolumeMetric] = {
    "MAE HU": VolumeMetric(CT_METRICS["MAE HU"], on_screen=True, challenge="mae"),
    "bias HU": VolumeMetric(CT_METRICS["bias HU"]),
    "PSNR dB": VolumeMetric(CT_METRICS["PSNR dB"], on_screen=True, challenge="psnr_2023"),
    "SSIM": VolumeMetric(CT_METRICS["SSIM"], on_screen=True, challenge="ssim", has_windows=True),
    "PSNR 2025 dB": VolumeMetric(PSNR_2025, on_screen=True, challenge="psnr"),
    "MS-SSIM": VolumeMetric(
        CT_METRICS["MS-SSIM"], on_screen=True, challenge="ms_ssim", has_windows=True, is_local=False
    ),
    "air MAE HU": VolumeMetric(CT_METRICS["air MAE HU"]),
    "air bias HU": VolumeMetric(CtMetric(partial(metrics.tissue_bias_hu, tissue="air"))),
    "soft-tissue MAE HU": VolumeMetric(CT_METRICS["soft-tissue MAE HU"], on_screen=True),
    "soft-tissue bias HU": VolumeMetric(CtMetric(partial(metrics.tissue_bias_hu, tissue="soft"))),
    "bone MAE HU": VolumeMetric(CT_METRICS["bone MAE HU"], on_screen=True),
    "bone bias HU": VolumeMetric(CtMetric(partial(metrics.tissue_bias_hu, tissue="bone"))),
    "bone Dice": VolumeMetric(CT_METRICS["bone Dice"], on_screen=True, challenge="bone_dice"),
    "HD95 mm": VolumeMetric(CT_METRICS["HD95 mm"], on_screen=True, challenge="bone_hd95"),
    "WEPL mm": VolumeMetric(CT_METRICS["WEPL mm"], on_screen=True),
}


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
        By the names of `VOLUME_METRICS`; "PSNR dB" and "SSIM" as in 2023, "PSNR 2025 dB" and
        "MS-SSIM" as in 2025. Bone is what lies above 250 HU. NaN where a metric is undefined: for
        want of a tissue, or where volume or mask are too small for its windows.

    Raises:
        ValueError: the shapes differ, the mask is empty, or the images cannot be in HU.
    """
    images = checked_hu_pair(pred_hu, true_hu, mask)

    # Local metrics get the mask's surroundings only, which is faster. A box without air, as around
    # a tumour, would not pass their check for HU, so it is not cut out.
    pred_hu, true_hu, mask = images
    box = bounding_box(mask)
    box_images = (pred_hu[box], true_hu[box], mask[box])
    if max(pred_hu[box].min(), true_hu[box].min()) >= AIR_BELOW_HU:
        box_images = images

    scores = {}
    for name, metric in VOLUME_METRICS.items():
        try:
            scored = box_images if metric.is_local else images
            scores[name] = metric.formula(*scored, spacing_mm)
        except ValueError:
            # The images are in order, as checked above, so they must be too small for the windows.
            if not metric.has_windows:
                raise
            scores[name] = float("nan")
    return scores


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest part of the volume that holds the mask and a margin."""
    [tight_box] = ndimage.find_objects(mask.astype(np.uint8))
    return tuple(
        slice(max(side.start - MARGIN, 0), min(side.stop + MARGIN, length))
        for side, length in zip(tight_box, mask.shape, strict=True)
    )

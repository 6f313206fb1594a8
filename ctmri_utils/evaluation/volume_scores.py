"""One synthetic CT volume against the true one, by the formulas of SynthRAD 2023 and 2025."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from . import metrics
from .ct_metrics import CT_METRICS, IN_2025, CtMetric
from .inputs import AIR_BELOW_HU

# Windows of SSIM reach so far beyond a voxel, as does the erosion that finds surfaces.
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
"""What `ctmri evaluate` scores, in the order of its files and tables."""


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
        ValueError: as `metrics`.
    """
    images = metrics.checked_hu_pair(pred_hu, true_hu, mask)

    # Most see the mask and its surroundings only, unless there is no air, by which they know HU:
    # around a tumour, for example.
    box = _box(images[2])
    near = tuple(image[box] for image in images)
    if max(near[0].min(), near[1].min()) >= AIR_BELOW_HU:
        near = images

    scores = {}
    for name, metric in VOLUME_METRICS.items():
        try:
            scores[name] = metric.formula(*(near if metric.is_local else images), spacing_mm)
        except ValueError:
            # The images are known to be in order, so they are too small.
            if not metric.has_windows:
                raise
            scores[name] = float("nan")
    return scores


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """The smallest part of the volume that holds the mask and a margin."""
    [found] = ndimage.find_objects(mask.astype(np.uint8))
    return tuple(
        slice(max(side.start - MARGIN, 0), min(side.stop + MARGIN, length))
        for side, length in zip(found, mask.shape, strict=True)
    )

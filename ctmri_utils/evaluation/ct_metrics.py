"""The metrics by which a synthetic CT is scored slice by slice, by the names they have in tables.

Every function takes the predicted and the true CT of one slice in HU, the mask, all (H, W), and the
pixel spacing in mm, whether or not it needs the spacing. `metrics` and `distances` hold the
formulas.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from . import distances, metrics

Metric = Callable[[np.ndarray, np.ndarray, np.ndarray, float], float]


class CtMetric(NamedTuple):
    """A metric of one slice, which is called as its function is.

    Args:
        function: of (pred_hu, true_hu, mask, spacing_mm).
        higher_is_better: False for an error, of which the smallest size is best.
    """

    function: Metric
    higher_is_better: bool = False

    def __call__(
        self, pred_hu: np.ndarray, true_hu: np.ndarray, mask: np.ndarray, spacing_mm: float
    ) -> float:
        return self.function(pred_hu, true_hu, mask, spacing_mm)


def mae(pred_hu, true_hu, mask, spacing_mm) -> float:
    return metrics.mae_hu(pred_hu, true_hu, mask)


def bias(pred_hu, true_hu, mask, spacing_mm) -> float:
    return metrics.bias_hu(pred_hu, true_hu, mask)


def psnr(pred_hu, true_hu, mask, spacing_mm) -> float:
    return metrics.psnr_db(pred_hu, true_hu, mask, metrics.SYNTHRAD2023_RANGE)


def ssim(pred_hu, true_hu, mask, spacing_mm) -> float:
    return metrics.ssim(pred_hu, true_hu, mask, metrics.SYNTHRAD2023_RANGE)


def ms_ssim(pred_hu, true_hu, mask, spacing_mm) -> float:
    return metrics.ms_ssim(pred_hu, true_hu, mask, metrics.SYNTHRAD2025_RANGE)


def air_mae(pred_hu, true_hu, mask, spacing_mm) -> float:
    return metrics.tissue_errors_hu(pred_hu, true_hu, mask)["air_mae_hu"]


def soft_tissue_mae(pred_hu, true_hu, mask, spacing_mm) -> float:
    return metrics.tissue_errors_hu(pred_hu, true_hu, mask)["soft_mae_hu"]


def bone_mae(pred_hu, true_hu, mask, spacing_mm) -> float:
    return metrics.tissue_errors_hu(pred_hu, true_hu, mask)["bone_mae_hu"]


def bone_dice(pred_hu, true_hu, mask, spacing_mm) -> float:
    return metrics.bone_dice(pred_hu, true_hu, mask)


def bone_hd95(pred_hu, true_hu, mask, spacing_mm) -> float:
    return distances.bone_hd95_mm(pred_hu, true_hu, mask, spacing_mm)


def wepl_error(pred_hu, true_hu, mask, spacing_mm) -> float:
    return distances.wepl_error_mm(pred_hu, true_hu, mask, spacing_mm)


CT_METRICS: dict[str, CtMetric] = {
    "MAE HU": CtMetric(mae),
    "bias HU": CtMetric(bias),
    "PSNR dB": CtMetric(psnr, higher_is_better=True),
    "SSIM": CtMetric(ssim, higher_is_better=True),
    "MS-SSIM": CtMetric(ms_ssim, higher_is_better=True),
    "air MAE HU": CtMetric(air_mae),
    "soft-tissue MAE HU": CtMetric(soft_tissue_mae),
    "bone MAE HU": CtMetric(bone_mae),
    "bone Dice": CtMetric(bone_dice, higher_is_better=True),
    "HD95 mm": CtMetric(bone_hd95),
    "WEPL mm": CtMetric(wepl_error),
}
"""What `evaluate` scores by default, and which way each metric points."""

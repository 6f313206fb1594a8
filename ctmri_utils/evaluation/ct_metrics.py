"""The metrics by which a synthetic CT is scored slice by slice, by the names they have in tables.

Every function takes the predicted and the true CT of one slice in HU, the mask, all (H, W), and the
pixel spacing in mm, whether or not it needs the spacing. `metrics` and `distances` hold the
formulas.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import distances, metrics

CtMetric = Callable[[np.ndarray, np.ndarray, np.ndarray, float], float]


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
    "MAE HU": mae,
    "bias HU": bias,
    "PSNR dB": psnr,
    "SSIM": ssim,
    "MS-SSIM": ms_ssim,
    "air MAE HU": air_mae,
    "soft-tissue MAE HU": soft_tissue_mae,
    "bone MAE HU": bone_mae,
    "bone Dice": bone_dice,
    "HD95 mm": bone_hd95,
    "WEPL mm": wepl_error,
}

"""The metrics by which a synthetic CT is scored slice by slice, by the names they have in tables.

`metrics` and `distances` hold the formulas.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import distances, metrics

# Of the predicted and the true CT of one slice in HU, the mask, all (H, W), and the spacing in mm.
Metric = Callable[[np.ndarray, np.ndarray, np.ndarray, float], float]


class CtMetric(NamedTuple):
    """A metric of one slice, called with the pixel spacing whether or not it needs it.

    Args:
        function: of (pred_hu, true_hu, mask), or of these and spacing_mm.
        higher_is_better: False for an error, of which the smallest size is best.
        needs_spacing: whether the function takes spacing_mm.
    """

    function: Callable[..., float]
    higher_is_better: bool = False
    needs_spacing: bool = False

    def __call__(
        self, pred_hu: ArrayLike, true_hu: ArrayLike, mask: ArrayLike, spacing_mm: float
    ) -> float:
        if self.needs_spacing:
            return self.function(pred_hu, true_hu, mask, spacing_mm)
        return self.function(pred_hu, true_hu, mask)


# What `psnr_db`, `ssim` and `ms_ssim` take in each year's challenge.
IN_2023 = {"value_range": metrics.SYNTHRAD2023_RANGE}
IN_2025 = {"value_range": metrics.SYNTHRAD2025_RANGE}

# What `evaluate` scores by default, and which way each metric points.
CT_METRICS: dict[str, CtMetric] = {
    "MAE HU": CtMetric(metrics.mae_hu),
    "bias HU": CtMetric(metrics.bias_hu),
    "PSNR dB": CtMetric(partial(metrics.psnr_db, **IN_2023), higher_is_better=True),
    "SSIM": CtMetric(partial(metrics.ssim, **IN_2023), higher_is_better=True),
    "MS-SSIM": CtMetric(partial(metrics.ms_ssim, **IN_2025), higher_is_better=True),
    "air MAE HU": CtMetric(partial(metrics.tissue_mae_hu, tissue="air")),
    "soft-tissue MAE HU": CtMetric(partial(metrics.tissue_mae_hu, tissue="soft")),
    "bone MAE HU": CtMetric(partial(metrics.tissue_mae_hu, tissue="bone")),
    "bone Dice": CtMetric(metrics.bone_dice, higher_is_better=True),
    "HD95 mm": CtMetric(distances.bone_hd95_mm, needs_spacing=True),
    "WEPL mm": CtMetric(distances.wepl_error_mm, needs_spacing=True),
}

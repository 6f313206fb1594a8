"""The volume on which the challenges' own programs were run."""

import numpy as np


def golden_volume():
    """Prediction, truth and mask, (48, 64, 56) each; HU."""
    z, y, x = np.indices((48, 64, 56)).astype(np.float64)
    r2 = ((z - 23.5) / 18) ** 2 + ((y - 31.5) / 26) ** 2 + ((x - 27.5) / 22) ** 2
    mask = r2 <= 1
    true = np.where(
        mask, 40 + 60 * np.sin(0.35 * x) * np.cos(0.27 * y) + 20 * np.sin(0.5 * z), -1000
    )
    true = np.where((r2 > 0.78) & mask, 900 + 300 * np.sin(0.2 * (x + y + z)), true)
    pred = 0.97 * true + 15 + 25 * np.cos(0.41 * x + 0.23 * y - 0.31 * z)
    return np.where(r2 > 1.15, -1000, pred), true, mask

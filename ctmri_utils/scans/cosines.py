"""Smooth random fields over the field of view, as sums of cosines."""

from __future__ import annotations

import numpy as np

FIELD_OF_VIEW_MM = 220.0


def cosine_series(
    coefficients: np.ndarray, x_mm: np.ndarray, y_mm: np.ndarray, z_mm: float
) -> np.ndarray:
    """A smooth random field of SD about 1, float32 (H, W), from coefficients over z, y, x."""
    n_z, n_y, n_x = coefficients.shape
    along_z = cosines(n_z, z_mm)
    along_y = cosines(n_y, y_mm)
    along_x = cosines(n_x, x_mm)

    plane = np.tensordot(along_z[0], coefficients, 1)
    return (along_y @ plane @ along_x.T).astype(np.float32)


def cosines(n: int, positions_mm) -> np.ndarray:
    """The first n cosines over the field of view, (positions, n)."""
    relative = np.atleast_1d(positions_mm)[:, None] / FIELD_OF_VIEW_MM + 0.5
    return np.cos(np.pi * np.arange(n) * relative)


def cosine_derivatives(n: int, positions_mm) -> np.ndarray:
    """The derivatives of `cosines` in 1/mm, (positions, n)."""
    relative = np.atleast_1d(positions_mm)[:, None] / FIELD_OF_VIEW_MM + 0.5
    frequency = np.pi * np.arange(n)
    return -np.sin(frequency * relative) * frequency / FIELD_OF_VIEW_MM

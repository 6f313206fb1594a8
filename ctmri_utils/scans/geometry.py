"""What both families of synthetic heads share: smooth random fields, the pose, and the lesion."""

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


def picture_to_head(patient: dict, x_mm: np.ndarray, y_mm: np.ndarray) -> tuple:
    """Positions in the picture as x and y of the patient's head, turned and shifted back.

    Args:
        patient: from `draw_patient`.
        x_mm: columns, broadcast against y_mm.
        y_mm: rows.

    Returns:
        x and y in mm, float32 (H, W) each.
    """
    x = x_mm - patient["shift_mm"][0]
    y = y_mm - patient["shift_mm"][1]
    x, y = rotated(x, y, patient["rotation_rad"])
    return x.astype(np.float32), y.astype(np.float32)


def rotated(first: np.ndarray, second: np.ndarray, angle_rad: float) -> tuple:
    """Turn points in the plane of two axes."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    return cos * first + sin * second, cos * second - sin * first


def in_frontal_sinus(patient: dict, from_midline_mm: np.ndarray) -> np.ndarray:
    """Whether a distance from the midline lies in one of two sinuses with a septum between."""
    half = 0.43 * patient["sinus_width_mm"]
    return np.abs(from_midline_mm - half) < half - 1.2


def in_lesion(patient: dict, x, y, z_mm: float, depth, texture) -> np.ndarray:
    """Whether a point lies in the lesion: an ellipsoid below the brain's surface, on its side.

    Args:
        patient: from `draw_patient`.
        x: mm, broadcast against y, depth and texture.
        y: mm.
        z_mm: height of the plane.
        depth: below the brain's surface, mm.
        texture: a smooth field of SD about 1, which makes the lesion's outline uneven.
    """
    lesion_x, lesion_y = patient["lesion_mm"]
    stretch = patient["lesion_stretch"]
    distance = np.sqrt(
        ((x - lesion_x) * stretch) ** 2
        + ((y - lesion_y) / stretch) ** 2
        + (z_mm - patient["level_mm"]) ** 2
    )
    radius = patient["lesion_radius_mm"] * (1 + 0.12 * texture)
    return (distance < radius) & (depth > 2) & (x * lesion_x > 0)

"""Errors in mm: how far bone surfaces lie apart, and how much deeper a proton beam would reach."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage
from scipy.spatial import cKDTree

from .checked_inputs import checked_hu_pair, checked_spacing
from .metrics import BONE_ABOVE_HU

# Directions in which path lengths are compared in every slice.
RAYS = 36


def bone_hd95_mm(
    pred_hu: ArrayLike, true_hu: ArrayLike, mask: ArrayLike, spacing_mm: float | Sequence[float]
) -> float:
    """95th percentile Hausdorff distance between the bone surfaces, the worse of both directions.

    Bone is what lies above 250 HU inside the mask, and its surface is what one erosion removes.

    Args:
        pred_hu: predicted CT in HU, (H, W) or (Z, H, W).
        true_hu: true CT in HU, same shape.
        mask: same shape, > 0 counts.
        spacing_mm: pixel size, one number or one per axis.

    Returns:
        A distance in mm, NaN where the true CT has no bone, inf where only the prediction has none.

    Raises:
        ValueError: the shapes differ, the mask is empty, the images cannot be in HU, or a spacing
            is not positive.

    Source: MONAI's HausdorffDistanceMetric(percentile=95), which SynthRAD2025 uses.
    """
    pred_hu, true_hu, mask = checked_hu_pair(pred_hu, true_hu, mask)
    spacing_mm = checked_spacing(spacing_mm, mask.ndim)

    pred_bone = (pred_hu > BONE_ABOVE_HU) & mask
    true_bone = (true_hu > BONE_ABOVE_HU) & mask
    if not true_bone.any():
        return float("nan")
    if not pred_bone.any():
        return float("inf")

    pred_surface = pred_bone & ~ndimage.binary_erosion(pred_bone)
    true_surface = true_bone & ~ndimage.binary_erosion(true_bone)
    pred_mm = np.argwhere(pred_surface) * spacing_mm  # (points, axes)
    true_mm = np.argwhere(true_surface) * spacing_mm
    return max(percentile_distance(pred_mm, true_mm), percentile_distance(true_mm, pred_mm))


def percentile_distance(points: np.ndarray, targets: np.ndarray) -> float:
    """95th percentile over the points (N, axes) of their distance to the nearest target."""
    distances, _ = cKDTree(targets).query(points)
    return float(np.percentile(distances, 95))


def wepl_error_mm(
    pred_hu: ArrayLike, true_hu: ArrayLike, mask: ArrayLike, spacing_mm: float | Sequence[float]
) -> float:
    """Mean absolute error of the water-equivalent path length, over 36 rays in every slice.

    A surrogate for a proton beam's range error, not a dose calculation. Slices that the mask does
    not meet are left out.

    Args:
        pred_hu: predicted CT in HU, (H, W) or (Z, H, W).
        true_hu: true CT in HU, same shape.
        mask: same shape, > 0 counts.
        spacing_mm: pixel size, one number or one per axis.

    Returns:
        An error >= 0 in mm.
    """
    pred_hu, true_hu, mask = checked_hu_pair(pred_hu, true_hu, mask)
    spacing_mm = checked_spacing(spacing_mm, mask.ndim)[-2:]

    slices = (-1, *mask.shape[-2:])  # (Z, H, W), also of one slice
    stacks = zip(pred_hu.reshape(slices), true_hu.reshape(slices), mask.reshape(slices))
    errors = []
    for pred_slice, true_slice, mask_slice in stacks:
        if mask_slice.any():
            pred_mm = wepl_mm(pred_slice, mask_slice, spacing_mm)
            true_mm = wepl_mm(true_slice, mask_slice, spacing_mm)
            errors.append(pred_mm - true_mm)
    return float(np.abs(errors).mean())


def wepl_mm(ct_hu: np.ndarray, mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Water-equivalent path length of beams that reach the mask's centre.

    Relative electron density is 1 + HU/1000 up to 0 HU and 1 + HU/1900 above, and 0 outside the
    mask. It is interpolated linearly and summed every half pixel. The fit puts cortical bone, 1.78,
    near 1480 HU.

    Args:
        ct_hu: one slice (H, W) in HU.
        mask: bool, same shape.
        spacing_mm: pixel size along rows and columns.

    Returns:
        One length in mm for each of the equally spaced rays, (RAYS,).
    """
    hu_per_density = np.where(ct_hu > 0, 1900, 1000)
    density = np.where(mask, np.maximum(1 + ct_hu / hu_per_density, 0), 0)

    # Every ray starts at the mask's centre and is long enough to leave the slice.
    spacing = np.array(spacing_mm)
    centre_mm = np.array(ndimage.center_of_mass(mask)) * spacing
    diagonal_mm = np.linalg.norm(np.array(mask.shape) * spacing)
    step_mm = spacing.min() / 2
    steps_mm = (np.arange(int(diagonal_mm / step_mm) + 1) + 0.5) * step_mm

    angles = np.linspace(0, 2 * np.pi, RAYS, endpoint=False)
    directions = np.stack([np.sin(angles), np.cos(angles)])  # (2, rays)
    points_mm = centre_mm[:, None, None] + directions[:, :, None] * steps_mm  # (2, rays, steps)

    samples = ndimage.map_coordinates(density, points_mm / spacing[:, None, None], order=1)
    return samples.sum(axis=1) * step_mm

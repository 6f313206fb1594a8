"""Whether what was found can be the head, and whether a CT shows where it ends."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..masks import CT_THRESHOLD_HU
from ..units import AIR_HU
from .volume import CT_REACHES

# This share of the volume, from its corners on, of one exact value that is no air: a program filled
# it in.
LEAST_FILLED = 0.01

# So much at the lowest value, or at a highest that dense bone exceeds: clipped to a window.
DENSE_BONE_HU = 1200.0
MOST_SATURATED = 0.02

# Head and neck of an adult have 5 to 6 L; the largest slice of a newborn's head 75 cm2.
LARGEST_HEAD_LITRES = 8.0
SMALLEST_SLICE_CM2 = 40.0
MOST_BORDER = 0.5


def with_air(ct_hu: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Give a CT back the air around the head, where another value was filled in.

    Programs that mask, turn or register a scan fill what was outside with 0, which is water in HU.

    Args:
        ct_hu: (I, J, K) in HU; not changed.

    Returns:
        The CT, a copy if it was changed, and notes.

    Raises:
        ValueError: it shows no air, because it was clipped to a window or masked.
    """
    low, high = float(ct_hu.min()), float(ct_hu.max())
    notes = []

    fill = _fill_value(ct_hu)
    region = np.zeros(ct_hu.shape, bool)
    if fill is not None and fill > low:
        region = _from_the_corners(ct_hu == fill)
    is_filled = region.mean() >= LEAST_FILLED
    measured = ct_hu[~region] if is_filled else ct_hu
    clipped_below = np.mean(measured == low) > MOST_SATURATED
    if low > CT_REACHES and (clipped_below or not is_filled):
        raise ValueError(
            f"it shows no air, with values of {low:.0f} to {high:.0f} HU, as after clipping to a "
            "window, so where the head ends cannot be seen: export it in the full range of HU"
        )

    if is_filled:
        if low <= CT_REACHES:
            # Interpolation left a rim between the real air and the filling.
            rim = ndimage.binary_dilation(region, np.ones((3, 3, 3)))
            region |= rim & (ct_hu < fill)
        ct_hu = np.where(region, np.float32(AIR_HU), ct_hu)
        notes.append(
            f"{region.mean():.1%} of the voxels are exactly {fill:g} HU from the corners on, as if "
            "filled in by a program, and were taken for air"
        )

    saturated = (ct_hu == high).sum() / (ct_hu > CT_THRESHOLD_HU).sum().clip(1)
    if high < DENSE_BONE_HU and saturated > MOST_SATURATED:
        notes.append(
            f"{saturated:.1%} of what is denser than air is exactly {high:g} HU, the highest "
            "value: it was clipped to a window, so bone is too dark"
        )
    return ct_hu, notes


def _fill_value(ct_hu: np.ndarray) -> float | None:
    """The commonest value at the volume's eight corners, if it is no air."""
    corners = ct_hu[np.ix_(*[[0, length - 1] for length in ct_hu.shape])]
    values, counts = np.unique(corners[corners > CT_THRESHOLD_HU], return_counts=True)
    return float(values[np.argmax(counts)]) if counts.size else None


def _from_the_corners(mask: np.ndarray) -> np.ndarray:
    """The connected parts of a mask that reach a corner of the volume."""
    labels, _ = ndimage.label(mask)
    corners = labels[np.ix_(*[[0, length - 1] for length in mask.shape])]
    return mask & np.isin(labels, corners)


def head_notes(head: np.ndarray, spacing_mm: tuple[float, float, float]) -> list[str]:
    """Sentences on a head that cannot be one.

    Args:
        head: (Z, Y, X) bool, over the whole field of the scan, not empty.
        spacing_mm: distances of slices, rows and columns.
    """
    slice_mm, row_mm, column_mm = spacing_mm
    litres = head.sum() * slice_mm * row_mm * column_mm / 1e6
    largest_cm2 = head.sum((1, 2)).max() * row_mm * column_mm / 100

    with_head = head[head.any((1, 2))]
    border = np.concatenate(
        [with_head[:, 0], with_head[:, -1], with_head[:, :, 0], with_head[:, :, -1]], axis=1
    )

    notes = []
    if litres > LARGEST_HEAD_LITRES:
        notes.append(f"the head that was found has {litres:.1f} L, more than a head and neck have")
    if largest_cm2 < SMALLEST_SLICE_CM2:
        notes.append(
            f"the head that was found has {largest_cm2:.0f} cm2 in its largest slice, less than a "
            "newborn's head"
        )
    if border.mean() > MOST_BORDER:
        notes.append(
            f"{border.mean():.0%} of the border of the field was found to be head, so the scan was "
            "cut, or its background is not dark"
        )
    return notes

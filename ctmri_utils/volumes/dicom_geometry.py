"""Where the slices of a DICOM series lie: their order, their affine, and what cannot be right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .dicom_files import tag_numbers
from .volume import LPS_TO_RAS

if TYPE_CHECKING:
    from pydicom import Dataset

# How far off its place rounding may put a slice, in slice distances.
OFF_LINE = 0.2

# Two slices that are nearer than this lie in the same place.
DOUBLED_MM = 1e-3

# A note mentions a tilt of the gantry that is larger than this.
TILTED_DEG = 0.5
STEEPEST_TILT_DEG = 45


def slices_in_place(
    datasets: list[Dataset],
) -> tuple[list[Dataset], np.ndarray, np.ndarray | None, list[str]]:
    """Sort the slices of one series along their normal.

    Args:
        datasets: one a slice, in any order.

    Returns:
        The datasets in order, the affine (4, 4) from (column, row, slice) to mm in RAS+, the
        heights of slices that lie unevenly, see `Volume`, and notes.

    Raises:
        ValueError: slices that lie double, beside each other, or with one missing.

    Source: DICOM PS3.3, C.7.6.2.1.1.
    """
    first = datasets[0]
    along_row, along_column = slice_directions(first)
    normal = np.cross(along_row, along_column)

    positions = np.stack([tag_numbers(dataset, "ImagePositionPatient", 3) for dataset in datasets])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]

    thickness = np.array([slice_thickness_mm(datasets[i]) for i in order])
    if len(datasets) == 1:
        step = normal * (thickness[0] or 1.0)
        heights, notes = None, []
    else:
        step = (positions[-1] - positions[0]) / (len(datasets) - 1)
        heights, notes = slice_heights(positions @ normal, thickness)
        notes += check_line(positions, step, normal)

    row_distance, column_distance = tag_numbers(first, "PixelSpacing", 2)
    affine = np.eye(4)
    affine[:3] = LPS_TO_RAS @ np.column_stack(
        [along_row * column_distance, along_column * row_distance, step, positions[0]]
    )
    return [datasets[i] for i in order], affine, heights, notes


def slice_directions(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors along a row and along a column."""
    along_row, along_column = tag_numbers(dataset, "ImageOrientationPatient", 6).reshape(2, 3)

    row_length_error = abs(along_row @ along_row - 1)
    column_length_error = abs(along_column @ along_column - 1)
    overlap = abs(along_row @ along_column)
    if max(row_length_error, column_length_error, overlap) > 0.01:
        raise ValueError(
            "its ImageOrientationPatient does not hold two perpendicular directions: export the "
            "series again"
        )
    return along_row, along_column


def slice_thickness_mm(dataset: Dataset) -> float:
    """The thickness of a slice, 0 if it is not given."""
    try:
        return max(float(tag_numbers(dataset, "SliceThickness", 1)[0]), 0.0)
    except ValueError:
        return 0.0


def check_line(positions: np.ndarray, step: np.ndarray, normal: np.ndarray) -> list[str]:
    """A note on a tilt; ValueError unless the sorted slices lie on one line."""
    length = np.linalg.norm(step)
    from_first = positions - positions[0]
    along = from_first @ step / length**2
    off = np.linalg.norm(from_first - along[:, None] * step, axis=1).max()
    tilt = float(np.degrees(np.arccos(np.clip(step @ normal / length, -1, 1))))
    if off > OFF_LINE * length or tilt > STEEPEST_TILT_DEG:
        raise ValueError(
            f"its slices do not lie on one line, one is {off:.1f} mm beside it: pass the files "
            "of one stack"
        )
    if tilt <= TILTED_DEG:
        return []
    return [
        f"slices are tilted by {tilt:.1f} degrees against the table (gantry tilt); each is "
        "put where it was"
    ]


def slice_heights(along: np.ndarray, thickness: np.ndarray) -> tuple[np.ndarray | None, list[str]]:
    """Where the slices lie, in mean slice distances, None if evenly, and notes.

    Args:
        along: their positions along the normal, in mm, in order.
        thickness: of each, in mm, 0 where it is not known.

    Raises:
        ValueError: some lie on others, or are missing.
    """
    distances = np.diff(along)
    doubled = distances < DOUBLED_MM
    if doubled.any():
        raise ValueError(
            f"{int(doubled.sum())} slices lie where another one lies (echoes, time "
            "points, copies?): pass the files of one volume"
        )

    mean = distances.mean()
    heights = (along - along[0]) / mean
    off_mm = np.abs(heights - np.arange(len(heights))).max() * mean
    is_even = off_mm <= OFF_LINE * np.median(distances)
    if not is_even:
        check_complete(distances, thickness)
    return None if is_even else heights, distance_notes(distances, thickness, is_even)


def check_complete(distances: np.ndarray, thickness: np.ndarray) -> None:
    """Raise ValueError where a distance has room for another slice of the same thickness."""
    # Slices of one thickness lie equally far apart, so a protocol that changes the distance half
    # way up is told from a gap. Where two thicknesses meet, the larger distance may come first.
    usual = np.zeros(len(thickness))
    is_same = thickness[1:] == thickness[:-1]
    for mm in np.unique(thickness):
        between = distances[is_same & (thickness[1:] == mm)]
        usual[thickness == mm] = np.quantile(between, 0.5, method="lower") if between.size else mm
    usual = np.maximum(usual[1:], usual[:-1])

    gaps = np.flatnonzero(distances > (2 - OFF_LINE) * usual)
    if gaps.size:
        missing = [f"{distances[k] / usual[k] - 1:.0f} after slice {k + 1}" for k in gaps]
        distance = " or ".join(f"{mm:.2f}" for mm in np.unique(usual[gaps].round(2)))
        raise ValueError(
            f"slices are missing ({', '.join(missing)}; {distance} mm is usual): export the "
            "series again, complete"
        )


def distance_notes(distances: np.ndarray, thickness: np.ndarray, is_even: bool) -> list[str]:
    """Sentences on slices that lie unevenly, and on what lies between them."""
    notes = []
    if not is_even:
        notes.append(
            f"its slices lie {distances.min():.2f} to {distances.max():.2f} mm apart; each stays "
            "where it was"
        )

    covered = (thickness[1:] + thickness[:-1]) / 2
    is_known = (thickness[1:] > 0) & (thickness[:-1] > 0)
    has_gap = is_known & (covered < 0.9 * distances)
    if has_gap.all() and is_even and np.ptp(thickness) == 0:
        notes.append(
            f"slices of {thickness[0]:g} mm lie {distances.mean():.2f} mm apart: what is between "
            "them was not scanned"
        )
    elif has_gap.any():
        notes.append(
            f"{has_gap.sum()} of its {len(distances)} distances are larger than the slices are "
            "thick: what is between these was not scanned"
        )
    return notes

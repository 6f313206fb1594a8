"""Where the slices of a DICOM series lie: their order, their affine, and what cannot be right."""

from __future__ import annotations

import numpy as np

from .dicom_files import LPS_TO_RAS, tag_numbers

# How far off its place a slice may be, in slice distances: rounding.
OFF_LINE = 0.2

# A tilt of the gantry is mentioned from here on.
TILTED_DEG = 0.5
STEEPEST_TILT_DEG = 45


def slices_in_place(datasets: list) -> tuple[list, np.ndarray, list[str]]:
    """Sort the slices of one series along their normal.

    Args:
        datasets: of pydicom, one a slice, in any order.

    Returns:
        The datasets in order, the affine (4, 4) from (column, row, slice) to mm in RAS+, and notes.

    Raises:
        ValueError: slices that lie unevenly, double, beside each other, or with one missing.

    Source: DICOM PS3.3, C.7.6.2.1.1.
    """
    first = datasets[0]
    along_row, along_column = _directions(first)
    normal = np.cross(along_row, along_column)

    positions = np.stack([tag_numbers(dataset, "ImagePositionPatient", 3) for dataset in datasets])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]

    thickness = _thickness_mm(first)
    if len(datasets) == 1:
        step = normal * (thickness or 1.0)
        notes = []
    else:
        step = (positions[-1] - positions[0]) / (len(datasets) - 1)
        notes = _check_line(positions, step, normal, thickness)

    row_distance, column_distance = tag_numbers(first, "PixelSpacing", 2)
    affine = np.eye(4)
    affine[:3] = LPS_TO_RAS @ np.column_stack(
        [along_row * column_distance, along_column * row_distance, step, positions[0]]
    )
    return [datasets[i] for i in order], affine, notes


def _directions(dataset) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors along a row and along a column."""
    along_row, along_column = tag_numbers(dataset, "ImageOrientationPatient", 6).reshape(2, 3)

    row_length_error = abs(along_row @ along_row - 1)
    column_length_error = abs(along_column @ along_column - 1)
    overlap = abs(along_row @ along_column)
    if max(row_length_error, column_length_error, overlap) > 0.01:
        raise ValueError(
            "its ImageOrientationPatient are no two directions at a right angle: export the series "
            "again"
        )
    return along_row, along_column


def _thickness_mm(dataset) -> float:
    """The thickness of a slice, 0 if it is not given."""
    try:
        return float(tag_numbers(dataset, "SliceThickness", 1)[0])
    except ValueError:
        return 0.0


def _check_line(
    positions: np.ndarray, step: np.ndarray, normal: np.ndarray, thickness: float
) -> list[str]:
    """Notes on tilt and gaps; ValueError unless the sorted slices lie evenly on one line."""
    _check_distances(np.diff(positions @ normal))

    length = np.linalg.norm(step)
    line = np.arange(len(positions))[:, None] * step
    off = np.linalg.norm(positions - positions[0] - line, axis=1).max()
    tilt = float(np.degrees(np.arccos(np.clip(step @ normal / length, -1, 1))))
    if off > OFF_LINE * length or tilt > STEEPEST_TILT_DEG:
        raise ValueError(
            f"its slices do not lie on one line, one is {off:.1f} mm beside it: pass the files "
            "of one stack"
        )

    notes = []
    if tilt > TILTED_DEG:
        notes.append(
            f"slices are tilted by {tilt:.1f} degrees against the table (gantry tilt); each is "
            "put where it was"
        )
    if 0 < thickness < 0.9 * step @ normal:
        notes.append(
            f"slices of {thickness:g} mm lie {step @ normal:.2f} mm apart: what is between "
            "them was not scanned"
        )
    return notes


def _check_distances(distances: np.ndarray) -> None:
    """Raise ValueError unless the slices, in order, lie evenly and none on another."""
    doubled = distances < 1e-3
    if doubled.any():
        raise ValueError(
            f"{int(doubled.sum())} slices lie where another one lies (echoes, time "
            "points, copies?): pass the files of one volume"
        )

    usual = np.median(distances)
    heights = np.concatenate([[0], np.cumsum(distances)])
    even_heights = np.linspace(0, heights[-1], len(heights))
    if np.abs(heights - even_heights).max() <= OFF_LINE * usual:
        return

    # Gaps of whole slices mean that some are missing.
    gaps = np.rint(distances / usual)
    if np.allclose(distances, gaps * usual, atol=OFF_LINE * usual):
        missing = [
            f"{int(gap) - 1} after slice {k}" for k, gap in enumerate(gaps, start=1) if gap > 1
        ]
        raise ValueError(
            f"slices are missing ({', '.join(missing)}, {usual:.2f} mm being usual): export the "
            "series again, complete"
        )
    raise ValueError(
        f"its slices lie {distances.min():.2f} to {distances.max():.2f} mm apart, unevenly: pass "
        "the files of one evenly spaced part, or resample it first"
    )

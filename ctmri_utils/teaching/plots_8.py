"""Figures and tables of lesson 8: volumes in three planes, before and after a translation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..viewers.figures import COLOURS, ImageRow, clear_axis, ct_row, draw_image, montage
from ..volumes.axial_slices import axial
from ..volumes.volume import Volume

PLANES = ("axial", "coronal", "sagittal")

# Width of one volume in a figure of planes, in inches.
WIDTH = 2.2

# Blue shows on greys and on the colours of an error map.
OUTLINE = COLOURS[5]


def planes(
    volumes: dict[str, ImageRow],
    voxel: Sequence[int],
    spacing_mm: Sequence[float],
    outline: np.ndarray | None = None,
) -> Figure:
    """Three planes through one voxel, a column for each volume, in true proportions.

    Args:
        volumes: {title: row}; the images of a row are one volume (Z, H, W), lowest slice first,
            forehead up, the patient's right on the left.
        voxel: (z, y, x), where the planes meet.
        spacing_mm: distances of slices, rows and columns.
        outline: (Z, H, W) bool, drawn as a thin blue line in every picture.
    """
    slice_mm, row_mm, column_mm = spacing_mm
    depth, height, width = next(iter(volumes.values())).images.shape
    sides_mm = [height * row_mm, depth * slice_mm, depth * slice_mm]
    inches_per_mm = WIDTH / (width * column_mm)

    size_inches = (WIDTH * len(volumes) + 0.4, sum(sides_mm) * inches_per_mm + 0.7)
    figure = Figure(figsize=size_inches, layout="constrained")
    axes = figure.subplots(3, len(volumes), squeeze=False, height_ratios=sides_mm)
    aspects = (row_mm / column_mm, slice_mm / column_mm, slice_mm / row_mm)
    for column, (title, row) in zip(axes.T, volumes.items(), strict=True):
        for axis, image, aspect in zip(
            column, cuts_through(row.images, voxel), aspects, strict=True
        ):
            picture = draw_image(axis, image, row, aspect)
            clear_axis(axis)
        if outline is not None:
            draw_outline(column, outline, voxel)

        column[0].set_title(title, fontsize=9)
        if row.unit:
            figure.colorbar(picture, ax=column[-1], label=row.unit, location="bottom", aspect=30)

    for axis, plane in zip(axes[:, 0], PLANES, strict=True):
        axis.set_ylabel(plane, fontsize=9)
    return figure


def draw_outline(column, outline: np.ndarray, voxel) -> None:
    for axis, inside in zip(column, cuts_through(outline, voxel), strict=True):
        if inside.any():
            axis.contour(inside, [0.5], colors=OUTLINE, linewidths=1)


def cuts_through(volume: np.ndarray, voxel) -> list[np.ndarray]:
    """The axial, coronal and sagittal slices through a voxel, the top of the head up."""
    z, y, x = voxel
    return [volume[z], volume[::-1, y], volume[::-1, :, x]]


def before_and_after(scan: Volume, translated: Volume, columns: int = 5) -> Figure:
    """Axial slices of a scan and of its translation, from low to high.

    A CT is drawn twice, in the brain window and in that of bone.

    Args:
        scan: in any orientation.
        translated: on the same grid.
        columns: how many slices.
    """
    rows = {}
    for name, volume in (("scan", scan), ("translated", translated)):
        stack = axial(volume)
        chosen = np.linspace(0, len(stack.values) - 1, columns + 2).round().astype(int)[1:-1]
        slices = stack.values[chosen]
        if volume.modality == "ct":
            for window in ("brain", "bone"):
                rows[f"{name},\n{window} window"] = ct_row(slices, window)
        else:
            low, high = np.percentile(stack.values[stack.head], [0.5, 99.5])
            rows[f"{name} MR"] = ImageRow(slices, low, high)
    return montage(rows, size=1.4)


def errors_by_expectation(
    expected_hu: np.ndarray, true_error_hu: np.ndarray, inside: np.ndarray
) -> pd.DataFrame:
    """Mean true error of the voxels in bands of the expected one, from calm to unsteady.

    Args:
        expected_hu: the error to expect, (Z, H, W).
        true_error_hu: the absolute error, same shape.
        inside: which voxels count, bool, same shape.
    """
    expected, true = expected_hu[inside], true_error_hu[inside]
    edges = np.quantile(expected, [0, 0.5, 0.75, 0.9, 0.97, 1])
    bands = [(expected >= low) & (expected <= high) for low, high in pairwise(edges)]
    table = {
        "share of the head": [f"{band.mean():.0%}" for band in bands],
        "expected from, HU": edges[:-1],
        "expected to, HU": edges[1:],
        "true error, HU": [true[band].mean() for band in bands],
    }
    return pd.DataFrame(table, pd.RangeIndex(1, len(bands) + 1, name="calm to unsteady"))

"""Volumes as axial slices, the way the networks know them, and back onto their own grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, optimize

from ..masks import volume_head_mask
from ..settings import check_network_size
from .input_checks import head_notes, with_air
from .volume import Volume, check_shape, corner_indices, voxel_sides_mm

# The embedded slices, on which the networks were trained, have this side.
FIELD_MM = 224.0


def resample(
    values: np.ndarray,
    affine: np.ndarray,
    to_affine: np.ndarray,
    shape: tuple[int, int, int],
    background: float,
) -> np.ndarray:
    """The image on another grid, by linear interpolation.

    Axes that get coarser are smoothed first by a Gaussian. Its SD is half the excess of the new
    step over the old, as in skimage's resize.

    Args:
        values: (I, J, K).
        affine: (4, 4), index -> mm, of the old grid. Shears, as from a gantry tilt, are undone.
        to_affine: likewise, of the new grid.
        shape: of the new grid.
        background: the value of what lies outside the old grid.

    Returns:
        An array of the new shape.
    """
    new_to_old_index = np.linalg.inv(affine) @ to_affine

    # How many old steps one new step spans, along the new axis nearest to each old one.
    old_directions = affine[:3, :3] / voxel_sides_mm(affine)
    new_directions = to_affine[:3, :3] / voxel_sides_mm(to_affine)
    nearest_new_axis = nearest_axes(old_directions.T @ new_directions)
    coarser = np.abs(new_to_old_index[range(3), nearest_new_axis])

    if (coarser > 1.01).any():
        values = ndimage.gaussian_filter(values, ((coarser - 1) / 2).clip(0), mode="nearest")
    return ndimage.affine_transform(
        values,
        new_to_old_index[:3, :3],
        new_to_old_index[:3, 3],
        shape,
        order=1,
        mode="grid-constant",
        cval=background,
    )


def nearest_axes(cosines: np.ndarray) -> tuple[int, int, int]:
    """The column that lies nearest to the axis of each row; every column is taken once.

    Args:
        cosines: (3, 3), of the angles between one set of axes (rows) and another (columns).
    """
    _, columns = optimize.linear_sum_assignment(-np.abs(cosines))
    return tuple(columns.tolist())


@dataclass(frozen=True)
class AxialStack:
    """A volume as the networks see it: lowest slice first, forehead up, right on the left.

    Args:
        values: (Z, size, size) float32, in the volume's unit.
        head: (Z, size, size) bool.
        affine: (4, 4), index (z, y, x) -> mm, RAS+.
        background: the value outside the volume.
        notes: a sentence for each thing that was lost.
        heights: (Z,), for slices that lie unevenly: where each lies along the first axis, in steps
            of the affine, from 0 to Z - 1; None if they lie evenly.
    """

    values: np.ndarray
    head: np.ndarray
    affine: np.ndarray
    background: float
    notes: tuple[str, ...] = ()
    heights: np.ndarray | None = None

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distances of slices, rows and columns; the mean one of slices that lie unevenly."""
        return tuple(voxel_sides_mm(self.affine).tolist())

    @property
    def head_and_rim(self) -> np.ndarray:
        """The head and one pixel around it in every slice, (Z, size, size) bool."""
        # The mask ends where a pixel is half skin. The rim keeps the partly filled ones, as the
        # slices in data/scans do, on which the networks were trained.
        return ndimage.binary_dilation(self.head, np.ones((1, 3, 3)))

    def back_onto(self, volume: Volume, values: np.ndarray, background: float) -> np.ndarray:
        """Values on this grid, brought back to the volume's own.

        Args:
            volume: names the grid.
            values: (Z, size, size).
            background: the value of what lies outside of this field.

        Returns:
            (I, J, K), the shape of the volume.
        """
        if self.heights is not None:
            return uneven_back(volume, self, values, background)
        return resample(values, self.affine, volume.affine, volume.values.shape, background)


def axial(volume: Volume, size: int = 128, spacing_mm: float | None = None) -> AxialStack:
    """Axial slices of size x size pixels, the head in the middle.

    The volume's own axes are kept, turned over where needed, never rotated. The slices lie as far
    apart as the volume's own along the axis nearest to head-foot, so an axial scan is interpolated
    within its slices only. Where these lie unevenly, so do the result's.

    Args:
        volume: a scan in any orientation.
        size: pixels per side.
        spacing_mm: pixel size, None for 224 mm / size.

    Raises:
        ValueError: there is no head, a CT shows no air around it, slices that lie unevenly are not
            axial, or `size` does not suit the networks.
    """
    check_network_size(size)
    if spacing_mm is None:
        spacing_mm = FIELD_MM / size
    if not 0.05 <= spacing_mm <= 50:
        raise ValueError(f"pixels of {spacing_mm:g} mm do not suit any scan: choose 0.05 to 50 mm")

    affine, shape = axial_grid(volume, spacing_mm)
    check_shape(shape)
    check_shape((shape[0], size, size))

    values, notes = volume.values, []
    if volume.modality == "ct":
        values, notes = with_air(values)
    heights = None
    if volume.heights is None:
        values = resample(values, volume.affine, affine, shape, volume.background)
    else:
        values, heights = uneven_axial(volume, values, affine, shape)
    head = volume_head_mask(values, volume.modality)
    if not head.any():
        raise ValueError(
            "no head was found in it: is the volume empty, or its unit or modality wrong?"
        )
    notes += head_notes(head, voxel_sides_mm(affine))

    # Cut a square out, the head in its middle.
    middle_row, middle_column = head_middle(head)
    top = math.floor(middle_row - (size - 1) / 2)
    left = math.floor(middle_column - (size - 1) / 2)
    affine[:3, 3] += affine[:3, 1:3] @ [top, left]
    square = cut_square(values, top, left, size, volume.background)
    head_in_square = cut_square(head, top, left, size, False)

    lost = 1 - head_in_square.sum() / head.sum()
    if lost > 1e-3:
        field_mm = size * spacing_mm
        notes.append(
            f"{lost:.1%} of the head lies outside the field of {field_mm:.0f} mm and "
            "becomes background"
        )
    return AxialStack(square, head_in_square, affine, volume.background, tuple(notes), heights)


def axial_like(volume: Volume, stack: AxialStack) -> AxialStack:
    """The volume on the grid of another stack, such as the CT that belongs to an MR.

    Raises:
        ValueError: there is no head in that field, or a CT shows no air around it.
    """
    values, notes = volume.values, []
    if volume.modality == "ct":
        values, notes = with_air(values)
    values = resample(values, volume.affine, stack.affine, stack.values.shape, volume.background)
    head = volume_head_mask(values, volume.modality)
    if not head.any():
        raise ValueError(
            "no head was found where the other scan shows one: are both of the same head?"
        )
    return AxialStack(values, head, stack.affine, volume.background, tuple(notes))


def axial_axes(affine: np.ndarray) -> tuple[np.ndarray, float]:
    """Unit vectors to the head, the back and the left as columns, and the step of the slices."""
    # Orthogonal axes; the first two stay in their plane, also when the gantry was tilted.
    directions, triangle = np.linalg.qr(affine[:3, :3])
    steps = np.diag(triangle)
    directions = directions * np.sign(steps)

    # In RAS+, x grows to the right, y to the front and z to the head.
    x_axis, y_axis, z_axis = nearest_axes(directions)
    to_head = directions[:, z_axis] * np.sign(directions[2, z_axis])
    to_back = directions[:, y_axis] * -np.sign(directions[1, y_axis])
    to_left = directions[:, x_axis] * -np.sign(directions[0, x_axis])
    return np.stack([to_head, to_back, to_left]).T, abs(steps[z_axis])


def axial_grid(volume: Volume, spacing_mm: float) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Affine and shape (Z, Y, X) of the axial grid that covers the volume."""
    axes, slice_mm = axial_axes(volume.affine)
    step = np.array([slice_mm, spacing_mm, spacing_mm])

    # The volume's eight corners, in mm along the new axes.
    corners = corner_indices(volume.values.shape)
    corners_mm = axes.T @ (volume.affine[:3, :3] @ corners + volume.affine[:3, 3:])
    low, high = corners_mm.min(1), corners_mm.max(1)

    slice_steps = round((high[0] - low[0]) / step[0])
    pixel_steps = np.ceil((high[1:] - low[1:]) / spacing_mm - 1e-6)
    shape = np.array([slice_steps, *pixel_steps], int) + 1

    # The grid's middle is the volume's.
    first = (low + high - (shape - 1) * step) / 2
    affine = np.eye(4)
    affine[:3, :3] = axes * step
    affine[:3, 3] = axes @ first
    return affine, tuple(shape.tolist())


def uneven_axial(
    volume: Volume, values: np.ndarray, affine: np.ndarray, shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Each slice by itself on an axial grid, (Z, Y, X), and the heights of the slices, (Z,).

    Raises:
        ValueError: the slices are not axial.
    """
    # Across such slices nothing can be interpolated, so they have to be the stack's own.
    rows_and_columns = affine[:3, 0] @ volume.affine[:3, :2]
    if np.abs(rows_and_columns).max() > 1e-3:
        raise ValueError("its slices lie unevenly and are not axial: resample it evenly first")

    order = upward_order(volume, affine)
    heights = volume.heights
    if order[0] > 0:
        heights = heights[-1] - heights[::-1]
    old = slice_affines(volume.affine, volume.heights, 2)
    new = slice_affines(affine, heights, 0)

    slices = [
        resample(values[:, :, [k]], old[k], new[z], (1, *shape[1:]), volume.background)
        for z, k in enumerate(order)
    ]
    return np.concatenate(slices), heights


def uneven_back(
    volume: Volume, stack: AxialStack, values: np.ndarray, background: float
) -> np.ndarray:
    """What `uneven_axial` did, undone: (Z, Y, X) -> (I, J, K)."""
    old = slice_affines(volume.affine, volume.heights, 2)
    new = slice_affines(stack.affine, stack.heights, 0)
    shape = (*volume.values.shape[:2], 1)

    result = np.empty(volume.values.shape, values.dtype)
    for z, k in enumerate(upward_order(volume, stack.affine)):
        result[:, :, [k]] = resample(values[[z]], new[z], old[k], shape, background)
    return result


def upward_order(volume: Volume, affine: np.ndarray) -> np.ndarray:
    """The slices (K,) of an axial volume in the order of an axial grid."""
    order = np.arange(volume.values.shape[2])
    return order if affine[:3, 0] @ volume.affine[:3, 2] > 0 else order[::-1]


def slice_affines(affine: np.ndarray, heights: np.ndarray, axis: int) -> np.ndarray:
    """The affine of each slice across an axis, as a volume of its own, (N, 4, 4)."""
    affines = np.repeat(affine[None], len(heights), axis=0)
    affines[:, :, 3] += heights[:, None] * affine[:, axis]
    return affines


def head_middle(head: np.ndarray) -> tuple[float, float]:
    """Row and column halfway between the head's first and last."""
    rows = np.flatnonzero(head.any((0, 2)))
    columns = np.flatnonzero(head.any((0, 1)))
    return rows[[0, -1]].mean(), columns[[0, -1]].mean()


def cut_square(stack: np.ndarray, top: int, left: int, size: int, fill) -> np.ndarray:
    """A square of every slice from (top, left) on, `fill` where it lies outside of the slice."""
    rows = slice(max(top, 0), max(top + size, 0))
    columns = slice(max(left, 0), max(left + size, 0))
    part = stack[:, rows, columns]

    window = np.full((len(stack), size, size), fill, stack.dtype)
    row, column = rows.start - top, columns.start - left
    window[:, row : row + part.shape[1], column : column + part.shape[2]] = part
    return window

"""Checks of the exercises of lesson 8: places in mm, a mirrored and a tilted affine, smoothing."""

from __future__ import annotations

import numpy as np

from ..volumes.axial_slices import axial
from ..volumes.volume import Volume, voxel_sides_mm
from .checking import check

TILT_DEG = 20


def place_mm(voxel, affine) -> np.ndarray:
    """(x, y, z) in mm of a voxel (z, y, x)."""
    return (affine @ (*voxel[::-1], 1))[:3]


def tilt_mm(affine, mri) -> float:
    """How far the highest slice of a tilted stack lies behind the lowest."""
    slice_mm = voxel_sides_mm(affine)[2]
    return slice_mm * np.tan(np.deg2rad(TILT_DEG)) * (len(mri) - 1)


def mirrored_difference_hu(true_ct_hu, affine) -> float:
    """Mean absolute difference in the head between axial slices and their mirror image."""
    mirrored = affine * np.array([[-1], [1], [1], [1]])
    size, pixel_mm = true_ct_hu.shape[-1], voxel_sides_mm(affine)[0]
    good, bad = (
        axial(Volume(true_ct_hu.T, matrix, "ct"), size, pixel_mm) for matrix in (affine, mirrored)
    )
    return float(np.abs(bad.values - good.values)[good.head].mean())


@check("8.1", "your answer is three numbers", "x, y and z: the 1 at the end is not a place")
def three_numbers(answer, voxel, affine):
    return np.shape(answer) == (3,)


@check(
    "8.1",
    "the height is right",
    "which of the indices counts slices, and at which place does the affine expect it?",
)
def height(answer, voxel, affine):
    return abs(answer[2] - place_mm(voxel, affine)[2]) < 0.5


@check("8.1", "all three are right", "what does the last column of the affine add?")
def all_three(answer, voxel, affine):
    return np.allclose(answer, place_mm(voxel, affine), atol=0.5)


@check("8.2", "your answer is one number", "take the mean over all voxels of the head")
def one_number(answer, true_ct_hu, affine):
    return np.shape(answer) == ()


@check("8.2", "the slices differ", "whose first row changes its sign: that of a copy?")
def they_differ(answer, true_ct_hu, affine):
    return answer > 1


@check(
    "8.2",
    "it is the mean absolute difference in the head",
    "differences must not cancel out, and air outside the head must not count",
)
def in_the_head(answer, true_ct_hu, affine):
    return np.isclose(answer, mirrored_difference_hu(true_ct_hu, affine), rtol=0.01)


@check(
    "8.3",
    "the order of magnitude is right",
    "each slice moves by the number that you wrote into the affine: add the moves up",
)
def about_right(answer, affine, mri):
    return 0.5 < abs(answer) / tilt_mm(affine, mri) < 2


@check("8.3", "it is right to 0.1 mm", "how many steps lead from the first slice to the last?")
def steps_counted(answer, affine, mri):
    return abs(abs(answer) - tilt_mm(affine, mri)) < 0.1


@check("8.4", "there are as many slices as before", "at the ends, repeat the last slice")
def same_shape(answer, mri):
    return np.shape(answer) == mri.shape


@check(
    "8.4",
    "each slice is the mean of itself and its two neighbours",
    "which axis of (Z, H, W) counts the slices, and by what must the sum be divided?",
)
def mean_of_three(answer, mri):
    middle = (mri[:-2] + mri[1:-1] + mri[2:]) / 3
    return np.allclose(answer[1:-1], middle, atol=1e-3 * mri.max())


@check("8.4", "the first and the last slice are right", "what stands beyond the first slice?")
def ends(answer, mri):
    first, last = (2 * mri[0] + mri[1]) / 3, (2 * mri[-1] + mri[-2]) / 3
    return np.allclose([answer[0], answer[-1]], [first, last], atol=1e-3 * mri.max())

"""The checks of lesson 8's exercises: right answers pass, typical wrong ones get a hint."""

import numpy as np
import pytest
from scipy.ndimage import uniform_filter1d

from ctmri_utils.teaching import mira_volume
from ctmri_utils.volumes import Volume, axial

SIZE = 32


@pytest.fixture(scope="module")
def lesson():
    """What the lesson's earlier cells have, of a smaller Mira."""
    mira = mira_volume(SIZE, slices=11)
    pixel_mm, slice_mm = mira.spacing_mm, mira.slice_spacing_mm
    affine = np.diag([-pixel_mm, -pixel_mm, slice_mm, 1])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(mira.mri[0].T.shape) - 1) / 2
    voxel = np.argwhere(mira.lesion[0]).mean(axis=0).round().astype(int)
    return mira.mri[0], mira.ct_hu_clean[0], affine, voxel


def test_the_place_of_the_bleed(lesson, passes, gets_a_hint):
    _, _, affine, voxel = lesson
    right = (affine @ (*voxel[::-1], 1))[:3]
    assert right[0] > 0
    passes("8.1", right, voxel, affine)
    passes("8.1", right.tolist(), voxel, affine)

    not_turned = (affine @ (*voxel, 1))[:3]
    gets_a_hint("8.1", not_turned, voxel, affine, hint="which of the indices")
    four = affine @ (*voxel[::-1], 1)
    gets_a_hint("8.1", four, voxel, affine, hint="is not a place")
    to_the_left = right * [-1, 1, 1]
    gets_a_hint("8.1", to_the_left, voxel, affine, hint="last column")


def test_a_mirrored_head(lesson, passes, gets_a_hint):
    _, true_ct_hu, affine, _ = lesson
    mirrored = affine.copy()
    mirrored[0] *= -1
    good, bad = (
        axial(Volume(true_ct_hu.T, matrix, "ct"), SIZE, -affine[0, 0])
        for matrix in (affine, mirrored)
    )
    difference_hu = np.abs(bad.values - good.values)
    right = difference_hu[good.head].mean()
    passes("8.2", right, true_ct_hu, affine)
    # The lesson's cells below must still find the affine as it was.
    assert affine[0, 0] < 0

    for wrong in (difference_hu.mean(), (good.values - bad.values)[good.head].mean() + 2):
        gets_a_hint("8.2", wrong, true_ct_hu, affine, hint="must not cancel")
    gets_a_hint("8.2", 0.0, true_ct_hu, affine, hint="of a copy")
    gets_a_hint("8.2", difference_hu, true_ct_hu, affine, hint="mean over all voxels")


def test_a_tilt(lesson, passes, gets_a_hint):
    mri, _, affine, _ = lesson
    tilted = affine.copy()
    tilted[1, 2] = -affine[2, 2] * np.tan(np.deg2rad(20))
    right = abs(tilted[1, 2]) * (len(mri) - 1)
    passes("8.3", right, affine, mri)
    gets_a_hint("8.3", abs(tilted[1, 2]), affine, mri, hint="add the moves up")
    too_many = abs(tilted[1, 2]) * len(mri)
    gets_a_hint("8.3", too_many, affine, mri, hint="how many steps")


def test_averaged_slices(lesson, passes, gets_a_hint):
    mri, *_ = lesson
    right = uniform_filter1d(mri, 3, axis=0, mode="nearest")
    passes("8.4", right, mri)
    gets_a_hint("8.4", uniform_filter1d(mri, 3, 0, mode="wrap"), mri, hint="what stands beyond")
    for wrong in (uniform_filter1d(mri, 3, axis=1), right * 3):
        gets_a_hint("8.4", wrong, mri, hint="which axis")
    gets_a_hint("8.4", right[1:-1], mri, hint="repeat the last")

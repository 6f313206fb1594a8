"""The checks of lesson 8's exercises: right answers pass, typical wrong ones get a hint."""

import numpy as np
import pytest
from scipy.ndimage import uniform_filter1d

from ctmri_utils.teaching import check_answer, mira_volume
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


def verdict(capsys, part, *answers):
    check_answer(part, *answers)
    text = capsys.readouterr().out
    assert text.count("Hint:") == (0 if "every check holds" in text else 1)
    return "right" if "every check holds" in text else text


def test_the_place_of_the_bleed(lesson, capsys):
    _, _, affine, voxel = lesson
    right = (affine @ (*voxel[::-1], 1))[:3]
    assert right[0] > 0
    assert verdict(capsys, "8.1", right, voxel, affine) == "right"
    assert verdict(capsys, "8.1", right.tolist(), voxel, affine) == "right"

    not_turned = (affine @ (*voxel, 1))[:3]
    assert "which of the indices" in verdict(capsys, "8.1", not_turned, voxel, affine)
    four = affine @ (*voxel[::-1], 1)
    assert "is not a place" in verdict(capsys, "8.1", four, voxel, affine)
    to_the_left = right * [-1, 1, 1]
    assert "last column" in verdict(capsys, "8.1", to_the_left, voxel, affine)


def test_a_mirrored_head(lesson, capsys):
    _, true_ct_hu, affine, _ = lesson
    mirrored = affine.copy()
    mirrored[0] *= -1
    good, bad = (
        axial(Volume(true_ct_hu.T, matrix, "ct"), SIZE, -affine[0, 0])
        for matrix in (affine, mirrored)
    )
    difference_hu = np.abs(bad.values - good.values)
    right = difference_hu[good.head].mean()
    assert verdict(capsys, "8.2", right, true_ct_hu, affine) == "right"
    # The lesson's cells below must still find the affine as it was.
    assert affine[0, 0] < 0

    for wrong in (difference_hu.mean(), (good.values - bad.values)[good.head].mean() + 2):
        assert "must not cancel" in verdict(capsys, "8.2", wrong, true_ct_hu, affine)
    assert "of a copy" in verdict(capsys, "8.2", 0.0, true_ct_hu, affine)
    assert "mean over all voxels" in verdict(capsys, "8.2", difference_hu, true_ct_hu, affine)


def test_a_tilt(lesson, capsys):
    mri, _, affine, _ = lesson
    tilted = affine.copy()
    tilted[1, 2] = -affine[2, 2] * np.tan(np.deg2rad(20))
    right = abs(tilted[1, 2]) * (len(mri) - 1)
    assert verdict(capsys, "8.3", right, affine, mri) == "right"
    assert "add the moves up" in verdict(capsys, "8.3", abs(tilted[1, 2]), affine, mri)
    too_many = abs(tilted[1, 2]) * len(mri)
    assert "how many steps" in verdict(capsys, "8.3", too_many, affine, mri)


def test_averaged_slices(lesson, capsys):
    mri, *_ = lesson
    right = uniform_filter1d(mri, 3, axis=0, mode="nearest")
    assert verdict(capsys, "8.4", right, mri) == "right"
    assert "what stands beyond" in verdict(
        capsys, "8.4", uniform_filter1d(mri, 3, 0, mode="wrap"), mri
    )
    for wrong in (uniform_filter1d(mri, 3, axis=1), right * 3):
        assert "which axis" in verdict(capsys, "8.4", wrong, mri)
    assert "repeat the last" in verdict(capsys, "8.4", right[1:-1], mri)


@pytest.mark.parametrize("part, others", [("8.1", 2), ("8.2", 2), ("8.3", 2), ("8.4", 1)])
def test_an_open_answer_is_no_error(part, others, capsys):
    check_answer(part, None, *["anything"] * others)
    assert capsys.readouterr().out == f"[    ] {part} is not answered yet\n"

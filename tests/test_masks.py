"""Head masks against a disc whose truth is known."""

import numpy as np
import pytest

from ctmri_utils.masks import ct_head_mask, mri_head_mask
from ctmri_utils.scans.phantom import synthetic_patients

ROWS, COLUMNS = np.indices((64, 64))
RADIUS = np.hypot(ROWS - 31.5, COLUMNS - 31.5)
HEAD = RADIUS < 24


def dice(mask, truth):
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


def test_ct_mask_fills_air_inside_and_drops_the_table_outside():
    ct_hu = np.where(HEAD, 40.0, -1000.0)
    ct_hu[20:26, 28:36] = -1000  # a sinus
    ct_hu[60:62, 5:60] = 200  # a table
    mask = ct_head_mask(ct_hu)
    assert mask[22, 31] and not mask[61, 30]
    # closing may round the disc's pixel corners
    assert dice(mask, HEAD) > 0.99


def test_mri_mask_keeps_the_dark_skull_between_scalp_and_brain():
    mri = np.select([RADIUS < 18, RADIUS < 21, RADIUS < 24], [100.0, 0.0, 250.0], 0.0)
    mri += np.random.default_rng(0).rayleigh(3, mri.shape)
    assert dice(mri_head_mask(mri), HEAD) > 0.98


def test_mask_is_per_slice_and_may_be_empty():
    stack = np.stack([np.where(HEAD, 40.0, -1000.0), np.full((64, 64), -1000.0)])
    mask = ct_head_mask(stack)
    assert mask.shape == stack.shape and mask[0].any() and not mask[1].any()


def test_a_constant_mri_is_refused():
    with pytest.raises(ValueError, match="constant"):
        mri_head_mask(np.ones((8, 8)))
    with pytest.raises(ValueError, match="slices"):
        ct_head_mask(np.ones(8))


@pytest.mark.parametrize(("side", "height"), [(1, 60), (3, 20), (6, 10)])
def test_a_bright_spot_does_not_erase_the_head(side, height):
    patient = synthetic_patients(1, 64, 5, slices=8)
    mri, truth = patient.mri[0], mri_head_mask(patient.mri[0])
    for scale in (1, 1 / mri.max(), 1000):
        spotted = mri.copy()
        spotted[3, 20 : 20 + side, 20 : 20 + side] = height * mri.max()
        assert dice(mri_head_mask(spotted * scale), truth) > 0.98

    # Several spots, each brighter than the one before.
    spotted[2, 40, 40], spotted[4, 41, 41] = 1000 * mri.max(), 30000 * mri.max()
    assert dice(mri_head_mask(spotted), truth) > 0.98


def test_a_small_head_is_not_taken_for_a_spot():
    mri = np.abs(np.random.default_rng(0).normal(0, 5, (8, 128, 128)))
    mri[:, 60:68, 60:72] += 300  # 0.6 % of the image
    mask = mri_head_mask(mri)
    assert mask[:, 60:68, 60:72].all() and mask.mean() < 0.007

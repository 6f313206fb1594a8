"""Mira: the same head at every size, with and without her bleed, as a slice and as a volume."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from ctmri_utils.teaching import mira, mira_volume
from ctmri_utils.units import HU


def test_she_is_the_same_head_with_and_without_her_bleed():
    bleeding, healthy = mira(64).test.truth, mira(64, "none").test.truth
    assert bleeding.lesion.sum() > 40 and not healthy.lesion.any()
    # At the rim a pixel is a mixture of bleed and brain, in HU.
    elsewhere = ~binary_dilation(bleeding.lesion[0], iterations=3)[None]
    difference = bleeding.ct_hu_clean - healthy.ct_hu_clean
    assert np.abs(difference[elsewhere]).max() < 0.01

    # An acute bleed is denser than the white matter that it replaces.
    assert difference[bleeding.lesion].mean() > 20


def test_she_keeps_her_shape_at_another_size():
    small, large = mira(64).test.truth, mira(128).test.truth
    assert small.head.mean() == pytest.approx(large.head.mean(), rel=0.02)
    assert small.lesion.mean() == pytest.approx(large.lesion.mean(), rel=0.1)


def test_her_slice_lies_in_her_volume():
    slice_, volume = mira(64).test.truth, mira_volume(64, 41)
    level = round((slice_.parameters[0]["level_mm"] + 10) / volume.slice_spacing_mm)
    overlap = volume.head[0, level] & slice_.head[0]
    assert overlap.sum() / slice_.head.sum() > 0.97
    assert volume.lesion[0, level].sum() > 40


def test_her_scans_are_paired_and_scaled_for_a_network():
    scans = mira(64)
    assert scans.test.paired and scans.name == "Mira"
    ct_hu = scans.test.truth.ct_hu.clip(HU.low, HU.high)
    assert np.allclose(HU.from_network(scans.test.ct[:, 0].numpy()), ct_hu, atol=1e-3)
    assert scans.test.mri.min() == -1

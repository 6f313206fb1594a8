"""Units: what goes into the network comes out again."""

import numpy as np
import pytest
import torch

from ctmri_utils.units import GREY, HU, Scale, mri_scale
from ctmri_utils.windows import WINDOWS, Window


@pytest.mark.parametrize("scale", [HU, GREY, Scale(-3.5, 812.25, "MR unit")])
def test_scale_is_invertible_inside_its_interval(scale):
    physical = np.linspace(scale.low, scale.high, 1001)
    # float64 rounding of two affine maps over an interval of ~2000: 1e-12 relative.
    np.testing.assert_allclose(scale.from_network(scale.to_network(physical)), physical, atol=1e-9)


def test_scale_ends_become_minus_one_and_one():
    assert HU.to_network(np.array([-1000.0, 0.0, 1000.0])).tolist() == [-1, 0, 1]
    assert HU.to_network(torch.tensor([-2000.0, 3000.0])).tolist() == [-1, 1]


def test_empty_scale_is_refused_with_a_sentence():
    with pytest.raises(ValueError, match="low < high.*constant"):
        Scale(1, 1, "HU")


def test_mri_scale_looks_only_inside_the_head():
    mri = np.full((4, 32, 32), 5000.0)
    head = np.zeros(mri.shape, bool)
    head[:, 8:24, 8:24] = True
    mri[head] = np.linspace(10, 110, head.sum())
    scale = mri_scale(mri, head)
    # percentiles of a straight line, by hand
    assert (scale.low, scale.high) == pytest.approx((10.5, 109.5), abs=1e-9)


def test_mri_scale_refuses_an_empty_head():
    with pytest.raises(ValueError, match="head mask"):
        mri_scale(np.ones((8, 8)), np.zeros((8, 8), bool))


def test_window_blackens_below_and_whitens_above():
    assert Window(40, 80).apply(np.array([-1000.0, 0.0, 20.0, 40.0, 80.0, 1000.0])).tolist() == [
        0,
        0,
        0.25,
        0.5,
        1,
        1,
    ]
    assert WINDOWS["brain"] == Window(40, 80)


@pytest.mark.parametrize(
    ("level", "width"), [("brain", 80), (40, 0), (40, -80), (float("nan"), 80), (40, float("inf"))]
)
def test_a_window_needs_a_level_and_a_width(level, width):
    with pytest.raises(ValueError, match="window"):
        Window(level, width)

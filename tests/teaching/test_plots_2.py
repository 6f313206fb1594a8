"""The counts and pictures of lesson 2."""

import pytest
import torch
from torch import nn

from ctmri_utils.teaching import plots_2 as plots
from ctmri_utils.units import GREY, HU


def test_multiplications_are_those_counted_by_hand():
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1),
        nn.ConvTranspose2d(3, 1, 4, stride=2, padding=1),
    )
    image = torch.zeros(1, 2, 8, 8)
    by_hand = 3 * 3 * 2 * 3 * 4 * 4 + 4 * 4 * 3 * 1 * 4 * 4
    assert plots.multiplications(network, image) == by_hand
    assert plots.multiplications(network, image.expand(5, 2, 8, 8)) == 5 * by_hand


def test_the_extent_is_the_smallest_box_around_what_is_not_zero():
    gradient = torch.zeros(9, 9)
    gradient[2, 5] = gradient[6, 3] = 1e-20
    assert plots.extent(gradient) == (2, 3, 5, 3)


@pytest.mark.parametrize(("scale", "pictures"), [(HU, 3), (GREY, 1)])
def test_only_hounsfield_units_have_windows(scale, pictures):
    figure = plots.windows_and_range(torch.linspace(-1, 1, 16).view(1, 1, 4, 4), scale)
    assert len(figure.axes) == pictures


def test_a_change_in_a_hundred_saturates():
    change = torch.zeros(1, 100, 100)
    change[0, 0, 0] = 50.0
    change[0, 10:30] = 0.5
    figure = plots.change_maps({"batch norm": change, "instance norm": 0 * change}, ["eval"])
    assert {axis.images[0].get_clim() for axis in figure.axes if axis.images} == {(-0.5, 0.5)}

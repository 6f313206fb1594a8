"""Checks of the exercises of lesson 6."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from ..runs.study_measures import field_correlations
from .checking import check


@check("6.1", "it is a share of the head, between 0 and 1", "share, not percent, pixels or HU")
def is_share(needed, mae_hu, contrast_hu):
    return 0 < needed < 1


@check("6.1", "such a bleed costs a tenth of the MAE", "share times contrast: solve for the share")
def costs_a_tenth(needed, mae_hu, contrast_hu):
    return bool(np.isclose(needed * contrast_hu, mae_hu / 10, rtol=0.02))


@check("6.2", "it has one of the letters a to d for each report", "three letters, as in 'aaa'")
def three_letters(letters):
    return len(letters) == 3 and set(letters.lower()) <= set("abcd")


@check("6.2", "no report is left to the cycle error", "what can be undone does not change it")
def no_cycle_error(letters):
    return "a" not in letters.lower()


@check("6.2", "the first test measures a position", "which test returns pixels?")
def measures_position(letters):
    return letters.lower()[0] == "c"


@check("6.2", "the second test asks what a CT cannot know", "does a CT know the coil?")
def measures_field(letters):
    return letters.lower()[1] == "d"


@check("6.2", "the third test compares slices of a volume", "which test needs a volume?")
def measures_slices(letters):
    return letters.lower()[2] == "b"


@check("6.3", "cutting removes most of what the margin did", "head in the middle, then put back?")
def removes_most(mae, cut_hu, uncut_hu):
    return mae < (cut_hu + uncut_hu) / 2


@check("6.3", "the score counts the head alone", "air around it is easy to get right")
def head_alone(mae, cut_hu, uncut_hu):
    return mae > 0.7 * cut_hu


@check("6.4", "it has a correlation for each of the three changes", "a dict with three names")
def three_correlations(readable, fake_ct, to_mri, uneven):
    named = set(readable) == {"rounding", "blur", "noise"}
    return named and all(-1 <= value <= 1 for value in readable.values())


@check("6.4", "256 greys cover the whole range from -1 to 1", "scale to 0..255, round, scale back")
def rounds(readable, fake_ct, to_mri, uneven):
    rounded = ((fake_ct + 1) * 127.5).round() / 127.5 - 1
    return abs(readable["rounding"] - correlation(rounded, to_mri, uneven)) < 0.02


@check("6.4", "the blur stays within a slice", "sigma 1 along rows and columns, 0 over patients")
def blurs(readable, fake_ct, to_mri, uneven):
    blurred = torch.from_numpy(gaussian_filter(fake_ct.numpy(), (0, 0, 1, 1)))
    return abs(readable["blur"] - correlation(blurred, to_mri, uneven)) < 0.02


@check("6.4", "the noise is 10 HU", "1000 HU are 1 in network units")
def adds_noise(readable, fake_ct, to_mri, uneven):
    noise = torch.randn(fake_ct.shape, generator=torch.Generator().manual_seed(0))
    expected = correlation(fake_ct + 0.01 * noise, to_mri, uneven)
    return abs(readable["noise"] - expected) < 0.05


def correlation(fake_ct, to_mri, uneven) -> float:
    """Of the field that returns from these translations with the true one, mean over patients."""
    return float(np.mean(field_correlations(to_mri(fake_ct), uneven)))

"""The checks of lesson 7's exercises: right answers pass, typical wrong ones get a hint."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from ctmri_utils.teaching import exercises_7


def scans(skull_in_mri: float):
    """A head of two tissues with a ring of bone, as CT and as MR, (1, 1, 32, 32)."""
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    radius = (rows - 15.5).hypot(columns - 15.5)
    within = columns > 15.5
    noise = 0.05 * torch.randn(32, 32, generator=torch.Generator().manual_seed(0))

    ct = torch.full((32, 32), -1.0)
    ct[radius < 12] = 0.8
    ct[radius < 9] = 0.04
    ct[(radius < 9) & within] = 0.02
    mri = torch.full((32, 32), -1.0)
    mri[radius < 12] = skull_in_mri
    mri[radius < 9] = -0.2
    mri[(radius < 9) & within] = 0.4
    return ct[None, None] + noise, mri[None, None] + noise.T


# In this MR bone is as black as air, or nearly white.
DARK, BRIGHT = scans(-1.0), scans(0.9)
ALL = ["gradient", "MIND", "correlation"]
APART = np.array([-37.0, -15.0, -4.0])


def seeds_needed(apart=APART) -> int:
    n = 2
    while stats.t.ppf(0.975, n - 1) * apart.std(ddof=1) / np.sqrt(n) > 1:
        n += 1
    return n


RIGHT = [
    ("7.1", sorted(exercises_7.fond_of_hollow(*DARK)), *DARK),
    ("7.1", sorted(exercises_7.fond_of_hollow(*BRIGHT)), *BRIGHT),
    ("7.2", -np.log(np.exp(1 / 0.07) / (2 * np.exp(1 / 0.07) + 254))),
    ("7.3", seeds_needed(), APART),
    ("7.4", 0.1 * 0.7 / (0.1 * 0.7 + 0.9 * 0.3), 0.7, 0.3),
    ("7.4", 1.0, 0.7, 0.0),
]

WRONG = [
    ("7.1", ["mask"], *DARK),
    ("7.1", "correlation", *DARK),
    ("7.1", [], *DARK),
    ("7.1", ALL, *BRIGHT),
    ("7.2", math.log(256)),
    ("7.2", 0.0),
    ("7.2", 0.5),
    ("7.2", -math.log(2)),
    ("7.3", seeds_needed() - 1, APART),
    ("7.3", seeds_needed() + 1, APART),
    # The normal distribution instead of Student's t, the spread of the wrong n, its square root.
    ("7.3", math.ceil((1.96 * APART.std(ddof=1)) ** 2), APART),
    ("7.3", math.ceil((1.96 * APART.std()) ** 2), APART),
    ("7.3", 1, APART),
    # The true positive rate, equal shares of healthy and ill, the share called.
    ("7.4", 0.7, 0.7, 0.3),
    ("7.4", 0.7 / (0.7 + 0.3), 0.7, 0.2),
    ("7.4", 0.1 * 0.7 + 0.9 * 0.3, 0.7, 0.3),
    ("7.4", 21.0, 0.7, 0.3),
]


@pytest.mark.parametrize("answered", RIGHT)
def test_the_right_answer_passes(passes, answered):
    passes(*answered)


@pytest.mark.parametrize("answered", WRONG)
def test_a_wrong_answer_gets_a_hint(gets_a_hint, answered):
    gets_a_hint(*answered)


def test_bone_as_black_as_air_pleases_the_losses_and_bright_bone_does_not():
    assert exercises_7.fond_of_hollow(*DARK) == set(ALL)
    assert exercises_7.fond_of_hollow(*BRIGHT) < set(ALL)

"""The checks of lesson 5's exercises, and the errors that its third one plants."""

from functools import cache

import numpy as np
import pandas as pd
import pytest

from ctmri_utils.scans import synthetic_patients
from ctmri_utils.teaching.exercises_5 import PLANTED, head_width_mm
from ctmri_utils.teaching.plots_5 import planted_errors

SCORES = pd.DataFrame(
    {
        "patient": ["thick", "thick", "thin", "thin"],
        "metric": ["MAE HU", "bone Dice"] * 2,
        "value": [90.0, 0.8, 40.0, 0.6],
    }
)


@cache
def heads():
    return synthetic_patients(5, 64, seed=3, anatomy="atlas")


def first_slice():
    return heads().ct_hu[0], heads().spacing_mm


def length_mm():
    ct_hu, spacing_mm = first_slice()
    return head_width_mm(ct_hu.T, spacing_mm)


def width_mm():
    return head_width_mm(*first_slice())


@pytest.mark.parametrize(
    "part, right",
    [
        ("5.1", lambda: (width_mm(), *first_slice())),
        ("5.1", lambda: (round(width_mm() - 8), *first_slice())),
        ("5.2", lambda: (60 / 2000 * 255,)),
        ("5.2", lambda: (8,)),
        ("5.3", lambda: ("edbac",)),
        ("5.4", lambda: ("thin", SCORES)),
    ],
)
def test_the_solution_holds(part, right, passes):
    passes(part, *right())


@pytest.mark.parametrize(
    "part, wrong, hint",
    [
        # pixels, centimetres, from front to back
        ("5.1", lambda: (width_mm() / heads().spacing_mm, *first_slice()), "pixels"),
        ("5.1", lambda: (width_mm() / 10, *first_slice()), "cm"),
        ("5.1", lambda: (length_mm(), *first_slice()), "left to right"),
        # the brain window, HU in place of greys, the wrong way round
        ("5.2", lambda: (60 / 80 * 255,), "spread"),
        ("5.2", lambda: (60,), "spread"),
        ("5.2", lambda: (2000 / 60 * 255,), "at most"),
        # places exchanged, densities exchanged, too short
        ("5.3", lambda: ("edcab",), "Flicker"),
        ("5.3", lambda: ("debac",), "brain window"),
        ("5.3", lambda: ("edb",), "such as"),
        # the worst MAE, a place in the table
        ("5.4", lambda: ("thick", SCORES), "lowest"),
        ("5.4", lambda: ("patient 2", SCORES), "copy the name"),
    ],
)
def test_a_typical_error_gets_a_hint(part, wrong, hint, gets_a_hint):
    gets_a_hint(part, *wrong(), hint=hint)


def test_each_slice_has_the_error_of_its_letter():
    true_hu = heads().ct_hu
    change = dict(zip(PLANTED, planted_errors(true_hu) - true_hu))
    of = dict(zip(PLANTED, true_hu))
    assert sorted(PLANTED) == list("abcde") and not change["a"].any()

    # A head that is moved or mirrored changes along its skull, and keeps its values.
    for letter in "bc":
        assert np.abs(change[letter]).max() > 300
        planted = of[letter] + change[letter]
        assert np.allclose(np.sort(planted, axis=None), np.sort(of[letter], axis=None))

    soft_tissue = (of["d"] > 0) & (of["d"] < 100)
    assert np.allclose(change["d"][soft_tissue], 15) and not change["d"][~soft_tissue].any()
    assert np.allclose(change["e"][of["e"] > 250], 300, atol=1e-3)


def test_a_mirrored_head_keeps_its_outline():
    k = PLANTED.index("c")
    true_hu = heads().ct_hu
    copy = planted_errors(true_hu)[k]
    sides = [np.flatnonzero((image > -300).any(axis=0))[[0, -1]] for image in (copy, true_hu[k])]
    assert sides[0].tolist() == sides[1].tolist()

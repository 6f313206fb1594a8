"""The checks of lesson 4's exercises: a right answer holds, typical wrong ones get a hint."""

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from ctmri_utils.evaluation import mae_hu
from ctmri_utils.scans import synthetic_patients


@cache
def truth():
    return synthetic_patients(4, 48, seed=7)


def training_hu():
    return truth().ct_hu[truth().head].clip(-1000, 1000)


def mean_mae(pixels, mask=None):
    true_hu, head = truth().ct_hu, truth().head if mask is None else mask
    moved = ndimage.shift(true_hu, (0, 0, pixels), order=1, mode="nearest")
    return np.mean([mae_hu(*patient) for patient in zip(moved, true_hu, head)])


def of_the_whole_picture():
    return mean_mae(0.5, np.ones_like(truth().head))


def of_the_first_patient():
    true_hu = truth().ct_hu[0]
    moved = ndimage.shift(true_hu, (0, 0.5), order=1, mode="nearest")
    return mae_hu(moved, true_hu, truth().head[0])


@pytest.mark.parametrize(
    "part, right",
    [
        ("4.1", lambda: (19.6 * 10 ** (62.4 / 20),)),
        ("4.2", lambda: (np.median(training_hu()), training_hu())),
        ("4.2", lambda: (round(float(np.median(training_hu()))), training_hu())),
        ("4.3", lambda: (mean_mae(0.5), truth().ct_hu, truth().head)),
        ("4.4", lambda: ("bdef",)),
        ("4.4", lambda: (["f", "B", "d", "e"],)),
        ("4.4", lambda: ("b, d, e, f",)),
    ],
)
def test_the_solution_holds(part, right, passes):
    passes(part, *right())


@pytest.mark.parametrize(
    "part, wrong, hint",
    [
        # 10 in place of 20, the logarithm forgotten, a loss in place of a width
        ("4.1", lambda: (19.6 * 10 ** (62.4 / 10),), "squares"),
        ("4.1", lambda: (19.6 * 62.4,), "RMSE"),
        ("4.1", lambda: (-19.6,), "positive"),
        # the mean, the lesson's constant, the network's scale
        ("4.2", lambda: (training_hu().mean(), training_hu()), "middle"),
        ("4.2", lambda: (40.0 + 60, training_hu()), "middle"),
        ("4.2", lambda: (np.median(training_hu()) / 1000, training_hu()), "scale"),
        ("4.2", lambda: (np.full(3, 35.0), training_hu()), "one number"),
        # a whole pixel, all of the picture, one patient
        ("4.3", lambda: (mean_mae(1), truth().ct_hu, truth().head), "0.5"),
        ("4.3", lambda: (of_the_whole_picture(), truth().ct_hu, truth().head), "inside the head"),
        ("4.3", lambda: (of_the_first_patient(), truth().ct_hu, truth().head), "mean"),
        # one too many, one too few
        ("4.4", lambda: ("abdef",), "pixel by pixel"),
        ("4.4", lambda: ("bdf",), "a set against a"),
    ],
)
def test_a_typical_error_gets_a_hint(part, wrong, hint, gets_a_hint):
    gets_a_hint(part, *wrong(), hint=hint)


def test_letters_that_name_no_answer_are_said_to_do_so(gets_a_hint):
    gets_a_hint("4.4", "all", hint="names no answers", stops=True)

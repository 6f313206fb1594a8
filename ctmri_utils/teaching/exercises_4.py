"""Checks of the exercises of lesson 4."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from ..evaluation.metrics import mae_hu
from .checking import check

# Exercise 1: what the third paper reports, in HU and in dB.
REPORTED_MAE = 19.6
REPORTED_PSNR = 62.4

# Exercise 4: the measures that need no true CT of the MR slice.
ALLOWED = set("bdef")


def least_rmse(value_range: float) -> float:
    """The root mean squared error that the reported PSNR means for a range of this width."""
    return value_range / 10 ** (REPORTED_PSNR / 20)


@check("4.1", "your range is one width in HU", "it is one positive number: a width in HU")
def is_a_width(value_range):
    return math.isfinite(value_range) and value_range > 0


@check(
    "4.1",
    "the MAE is possible with your range",
    "the RMSE is never below the MAE: put the MAE in the RMSE's place, and solve for Q; the MSE is "
    "a square, and so is Q²",
)
def is_wide_enough(value_range):
    return least_rmse(value_range) > REPORTED_MAE * 0.999


@check(
    "4.1",
    "no smaller range would do",
    "Q² / MSE is a ratio of squares: by which factor does Q grow for each 20 dB?",
)
def is_smallest(value_range):
    return least_rmse(value_range) < REPORTED_MAE * 1.001


@check(
    "4.2",
    "your constant is one value in HU",
    "one number for every pixel of every head, on the scale of the CT, not the network's",
)
def is_one_value(constant, training_hu):
    return np.ndim(constant) == 0 and math.isfinite(constant) and abs(constant) > 1


@check(
    "4.2",
    "no other constant has a smaller MAE on the training heads",
    "the mean makes the squared error smallest; which middle value has as many pixels above it as "
    "below it?",
)
def is_best_constant(constant, training_hu):
    best = np.median(training_hu)
    return np.abs(training_hu - constant).mean() <= np.abs(training_hu - best).mean() + 0.05


def shifted_mae(true_hu, head, columns: float) -> np.ndarray:
    """MAE of each true slice against itself, so many columns off."""
    shifted = ndimage.shift(true_hu, (0, 0, columns), order=1, mode="nearest")
    return np.array([mae_hu(*patient) for patient in zip(shifted, true_hu, head, strict=True)])


@check(
    "4.3",
    "your answer is one MAE, over the heads of all patients",
    "score every patient inside the head with metrics.mae_hu, and take the mean of these scores",
)
def is_a_mean_over_patients(half, true_hu, head):
    each = shifted_mae(true_hu, head, 0.5)
    everywhere = shifted_mae(true_hu, np.ones_like(head), 0.5).mean()
    of_one = np.isclose(half, each, rtol=1e-3) & ~np.isclose(each, each.mean(), rtol=1e-2)
    return np.ndim(half) == 0 and not of_one.any() and not np.isclose(half, everywhere, rtol=1e-2)


@check(
    "4.3",
    "the CT is moved by half a pixel",
    "shift along the last axis by 0.5, with order=1: what does the same score say for a whole "
    "pixel?",
)
def is_half_a_pixel(half, true_hu, head):
    return math.isclose(half, shifted_mae(true_hu, head, 0.5).mean(), rel_tol=0.01)


@check(
    "4.4",
    "every measure that you name is allowed",
    "which of yours compares a translation, pixel by pixel, with a scan of somebody else, or with "
    "a scan of another kind?",
)
def names_only_allowed(letters):
    return chosen(letters) <= ALLOWED


@check(
    "4.4",
    "no allowed measure is missing",
    "which of the others needs no true CT of the MR slice: a slice against itself, a set against a "
    "set?",
)
def names_all_allowed(letters):
    return chosen(letters) == ALLOWED


def chosen(letters) -> set[str]:
    """The letters of an answer such as "ac" or "a, c"."""
    answers = {letter for letter in "".join(letters).lower() if letter.isalpha()}
    if not answers or not answers <= set("abcdefg"):
        raise ValueError(f'{letters!r} names no answers: give letters from a to g, as "ac"')
    return answers

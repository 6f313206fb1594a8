"""Checks of the exercises of lesson 5."""

from __future__ import annotations

import math

import numpy as np

from ..masks import ct_head_mask
from ..windows import WINDOWS
from .checking import check

# Exercise 3: which error `plots_5.planted_errors` puts into which slice.
PLANTED = "edbac"

# How well a length can be read off a bar on a screen.
READING_MM = 12


def head_width_mm(ct_hu: np.ndarray, spacing_mm: float) -> float:
    """Largest extent of the head from left to right in one slice (H, W)."""
    columns = np.flatnonzero(ct_head_mask(ct_hu).any(axis=0))
    return float((columns[-1] - columns[0] + 1) * spacing_mm)


@check("5.1", "your answer can be a head, in mm", "is it in pixels, or in cm?")
def is_a_length(width_mm, ct_hu, spacing_mm):
    return 110 < width_mm < 250


@check(
    "5.1",
    "it is the width of this head",
    "from skin to skin, left to right, in the widest row of the first slice; how many bars fit?",
)
def is_the_width(width_mm, ct_hu, spacing_mm):
    return abs(width_mm - head_width_mm(ct_hu, spacing_mm)) <= READING_MM


@check("5.2", "your answer counts greys, of 255", "how many greys has a screen, at most?")
def is_a_number_of_greys(greys):
    return 0 < greys <= 255


@check(
    "5.2",
    "60 HU become so many greys in the bone window",
    "the width of the window, 2000 HU, is spread over 255 greys",
)
def is_share_of_width(greys):
    return math.isclose(greys, 60 / WINDOWS["bone"].width * 255, abs_tol=0.5)


@check("5.3", "your answer has five letters, one for each slice", 'such as "aabcd"')
def has_five_letters(letters):
    return len(letters) == len(PLANTED) and set(letters) <= set("abcde")


@check(
    "5.3",
    "the moved and the mirrored slice are found",
    "choose Flicker and go through the slices: what jumps, and what turns round?",
)
def finds_places(letters):
    return displaced(letters) == displaced(PLANTED)


@check(
    "5.3",
    "the two wrong densities are found",
    "wipe through all slices twice: once in the brain window, once in the bone window",
)
def finds_densities(letters):
    return letters == PLANTED


def displaced(letters) -> list[str]:
    """The letters of moved and mirrored slices; "" stands for another one."""
    return [letter if letter in "bc" else "" for letter in letters]


@check("5.4", "the table has this patient", "copy the name from the first column of the table")
def is_in_the_table(patient, scores):
    return patient in set(scores["patient"])


@check(
    "5.4",
    "no other patient has a lower bone Dice",
    "the table is sorted by its first number: go down the column of the second, or find the "
    "lowest dot",
)
def has_the_lowest_dice(patient, scores):
    dice = scores[scores["metric"] == "bone Dice"].set_index("patient")["value"]
    return dice[patient] == dice.min()

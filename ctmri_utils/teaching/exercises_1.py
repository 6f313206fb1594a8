"""Checks of the exercises of lesson 1: greys, MR scales, the bleed on two scans, and a folder."""

from __future__ import annotations

import numpy as np

from ..masks import mri_head_mask
from ..scans.physics import TISSUES
from ..scans.unpaired import UnpairedScans
from ..units import HU, mri_scale
from ..windows import WINDOWS
from .checking import check


def tissues_apart_hu() -> float:
    return TISSUES["grey matter"].hu - TISSUES["white matter"].hu


@check("1.1", "your answer is a number of greys, not of HU", "how many HU is one grey step?")
def counts_greys(greys):
    return abs(float(greys) - tissues_apart_hu()) > 0.5


@check(
    "1.1",
    "it belongs to the brain window",
    "all greys share the window's width: which part of it lies between the two means?",
)
def fits_brain_window(greys):
    expected = tissues_apart_hu() / WINDOWS["brain"].width * 255
    return abs(float(greys) - expected) < 0.3


def largest_difference(mri: np.ndarray, changed: np.ndarray) -> float:
    """Between the network's values of two volumes of one head, each scaled by its own scale."""
    head = mri_head_mask(mri)
    scaled = [mri_scale(volume, head).to_network(volume) for volume in (mri, changed)]
    return float(np.abs(scaled[1] - scaled[0]).max())


@check("1.2", "your answer is two numbers", "write them as a tuple, the line's number first")
def two_differences(differences, mri):
    return len(differences) == 2 and bool(np.isfinite(np.array(differences, float)).all())


@check(
    "1.2",
    "gain and offset cancel",
    "does each volume have a scale of its own, from its own percentiles?",
)
def line_cancels(differences, mri):
    return abs(float(differences[0])) < 0.001


@check(
    "1.2",
    "the curve's difference is the largest one of the whole volume",
    "take the absolute difference of the two volumes in the network's range, then its maximum",
)
def curve_remains(differences, mri):
    expected = largest_difference(mri, np.clip(mri, 0, None) ** 1.5)
    return abs(float(differences[1]) - expected) < 0.01 * expected


def bleed_contrast(truth) -> tuple[float, float]:
    """HU of the bleed above white matter, and its share of white matter's MR signal."""
    white = truth.labels == TISSUES["white matter"].label
    on_ct = truth.ct_hu_clean[truth.lesion].mean() - truth.ct_hu_clean[white].mean()
    on_mri = truth.mri_clean[truth.lesion].mean() / truth.mri_clean[white].mean()
    return float(on_ct), float(on_mri)


@check(
    "1.3",
    "on CT your number is a difference in HU, bleed minus white matter",
    "take the mean HU of the two regions, `truth.lesion` and the label of white matter",
)
def ct_difference(contrast, truth):
    return abs(float(contrast[0]) - bleed_contrast(truth)[0]) < 2


@check(
    "1.3",
    "on MR it is a share of white matter's signal",
    "MR has no unit: divide one mean by the other",
)
def mri_share(contrast, truth):
    return abs(float(contrast[1]) - bleed_contrast(truth)[1]) < 0.02


@check("1.4", "your folder holds CT in HU", "what does the column `unit` say of the CT files?")
def in_hu(scans: UnpairedScans, people):
    return scans.ct_scale.unit == HU.unit


@check(
    "1.4",
    "it holds two slices of each kind, at 128 pixels",
    "which files lie in the four subfolders, and what does `scans_size` ask for?",
)
def two_of_each(scans: UnpairedScans, people):
    tensors = (scans.train.ct, scans.train.mri, scans.test.ct, scans.test.mri)
    return all(tuple(slices.shape) == (2, 1, 128, 128) for slices in tensors)


@check(
    "1.4",
    "the CT comes back to within 1 HU",
    "a PNG holds no negative numbers: do `gain` and `offset` undo what you did about that?",
)
def comes_back(scans: UnpairedScans, people):
    true_hu = people.ct_hu[:4].clip(HU.low, HU.high)
    ct_hu = scans.ct_scale.from_network(np.concatenate([scans.train.ct, scans.test.ct])[:, 0])

    # The files may have any names, so any order.
    errors = []
    for image in ct_hu:
        errors.append(min(np.abs(image - true).max() for true in true_hu))
    return max(errors) < 1

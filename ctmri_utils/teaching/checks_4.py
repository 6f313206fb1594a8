"""Checks of assignment 4: metrics, pitfalls and a failure analysis."""

from __future__ import annotations

import math

import numpy as np

from .checking import check, refuses

ALL = np.ones((1, 4), dtype=bool)
LEFT = np.array([[True, True, False, False]])


@check("A4.1", "a NaN outside the mask does not matter", "NaN times zero is NaN")
def ignores_nan(masked_mae):
    pred = np.array([[1.0, 2.0, math.nan, math.nan]])
    return math.isfinite(masked_mae(pred, np.zeros((1, 4)), LEFT))


@check("A4.1", "an empty mask is refused", "which error does the text ask for?")
def refuses_empty(masked_mae):
    return refuses(masked_mae, np.zeros((1, 4)), np.zeros((1, 4)), ~ALL)


@check("A4.2", "both images are clipped", "a value beyond the range is not an error beyond it")
def clips(psnr_db):
    far, edge = np.full((1, 4), 9000.0), np.full((1, 4), 100.0)
    return psnr_db(far, edge, ALL, 0, 100) == math.inf == psnr_db(edge, far, ALL, 0, 100)


@check("A4.2", "the range is Q", "Q is high - low, not the maximum")
def uses_range(psnr_db):
    one, two = np.full((1, 4), 10.0), np.full((1, 4), 20.0)
    return math.isclose(psnr_db(one, two, ALL, 0, 100), psnr_db(one, two, ALL, -50, 50))


@check("A4.3", "no bone at all has no answer", "0 and 1 would both be a claim")
def has_no_answer(bone_dice):
    return math.isnan(bone_dice(np.zeros((1, 4)), np.zeros((1, 4)), ALL))


@check("A4.3", "bone outside the mask does not count", "apply the mask to both images")
def masked_bone(bone_dice):
    pred = np.array([[900.0, 0.0, 900.0, 900.0]])
    return bone_dice(pred, np.array([[900.0, 0.0, 0.0, 0.0]]), LEFT) == 1


@check("A4.4", "the truth decides the class", "may the model choose its own exam?")
def classes_of_truth(tissue_mae):
    errors = tissue_mae(np.zeros((1, 4)), np.full((1, 4), 1000.0), ALL)
    return math.isfinite(errors["bone"]) and math.isnan(errors["soft"])


@check("A4.4", "a class that does not occur has nan", "what is the mean of nothing?")
def nan_for_missing(tissue_mae):
    errors = tissue_mae(np.zeros((1, 4)), np.zeros((1, 4)), ALL)
    return math.isnan(errors["air"]) and math.isnan(errors["bone"]) and errors["soft"] == 0


@check("A4.5", "every patient counts once", "average over the slices of each patient first")
def patients_count(patient_interval):
    mean, _, _ = patient_interval([0.0] * 9 + [10.0], ["a"] * 9 + ["b"], seed=0)
    return mean == 5


@check("A4.5", "patients are drawn, not slices", "one patient leaves nothing to draw")
def draws_patients(patient_interval):
    _, low, high = patient_interval([0.0, 10.0, 20.0], ["a"] * 3, seed=0)
    return low == high


@check("A4.5", "the same seed gives the same interval", "make one generator, from the seed")
def repeats(patient_interval):
    values, patients = [1.0, 5.0, 2.0, 8.0], ["a", "b", "c", "d"]
    return patient_interval(values, patients, seed=3) == patient_interval(values, patients, seed=3)


@check("A4.6", "a brighter picture keeps its contrast", "the lesion minus what?")
def uses_reference(contrast_recovery):
    true = np.array([[80.0, 80.0, 20.0, 20.0]])
    return math.isclose(contrast_recovery(true + 100, true, LEFT, ~LEFT), 1)


@check("A4.6", "a truth without contrast is refused", "which error does the text ask for?")
def refuses_flat(contrast_recovery):
    flat = np.full((1, 4), 40.0)
    return refuses(contrast_recovery, flat, flat, LEFT, ~LEFT)

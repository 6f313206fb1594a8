"""Synthetic CT volumes scored against the true ones, patient by patient, as challenges do it.

`evaluation_files` finds the patients and writes the results.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import ndimage

from ..discovery import printable
from ..evaluation.predictors import SOFT_TISSUE_HU, linear_regression, lookup_table
from ..evaluation.scores import SCORE_COLUMNS
from ..evaluation.volume_scores import VOLUME_METRICS, score_volume
from ..masks import volume_head_mask
from ..units import AIR_HU, mri_scale
from .axial_slices import axial, nearest_axes, resample
from .input_checks import with_air
from .pairs import PairedVolumes, covered, same_grid
from .volume import CT_REACHES, Volume, check_even, voxel_sides_mm

SYNTHETIC_CT = "synthetic CT"

# Fits of HU on the MR value, on at most this many voxels of each patient.
FITS = {"linear regression": linear_regression, "lookup E[CT | MR]": lookup_table}
MOST_SAMPLES = 100_000


@dataclass(frozen=True)
class Case:
    """The files of one patient.

    Args:
        name: for tables.
        read: reads the true CT, the MR if there is one, the mask if there is one.
        predict: makes or reads the synthetic CT from what `read` gave.
    """

    name: str
    read: Callable[[], PairedVolumes]
    predict: Callable[[PairedVolumes], Volume]


@dataclass(frozen=True)
class Evaluation:
    """The scores of all patients.

    Args:
        scores: a row for each method, patient and metric, as of `evaluation.evaluate`.
        notes: on what was left out, assumed or changed.
        shown: by patient, true and synthetic CT of some slices in HU, (2, N, size, size); empty
            unless slices are to be shown.
        failed: how many patients could not be scored.
    """

    scores: pd.DataFrame
    notes: tuple[str, ...]
    shown: dict[str, np.ndarray]
    failed: int


def evaluate_cases(
    cases: list[Case],
    baselines: bool = False,
    slices_shown: int = 0,
    progress: Callable = iter,
) -> Evaluation:
    """Score every patient's synthetic CT on the grid of the true one, inside the mask.

    A patient who cannot be scored is left out, with a note.

    Args:
        cases: the patients.
        baselines: also score what needs no network; where there is an MR, fits on the others.
        slices_shown: how many slices, of all patients together, are kept to be shown.
        progress: wraps the loop over patients.
    """
    rows, notes, shown, failed = [], [], {}, 0
    samples = fit_samples(cases) if baselines else {}
    for case in progress(cases):
        try:
            volumes = case.read()
            mask, mask_notes = scored_region(volumes)
            synthetic_hu, case_notes = predicted_ct(case, volumes, mask)
            predictions = {SYNTHETIC_CT: synthetic_hu}
            if baselines:
                other_samples = [samples[name] for name in samples if name != case.name]
                predictions |= baseline_predictions(volumes, mask, other_samples)
            scores = score_rows(case.name, volumes.ct, mask, predictions)
            if slices_shown:
                most = max(1, slices_shown // len(cases))
                shown[case.name] = viewer_slices(volumes.ct, synthetic_hu, most)
        except (ValueError, OSError) as error:
            failed += 1
            notes.append(f"{case.name} is left out: {error}")
            continue

        rows += scores
        case_notes += [
            f"{metric} is undefined: volume or mask are too small for its windows"
            for method, _, metric, value in scores
            if method == SYNTHETIC_CT and VOLUME_METRICS[metric].has_windows and np.isnan(value)
        ]
        notes += [f"{case.name}: {note}" for note in (*volumes.ct.notes, *case_notes, *mask_notes)]
    scores = pd.DataFrame(rows, columns=SCORE_COLUMNS)
    return Evaluation(scores, tuple(printable(note) for note in notes), shown, failed)


def score_rows(
    name: str, truth: Volume, mask: np.ndarray, predictions: dict[str, np.ndarray]
) -> list[tuple]:
    """Rows of method, patient, metric and value."""
    order, spacing_mm = axial_order(truth)
    true_hu, mask = truth.values.transpose(order), mask.transpose(order)
    rows = []
    for method, predicted in predictions.items():
        scored = score_volume(predicted.transpose(order), true_hu, mask, spacing_mm)
        rows += [(method, name, metric, value) for metric, value in scored.items()]
    return rows


def predicted_ct(
    case: Case, volumes: PairedVolumes, mask: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """The synthetic CT in HU on the grid of the true one, and notes."""
    synthetic = case.predict(volumes)
    values, notes = resampled_onto(synthetic, volumes.ct)

    scored = np.argwhere(mask).T  # (3, K)
    beyond = np.mean(~covered(synthetic, volumes.ct.affine, scored)) if notes else 0
    if beyond == 1:
        raise ValueError(
            "its synthetic CT does not cover the region to score: give both in the same coordinates"
        )
    if beyond:
        notes.append(
            f"{beyond:.1%} of the scored region lies outside the synthetic CT, and was taken as air"
        )
    return values, [*synthetic.warnings, *synthetic.notes, *notes]


def resampled_onto(volume: Volume, truth: Volume) -> tuple[np.ndarray, list[str]]:
    """A volume's values on the grid of another one, and a note if they had to be resampled."""
    for scan in (volume, truth):
        check_even(scan, "scores are of evenly spaced ones: resample it evenly first")
    if same_grid(volume, truth):
        return volume.values, []
    values = resample(
        volume.values, volume.affine, truth.affine, truth.values.shape, volume.background
    )
    return values, ["the grids differ: it was resampled onto that of the true CT"]


def scored_region(volumes: PairedVolumes) -> tuple[np.ndarray, list[str]]:
    """Where to score, (I, J, K) bool: the mask, or the head in the true CT; and notes."""
    truth, mask = volumes.ct, volumes.mask
    if mask is None:
        values, notes = with_air(truth.values)
        order, _ = axial_order(truth)
        order_back = np.argsort(order)
        head = volume_head_mask(values.transpose(order), "ct").transpose(order_back)
        return head, [*notes, "no mask was given, so the head in the true CT was scored"]

    notes = [f"the mask: {note}" for note in mask.notes]
    low, high = truth.values.min(), truth.values.max()
    if low > CT_REACHES:
        notes.append(
            f"the true CT shows no air, with values of {low:.0f} to {high:.0f} HU: if it was "
            "clipped to a window, the scores are wrong"
        )
    if same_grid(mask, truth):
        return mask.values > 0, notes

    values = resample(mask.values, mask.affine, truth.affine, truth.values.shape, 0) > 0.5
    if not values.any():
        raise ValueError("its mask lies outside the true CT: give the mask of this scan")
    return values, [*notes, "the mask was resampled onto the grid of the true CT"]


def axial_order(volume: Volume) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """How to transpose a volume so that axial slices come first, then rows; its spacing then.

    No axis is turned over: an axial file keeps the order in which challenges read it.
    """
    sides_mm = voxel_sides_mm(volume.affine)
    x_axis, y_axis, z_axis = nearest_axes(volume.affine[:3, :3] / sides_mm)
    order = (z_axis, y_axis, x_axis)
    return order, tuple(float(sides_mm[axis]) for axis in order)


def fit_samples(cases: list[Case]) -> dict[str, np.ndarray]:
    """Voxels of every patient who has an MR, for the fits on the others: (2, K), MR and HU."""
    samples = {}
    for case in cases:
        try:
            volumes = case.read()
            if volumes.mri is not None:
                mask, _ = scored_region(volumes)
                step = math.ceil(mask.sum() / MOST_SAMPLES)
                ct_hu = volumes.ct.values[mask].astype(float)
                samples[case.name] = np.stack([scaled_mri(mask, volumes), ct_hu])[:, ::step]
        except (ValueError, OSError):
            # Scoring will say what is wrong.
            continue
    return samples


def scaled_mri(mask: np.ndarray, volumes: PairedVolumes) -> np.ndarray:
    """The MR at the voxels of the mask, (K,) in [-1, 1]."""
    mri, _ = resampled_onto(volumes.mri, volumes.ct)
    return mri_scale(mri, mask).to_network(mri)[mask].astype(float)


def baseline_predictions(
    volumes: PairedVolumes, mask: np.ndarray, other_samples: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """What a synthetic CT must beat, without a network: method -> CT in HU on the true one's grid.

    40 HU in the mask, and the true CT one voxel further from side to side. If there is an MR, also
    least-squares fits of HU on its value, made on the other patients, see `fit_samples`.
    """
    (_, _, side_to_side), _ = axial_order(volumes.ct)
    one_voxel = np.eye(3)[side_to_side]
    predictions = {
        "constant": np.where(mask, SOFT_TISSUE_HU, AIR_HU),
        "true CT, 1 px off": ndimage.shift(volumes.ct.values, one_voxel, order=0, cval=AIR_HU),
    }
    if not other_samples or volumes.mri is None:
        return predictions

    known_mri, known_hu = np.concatenate(other_samples, axis=1)
    mri = scaled_mri(mask, volumes)
    for name, fit in FITS.items():
        predictions[name] = np.full(mask.shape, AIR_HU)
        predictions[name][mask] = fit(known_mri, known_hu)(mri)
    return predictions


def viewer_slices(truth: Volume, synthetic: np.ndarray, most: int) -> np.ndarray:
    """Some axial slices of both, evenly chosen from those with a head, (2, N, size, size)."""
    stack = axial(truth)
    levels = np.flatnonzero(stack.head.any((1, 2)))
    levels = levels[:: math.ceil(len(levels) / most)]
    synthetic = resample(synthetic, truth.affine, stack.affine, stack.values.shape, AIR_HU)
    return np.stack([stack.values[levels], synthetic[levels]])

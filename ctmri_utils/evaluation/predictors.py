"""What predicts CT from MR: a network, and the baselines that it must beat.

A predictor takes a test `Split` and returns CT in HU, float (N, H, W), from its MR alone: even the
head's outline comes from the MR. (Two baselines cheat on purpose and say so.)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage, stats

from ..cyclegan.model import Translator
from ..masks import ct_head_mask, mri_head_mask
from ..scans.phantom import SyntheticPatients
from ..scans.physics import TISSUES
from ..scans.unpaired import Split, Truth
from ..units import AIR_HU, HU, Scale, mri_scale
from .checked_inputs import check_unit
from .splits import slices_by_patient, truth_of

Predictor = Callable[[Split], np.ndarray]

# Maps the MR values (K,) of one head, in [-1, 1], to HU.
ToHu = Callable[[np.ndarray], np.ndarray | float]

# The constant prediction lies between grey matter and muscle.
SOFT_TISSUE_HU = 40.0

# Bins of the lookup table over the network's [-1, 1].
MRI_BINS = 64


def as_predictor(model: Translator, ct_scale: Scale, averaged: bool = True) -> Predictor:
    """The predictor that translates MR into CT with a network.

    Args:
        model: translates (N, C, H, W) in [-1, 1].
        ct_scale: of the network's CT, in HU.
        averaged: whether to use the running mean of the weights or the last ones.

    Returns:
        A predictor of CT in HU.

    Raises:
        ValueError: ct_scale is not in HU.
    """
    check_unit(ct_scale)

    def predict(split: Split) -> np.ndarray:
        fake_ct = model.translate(split.mri, "ct", averaged)
        return ct_scale.from_network(fake_ct)[:, 0].cpu().numpy()

    return predict


def baselines(
    unpaired: Split, paired: SyntheticPatients | Split | None, seed: int, ct_scale: Scale = HU
) -> dict[str, Predictor]:
    """Predictors that a network must beat, from the least to the most informed.

    - "constant": 40 HU in the head.
    - "another patient": a training CT, drawn with the seed for every test slice.
    - "histogram matching": each test patient's MR values in the head, replaced rank by rank with
      the HU of all training CTs in theirs. What the scale clipped stays clipped.
    - "linear regression" and "lookup E[CT | MR]" (64 bins): least squares on all pixels of the
      training pairs' heads.
    - "true CT, 1 px off" sees the truth: what misregistration costs.
    - "oracle labels" sees each pixel's tissue: what anatomy alone gives, with population means.
      Only synthetic patients have it.

    The constant, the matching and the fits are -1000 HU outside the head.

    Args:
        unpaired: the training split.
        paired: training patients with both scans, None to leave out the two fits. With a split of
            real pairs, which have no labels, the oracle is left out.
        seed: of the draw of other patients.
        ct_scale: of the training CT, in HU.

    Returns:
        Name -> predictor.

    Raises:
        ValueError: the CT is not in HU, or (from a fit) a test patient was among its pairs.
    """
    check_unit(ct_scale)
    training_hu = ct_scale.from_network(unpaired.ct[:, 0].cpu().numpy())  # (N, H, W)

    predictors = {
        "constant": constant,
        "another patient": another_patient(training_hu, seed),
        "histogram matching": histogram_matching(training_hu[ct_head_mask(training_hu)]),
    }
    if paired is not None:
        predictors |= fitted_on_pairs(paired)
    predictors["true CT, 1 px off"] = shifted_truth
    pairs_lack_labels = isinstance(paired, Split) and isinstance(paired.truth, Truth)
    if not pairs_lack_labels:
        predictors["oracle labels"] = oracle_labels
    return predictors


def constant(split: Split) -> np.ndarray:
    """Soft tissue everywhere in the head."""
    return inside_head(split, lambda mri: SOFT_TISSUE_HU)


def another_patient(training_hu: np.ndarray, seed: int) -> Predictor:
    """A random training CT for every test slice."""

    def predict(split: Split) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return training_hu[rng.integers(len(training_hu), size=len(split.mri))]

    return predict


def histogram_matching(training_hu: np.ndarray) -> Predictor:
    """MR values replaced rank by rank with the HU (K,) of training heads."""
    training_hu = np.sort(training_hu)
    count = len(training_hu)

    def to_hu(mri: np.ndarray) -> np.ndarray:
        share_below = (stats.rankdata(mri) - 0.5) / len(mri)
        return np.interp(share_below * count - 0.5, np.arange(count), training_hu)

    return lambda split: inside_head(split, to_hu)


def shifted_truth(split: Split) -> np.ndarray:
    """The true CT, one pixel to the right."""
    return ndimage.shift(truth_of(split).ct_hu, (0, 0, 1), order=0, cval=AIR_HU)


def oracle_labels(split: Split) -> np.ndarray:
    """The population mean of every pixel's true tissue."""
    tissue_hu = np.array([tissue.hu for tissue in TISSUES.values()])
    return tissue_hu[truth_of(split).labels]


def fitted_on_pairs(paired: SyntheticPatients | Split) -> dict[str, Predictor]:
    """The two least-squares fits of HU on the MR value, pixel by pixel."""
    if isinstance(paired, Split):
        truth = truth_of(paired)
        scans = paired.mri[:, 0].cpu().numpy()
    else:
        truth = paired
        scans = np.stack(
            [mri_scale(scan, mri_head_mask(scan)).to_network(scan) for scan in paired.mri]
        )

    heads = np.stack([mri_head_mask(scan) for scan in scans])
    mri = scans[heads].astype(float)
    ct_hu = truth.ct_hu[heads].astype(float)
    training_patients = patient_identities(paired)

    return {
        "linear regression": for_unseen_patients(training_patients, linear_regression(mri, ct_hu)),
        "lookup E[CT | MR]": for_unseen_patients(training_patients, lookup_table(mri, ct_hu)),
    }


def linear_regression(mri: np.ndarray, ct_hu: np.ndarray) -> ToHu:
    """The straight line that fits HU to MR values best, both (K,)."""
    line = stats.linregress(mri, ct_hu)
    return lambda values: line.slope * values + line.intercept


def lookup_table(mri: np.ndarray, ct_hu: np.ndarray) -> ToHu:
    """The mean HU in each of 64 bins of the MR value, from pixels (K,)."""
    means, edges, _ = stats.binned_statistic(mri, ct_hu, "mean", MRI_BINS, range=(-1, 1))

    # Empty bins get what their neighbours have.
    occupied = np.flatnonzero(np.isfinite(means))
    means = np.interp(np.arange(MRI_BINS), occupied, means[occupied])
    return lambda values: means[np.digitize(values, edges[1:-1])]


def patient_identities(patients: SyntheticPatients | Split) -> set[str]:
    """Who the patients are: index and seed of synthetic ones, the name of others."""
    truth = patients.truth if isinstance(patients, Split) else patients
    if isinstance(truth, SyntheticPatients):
        return {
            f"index {parameters['index']} of seed {parameters['seed']}"
            for parameters in truth.parameters
        }
    return set(patients.mri_patients)


def for_unseen_patients(training_patients: set[str], to_hu: ToHu) -> Predictor:
    """A predictor that refuses the patients it was fitted on."""

    def predict(split: Split) -> np.ndarray:
        seen = sorted(patient_identities(split) & training_patients) if split.paired else []
        if seen:
            raise ValueError(
                f"{len(seen)} test patients (first: {seen[0]}) are also paired training "
                "patients, so this fit has seen the answers: fit it on other people, or draw the "
                "pairs with another seed"
            )
        return inside_head(split, to_hu)

    return predict


def inside_head(split: Split, to_hu: ToHu) -> np.ndarray:
    """CT in HU (N, H, W): to_hu of each patient's MR inside the head it shows, air elsewhere."""
    mri = split.mri[:, 0].cpu().numpy()
    ct_hu = np.full(mri.shape, AIR_HU)

    for slices in slices_by_patient(split.mri_patients).values():
        head = np.zeros(mri.shape, bool)
        head[slices] = mri_head_mask(mri[slices])
        ct_hu[head] = to_hu(mri[head])
    return ct_hu

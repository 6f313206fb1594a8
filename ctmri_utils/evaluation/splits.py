"""Patients and their slices: splits by patient, leaks between splits, and the paired truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ..scans.phantom import SyntheticPatients
from ..scans.unpaired import Split, Truth

# Slices that correlate more are copies. Neighbours 1.5 mm apart in `data/scans` reach 0.9996.
SAME_SLICE = 0.9999


def split_by_patient(
    patients: Sequence[str], test_share: float, seed: int
) -> tuple[list[int], list[int]]:
    """Split slices into training and test, every patient wholly on one side.

    Args:
        patients: one name per slice.
        test_share: of the patients, between 0 and 1. Each side gets at least one patient.
        seed: of the draw.

    Returns:
        The indices of the training slices and of the test slices.

    Raises:
        ValueError: there are fewer than two patients, or the share is not between 0 and 1.
    """
    names = sorted(set(patients))
    if len(names) < 2 or not 0 < test_share < 1:
        raise ValueError(
            "a split by patient needs two patients or more and a share between 0 and 1, got "
            f"{len(names)}, {test_share}"
        )

    count = min(max(1, round(test_share * len(names))), len(names) - 1)
    held_out = set(np.random.default_rng(seed).permutation(names)[:count])
    training = [i for i, patient in enumerate(patients) if patient not in held_out]
    test = [i for i, patient in enumerate(patients) if patient in held_out]
    return training, test


def shared_slices(split_a: Split, split_b: Split) -> list[tuple[str, str, str]]:
    """Find every slice that is in both splits, whatever it is called.

    Copies correlate above 0.9999, also when rescaled or saved again with 8 bits. Slices of one
    patient 1.5 mm apart do not.

    Args:
        split_a: one side, usually training.
        split_b: the other side, its slices of the same size in pixels.

    Returns:
        ("ct" or "mri", name in split_a, name in split_b) of each. Empty is good.

    Raises:
        ValueError: the slices differ in size.
    """
    modalities = (
        ("ct", split_a.ct, split_b.ct, split_a.ct_names, split_b.ct_names),
        ("mri", split_a.mri, split_b.mri, split_a.mri_names, split_b.mri_names),
    )
    shared = []
    for modality, images_a, images_b, names_a, names_b in modalities:
        if images_a.shape[1:] != images_b.shape[1:]:
            raise ValueError(
                f"{modality} slices of {tuple(images_a.shape[1:])} and "
                f"{tuple(images_b.shape[1:])} cannot be compared: load both at one size"
            )
        correlations = centred_unit_rows(images_a) @ centred_unit_rows(images_b).T
        for i, j in (correlations > SAME_SLICE).nonzero().tolist():
            shared.append((modality, names_a[i], names_b[j]))
    return shared


def centred_unit_rows(images: Tensor) -> Tensor:
    """Each image as a row without its mean and with norm 1, (N, pixels)."""
    pixels = images.flatten(1)
    centred = pixels - pixels.mean(1, keepdim=True)
    return centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-3)


def slices_by_patient(patients: Sequence[str]) -> dict[str, list[int]]:
    """The indices of each patient's slices, patients in the order of their first slice."""
    slices = {}
    for i, patient in enumerate(patients):
        slices.setdefault(patient, []).append(i)
    return slices


def truth_of(split: Split) -> SyntheticPatients | Truth:
    """The paired truth of a split; ValueError if it has none."""
    if not split.paired:
        raise ValueError(
            "paired metrics need one slice of one person in CT and MR, and this set's CT and MR "
            "are different people: use cycle_error, the outline's mask_dice or kid instead"
        )
    if split.truth is None:
        raise ValueError(
            "errors in HU need CT in HU, but these pairs are pictures in grey levels: prepare them "
            "from volumes"
        )
    return split.truth

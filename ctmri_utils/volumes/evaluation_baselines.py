"""What a synthetic CT volume must beat: predictions that need no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..evaluation.predictors import SOFT_TISSUE_HU, linear_regression, lookup_table
from ..units import AIR_HU, mri_scale

# So many voxels of each person are fitted.
MOST_SAMPLES = 100_000


@dataclass(frozen=True)
class Samples:
    """Voxels of one person: MR in [-1, 1] and CT in HU, (K,) each."""

    mri: np.ndarray
    ct_hu: np.ndarray


def samples_of(mri: np.ndarray, ct_hu: np.ndarray, mask: np.ndarray) -> Samples:
    """Voxels of a person, evenly chosen from those in the mask.

    Args:
        mri: (I, J, K), any unit, on the CT's grid.
        ct_hu: same shape.
        mask: same shape, bool.
    """
    every = -(-int(mask.sum()) // MOST_SAMPLES)
    scaled = mri_scale(mri, mask).to_network(mri)
    return Samples(scaled[mask][::every].astype(float), ct_hu[mask][::every].astype(float))


def without_mri(ct_hu: np.ndarray, mask: np.ndarray, right_to_left: int) -> dict[str, np.ndarray]:
    """40 HU in the mask, and the true CT one voxel further along the axis from side to side."""
    step = np.zeros(ct_hu.ndim)
    step[right_to_left] = 1
    return {
        "constant": np.where(mask, SOFT_TISSUE_HU, AIR_HU),
        "true CT, 1 px off": ndimage.shift(ct_hu, step, order=0, cval=AIR_HU),
    }


def fits(others: Sequence[Samples], mri: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """The two least-squares fits of HU on the MR value, made on other people.

    Args:
        others: voxels of people who are not scored with these fits.
        mri: (I, J, K), any unit.
        mask: same shape, bool; outside of it is air.
    """
    known_mri = np.concatenate([one.mri for one in others])
    known_hu = np.concatenate([one.ct_hu for one in others])
    values = mri_scale(mri, mask).to_network(mri)[mask].astype(float)

    predictions = {}
    for name, fit in (
        ("linear regression", linear_regression),
        ("lookup E[CT | MR]", lookup_table),
    ):
        predictions[name] = np.full(mask.shape, AIR_HU)
        predictions[name][mask] = fit(known_mri, known_hu)(values)
    return predictions

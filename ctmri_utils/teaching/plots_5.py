"""Figures and tables of lesson 5: what a display shows and hides."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..evaluation.checked_inputs import AIR_BELOW_HU
from ..evaluation.metrics import BONE_ABOVE_HU
from ..viewers import figures
from ..viewers.figures import ImageRow
from .exercises_5 import PLANTED


def same_and_own_window(ct_hu: np.ndarray, denser_hu: float) -> Figure:
    """A slice and a denser copy: in one window, and each in a window fitted to itself.

    Args:
        ct_hu: (H, W) in HU.
        denser_hu: what is added to every pixel of the copy.
    """
    pair = np.stack([ct_hu, ct_hu + denser_hu])
    low, high = pair.min(axis=(1, 2)), pair.max(axis=(1, 2))
    fitted = (pair - low[:, None, None]) / (high - low)[:, None, None]
    rows = {"brain window,\nthe same for both": figures.ct_row(pair, "brain")}
    rows["its own smallest\nto largest value"] = ImageRow(fitted, 0, 1)
    return figures.montage(rows, ["true CT", f"{denser_hu:.0f} HU denser"], size=2)


def error_by_tissue(fake_hu: np.ndarray, true_hu: np.ndarray, head: np.ndarray) -> pd.DataFrame:
    """Which share of a head is air, soft tissue and bone, and which share of the error they hold.

    Args:
        fake_hu: translated CT (H, W) in HU.
        true_hu: same shape; decides which tissue a pixel is.
        head: bool, same shape.
    """
    error = np.abs(fake_hu - true_hu)[head].astype(float)
    tissue = np.digitize(true_hu[head], [AIR_BELOW_HU, BONE_ABOVE_HU])
    names = ("air in the head", "soft tissue", "bone")
    shares = {
        "% of the head": [100 * np.mean(tissue == k) for k in range(3)],
        "% of its error": [100 * error[tissue == k].sum() / error.sum() for k in range(3)],
    }
    return pd.DataFrame(shares, index=names)


def planted_errors(ct_hu: np.ndarray) -> np.ndarray:
    """Copies of five slices with the errors of exercise 3, one a slice.

    Args:
        ct_hu: (5, H, W) in HU.
    """
    planted = ct_hu.astype(float)
    # "a" stays as it is.
    slices = dict(zip(PLANTED, planted, strict=True))

    # Two pixels to the right.
    slices["b"][:] = np.roll(slices["b"], 2, axis=1)
    slices["c"][:] = mirrored(slices["c"])

    # Denser brain, and denser bone.
    slices["d"][(slices["d"] > 0) & (slices["d"] < 100)] += 15
    slices["e"][slices["e"] > BONE_ABOVE_HU] += 300
    return planted


def mirrored(ct_hu: np.ndarray) -> np.ndarray:
    """A slice about the middle of its head, so that the outline stays where it was."""
    columns = np.flatnonzero((ct_hu > -300).any(axis=0))
    middle = columns[0] + columns[-1] + 1 - ct_hu.shape[1]
    return np.roll(ct_hu[:, ::-1], middle, axis=1)

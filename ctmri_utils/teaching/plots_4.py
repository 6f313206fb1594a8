"""Figures and tables of lesson 4: translations beside the truth, and sets beside each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from ..evaluation.distributions import FEWEST_FOR_KID, fid
from ..evaluation.features import features, kid_of
from ..viewers import figures
from ..viewers.figures import ImageRow

# Bins of the Bland-Altman plot, and the fewest pixels that make a percentile of one.
HU_EDGES = np.arange(-1000, 1401, 100)
FEWEST_PIXELS = 20


def truth_rows(
    mri: Tensor, fake_ct_hu: np.ndarray, true_ct_hu: np.ndarray, window: str = "everything"
) -> dict[str, ImageRow]:
    """Rows of a montage: MR, translated CT, true CT, and their difference.

    Args:
        mri: (N, 1, H, W) in [-1, 1].
        fake_ct_hu: (N, H, W) in HU.
        true_ct_hu: same shape, in HU.
        window: of both CTs.
    """
    return {
        "mri": figures.network_row(mri),
        "fake_ct": figures.ct_row(fake_ct_hu, window),
        "true ct": figures.ct_row(true_ct_hu, window),
        "error": figures.difference_row(fake_ct_hu - true_ct_hu, 500),
    }


def skull_profile(ct_hu: dict[str, np.ndarray], spacing_mm: float, length_mm: float = 35) -> Figure:
    """HU along the middle row of one slice, from the air on the left through the skull.

    Args:
        ct_hu: {label: (H, W) in HU}. The first one is the true CT, and says where the head begins.
        spacing_mm: pixel size.
        length_mm: how much of the row is drawn.
    """
    true_hu = next(iter(ct_hu.values()))
    middle = true_hu.shape[0] // 2
    first = int(np.argmax(true_hu[middle] > -500)) - 2
    columns = slice(first, first + round(length_mm / spacing_mm))
    across_mm = np.arange(columns.stop - columns.start) * spacing_mm

    figure, axis = figures.line_axis("mm along the row, one dot a pixel", "HU", 3.2)
    axis.set_prop_cycle(color=("black", *figures.COLOURS[:5]), linestyle=figures.DASHES)
    for label, image in ct_hu.items():
        axis.plot(across_mm, image[middle, columns], marker="o", markersize=3, label=label)
    axis.lines[0].set_linewidth(2.5)
    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def bland_altman(error_hu: np.ndarray, true_hu: np.ndarray) -> Figure:
    """Mean error, and the range of 95 % of the errors, in bins of 100 HU of the true CT.

    Args:
        error_hu: prediction minus truth, (K,) in HU.
        true_hu: the same pixels of the true CT, (K,).
    """
    bin_of = np.digitize(true_hu, HU_EDGES)
    bins = [error_hu[bin_of == i] for i in range(1, len(HU_EDGES))]
    bins = [inside if len(inside) > FEWEST_PIXELS else np.array([np.nan]) for inside in bins]
    lines = {
        "97.5 % lie below": [np.percentile(inside, 97.5) for inside in bins],
        "mean error": [inside.mean() for inside in bins],
        "2.5 % lie below": [np.percentile(inside, 2.5) for inside in bins],
    }
    return figures.curves(lines, "true HU", "error in HU", x=HU_EDGES[:-1] + 50)


def cumulative(values: dict[str, np.ndarray], x_label: str, x_range: tuple[float, float]) -> Figure:
    """How many percent of the values lie below each value.

    Args:
        values: {label: an array of any shape}.
        x_label: with its unit.
        x_range: what is drawn of it.
    """
    percent = np.linspace(0, 100, 400)
    figure, axis = figures.line_axis(x_label, "% of the pixels below")
    for label, array in values.items():
        axis.plot(np.percentile(array, percent), percent, label=label)
    axis.set_xlim(x_range)
    axis.legend(fontsize=8, frameon=False)
    return figure


def set_distances(sets: dict[str, Sequence[Tensor]], extractor: str, seed: int) -> pd.DataFrame:
    """KID and FID of pairs of image sets; of pairs with too few images neither.

    Args:
        sets: {label: two tensors (N, 1, H, W) in [-1, 1]}.
        extractor: the network whose features are compared.
        seed: of the KID's bootstrap.

    Returns:
        Columns method (the label), metric ("KID"), mean, low, high, n and FID: what
        `figures.interval_plot` draws, and the FID beside it.
    """
    rows = []
    for label, (images_a, images_b) in sets.items():
        row = {"method": label, "metric": "KID", "n": f"{len(images_a)} and {len(images_b)}"}
        if min(len(images_a), len(images_b)) >= FEWEST_FOR_KID:
            kid = kid_of(images_a, images_b, extractor, seed)
            distance = fid(features(images_a, extractor), features(images_b, extractor))
            row |= {"mean": kid.value, "low": kid.low, "high": kid.high, "FID": distance}
        rows.append(row)
    columns = ["method", "metric", "n", "mean", "low", "high", "FID"]
    return pd.DataFrame(rows).reindex(columns=columns)

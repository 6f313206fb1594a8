"""Statistics over the seeds of a study: means, differences, and their intervals.

A study's results are a table with the columns row, seed, measure and value. Its summaries have the
columns of `evaluation.summarise`, so that `evaluation.table` and `figures.interval_plot` take them:
method is the row, metric the measure, and n counts seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from ..evaluation.scores import SUMMARY_COLUMNS
from ..settings import Settings

COSTS = ("CPU s per step", "memory MB")

# Shares, whose intervals end at 0 and 1.
SHARES = ("lesion TPR", "lesion FPR", "inverted")


def over_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval over seeds of every row and measure, see `mean_interval`.

    The interval of a share is cut off at 0 and 1, which no share can pass.
    """
    summaries = _summaries(results)
    of_shares = summaries["metric"].isin(SHARES)
    for end in ("low", "high"):
        summaries.loc[of_shares, end] = summaries.loc[of_shares, end].clip(0, 1)
    return summaries


def _summaries(results: pd.DataFrame) -> pd.DataFrame:
    rows = [
        (row, measure, *mean_interval(values))
        for (row, measure), values in results.groupby(["row", "measure"], sort=False)["value"]
    ]
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS)


def differences(results: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Every other row minus the reference, seed by seed, with the interval of that difference.

    One seed gives all rows the same patients and first weights.

    Raises:
        ValueError: there is no such row.
    """
    rows = results["row"].unique()
    if reference not in rows:
        raise ValueError(
            f"there is no row {reference!r} to compare with: choose one of {', '.join(rows)}"
        )

    is_reference = results["row"] == reference
    pairs = results[~is_reference].merge(
        results[is_reference], on=["measure", "seed"], suffixes=("", "_of_reference")
    )
    return _summaries(pairs.assign(value=pairs["value"] - pairs["value_of_reference"]))


def core_hours(rows: Mapping[str, Settings], seeds: int, results: pd.DataFrame) -> float:
    """Hours of one core for which so many seeds of these rows train.

    Args:
        rows: name -> settings.
        seeds: how many.
        results: a table with the CPU seconds per step; rows it lacks count as its mean.
    """
    costs = over_seeds(results[results["measure"] == COSTS[0]])
    seconds = costs.set_index("method")["mean"]
    typical = float(np.mean(seconds.to_numpy()))

    one_seed = sum(row.steps * seconds.get(name, typical) for name, row in rows.items())
    return seeds * one_seed / 3600


def mean_interval(values) -> tuple[float, float, float, int]:
    """Mean and 95 % interval of values from different seeds.

    Student's t with n - 1 degrees of freedom, so that three seeds give a wide interval. NaN are
    left out; with fewer than two values there is no interval.

    Args:
        values: (n,), one for each seed.

    Returns:
        The mean, the interval's two ends, and how many values were not NaN.
    """
    values = np.asarray(values, dtype=float)
    kept = values[~np.isnan(values)]
    n = len(kept)
    if n == 0:
        return math.nan, math.nan, math.nan, n

    mean = float(kept.mean())
    if n == 1:
        return mean, math.nan, math.nan, n

    half_width = stats.t.ppf(0.975, n - 1) * kept.std(ddof=1) / math.sqrt(n)
    return mean, float(mean - half_width), float(mean + half_width), n

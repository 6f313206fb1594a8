"""Statistics over the seeds of a study: means, differences, and their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from ..evaluation.scores import Summary
from ..settings import Settings

COSTS = ("CPU s per step", "memory MB")


class Result(NamedTuple):
    """One measurement of one trained model."""

    row: str
    seed: int
    measure: str
    value: float


def over_seeds(results: Sequence[Result]) -> list[Summary]:
    """Mean and 95 % interval over seeds of every row and measure."""
    groups: dict[tuple[str, str], list[float]] = {}
    for result in results:
        groups.setdefault((result.row, result.measure), []).append(result.value)
    return [summary(row, measure, values) for (row, measure), values in groups.items()]


def differences(results: Sequence[Result], reference: str) -> list[Summary]:
    """Every other row minus the reference, seed by seed, with the interval of that difference.

    One seed gives all rows the same patients and first weights.

    Raises:
        ValueError: there is no such row.
    """
    rows = dict.fromkeys(result.row for result in results)
    if reference not in rows:
        raise ValueError(
            f"there is no row {reference!r} to compare with: choose one of {', '.join(rows)}"
        )

    values = {(result.row, result.measure, result.seed): result.value for result in results}
    groups: dict[tuple[str, str], list[float]] = {}
    for (row, measure, seed), value in values.items():
        if row != reference and (reference, measure, seed) in values:
            difference = value - values[reference, measure, seed]
            groups.setdefault((row, measure), []).append(difference)
    return [summary(row, measure, per_seed) for (row, measure), per_seed in groups.items()]


def improvements(
    results: Sequence[Result],
    rows: Mapping[str, Settings],
    reference: str,
    measure: str = "MAE HU",
) -> list[Summary]:
    """The differences that lie below the reference with their whole interval, the lowest first.

    Rows that train with pairs are left out.
    """
    below = [
        difference
        for difference in differences(results, reference)
        if difference.metric == measure
        and difference.high < 0
        and rows[difference.method].sampling != "paired"
    ]
    return sorted(below, key=lambda difference: difference.mean)


def core_hours(rows: Mapping[str, Settings], seeds: int, results: Sequence[Result]) -> float:
    """Hours of one core for which so many seeds of these rows train.

    Args:
        rows: name -> settings.
        seeds: how many.
        results: a table with the CPU seconds per step; rows it lacks count as its mean.
    """
    seconds = {cost.method: cost.mean for cost in over_seeds(results) if cost.metric == COSTS[0]}
    typical = float(np.mean(list(seconds.values())))

    one_seed = sum(row.steps * seconds.get(name, typical) for name, row in rows.items())
    return seeds * one_seed / 3600


def summary(row: str, measure: str, values: Sequence[float]) -> Summary:
    """Mean and 95 % interval of values from different seeds.

    Student's t with n - 1 degrees of freedom, so that three seeds give a wide interval. NaN are
    left out; with fewer than two values there is no interval.
    """
    kept = np.array([value for value in values if not math.isnan(value)])
    n = len(kept)
    if n == 0:
        return Summary(row, measure, math.nan, math.nan, math.nan, n)

    mean = float(kept.mean())
    if n == 1:
        return Summary(row, measure, mean, math.nan, math.nan, n)

    half_width = stats.t.ppf(0.975, n - 1) * kept.std(ddof=1) / math.sqrt(n)
    return Summary(
        row, measure, mean, float(kept.mean() - half_width), float(kept.mean() + half_width), n
    )

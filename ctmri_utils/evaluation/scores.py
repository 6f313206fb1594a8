"""Scoring predictors of CT on pairs: patient by patient, with intervals, tests and tables.

The truth is scored as it is, noise included and not clipped, inside the true head. Predictors are
made in `predictors`, metrics are listed in `ct_metrics`.

Every result is a tidy pandas table. Its `to_csv` keeps every digit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from ..scans.unpaired import Split
from .checked_inputs import check_resamples, checked_spacing
from .ct_metrics import CT_METRICS, Metric
from .metrics import mean_or_nan
from .predictors import Predictor
from .splits import slices_by_patient, truth_of

SCORE_COLUMNS = ["method", "patient", "metric", "value"]
SUMMARY_COLUMNS = ["method", "metric", "mean", "low", "high", "n"]


def evaluate(
    predictors: dict[str, Predictor],
    test: Split,
    spacing_mm: float,
    metrics: Mapping[str, Metric] = CT_METRICS,
) -> pd.DataFrame:
    """Score every predictor on every patient.

    Each slice (H, W) is scored alone. A patient's value is the mean over the slices on which the
    metric is defined. (Challenges score volumes, which gives slightly other numbers.)

    Args:
        predictors: name -> predictor. Give each of several training runs a name of its own.
        test: a paired split.
        spacing_mm: pixel size.
        metrics: name -> metric of one slice.

    Returns:
        Columns method, patient, metric and value, a row for each of the first three. The value is
        NaN where the metric is undefined, such as the bone error of a slice without bone.

    Raises:
        ValueError: the split is not paired, the spacing is unknown, or a prediction cannot be
            scored (naming method, slice and patient).

    Example:
        >>> from ctmri_utils import evaluate, load_scans, settings_for
        >>> scans = load_scans("phantom", settings_for("ci"), seed=2026)
        >>> true_ct = {"true CT": lambda test: test.truth.ct_hu}
        >>> scores = evaluate(true_ct, scans.test, scans.spacing_mm)
        >>> scores.loc[scores["metric"] == "MAE HU", "value"].tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    truth = truth_of(test)
    patients = slices_by_patient(test.ct_patients)
    checked_spacing(spacing_mm, 2)

    scores = []
    for method, predict in predictors.items():
        pred_hu = np.asarray(predict(test))
        if pred_hu.shape != truth.ct_hu.shape:
            raise ValueError(
                f"{method!r} returned {pred_hu.shape}, the truth is {truth.ct_hu.shape}: a "
                "predictor returns one CT in HU per slice, (N, H, W)"
            )
        for patient, slices in patients.items():
            for name, metric in metrics.items():
                values = []
                for i in slices:
                    images = (pred_hu[i], truth.ct_hu[i], truth.head[i])
                    place = f"slice {i} ({test.ct_names[i]}) of patient {patient}, {name}"
                    value = score_slice(metric, images, spacing_mm, f"{method!r} on {place}")
                    if not np.isnan(value):
                        values.append(value)
                scores.append((method, patient, name, mean_or_nan(np.array(values))))
    return pd.DataFrame(scores, columns=SCORE_COLUMNS)


def score_slice(metric: Metric, images: tuple, spacing_mm: float, place: str) -> float:
    """The metric of a prediction, the truth and the head, or ValueError with the place."""
    try:
        return metric(*images, spacing_mm)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def summarise(scores: pd.DataFrame, seed: int, resamples: int = 2000) -> pd.DataFrame:
    """Mean and 95 % percentile bootstrap interval over patients.

    Patients are the unit, never slices. NaN are left out, and n says how many patients remain. All
    cells use the same seed, so methods meet the same draws of patients. With 10 patients such an
    interval covers about 90 %.

    Args:
        scores: of `evaluate`.
        seed: of the bootstrap.
        resamples: at least 40.

    Returns:
        Columns method, metric, mean, low, high and n, a row per method and metric in the scores'
        order. With fewer than 2 patients low and high are NaN.

    Raises:
        ValueError: fewer than 2 patients were scored, or one twice by a method.

    Source: Efron & Tibshirani 1993, section 13.3.

    Example:
        >>> import pandas as pd
        >>> from ctmri_utils import summarise
        >>> scores = pd.DataFrame({"method": "mine", "patient": list("abcd"), "metric": "MAE HU"})
        >>> summarise(scores.assign(value=[50.0, 60.0, 70.0, 80.0]), seed=2026)[["mean", "n"]]
           mean  n
        0  65.0  4
    """
    patients = scores["patient"].nunique()
    if patients < 2:
        raise ValueError(
            f"an interval over patients needs at least 2 of them, got {patients}: score more "
            "patients, not more slices"
        )
    check_resamples(resamples)
    check_one_run(scores)

    summaries = []
    for (method, metric), group in scores.groupby(["method", "metric"], sort=False):
        values = group["value"].dropna().to_numpy()
        low, high = bootstrap_interval(values, seed, resamples)
        summaries.append((method, metric, mean_or_nan(values), low, high, len(values)))
    return pd.DataFrame(summaries, columns=SUMMARY_COLUMNS)


def bootstrap_interval(values: np.ndarray, seed: int, resamples: int) -> tuple[float, float]:
    """The 2.5 and 97.5 percentiles of the mean over resampled patients."""
    if len(values) < 2:
        return float("nan"), float("nan")

    draws = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    means = values[draws].mean(axis=1)

    # This method never interpolates, so inf stays inf.
    low, high = np.quantile(means, [0.025, 0.975], method="inverted_cdf").tolist()
    return low, high


def compare_methods(scores: pd.DataFrame, metric: str, reference: str) -> pd.DataFrame:
    """Compare every other method with the reference by paired Wilcoxon signed-rank tests.

    The tests are two-sided, with Holm's correction over the methods. Patients whom either method
    lacks, or on whom either is NaN, are left out. With fewer than 6 no p can fall below 0.05.

    Args:
        scores: of `evaluate`.
        metric: one of the scores' metrics.
        reference: one of the scores' methods.

    Returns:
        Columns method, difference, p, p_holm and n, a row per other method: the mean of method
        minus reference over the n patients that both have, p of that difference, and p adjusted for
        the number of methods.

    Raises:
        ValueError: the metric or reference is unknown, a method scored a patient twice, or shares
            fewer than 2 patients with the reference.

    Source: Wilcoxon 1945.
    """
    check_known("metric", [metric], scores["metric"])
    scores = scores[scores["metric"] == metric]
    check_known("method", [reference], scores["method"])
    check_one_run(scores)

    by_patient = scores.set_index("patient").groupby("method", sort=False)["value"]
    reference_values = by_patient.get_group(reference)

    comparisons = []
    for method, method_values in by_patient:
        if method == reference:
            continue

        # Patients are matched by name, in the reference's order.
        matched = method_values.reindex(reference_values.index)
        pairs = pd.DataFrame({"method": matched, "reference": reference_values}).dropna()
        if len(pairs) < 2:
            raise ValueError(
                f"{method!r} and {reference!r} share {len(pairs)} patients with a {metric}: a "
                "paired test needs 2 or more"
            )

        # Equal values differ by 0, also inf and inf.
        is_equal = pairs["method"] == pairs["reference"]
        difference = (pairs["method"] - pairs["reference"]).mask(is_equal, 0.0).to_numpy()
        p = float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0
        comparisons.append((method, mean_or_nan(difference), p, len(pairs)))

    table = pd.DataFrame(comparisons, columns=["method", "difference", "p", "n"])
    table.insert(3, "p_holm", holm(table["p"]))
    return table


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number, so that each compares with the whole family's error rate.

    The i-th smallest of k, counted from 0, is multiplied by k - i, is no less than the one before
    it, and at most 1.

    Args:
        p_values: k of them, in any order.

    Returns:
        The adjusted p-values in the same order.

    Source: Holm 1979.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)

    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted.tolist()


def score_table(summaries: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Lay summaries out for a reader: a row per method, a column per metric.

    Args:
        summaries: of `summarise`.
        metrics: the columns, at least one.

    Returns:
        Text, "mean [low, high]" per cell, with "n=..." where some patients are missing and "-"
        where all are.

    Raises:
        ValueError: a metric is unknown, or there is none.
    """
    if not metrics:
        raise ValueError(
            "a table needs a metric to show, got none: pass names such as those of CT_METRICS"
        )
    check_known("metric", metrics, summaries["metric"])

    most_patients = summaries["n"].max()
    decimals = summaries.groupby("metric")["mean"].agg(decimals_for)
    cells = [cell_text(row, decimals[row.metric], most_patients) for row in summaries.itertuples()]

    columns = summaries.assign(cell=cells).pivot(index="method", columns="metric", values="cell")
    columns = columns.reindex(index=summaries["method"].unique(), columns=metrics).fillna("-")
    return columns.rename_axis(index=None, columns=None)


def decimals_for(means: pd.Series) -> int:
    """Three decimals for numbers around 1, two below 100, one above."""
    largest = means[np.isfinite(means)].abs().max()
    if largest >= 100:
        return 1
    if largest >= 2:
        return 2
    return 3


def cell_text(summary: NamedTuple, decimals: int, most_patients: int) -> str:
    """One summary as "mean [low, high] n=..."."""
    if summary.n == 0:
        return "-"

    text = f"{summary.mean:.{decimals}f}"
    if summary.n > 1:
        text += f" [{summary.low:.{decimals}f}, {summary.high:.{decimals}f}]"
    if summary.n < most_patients:
        text += f" n={summary.n}"
    return text


def check_one_run(scores: pd.DataFrame) -> None:
    """Raise ValueError where a method has two values of one metric for a patient."""
    twice = scores.duplicated(["method", "patient", "metric"])
    if twice.any():
        method, patient, metric = scores.loc[twice, ["method", "patient", "metric"]].iloc[0]
        raise ValueError(
            f"{method!r} has several values of {metric} for patient {patient}: give each run a "
            "name of its own"
        )


def check_known(kind: str, names: Sequence[str], known: pd.Series) -> None:
    """Raise ValueError for a name that the scores do not have."""
    choices = list(known.unique())
    for name in names:
        if name not in choices:
            raise ValueError(
                f"no {kind} {name!r} in these scores: choose from {', '.join(choices) or '(none)'}"
            )

"""Scoring predictors of CT on pairs: patient by patient, with intervals, tests and tables.

The truth is scored as it is, noise included and not clipped, inside the true head. Predictors are
made in `predictors`, metrics are listed in `ct_metrics`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from ..scans.unpaired import Split
from .ct_metrics import CT_METRICS, CtMetric
from .inputs import check_resamples, per_axis
from .metrics import mean_or_nan
from .predictors import Predictor
from .splits import slices_by_patient, truth_of


class Score(NamedTuple):
    """One method, one patient, one metric.

    NaN where the metric is undefined, such as the bone error of a slice without bone.
    """

    method: str
    patient: str
    metric: str
    value: float


class Summary(NamedTuple):
    """Mean over the n patients on whom the metric is defined, with its 95 % interval."""

    method: str
    metric: str
    mean: float
    low: float
    high: float
    n: int


class Comparison(NamedTuple):
    """Mean of method minus reference over the n patients that both have.

    p belongs to that difference; p_holm is p adjusted for the number of methods.
    """

    method: str
    difference: float
    p: float
    p_holm: float
    n: int


def evaluate(
    predictors: dict[str, Predictor],
    test: Split,
    spacing_mm: float,
    metrics: dict[str, CtMetric] = CT_METRICS,
) -> list[Score]:
    """Score every predictor on every patient.

    Each slice (H, W) is scored alone. A patient's value is the mean over the slices on which the
    metric is defined. (Challenges score volumes, which gives slightly other numbers.)

    Args:
        predictors: name -> predictor. Give each of several training runs a name of its own.
        test: a paired split.
        spacing_mm: pixel size.
        metrics: name -> metric of one slice.

    Returns:
        One row per method, patient and metric.

    Raises:
        ValueError: the split is not paired, the spacing is unknown, or a prediction cannot be
            scored (naming method, slice and patient).
    """
    truth = truth_of(test)
    patients = slices_by_patient(test.ct_patients)
    per_axis(spacing_mm, 2)

    def score_slice(method, patient, name, ct_hu, i):
        try:
            return metrics[name](ct_hu, truth.ct_hu[i], truth.head[i], spacing_mm)
        except ValueError as error:
            raise ValueError(
                f"{method!r} on slice {i} ({test.ct_names[i]}) of patient {patient}, "
                f"{name}: {error}"
            ) from error

    scores = []
    for method, predict in predictors.items():
        pred_hu = np.asarray(predict(test))
        if pred_hu.shape != truth.ct_hu.shape:
            raise ValueError(
                f"{method!r} returned {pred_hu.shape}, the truth is {truth.ct_hu.shape}: a "
                "predictor returns one CT in HU per slice, (N, H, W)."
            )
        for patient, slices in patients.items():
            for name in metrics:
                values = [score_slice(method, patient, name, pred_hu[i], i) for i in slices]
                scores.append(Score(method, patient, name, mean_or_nan(_defined(values))))
    return scores


def summarise(scores: Sequence[Score], seed: int, resamples: int = 2000) -> list[Summary]:
    """Mean and 95 % percentile bootstrap interval over patients.

    Patients are the unit, never slices. NaN are left out, and n says how many patients remain. All
    cells use the same seed, so methods meet the same draws of patients. With 10 patients such an
    interval covers about 90 %.

    Args:
        scores: of `evaluate`.
        seed: of the bootstrap.
        resamples: at least 40.

    Returns:
        One row per method and metric, in the scores' order. With fewer than 2 patients low and high
        are NaN.

    Raises:
        ValueError: fewer than 2 patients were scored.

    Source: Efron & Tibshirani 1993, section 13.3.
    """
    patients = len({score.patient for score in scores})
    if patients < 2:
        raise ValueError(
            f"an interval over patients needs 2 of them or more, got {patients}: score more "
            "patients, not more slices."
        )
    check_resamples(resamples)

    summaries = []
    for method, metric in dict.fromkeys((score.method, score.metric) for score in scores):
        values = _defined(_patient_values(scores, method, metric).values())
        low, high = _bootstrap_interval(values, seed, resamples)
        summaries.append(Summary(method, metric, mean_or_nan(values), low, high, len(values)))
    return summaries


def _bootstrap_interval(values: np.ndarray, seed: int, resamples: int) -> tuple[float, float]:
    """The 2.5 and 97.5 percentiles of the mean over resampled patients."""
    if len(values) < 2:
        return float("nan"), float("nan")

    drawn = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    means = values[drawn].mean(axis=1)

    # This method never interpolates, so inf stays inf.
    low, high = np.quantile(means, [0.025, 0.975], method="inverted_cdf").tolist()
    return low, high


def compare_methods(scores: Sequence[Score], metric: str, reference: str) -> list[Comparison]:
    """Compare every other method with the reference by paired Wilcoxon signed-rank tests.

    The tests are two-sided, with Holm's correction over the methods. Patients whom either method
    lacks, or on whom either is NaN, are left out. With fewer than 6 no p can fall below 0.05.

    Args:
        scores: of `evaluate`.
        metric: one of the scores' metrics.
        reference: one of the scores' methods.

    Returns:
        One row per other method.

    Raises:
        ValueError: the metric or reference is unknown, or a method shares fewer than 2 patients
            with it.

    Source: Wilcoxon 1945.
    """
    _check_known("metric", [metric], [score.metric for score in scores])
    methods = list(dict.fromkeys(score.method for score in scores if score.metric == metric))
    _check_known("method", [reference], methods)

    comparisons = []
    for method in methods:
        if method == reference:
            continue

        pairs = _patient_pairs(scores, metric, method, reference)  # (n, 2)
        if len(pairs) < 2:
            raise ValueError(
                f"{method!r} and {reference!r} share {len(pairs)} patients with a {metric}: a "
                "paired test needs 2 or more."
            )

        # Equal values differ by 0, also inf and inf.
        differ = pairs[:, 0] != pairs[:, 1]
        difference = np.zeros(len(pairs))
        difference[differ] = pairs[differ, 0] - pairs[differ, 1]

        p = float(stats.wilcoxon(difference).pvalue) if differ.any() else 1.0
        comparisons.append(Comparison(method, mean_or_nan(difference), p, p, len(pairs)))

    adjusted = holm([comparison.p for comparison in comparisons])
    return [
        comparison._replace(p_holm=p_holm)
        for comparison, p_holm in zip(comparisons, adjusted, strict=True)
    ]


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
    order = np.argsort(p_values)

    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted.tolist()


def table(summaries: Sequence[Summary], metrics: Sequence[str]) -> str:
    """Lay summaries out as aligned plain text.

    Args:
        summaries: of `summarise`.
        metrics: the columns, at least one.

    Returns:
        A row per method, "mean [low, high]" per metric, "n=..." where some patients are missing and
        "-" where all are.

    Raises:
        ValueError: a metric is unknown, or there is none.
    """
    if not metrics:
        raise ValueError(
            "a table needs a metric to show, got none: pass names such as those of CT_METRICS."
        )
    _check_known("metric", metrics, [summary.metric for summary in summaries])

    methods = list(dict.fromkeys(summary.method for summary in summaries))
    most_patients = max(summary.n for summary in summaries)
    columns = [["", *methods]]
    for metric in metrics:
        cells = {summary.method: summary for summary in summaries if summary.metric == metric}
        decimals = _decimals(cells.values())
        column = [metric]
        for method in methods:
            known = method in cells
            column.append(_cell(cells[method], decimals, most_patients) if known else "-")
        columns.append(column)

    padded = []
    for column in columns:
        width = max(len(text) for text in column)
        padded.append([text.ljust(width) for text in column])
    return "\n".join("  ".join(line).rstrip() for line in zip(*padded, strict=True))


def _decimals(summaries: Iterable[Summary]) -> int:
    """Three decimals for numbers around 1, two below 100, one above."""
    largest = max((abs(s.mean) for s in summaries if np.isfinite(s.mean)), default=0)
    if largest < 2:
        return 3
    if largest < 100:
        return 2
    return 1


def _cell(summary: Summary, decimals: int, most_patients: int) -> str:
    """One summary as "mean [low, high] n=..."."""
    if summary.n == 0:
        return "-"

    text = f"{summary.mean:.{decimals}f}"
    if summary.n > 1:
        text += f" [{summary.low:.{decimals}f}, {summary.high:.{decimals}f}]"
    if summary.n < most_patients:
        text += f" n={summary.n}"
    return text


def write_csv(rows: Sequence[NamedTuple], path: str | Path) -> None:
    """Write rows under a header of their field names. Floats keep every digit.

    Args:
        rows: scores, summaries or comparisons, at least one.
        path: of the file. Its folder is made.

    Raises:
        ValueError: there are no rows, or rows of several kinds.
    """
    kinds = {type(row).__name__ for row in rows}
    if len(kinds) != 1:
        raise ValueError(
            f"{path} needs rows of one kind, got {' and '.join(sorted(kinds)) or 'none'}: one file "
            "for each."
        )

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([rows[0]._fields, *rows])


def _defined(values: Iterable[float]) -> np.ndarray:
    """The values that are not NaN."""
    return np.array([value for value in values if not np.isnan(value)])


def _patient_values(scores: Sequence[Score], method: str, metric: str) -> dict[str, float]:
    """One method's value of a metric for each patient; ValueError if a patient has two."""
    rows = [score for score in scores if score.method == method and score.metric == metric]
    values = {score.patient: score.value for score in rows}
    if len(values) < len(rows):
        raise ValueError(
            f"{method!r} has {len(rows)} rows of {metric} for {len(values)} patients: give every "
            "run a name of its own."
        )
    return values


def _patient_pairs(scores: Sequence[Score], metric: str, method: str, reference: str) -> np.ndarray:
    """Both methods' values (n, 2) of every patient on whom both are defined."""
    of_reference = _patient_values(scores, reference, metric)
    of_method = _patient_values(scores, method, metric)

    shared = [patient for patient in of_reference if patient in of_method]
    pairs = np.array([(of_method[patient], of_reference[patient]) for patient in shared])
    pairs = pairs.reshape(-1, 2)
    return pairs[~np.isnan(pairs).any(axis=1)]


def _check_known(kind: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Raise ValueError for a name that the scores do not have."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"no {kind} {unknown[0]!r} in these scores: choose from "
            f"{', '.join(dict.fromkeys(known)) or '(none)'}."
        )

"""Figures and tables of lesson 7: what the study of remedies found.

Results are a study's table, with the columns row, seed, measure and value. Summaries are the table
of `studies.over_seeds`, with the columns method, metric, mean, low, high and n.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from ..evaluation.predictors import baselines
from ..runs import studies
from ..runs.studies import Row, patients_of
from ..runs.study_measures import measure_translation
from ..scans.datasets import PHANTOM_OPTIONS
from ..scans.phantom import synthetic_patients
from ..viewers.figures import COLOURS, rows_from_top

BASELINES = ("constant", "histogram matching", "lookup E[CT | MR]")
TRUE_CT = "true CT"

# The baselines' histogram needs no more patients, and the test patients do not depend on it.
TRAINING_PATIENTS = 50

BETTER, WORSE = COLOURS[0], COLOURS[1]


def changed_settings(rows: Mapping[str, Row], reference: str = "reference") -> str:
    """A line for each row of a study with the settings that differ from the reference's."""
    usual = asdict(rows[reference])
    lines = []
    for name, row in rows.items():
        changed = [
            f"{key} = {value:g}" if isinstance(value, float) else f"{key} = {value}"
            for key, value in asdict(row).items()
            if value != usual[key]
        ]
        lines.append(f"{name:28s} {', '.join(changed)}")
    return "\n".join(lines)


def baseline_results(row: Row, seeds: Sequence[int]) -> pd.DataFrame:
    """Results of what needs no network, and of the true CT, on a row's test patients.

    "lookup E[CT | MR]" is fitted on pairs, of other patients.

    Args:
        row: of a study, with lesions.
        seeds: of the patients.

    Returns:
        Results.
    """
    smaller = replace(row, patients=TRAINING_PATIENTS)
    results = []
    for seed in seeds:
        scans = patients_of(smaller, seed)
        pairs = synthetic_patients(
            row.test_patients,
            row.size,
            3 * seed + 100,
            lesion=row.lesion,
            lesion_fraction=row.ct_lesions,
            **PHANTOM_OPTIONS[row.dataset],
        )
        predictors = baselines(scans.train, pairs, seed)
        predictions = {name: predictors[name](scans.test) for name in BASELINES}
        predictions[TRUE_CT] = scans.test.truth.ct_hu

        for name, ct_hu in predictions.items():
            measures = measure_translation(ct_hu, scans)
            results += [(name, seed, measure, value) for measure, value in measures.items()]
    return pd.DataFrame(results, columns=["row", "seed", "measure", "value"])


def with_gap(results: pd.DataFrame) -> pd.DataFrame:
    """The results with "TPR - FPR" of the detector of bleeds as one more measure."""
    table = results.pivot_table("value", ["row", "seed"], "measure", sort=False)
    gaps = (table["lesion TPR"] - table["lesion FPR"]).rename("value").reset_index()
    return pd.concat([results, gaps.assign(measure="TPR - FPR")], ignore_index=True)


def against_few_pairs(results: pd.DataFrame) -> pd.DataFrame:
    """Differences in MAE to the trainings on few pairs alone, with a verdict.

    Args:
        results: of the study "pairs".
    """
    changes = {}
    for pairs in ("5 pairs", "25 pairs"):
        differences = studies.differences(results, pairs)
        errors = differences[differences["metric"] == "MAE HU"].set_index("method")
        for row in ("unpaired", f"unpaired, then {pairs}"):
            changes[f"{row}, against {pairs}"] = errors.loc[row, ["mean", "low", "high"]]

    table = pd.DataFrame(changes).T.astype(float).round(1)
    clear = [table["high"] < 0, table["low"] > 0]
    return table.assign(verdict=np.select(clear, ["better", "worse"], "cannot be told apart"))


def fifths(expected_hu: np.ndarray, error_hu: np.ndarray) -> pd.DataFrame:
    """Expected and found absolute error of the pixels, in fifths by what was expected.

    Args:
        expected_hu: (K,), of an uncertainty map.
        error_hu: (K,), the absolute errors of the same pixels.
    """
    order = np.argsort(expected_hu, kind="stable")
    parts = np.array_split(order, 5)
    table = {
        "expected HU": [expected_hu[part].mean() for part in parts],
        "found HU": [error_hu[part].mean(dtype=float) for part in parts],
    }
    return pd.DataFrame(table, pd.RangeIndex(1, 6, name="least uncertain first")).round(1)


def contrast_by_error(results: pd.DataFrame) -> Figure:
    """The contrast that bleeds keep, a dot for each seed; rows from the lowest MAE down.

    Args:
        results: with the measures "MAE HU" and "lesion contrast".
    """
    by_row = results.pivot_table("value", "row", "measure").sort_values("MAE HU")
    contrasts = results[results["measure"] == "lesion contrast"]

    figure, axis = figure_of_rows(len(by_row))
    axis.axvline(0, color="#999999", linewidth=0.8)
    axis.axvline(1, color=COLOURS[2], linewidth=1.5)
    for k, name in enumerate(by_row.index):
        values = contrasts.loc[contrasts["row"] == name, "value"]
        axis.plot(values, np.full(len(values), k), "o", color=COLOURS[0], markersize=4)
        axis.plot(values.mean(), k, "|", color=COLOURS[1], markersize=16, markeredgewidth=2)

    labels = [f"{name}: {mae:.0f} HU" for name, mae in by_row["MAE HU"].items()]
    rows_from_top(axis, labels)
    axis.set_ylabel("rows by MAE, lowest on top")
    axis.set_xlabel("contrast of bleeds over the true one (0 erased, 1 kept)")
    return figure


def detector_rates(summaries: pd.DataFrame) -> Figure:
    """The detector's rates, FPR and TPR of each row joined by a line; widest gap on top.

    Args:
        summaries: with the metrics "lesion TPR" and "lesion FPR".
    """
    rates = summaries.pivot(index="method", columns="metric", values="mean")
    true_positives, false_positives = rates["lesion TPR"], rates["lesion FPR"]
    gaps = (true_positives - false_positives).sort_values(ascending=False)

    figure, axis = figure_of_rows(len(gaps))
    for k, (name, gap) in enumerate(gaps.items()):
        ends = [false_positives[name], true_positives[name]]
        axis.plot(ends, [k, k], color="#BBBBBB", linewidth=3, zorder=1)
        axis.text(1.04, k, f"{gap:+.2f}", va="center", fontsize=9)

    order = range(len(gaps))
    axis.scatter(true_positives[gaps.index], order, color=COLOURS[0], label="TPR")
    axis.scatter(false_positives[gaps.index], order, color=COLOURS[1], marker="s", label="FPR")
    rows_from_top(axis, list(gaps.index))
    axis.set_xlim(-0.03, 1.16)
    axis.set_xlabel("share of the patients called; at the right TPR - FPR")
    axis.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure


def figure_of_rows(count: int) -> tuple[Figure, Axes]:
    """A figure with room for so many rows, and its axis."""
    figure = Figure(figsize=(7, 0.9 + 0.32 * count), layout="constrained")
    axis = figure.subplots()
    axis.grid(alpha=0.3)
    return figure, axis


def seed_lines(results: pd.DataFrame, rows: Sequence[str], measures: Sequence[str]) -> Figure:
    """A panel per measure with a line for each seed, from one row to the other.

    Args:
        results: of both rows.
        rows: two of them.
        measures: one for each panel.
    """
    figure = Figure(figsize=(2.8 * len(measures), 3), layout="constrained")
    axes = figure.subplots(1, len(measures), squeeze=False)[0]
    for axis, measure in zip(axes, measures, strict=True):
        of_measure = results[results["measure"] == measure]
        values = of_measure.pivot(index="row", columns="seed", values="value").loc[list(rows)]
        axis.plot([0, 1], values.to_numpy(), "o-", color=COLOURS[0], alpha=0.7)
        axis.set_title(measure, fontsize=10)
        axis.set(xticks=[0, 1], xticklabels=[row.replace(", ", ",\n") for row in rows])
        axis.set_xlim(-0.4, 1.4)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
    return figure


def verdicts(differences: pd.DataFrame, measures: Sequence[str]) -> Figure:
    """Which intervals lie wholly on one side of zero: blue below (better), orange above (worse).

    Args:
        differences: summaries of a distance from the ideal, minus the reference's.
        measures: the columns.
    """
    methods = list(differences["method"].unique())
    sides = np.select([differences["high"] < 0, differences["low"] > 0], [-1, 1])
    grid = differences.assign(side=sides).pivot(index="method", columns="metric", values="side")
    signs = grid.loc[methods, list(measures)].to_numpy()

    figure = Figure(figsize=(7.5, 1 + 0.32 * len(methods)), layout="constrained")
    axis = figure.subplots()
    colours = ListedColormap([BETTER, "white", WORSE])
    axis.imshow(signs, cmap=colours, vmin=-1, vmax=1, aspect="auto")
    for (k, column), sign in np.ndenumerate(signs):
        if sign:
            word = "worse" if sign > 0 else "better"
            axis.text(column, k, word, ha="center", va="center", color="white", fontsize=8)

    axis.set(yticks=range(len(methods)), yticklabels=methods)
    axis.set_xticks(range(len(measures)), [name.replace(" ", "\n") for name in measures])
    axis.tick_params(labelsize=8, length=0)
    axis.set_xticks(np.arange(len(measures)) - 0.5, minor=True)
    axis.set_yticks(np.arange(len(methods)) - 0.5, minor=True)
    axis.grid(which="minor", color="#CCCCCC")
    return figure

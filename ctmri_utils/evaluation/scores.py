"""Predicting CT from MR, judged on pairs.

Predictors, from constants to networks, x metrics, patient by patient, with intervals.

A predictor takes a test `Split` and returns CT in HU, float (N, H, W), from its MR alone: even the
head's outline comes from the MR. (Two baselines cheat on purpose and say so.) The truth is scored
as it is, noise included and not clipped, inside the true head.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage, stats

from ..cyclegan.model import Translator
from ..masks import ct_head_mask, mri_head_mask
from ..scans.datasets import Split
from ..scans.phantom import TISSUES, SyntheticPatients
from ..units import AIR_HU, HU, Scale, mri_scale
from . import metrics as m
from .distributions import check_resamples

Predictor = Callable[[Split], np.ndarray]
CtMetric = Callable[[np.ndarray, np.ndarray, np.ndarray, float], float]

# the constant prediction: between grey matter and muscle
SOFT_TISSUE_HU = 40.0
# of the lookup, over the network's [-1, 1]
MRI_BINS = 64
# correlation; neighbours 1.5 mm apart in `data/scans` reach 0.9996
SAME_SLICE = 0.9999

CT_METRICS: dict[str, CtMetric] = {
    "MAE HU": lambda pred, true, head, mm: m.mae_hu(pred, true, head),
    "bias HU": lambda pred, true, head, mm: m.bias_hu(pred, true, head),
    "PSNR dB": lambda pred, true, head, mm: m.psnr_db(pred, true, head, m.SYNTHRAD2023_RANGE),
    "SSIM": lambda pred, true, head, mm: m.ssim(pred, true, head, m.SYNTHRAD2023_RANGE),
    "MS-SSIM": lambda pred, true, head, mm: m.ms_ssim(pred, true, head, m.SYNTHRAD2025_RANGE),
    "air MAE HU": lambda pred, true, head, mm: m.tissue_errors_hu(pred, true, head)["air_mae_hu"],
    "soft-tissue MAE HU": lambda pred, true, head, mm: m.tissue_errors_hu(pred, true, head)[
        "soft_mae_hu"
    ],
    "bone MAE HU": lambda pred, true, head, mm: m.tissue_errors_hu(pred, true, head)["bone_mae_hu"],
    "bone Dice": lambda pred, true, head, mm: m.bone_dice(pred, true, head),
    "HD95 mm": lambda pred, true, head, mm: m.bone_hd95_mm(pred, true, head, mm),
    "WEPL mm": lambda pred, true, head, mm: m.wepl_error_mm(pred, true, head, mm),
}
"""Name -> f(prediction in HU, true CT in HU, mask, pixel spacing in mm) of one slice (H, W).

See `metrics` for each formula.
"""


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
    """Mean of method minus reference over the n patients both have, and the p-value of that
    difference, before and after Holm.
    """

    method: str
    difference: float
    p: float
    p_holm: float
    n: int


def translated(model: Translator, ct_scale: Scale, averaged: bool = True) -> Predictor:
    """The model's fake CT in HU, by the running mean of its weights or by the last ones.

    ValueError if ct_scale is not in HU.
    """
    check_unit(ct_scale)
    return lambda split: (
        ct_scale.from_network(model.translate(split.mri, "ct", averaged))[:, 0].cpu().numpy()
    )


def baselines(
    unpaired: Split, paired: SyntheticPatients | Split | None, seed: int, ct_scale: Scale = HU
) -> dict[str, Predictor]:
    """Predictors that a network must beat, by name, from the least to the most informed.

    "constant": 40 HU in the head. "another patient": a training CT, drawn with the seed for every
    test slice. "histogram matching": each test patient's MR values in the head, replaced rank by
    rank with the HU of all training CTs in theirs (what the scale clipped stays clipped). "linear
    regression" and "lookup E[CT | MR]" (64 bins): least squares on all pixels of the training
    pairs' heads; left out if paired is None. Outside the head these four are -1000 HU. "true CT, 1
    px off" and "oracle labels" (each tissue's population mean) see the truth: what misregistration
    costs, and what anatomy alone gives. unpaired: the training split; paired: training patients
    with both scans. Raises ValueError if the CT is not in HU, or when a fit meets the patients it
    was made on.
    """
    check_unit(ct_scale)
    ct_hu = ct_scale.from_network(unpaired.ct[:, 0].cpu().numpy())  # (N, H, W)
    return {
        "constant": lambda split: inside_head(split, lambda mri: SOFT_TISSUE_HU),
        "another patient": lambda split: ct_hu[
            np.random.default_rng(seed).integers(len(ct_hu), size=len(split.mri))
        ],
        "histogram matching": histogram_matching(ct_hu[ct_head_mask(ct_hu)]),
        **({} if paired is None else fitted_on_pairs(paired)),
        "true CT, 1 px off": lambda split: ndimage.shift(
            truth_of(split).ct_hu, (0, 0, 1), order=0, cval=AIR_HU
        ),
        "oracle labels": lambda split: np.array([tissue.hu for tissue in TISSUES.values()])[
            truth_of(split).labels
        ],
    }


def inside_head(split: Split, to_hu: Callable[[np.ndarray], np.ndarray | float]) -> np.ndarray:
    """CT in HU (N, H, W): to_hu of each patient's MR values (K,) in [-1, 1] inside the head that
    this MR shows, air elsewhere.
    """
    mri = split.mri[:, 0].cpu().numpy()
    ct_hu = np.full(mri.shape, AIR_HU)
    for slices in slices_by_patient(split.mri_patients).values():
        head = np.zeros(mri.shape, bool)
        head[slices] = mri_head_mask(mri[slices])
        ct_hu[head] = to_hu(mri[head])
    return ct_hu


def histogram_matching(training_hu: np.ndarray) -> Predictor:
    training_hu = np.sort(training_hu)

    def to_hu(mri):
        share_below = (stats.rankdata(mri) - 0.5) / len(mri)
        return np.interp(
            share_below * len(training_hu) - 0.5, np.arange(len(training_hu)), training_hu
        )

    return lambda split: inside_head(split, to_hu)


def fitted_on_pairs(paired: SyntheticPatients | Split) -> dict[str, Predictor]:
    if isinstance(paired, Split):
        truth, mri = truth_of(paired), paired.mri[:, 0].cpu().numpy()
    else:
        truth, mri = (
            paired,
            np.stack(
                [mri_scale(scan, mri_head_mask(scan)).to_network(scan) for scan in paired.mri]
            ),
        )
    head = np.stack([mri_head_mask(scan) for scan in mri])
    mri, ct_hu = mri[head].astype(float), truth.ct_hu[head].astype(float)
    line = stats.linregress(mri, ct_hu)
    means, edges, _ = stats.binned_statistic(mri, ct_hu, "mean", MRI_BINS, range=(-1, 1))
    filled = np.flatnonzero(np.isfinite(means))
    # empty bins: from their neighbours
    means = np.interp(np.arange(MRI_BINS), filled, means[filled])
    drawn = {(p["seed"], p["index"]) for p in truth.parameters}

    def for_strangers(to_hu):
        def predict(split):
            if (
                known := [
                    p["index"] for p in split.truth.parameters if (p["seed"], p["index"]) in drawn
                ]
                if split.paired
                else []
            ):
                raise ValueError(
                    f"{len(known)} test patients (first: index {known[0]}) are also paired "
                    "training patients, so this fit has seen the answers: draw the pairs with "
                    "another seed."
                )
            return inside_head(split, to_hu)

        return predict

    return {
        "linear regression": for_strangers(lambda mri: line.slope * mri + line.intercept),
        "lookup E[CT | MR]": for_strangers(lambda mri: means[np.digitize(mri, edges[1:-1])]),
    }


def evaluate(
    predictors: dict[str, Predictor],
    test: Split,
    spacing_mm: float,
    metrics: dict[str, CtMetric] = CT_METRICS,
) -> list[Score]:
    """Score every predictor on every patient: one row per method, patient and metric.

    Each slice (H, W) is scored alone; a patient's value is the mean over the slices on which the
    metric is defined. (Challenges score volumes, which gives slightly other numbers.) spacing_mm:
    pixel size. Give each of several training runs a name of its own. Raises ValueError if the split
    is not paired, the spacing unknown, or a prediction cannot be scored (naming method, slice and
    patient).
    """
    truth, patients = truth_of(test), slices_by_patient(test.ct_patients)
    m.per_axis(spacing_mm, 2)
    rows = []
    for method, predict in predictors.items():
        pred_hu = np.asarray(predict(test))
        if pred_hu.shape != truth.ct_hu.shape:
            raise ValueError(
                f"{method!r} returned {pred_hu.shape}, the truth is {truth.ct_hu.shape}: a "
                "predictor returns one CT in HU per slice, (N, H, W)."
            )
        for patient, slices in patients.items():
            for name, metric in metrics.items():
                values = []
                for i in slices:
                    try:
                        values.append(metric(pred_hu[i], truth.ct_hu[i], truth.head[i], spacing_mm))
                    except ValueError as error:
                        raise ValueError(
                            f"{method!r} on slice {i} ({test.ct_names[i]}) of patient {patient}, "
                            f"{name}: {error}"
                        ) from error
                rows.append(
                    Score(
                        method,
                        patient,
                        name,
                        mean(np.array([value for value in values if not np.isnan(value)])),
                    )
                )
    return rows


def summarise(scores: Sequence[Score], seed: int, resamples: int = 2000) -> list[Summary]:
    """Mean and 95 % percentile bootstrap interval over patients, one row per method and metric, in
    the scores' order.

    Patients are the unit, never slices. NaN are left out and n says how many patients remain; with
    fewer than 2 low and high are NaN. All cells use the same seed, so methods meet the same draws
    of patients. With 10 patients such an interval covers about 90 %. Raises ValueError if fewer
    than 2 patients were scored. Source: Efron & Tibshirani 1993, section 13.3.
    """
    if (patients := len({score.patient for score in scores})) < 2:
        raise ValueError(
            f"an interval over patients needs 2 of them or more, got {patients}: score more "
            "patients, not more slices."
        )
    check_resamples(resamples)
    rows = []
    for method, metric in dict.fromkeys((score.method, score.metric) for score in scores):
        values = np.array(
            [
                value
                for value in patient_values(scores, method, metric).values()
                if not np.isnan(value)
            ]
        )
        low = high = float("nan")
        if len(values) > 1:
            drawn = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
            # so that inf stays inf
            low, high = np.quantile(
                values[drawn].mean(axis=1), [0.025, 0.975], method="inverted_cdf"
            ).tolist()
        rows.append(Summary(method, metric, mean(values), low, high, len(values)))
    return rows


def compare_methods(scores: Sequence[Score], metric: str, reference: str) -> list[Comparison]:
    """Every other method against the reference on one metric.

    Paired two-sided Wilcoxon signed-rank tests, Holm over the methods.

    Patients whom either method lacks, or on whom either is NaN, are left out; with fewer than 6 no
    p can fall below 0.05. Raises ValueError for an unknown metric or reference, or if a method
    shares fewer than 2 patients with it. Source: Wilcoxon 1945.
    """
    check_known("metric", [metric], [score.metric for score in scores])
    methods = list(dict.fromkeys(score.method for score in scores if score.metric == metric))
    check_known("method", [reference], methods)
    ours, rows = patient_values(scores, reference, metric), []
    for method in (other for other in methods if other != reference):
        theirs = patient_values(scores, method, metric)
        pairs = np.array(
            [(theirs[patient], ours[patient]) for patient in ours if patient in theirs]
        ).reshape(-1, 2)
        pairs = pairs[~np.isnan(pairs).any(axis=1)]
        if len(pairs) < 2:
            raise ValueError(
                f"{method!r} and {reference!r} share {len(pairs)} patients with a {metric}: a "
                "paired test needs 2 or more."
            )
        # inf and inf are equal
        differ = pairs[:, 0] != pairs[:, 1]
        difference = np.subtract(*pairs.T, out=np.zeros(len(pairs)), where=differ)
        rows.append(
            (
                method,
                mean(difference),
                float(stats.wilcoxon(difference).pvalue) if differ.any() else 1.0,
                len(pairs),
            )
        )
    adjusted = holm([p for _, _, p, _ in rows])
    return [
        Comparison(method, difference, p, p_holm, n)
        for (method, difference, p, n), p_holm in zip(rows, adjusted, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the order given, each to be compared with the error rate wanted for the
    whole family.

    The i-th smallest of k, counted from 0, is multiplied by k - i, is no less than the one before
    it, and at most 1. Source: Holm 1979.
    """
    p, order = np.asarray(p_values, dtype=float), np.argsort(p_values)
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return adjusted.tolist()


def table(summaries: Sequence[Summary], metrics: Sequence[str]) -> str:
    """Aligned plain text, a row per method, "mean [low, high]" per metric.

    "n=..." where some patients are missing, "-" where all are.
    """
    if not metrics:
        raise ValueError(
            "a table needs a metric to show, got none: pass names such as those of CT_METRICS."
        )
    check_known("metric", metrics, [summary.metric for summary in summaries])
    most, columns = max(summary.n for summary in summaries), []
    for metric in metrics:
        cells = {s.method: s for s in summaries if s.metric == metric}
        largest = max((abs(s.mean) for s in cells.values() if np.isfinite(s.mean)), default=0)
        show = f".{3 if largest < 2 else 2 if largest < 100 else 1}f"
        columns.append(
            {
                method: (f"{s.mean:{show}}" if s.n else "-")
                + (f" [{s.low:{show}}, {s.high:{show}}]" if s.n > 1 else "")
                + (f" n={s.n}" if 0 < s.n < most else "")
                for method, s in cells.items()
            }
        )
    methods = dict.fromkeys(summary.method for summary in summaries)
    lines = [
        ["", *metrics],
        *([method, *(column.get(method, "-") for column in columns)] for method in methods),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def write_csv(rows: Sequence[NamedTuple], path: str | Path) -> None:
    """Write scores, summaries or comparisons under a header of their field names.

    Floats keep every digit. ValueError if rows are mixed.
    """
    if len(kinds := {type(row).__name__ for row in rows}) != 1:
        raise ValueError(
            f"{path} needs rows of one kind, got {' and '.join(sorted(kinds)) or 'none'}: one file "
            "for each."
        )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([rows[0]._fields, *rows])


def split_by_patient(
    patients: Sequence[str], test_share: float, seed: int
) -> tuple[list[int], list[int]]:
    """Indices of the training and of the test slices, every patient wholly on one side.

    Test_share, 0 to 1, counts patients.

    patients: one name per slice. Each side gets at least one patient; ValueError if there are fewer
    than two.
    """
    everyone = sorted(set(patients))
    if len(everyone) < 2 or not 0 < test_share < 1:
        raise ValueError(
            "a split by patient needs two patients or more and a share between 0 and 1, got "
            f"{len(everyone)}, {test_share}."
        )
    count = min(max(1, round(test_share * len(everyone))), len(everyone) - 1)
    held_out = set(np.random.default_rng(seed).permutation(everyone)[:count])
    return (
        [i for i, patient in enumerate(patients) if patient not in held_out],
        [i for i, patient in enumerate(patients) if patient in held_out],
    )


def shared_slices(split_a: Split, split_b: Split) -> list[tuple[str, str, str]]:
    """(modality, name in a, name in b) of every slice that is in both splits, whatever it is
    called; an empty list is what you want.

    Copies correlate above 0.9999, also when rescaled or saved again with 8 bits; slices of one
    patient 1.5 mm apart do not.
    """
    found = []
    for modality in ("ct", "mri"):
        a, b = getattr(split_a, modality), getattr(split_b, modality)
        if a.shape[1:] != b.shape[1:]:
            raise ValueError(
                f"{modality} slices of {tuple(a.shape[1:])} and {tuple(b.shape[1:])} do not "
                "compare: load both at one size."
            )
        a, b = (
            images.flatten(1) - images.flatten(1).mean(1, keepdim=True) for images in (a, b)
        )  # (N, pixels)
        a, b = (images / images.norm(dim=1, keepdim=True).clamp(min=1e-3) for images in (a, b))
        names = [getattr(split, f"{modality}_names") for split in (split_a, split_b)]
        found += [
            (modality, names[0][i], names[1][j])
            for i, j in (a @ b.T > SAME_SLICE).nonzero().tolist()
        ]
    return found


def slices_by_patient(patients: Sequence[str]) -> dict[str, list[int]]:
    return {
        patient: [i for i, other in enumerate(patients) if other == patient]
        for patient in dict.fromkeys(patients)
    }


def mean(values: np.ndarray) -> float:
    # inf and -inf have no mean
    with np.errstate(invalid="ignore"):
        return float(values.mean()) if len(values) else float("nan")


def patient_values(scores: Sequence[Score], method: str, metric: str) -> dict[str, float]:
    rows = [score for score in scores if score.method == method and score.metric == metric]
    values = {score.patient: score.value for score in rows}
    if len(values) < len(rows):
        raise ValueError(
            f"{method!r} has {len(rows)} rows of {metric} for {len(values)} patients: give every "
            "run a name of its own."
        )
    return values


def truth_of(split: Split) -> SyntheticPatients:
    if not split.paired:
        raise ValueError(
            "paired metrics need one slice of one person in CT and MR, and this set's CT and MR "
            "are different people: use cycle_error, the outline's mask_dice or kid instead."
        )
    return split.truth


def check_unit(ct_scale: Scale) -> None:
    if ct_scale.unit != HU.unit:
        raise ValueError(
            f"this set's CT is in {ct_scale.unit}, from which no HU can be had: evaluate on a set "
            "in HU, such as the phantom."
        )


def check_known(kind: str, wanted: Sequence[str], known: Sequence[str]) -> None:
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(
            f"no {kind} {unknown[0]!r} in these scores: choose from "
            f"{', '.join(dict.fromkeys(known)) or '(none)'}."
        )

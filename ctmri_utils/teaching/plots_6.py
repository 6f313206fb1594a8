"""Lesson 6: scores of each patient, and the figures; with the `Log` of failures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import ndimage
from torch import Tensor

from ..evaluation import faithfulness, lesions, metrics
from ..masks import mri_head_mask
from ..runs.study_measures import BRAIN
from ..scans.phantom import SyntheticPatients
from ..scans.physics import TISSUES
from ..scans.unpaired import UnpairedScans
from ..units import HU
from ..viewers import figures
from .log_6 import Log as Log

WHITE = TISSUES["white matter"].label


def each(measure: Callable, *stacks) -> np.ndarray:
    """The measure of every patient, from the same place of each stack."""
    return np.array([measure(*patient) for patient in zip(*stacks, strict=True)])


def interior(masks: np.ndarray) -> np.ndarray:
    """Masks (N, H, W) without the pixels at their border."""
    return each(ndimage.binary_erosion, masks)


def scores(fake_hu: np.ndarray, truth: SyntheticPatients) -> pd.DataFrame:
    """What the lesson asks of every translation: a row for each patient.

    Args:
        fake_hu: (N, H, W) in HU.
        truth: of the same patients.

    Returns:
        "MAE HU" and "SSIM" over the head, "recovery" of the bleed's contrast (NaN without a bleed),
        and whether a bleed is "detected", 0 or 1; see `metrics` and `lesions`.
    """
    white = truth.labels == WHITE
    present = truth.lesion.any((1, 2))
    stacks = (fake_hu, truth.ct_hu_clean, truth.lesion, white)
    recovery = np.full(len(fake_hu), np.nan)
    of_present = [stack[present] for stack in stacks]
    recovery[present] = each(lesions.lesion_contrast_recovery, *of_present)

    ssim = partial(metrics.ssim, value_range=metrics.SYNTHRAD2023_RANGE)
    columns = {
        "MAE HU": each(metrics.mae_hu, fake_hu, truth.ct_hu, truth.head),
        "SSIM": each(ssim, fake_hu, truth.ct_hu, truth.head),
        "recovery": recovery,
        "detected": each(lesions.detects_lesion, fake_hu, np.isin(truth.labels, BRAIN)),
    }
    return pd.DataFrame(columns).astype(float)


def usual_numbers(cases: Mapping[str, tuple]) -> pd.DataFrame:
    """Cycle error, MAE and SSIM: a row for each case.

    Args:
        cases: {name: (MR-to-CT, CT-to-MR, the split with its truth)}.
    """
    numbers = {}
    for name, (to_ct, to_mri, split) in cases.items():
        fake_hu = HU.from_network(to_ct(split.mri)[:, 0]).numpy()
        head = mri_head_mask(split.mri[:, 0].numpy())[:, None]
        patient_scores = scores(fake_hu, split.truth)
        numbers[name] = {
            "cycle error": faithfulness.cycle_error(to_ct, to_mri, split.mri, head),
            "MAE HU": patient_scores["MAE HU"].mean(),
            "SSIM": patient_scores["SSIM"].mean(),
        }
    return pd.DataFrame(numbers).T.round({"cycle error": 3, "MAE HU": 1, "SSIM": 3})


def bleeds(
    scans: Mapping[str, UnpairedScans],
    fakes_hu: Mapping[str, np.ndarray],
    patients: Sequence[int] = (0,),
) -> Figure:
    """MR, true and translated CT of the same heads without a bleed and with one, brain window.

    Args:
        scans: {kind of bleed: the heads with it}.
        fakes_hu: {kind of bleed: (N, H, W) in HU}.
        patients: which of the N heads.
    """
    columns = [(name, i) for i in patients for name in scans]
    mri = [scans[name].test.mri[i].numpy() for name, i in columns]
    true_hu = [scans[name].test.truth.ct_hu[i] for name, i in columns]
    fake_hu = [fakes_hu[name][i] for name, i in columns]
    rows = {
        "mri": figures.network_row(mri),
        "true ct": figures.ct_row(true_hu, "brain"),
        "fake_ct": figures.ct_row(fake_hu, "brain"),
    }
    return figures.montage(rows, [name for name, _ in columns], size=7.5 / (len(columns) + 2))


def two_windows(images_hu: Mapping[str, np.ndarray]) -> Figure:
    """The same slices in the window that shows everything and in the brain window.

    Args:
        images_hu: {title of a column: (H, W) in HU}.
    """
    stack = list(images_hu.values())
    rows = {window: figures.ct_row(stack, window) for window in ("everything", "brain")}
    return figures.montage(rows, list(images_hu), size=2)


def seeds_plot(results: pd.DataFrame, rows: Sequence[str], measures: Mapping[str, str]) -> Figure:
    """Every training of a study as a marker: a panel for each measure, a line for each row.

    Args:
        results: a study's table with the columns row, seed, measure and value.
        rows: of the study, from the top.
        measures: {measure of the study: title of its panel}.
    """
    size_inches = (1.6 + 2.2 * len(measures), 0.9 + 0.3 * len(rows))
    figure = Figure(figsize=size_inches, layout="constrained")
    panels = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axis, (measure, title) in zip(panels, measures.items(), strict=True):
        of_measure = results[results["measure"] == measure]
        values = of_measure.pivot(index="seed", columns="row", values="value")[list(rows)]
        axis.set_prop_cycle(color=figures.COLOURS[:5], marker=list("osD^v"))
        for seed, of_seed in values.iterrows():
            style = {"linestyle": "none", "alpha": 0.8, "markersize": 6}
            axis.plot(of_seed, range(len(rows)), label=f"seed {seed}", **style)
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        figures.rows_from_top(axis, rows)
    panels[-1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def brains(
    truth: SyntheticPatients, fakes_hu: np.ndarray, patients: slice, middle: slice
) -> Figure:
    """The middle of the same slices without noise, with noise, and translated, 40 HU wide.

    Args:
        truth: of the patients.
        fakes_hu: (N, H, W) in HU.
        patients: which of the N heads.
        middle: the rows and columns that are shown.
    """
    stacks = {"true ct,\nno noise": truth.ct_hu_clean, "true ct": truth.ct_hu, "fake_ct": fakes_hu}
    cut = (patients, middle, middle)
    rows = {name: figures.ct_row(ct_hu[cut], "stroke") for name, ct_hu in stacks.items()}
    return figures.montage(rows, size=2)


def flicker(true_hu: np.ndarray, fakes_hu: np.ndarray, white: np.ndarray) -> Figure:
    """Volumes cut from the front, brain window, and the mean of their white matter by slice.

    Args:
        true_hu: (N, Z, H, W) in HU, the lowest slice first.
        fakes_hu: the same, translated.
        white: masks of white matter, of the same shape.
    """
    figure = Figure(figsize=(8.5, 3.8), layout="constrained")
    panels = figure.subplots(3, len(true_hu), sharey="row", height_ratios=(1, 1, 2.2))
    middle = true_hu.shape[2] // 2
    slices = np.arange(1, true_hu.shape[1] + 1)
    level = {"cmap": "gray", "vmin": 0, "vmax": 80, "interpolation": "nearest", "aspect": "auto"}
    for row, (name, volumes) in enumerate((("true ct", true_hu), ("fake_ct", fakes_hu))):
        style = {"linestyle": figures.DASHES[1 - row], "color": figures.COLOURS[row]}
        for axis, curve, volume, inside in zip(panels[row], panels[2], volumes, white, strict=True):
            axis.imshow(volume[::-1, middle], **level)
            axis.set(xticks=[], yticks=[])
            means = [image[tissue].mean() for image, tissue in zip(volume, inside, strict=True)]
            curve.plot(slices, means, label=name, **style)
            curve.set_xlabel("slice", fontsize=8)
            curve.grid(alpha=0.3)
        panels[row, 0].set_ylabel(name, fontsize=9)
    panels[2, 0].set_ylabel("white matter, HU", fontsize=9)
    panels[2, 0].legend(fontsize=8)
    return figure


def scanners(
    errors_hu: Mapping[float, float], percents: Sequence[float], views_mm: Sequence[float]
) -> Figure:
    """MAE over the strength of the receive field and over the field of view.

    Args:
        errors_hu: {field in % or view in mm: MAE in HU}.
        percents: the fields.
        views_mm: the views.
    """
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    scanners = (("receive field, %", percents, 20), ("field of view, mm", views_mm, 224))
    for axis, (label, keys, of_training) in zip(panels, scanners, strict=True):
        values = [errors_hu[key] for key in keys]
        axis.plot(keys, values, "o-", color=figures.COLOURS[0])
        axis.axvline(of_training, color="black", linestyle="--", linewidth=1, label="training")
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    panels[0].set(ylabel="MAE, HU", ylim=(0, 1.1 * max(errors_hu.values())))
    panels[0].legend(fontsize=8, frameon=False, loc="lower right")
    return figure


def errors(shown: Mapping, fakes_hu: Mapping[float, np.ndarray]) -> Figure:
    """MR, translation and error of the first test patient under several scanners.

    Args:
        shown: {title: (key of `fakes_hu`, the scans with their truth)}.
        fakes_hu: {key: (N, H, W) in HU}.
    """
    mri = [scans.test.mri[0].numpy() for _, scans in shown.values()]
    fake_hu = np.stack([fakes_hu[key][0] for key, _ in shown.values()])
    error_hu = fake_hu - np.stack([scans.test.truth.ct_hu[0] for _, scans in shown.values()])
    rows = {
        "mri": figures.network_row(mri),
        "fake_ct": figures.ct_row(fake_hu, "everything"),
        "error": figures.difference_row(error_hu, 500),
    }
    return figures.montage(rows, list(shown))


def message(
    mri: Tensor,
    pairs: Mapping[str, tuple[Tensor, Tensor]],
    message_hu: np.ndarray,
    patients: slice,
) -> Figure:
    """What a receive field changes: MR in grey, differences in colour.

    Args:
        mri: with the field, (N, 1, H, W) in [-1, 1].
        pairs: {label: MR with and without the field, each of the shape of `mri`}.
        message_hu: what the field changes in the translated CT, (N, H, W) in HU.
        patients: which of the N.
    """
    rows = {"mri": figures.network_row(mri[patients])}
    for label, (with_field, without) in pairs.items():
        change = (with_field - without)[patients, 0].numpy()
        rows[label] = figures.difference_row(change, 0.5, "of 2")
        if len(rows) == 2:
            # The translation comes between the MR and its round trip.
            rows["in fake_ct"] = figures.difference_row(message_hu[patients], 50)
    figure = figures.montage(rows)

    # Room for the labels, which four colour bars would push off the edge.
    width, height = figure.get_size_inches()
    figure.set_size_inches(width + 0.6, height)
    return figure


def same_slices(stacks_hu: Mapping[str, np.ndarray], patients: slice, window: str) -> Figure:
    """The same slices of several stacks, a row for each, in one window.

    Args:
        stacks_hu: {label: (N, H, W) in HU}.
        patients: which of the N.
        window: a name in `WINDOWS`.
    """
    rows = {label: figures.ct_row(stack[patients], window) for label, stack in stacks_hu.items()}
    return figures.montage(rows)


def outputs(drawn: Mapping[str, np.ndarray], count: int = 5) -> Figure:
    """The first outputs of untrained networks, a row for each kind of network.

    Args:
        drawn: {kind: (seeds, H, W)}, shown between the 1st and 99th percentile of the row.
        count: how many seeds.
    """
    rows = {}
    for kind, images in drawn.items():
        low, high = np.percentile(images[:count], [1, 99])
        rows[kind] = figures.ImageRow(images[:count], low, high)
    return figures.montage(rows, [f"seed {seed}" for seed in range(count)])

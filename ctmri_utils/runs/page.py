"""A run's comparisons as one HTML page that opens anywhere: `ctmri page RUN`."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..cyclegan.model import Translator
from ..evaluation.predictors import as_predictor
from ..evaluation.scores import evaluate
from ..scans.datasets import load_scans
from ..scans.unpaired import UnpairedScans
from ..settings import Run, Settings, read_settings
from ..units import HU, Scale
from ..viewers.figures import evenly_chosen
from ..viewers.html_pages import page, write_page
from ..viewers.viewer import MARKS, Viewer, compare, error_explorer
from .locations import locate
from .weights import load_translator

# Slices of each modality that are shown where there is no truth, and where there is one.
MOST_SLICES = 16
MOST_SCORED_SLICES = 512

METRICS = ("MAE HU", "bone Dice")


def run_page(run: str | Path, dataset: str | None = None, output: Path | None = None) -> Path:
    """Write a page that compares a run's test slices with their translations.

    Args:
        run: a run's folder, or the name of one in the build folder, such as scans-laptop-2026. Its
            settings.toml, or else its name, says data set, profile and seed.
        dataset: replaces the run's, for a folder of one's own.
        output: default page.html in the run's folder.

    Returns:
        The path of the page.

    Raises:
        ValueError, OSError: in one sentence.
    """
    checkpoint = locate(run)
    folder = checkpoint.parent
    options, settings = settings_of_run(folder)
    model = load_translator(checkpoint)
    scans = load_scans(dataset or options.dataset, settings, options.seed)

    title = f"CycleGAN on {options.dataset}, profile {options.profile}, seed {options.seed}"
    head = (
        f"<h1>{html.escape(title)}</h1><p>Test slices, on which nothing was trained. Research and "
        "teaching software, not for clinical use: a translated scan can remove or invent "
        "findings.</p>"
    )
    sections = [
        viewer.section(f"<h2>{heading}</h2>{viewer.montage()}")
        for heading, viewer in viewers(model, scans).items()
    ]

    output = Path(output or folder / "page.html")
    write_page(output, page(title, [head, *sections]))
    return output


def settings_of_run(folder: Path) -> tuple[Run, Settings]:
    """Data set, profile and seed of a run, and its settings, by its file or by its name."""
    if (folder / "settings.toml").is_file():
        return read_settings(folder / "settings.toml", {})

    parts = folder.name.rsplit("-", 2)
    if len(parts) < 3 or not parts[0] or not parts[2].isdigit():
        raise ValueError(
            f"{folder} has no settings.toml, and its name does not give data set, profile and "
            "seed: name it like scans-laptop-2026"
        )
    dataset, profile, seed = parts
    return read_settings(None, {"dataset": dataset, "profile": profile, "seed": int(seed)})


class Stack(NamedTuple):
    """Slices as a viewer shows them."""

    values: np.ndarray  # (N, H, W) in the unit
    unit: str


def stack_of(images: Tensor, scales: Sequence[Scale]) -> Stack:
    """Slices of the networks, (N, 1, H, W) in [-1, 1], each in the unit of its own scale."""
    slices = [scale.from_network(image[0]) for scale, image in zip(scales, images, strict=True)]
    return Stack(torch.stack(slices).numpy(), scales[0].unit)


def viewers(model: Translator, scans: UnpairedScans) -> dict[str, Viewer]:
    """A title and a viewer for each thing that can be compared on this set.

    These are the truth, if there is one, translations with their inputs, and round trips.
    """
    test = scans.test
    ct = evenly_chosen(test.ct, MOST_SLICES)
    ct_names = evenly_chosen(test.ct_names, MOST_SLICES)
    mri = evenly_chosen(test.mri, MOST_SLICES)
    mri_names = evenly_chosen(test.mri_names, MOST_SLICES)
    patients = evenly_chosen(test.mri_patients, MOST_SLICES)
    fake_mri = model.translate(ct, "mri")
    fake_ct = model.translate(mri, "ct")

    # A fake MR slice has no MR patient of its own, so it gets the scale of the first one.
    ct_scales, fake_ct_scales = [scans.ct_scale] * len(ct), [scans.ct_scale] * len(mri)
    mri_scales = [scans.mri_scales[patient] for patient in patients]
    fake_mri_scales = [mri_scales[0]] * len(ct)

    real_ct, real_mri = stack_of(ct, ct_scales), stack_of(mri, mri_scales)
    fake_ct_stack = stack_of(fake_ct, fake_ct_scales)
    fake_mri_stack = stack_of(fake_mri, fake_mri_scales)
    cycled_ct = stack_of(model.translate(fake_mri, "ct"), ct_scales)
    cycled_mri = stack_of(model.translate(fake_ct, "mri"), mri_scales)

    by_title = {}
    if test.truth is not None:
        by_title["MR to CT against the truth, worst patient first"] = error_viewer(model, scans)

    # The orientation of sets in grey levels is not known.
    marks = MARKS if scans.ct_scale.unit == HU.unit else ""
    for title, real, synthetic, kind, labels in (
        ("MR and the CT made from it", real_mri, fake_ct_stack, "translated", mri_names),
        ("CT and the MR made from it", real_ct, fake_mri_stack, "translated", ct_names),
        ("CT and its round trip by way of MR", real_ct, cycled_ct, "round trip", ct_names),
        ("MR and its round trip by way of CT", real_mri, cycled_mri, "round trip", mri_names),
    ):
        by_title[title] = compare(
            real.values,
            synthetic.values,
            alt=f"{title}, slice by slice.",
            units=(real.unit, synthetic.unit),
            names=("real", kind),
            spacing_mm=scans.spacing_mm,
            labels=labels,
            marks=marks,
        )
    return by_title


def error_viewer(model: Translator, scans: UnpairedScans) -> Viewer:
    """The true CT and the CT made from the MR, patient by patient, with their errors."""
    test = scans.test
    fake_hu = as_predictor(model, scans.ct_scale)(test)
    scores = evaluate({"CycleGAN": lambda split: fake_hu}, test, scans.spacing_mm)
    shown = evenly_chosen(np.arange(len(fake_hu)), MOST_SCORED_SLICES)
    return error_explorer(
        scores,
        test.truth.ct_hu[shown],
        fake_hu[shown],
        [test.ct_patients[i] for i in shown],
        method="CycleGAN",
        metrics=METRICS,
        spacing_mm=scans.spacing_mm,
        alt="True CT and the CT made from the MR, patient by patient, with a table of their "
        "errors.",
    )

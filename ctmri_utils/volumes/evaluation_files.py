"""What `ctmri evaluate` prints and writes: tables, CSV, JSON in the challenge's layout, a page."""

from __future__ import annotations

import html
import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from ..discovery import printable, stem
from ..evaluation.metrics import BONE_ABOVE_HU, mean_or_nan
from ..evaluation.scores import summarise, table
from ..files import atomic_write
from ..machine import build_folder
from ..people import people_in_words
from ..runs.weights import load_translator
from ..seeds import set_up
from ..viewers.pages import write_page
from ..viewers.viewer import error_explorer
from .axial_slices import FIELD_MM
from .evaluate import (
    SYNTHETIC_CT,
    Case,
    Evaluation,
    cases_of_files,
    cases_of_pairs,
    evaluate_cases,
)
from .packages import import_optional
from .translate import translate_volume

# The columns on the screen; the files hold all metrics.
COLUMNS = (
    "MAE HU",
    "PSNR dB",
    "SSIM",
    "PSNR 2025 dB",
    "MS-SSIM",
    "soft-tissue MAE HU",
    "bone MAE HU",
    "bone Dice",
    "HD95 mm",
    "WEPL mm",
)
MOST_ROWS = 20

# The challenge's names: PSNR is that of 2025; Dice and HD95 are of bone, without TotalSegmentator.
CHALLENGE = {
    "mae": "MAE HU",
    "psnr": "PSNR 2025 dB",
    "ms_ssim": "MS-SSIM",
    "psnr_2023": "PSNR dB",
    "ssim": "SSIM",
    "bone_dice": "bone Dice",
    "bone_hd95": "HD95 mm",
}

# Slices on the page.
MOST_SLICES = 256
PAGE_METRICS = ("MAE HU", "bone Dice", "SSIM", "HD95 mm")

DEFINITIONS = (
    "Whole volumes inside the mask. PSNR dB and SSIM: SynthRAD2023, peak 4024 HU. PSNR 2025 dB and "
    f"MS-SSIM: SynthRAD2025, peak 4095 HU. Bone: above {BONE_ABOVE_HU:.0f} HU."
)


def evaluate_files(
    source: Path,
    truth: Path | None,
    mask: Path | None,
    weights: str | None,
    output: Path | None,
    page: bool,
    baselines: bool,
    person: str | None,
    size: int | None,
    spacing_mm: float | None,
) -> None:
    """Score synthetic CTs, print the tables and write the files; see the command's help.

    Raises:
        ValueError, OSError: in one sentence; after the files are written, if people were left out.
    """
    cases, notes = _cases(source, truth, mask, weights, person, size, spacing_mm)
    bar = partial(import_optional("tqdm.auto").tqdm, unit="person", disable=None)
    found = evaluate_cases(cases, baselines, MOST_SLICES if page else 0, bar)

    for note in (*notes, *found.notes):
        print(f"note: {printable(note)}")
    if found.scores.empty:
        raise ValueError("nobody could be scored: see the notes above")
    print(f"\n{screen(found.scores)}\n")

    folder = Path(output or build_folder() / "evaluations" / stem(Path(source).resolve().name))
    write_files(folder, found, page)
    print(f"{folder} holds scores.csv and metrics.json{' and page.html' if page else ''}.")
    if found.failed:
        number = people_in_words(len(cases))
        raise ValueError(f"{found.failed} of {number} could not be scored: see the notes")


def _cases(
    source: Path,
    truth: Path | None,
    mask: Path | None,
    weights: str | None,
    person: str | None,
    size: int | None,
    spacing_mm: float | None,
) -> tuple[list[Case], list[str]]:
    """The people to score; ValueError where the flags do not fit together."""
    if weights is None:
        if truth is None:
            raise ValueError("nothing to compare with: give --truth, or --weights for pairs")
        return cases_of_files(Path(source), Path(truth), mask and Path(mask), person)

    if truth or mask or person:
        raise ValueError(
            "--weights takes true CT and masks from the pairs: leave --truth, --mask and --person "
            "out"
        )
    model = load_translator(weights, "ct").to(set_up(seed=0))
    cases, notes = cases_of_pairs(
        Path(source), partial(translate_volume, model, size=size, spacing_mm=spacing_mm)
    )
    return cases, [*notes, "nobody scored here may have been in the training data of these weights"]


def screen(scores: pd.DataFrame) -> str:
    """What stands on the screen: how many people, what the metrics are, and the tables."""
    lines = [f"{people_in_words(scores['patient'].nunique())}. {DEFINITIONS}"]
    for title, rows in tables(scores).items():
        lines += [f"{title}:", rows.to_string()]
    return "\n".join(lines)


def tables(scores: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables by title: a row a metric with intervals over people, and the worst people first."""
    found = {}
    if scores["patient"].nunique() > 1:
        means = table(summarise(scores, seed=0), COLUMNS)
        found["Means over people, with 95 % bootstrap intervals"] = means.T
    elif scores["method"].nunique() > 1:
        found["By method"] = _values(scores).T

    by_person = worst_first(scores)
    shown = by_person.head(MOST_ROWS)
    title = "By person, the worst MAE first"
    if len(shown) < len(by_person):
        title += f", {len(shown)} of {len(by_person)}"
    found[title] = shown.map("{:.4g}".format)
    return found


def _values(scores: pd.DataFrame) -> pd.DataFrame:
    """A row a method, a column a metric, of the only person."""
    wide = scores.pivot(index="method", columns="metric", values="value")
    wide = wide.reindex(index=scores["method"].unique(), columns=COLUMNS)
    return wide.round(4).rename_axis(index=None, columns=None)


def worst_first(scores: pd.DataFrame) -> pd.DataFrame:
    """The synthetic CT's scores: a row a person, those with the largest MAE first."""
    own = scores[scores["method"] == SYNTHETIC_CT]
    wide = own.pivot(index="patient", columns="metric", values="value")[list(COLUMNS)]
    wide = wide.sort_values("MAE HU", ascending=False)
    wide.index = [printable(name) for name in wide.index]
    return wide.rename_axis(columns=None)


def write_files(folder: Path, found: Evaluation, page: bool) -> None:
    """Write scores.csv, metrics.json and page.html; files of an earlier call are replaced."""
    with atomic_write(folder / "scores.csv") as temporary:
        found.scores.to_csv(temporary, index=False)
    with atomic_write(folder / "metrics.json") as temporary:
        text = json.dumps(challenge_metrics(found.scores), indent=4, allow_nan=False)
        temporary.write_text(f"{text}\n", encoding="utf-8")
    if page:
        with atomic_write(folder / "page.html") as temporary:
            _write_page(temporary, found)


def challenge_metrics(scores: pd.DataFrame) -> dict:
    """The synthetic CT's scores as SynthRAD2025's container lays them out.

    Returns:
        "results", a dict for each person, and "aggregates", their means. JSON knows no infinity (of
        HD95 where the synthetic CT has no bone) and no NaN (where there is no bone at all): they
        are null, and so is a mean over an infinity.
    """
    own = scores[scores["method"] == SYNTHETIC_CT]
    wide = own.pivot(index="patient", columns="metric", values="value").loc[own["patient"].unique()]
    results = []
    for name, row in wide.iterrows():
        numbers = {key: _json_number(row[metric]) for key, metric in CHALLENGE.items()}
        results.append({"patient": printable(name), **numbers})

    aggregates = {
        key: _json_number(mean_or_nan(wide[metric].dropna().to_numpy()))
        for key, metric in CHALLENGE.items()
    }
    return {"results": results, "aggregates": aggregates}


def _json_number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _write_page(path: Path, found: Evaluation) -> None:
    names = list(found.shown)
    shown = list(found.shown.values())
    labels = [name for name, slices in found.shown.items() for _ in range(len(slices.true_hu))]
    size = shown[0].true_hu.shape[-1]
    title = f"Synthetic CT of {people_in_words(len(names))}"
    viewer = error_explorer(
        found.scores,
        np.concatenate([slices.true_hu for slices in shown]),
        np.concatenate([slices.synthetic_hu for slices in shown]),
        labels,
        method=SYNTHETIC_CT,
        metrics=PAGE_METRICS,
        spacing_mm=FIELD_MM / size,
        alt="True and synthetic CT, person by person, with a table of their errors.",
    )
    rows = [
        f'<h2>{html.escape(title)}</h2><div style="overflow-x: auto; text-align: right">'
        f"{rows.to_html(border=0, col_space=80)}</div>"
        for title, rows in tables(found.scores).items()
    ]
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in found.notes)
    text = (
        f"<h1>{html.escape(title)}</h1><p>{html.escape(DEFINITIONS)} The worst person is shown "
        "first. Research and teaching software, not for clinical use: a translated scan can remove "
        f"or invent findings.</p>{''.join(rows)}<ul>{notes}</ul>"
    )
    write_page(path, title, [viewer.section(f"{text}{viewer.montage()}")])

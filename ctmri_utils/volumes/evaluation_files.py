"""From files to scores: the patients of `ctmri evaluate`, and what it prints and writes.

`ctmri evaluate SCT --truth CT --mask MASK`, or `ctmri evaluate DATA --weights FILE`. It writes
scores.csv, metrics.json in the challenge's layout, and a page.
"""

from __future__ import annotations

import html
import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from ..discovery import listed, printable, stem
from ..evaluation.metrics import BONE_ABOVE_HU, mean_or_nan
from ..evaluation.scores import score_table, summarise
from ..evaluation.volume_scores import VOLUME_METRICS
from ..files import atomic_write
from ..machine import build_folder, progress_bar
from ..patients import find_patients, people_in_words
from ..runs.weights import load_translator
from ..seeds import set_up
from ..viewers.html_pages import page, write_page
from ..viewers.viewer import error_explorer
from .axial_slices import FIELD_MM
from .evaluate import SYNTHETIC_CT, Case, Evaluation, evaluate_cases
from .pairs import PairedVolumes, find_pairs, read_mask, read_pair, shared_name
from .scan_files import Scan, evidence, list_masks, list_scans
from .translate import translate_volume
from .volume import Volume

# The screen shows these columns; the files hold all metrics.
COLUMNS = [name for name, metric in VOLUME_METRICS.items() if metric.on_screen]
MOST_ROWS = 20

# metrics.json has these names, those of SynthRAD2025 first.
SYNTHRAD2025 = ("mae", "psnr", "ms_ssim")
CHALLENGE = dict(
    sorted(
        [(metric.challenge, name) for name, metric in VOLUME_METRICS.items() if metric.challenge],
        key=lambda names: names[0] not in SYNTHRAD2025,
    )
)

# The page shows at most this many slices.
MOST_SLICES = 256
PAGE_METRICS = ("MAE HU", "bone Dice", "SSIM", "HD95 mm")

DEFINITIONS = (
    "Whole volumes inside the mask. PSNR dB and SSIM: SynthRAD2023, peak 4024 HU. PSNR 2025 dB and "
    f"MS-SSIM: SynthRAD2025, peak 4095 HU. Bone: above {BONE_ABOVE_HU:.0f} HU."
)


@dataclass(frozen=True)
class EvaluationOptions:
    """What is made of an evaluation.

    Args:
        output: the folder of the results; None: of the source's name, in build/evaluations.
        page: also write page.html.
        baselines: also score what needs no network.
    """

    output: Path | None = None
    page: bool = False
    baselines: bool = False


def evaluate_files(
    source: Path,
    truth: Path,
    mask: Path | None,
    pattern: str | None,
    options: EvaluationOptions,
) -> None:
    """Score synthetic CTs on disk, print the tables and write the files; see `cases_of_files`.

    Raises:
        ValueError, OSError: in one sentence; for patients left out, after the files are written.
    """
    cases, notes = cases_of_files(source, truth, mask, pattern)
    score_and_write(cases, notes, source, options)


def evaluate_pairs(
    source: Path,
    weights: str,
    size: int | None,
    spacing_mm: float | None,
    options: EvaluationOptions,
) -> None:
    """Score what weights make of the MR of each pair, as `evaluate_files` does.

    Args:
        source: a folder of pairs, see `find_pairs`.
        weights: a run or weights.
        size: pixels per side of the network's slices, as in `translate_volume`.
        spacing_mm: their pixel size, likewise.
        options: see `EvaluationOptions`.
    """
    model = load_translator(weights, "ct").to(set_up(seed=0))
    pairs, notes = find_pairs(source)

    def synthetic_ct(volumes: PairedVolumes) -> Volume:
        return translate_volume(model, volumes.mri, size, spacing_mm)

    cases = []
    for pair in pairs:
        name = pair.name or stem(pair.ct.files[0].name)
        cases.append(Case(name, partial(read_pair, pair), synthetic_ct))
    notes.append("nobody scored here may have been in the training data of these weights")
    score_and_write(cases, notes, source, options)


def score_and_write(
    cases: list[Case], notes: list[str], source: Path, options: EvaluationOptions
) -> None:
    """Score patients, print the tables and write the files."""
    slices_shown = MOST_SLICES if options.page else 0
    evaluation = evaluate_cases(cases, options.baselines, slices_shown, progress_bar("person"))
    for note in (*notes, *evaluation.notes):
        print(f"note: {printable(note)}")
    if evaluation.scores.empty:
        raise ValueError("nobody could be scored: see the notes above")
    print(f"\n{screen(evaluation.scores)}\n")

    folder = options.output or build_folder() / "evaluations" / stem(source.resolve().name)
    write_files(folder, evaluation, options.page)
    with_page = " and page.html" if options.page else ""
    print(f"{folder} holds scores.csv and metrics.json{with_page}.")
    if evaluation.failed:
        number = people_in_words(len(cases))
        raise ValueError(f"{evaluation.failed} of {number} could not be scored: see the notes")


def cases_of_files(
    source: Path, truth: Path, mask: Path | None, pattern: str | None
) -> tuple[list[Case], list[str]]:
    """One case for each synthetic CT, its true CT and its mask.

    Files are taken as they are; in folders, `patients` says which three belong to one patient.

    Args:
        source: a synthetic CT, or a folder of them.
        truth: the true CT, or a folder.
        mask: the mask or a folder, None for the head in the true CT.
        pattern: finds the patient in a path, see `find_patients`.

    Returns:
        The cases in the order of the synthetic CTs, and notes.

    Raises:
        FileNotFoundError: there is nothing to score.
        ValueError: a patient has two of a kind. One who lacks a kind gets a case that cannot be
            read.
    """
    sources = {"synthetic CT": source, "true CT": truth}
    if mask:
        sources["mask"] = mask
    scans, kinds, notes = [], [], []
    for kind, path in sources.items():
        scans_of_kind, left_out = list_kind(kind, path)
        scans += scans_of_kind
        kinds += [kind] * len(scans_of_kind)
        notes += [f"{path}: {note}" for note in left_out]

    patients = [""] * len(scans)
    if not all(path.is_file() for path in sources.values()):
        known = [evidence(scan, sources[kind]) for scan, kind in zip(scans, kinds, strict=True)]
        patients = find_patients(known, pattern).labels

    by_kind = {kind: {} for kind in sources}
    for scan, kind, patient in zip(scans, kinds, patients, strict=True):
        first = by_kind[kind].setdefault(patient, scan)
        if first is not scan:
            raise ValueError(
                f"{first.files[0]} and {scan.files[0]} seem to be two {kind}s of one person: tell "
                "people apart by --person REGEX, or give files"
            )

    cases = []
    for patient in by_kind["synthetic CT"]:
        cases.append(make_case({kind: by_kind[kind].get(patient) for kind in sources}))
    return cases, notes + unmatched_notes(by_kind)


def list_kind(kind: str, path: Path) -> tuple[list[Scan], list[str]]:
    """The synthetic CTs, true CTs or masks of a file or folder, and notes on what is left out."""
    if kind == "mask":
        return list_masks(path), []
    if kind == "true CT":
        return list_scans(path).select("ct", round_trip=False)
    return list_scans(path).select(None, round_trip=True)


def make_case(scans: dict[str, Scan | None]) -> Case:
    """The case of a patient's scans by kind, None for one that should be there and is not."""
    synthetic, true, mask = scans["synthetic CT"], scans["true CT"], scans.get("mask")

    def read() -> PairedVolumes:
        for kind, scan in scans.items():
            if scan is None:
                raise ValueError(
                    f"{synthetic.files[0]} has no {kind}: give the folder that holds it, or "
                    "match people by --person REGEX"
                )
        return PairedVolumes(true.read("ct"), None, read_mask(mask) if mask else None)

    def predict(volumes: PairedVolumes) -> Volume:
        return synthetic.read("ct")

    # Of a single file, its folder may be the only name.
    named_scan = true or synthetic
    path = Path(named_scan.name)
    if true and len(path.parts) == 1:
        path = Path(named_scan.files[0].resolve().parent.name, path)
    return Case(shared_name(path.as_posix()), read, predict)


def unmatched_notes(by_kind: dict[str, dict[str, Scan]]) -> list[str]:
    """A note on the patients who have a true CT and nothing to compare with it."""
    true, synthetic = by_kind["true CT"], by_kind["synthetic CT"]
    names = [scan.name for patient, scan in true.items() if patient not in synthetic]
    if not names:
        return []
    number = f"{len(names)} of {len(true)} true CTs have no synthetic CT, so no score"
    return [f"{number}: {listed(names)}"]


def screen(scores: pd.DataFrame) -> str:
    """The text on the screen: how many people, what the metrics are, and the tables."""
    lines = [f"{people_in_words(scores['patient'].nunique())}. {DEFINITIONS}"]
    for title, rows in tables(scores).items():
        lines += [f"{title}:", rows.to_string()]
    return "\n".join(lines)


def tables(scores: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables by title: a row a metric with intervals over patients, and a row a patient."""
    by_title = {}
    if scores["patient"].nunique() > 1:
        means = score_table(summarise(scores, seed=0), COLUMNS)
        by_title["Means over people, with 95 % bootstrap intervals"] = means.T
    elif scores["method"].nunique() > 1:
        by_title["By method"] = method_table(scores).T

    by_patient = worst_first(scores)
    shown = by_patient.head(MOST_ROWS)
    title = "By person, the worst MAE first"
    if len(shown) < len(by_patient):
        title += f", {len(shown)} of {len(by_patient)}"
    by_title[title] = shown.map("{:.4g}".format)
    return by_title


def method_table(scores: pd.DataFrame) -> pd.DataFrame:
    """A row a method, a column a metric, of the only patient."""
    wide = scores.pivot(index="method", columns="metric", values="value")
    wide = wide.reindex(index=scores["method"].unique(), columns=COLUMNS)
    return wide.round(4).rename_axis(index=None, columns=None)


def worst_first(scores: pd.DataFrame) -> pd.DataFrame:
    """The synthetic CT's scores: a row a patient, those with the largest MAE first."""
    scores = scores[scores["method"] == SYNTHETIC_CT]
    wide = scores.pivot(index="patient", columns="metric", values="value")[COLUMNS]
    wide = wide.sort_values("MAE HU", ascending=False)
    wide.index = [printable(name) for name in wide.index]
    return wide.rename_axis(columns=None)


def write_files(folder: Path, evaluation: Evaluation, with_page: bool) -> None:
    """Write scores.csv, metrics.json and page.html; files of an earlier call are replaced."""
    with atomic_write(folder / "scores.csv") as temporary:
        evaluation.scores.to_csv(temporary, index=False)
    with atomic_write(folder / "metrics.json") as temporary:
        text = json.dumps(challenge_metrics(evaluation.scores), indent=4, allow_nan=False)
        temporary.write_text(f"{text}\n", encoding="utf-8")
    if with_page:
        with atomic_write(folder / "page.html") as temporary:
            write_evaluation_page(temporary, evaluation)


def challenge_metrics(scores: pd.DataFrame) -> dict:
    """The synthetic CT's scores as SynthRAD2025's container lays them out.

    Returns:
        "results", a dict for each patient, and "aggregates", their means. JSON knows no infinity
        (of HD95 where the synthetic CT has no bone) and no NaN (where there is no bone at all):
        they are null, and so is a mean over an infinity.
    """
    scores = scores[scores["method"] == SYNTHETIC_CT]
    wide = scores.pivot(index="patient", columns="metric", values="value")
    wide = wide.loc[scores["patient"].unique()]
    results = []
    for name, row in wide.iterrows():
        numbers = {key: json_number(row[metric]) for key, metric in CHALLENGE.items()}
        results.append({"patient": printable(name), **numbers})

    aggregates = {
        key: json_number(mean_or_nan(wide[metric].dropna().to_numpy()))
        for key, metric in CHALLENGE.items()
    }
    return {"results": results, "aggregates": aggregates}


def json_number(value: float) -> float | None:
    """A number as JSON can hold it, None for infinity and NaN."""
    return float(value) if math.isfinite(value) else None


def write_evaluation_page(path: Path, evaluation: Evaluation) -> None:
    """Write a page with a viewer of true and synthetic CT, the tables and the notes."""
    names = []
    for name, slices in evaluation.shown.items():
        names += [name] * slices.shape[1]
    true_hu, synthetic_hu = np.concatenate(list(evaluation.shown.values()), axis=1)
    title = f"Synthetic CT of {people_in_words(len(evaluation.shown))}"
    viewer = error_explorer(
        evaluation.scores,
        true_hu,
        synthetic_hu,
        names,
        method=SYNTHETIC_CT,
        metrics=PAGE_METRICS,
        spacing_mm=FIELD_MM / true_hu.shape[-1],
        alt="True and synthetic CT, person by person, with a table of their errors.",
    )
    sections = []
    for heading, table_shown in tables(evaluation.scores).items():
        sections.append(
            f'<h2>{html.escape(heading)}</h2><div style="overflow-x: auto; text-align: right">'
            f"{table_shown.to_html(border=0, col_space=80)}</div>"
        )
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in evaluation.notes)
    text = (
        f"<h1>{html.escape(title)}</h1><p>{html.escape(DEFINITIONS)} The worst person is shown "
        "first. Research and teaching software, not for clinical use: a translated scan can remove "
        f"or invent findings.</p>{''.join(sections)}<ul>{notes}</ul>"
    )
    write_page(path, page(title, [viewer.section(f"{text}{viewer.montage()}")]))

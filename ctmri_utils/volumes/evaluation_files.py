"""From files to scores: the people of `ctmri evaluate`, and what it prints and writes.

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
from ..evaluation.scores import summarise, table
from ..evaluation.volume_scores import VOLUME_METRICS
from ..files import atomic_write
from ..machine import build_folder
from ..people import find_people, people_in_words
from ..runs.weights import load_translator
from ..seeds import set_up
from ..viewers.pages import page, write_page
from ..viewers.viewer import error_explorer
from .axial_slices import FIELD_MM
from .evaluate import SYNTHETIC_CT, Case, Evaluation, evaluate_cases
from .packages import progress_bar
from .pairs import PairedVolumes, find_pairs, read_mask, read_pair, shared_name
from .scan_files import Scan, evidence, list_masks, list_scans
from .translate import translate_volume
from .volume import Volume

# The columns on the screen; the files hold all metrics.
COLUMNS = [name for name, metric in VOLUME_METRICS.items() if metric.on_screen]
MOST_ROWS = 20

# The names in metrics.json, SynthRAD2025's own first.
SYNTHRAD2025 = ("mae", "psnr", "ms_ssim")
CHALLENGE = dict(
    sorted(
        [(metric.challenge, name) for name, metric in VOLUME_METRICS.items() if metric.challenge],
        key=lambda names: names[0] not in SYNTHRAD2025,
    )
)

# Slices on the page.
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
    person: str | None,
    options: EvaluationOptions,
) -> None:
    """Score synthetic CTs on disk, print the tables and write the files; see `cases_of_files`.

    Raises:
        ValueError, OSError: in one sentence; after the files are written, if people were left out.
    """
    cases, notes = cases_of_files(source, truth, mask, person)
    _evaluate(cases, notes, source, options)


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
    _evaluate(cases, notes, source, options)


def _evaluate(
    cases: list[Case], notes: list[str], source: Path, options: EvaluationOptions
) -> None:
    """Score people, print the tables and write the files."""
    slices_shown = MOST_SLICES if options.page else 0
    found = evaluate_cases(cases, options.baselines, slices_shown, progress_bar("person"))
    for note in (*notes, *found.notes):
        print(f"note: {printable(note)}")
    if found.scores.empty:
        raise ValueError("nobody could be scored: see the notes above")
    print(f"\n{screen(found.scores)}\n")

    folder = options.output or build_folder() / "evaluations" / stem(source.resolve().name)
    write_files(folder, found, options.page)
    with_page = " and page.html" if options.page else ""
    print(f"{folder} holds scores.csv and metrics.json{with_page}.")
    if found.failed:
        number = people_in_words(len(cases))
        raise ValueError(f"{found.failed} of {number} could not be scored: see the notes")


# Which people there are.


def cases_of_files(
    source: Path, truth: Path, mask: Path | None, person: str | None
) -> tuple[list[Case], list[str]]:
    """One case for each synthetic CT, its true CT and its mask.

    Files are taken as they are; in folders the three of a person find each other as `people` says.

    Args:
        source: a synthetic CT, or a folder of them.
        truth: the true CT, or a folder.
        mask: the mask or a folder, None for the head in the true CT.
        person: see `find_people`.

    Returns:
        The cases in the order of the synthetic CTs, and notes.

    Raises:
        FileNotFoundError: there is nothing to score.
        ValueError: somebody has two of a kind. Who lacks one gets a case that cannot be read.
    """
    places = {"synthetic CT": source, "true CT": truth}
    if mask:
        places["mask"] = mask
    found, notes = [], []
    for kind, place in places.items():
        scans, left_out = _scans_of(kind, place)
        found += [(kind, scan) for scan in scans]
        notes += [f"{place}: {note}" for note in left_out]

    if all(place.is_file() for place in places.values()):
        people = [""] * len(found)
    else:
        people = find_people([evidence(scan, places[kind]) for kind, scan in found], person).of

    by_person = {kind: {} for kind in places}
    for (kind, scan), who in zip(found, people, strict=True):
        other = by_person[kind].setdefault(who, scan)
        if other is not scan:
            raise ValueError(
                f"{other.files[0]} and {scan.files[0]} seem to be two {kind}s of one person: tell "
                "people apart by --person REGEX, or give files"
            )
    cases = [
        _case({kind: scans.get(who) for kind, scans in by_person.items()})
        for who in by_person["synthetic CT"]
    ]
    return cases, notes + _not_scored(by_person)


def _scans_of(kind: str, place: Path) -> tuple[list[Scan], list[str]]:
    """The synthetic CTs, true CTs or masks of a file or folder, and notes on what is left out."""
    if kind == "mask":
        return list_masks(place), []
    if kind == "true CT":
        return list_scans(place).chosen("ct", round_trip=False)
    return list_scans(place).chosen(None, round_trip=True)


def _case(own: dict[str, Scan | None]) -> Case:
    """The case of a person's files by kind, None for one that should be there and is not."""
    synthetic, true, mask = (own.get(kind) for kind in ("synthetic CT", "true CT", "mask"))

    def read() -> PairedVolumes:
        for kind, scan in own.items():
            if scan is None:
                raise ValueError(
                    f"{synthetic.files[0]} has no {kind}: give the folder that holds it, or "
                    "match people by --person REGEX"
                )
        return PairedVolumes(true.read("ct"), None, read_mask(mask) if mask else None)

    # Of a single file, its folder may be the only name.
    named = true or synthetic
    path = Path(named.name)
    if true and len(path.parts) == 1:
        path = Path(named.files[0].resolve().parent.name, path)
    return Case(shared_name(path.as_posix()), read, lambda volumes: synthetic.read("ct"))


def _not_scored(by_person: dict[str, dict[str, Scan]]) -> list[str]:
    """A note on the people who have a true CT and nothing to compare with it."""
    true, synthetic = by_person["true CT"], by_person["synthetic CT"]
    names = [scan.name for who, scan in true.items() if who not in synthetic]
    if not names:
        return []
    number = f"{len(names)} of {len(true)} true CTs have no synthetic CT, so no score"
    return [f"{number}: {listed(names)}"]


# What is printed and written.


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
    wide = own.pivot(index="patient", columns="metric", values="value")[COLUMNS]
    wide = wide.sort_values("MAE HU", ascending=False)
    wide.index = [printable(name) for name in wide.index]
    return wide.rename_axis(columns=None)


def write_files(folder: Path, found: Evaluation, with_page: bool) -> None:
    """Write scores.csv, metrics.json and page.html; files of an earlier call are replaced."""
    with atomic_write(folder / "scores.csv") as temporary:
        found.scores.to_csv(temporary, index=False)
    with atomic_write(folder / "metrics.json") as temporary:
        text = json.dumps(challenge_metrics(found.scores), indent=4, allow_nan=False)
        temporary.write_text(f"{text}\n", encoding="utf-8")
    if with_page:
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
    labels = np.repeat(list(found.shown), [slices.shape[1] for slices in found.shown.values()])
    true_hu, synthetic_hu = np.concatenate(list(found.shown.values()), axis=1)
    title = f"Synthetic CT of {people_in_words(len(found.shown))}"
    viewer = error_explorer(
        found.scores,
        true_hu,
        synthetic_hu,
        labels.tolist(),
        method=SYNTHETIC_CT,
        metrics=PAGE_METRICS,
        spacing_mm=FIELD_MM / true_hu.shape[-1],
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
    write_page(path, page(title, [viewer.section(f"{text}{viewer.montage()}")]))

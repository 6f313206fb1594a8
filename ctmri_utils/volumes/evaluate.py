"""Synthetic CT volumes scored against the true ones, person by person, as challenges do it.

`ctmri evaluate SCT --truth CT --mask MASK`, or `ctmri evaluate DATA --weights FILE`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import optimize

from ..discovery import left_out_notes, listed, printable, stem
from ..evaluation.scores import SCORE_COLUMNS
from ..evaluation.volume_scores import score_volume
from ..masks import volume_head_mask
from ..people import find_people
from ..units import AIR_HU
from .axial_slices import AxialStack, axial, resample
from .evaluation_baselines import Samples, fits, samples_of, without_mri
from .head_checks import with_air
from .pairs import PairedVolumes, covered, find_pairs, read_mask, read_pair, same_grid, shared_name
from .prepare import evidence
from .scan_files import Scan, check_any, list_masks, list_scans
from .volume import CT_REACHES, Volume, check_even, voxel_sides_mm

SYNTHETIC_CT = "synthetic CT"

# Metrics that need room for their windows.
WINDOWED = ("SSIM", "MS-SSIM")


@dataclass(frozen=True)
class Case:
    """What there is of one person.

    Args:
        name: for tables.
        read: reads the true CT, the MR if there is one, the mask if there is one.
        predict: makes or reads the synthetic CT from what `read` gave.
    """

    name: str
    read: Callable[[], PairedVolumes]
    predict: Callable[[PairedVolumes], Volume]


@dataclass(frozen=True)
class Shown:
    """Slices of one person for the page, (N, size, size) in HU."""

    true_hu: np.ndarray
    synthetic_hu: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """What became of all people.

    Args:
        scores: a row for each method, patient and metric, as of `evaluation.evaluate`.
        notes: on what was left out, assumed or changed.
        shown: slices by person, if they were asked for.
        failed: how many people could not be scored.
    """

    scores: pd.DataFrame
    notes: tuple[str, ...]
    shown: dict[str, Shown]
    failed: int


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
    found, notes = {}, []
    for kind, place in (("synthetic CT", source), ("true CT", truth), ("mask", mask)):
        if place is None:
            continue
        if kind == "mask":
            scans, left_out = list_masks(place), Counter()
        else:
            modality = "ct" if kind == "true CT" else None
            scans, left_out = list_scans(place).chosen(modality, round_trip=kind != "true CT")
            notes += [f"{place}: {note}" for note in left_out_notes(left_out)]
        check_any(scans, left_out, place)
        found[kind] = [(scan, Path(place)) for scan in scans]

    if all(len(scans) == 1 and scans[0][1].is_file() for scans in found.values()):
        by_person = {kind: {"": scan} for kind, [(scan, _)] in found.items()}
    else:
        by_person = _by_person(found, person)

    cases = [
        _case_of_files({kind: scans.get(who) for kind, scans in by_person.items()})
        for who in by_person["synthetic CT"]
    ]
    return cases, notes + _not_scored(by_person)


def _not_scored(by_person: dict[str, dict[str, Scan]]) -> list[str]:
    """A note on the people who have a true CT and nothing to compare with it."""
    true, synthetic = by_person["true CT"], by_person["synthetic CT"]
    names = [scan.name for who, scan in true.items() if who not in synthetic]
    if not names:
        return []
    number = f"{len(names)} of {len(true)} true CTs have no synthetic CT, so no score"
    return [f"{number}: {listed(names)}"]


def _by_person(
    found: dict[str, list[tuple[Scan, Path]]], person: str | None
) -> dict[str, dict[str, Scan]]:
    """Kind of file -> person -> scan."""
    everything = [(kind, scan, place) for kind, scans in found.items() for scan, place in scans]
    people = find_people([evidence(scan, place) for _, scan, place in everything], person)

    by_person = {kind: {} for kind in found}
    for (kind, scan, _), who in zip(everything, people.of, strict=True):
        other = by_person[kind].setdefault(who, scan)
        if other is not scan:
            raise ValueError(
                f"{other.files[0]} and {scan.files[0]} seem to be two {kind}s of one person: tell "
                "people apart by --person REGEX, or give files"
            )
    return by_person


def _case_of_files(own: dict[str, Scan | None]) -> Case:
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


def cases_of_pairs(source: Path, translate: Callable[[Volume], Volume]) -> tuple[list[Case], list]:
    """One case for each pair below a folder, see `find_pairs`; its MR is translated."""
    pairs, notes = find_pairs(source)

    def synthetic_ct(volumes: PairedVolumes) -> Volume:
        return translate(volumes.mri)

    cases = []
    for pair in pairs:
        name = pair.name or stem(pair.ct.files[0].name)
        cases.append(Case(name, partial(read_pair, pair), synthetic_ct))
    return cases, notes


# Scoring.


def evaluate_cases(
    cases: list[Case],
    baselines: bool = False,
    slices_shown: int = 0,
    progress: Callable = iter,
) -> Evaluation:
    """Score every person's synthetic CT on the grid of the true one, inside the mask.

    A person who cannot be scored is left out, with a note.

    Args:
        cases: the people.
        baselines: also score what needs no network; where there is an MR, fits on the other people.
        slices_shown: so many slices of all people are kept to be shown.
        progress: wraps the loop over people.
    """
    rows, notes, shown, failed = [], [], {}, 0
    samples = _all_samples(cases) if baselines else {}
    for case in progress(cases):
        try:
            volumes = case.read()
            mask, mask_notes = _mask(volumes)
            predictions, case_notes = _predictions(case, volumes, mask)
            if baselines:
                others = [own for name, own in samples.items() if name != case.name]
                predictions |= _baselines(volumes, mask, others)
            scores = list(_scores(case.name, volumes.ct, mask, predictions))
            case_notes += [
                f"{metric} is undefined: volume or mask are too small for its windows"
                for method, _, metric, value in scores
                if method == SYNTHETIC_CT and metric in WINDOWED and np.isnan(value)
            ]
            if slices_shown:
                most = max(1, slices_shown // len(cases))
                shown[case.name] = _shown(volumes.ct, predictions[SYNTHETIC_CT], most)
        except (ValueError, OSError) as error:
            failed += 1
            notes.append(f"{case.name} is left out: {error}")
            continue
        rows += scores
        notes += [f"{case.name}: {note}" for note in (*volumes.ct.notes, *case_notes, *mask_notes)]
    scores = pd.DataFrame(rows, columns=SCORE_COLUMNS)
    return Evaluation(scores, tuple(map(printable, notes)), shown, failed)


def _all_samples(cases: list[Case]) -> dict[str, Samples]:
    """Voxels of every person who has an MR, for the fits on the others."""
    found = {}
    for case in cases:
        try:
            volumes = case.read()
            if volumes.mri is not None:
                mri, _ = _on(volumes.mri, volumes.ct)
                found[case.name] = samples_of(mri, volumes.ct.values, _mask(volumes)[0])
        except (ValueError, OSError):
            # Scoring will say what is wrong.
            continue
    return found


def _predictions(
    case: Case, volumes: PairedVolumes, mask: np.ndarray
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The synthetic CT in HU on the grid of the true one, as a method; and notes."""
    synthetic = case.predict(volumes)
    values, notes = _on(synthetic, volumes.ct)

    # (3, K)
    scored = np.argwhere(mask).T
    beyond = np.mean(~covered(synthetic, volumes.ct.affine, scored)) if notes else 0
    if beyond == 1:
        raise ValueError(
            "its synthetic CT does not cover the region to score: give both in the same coordinates"
        )
    if beyond:
        notes.append(
            f"{beyond:.1%} of the scored region lies outside the synthetic CT, and was taken as air"
        )
    return {SYNTHETIC_CT: values}, [*synthetic.warnings, *synthetic.notes, *notes]


def _baselines(
    volumes: PairedVolumes, mask: np.ndarray, others: list[Samples]
) -> dict[str, np.ndarray]:
    """Method -> CT in HU on the grid of the true one."""
    order, _ = axial_order(volumes.ct)
    predictions = without_mri(volumes.ct.values, mask, order[2])
    if others and volumes.mri is not None:
        mri, _ = _on(volumes.mri, volumes.ct)
        predictions |= fits(others, mri, mask)
    return predictions


def _on(volume: Volume, truth: Volume) -> tuple[np.ndarray, list[str]]:
    """A volume's values on the grid of another one, and a note if they had to be resampled."""
    for one in (volume, truth):
        check_even(one, "scores are of evenly spaced ones: resample it evenly first")
    if same_grid(volume, truth):
        return volume.values, []
    values = resample(
        volume.values, volume.affine, truth.affine, truth.values.shape, volume.background
    )
    return values, ["the grids differ: it was resampled onto that of the true CT"]


def _mask(volumes: PairedVolumes) -> tuple[np.ndarray, list[str]]:
    """Where to score, (I, J, K) bool; the head in the true CT if nobody says, with a note."""
    truth, mask = volumes.ct, volumes.mask
    if mask is None:
        order, _ = axial_order(truth)
        values, notes = with_air(truth.values)
        head = volume_head_mask(values.transpose(order), "ct").transpose(np.argsort(order))
        return head, [*notes, "no mask was given, so the head in the true CT was scored"]

    notes = [f"the mask: {note}" for note in mask.notes]
    low, high = truth.values.min(), truth.values.max()
    if low > CT_REACHES:
        notes.append(
            f"the true CT shows no air, with values of {low:.0f} to {high:.0f} HU: if it was "
            "clipped to a window, the scores are wrong"
        )
    if same_grid(mask, truth):
        return mask.values > 0, notes

    values = resample(mask.values, mask.affine, truth.affine, truth.values.shape, 0) > 0.5
    if not values.any():
        raise ValueError("its mask lies outside the true CT: give the mask of this scan")
    return values, [*notes, "the mask was resampled onto the grid of the true CT"]


def axial_order(volume: Volume) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """How to transpose a volume so that axial slices come first, then rows; its spacing then.

    No axis is turned over: an axial file keeps the order in which challenges read it.
    """
    sides = voxel_sides_mm(volume.affine)
    x, y, z = optimize.linear_sum_assignment(-np.abs(volume.affine[:3, :3] / sides))[1]
    order = (int(z), int(y), int(x))
    return order, tuple(float(sides[axis]) for axis in order)


def _scores(
    name: str, truth: Volume, mask: np.ndarray, predictions: dict[str, np.ndarray]
) -> Iterator[tuple]:
    """Rows of method, patient, metric and value."""
    order, spacing_mm = axial_order(truth)
    true_hu, mask = truth.values.transpose(order), mask.transpose(order)
    for method, predicted in predictions.items():
        scored = score_volume(predicted.transpose(order), true_hu, mask, spacing_mm)
        for metric, value in scored.items():
            yield method, name, metric, value


def _shown(truth: Volume, synthetic: np.ndarray, most: int) -> Shown:
    """Some axial slices of both, evenly chosen from those that show a head."""
    stack: AxialStack = axial(truth)
    levels = np.flatnonzero(stack.head.any((1, 2)))
    levels = levels[:: -(-len(levels) // most)]
    like = resample(synthetic, truth.affine, stack.affine, stack.values.shape, AIR_HU)
    return Shown(stack.values[levels], like[levels])

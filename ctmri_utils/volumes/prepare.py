"""Volumes become a folder of slices to train on, split by patient.

`ctmri prepare OUTPUT --ct FOLDER --mri FOLDER`, or `ctmri prepare OUTPUT --pairs FOLDER`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ..discovery import listed, printable
from ..patients import LINK, Evidence, find_patients, merged_labels, people_in_words
from ..scans.slices import FOLDERS
from ..units import HU, MODALITIES, STORED_HU_OFFSET, mri_scale
from .axial_slices import AxialStack, axial
from .pairs import Pair, axial_pair, find_pairs, read_pair
from .scan_files import Scan, evidence, list_scans
from .volume import Volume, atomic_create

COLUMNS = (
    "file",
    "modality",
    "patient",
    "z_mm",
    "split",
    "spacing_mm",
    "gain",
    "offset",
    "unit",
    "sha256",
)

# A slice with a smaller share of head than this shows the scalp's top or the room.
LEAST_HEAD = 0.05

# An error quotes at most this many reasons.
MOST_REASONS = 3

# Each MR is stored with this many units between its percentiles.
MRI_SPAN = 1000.0

LARGEST_UINT16 = 65535


@dataclass(frozen=True)
class Preparation:
    """How slices are made and split.

    Args:
        size: pixels per side of the slices.
        test_share: of the patients, between 0 and 1.
        seed: of the draw that splits them.
        pattern: a regular expression that finds the patient in a path, see `find_patients`.

    Raises:
        ValueError: the share leaves one side empty.
    """

    size: int = 128
    test_share: float = 0.2
    seed: int = 0
    pattern: str | None = None

    def __post_init__(self):
        if not 0 < self.test_share < 1:
            raise ValueError(
                f"a test share of {self.test_share:g} leaves one side empty: choose one between 0 "
                "and 1"
            )


DEFAULTS = Preparation()


@dataclass(frozen=True)
class Head:
    """The slices of one volume, ready to be written.

    Args:
        name: of its scan, for notes.
        volume: as it was read.
        stack: its axial slices.
        levels: (Z,) bool, which of them are written.
        pixels: (Z, H, W) uint16, what is written.
        scale: gain, offset and unit of the pixels, for the manifest.
    """

    name: str
    volume: Volume
    stack: AxialStack
    levels: np.ndarray
    pixels: np.ndarray
    scale: dict[str, str]


@dataclass(frozen=True)
class Source:
    """A scan or a pair, before it is read.

    Args:
        name: its path, for notes.
        evidence: of the patient.
        read: takes the pixels per side, and returns the heads and notes or raises ValueError.
    """

    name: str
    evidence: Evidence
    read: Callable[[int], tuple[list[Head], list[str]]]


def prepare_slices(
    output: Path,
    ct: Path,
    mri: Path,
    options: Preparation = DEFAULTS,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[str]:
    """Write the axial slices of all scans as a folder that `scans.folder_scans` reads.

    * Slices are 16-bit PNG beside a manifest.csv. What lies outside the head becomes background.
    * MR is stored so that percentiles 0.5 and 99.5 of each scan's head are 0 and 1000: a patient's
      scans share one scale when they are read.
    * Patients are found as `patients` says, split by `split_patients` and called person-001 ...;
      no name, id or date is written. Copies of a scan stay on one side.
    * Slices with hardly any head are left out, and so are masks, label maps, translations and, with
      a note, scans that cannot be read or give no slices.

    Args:
        output: a new folder.
        ct: the file or folder of the CT volumes, see `find_scans`.
        mri: likewise, of the MR volumes.
        options: of the slices and the split.
        progress: wraps the loop over the scans.

    Returns:
        Notes: how many patients there are and how they were found, what was left out or changed.

    Raises:
        ValueError: no patient is left to train or test on.
        FileNotFoundError: there is no scan of a modality.
        FileExistsError: the output is not empty.
    """
    sources, notes = [], []
    for modality, folder in (("ct", Path(ct)), ("mri", Path(mri))):
        scans, left_out = list_scans(folder).select(modality, round_trip=False)
        notes += [f"{folder}: {note}" for note in left_out]
        for scan in scans:
            read = partial(heads_of_scan, scan, modality, f"scan {len(sources) + 1}")
            sources.append(Source(str(scan.location), evidence(scan, folder), read))

    _, notes = write_folder(Path(output), sources, notes, options, progress)
    return [printable(note) for note in notes]


def prepare_pairs(
    output: Path,
    source: Path,
    ct: str | None = None,
    mri: str | None = None,
    options: Preparation = DEFAULTS,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[str]:
    """As `prepare_slices`, from registered CT and MR; the manifest says which are pairs.

    Both come onto the MR's slices. What only one of them shows, or lies outside of the pair's mask,
    becomes background, and a level counts where both show a head.

    Args:
        output: a new folder.
        source: a folder of pairs, see `find_pairs`.
        ct: a pattern of the paths of the CT, None to go by their names.
        mri: likewise.
        options, progress: see `prepare_slices`.

    Returns:
        Notes, which also name the pairs in the test. Those names are written nowhere.

    Raises:
        ValueError, FileNotFoundError, FileExistsError: as `prepare_slices` and `find_pairs`.
    """
    source = Path(source)
    pairs, notes = find_pairs(source, ct, mri)
    sources = [
        Source(pair.name, evidence(pair.ct, source), partial(heads_of_pair, pair)) for pair in pairs
    ]
    table, notes = write_folder(Path(output), sources, notes, options, progress)
    in_test = table.loc[table["split"] == "test", "source"].unique()
    names = sorted(pairs[k].name for k in in_test)
    return [printable(note) for note in (*notes, f"in the test: {', '.join(names)}")]


def heads_of_scan(scan: Scan, modality: str, name: str, size: int) -> tuple[list[Head], list[str]]:
    """The head in a scan, and notes; see `Source.read`."""
    volume = scan.read(modality)
    stack = axial(volume, size)
    share = stack.head.mean((1, 2))
    if share.max() < LEAST_HEAD:
        raise ValueError(
            f"no slice shows at least {LEAST_HEAD:.0%} head, the largest {share.max():.1%}"
        )
    notes = [f"{name}: {note}" for note in (*volume.notes, *stack.notes)]
    return [head_slices(name, volume, stack, share >= LEAST_HEAD)], notes


def heads_of_pair(pair: Pair, size: int) -> tuple[list[Head], list[str]]:
    """The heads in the CT and the MR of a pair, and notes; see `Source.read`."""
    volumes = read_pair(pair)
    ct, mri, notes = axial_pair(volumes, size)
    levels = np.minimum(ct.head.mean((1, 2)), mri.head.mean((1, 2))) >= LEAST_HEAD
    if not levels.any():
        raise ValueError(f"no slice shows at least {LEAST_HEAD:.0%} head in both scans")
    heads = [
        head_slices(f"ct of {pair.name}", volumes.ct, ct, levels),
        head_slices(f"mri of {pair.name}", volumes.mri, mri, levels),
    ]
    return heads, [f"{pair.name}: {note}" for note in notes]


def head_slices(name: str, volume: Volume, stack: AxialStack, levels: np.ndarray) -> Head:
    """The slices of a stack as whole numbers, background outside of the head."""
    values = np.where(stack.head_and_rim, stack.values, stack.background)
    if volume.modality == "ct":
        gain, offset, unit = 1.0, -float(STORED_HU_OFFSET), HU.unit
    else:
        scale = mri_scale(values, stack.head)
        values = (values - scale.low) * (MRI_SPAN / (scale.high - scale.low))
        gain, offset, unit = np.ptp(values) / LARGEST_UINT16, float(values.min()), "MR unit"

    pixels = np.rint((values - offset) / gain).clip(0, LARGEST_UINT16).astype(np.uint16)
    scale = {"gain": str(gain), "offset": str(offset), "unit": unit}
    return Head(name, volume, stack, levels, pixels, scale)


def write_folder(
    output: Path,
    sources: list[Source],
    notes: list[str],
    options: Preparation,
    progress: Callable[[Iterable], Iterable],
) -> tuple[pd.DataFrame, list[str]]:
    """Write the slices of all sources, split by patient.

    Returns:
        The manifest, with two more columns: "source", which one a slice comes from, and "content",
        a digest of its volume. And the notes, on the patients first.
    """
    patients = find_patients([source.evidence for source in sources], options.pattern)
    with atomic_create(output) as folder:
        folder.mkdir()
        rows, more_notes = write_slices(folder, progress(sources), options.size)
        table = pd.DataFrame(rows, columns=["source", "content", *COLUMNS, "pair"])

        # Which patients have a scan that can be read is known only now.
        notes = [patients.sentence(sorted(set(table["source"]))), *notes, *more_notes]
        table["patient"] = [patients.labels[k] for k in table["source"]]
        try:
            table["split"] = draw_sides(table, options)
        except ValueError as error:
            reasons = [note for note in notes if note.startswith("left out")]
            details = listed([notes[0], *reasons], "; ", 1 + MOST_REASONS)
            raise ValueError(f"{error} ({details})") from None

        table["patient"] = numbered_patients(table["patient"], options.seed)
        table["file"] = move_to_sides(folder, table)
        columns = COLUMNS if table["pair"].isna().all() else (*COLUMNS, "pair")
        table.to_csv(folder / "manifest.csv", columns=columns, index=False, lineterminator="\n")
    return table, notes


def write_slices(
    folder: Path, sources: Iterable[Source], size: int
) -> tuple[list[dict], list[str]]:
    """Write the slices of all sources into one folder; a row for each, and notes."""
    rows, notes, name_of_content = [], [], {}
    for k, source in enumerate(sources):
        try:
            heads, source_notes = source.read(size)
        except (ValueError, PermissionError) as error:
            where = "" if source.name in str(error) else f"{source.name}: "
            notes.append(f"left out: {where}{error}")
            continue

        notes += source_notes
        for head in heads:
            content = hashlib.sha256(head.volume.values.tobytes()).hexdigest()
            first_name = name_of_content.setdefault(content, head.name)
            if first_name != head.name:
                notes.append(f"{head.name} has the same values as {first_name}: is it a copy?")
            for row in write_head(folder, k + 1, head):
                row |= {"source": k, "content": content, "modality": head.volume.modality}
                if len(heads) > 1:
                    level = Path(row["file"]).stem.rpartition("_")[2]
                    row["pair"] = f"{k + 1:03d}-{level}"
                rows.append(row)
    return rows, notes


def write_head(folder: Path, number: int, head: Head) -> Iterator[dict[str, str]]:
    """Write the slices of one volume, and yield their part of a manifest row."""
    slice_mm, pixel_mm, _ = head.stack.spacing_mm
    heights = head.stack.heights
    if heights is None:
        heights = np.arange(len(head.pixels))
    for z in np.flatnonzero(head.levels):
        name = f"{head.volume.modality}_{number:03d}_{z:04d}.png"
        Image.fromarray(head.pixels[z]).save(folder / name, optimize=True)
        yield head.scale | {
            "file": name,
            "z_mm": f"{heights[z] * slice_mm:.2f}",
            "spacing_mm": f"{pixel_mm:.6g}",
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        }


def draw_sides(table: pd.DataFrame, options: Preparation) -> np.ndarray:
    """ "train" or "test" for each slice: patients who share a scan stay on one side."""
    keys = [[("", row.patient), (LINK, row.content)] for row in table.itertuples()]
    groups = pd.Series(merged_labels(keys), dtype=object)
    by_modality = {modality: set(groups[table["modality"] == modality]) for modality in MODALITIES}
    test = split_patients(by_modality, options.test_share, options.seed)
    return np.where(groups.isin(test), "test", "train")


def split_patients(by_modality: dict[str, set], test_share: float, seed: int) -> set:
    """Draw the patients of the test side: this share of each modality's, at least one.

    Args:
        by_modality: the patients of each modality; one who has both is in both sets.
        test_share: between 0 and 1.
        seed: of the draw.

    Raises:
        ValueError: a modality has no patient left to train on.
    """
    draw = np.random.default_rng(seed)
    test = set()
    for patients in by_modality.values():
        order = sorted(patients - test)
        draw.shuffle(order)

        # Some may be in the test already, on account of the other modality.
        goal = max(1, round(test_share * len(patients)))
        missing = max(0, goal - len(patients & test))
        test |= set(order[:missing])

    for modality, patients in by_modality.items():
        if not patients - test:
            raise ValueError(
                f"{people_in_words(len(patients))} with {modality} (by PatientID, folder or name) "
                "cannot be split so that nobody is both in train and in test: give at least two "
                "for each modality, lower the test share, or tell people apart by --person"
            )
    return test


def numbered_patients(patients: pd.Series, seed: int) -> pd.Series:
    """The patients called person-001 ..., in an order that says nothing about the alphabet."""
    order = sorted(set(patients))
    np.random.default_rng(seed).shuffle(order)
    names = {patient: f"person-{number:03d}" for number, patient in enumerate(order, start=1)}
    return patients.map(names)


def move_to_sides(folder: Path, table: pd.DataFrame) -> list[str]:
    """Move every slice to trainA, trainB, testA or testB, and return its path there."""
    for name in FOLDERS.values():
        (folder / name).mkdir()

    paths = []
    for row in table.itertuples():
        path = f"{FOLDERS[row.split, row.modality]}/{row.file}"
        (folder / row.file).rename(folder / path)
        paths.append(path)
    return paths

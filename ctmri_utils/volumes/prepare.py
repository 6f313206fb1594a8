"""Volumes become a folder of slices to train on, split by person.

`ctmri prepare OUTPUT --ct FOLDER --mri FOLDER`, or `ctmri prepare OUTPUT --pairs FOLDER`.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..discovery import left_out_notes, printable
from ..people import LINK, Evidence, People, find_people, merged, people_in_words
from ..scans.slices import FOLDERS
from ..units import HU, STORED_HU_OFFSET, mri_scale
from .axial_slices import AxialStack, axial
from .dicom_files import read_file, tag_text
from .packages import quiet_readers
from .pairs import Pair, axial_pair, find_pairs, read_pair
from .scan_files import Scan, check_any, list_scans
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

# Share of a slice; with less head it is the scalp's top or the room.
LEAST_HEAD = 0.05

# Reasons that an error quotes.
MOST_REASONS = 3

# "MR unit" between a scan's percentiles.
MRI_SPAN = 1000.0

LARGEST_UINT16 = 65535


def evidence(scan: Scan, source: Path) -> Evidence:
    """What is known of the person in a scan, for comparison only; it is never written."""
    folder = source if source.is_dir() else source.parent
    path = scan.files[0].relative_to(folder)
    if scan.is_file:
        return Evidence(path.parts, source=source)

    try:
        with quiet_readers():
            header = read_file(scan.files[0], pixels=False)
    except ValueError:
        # Reading the scan will say what is wrong with it.
        return Evidence(path.parent.parts, has_file_name=False, source=source)
    return Evidence(
        path.parent.parts,
        has_file_name=False,
        source=source,
        patient_id=tag_text(header, "PatientID"),
        name_and_birth=(tag_text(header, "PatientName"), tag_text(header, "PatientBirthDate")),
        study=tag_text(header, "StudyInstanceUID"),
    )


def split_people(people: dict[str, set], test_share: float, seed: int) -> set:
    """Draw the people of the test side: this share of each modality's, at least one.

    Args:
        people: modality -> its people, who may have both.
        test_share: between 0 and 1.
        seed: of the draw.

    Raises:
        ValueError: a modality has nobody left to train on.
    """
    draw = np.random.default_rng(seed)
    test = set()
    for names in people.values():
        order = sorted(names - test)
        draw.shuffle(order)

        # Some may be in the test already, on account of the other modality.
        goal = max(1, round(test_share * len(names)))
        missing = max(0, goal - len(names & test))
        test |= set(order[:missing])

    for modality, names in people.items():
        if not names - test:
            raise ValueError(
                f"{people_in_words(len(names))} with {modality} (by PatientID, folder or name) "
                "cannot be split so that nobody is both in train and in test: give at least two "
                "for each modality, lower the test share, or tell people apart by --person"
            )
    return test


def prepare_slices(
    output: Path,
    ct: Path,
    mri: Path,
    size: int = 128,
    test_share: float = 0.2,
    seed: int = 0,
    progress: Callable[[Iterable], Iterable] = iter,
    person: str | None = None,
) -> list[str]:
    """Write the axial slices of all scans as a folder that `scans.folder_scans` reads.

    The slices are 16-bit PNG beside a manifest.csv. What lies outside the head becomes background,
    slices with hardly any head are left out. MR is stored so that percentiles 0.5 and 99.5 of each
    scan's head are 0 and 1000: a person's scans share one scale when they are read. Who a person is
    says `people`; people are split by `split_people` and called person-001 ...; no name, id or
    date is written. A scan that cannot be read or that gives no slices is left out, with a note;
    copies of a scan stay on one side; masks, label maps and translations never come in.

    Args:
        output: a new folder.
        ct: where the CT volumes lie, see `find_scans`.
        mri: where the MR volumes lie.
        size: pixels per side of the slices.
        test_share: of the people, between 0 and 1.
        seed: of the draw that splits them.
        progress: wraps the loop over the scans.
        person: a regular expression that finds the person in a scan's path, see `find_people`.

    Returns:
        Notes: how many people there are and how they were told apart, what was left out or changed.

    Raises:
        ValueError: nobody is left to train or test on, or the share is none.
        FileNotFoundError: no scan of a modality.
        FileExistsError: the output is not empty.
    """
    _check_share(test_share)
    scans, notes = _list_all(Path(ct), Path(mri))
    people = find_people([evidence(scan, source) for _, source, scan in scans], person)

    with atomic_create(Path(output)) as temporary:
        temporary.mkdir()
        rows, scan_notes = _write_scans(temporary, progress(scans), people.of, size)
        notes = _finish(temporary, rows, people, [*notes, *scan_notes], test_share, seed)
    return [printable(note) for note in notes]


def prepare_pairs(
    output: Path,
    source: Path,
    ct: str | None = None,
    mri: str | None = None,
    size: int = 128,
    test_share: float = 0.2,
    seed: int = 0,
    progress: Callable[[Iterable], Iterable] = iter,
    person: str | None = None,
) -> list[str]:
    """As `prepare_slices`, from CT and MR that lie upon each other; the manifest says which do.

    Both come onto the MR's slices. What only one of them shows, or lies outside of the pair's mask,
    becomes background, and a level counts where both show a head.

    Args:
        output: a new folder.
        source: a folder of pairs, see `find_pairs`.
        ct: a pattern of the paths of the CT, None to go by their names.
        mri: likewise.
        size, test_share, seed, progress, person: see `prepare_slices`.

    Returns:
        Notes, which also name the pairs in the test. Those names are written nowhere.

    Raises:
        ValueError, FileNotFoundError, FileExistsError: as `prepare_slices` and `find_pairs`.
    """
    _check_share(test_share)
    pairs, notes = find_pairs(Path(source), ct, mri)
    people = find_people([evidence(pair.ct, Path(source)) for pair in pairs], person)

    with atomic_create(Path(output)) as temporary:
        temporary.mkdir()
        rows, pair_notes = _write_pairs(temporary, progress(pairs), people.of, size)
        notes = _finish(temporary, rows, people, [*notes, *pair_notes], test_share, seed)
        in_test = sorted({pairs[row["scan"]].name for row in rows if row["split"] == "test"})
        notes.append(f"in the test: {', '.join(in_test)}")
    return [printable(note) for note in notes]


def _check_share(test_share: float) -> None:
    if not 0 < test_share < 1:
        raise ValueError(
            f"a test share of {test_share:g} leaves one side empty: choose one between 0 and 1"
        )


def _finish(
    folder: Path, rows: list[dict], people: People, notes: list[str], test_share: float, seed: int
) -> list[str]:
    """Split the slices in a folder by person, and write the manifest; the notes, people first."""
    # Only now it is known who can be read.
    notes = [people.sentence(sorted({row["scan"] for row in rows})), *notes]
    _join_copies(rows)
    try:
        test = split_people(_groups(rows), test_share, seed)
    except ValueError as error:
        raise ValueError(f"{error} ({'; '.join(_shortest(notes))})") from None

    _move_to_sides(folder, rows, test)
    _replace_names(rows, seed)
    columns = COLUMNS + (("pair",) if "pair" in rows[0] else ())
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
    return notes


def _list_all(ct: Path, mri: Path) -> tuple[list[tuple[str, Path, Scan]], list[str]]:
    """The scans of both modalities, each with its source, and notes on what was left out."""
    found, notes = [], []
    for modality, source in (("ct", ct), ("mri", mri)):
        scans, left_out = list_scans(source).chosen(modality, round_trip=False)
        check_any(scans, left_out, source)
        found += [(modality, source, scan) for scan in scans]
        notes += [f"{source}: {note}" for note in left_out_notes(left_out)]
    return found, notes


def _join_copies(rows: list[dict]) -> None:
    """Give each row the group that stays on one side: a person, and whoever has the same scan."""
    groups = merged([[("", row["patient"]), (LINK, row["content"])] for row in rows])
    for row, group in zip(rows, groups, strict=True):
        row["group"] = group


def _groups(rows: list[dict]) -> dict[str, set]:
    """The groups of people with each modality."""
    groups = {"ct": set(), "mri": set()}
    for row in rows:
        groups[row["modality"]].add(row["group"])
    return groups


def _shortest(notes: list[str]) -> list[str]:
    """The notes that explain a refusal, or their number where they are many."""
    left_out = [note for note in notes if note.startswith("left out")]
    if len(left_out) > MOST_REASONS:
        more = len(left_out) - MOST_REASONS
        left_out = [*left_out[:MOST_REASONS], f"and {more} more were left out"]
    return [notes[0], *left_out]


def _write_scans(
    folder: Path, scans: Iterable[tuple[str, Path, Scan]], people: Sequence[str], size: int
) -> tuple[list[dict], list[str]]:
    """Write the slices of all scans into one folder; their manifest rows, and notes."""
    rows, notes, seen = [], [], {}
    for k, (modality, _, scan) in enumerate(scans, start=1):
        try:
            volume = scan.read(modality)
        except (ValueError, PermissionError) as error:
            notes.append(f"left out: {error}")
            continue
        try:
            stack = axial(volume, size)
            levels = stack.head.mean((1, 2)) >= LEAST_HEAD
            slices = list(_write_slices(folder, f"{modality}_{k:03d}", modality, stack, levels))
        except ValueError as error:
            notes.append(f"left out: {place(scan)}: {error}")
            continue
        if not slices:
            notes.append(
                f"left out: {place(scan)}: no slice shows at least {LEAST_HEAD:.0%} head, the "
                f"largest {stack.head.mean((1, 2)).max():.1%}"
            )
            continue

        notes += [f"scan {k}: {note}" for note in (*volume.notes, *stack.notes)]
        about = {"modality": modality, "patient": people[k - 1], "scan": k - 1}
        about["content"], copy_notes = _content(volume, f"scan {k}", seen)
        notes += copy_notes
        rows += [{**about, **row} for row in slices]
    return rows, notes


def _content(volume: Volume, name: str, seen: dict[str, str]) -> tuple[str, list[str]]:
    """A digest of a volume's values, and a note if another one has the same."""
    content = hashlib.sha256(volume.values.tobytes()).hexdigest()
    first = seen.setdefault(content, name)
    if first == name:
        return content, []
    return content, [f"{name} has the same values as {first}: is it a copy?"]


def _write_pairs(
    folder: Path, pairs: Iterable[Pair], people: Sequence[str], size: int
) -> tuple[list[dict], list[str]]:
    """Write the slices of all pairs into one folder; their manifest rows, and notes."""
    rows, notes, seen = [], [], {}
    for k, pair in enumerate(pairs, start=1):
        try:
            volumes = read_pair(pair)
            ct, mri, pair_notes = axial_pair(volumes, size)
            levels = np.minimum(ct.head.mean((1, 2)), mri.head.mean((1, 2))) >= LEAST_HEAD
            if not levels.any():
                raise ValueError(f"no slice shows at least {LEAST_HEAD:.0%} head in both scans")
        except (ValueError, PermissionError) as error:
            notes.append(f"left out: {pair.name}: {error}")
            continue

        notes += [f"{pair.name}: {note}" for note in pair_notes]
        for modality, volume, stack in (("ct", volumes.ct, ct), ("mri", volumes.mri, mri)):
            about = {"modality": modality, "patient": people[k - 1], "scan": k - 1}
            about["content"], copy_notes = _content(volume, f"{modality} of {pair.name}", seen)
            notes += copy_notes
            for row in _write_slices(folder, f"{modality}_{k:03d}", modality, stack, levels):
                rows.append({**about, **row, "pair": f"{k:03d}-{row['file'][-8:-4]}"})
    return rows, notes


def place(scan: Scan) -> str:
    """Where a scan lies, for a note."""
    return printable(scan.files[0] if scan.is_file else scan.files[0].parent)


def _write_slices(
    folder: Path, prefix: str, modality: str, stack: AxialStack, levels: np.ndarray
) -> Iterator[dict]:
    """Write the slices of one stack at some levels, and yield their part of a manifest row."""
    values = np.where(stack.head_and_rim, stack.values, stack.background)

    if modality == "ct":
        gain, offset, unit = 1.0, -float(STORED_HU_OFFSET), HU.unit
    else:
        scale = mri_scale(values, stack.head)
        values = (values - scale.low) * (MRI_SPAN / (scale.high - scale.low))
        gain, offset, unit = np.ptp(values) / LARGEST_UINT16, float(values.min()), "MR unit"
    stored = np.rint((values - offset) / gain).clip(0, LARGEST_UINT16).astype(np.uint16)

    slice_mm, pixel_mm, _ = stack.spacing_mm
    heights = np.arange(len(values)) if stack.heights is None else stack.heights
    for z in np.flatnonzero(levels):
        name = f"{prefix}_{z:04d}.png"
        Image.fromarray(stored[z]).save(folder / name, optimize=True)
        yield {
            "file": name,
            "z_mm": f"{heights[z] * slice_mm:.2f}",
            "spacing_mm": f"{pixel_mm:.6g}",
            "gain": gain,
            "offset": offset,
            "unit": unit,
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        }


def _move_to_sides(folder: Path, rows: list[dict], test: set) -> None:
    """Move every slice to trainA, trainB, testA or testB, and write its place into its row."""
    for name in FOLDERS.values():
        (folder / name).mkdir()

    for row in rows:
        row["split"] = "test" if row["group"] in test else "train"
        place = f"{FOLDERS[row['split'], row['modality']]}/{row['file']}"
        (folder / row["file"]).rename(folder / place)
        row["file"] = place


def _replace_names(rows: list[dict], seed: int) -> None:
    """Call the people person-001 ..., in an order that says nothing about the alphabet."""
    order = sorted({row["patient"] for row in rows})
    np.random.default_rng(seed).shuffle(order)

    names = {person: f"person-{number:03d}" for number, person in enumerate(order, start=1)}
    for row in rows:
        row["patient"] = names[row["patient"]]

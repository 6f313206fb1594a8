"""Volumes become a folder of slices to train on, split by person.

`python -m ctmri_utils prepare OUTPUT --ct FOLDER --mri FOLDER`.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ..scans.slices import FOLDERS
from ..units import HU, STORED_HU_OFFSET, mri_scale
from .axial_slices import AxialStack, axial
from .dicom_files import read_file, tag_text
from .packages import import_optional, quiet_readers
from .scan_files import Scan, find_scans
from .volume import atomic_create

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

# The files sub-01_ses-1_T1w and sub-01_ses-2_T1w show one person.
SUBJECT = re.compile("sub-[0-9A-Za-z]+")

# "MR unit" between a scan's percentiles.
MRI_SPAN = 1000.0

LARGEST_UINT16 = 65535


def person_of(scan: Scan, folder: Path) -> tuple[str, ...]:
    """Whom a scan shows; for comparison only, never written.

    DICOM: the id, else name and birth date. NIfTI, or DICOM without these: BIDS' sub-LABEL in the
    path, else the first folder or file below `folder`, without endings.
    """
    if not scan.nifti:
        with quiet_readers():
            header = read_file(scan.files[0], pixels=False)
        identity = tag_text(header, "PatientID")
        if identity:
            return (identity,)
        name_and_birth = (tag_text(header, "PatientName"), tag_text(header, "PatientBirthDate"))
        if any(name_and_birth):
            return name_and_birth

    parts = scan.files[0].relative_to(folder).parts
    for part in parts:
        subject = SUBJECT.match(part)
        if subject:
            return (subject[0],)
    return (parts[0].split(".")[0],)


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
                f"{len(names)} people with {modality} (by PatientID, or the first folder or file "
                "name) cannot be split so that nobody is both in train and in test: bring at least "
                "two for each modality, or lower the test share"
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
) -> list[str]:
    """Write the axial slices of all scans as a folder that `scans.folder_scans` reads.

    The slices are 16-bit PNG beside a manifest.csv. What lies outside the head becomes background,
    slices with hardly any head are left out. MR is stored so that percentiles 0.5 and 99.5 of each
    scan's head are 0 and 1000: a person's scans share one scale when they are read. People are
    split by `split_people` and called person-001 ...; no name, id or date is written. A scan that
    cannot be read is left out, with a note.

    Args:
        output: a new folder.
        ct: where the CT volumes lie, see `find_scans`.
        mri: where the MR volumes lie.
        size: pixels per side of the slices.
        test_share: of the people, between 0 and 1.
        seed: of the draw that splits them.
        progress: wraps the loop over the scans.

    Returns:
        Notes on what was left out or changed.

    Raises:
        ValueError: nobody is left to train or test on, or the share is none.
        FileNotFoundError: no scan of a modality.
        FileExistsError: the output is not empty.
    """
    if not 0 < test_share < 1:
        raise ValueError(
            f"a test share of {test_share:g} leaves one side empty: choose one between 0 and 1"
        )

    scans = [("ct", Path(ct), scan) for scan in find_scans(ct)]
    scans += [("mri", Path(mri), scan) for scan in find_scans(mri)]

    with atomic_create(Path(output)) as temporary:
        temporary.mkdir()
        rows, notes = _write_scans(temporary, progress(scans), size)

        # Only now it is known who can be read.
        people = {"ct": set(), "mri": set()}
        for row in rows:
            people[row["modality"]].add(row["patient"])
        try:
            test = split_people(people, test_share, seed)
        except ValueError as error:
            left_out = [note for note in notes if note.startswith("left out")]
            raise ValueError(" ".join([str(error), *left_out])) from None

        _move_to_sides(temporary, rows, test)
        _replace_names(rows, seed)
        with (temporary / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
    return notes


def _write_scans(
    folder: Path, scans: Iterable[tuple[str, Path, Scan]], size: int
) -> tuple[list[dict], list[str]]:
    """Write the slices of all scans into one folder; their manifest rows, and notes."""
    rows, notes = [], []
    for k, (modality, source, scan) in enumerate(scans, start=1):
        try:
            person = person_of(scan, source if source.is_dir() else source.parent)
            volume = scan.read(modality)
            stack = axial(volume, size)
            slices = list(_write_slices(folder, f"{modality}_{k:03d}", modality, stack))
        except (ValueError, PermissionError) as error:
            notes.append(f"left out: {error}")
            continue

        notes += [f"scan {k}: {note}" for note in (*volume.notes, *stack.notes)]
        rows += [{"modality": modality, "patient": person, **row} for row in slices]
    return rows, notes


def _write_slices(folder: Path, prefix: str, modality: str, stack: AxialStack) -> Iterator[dict]:
    """Write the slices of one stack and yield their part of a manifest row."""
    values = np.where(stack.head_and_rim, stack.values, stack.background)

    if modality == "ct":
        gain, offset, unit = 1.0, -float(STORED_HU_OFFSET), HU.unit
    else:
        scale = mri_scale(values, stack.head)
        values = (values - scale.low) * (MRI_SPAN / (scale.high - scale.low))
        gain, offset, unit = np.ptp(values) / LARGEST_UINT16, float(values.min()), "MR unit"
    stored = np.rint((values - offset) / gain).clip(0, LARGEST_UINT16).astype(np.uint16)

    slice_mm, pixel_mm, _ = stack.spacing_mm
    for z in np.flatnonzero(stack.head.mean((1, 2)) >= LEAST_HEAD):
        name = f"{prefix}_{z:04d}.png"
        Image.fromarray(stored[z]).save(folder / name, optimize=True)
        yield {
            "file": name,
            "z_mm": f"{z * slice_mm:.2f}",
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
        row["split"] = "test" if row["patient"] in test else "train"
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


def command(options) -> None:
    """`python -m ctmri_utils prepare`."""
    bar = import_optional("tqdm.auto").tqdm
    notes = prepare_slices(
        options.output,
        options.ct,
        options.mri,
        options.size,
        options.test_share,
        options.seed,
        progress=partial(bar, unit="scan", disable=None),
    )

    for note in notes:
        print(f"note: {note}")
    print(f'{options.output} is ready: DATASET = "{options.output}" in any lesson.')


def add_command(commands) -> None:
    """Add `prepare` to the sub-commands of `python -m ctmri_utils`."""
    parser = commands.add_parser(
        "prepare",
        help="make a folder of slices to train on from NIfTI files and DICOM series, split by "
        "person",
    )
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="the folder to make")
    parser.add_argument(
        "--ct",
        type=Path,
        required=True,
        help="where the CT volumes lie: DICOM, BIDS, or a NIfTI file or folder a person",
    )
    parser.add_argument(
        "--mri",
        type=Path,
        required=True,
        help="where the MR volumes lie, likewise; a name in both is the same person",
    )
    parser.add_argument(
        "--size",
        type=int,
        default=128,
        help="pixels per side of the slices, over 224 mm (default: 128)",
    )
    parser.add_argument(
        "--test-share",
        type=float,
        default=0.2,
        help="share of the people kept for the test (default: 0.2)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the draw that splits them (default: 0)"
    )
    parser.set_defaults(run=command)

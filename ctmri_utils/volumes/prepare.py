"""Volumes become a folder of slices to train on, split by person.

`python -m ctmri_utils prepare OUTPUT --ct FOLDER --mri FOLDER`.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from ..scans.slices import FOLDERS
from ..units import HU, STORED_HU_OFFSET, mri_scale
from .dicom import read_file, text
from .translate import Scan, find_scans
from .volume import AxialStack, axial, finished, needs, unquoted

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
# share of a slice; below, it is the scalp's top or the room
LEAST_HEAD = 0.05
# sub-01_ses-1_T1w and sub-01_ses-2_T1w are one person
SUBJECT = re.compile("sub-[0-9A-Za-z]+")
# "MR unit" between a scan's percentiles
MRI_SPAN = 1000.0


def person_of(scan: Scan, folder: Path) -> tuple[str, ...]:
    """Whom a scan shows; only compared, never written.

    DICOM: the id, else name and birth date. NIfTI, or DICOM without these: BIDS' sub-LABEL in the
    path, else the first folder or file below `folder`, without endings.
    """
    if not scan.nifti:
        with unquoted():
            header = read_file(scan.files[0], pixels=False)
        identity, *rest = (
            text(header, keyword) for keyword in ("PatientID", "PatientName", "PatientBirthDate")
        )
        if identity or any(rest):
            return (identity,) if identity else tuple(rest)
    parts = scan.files[0].relative_to(folder).parts
    return (
        next(
            (subject[0] for part in parts if (subject := SUBJECT.match(part))),
            parts[0].split(".")[0],
        ),
    )


def split_people(people: dict[str, set], test_share: float, seed: int) -> set:
    """The people of the test side, drawn at random: this share of each modality's, at least one.

    people: modality -> its people, who may have both. Raises ValueError if a modality has nobody
    left to train on.
    """
    draw, test = np.random.default_rng(seed), set()
    for names in people.values():
        order = sorted(names - test)
        draw.shuffle(order)
        test |= set(order[: max(0, max(1, round(test_share * len(names))) - len(names & test))])
    for modality, names in people.items():
        if not names - test:
            raise ValueError(
                f"{len(names)} people with {modality} (by PatientID, or the first folder or file "
                "name) cannot be split so that nobody is both in train and in test: bring at least "
                "two for each modality, or lower the test share"
            )
    return test


def prepare(
    output: Path,
    ct: Path,
    mri: Path,
    size: int = 128,
    test_share: float = 0.2,
    seed: int = 0,
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[str]:
    """Write the axial slices of all scans as 16-bit PNG with a manifest.csv, as
    `scans.folder_scans` reads them; returns notes.

    ct, mri: where the volumes of each modality lie, see `find_scans`. What lies outside the head
    becomes background, slices with hardly any head are left out. MR is stored so that percentiles
    0.5 and 99.5 of each scan's head are 0 and 1000: a person's scans share one scale when they are
    read. People are split by `split_people` and called person-001 ...; no name, id or date is
    written. A scan that cannot be read is left out, with a note. Raises ValueError if nobody is
    left to train or test on, or for a share that is none; FileExistsError if the output is not
    empty.
    """
    if not 0 < test_share < 1:
        raise ValueError(
            f"a test share of {test_share:g} leaves one side empty: choose one between 0 and 1"
        )
    scans = [
        (modality, Path(folder), scan)
        for modality, folder in (("ct", ct), ("mri", mri))
        for scan in find_scans(folder)
    ]
    notes, rows = [], []
    with finished(Path(output)) as temporary:
        temporary.mkdir()
        for k, (modality, folder, scan) in enumerate(progress(scans), 1):
            try:
                person = person_of(scan, folder if folder.is_dir() else folder.parent)
                volume = scan.read(modality)
                stack = axial(volume, size)
                slices = list(_write_slices(temporary, f"{modality}_{k:03d}", modality, stack))
            except (ValueError, PermissionError) as error:
                notes.append(f"left out: {error}")
                continue
            notes += [f"scan {k}: {note}" for note in (*volume.notes, *stack.notes)]
            rows += [{"modality": modality, "patient": person, **row} for row in slices]
        people = {
            modality: {row["patient"] for row in rows if row["modality"] == modality}
            for modality in ("ct", "mri")
        }
        try:
            # only now it is known who can be read
            test = split_people(people, test_share, seed)
        except ValueError as error:
            raise ValueError(
                " ".join([str(error), *(note for note in notes if note.startswith("left out"))])
            ) from None
        order = sorted(set.union(*people.values()))
        # the numbers say nothing about the alphabet
        np.random.default_rng(seed).shuffle(order)
        names = {person: f"person-{number:03d}" for number, person in enumerate(order, 1)}
        for folder in FOLDERS.values():
            (temporary / folder).mkdir()
        for row in rows:
            row["split"] = "test" if row["patient"] in test else "train"
            slice_ = temporary / row["file"]
            row["patient"], row["file"] = (
                names[row["patient"]],
                f"{FOLDERS[row['split'], row['modality']]}/{row['file']}",
            )
            slice_.rename(temporary / row["file"])
        with (temporary / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
    return notes


def _write_slices(folder: Path, prefix: str, modality: str, stack: AxialStack) -> Iterator[dict]:
    """Write the slices of one stack and yield their part of a manifest row."""
    rim = ndimage.binary_dilation(stack.head, np.ones((1, 3, 3)))
    values = np.where(rim, stack.values, stack.background)
    if modality == "mri":
        scale = mri_scale(values, stack.head)
        values = (values - scale.low) * (MRI_SPAN / (scale.high - scale.low))
    gain, offset = (
        (1.0, -float(STORED_HU_OFFSET))
        if modality == "ct"
        else (np.ptp(values) / 65535, float(values.min()))
    )
    stored = np.rint((values - offset) / gain).clip(0, 65535).astype(np.uint16)
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
            "unit": HU.unit if modality == "ct" else "MR unit",
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        }


def command(options) -> None:
    """`python -m ctmri_utils prepare`."""
    bar = needs("tqdm.auto").tqdm
    notes = prepare(
        options.output,
        options.ct,
        options.mri,
        options.size,
        options.test_share,
        options.seed,
        progress=lambda scans: bar(scans, unit="scan", disable=None),
    )
    print(
        *(f"note: {note}" for note in notes),
        f'{options.output} is ready: DATASET = "{options.output}" in any lesson.',
        sep="\n",
    )


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

"""What a reader should know of a data set: what was resized, converted, clipped or doubled."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np

from ..discovery import listed, printable
from ..units import HU, MODALITIES, Scale
from .slice_files import Files, are_paired
from .slices import SIDES, UNKNOWN, image_folders

# CT values this little below air are noise and do not count as clipped.
NOISE_HU = 50
# Resizing may leave a rounding error beyond the extreme values.
ROUNDING = 1e-3

PERCENTILES = (
    "MR is scaled per patient to the 0.5 and 99.5 percentiles inside the head, so that share of it "
    "is clipped"
)


def folder_notes(folder: Path, slice_folder: Path) -> list[str]:
    """Which folder below the given one was read, and which were not."""
    if slice_folder == folder:
        return []
    note = f"the slices were found in {printable(slice_folder.relative_to(folder))}"
    unread = [printable(path.relative_to(folder)) for path in image_folders(folder)[1:]]
    if unread:
        note += f"; not read: {', '.join(unread)}"
    return [note]


def file_notes(files: Files, size: int) -> list[str]:
    """What was resized or converted, is on both sides, or differs between CT and MR."""
    return [
        *size_notes(files, size),
        *width_notes(files),
        *train_test_notes(files),
        *pairing_notes(files),
    ]


def size_notes(files: Files, size: int) -> list[str]:
    """Which files were resized or converted."""
    notes = []
    all_files = list(chain.from_iterable(files.values()))
    shapes = Counter(file.shape for file in all_files)
    for (height, width), count in sorted(shapes.items()):
        if (height, width) != (size, size):
            padded = "" if height == width else "padded to a square and "
            notes.append(
                f"{count} slice(s) of {height}x{width} pixels were {padded}resized to {size}x{size}"
            )

    conversions = Counter(file.conversion for file in all_files if file.conversion)
    for conversion, count in sorted(conversions.items()):
        notes.append(f"{count} file(s) hold {conversion}")
    return notes


def width_notes(files: Files) -> list[str]:
    """Whether CT and MR slices show fields of different widths."""
    ct_mm = files["train", "ct"][0].width_mm
    mri_files = files["train", "mri"] + files["test", "mri"]
    mri_mm = {file.width_mm for file in mri_files if file.width_mm is not None}

    if ct_mm is None or all(abs(width / ct_mm - 1) <= 0.01 for width in mri_mm):
        return []
    widths = " to ".join(f"{width:.0f}" for width in sorted({min(mri_mm), max(mri_mm)}))
    return [
        f"CT slices are {ct_mm:.0f} mm wide and MR slices {widths} mm, so heads differ in "
        "size; the pixel size given is the CT's"
    ]


def train_test_notes(files: Files) -> list[str]:
    """Which patients and slices are in train and in test."""
    notes = []
    for modality in MODALITIES:
        train, test = files["train", modality], files["test", modality]
        patients = {file.row.patient for file in train} & {file.row.patient for file in test}
        patients.discard(UNKNOWN)
        if patients:
            notes.append(
                f"{', '.join(sorted(patients))}: in train and in test, so scores say nothing about "
                "other people"
            )

        train_digests = {file.digest for file in train}
        copies = [file.path.name for file in test if file.digest in train_digests]
        if copies:
            notes.append(
                f"{len(copies)} test slice(s) also lie in train ({listed(copies)}): scores on them "
                "are meaningless"
            )
    return notes


def pairing_notes(files: Files) -> list[str]:
    """Whether only some slices of a side have a partner."""
    notes = []
    for side in SIDES:
        ct, mri = files[side, "ct"], files[side, "mri"]
        paired = sum(bool(file.row.pair) for file in ct)
        if paired and not are_paired(ct, mri):
            notes.append(
                f"{paired} of {len(ct)} CT and {len(mri)} MR slices in {side} have a pair, so it "
                "counts as unpaired"
            )
    return notes


def clipping_notes(train: np.ndarray, test: np.ndarray, scale: Scale) -> list[str]:
    """Report how much of the CT lies outside its scale.

    HU down to 50 below air count as noise.

    Args:
        train: CT slices in the scale's unit.
        test: likewise.
        scale: of the CT.

    Returns:
        A sentence for what is clipped above and one for what is clipped below, if anything is.
    """
    highest = scale.high + ROUNDING
    lowest = scale.low - (NOISE_HU if scale == HU else ROUNDING)

    # One slice at a time: a comparison of all of them may not fit into memory.
    above, below = [], []
    for side in (train, test):
        above.append(np.mean([(image > highest).mean() for image in side]))
        below.append(np.mean([(image < lowest).mean() for image in side]))

    notes = []
    for shares, region, limit in (
        (above, f"above {scale.high:g}", scale.high),
        (below, f"below {round(lowest)}", scale.low),
    ):
        if any(shares):
            in_train, in_test = (f"{100 * share:.2g}%" for share in shares)
            notes.append(
                f"{in_train} of the CT's pixels in train and {in_test} in test lie {region} "
                f"{scale.unit} and are clipped to {limit:g}"
            )
    return notes

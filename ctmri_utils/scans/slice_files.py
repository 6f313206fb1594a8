"""The slices of a folder: each image file with its row of the manifest, in physical units."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..units import GREY, MODALITIES
from .manifest import ManifestRow, manifest_name, read_manifest
from .slices import FOLDERS, SIDES, UNKNOWN, Key, find_images, read_slice


@dataclass(frozen=True)
class SliceFile:
    """What is known of a slice besides its pixels.

    Args:
        path: of the image file.
        row: what the manifest says of it.
        shape: (H, W).
        conversion: what had to be converted, "" if nothing.
        digest: SHA-256 of the file, hexadecimal.
    """

    path: Path
    row: ManifestRow
    shape: tuple[int, int]
    conversion: str
    digest: str

    @property
    def width_mm(self) -> float | None:
        """The longer side in mm, which becomes the side of a square; None if it is unknown."""
        if self.row.spacing_mm is None:
            return None
        return self.row.spacing_mm * max(self.shape)


Files = dict[Key, list[SliceFile]]


def list_slices(folder: Path) -> tuple[dict[Key, list[tuple[Path, ManifestRow]]], Counter]:
    """List the slices of trainA, trainB, testA and testB.

    Args:
        folder: holds the four folders, and perhaps a manifest.csv.

    Returns:
        The paths with their rows by (side, modality), MR slices in the order of the CT slices that
        they are paired with; and how many other files were left out, by reason.

    Raises:
        FileNotFoundError: a folder holds no images.
        ValueError: the manifest is bad, or does not fit the files.
    """
    manifest = read_manifest(folder)
    images, left_out = find_images(folder)
    listing = folder / "manifest.csv"

    slices = {}
    names = set()
    for key, paths in images.items():
        slices[key] = []
        for path in paths:
            name = manifest_name(path.relative_to(folder).as_posix())
            names.add(name)
            if manifest is None:
                row = ManifestRow(location=str(path), patient=UNKNOWN, unit=GREY.unit)
            elif name in manifest:
                row = manifest[name]
            else:
                raise ValueError(
                    f"{path} is not listed in {listing}: add its row, or move the file away"
                )
            slices[key].append((path, row))

    for name in manifest or ():
        if name not in names:
            raise ValueError(
                f"{listing}, row {name}: there is no such image: add the file, or delete the row"
            )

    for side in SIDES:
        pairs = [row.pair for _, row in slices[side, "ct"]]
        position = {pair: k for k, pair in enumerate(pairs) if pair}
        slices[side, "mri"].sort(key=lambda entry: position.get(entry[1].pair, len(pairs)))
    return slices, left_out


def read_slice_file(path: Path, row: ManifestRow) -> tuple[SliceFile, np.ndarray]:
    """Read one slice.

    Args:
        path: of the image file.
        row: what its numbers mean.

    Returns:
        What is known of it, and its pixels, (H, W) float32 in the row's unit.

    Raises:
        ValueError: the file is bad, see `read_slice`, was changed, or is not what the row says.
    """
    pixels, conversion = read_slice(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if row.sha256 and row.sha256 != digest:
        raise ValueError(
            f"{row.location}: the sha256 does not match the file: the file was changed, so restore "
            "it, or correct the row"
        )
    if row.unit == GREY.unit and pixels.dtype != np.uint8:
        raise ValueError(
            f"{row.location}: the image is 16-bit, so its numbers are no grey levels from 0 to "
            "255: say what they mean in a manifest.csv with unit, gain and offset (see "
            "docs/your_scans.md), or save it as 8-bit"
        )
    physical = pixels.astype(np.float32) * row.gain + row.offset
    return SliceFile(path, row, physical.shape, conversion, digest), physical


def check_files(files: Files, folder: Path) -> None:
    """Refuse slices that do not fit each other.

    Args:
        files: of all four folders.
        folder: that holds the four.

    Raises:
        ValueError: the slices of one modality differ in unit, those of CT in width, or the two of
            a pair in pixels or spacing.
    """
    for modality in MODALITIES:
        group = files["train", modality] + files["test", modality]
        units = sorted({file.row.unit for file in group})
        if len(units) > 1:
            train, test = FOLDERS["train", modality], FOLDERS["test", modality]
            raise ValueError(
                f"{folder / train} and {folder / test} mix the units {', '.join(units)}: "
                f"one modality needs one unit, so correct {folder / 'manifest.csv'}"
            )

    # Only one pixel size is passed on.
    first, *rest = files["train", "ct"] + files["test", "ct"]
    for file in rest:
        only_one_known = (first.width_mm is None) != (file.width_mm is None)
        if only_one_known or differ_in_width(first, file):
            sizes = f"{size_in_words(first, folder)} and {size_in_words(file, folder)}"
            raise ValueError(
                f"{sizes} in {folder} do not share one spacing_mm: correct manifest.csv, or "
                "resample them"
            )

    for side in SIDES:
        partners = {file.row.pair: file for file in files[side, "mri"] if file.row.pair}
        for file in files[side, "ct"]:
            partner = partners.get(file.row.pair, file)
            if file.shape != partner.shape or differ_in_width(file, partner):
                raise ValueError(
                    f"{file.path} and {partner.path} are a pair, but differ in pixels or "
                    "spacing_mm: resample them to one grid, or empty their pair in manifest.csv"
                )


def are_paired(ct: list[SliceFile], mri: list[SliceFile]) -> bool:
    """Whether every slice of a side has its partner at the same index."""
    pairs = [file.row.pair for file in ct]
    return all(pairs) and pairs == [file.row.pair for file in mri]


def differ_in_width(first: SliceFile, second: SliceFile) -> bool:
    """Whether two slices have widths in mm that are known and differ."""
    if first.width_mm is None or second.width_mm is None:
        return False
    return not math.isclose(first.width_mm, second.width_mm, rel_tol=1e-3)


def size_in_words(file: SliceFile, folder: Path) -> str:
    """The name of a slice with its pixels and their size."""
    name = file.path.relative_to(folder).as_posix()
    spacing_mm = file.row.spacing_mm
    pixel = "unknown size" if spacing_mm is None else f"{spacing_mm:g} mm"
    return f"{name} ({max(file.shape)} pixels of {pixel})"

"""Read a folder of slices (trainA, trainB, testA, testB) as `UnpairedScans`."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..discovery import printable
from ..files import large_tensor
from ..masks import mri_head_mask
from ..settings import check_network_size
from ..units import AIR_HU, GREY, HU, MRI_GREY, Scale, mri_scale
from .manifest import Row, manifest_name, read_manifest
from .pairs import (
    are_paired,
    check_partners,
    order_by_pairs,
    pair_of,
    pairing_notes,
    truths_of_pairs,
)
from .slices import (
    FOLDERS,
    UNKNOWN,
    SliceFile,
    find_images,
    image_folder,
    image_folders,
    read_slice,
    width_mm,
)
from .unpaired import PERCENTILES, Split, Truth, UnpairedScans, clipping_notes

# By (side, modality), as in `slices.FOLDERS`.
Files = dict[tuple[str, str], list[SliceFile]]
Images = dict[tuple[str, str], Tensor]


def folder_scans(folder: Path, size: int) -> UnpairedScans:
    """Read trainA (CT), trainB (MR), testA and testB.

    The four may lie deeper, as in an unpacked archive. The images are 8-bit grey, or 16-bit with a
    manifest.csv that gives unit, gain and offset. It may also say which CT and MR slices are pairs;
    if all are, mri[i] is the partner of ct[i]. What is ignored, resized, padded, converted, clipped
    or doubled is counted in the notes.

    Args:
        folder: holds the four folders, at any depth.
        size: pixels per side of the tensors, a multiple of 4.

    Returns:
        The scans. Large tensors lie on disk, see `large_tensor`.

    Raises:
        FileNotFoundError: a folder is missing or empty.
        ValueError: the size, a file or the manifest is bad; see `read_slice` and `read_manifest`.
    """
    check_network_size(size)
    images: Images = {}  # (N, 1, size, size) each

    def take(file: SliceFile, key: tuple[str, str], k: int, count: int) -> None:
        if key not in images:
            images[key] = large_tensor((count, 1, size, size), torch.float32)
        images[key][k] = _to_size(file, size)

    place = image_folder(folder)
    files, ignored = read_folder(place, take)

    # Scales and notes are about the physical values, so they come before scaling.
    ct_scale = HU if files["train", "ct"][0].unit == HU.unit else GREY
    mri_scales = _mri_scales(files, images)
    notes = (
        _place_notes(folder, place)
        + _reading_notes(files, ignored, size)
        + _width_notes(files)
        + _overlap_notes(files)
        + pairing_notes(files)
    )
    notes += clipping_notes(images["train", "ct"].numpy(), images["test", "ct"].numpy(), ct_scale)
    if files["train", "mri"][0].unit != GREY.unit:
        notes.append(PERCENTILES)

    truths = truths_of_pairs(files, images)

    # Scale in place: there may be room for one copy only.
    for (side, modality), group in files.items():
        for file, image in zip(group, images[side, modality], strict=True):
            scale = ct_scale if modality == "ct" else mri_scales[file.patient]
            image.copy_(scale.to_network(image))

    width = width_mm(files["train", "ct"][0])
    return UnpairedScans(
        name=folder.name,
        train=_split("train", files, images, truths["train"]),
        test=_split("test", files, images, truths["test"]),
        ct_scale=ct_scale,
        mri_scales=mri_scales,
        spacing_mm=None if width is None else width / size,
        notes=tuple(notes),
    )


def read_folder(
    folder: Path,
    take: Callable[[SliceFile, tuple[str, str], int, int], None] | None = None,
) -> tuple[Files, list[str]]:
    """Read all slices of trainA, trainB, testA and testB in physical units.

    With `take`, no more than one decoded slice is in memory at a time.

    Args:
        folder: holds the four folders, and perhaps a manifest.csv.
        take: called as take(file, key, k, count) for each slice as it is read, the k-th of `count`
            of that side and modality. It may keep the pixels.

    Returns:
        The slices by (side, modality), without pixels if there is a `take`, and the endings of the
        other files in these folders.

    Raises:
        FileNotFoundError: a folder holds no images.
        ValueError: a file or the manifest is bad, or the manifest does not fit the files.
    """
    listing = folder / "manifest.csv"
    manifest = read_manifest(folder)
    images, ignored = find_images(folder)

    names = {}
    for paths in images.values():
        for path in paths:
            names[path] = manifest_name(path.relative_to(folder).as_posix())
    if manifest is not None:
        _check_manifest_fits(manifest, names, listing)
        order_by_pairs(images, {path: manifest[name] for path, name in names.items()})

    files: Files = {key: [] for key in images}
    for key, paths in images.items():
        for k, path in enumerate(paths):
            row = None if manifest is None else manifest[names[path]]
            file = _read_file(path, row, f"{listing}, row {names[path]}")
            if take:
                take(file, key, k, len(paths))
                file = replace(file, pixels=None)
            files[key].append(file)

    _check_units(files, folder)
    _check_width(files["train", "ct"] + files["test", "ct"], folder)
    check_partners(files)
    return files, ignored


def _check_manifest_fits(manifest: dict[str, Row], names: dict[Path, str], listing: Path) -> None:
    for path, name in names.items():
        if name not in manifest:
            raise ValueError(
                f"{path} is not listed in {listing}: add its row, or move the file away"
            )

    present = set(names.values())
    for name in manifest:
        if name not in present:
            raise ValueError(
                f"{listing}, row {name}: there is no such image: add the file, or delete the row"
            )


def _read_file(path: Path, row: Row | None, place: str) -> SliceFile:
    """Read one slice in the unit of its manifest row; without one it must be an 8-bit picture."""
    pixels, conversion = read_slice(path)
    if row is None:
        if pixels.dtype != np.uint8:
            raise ValueError(
                f"{path} is a 16-bit image and nothing says what its numbers mean: add a "
                "manifest.csv with unit, gain and offset (see data/README.md), or save it as 8-bit"
            )
        row = {"unit": GREY.unit, "gain": "1", "offset": "0", "patient": UNKNOWN}

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if row.get("sha256") and row["sha256"].strip().lower() != digest:
        raise ValueError(
            f"{place}: the sha256 does not match the file: the file was changed, so restore it, or "
            "correct the row"
        )
    if row["unit"] == GREY.unit and pixels.dtype != np.uint8:
        raise ValueError(
            f'{place}: unit "{GREY.unit}" means 0 to 255, but the file is 16-bit: correct the '
            "unit, or save it as 8-bit"
        )

    physical = pixels.astype(np.float32) * float(row["gain"]) + float(row["offset"])
    return SliceFile(
        path=path,
        pixels=physical,
        shape=physical.shape,
        unit=row["unit"],
        patient=row["patient"],
        spacing_mm=float(row["spacing_mm"]) if row.get("spacing_mm") else None,
        z_mm=float(row["z_mm"]) if row.get("z_mm") else None,
        conversion=conversion,
        digest=digest,
        pair=pair_of(row),
    )


def _check_units(files: Files, folder: Path) -> None:
    """Refuse a modality whose slices have different units."""
    for modality in ("ct", "mri"):
        group = files["train", modality] + files["test", modality]
        units = {file.unit for file in group}
        if len(units) > 1:
            train, test = FOLDERS["train", modality], FOLDERS["test", modality]
            raise ValueError(
                f"{folder / train} and {folder / test} mix the units {', '.join(sorted(units))}: "
                f"one modality needs one unit, so correct {folder / 'manifest.csv'}"
            )


def _check_width(files: list[SliceFile], folder: Path) -> None:
    """Refuse slices that would differ in pixel size after resizing: only one size is passed on."""
    first = files[0]
    for other in files[1:]:
        if not _same_width(width_mm(first), width_mm(other)):
            first_side, other_side = _side(first, folder), _side(other, folder)
            raise ValueError(
                f"{first_side} and {other_side} in {folder} do not share one spacing_mm: correct "
                "manifest.csv, or resample them"
            )


def _same_width(first: float | None, other: float | None) -> bool:
    if first is None or other is None:
        return first is other
    return math.isclose(first, other, rel_tol=1e-3)


def _side(file: SliceFile, folder: Path) -> str:
    name = file.path.relative_to(folder).as_posix()
    pixel = "unknown size" if file.spacing_mm is None else f"{file.spacing_mm:g} mm"
    return f"{name} ({max(file.shape)} pixels of {pixel})"


def _to_size(file: SliceFile, size: int) -> Tensor:
    """Pad a slice to a square with background and resize it, (H, W) -> (1, size, size)."""
    image = torch.from_numpy(file.pixels)[None, None]  # (1, 1, H, W)
    height, width = image.shape[-2:]
    background = AIR_HU if file.unit == HU.unit else float(image.min())

    extra_width = max(height - width, 0)
    extra_height = max(width - height, 0)
    left, top = extra_width // 2, extra_height // 2
    margins = (left, extra_width - left, top, extra_height - top)
    image = F.pad(image, margins, value=background)

    if image.shape[-1] != size:
        image = F.interpolate(
            image, (size, size), mode="bilinear", antialias=True, align_corners=False
        )
    return image[0]


def _split(side: str, files: Files, images: Images, truth: Truth | None) -> Split:
    ct, mri = files[side, "ct"], files[side, "mri"]
    ct_heights = _heights(ct, files["train", "ct"] + files["test", "ct"])
    mri_heights = _heights(mri, files["train", "mri"] + files["test", "mri"])
    return Split(
        ct=images[side, "ct"],
        mri=images[side, "mri"],
        ct_names=tuple(file.path.stem for file in ct),
        mri_names=tuple(file.path.stem for file in mri),
        ct_patients=tuple(file.patient for file in ct),
        mri_patients=tuple(file.patient for file in mri),
        truth=truth,
        positions=(ct_heights, mri_heights) if ct_heights and mri_heights else None,
        paired=are_paired(ct, mri),
    )


def _heights(files: list[SliceFile], everything: list[SliceFile]) -> tuple[float, ...]:
    """The height of each slice between its patient's lowest and highest of `everything`, 0 to 1.

    Empty if the height of one of them is not known.
    """
    known: dict[str, list[float]] = {}
    for file in everything:
        if file.z_mm is None or file.patient == UNKNOWN:
            return ()
        known.setdefault(file.patient, []).append(file.z_mm)

    lowest = {patient: min(heights) for patient, heights in known.items()}
    extent = {patient: max(heights) - min(heights) for patient, heights in known.items()}
    if 0 in extent.values():
        return ()
    return tuple((file.z_mm - lowest[file.patient]) / extent[file.patient] for file in files)


def _mri_scales(files: Files, images: Images) -> dict[str, Scale]:
    """One scale per MR patient, over all slices of that patient.

    8-bit pictures keep 0 to 255, which is all that is known of them.
    """
    by_patient: dict[str, list[np.ndarray]] = {}
    for side in ("train", "test"):
        for file, image in zip(files[side, "mri"], images[side, "mri"], strict=True):
            by_patient.setdefault(file.patient, []).append(image[0].numpy())

    if files["train", "mri"][0].unit == GREY.unit:
        return dict.fromkeys(by_patient, MRI_GREY)

    scales = {}
    for patient, slices in by_patient.items():
        volume = np.stack(slices)
        scales[patient] = mri_scale(volume, mri_head_mask(volume))
    return scales


def _place_notes(folder: Path, place: Path) -> list[str]:
    """Where the slices lie, if not in the folder itself, and where others lie."""
    if place == folder:
        return []
    others = [printable(other.relative_to(folder)) for other in image_folders(folder)[1:]]
    also = f"; not read: {', '.join(others)}" if others else ""
    return [f"the slices were found in {printable(place.relative_to(folder))}{also}"]


def _reading_notes(files: Files, ignored: list[str], size: int) -> list[str]:
    """Which files were ignored, resized or converted."""
    notes = []
    if ignored:
        counts = Counter(ignored)
        kinds = ", ".join(f"{counts[kind]} x {kind}" for kind in sorted(counts))
        notes.append(f"{len(ignored)} file(s) were ignored ({kinds})")

    everything = [file for group in files.values() for file in group]
    shapes = Counter(file.shape for file in everything)
    for (height, width), count in sorted(shapes.items()):
        if (height, width) != (size, size):
            padded = "" if height == width else "padded to a square and "
            notes.append(
                f"{count} slice(s) of {height}x{width} pixels were {padded}resized to {size}x{size}"
            )

    conversions = Counter(file.conversion for file in everything if file.conversion)
    for conversion, count in sorted(conversions.items()):
        notes.append(f"{count} file(s) hold {conversion}")
    return notes


def _width_notes(files: Files) -> list[str]:
    """Whether CT and MR slices show fields of different widths."""
    ct_mm = width_mm(files["train", "ct"][0])
    mri_widths = [width_mm(file) for file in files["train", "mri"] + files["test", "mri"]]
    mri_mm = {width for width in mri_widths if width is not None}

    if ct_mm is None or all(abs(width / ct_mm - 1) <= 0.01 for width in mri_mm):
        return []
    extremes = sorted({min(mri_mm), max(mri_mm)})
    widths = " to ".join(f"{width:.0f}" for width in extremes)
    return [
        f"CT slices are {ct_mm:.0f} mm wide and MR slices {widths} mm, so heads differ in "
        "size; the pixel size given is the CT's"
    ]


def _overlap_notes(files: Files) -> list[str]:
    """Which patients and slices are in train and in test."""
    notes = []
    for modality in ("ct", "mri"):
        train, test = files["train", modality], files["test", modality]

        patients = {file.patient for file in train} & {file.patient for file in test}
        patients.discard(UNKNOWN)
        if patients:
            notes.append(
                f"{', '.join(sorted(patients))}: in train and in test, so scores say nothing about "
                "other people"
            )

        train_digests = {file.digest for file in train}
        copies = [file.path.name for file in test if file.digest in train_digests]
        if copies:
            names = ", ".join(copies[:3])
            if len(copies) > 3:
                names += ", ..."
            notes.append(
                f"{len(copies)} test slice(s) also lie in train ({names}): scores on them "
                "are meaningless"
            )
    return notes

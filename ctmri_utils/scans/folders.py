"""Read a folder of slices (trainA, trainB, testA, testB) as `UnpairedScans`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..discovery import left_out_notes
from ..files import large_tensor
from ..masks import mri_head_mask
from ..settings import check_network_size
from ..units import AIR_HU, GREY, HU, MRI_GREY, Scale, mri_scale
from .manifest import ManifestRow
from .notes import PERCENTILES, clipping_notes, file_notes, folder_notes
from .slice_files import (
    Files,
    SliceFile,
    are_paired,
    check_files,
    list_slices,
    read_slice_file,
)
from .slices import SIDES, UNKNOWN, Key, image_folder
from .unpaired import Split, Truth, UnpairedScans

# (N, 1, size, size) each.
Images = dict[Key, Tensor]


def folder_scans(folder: Path, size: int) -> UnpairedScans:
    """Read trainA (CT), trainB (MR), testA and testB.

    The four may lie deeper, as in an unpacked archive. The images are 8-bit grey, or 16-bit with a
    manifest.csv that gives unit, gain and offset. It may also say which CT and MR slices are pairs;
    if all are, mri[i] is the partner of ct[i]. What is left out, resized, padded, converted,
    clipped or doubled is counted in the notes.

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
    slice_folder = image_folder(folder)
    slices, left_out = list_slices(slice_folder)

    files: Files = {}
    images: Images = {}
    for key, entries in slices.items():
        images[key] = large_tensor((len(entries), 1, size, size), torch.float32)
        files[key] = []
        for image, (path, row) in zip(images[key], entries, strict=True):
            file, resized = read_at_size(path, row, size)
            image.copy_(resized)
            files[key].append(file)
    check_files(files, slice_folder)

    # Scales and notes are about the physical values, so they come before scaling.
    first_ct = files["train", "ct"][0]
    ct_scale = HU if first_ct.row.unit == HU.unit else GREY
    mri_scales = scales_by_patient(files, images)
    notes = [
        *folder_notes(folder, slice_folder),
        *left_out_notes(left_out),
        *file_notes(files, size),
        *clipping_notes(images["train", "ct"].numpy(), images["test", "ct"].numpy(), ct_scale),
    ]
    if files["train", "mri"][0].row.unit != GREY.unit:
        notes.append(PERCENTILES)

    train, test = (make_split(side, files, images, ct_scale, mri_scales) for side in SIDES)
    return UnpairedScans(
        name=folder.name,
        train=train,
        test=test,
        ct_scale=ct_scale,
        mri_scales=mri_scales,
        spacing_mm=None if first_ct.width_mm is None else first_ct.width_mm / size,
        notes=tuple(notes),
    )


def read_at_size(path: Path, row: ManifestRow, size: int) -> tuple[SliceFile, Tensor]:
    """Read a slice, pad it to a square with background and resize it to (1, size, size)."""
    file, pixels = read_slice_file(path, row)
    height, width = file.shape
    background = AIR_HU if row.unit == HU.unit else float(pixels.min())

    extra_width = max(height - width, 0)
    extra_height = max(width - height, 0)
    left, top = extra_width // 2, extra_height // 2
    margins = (left, extra_width - left, top, extra_height - top)
    image = F.pad(torch.from_numpy(pixels)[None, None], margins, value=background)  # (1, 1, H, W)

    if image.shape[-1] != size:
        image = F.interpolate(
            image, (size, size), mode="bilinear", antialias=True, align_corners=False
        )
    return file, image[0]


def scales_by_patient(files: Files, images: Images) -> dict[str, Scale]:
    """One scale per MR patient, over all slices of that patient.

    8-bit pictures keep 0 to 255, which is all that is known of them.
    """
    by_patient: dict[str, list[np.ndarray]] = {}
    for side in SIDES:
        for file, image in zip(files[side, "mri"], images[side, "mri"], strict=True):
            by_patient.setdefault(file.row.patient, []).append(image[0].numpy())

    if files["train", "mri"][0].row.unit == GREY.unit:
        return dict.fromkeys(by_patient, MRI_GREY)

    scales = {}
    for patient, slices in by_patient.items():
        volume = np.stack(slices)
        scales[patient] = mri_scale(volume, mri_head_mask(volume))
    return scales


def make_split(
    side: str, files: Files, images: Images, ct_scale: Scale, mri_scales: dict[str, Scale]
) -> Split:
    """Scale the slices of one side in place: there may be room for one copy only."""
    ct, mri = images[side, "ct"], images[side, "mri"]
    ct_files, mri_files = files[side, "ct"], files[side, "mri"]
    paired = are_paired(ct_files, mri_files)

    # The truth of pairs is the CT as it was measured, before it is clipped to its scale.
    truth = None
    if paired and ct_scale is HU:
        measured = large_tensor((len(ct), *ct.shape[2:]), torch.float32)
        truth = Truth(np.asarray(measured.copy_(ct[:, 0])))

    for image in ct:
        image.copy_(ct_scale.to_network(image))
    for file, image in zip(mri_files, mri, strict=True):
        image.copy_(mri_scales[file.row.patient].to_network(image))

    ct_heights = relative_heights(ct_files, files["train", "ct"] + files["test", "ct"])
    mri_heights = relative_heights(mri_files, files["train", "mri"] + files["test", "mri"])
    return Split(
        ct=ct,
        mri=mri,
        ct_names=tuple(file.path.stem for file in ct_files),
        mri_names=tuple(file.path.stem for file in mri_files),
        ct_patients=tuple(file.row.patient for file in ct_files),
        mri_patients=tuple(file.row.patient for file in mri_files),
        truth=truth,
        positions=(ct_heights, mri_heights) if ct_heights and mri_heights else None,
        paired=paired,
    )


def relative_heights(files: list[SliceFile], all_files: list[SliceFile]) -> tuple[float, ...]:
    """The height of each slice between its patient's lowest and highest of all files, 0 to 1.

    Empty if the height of one of them is not known.
    """
    heights_mm: dict[str, list[float]] = {}
    for file in all_files:
        if file.row.z_mm is None or file.row.patient == UNKNOWN:
            return ()
        heights_mm.setdefault(file.row.patient, []).append(file.row.z_mm)

    lowest = {patient: min(heights) for patient, heights in heights_mm.items()}
    extent = {patient: max(heights) - min(heights) for patient, heights in heights_mm.items()}
    if 0 in extent.values():
        return ()
    return tuple(
        (file.row.z_mm - lowest[file.row.patient]) / extent[file.row.patient] for file in files
    )

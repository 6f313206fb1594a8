"""NIfTI files in and out; a file's header is not believed before it is checked."""

from __future__ import annotations

import gzip
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from ..discovery import GZIP_MAGIC, NIFTI, NIFTI2_HEADER_BYTES
from ..files import read_start
from ..machine import import_optional
from .volume import (
    Volume,
    as_int16,
    atomic_create,
    check_even,
    check_shape,
    is_plausible,
    measured_volume,
    quiet_readers,
    three_dimensions,
    voxel_sides_mm,
)

if TYPE_CHECKING:
    # NIfTI-2 derives from NIfTI-1.
    from nibabel import Nifti1Header, Nifti1Image

MOST_HEADER_BYTES = 2**26
READ_AT_ONCE_BYTES = 2**24

# Files that were not fetched begin in one of these ways; the sentence says what to do.
NOT_FETCHED = {
    b"version https://git-lfs": "it is a pointer of git-lfs, not the file: run git lfs pull",
    b"<!DOCTYPE": "it is a web page, such as that of a login: download it again",
    b"<html": "it is a web page, such as that of a login: download it again",
}

# A quaternion that is longer than 1 by rounding means half a turn.
LONGEST_QUATERNION = 1 + 2e-3


def read_nifti(path: Path, modality: str | None = None, *, labels: bool = True) -> Volume:
    """Read one volume from a .nii or .nii.gz file (NIfTI-1 or 2).

    Whether it is packed by gzip is seen by its content, not by its name.

    Args:
        path: the file. Its scl_slope and scl_inter are applied.
        modality: "ct" or "mri". NIfTI does not say it; None takes what reaches below -500 for CT.
        labels: False refuses what looks like a mask or label map.

    Raises:
        ValueError: names the file, which is damaged, too large, no single volume of real numbers,
            or a CT that is not in HU.
        OSError: it cannot be opened.
    """
    nibabel = import_optional("nibabel")
    path = Path(path)
    is_packed = read_start(path, len(GZIP_MAGIC)) == GZIP_MAGIC
    opener = gzip.open if is_packed else open
    try:
        with quiet_readers(), opener(path, "rb") as file:
            image, notes = bounded_image(nibabel, file)
        volume = volume_of_image(image, modality, labels)
        return replace(volume, notes=(*notes, *volume.notes))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:
        # Damaged bytes make nibabel and zlib raise many kinds of errors.
        raise ValueError(
            f"{path} is damaged or not a NIfTI file ({type(error).__name__}): copy or export it "
            "again"
        ) from error


def bounded_image(nibabel: ModuleType, file: BinaryIO) -> tuple[Nifti1Image, list[str]]:
    """The image in an open file, of which no more is read than a reasonable header needs; notes."""
    # Four bytes behind the header say whether something follows it.
    start = file.read(NIFTI2_HEADER_BYTES + 4)
    kind = image_class(nibabel, start)
    header = kind.header_class(start[: kind.header_class.sizeof_hdr], check=False)
    if not 1 <= header["dim"][0] <= 7:
        raise ValueError(
            "its header does not give 1 to 7 dimensions: it is damaged; copy or export it again"
        )
    notes = mend_header(header, start)

    shape = three_dimensions(header.get_data_shape())
    check_shape(shape)
    offset = float(header["vox_offset"])
    if not 0 <= offset <= MOST_HEADER_BYTES:
        raise ValueError("its header is longer than 64 MB: it is damaged")

    # The claimed length may not be there, so memory is taken for what has arrived only.
    length = int(offset) + math.prod(shape) * header.get_data_dtype().itemsize
    content = bytearray(start)
    while len(content) < length:
        part = file.read(min(length - len(content), READ_AT_ONCE_BYTES))
        if not part:
            raise ValueError(
                f"it ends after {len(content)} of {length} bytes: copy or export it again"
            )
        content += part

    content[: kind.header_class.sizeof_hdr] = header.binaryblock
    return kind.from_bytes(bytes(content)), notes


def mend_header(header: Nifti1Header, start: bytes) -> list[str]:
    """Put right in place what can only have been meant one way; notes."""
    notes = mend_voxel_offset(header, start)

    intercept = float(header["scl_inter"])
    if not math.isfinite(intercept) and float(header["scl_slope"]):
        raise ValueError(
            "its scl_inter is not a number, so its values are unknown: export it again"
        )

    quaternion = np.array([header[f"quatern_{axis}"] for axis in "bcd"], np.float64)
    squared = quaternion @ quaternion
    if 1 < squared <= LONGEST_QUATERNION:
        # A little below 1, because the file rounds to float32.
        quaternion *= (1 - 1e-7) / math.sqrt(squared)
        for axis, number in zip("bcd", quaternion, strict=True):
            header[f"quatern_{axis}"] = number

    uses_sform, has_qform = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
    needs_qform = has_qform and not (uses_sform and is_plausible(header.get_sform()))
    if needs_qform and squared > LONGEST_QUATERNION:
        raise ValueError(
            "its qform is not a rotation (its quaternion is longer than 1): correct it in its "
            "header or export it again"
        )
    if needs_qform and uses_sform and is_plausible(header.get_qform()):
        header["sform_code"] = 0
        notes.append("its sform is not plausible, so its position is taken from its qform")
    return notes


def mend_voxel_offset(header: Nifti1Header, start: bytes) -> list[str]:
    """Let the voxels of a single file begin after its header, where the offset lies inside it."""
    size = header.sizeof_hdr
    is_single = bytes(header["magic"].item()).startswith((b"n+1", b"n+2"))
    if not is_single or not 0 <= float(header["vox_offset"]) < size + 4:
        return []
    has_extension = len(start) > size and start[size] != 0
    if has_extension:
        raise ValueError(
            "its vox_offset lies inside its header, and other data follow: export it again"
        )
    header["vox_offset"] = size + 4
    return [f"its vox_offset lies inside its header; its voxels were read from byte {size + 4} on"]


def image_class(nibabel: ModuleType, start: bytes) -> type[Nifti1Image]:
    """The class of image, NIfTI-1 or 2, that a file begins like."""
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        if kind.header_class.may_contain_header(start):
            return kind
    for beginning, sentence in NOT_FETCHED.items():
        if start.startswith(beginning):
            raise ValueError(sentence)
    raise ValueError("it does not begin like a NIfTI file: it is damaged or something else")


def volume_of_image(image: Nifti1Image, modality: str | None, labels: bool) -> Volume:
    """A nibabel image as a volume, if it is one of real numbers in millimetres."""
    if image.get_data_dtype().kind not in "iuf":
        raise ValueError(
            "its voxels are colours or complex numbers: save the grey values or the magnitude"
        )
    unit = image.header.get_xyzt_units()[0]
    if unit in ("meter", "micron"):
        raise ValueError(f"its lengths are in {unit}s: save it in millimetres")

    # What is too large for float32 is counted by `cleaned`.
    with np.errstate(all="ignore"):
        values = image.get_fdata(dtype=np.float32).reshape(three_dimensions(image.shape))
    volume = measured_volume(values, image.affine, modality, labels)

    space = int(image.header["sform_code"]) or int(image.header["qform_code"])
    if not space:
        note = (
            "the file gives no orientation (sform and qform code 0): left, right, top and "
            "bottom are a guess"
        )
        volume = replace(volume, notes=(*volume.notes, note))
    return replace(volume, space=space if 1 <= space <= 5 else 1)


def write_nifti(volume: Volume, path: Path) -> None:
    """Write a synthetic volume as int16, with a description that says that it is synthetic.

    The header is a new one, so no name, comment or extension of a source can come along. Warnings
    become comments, and their names stand in the description.

    Args:
        volume: what to write; scl_slope is 1, the affine is kept.
        path: a new file, .nii or .nii.gz.

    Raises:
        ValueError: another ending, slices that lie unevenly, or as `as_int16`.
        FileExistsError: the file exists.
    """
    nibabel = import_optional("nibabel")
    path = Path(path)
    if not path.name.lower().endswith(NIFTI):
        raise ValueError(f"{path} must end in .nii or .nii.gz")

    check_even(volume, "NIfTI files cannot record where: give a folder as output, for DICOM")
    image = nibabel.Nifti1Image(as_int16(volume), None)
    image.set_sform(volume.affine, code=volume.space)

    # A qform cannot hold a shear, so a tilted gantry is left to the sform.
    directions = volume.affine[:3, :3] / voxel_sides_mm(volume.affine)
    if np.allclose(directions.T @ directions, np.eye(3), atol=1e-4):
        image.set_qform(volume.affine, code=volume.space)
    else:
        image.set_qform(None, code=0)

    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(1, 0)
    image.header["descrip"] = header_description(volume)
    for warning in volume.warnings:
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", warning.encode()))
    with atomic_create(path) as temporary:
        nibabel.save(image, temporary)


def header_description(volume: Volume) -> str:
    """What the header says of a synthetic volume, in the 79 characters that it has."""
    text = volume.label
    if volume.warnings:
        names = ", ".join(warning.split(":")[0] for warning in volume.warnings)
        text += f"; {names}" if volume.error_map else f"; input: {names}"
    return text[:79]

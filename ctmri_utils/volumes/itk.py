"""MetaImage and NRRD files in and out, through SimpleITK: .mha, .mhd and .nrrd."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from ..discovery import ITK
from ..files import read_start
from ..machine import import_optional
from .volume import (
    LPS_TO_RAS,
    Volume,
    as_int16,
    atomic_create,
    check_even,
    check_shape,
    measured_volume,
    three_dimensions,
)

if TYPE_CHECKING:
    from SimpleITK import Image

# Within its first bytes, a header says where the volume lies in space, and where its voxels are.
HEADER_BYTES = 2**14
SAYS_ORIENTATION = re.compile(rb"(?m)^(TransformMatrix|Orientation|Rotation|space)\b")
DATA_FILE = re.compile(rb"(?m)^ElementDataFile\s*=\s*([^\r\n]+)")

# zlib compresses by less than this factor.
MOST_PACKED = 1100


def read_itk(path: Path, modality: str | None = None, *, labels: bool = True) -> Volume:
    """Read one volume from a .mha, .mhd or .nrrd file.

    Args:
        path: the file. The voxels of a .mhd lie in another one, which its header names.
        modality: "ct" or "mri". The file does not say it; None takes what reaches below -500 for
            CT.
        labels: False refuses what looks like a mask or label map.

    Raises:
        ValueError: names the file, which is damaged, too large, no single volume of real numbers,
            or a CT that is not in HU.
        OSError: it cannot be opened.
        ModuleNotFoundError: SimpleITK is missing.
    """
    simple_itk = import_optional("SimpleITK", "volumes")
    path = Path(path)
    header = read_start(path, HEADER_BYTES)
    try:
        values, affine = read_checked(simple_itk, path, header)
        volume = measured_volume(values, affine, modality, labels)
        if SAYS_ORIENTATION.search(header):
            return volume
        note = "the file gives no orientation: left, right, top and bottom are a guess"
        return replace(volume, notes=(*volume.notes, note))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except RuntimeError as error:
        # What SimpleITK raises has many lines.
        raise ValueError(
            f"{path} is damaged, or not a {path.suffix.lower()} file: copy or export it again"
        ) from error


def read_checked(
    simple_itk: ModuleType, path: Path, header: bytes
) -> tuple[np.ndarray, np.ndarray]:
    """Values (I, J, K), float32, and affine of an open file, whose claims are checked first."""
    simple_itk.ProcessObject.GlobalWarningDisplayOff()
    reader = simple_itk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()

    shape = three_dimensions(reader.GetSize()) if reader.GetDimension() > 2 else reader.GetSize()
    check_shape(shape)
    is_complex = "complex" in simple_itk.GetPixelIDValueAsString(reader.GetPixelID())
    if reader.GetNumberOfComponents() > 1 or is_complex:
        raise ValueError(
            "its voxels are colours, vectors or complex numbers: save the grey values or the "
            "magnitude"
        )
    if np.prod(shape, dtype=float) > MOST_PACKED * bytes_on_disk(path, header):
        raise ValueError(
            f"it claims {' x '.join(map(str, shape))} voxels, more than its bytes can hold: copy "
            "or export it again"
        )

    image = reader.Execute()
    # What is too large for float32 is counted by `cleaned`.
    with np.errstate(all="ignore"):
        values = simple_itk.GetArrayViewFromImage(image).T.astype(np.float32).reshape(shape)
    return values, affine_of(image)


def bytes_on_disk(path: Path, header: bytes) -> int:
    """How large a file is, with that of its voxels."""
    name = data_file(path, header)
    if name is None:
        return path.stat().st_size
    if not name.is_file():
        raise ValueError(f"its voxels should lie in {name.name}, which is not there: copy both")
    return name.stat().st_size


def data_file(path: Path, header: bytes) -> Path | None:
    """The file in which the voxels of a .mhd lie; None if they follow its header."""
    match = DATA_FILE.search(header)
    if path.suffix.lower() != ".mhd" or match is None:
        return None
    name = match[1].decode("utf-8", "replace").strip()
    several_files = name.startswith("LIST") or "%" in name
    return None if name == "LOCAL" or several_files else path.parent / name


def affine_of(image: Image) -> np.ndarray:
    """(4, 4), index -> mm, RAS+."""
    dimensions = image.GetDimension()
    directions = np.reshape(image.GetDirection(), (dimensions, dimensions))[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = LPS_TO_RAS @ directions * image.GetSpacing()[:3]
    affine[:3, 3] = LPS_TO_RAS @ image.GetOrigin()[:3]
    return affine


def write_itk(volume: Volume, path: Path) -> None:
    """Write a synthetic volume as packed int16, with a comment that says that it is synthetic.

    Args:
        volume: what to write.
        path: a new file, .mha, .mhd or .nrrd. The voxels of a .mhd go into a .zraw beside it.

    Raises:
        ValueError: another ending, slices that lie unevenly, or as `as_int16`.
        FileExistsError: the file exists.
        OSError: the system refuses to write.
        ModuleNotFoundError: SimpleITK is missing.
    """
    simple_itk = import_optional("SimpleITK", "volumes")
    path = Path(path)
    if not path.name.lower().endswith(ITK):
        raise ValueError(f"{path} must end in {', '.join(ITK)}")

    check_even(
        volume, f"{path.suffix} files cannot record where: give a folder as output, for DICOM"
    )
    steps = LPS_TO_RAS @ volume.affine[:3, :3]
    spacing = np.linalg.norm(steps, axis=0)
    image = simple_itk.GetImageFromArray(np.ascontiguousarray(as_int16(volume).T))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((steps / spacing).ravel().tolist())
    image.SetOrigin((LPS_TO_RAS @ volume.affine[:3, 3]).tolist())
    image.SetMetaData("Comment", "; ".join([volume.label, *volume.warnings]))

    try:
        write_packed(simple_itk, image, path)
    except RuntimeError as error:
        # What SimpleITK raises has many lines, and a temporary name.
        raise OSError(
            f"{path} cannot be written: check the folder, its permissions and the disk"
        ) from error


def write_packed(simple_itk: ModuleType, image: Image, path: Path) -> None:
    """Write an image packed; the voxels of a .mhd into a .zraw beside it."""
    if path.suffix.lower() != ".mhd":
        with atomic_create(path) as temporary:
            simple_itk.WriteImage(image, str(temporary), useCompression=True)
        return

    # The header comes last, so that it never names voxels that are not there.
    voxels = path.with_suffix(".zraw")
    with atomic_create(path) as header, atomic_create(voxels) as packed:
        simple_itk.WriteImage(image, str(header), useCompression=True)
        header.with_suffix(".zraw").rename(packed)
        text = header.read_text(encoding="utf-8")
        header.write_text(text.replace(header.with_suffix(".zraw").name, voxels.name))

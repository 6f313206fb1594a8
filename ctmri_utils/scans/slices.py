"""One image file as a slice, and where the slices of a data set lie.

Whatever could mislead a network is refused in one sentence.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from ..discovery import (
    LABELS,
    ending,
    is_hidden,
    is_named_as_labels,
    list_files,
    list_folders,
    looks_like_labels,
    printable,
)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")

# The folder of each side and modality.
FOLDERS = {
    ("train", "ct"): "trainA",
    ("train", "mri"): "trainB",
    ("test", "ct"): "testA",
    ("test", "mri"): "testB",
}

# The patient of a file that no manifest explains.
UNKNOWN = "unknown"

# Notes on files whose pixels had to be converted.
GREY_AS_COLOUR = "grey stored as colour; one channel was kept"
NEAR_GREY = "grey stored as colour whose channels differ by rounding; their median was kept"
UPRIGHT = "a picture rotated by its EXIF data; it was turned upright"

# Encoders round the three channels of a grey picture by so many levels.
MOST_ROUNDING = 3

# Entries of a folder that a message lists.
MOST_SHOWN = 6

# EXIF's tag for how a picture is to be turned; 1 is upright.
ORIENTATION = 0x0112

# What Pillow raises for files that it cannot read.
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)

# A header that claims a larger slice is a mistake or an attack.
MOST_SLICE_PIXELS = 4096 * 4096

# Pillow's names of modes.
WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
CONVERTED = ("P", "1", "CMYK", "YCbCr")
THIRTY_TWO_BIT = ("F", "I")


class BadSlice(ValueError):
    """An image file that cannot be a slice; the message is one sentence.

    Args:
        kind: "unreadable", "blank", "colour" or "mask".
        sentence: the message.
    """

    def __init__(self, kind: str, sentence: str):
        super().__init__(sentence)
        self.kind = kind


@dataclass(frozen=True)
class SliceFile:
    """A slice as read, in its physical unit.

    Args:
        path: of the image file.
        pixels: (H, W) float32 in `unit`, or None if they are kept elsewhere.
        shape: (H, W).
        unit: "HU", "grey level" or any unit of MR.
        patient: a name, or `UNKNOWN`.
        spacing_mm: pixel size, None if unknown.
        z_mm: height, counted from anywhere in the patient; None if unknown.
        conversion: what had to be converted, "" if nothing.
        digest: SHA-256 of the file, hexadecimal.
        pair: what the manifest calls the pair that it belongs to, "" if none.
    """

    path: Path
    pixels: np.ndarray | None
    shape: tuple[int, int]
    unit: str
    patient: str
    spacing_mm: float | None
    z_mm: float | None
    conversion: str
    digest: str
    pair: str = ""


def width_mm(file: SliceFile) -> float | None:
    """The longer side in mm, which becomes the side of the square; None if it is unknown."""
    if file.spacing_mm is None:
        return None
    return file.spacing_mm * max(file.shape)


def read_slice(path: Path) -> tuple[np.ndarray, str]:
    """Read one greyscale image file.

    Args:
        path: of a PNG, JPEG or TIFF file.

    Returns:
        The pixels as stored, (H, W) uint8 or uint16, and what had to be converted ("" if nothing).

    Raises:
        BadSlice: the file is damaged or huge, has several pages, transparent pixels or real colour,
            is 32-bit or 16-bit colour, is blank (one value everywhere) or a mask.
        OSError: the system does not let it be read.
    """
    try:
        image = _decode(path)
    except UNREADABLE as error:
        raise _reading_error(path, error) from error
    _check_format(path, image)

    pixels, conversion = image.pixels, ""
    if pixels.ndim == 3:
        pixels, conversion = _one_channel(path, pixels)
    if image.is_turned:
        conversion = "; ".join(filter(None, [UPRIGHT, conversion]))

    if pixels.min() == pixels.max():
        raise BadSlice(
            "blank",
            f"{path} is blank (every pixel is {pixels.flat[0]}): move it out of the set, because "
            "instance norm cannot learn from it",
        )
    if looks_like_labels(pixels, few=3, most=16):
        raise BadSlice(
            "mask",
            f"{path} holds {len(np.unique(pixels))} different values in large pieces: it is a mask "
            "or label map, not a slice, so move it elsewhere",
        )
    return pixels, conversion


class _Decoded(NamedTuple):
    """An image as Pillow decodes it."""

    pixels: np.ndarray  # (H, W), or (H, W, 3) if it was or became RGB
    mode: str
    pages: int
    has_16_bits: bool
    is_transparent: bool
    is_turned: bool


def _decode(path: Path) -> _Decoded:
    with Image.open(path) as image:
        # Before loading, because Pillow reads 16-bit RGB as 8-bit.
        pages = getattr(image, "n_frames", 1)
        mode = image.mode
        has_16_bits = ";16" in str(image.tile)

        if image.width * image.height > MOST_SLICE_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are too many for a slice")
        image.load()
        is_turned = image.getexif().get(ORIENTATION, 1) not in (0, 1)
        image = ImageOps.exif_transpose(image)

        names_transparent_colour = "transparency" in image.info and not mode.startswith("I")
        may_be_transparent = mode in WITH_ALPHA or names_transparent_colour
        is_transparent = False
        if may_be_transparent:
            least_opaque, _ = image.convert("RGBA").getchannel("A").getextrema()
            is_transparent = least_opaque < 255

        if may_be_transparent or mode in CONVERTED:
            pixels = np.asarray(image.convert("RGB"))
        else:
            pixels = np.asarray(image)
    return _Decoded(pixels, mode, pages, has_16_bits, is_transparent, is_turned)


def _reading_error(path: Path, error: Exception) -> Exception:
    # Errors with a number come from the system; the others are about the content.
    if isinstance(error, OSError) and error.errno:
        return type(error)(
            f"{path} cannot be opened ({error.strerror}): check its permissions and the disk"
        )
    return BadSlice(
        "unreadable",
        f"{path} cannot be read ({error}): it is damaged or not an image, so replace it or move it "
        "away",
    )


def _check_format(path: Path, image: _Decoded) -> None:
    if image.pages > 1:
        raise BadSlice(
            "unreadable",
            f"{path} holds {image.pages} pages, but each file must be one slice: save each page "
            "as a separate file",
        )
    if image.mode in THIRTY_TWO_BIT:
        raise BadSlice(
            "unreadable",
            f"{path} holds {image.mode}-mode (32-bit) pixels: save it as 8-bit grey, or as 16-bit "
            "with a manifest.csv",
        )
    if image.has_16_bits and not image.mode.startswith("I"):
        raise BadSlice(
            "colour",
            f"{path} holds 16-bit colour, which would be cut down to 8-bit: save it as 16-bit grey "
            "with a manifest.csv",
        )
    if image.is_transparent:
        raise BadSlice(
            "unreadable",
            f"{path} has transparent pixels, whose grey level is ambiguous: export it without "
            "transparency",
        )


def _one_channel(path: Path, pixels: np.ndarray) -> tuple[np.ndarray, str]:
    """One channel of three that must be alike, (H, W, 3) -> (H, W), and what was done."""
    spread = int((pixels.max(-1) - pixels.min(-1)).max())
    if spread == 0:
        return pixels[..., 0], GREY_AS_COLOUR
    if spread <= MOST_ROUNDING:
        return np.median(pixels, axis=-1).astype(pixels.dtype), NEAR_GREY
    raise BadSlice(
        "colour",
        f"{path} is a colour picture: CT and MR slices are grey, so export it without "
        "overlays or colour maps",
    )


def image_folders(folder: Path) -> list[Path]:
    """Every folder that holds trainA, trainB, testA and testB, the shallowest first.

    A folder that itself holds any of the four is meant, so nothing below it is looked at.

    Args:
        folder: where to look. Links are followed; hidden and system folders are skipped.
    """
    if any((folder / name).is_dir() for name in FOLDERS.values()):
        return [folder]

    found = [
        candidate
        for candidate in list_folders(folder)
        if all((candidate / name).is_dir() for name in FOLDERS.values())
    ]
    return sorted(found, key=lambda path: (len(path.parts), path))


def image_folder(folder: Path) -> Path:
    """Find the folder that holds trainA, trainB, testA and testB.

    Args:
        folder: where to look.

    Returns:
        The folder itself if any of the four lies in it, else the shallowest below it that holds all
        four.

    Raises:
        FileNotFoundError: there is none; says what is there.
    """
    found = image_folders(folder)
    if found:
        return found[0]

    listing = list_files(folder)
    entries = folder.iterdir() if folder.is_dir() else ()
    there = sorted(path.name for path in entries if not is_hidden(path.name))
    kinds = Counter(ending(path) for path in listing.files).most_common(MOST_SHOWN)
    contents = ", ".join(
        [printable(name) for name in there[:MOST_SHOWN]]
        + [f"{count} x {kind}" for kind, count in kinds]
    )
    raise FileNotFoundError(
        f"{printable(folder)} holds no {', '.join(FOLDERS.values())}, at any depth (found: "
        f"{contents or 'nothing'}): name a folder that does, or rename its folders"
    )


def find_images(folder: Path) -> tuple[dict[tuple[str, str], list[Path]], list[str]]:
    """List the images of trainA, trainB, testA and testB.

    Files are found as `discovery` says: hidden ones do not count, and masks are left out.

    Args:
        folder: holds the four folders.

    Returns:
        The sorted paths by (side, modality), and for each other file in these folders why it was
        left out: its ending, or `LABELS`.

    Raises:
        FileNotFoundError: a folder is missing or holds no images.
    """
    images, ignored = {}, []
    for (side, modality), name in FOLDERS.items():
        subfolder = folder / name
        listing = list_files(subfolder)
        left_out = list(listing.left_out.elements())
        found = []
        for path in listing.files:
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                left_out.append(ending(path))
            elif is_named_as_labels(path.relative_to(subfolder).parts):
                left_out.append(LABELS)
            else:
                found.append(path)

        if not found:
            raise FileNotFoundError(_nothing_in(subfolder, left_out, modality))
        images[side, modality] = found
        ignored += left_out
    return images, ignored


def _nothing_in(subfolder: Path, left_out: list[str], modality: str) -> str:
    """Say that a folder is missing, is empty or holds other files only."""
    kind = "CT" if modality == "ct" else "MR"
    looked_for = f"looked for {' '.join(IMAGE_SUFFIXES)}"
    advice = f'put the {kind} slices there, or pass DATASET="scans" for the embedded ones'

    if not subfolder.is_dir():
        there = sorted(path.name for path in subfolder.parent.iterdir())
        shown = [printable(name) for name in there if not is_hidden(name)][:MOST_SHOWN]
        return (
            f"there is no {subfolder.name} here (found: {', '.join(shown)}), so {subfolder} holds "
            f"no images: {advice}"
        )
    if not left_out:
        return f"{subfolder} holds no images, {subfolder.name} is empty ({looked_for}): {advice}"
    counts = ", ".join(f"{count} x {reason}" for reason, count in Counter(left_out).items())
    return f"{subfolder} holds no images ({looked_for}; found: {counts}): {advice}"

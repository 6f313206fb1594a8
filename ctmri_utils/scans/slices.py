"""One image file as a slice, and where the slices of a data set lie.

Whatever could mislead a network is refused in one sentence.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

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
ONE_BIT = "1-bit pixels, only black and white: rather a mask than a slice"

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
        kind: "unreadable", "blank" or "colour".
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
            is 32-bit or 16-bit colour, or is blank (one value everywhere).
        OSError: the system does not let it be read.
    """
    try:
        image = _decode(path)
    except UNREADABLE as error:
        raise _reading_error(path, error) from error
    _check_format(path, image)

    pixels, conversion = image.pixels, ""
    if pixels.ndim == 3:
        pixels = _one_channel(path, pixels)
        conversion = ONE_BIT if image.mode == "1" else GREY_AS_COLOUR

    if pixels.min() == pixels.max():
        raise BadSlice(
            "blank",
            f"{path} is blank (every pixel is {pixels.flat[0]}): delete it, instance norm cannot "
            "learn from it",
        )
    return pixels, conversion


class _Decoded(NamedTuple):
    """An image as Pillow decodes it."""

    pixels: np.ndarray  # (H, W), or (H, W, 3) if it was or became RGB
    mode: str
    pages: int
    has_16_bits: bool
    is_transparent: bool


def _decode(path: Path) -> _Decoded:
    with Image.open(path) as image:
        # Before loading, because Pillow reads 16-bit RGB as 8-bit.
        pages = getattr(image, "n_frames", 1)
        mode = image.mode
        has_16_bits = ";16" in str(image.tile)

        if image.width * image.height > MOST_SLICE_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are too many for a slice")
        image.load()

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
    return _Decoded(pixels, mode, pages, has_16_bits, is_transparent)


def _reading_error(path: Path, error: Exception) -> Exception:
    # Errors with a number come from the system; the others are about the content.
    if isinstance(error, OSError) and error.errno:
        return type(error)(
            f"{path} cannot be opened ({error.strerror}): check its permissions and the disk"
        )
    return BadSlice(
        "unreadable",
        f"{path} cannot be read ({error}): it is damaged or no image, so replace or delete it",
    )


def _check_format(path: Path, image: _Decoded) -> None:
    if image.pages > 1:
        raise BadSlice(
            "unreadable",
            f"{path} holds {image.pages} pages, and a file is one slice here: save each page as a "
            "file of its own",
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
            f"{path} has transparent pixels, whose grey is not what one sees: export it without "
            "transparency",
        )


def _one_channel(path: Path, pixels: np.ndarray) -> np.ndarray:
    """The first of three channels that must be alike, (H, W, 3) -> (H, W)."""
    if (pixels != pixels[..., :1]).any():
        raise BadSlice(
            "colour",
            f"{path} is a colour picture: CT and MR slices are grey, so export it without "
            "overlays or colour maps",
        )
    return pixels[..., 0]


def image_folder(folder: Path) -> Path:
    """Find the folder that holds trainA, trainB, testA and testB.

    Args:
        folder: where to look.

    Returns:
        The folder itself if any of the four lies in it, else the first one below it that holds all
        four.

    Raises:
        FileNotFoundError: there is none.
    """
    if any((folder / name).is_dir() for name in FOLDERS.values()):
        return folder
    for candidate in sorted(path.parent for path in folder.rglob("trainA")):
        holds_all = all((candidate / name).is_dir() for name in FOLDERS.values())
        if holds_all and not _is_hidden(candidate, folder):
            return candidate
    raise FileNotFoundError(
        f"{folder} holds no {', '.join(FOLDERS.values())}, at any depth: name a folder that does"
    )


def find_images(folder: Path) -> tuple[dict[tuple[str, str], list[Path]], list[str]]:
    """List the images of trainA, trainB, testA and testB.

    Hidden files and folders, whose names begin with a dot, do not count.

    Args:
        folder: holds the four folders.

    Returns:
        The sorted paths by (side, modality), and the endings of the other files in these folders.

    Raises:
        FileNotFoundError: a folder is missing or holds no images.
    """
    images, ignored = {}, []
    for (side, modality), name in FOLDERS.items():
        subfolder = folder / name
        files = _visible_files(subfolder)
        found = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
        others = [path for path in files if path.suffix.lower() not in IMAGE_SUFFIXES]
        ignored += [_ending(path) for path in others]
        images[side, modality] = found

        if not found:
            kind = "CT" if modality == "ct" else "MR"
            raise FileNotFoundError(
                f"{subfolder} holds no images (looked for {' '.join(IMAGE_SUFFIXES)}): put the "
                f'{kind} slices there, or pass DATASET="scans" for the embedded ones'
            )
    return images, ignored


def _visible_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    paths = sorted(folder.rglob("*"))
    return [path for path in paths if not path.is_dir() and not _is_hidden(path, folder)]


def _is_hidden(path: Path, folder: Path) -> bool:
    """Whether the path or a folder between it and `folder` begins with a dot."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _ending(path: Path) -> str:
    """What to call a kind of file: ".nii.gz", ".txt" or "no ending"."""
    if path.suffix.lower() == ".gz":
        return "".join(path.suffixes[-2:]).lower()
    return path.suffix.lower() or "no ending"

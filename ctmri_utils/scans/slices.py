"""Where the slices of a data set lie, and reading one image file as a slice.

Whatever could mislead a network is refused in one sentence.
"""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path

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
from ..units import MODALITIES

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")

SIDES = ("train", "test")

# A key is a side and a modality, "ct" or "mri".
Key = tuple[str, str]

FOLDERS: dict[Key, str] = {
    ("train", "ct"): "trainA",
    ("train", "mri"): "trainB",
    ("test", "ct"): "testA",
    ("test", "mri"): "testB",
}
MODALITY_OF_FOLDER = {name: modality for (_, modality), name in FOLDERS.items()}

# A file that no manifest explains has this patient.
UNKNOWN = "unknown"

# These notes are on files whose pixels had to be converted.
GREY_AS_COLOUR = "grey stored as colour; one channel was kept"
NEAR_GREY = "grey stored as colour whose channels differ by rounding; their median was kept"
UPRIGHT = "a picture rotated by its EXIF data; it was turned upright"

# Encoders round the three channels of a grey picture by at most this many levels.
MOST_ROUNDING = 3

# A message lists at most this many entries of a folder.
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
        sentence: the message.
        kind: "unreadable", "blank", "colour" or "mask".
    """

    def __init__(self, sentence: str, kind: str = "unreadable"):
        super().__init__(sentence)
        self.kind = kind


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
        pixels, is_turned = decode_image(path)
    except BadSlice:
        raise
    except UNREADABLE as error:
        raise reading_error(path, error) from error

    conversion = ""
    if pixels.ndim == 3:
        pixels, conversion = one_channel(path, pixels)
    if is_turned:
        conversion = f"{UPRIGHT}; {conversion}" if conversion else UPRIGHT

    if pixels.min() == pixels.max():
        raise BadSlice(
            f"{path} is blank (every pixel is {pixels.flat[0]}): move it out of the set, because "
            "instance norm cannot learn from it",
            kind="blank",
        )
    if looks_like_labels(pixels, few=3, most=16):
        raise BadSlice(
            f"{path} holds {len(np.unique(pixels))} different values in large pieces: it is a mask "
            "or label map, not a slice, so move it elsewhere",
            kind="mask",
        )
    return pixels, conversion


def decode_image(path: Path) -> tuple[np.ndarray, bool]:
    """The pixels, (H, W) or (H, W, 3), and whether they had to be turned."""
    with Image.open(path) as image:
        if image.width * image.height > MOST_SLICE_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are too many for a slice")
        check_format(path, image)

        mode = image.mode
        image.load()
        is_turned = image.getexif().get(ORIENTATION, 1) not in (0, 1)
        image = ImageOps.exif_transpose(image)

        names_transparent_colour = "transparency" in image.info and not mode.startswith("I")
        may_be_transparent = mode in WITH_ALPHA or names_transparent_colour
        if may_be_transparent:
            least_opaque, _ = image.convert("RGBA").getchannel("A").getextrema()
            if least_opaque < 255:
                raise BadSlice(
                    f"{path} has transparent pixels, whose grey level is ambiguous: export it "
                    "without transparency"
                )
        if may_be_transparent or mode in CONVERTED:
            image = image.convert("RGB")
        return np.asarray(image), is_turned


def reading_error(path: Path, error: Exception) -> Exception:
    """What to raise for an image that Pillow or the system cannot read."""
    # Errors with a number come from the system; the others are about the content.
    if isinstance(error, OSError) and error.errno:
        return type(error)(
            f"{path} cannot be opened ({error.strerror}): check its permissions and the disk"
        )
    return BadSlice(
        f"{path} cannot be read ({error}): it is damaged or not an image, so replace it or move it "
        "away"
    )


def check_format(path: Path, image: Image.Image) -> None:
    """Refuse what cannot be one 8-bit or 16-bit slice, before the image is loaded."""
    pages = getattr(image, "n_frames", 1)
    if pages > 1:
        raise BadSlice(
            f"{path} holds {pages} pages, but each file must be one slice: save each page as a "
            "separate file"
        )
    if image.mode in THIRTY_TWO_BIT:
        raise BadSlice(
            f"{path} holds {image.mode}-mode (32-bit) pixels: save it as 8-bit grey, or as 16-bit "
            "with a manifest.csv"
        )
    # Pillow reads 16-bit RGB as 8-bit.
    if ";16" in str(image.tile) and not image.mode.startswith("I"):
        raise BadSlice(
            f"{path} holds 16-bit colour, which would be cut down to 8-bit: save it as 16-bit grey "
            "with a manifest.csv",
            kind="colour",
        )


def one_channel(path: Path, pixels: np.ndarray) -> tuple[np.ndarray, str]:
    """One channel of three that must be alike, (H, W, 3) -> (H, W), and what was done."""
    spread = int((pixels.max(-1) - pixels.min(-1)).max())
    if spread == 0:
        return pixels[..., 0], GREY_AS_COLOUR
    if spread <= MOST_ROUNDING:
        return np.median(pixels, axis=-1).astype(pixels.dtype), NEAR_GREY
    raise BadSlice(
        f"{path} is a colour picture: CT and MR slices are grey, so export it without "
        "overlays or colour maps",
        kind="colour",
    )


def image_folders(folder: Path) -> list[Path]:
    """Every folder that holds trainA, trainB, testA and testB, the shallowest first.

    A folder that itself holds any of the four is meant, so nothing below it is looked at.

    Args:
        folder: where to look. Links are followed; hidden and system folders are skipped.
    """
    if any((folder / name).is_dir() for name in FOLDERS.values()):
        return [folder]

    complete = []
    for subfolder in list_folders(folder):
        if all((subfolder / name).is_dir() for name in FOLDERS.values()):
            complete.append(subfolder)
    return sorted(complete, key=lambda path: (len(path.parts), path))


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
    if not folder.is_dir():
        raise FileNotFoundError(f"{printable(folder)} is not a folder: check the path")

    folders = image_folders(folder)
    if folders:
        return folders[0]

    kinds = Counter(ending(path) for path in list_files(folder).files).most_common(MOST_SHOWN)
    contents = ", ".join([*visible_names(folder), *(f"{count} x {kind}" for kind, count in kinds)])
    raise FileNotFoundError(
        f"{printable(folder)} holds no {', '.join(FOLDERS.values())}, at any depth (found: "
        f"{contents or 'nothing'}): name a folder that does, or rename its folders"
    )


def find_images(folder: Path) -> tuple[dict[Key, list[Path]], Counter]:
    """List the images of trainA, trainB, testA and testB.

    Files are found as `discovery` says: hidden ones do not count, and masks are left out.

    Args:
        folder: holds the four folders.

    Returns:
        The sorted paths by (side, modality), and how many other files in these folders were left
        out, by reason: an ending, or `LABELS`.

    Raises:
        FileNotFoundError: a folder is missing or holds no images.
    """
    images = {}
    left_out = Counter()
    for key, name in FOLDERS.items():
        subfolder = folder / name
        listing = list_files(subfolder)
        images[key] = []
        for path in listing.files:
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                listing.left_out[ending(path)] += 1
            elif is_named_as_labels(path.relative_to(subfolder).parts):
                listing.left_out[LABELS] += 1
            else:
                images[key].append(path)

        if not images[key]:
            raise FileNotFoundError(no_images_message(subfolder, listing.left_out))
        left_out += listing.left_out
    return images, left_out


def no_images_message(subfolder: Path, left_out: Counter) -> str:
    """Say that a folder is missing, is empty or holds other files only."""
    modality = MODALITIES[MODALITY_OF_FOLDER[subfolder.name]]
    looked_for = f"looked for {' '.join(IMAGE_SUFFIXES)}"
    advice = f'put the {modality} slices there, or pass DATASET="scans" for the embedded ones'

    if not subfolder.is_dir():
        names = ", ".join(visible_names(subfolder.parent))
        return (
            f"there is no {subfolder.name} here (found: {names}), so {subfolder} holds no images: "
            f"{advice}"
        )
    if not left_out:
        return f"{subfolder} holds no images, {subfolder.name} is empty ({looked_for}): {advice}"
    counts = ", ".join(f"{count} x {reason}" for reason, count in left_out.items())
    return f"{subfolder} holds no images ({looked_for}; found: {counts}): {advice}"


def visible_names(folder: Path) -> list[str]:
    """The first visible names in a folder, as text that any screen can show."""
    paths = folder.iterdir() if folder.is_dir() else ()
    names = sorted(path.name for path in paths if not is_hidden(path.name))
    return [printable(name) for name in names[:MOST_SHOWN]]

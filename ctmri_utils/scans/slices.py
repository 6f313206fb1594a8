"""Image files and their manifest.csv become slices in physical units.

Whatever could mislead a network is refused in one sentence.
"""

from __future__ import annotations

import csv
import hashlib
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..units import GREY, HU

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
FOLDERS = {
    ("train", "ct"): "trainA",
    ("train", "mri"): "trainB",
    ("test", "ct"): "testA",
    ("test", "mri"): "testB",
}
# the patient of a file that no manifest explains
UNKNOWN = "unknown"
# what a manifest must have
COLUMNS = ("file", "patient", "unit", "gain", "offset")
GREY_AS_COLOUR = "grey stored as colour; one channel was kept"
ONE_BIT = "1-bit pixels, only black and white: rather a mask than a slice"
# Pillow's
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
# of one slice; a header that claims more is a mistake or a trap
MOST_PIXELS = 4096 * 4096


class BadSlice(ValueError):
    """An image file that cannot be a slice.

    `kind`: "unreadable", "blank" or "colour"; the message is one sentence.
    """

    def __init__(self, kind: str, sentence: str):
        super().__init__(sentence)
        self.kind = kind


@dataclass(frozen=True)
class SliceFile:
    """A slice as read, in its physical unit."""

    path: Path
    # (H, W) float32 in `unit`; None if they are kept elsewhere
    pixels: np.ndarray | None
    shape: tuple[int, int]
    unit: str
    patient: str
    spacing_mm: float | None
    # height, counted from anywhere in the patient
    z_mm: float | None
    # what was odd about the file, "" if nothing
    conversion: str
    digest: str


def read_slice(path: Path) -> tuple[np.ndarray, str]:
    """One greyscale image file -> (H, W) array as stored, uint8 or uint16, and what had to be
    converted ("" if nothing).

    Raises BadSlice, a ValueError that names the file, if it is damaged or huge, has several pages,
    transparent pixels or real colour, is 32-bit or 16-bit colour, or is blank (one value
    everywhere); OSError if the system does not let it be read.
    """
    try:
        with Image.open(path) as image:
            # Pillow reads 16-bit RGB as 8-bit
            pages, mode, deep = getattr(image, "n_frames", 1), image.mode, ";16" in str(image.tile)
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many for a slice")
            image.load()
            see_through = mode in ("LA", "La", "PA", "RGBA", "RGBa") or (
                "transparency" in image.info and not mode.startswith("I")
            )
            transparent = (
                see_through and image.convert("RGBA").getchannel("A").getextrema()[0] < 255
            )
            pixels = np.asarray(
                image.convert("RGB")
                if see_through or mode in ("P", "1", "CMYK", "YCbCr")
                else image
            )
    except UNREADABLE as error:
        # the system's word, not Pillow's about the content
        if isinstance(error, OSError) and error.errno:
            raise type(error)(
                f"{path} cannot be opened ({error.strerror}): check its permissions and the disk"
            ) from error
        raise BadSlice(
            "unreadable",
            f"{path} cannot be read ({error}): it is damaged or no image, so replace or delete it",
        ) from error
    if pages > 1:
        raise BadSlice(
            "unreadable",
            f"{path} holds {pages} pages, and a file is one slice here: save each page as a file "
            "of its own",
        )
    if mode in ("F", "I"):
        raise BadSlice(
            "unreadable",
            f"{path} holds {mode}-mode (32-bit) pixels: save it as 8-bit grey, or as 16-bit with a "
            "manifest.csv",
        )
    if deep and not mode.startswith("I"):
        raise BadSlice(
            "colour",
            f"{path} holds 16-bit colour, which would be cut down to 8-bit: save it as 16-bit grey "
            "with a manifest.csv",
        )
    if transparent:
        raise BadSlice(
            "unreadable",
            f"{path} has transparent pixels, whose grey is not what one sees: export it without "
            "transparency",
        )
    colour = pixels.ndim == 3
    if colour:
        if (pixels != pixels[..., :1]).any():
            raise BadSlice(
                "colour",
                f"{path} is a colour picture: CT and MR slices are grey, so export it without "
                "overlays or colour maps",
            )
        pixels = pixels[..., 0]
    if pixels.min() == pixels.max():
        raise BadSlice(
            "blank",
            f"{path} is blank (every pixel is {pixels.flat[0]}): delete it, instance norm cannot "
            "learn from it",
        )
    return pixels, ONE_BIT if mode == "1" else GREY_AS_COLOUR if colour else ""


def read_manifest(folder: Path) -> dict[str, dict[str, str]] | None:
    """The rows of folder/manifest.csv by file, each one checked; None if there is no manifest.

    Columns: data/README.md.

    Raises ValueError, naming the row, for whatever is missing, doubled, contradictory or not a
    number.
    """
    path = folder / "manifest.csv"
    if not path.is_file():
        return None
    try:
        # Excel writes a byte order mark
        with path.open(newline="", encoding="utf-8-sig") as lines:
            table = csv.DictReader(lines)
            numbered = [(table.line_num, row) for row in table]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path} is no CSV text in UTF-8 ({error}): save it as CSV UTF-8, separated by commas"
        ) from error
    header = table.fieldnames or []
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise ValueError(
            f"{path} is separated by {'semicolons' if ';' in header[0] else 'tabs'}: separate its "
            "columns by commas"
        )
    if not numbered or not set(COLUMNS) <= set(header) or len(set(header)) < len(header):
        raise ValueError(
            f"{path} must have the columns {', '.join(COLUMNS)}, each once, and at least one row: "
            "see data/README.md"
        )
    rows: dict[str, dict[str, str]] = {}
    for line, row in numbered:
        where = f"{path}, row {row['file'] or f'at line {line}'}"
        if None in row or None in row.values():
            raise ValueError(
                f"{where}: it does not have {len(header)} entries like the header: correct it"
            )
        if row["file"] in rows:
            raise ValueError(f"{where}: the file is listed twice: delete one of the rows")
        _check_row(row, where)
        rows[row["file"]] = row
    return rows


def _check_row(row: dict[str, str], where: str) -> None:
    here = next((key for key, name in FOLDERS.items() if row["file"].startswith(f"{name}/")), None)
    if here is None:
        raise ValueError(
            f"{where}: the file lies in none of {', '.join(FOLDERS.values())}: correct it, or "
            "delete the row"
        )
    for column, is_in in zip(("split", "modality"), here, strict=True):
        if row.get(column) and row[column] != is_in:
            raise ValueError(
                f"{where}: {column} {row[column]!r} contradicts the folder, for {is_in!r}: move "
                "the file or correct it"
            )
    if not row["patient"].strip():
        raise ValueError(
            f"{where}: the patient is empty: give each person a name, {UNKNOWN!r} if nobody knows"
        )
    for column, wanted, fits in (
        ("gain", "a number other than zero", bool),
        ("offset", "a number", lambda number: True),
        ("spacing_mm", "a number above zero", lambda number: number > 0),
        ("z_mm", "a number", lambda number: True),
    ):
        if column in ("spacing_mm", "z_mm") and not row.get(column):
            # these may be left out
            continue
        number = _number(row[column])
        if number is None or not fits(number):
            raise ValueError(f"{where}: {column} {row[column]!r} is not {wanted}: correct it")
    unit = row["unit"]
    if here[1] == "ct" and unit not in (HU.unit, GREY.unit):
        raise ValueError(
            f'{where}: unit {unit!r} is unknown for CT: write "{HU.unit}", or "{GREY.unit}" for '
            "8-bit pictures"
        )
    if here[1] == "mri" and (not unit.strip() or unit.strip().upper() == HU.unit):
        raise ValueError(
            f'{where}: unit {unit!r} does not suit MR, which has no Hounsfield units: write "MR '
            f'unit" or "{GREY.unit}"'
        )


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _read_file(path: Path, row: dict[str, str] | None, where: str) -> SliceFile:
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
            f"{where}: the sha256 is not that of the file: the file was changed, so restore it, or "
            "correct the row"
        )
    if row["unit"] == GREY.unit and pixels.dtype != np.uint8:
        raise ValueError(
            f'{where}: unit "{GREY.unit}" means 0 to 255, but the file is 16-bit: correct the '
            "unit, or save it as 8-bit"
        )
    physical = pixels.astype(np.float32) * float(row["gain"]) + float(row["offset"])
    spacing, height = (
        float(row[column]) if row.get(column) else None for column in ("spacing_mm", "z_mm")
    )
    return SliceFile(
        path,
        physical,
        physical.shape,
        row["unit"],
        row["patient"],
        spacing,
        height,
        conversion,
        digest,
    )


def _ending(path: Path) -> str:
    return (
        "".join(path.suffixes[-2:]) if path.suffix.lower() == ".gz" else path.suffix
    ).lower() or "no ending"


def image_folder(folder: Path) -> Path:
    """The folder itself if any of trainA, trainB, testA and testB lies in it, else the first one
    below it that holds all four.

    Raises FileNotFoundError if there is none.
    """
    if any((folder / name).is_dir() for name in FOLDERS.values()):
        return folder
    for place in sorted(path.parent for path in folder.rglob("trainA")):
        hidden = any(part.startswith(".") for part in place.relative_to(folder).parts)
        if not hidden and all((place / name).is_dir() for name in FOLDERS.values()):
            return place
    raise FileNotFoundError(
        f"{folder} holds no {', '.join(FOLDERS.values())}, at any depth: name a folder that does"
    )


def find_images(folder: Path) -> tuple[dict[tuple[str, str], list[Path]], list[str]]:
    """The images of trainA, trainB, testA and testB in order, by (side, modality), and the endings
    of the other files that lie there.

    Whatever is hidden, its name or a folder's beginning with a dot, does not count. Raises
    FileNotFoundError for a folder without images.
    """
    found, ignored = {}, []
    for key, subfolder in FOLDERS.items():
        place = folder / subfolder
        visible = (
            [
                path
                for path in sorted(place.rglob("*"))
                if not path.is_dir()
                and not any(part.startswith(".") for part in path.relative_to(place).parts)
            ]
            if place.is_dir()
            else []
        )
        found[key] = [path for path in visible if path.suffix.lower() in IMAGE_SUFFIXES]
        ignored += [_ending(path) for path in visible if path.suffix.lower() not in IMAGE_SUFFIXES]
        if not found[key]:
            what = "CT" if key[1] == "ct" else "MR"
            raise FileNotFoundError(
                f"{place} holds no images (looked for {' '.join(IMAGE_SUFFIXES)}): put the {what} "
                "slices there, "
                'or pass DATASET="scans" for the embedded ones'
            )
    return found, ignored


def read_folder(
    folder: Path,
    take: Callable[[SliceFile, tuple[str, str], int, int], None] | None = None,
) -> tuple[dict[tuple[str, str], list[SliceFile]], list[str]]:
    """All slices of trainA, trainB, testA and testB, by (side, modality), and the endings of the
    other files that lie there.

    With `take` no more than one decoded slice is in memory: `take(file, key, k, count)` is given
    each as it is read, the k-th of `count` of that side and modality, and may keep its pixels; they
    are None in what is returned. Raises FileNotFoundError for a folder without images, ValueError
    for a bad file, a bad manifest or one that does not fit the files.
    """
    manifest = read_manifest(folder)
    found, ignored = find_images(folder)
    names = {
        path: path.relative_to(folder).as_posix() for paths in found.values() for path in paths
    }
    listing = folder / "manifest.csv"
    if manifest is not None:
        for path, name in names.items():
            if name not in manifest:
                raise ValueError(
                    f"{path} is not listed in {listing}: add its row, or delete the file"
                )
        if absent := [name for name in manifest if name not in names.values()]:
            raise ValueError(
                f"{listing}, row {absent[0]}: there is no such image: add the file, or delete the "
                "row"
            )
    rows = manifest or {}
    files: dict[tuple[str, str], list[SliceFile]] = {key: [] for key in found}
    for key, paths in found.items():
        for k, path in enumerate(paths):
            file = _read_file(path, rows.get(names[path]), f"{listing}, row {names[path]}")
            if take:
                take(file, key, k, len(paths))
                file = replace(file, pixels=None)
            files[key].append(file)
    for modality in ("ct", "mri"):
        if (
            len(
                units := {
                    file.unit
                    for key, group in files.items()
                    if key[1] == modality
                    for file in group
                }
            )
            > 1
        ):
            places = " and ".join(
                str(folder / name) for key, name in FOLDERS.items() if key[1] == modality
            )
            raise ValueError(
                f"{places} mix the units {', '.join(sorted(units))}: one modality needs one unit, "
                f"so correct {listing}"
            )
    _check_width(files["train", "ct"] + files["test", "ct"], folder)
    return files, ignored


def width_mm(file: SliceFile) -> float | None:
    """The longer side in mm, which becomes the side of the square.

    None if the pixel size is unknown.
    """
    return file.spacing_mm and file.spacing_mm * max(file.shape)


def _check_width(files: list[SliceFile], folder: Path) -> None:
    """Refuse CT slices that would have different pixel sizes once they are resized.

    Only one is passed on.
    """
    first = files[0]
    for other in files[1:]:
        one, two = width_mm(first), width_mm(other)
        if (one is None) != (two is None) or (one and not math.isclose(one, two, rel_tol=1e-3)):
            sides = [
                f"{file.path.relative_to(folder).as_posix()} ({max(file.shape)} pixels of "
                + (f"{file.spacing_mm:g} mm)" if file.spacing_mm else "unknown size)")
                for file in (first, other)
            ]
            raise ValueError(
                f"{' and '.join(sides)} in {folder} do not share one spacing_mm: correct "
                "manifest.csv, or resample them"
            )

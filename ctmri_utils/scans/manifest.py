"""manifest.csv: unit, patient and pair of each image file.

The columns are explained in docs/your_scans.md.
"""

from __future__ import annotations

import csv
import math
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from ..units import GREY, HU
from .slices import FOLDERS, UNKNOWN

REQUIRED_COLUMNS = ("file", "patient", "unit", "gain", "offset")

# What is expected in the columns that hold numbers; what is not required may be left empty.
NUMBERS = {
    "gain": "a number other than zero",
    "offset": "a number",
    "spacing_mm": "a number above zero",
    "z_mm": "a number",
}


@dataclass(frozen=True)
class ManifestRow:
    """What the manifest says of one image file.

    Args:
        location: the manifest and the row, for messages.
        patient: a name, or `UNKNOWN`.
        unit: of stored value x gain + offset: "HU", "grey level" or any unit of MR.
        gain: not zero.
        offset: in `unit`.
        spacing_mm: pixel size, None if unknown.
        z_mm: height, counted from anywhere in the patient; None if unknown.
        sha256: of the file, hexadecimal; "" if it is not given.
        pair: what the pair that it belongs to is called, "" if none.
    """

    location: str
    patient: str
    unit: str
    gain: float = 1.0
    offset: float = 0.0
    spacing_mm: float | None = None
    z_mm: float | None = None
    sha256: str = ""
    pair: str = ""


def read_manifest(folder: Path) -> dict[str, ManifestRow] | None:
    """Read and check folder/manifest.csv.

    Args:
        folder: holds the manifest, if there is one.

    Returns:
        The rows by file name, or None if there is no manifest.

    Raises:
        ValueError: something is missing, doubled, contradictory or not a number; names the row.
    """
    path = folder / "manifest.csv"
    if not path.is_file():
        return None

    header, numbered_lines = read_table(path)
    rows: dict[str, ManifestRow] = {}
    for number, entries in numbered_lines:
        name = manifest_name(entries["file"] or "")
        location = f"{path}, row {name or f'at line {number}'}"
        if None in entries or None in entries.values():
            raise ValueError(
                f"{location}: it does not have {len(header)} entries like the header: correct it"
            )
        if name in rows:
            raise ValueError(f"{location}: the file is listed twice: delete one of the rows")
        rows[name] = parse_row(name, entries, location)
    check_pairs(rows, path)
    return rows


def manifest_name(name: str) -> str:
    """One spelling of a path, however its system writes it.

    Forward slashes, no leading "./", and accents in one piece (NFC): Macs store them in two.
    """
    return unicodedata.normalize("NFC", name.strip().replace("\\", "/")).removeprefix("./")


def read_table(path: Path) -> tuple[list[str], list[tuple[int, dict]]]:
    """The header, and the entries of every row with its line number."""
    try:
        # Excel writes a byte order mark, which "utf-8-sig" skips.
        with path.open(newline="", encoding="utf-8-sig") as lines:
            table = csv.DictReader(lines)
            header = list(table.fieldnames or [])
            # Spreadsheets leave rows behind that hold separators only.
            numbered_lines = [
                (table.line_num, entries)
                for entries in table
                if any(entry and str(entry).strip() for entry in entries.values())
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path} is not CSV text in UTF-8 ({error}): save it as CSV UTF-8, separated by commas"
        ) from error

    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        separator = "semicolons" if ";" in header[0] else "tabs"
        raise ValueError(f"{path} separates its columns by {separator}: use commas")
    is_complete = set(REQUIRED_COLUMNS) <= set(header)
    has_doubles = len(set(header)) < len(header)
    if not numbered_lines or not is_complete or has_doubles:
        raise ValueError(
            f"{path} must have the columns {', '.join(REQUIRED_COLUMNS)}, each once, and at least "
            "one row: see docs/your_scans.md"
        )
    return header, numbered_lines


def parse_row(name: str, entries: dict[str, str], location: str) -> ManifestRow:
    """Check the entries of one row."""
    keys = [key for key, folder in FOLDERS.items() if name.startswith(f"{folder}/")]
    if not keys:
        raise ValueError(
            f"{location}: the file lies in none of {', '.join(FOLDERS.values())}: correct it, or "
            "delete the row"
        )
    side, modality = keys[0]
    for column, expected in (("split", side), ("modality", modality)):
        if entries.get(column) and entries[column] != expected:
            raise ValueError(
                f"{location}: {column} {entries[column]!r} contradicts the folder, for "
                f"{expected!r}: move the file or correct it"
            )
    if not entries["patient"].strip():
        raise ValueError(
            f"{location}: the patient is empty: give each person a name, {UNKNOWN!r} if nobody "
            "knows"
        )

    numbers = {column: parse_number(entries, column, location) for column in NUMBERS}
    check_unit(entries["unit"], modality, location)
    return ManifestRow(
        location=location,
        patient=entries["patient"],
        unit=entries["unit"],
        sha256=entries.get("sha256", "").strip().lower(),
        pair=entries.get("pair", "").strip(),
        **numbers,
    )


def parse_number(entries: dict[str, str], column: str, location: str) -> float | None:
    """The number in a column, None if it may be left out and is."""
    text = entries.get(column, "")
    if not text and column not in REQUIRED_COLUMNS:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan

    is_out_of_range = (column == "gain" and number == 0) or (column == "spacing_mm" and number <= 0)
    if not math.isfinite(number) or is_out_of_range:
        raise ValueError(f"{location}: {column} {text!r} is not {NUMBERS[column]}: correct it")
    return number


def check_unit(unit: str, modality: str, location: str) -> None:
    """Raise ValueError for a unit that the modality cannot have."""
    if modality == "ct" and unit not in (HU.unit, GREY.unit):
        raise ValueError(
            f'{location}: unit {unit!r} is unknown for CT: write "{HU.unit}", or "{GREY.unit}" for '
            "8-bit pictures"
        )
    if modality == "mri" and (not unit.strip() or unit.strip().upper() == HU.unit):
        raise ValueError(
            f'{location}: unit {unit!r} does not suit MR, which has no Hounsfield units: write "MR '
            f'unit" or "{GREY.unit}"'
        )


def check_pairs(rows: dict[str, ManifestRow], path: Path) -> None:
    """Refuse a pair that is not a CT and an MR slice of one patient on one side."""
    members = defaultdict(list)
    for name, row in rows.items():
        if row.pair:
            members[row.pair].append(name)

    for pair, names in members.items():
        folders = sorted(name.partition("/")[0] for name in names)
        if folders not in (["trainA", "trainB"], ["testA", "testB"]):
            raise ValueError(
                f"{path}: the pair {pair!r} is {', '.join(names)}: it must be one CT and one MR "
                "slice, both in train or both in test"
            )
        patients = {rows[name].patient for name in names}
        if len(patients) > 1:
            raise ValueError(
                f"{path}: the pair {pair!r} is of {' and of '.join(sorted(patients))}: a pair "
                "shows one patient"
            )

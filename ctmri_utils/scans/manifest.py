"""manifest.csv: what the numbers in each image file mean, and whose they are.

The columns are explained in data/README.md.
"""

from __future__ import annotations

import csv
import math
import unicodedata
from pathlib import Path

from ..units import GREY, HU
from .pairs import check_pairs
from .slices import FOLDERS, UNKNOWN

REQUIRED_COLUMNS = ("file", "patient", "unit", "gain", "offset")

Row = dict[str, str]


def read_manifest(folder: Path) -> dict[str, Row] | None:
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

    header, numbered_rows = _read_table(path)
    _check_header(path, header, has_rows=bool(numbered_rows))

    rows: dict[str, Row] = {}
    for line, row in numbered_rows:
        row["file"] = manifest_name(row["file"] or "")
        name = row["file"] or f"at line {line}"
        place = f"{path}, row {name}"
        if None in row or None in row.values():
            raise ValueError(
                f"{place}: it does not have {len(header)} entries like the header: correct it"
            )
        if row["file"] in rows:
            raise ValueError(f"{place}: the file is listed twice: delete one of the rows")
        _check_row(row, place)
        rows[row["file"]] = row
    check_pairs(rows, path)
    return rows


def manifest_name(name: str) -> str:
    """One spelling of a path, however its system writes it.

    Forward slashes, no leading "./", and accents in one piece (NFC): Macs store them in two.
    """
    return unicodedata.normalize("NFC", name.strip().replace("\\", "/")).removeprefix("./")


def _read_table(path: Path) -> tuple[list[str], list[tuple[int, Row]]]:
    """The header, and every row with its line number."""
    try:
        # Excel writes a byte order mark, which "utf-8-sig" skips.
        with path.open(newline="", encoding="utf-8-sig") as lines:
            table = csv.DictReader(lines)
            numbered_rows = [(table.line_num, row) for row in table if not _is_empty(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path} is not CSV text in UTF-8 ({error}): save it as CSV UTF-8, separated by commas"
        ) from error
    return list(table.fieldnames or []), numbered_rows


def _is_empty(row: dict) -> bool:
    """Whether a row holds separators only, as spreadsheets leave behind."""
    return not any(entry and str(entry).strip() for entry in row.values())


def _check_header(path: Path, header: list[str], has_rows: bool) -> None:
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        separator = "semicolons" if ";" in header[0] else "tabs"
        raise ValueError(f"{path} separates its columns by {separator}: use commas")

    is_complete = set(REQUIRED_COLUMNS) <= set(header)
    has_doubles = len(set(header)) < len(header)
    if not has_rows or not is_complete or has_doubles:
        raise ValueError(
            f"{path} must have the columns {', '.join(REQUIRED_COLUMNS)}, each once, and at least "
            "one row: see data/README.md"
        )


def _check_row(row: Row, place: str) -> None:
    keys = [key for key, name in FOLDERS.items() if row["file"].startswith(f"{name}/")]
    if not keys:
        raise ValueError(
            f"{place}: the file lies in none of {', '.join(FOLDERS.values())}: correct it, or "
            "delete the row"
        )
    side, modality = keys[0]
    _check_agrees(row, "split", side, place)
    _check_agrees(row, "modality", modality, place)

    if not row["patient"].strip():
        raise ValueError(
            f"{place}: the patient is empty: give each person a name, {UNKNOWN!r} if nobody knows"
        )
    _check_numbers(row, place)
    _check_unit(row["unit"], modality, place)


def _check_agrees(row: Row, column: str, expected: str, place: str) -> None:
    """Refuse a side or modality that contradicts the folder; it may also be left out."""
    if row.get(column) and row[column] != expected:
        raise ValueError(
            f"{place}: {column} {row[column]!r} contradicts the folder, for {expected!r}: move "
            "the file or correct it"
        )


def _check_numbers(row: Row, place: str) -> None:
    gain = _number(row["gain"])
    if gain is None or gain == 0:
        raise _bad_number(row, "gain", "a number other than zero", place)
    if _number(row["offset"]) is None:
        raise _bad_number(row, "offset", "a number", place)

    # Pixel size and height may be left out.
    if row.get("spacing_mm"):
        spacing_mm = _number(row["spacing_mm"])
        if spacing_mm is None or spacing_mm <= 0:
            raise _bad_number(row, "spacing_mm", "a number above zero", place)
    if row.get("z_mm") and _number(row["z_mm"]) is None:
        raise _bad_number(row, "z_mm", "a number", place)


def _bad_number(row: Row, column: str, expected: str, place: str) -> ValueError:
    return ValueError(f"{place}: {column} {row[column]!r} is not {expected}: correct it")


def _number(text: str) -> float | None:
    """The finite number that a text spells, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _check_unit(unit: str, modality: str, place: str) -> None:
    if modality == "ct" and unit not in (HU.unit, GREY.unit):
        raise ValueError(
            f'{place}: unit {unit!r} is unknown for CT: write "{HU.unit}", or "{GREY.unit}" for '
            "8-bit pictures"
        )
    if modality == "mri" and (not unit.strip() or unit.strip().upper() == HU.unit):
        raise ValueError(
            f'{place}: unit {unit!r} does not suit MR, which has no Hounsfield units: write "MR '
            f'unit" or "{GREY.unit}"'
        )

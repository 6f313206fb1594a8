"""Take one person out of data/scans: slices, rows of the manifest, and what follows for the split.

    python data/remove_person.py s1

Neither downloads nor scans are needed. See data/README.md, "Removing a person", for the rest.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from build_scans import file_name, shared_out, write_manifest


def remove(patient: str, folder: Path) -> None:
    """Delete a person's slices and share the others of that modality out anew.

    Whose role does not change keeps the files as they are.

    Args:
        patient: as in the manifest.
        folder: data/scans or a copy of it.

    Raises:
        ValueError: nobody is called so, or nobody else has that modality.
    """
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    gone = [row for row in rows if row["patient"] == patient]
    if not gone:
        people = ", ".join(dict.fromkeys(row["patient"] for row in rows))
        raise ValueError(f"{folder} holds nobody called {patient!r}: choose from {people}")

    modality = gone[0]["modality"]
    kept = [row for row in rows if row["modality"] != modality]
    staying: dict[str, list[dict]] = {}
    for row in rows:
        if row["modality"] == modality and row["patient"] != patient:
            staying.setdefault(row["patient"], []).append(row)
    if not staying:
        raise ValueError(
            f"{patient} is the only person with {modality.upper()}, and no lesson can use a folder "
            "with one modality: delete the whole folder, and set DATASET to your own slices"
        )

    for row in gone:
        (folder / row["file"]).unlink()
    roles = shared_out([len(slices) for slices in staying.values()])
    for slices, parts in zip(staying.values(), roles, strict=True):
        moved = [_moved(row, role, folder) for row, role in zip(slices, parts, strict=True)]
        kept += [row for row in moved if row]
    write_manifest(sorted(kept, key=lambda row: row["modality"]), folder)


def _moved(row: dict, role: str, folder: Path) -> dict | None:
    """Bring a slice to its side of the split; None for a slice that is left out of both."""
    old = folder / row["file"]
    if role == "guard":
        old.unlink()
        return None

    name = file_name(row["modality"], row["patient"], float(row["z_mm"]), role)
    (folder / name).parent.mkdir(exist_ok=True)
    old.rename(folder / name)
    return row | {"file": name, "split": role}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("patient", help="as in the manifest")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(__file__).parent / "scans",
        help="data/scans or a copy of it (default: data/scans)",
    )
    options = parser.parse_args(arguments)
    try:
        remove(options.patient, options.folder)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Check a folder of slices before anything is trained on it."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import binary_fill_holes, distance_transform_edt

from ..discovery import left_out_notes, listed, printable
from ..patients import Evidence, find_patients
from .findings import SATURATED, THUMB, Finding, find_problems, perceptual_hash
from .manifest import ManifestRow, manifest_name, read_manifest
from .slices import FOLDERS, UNKNOWN, UNREADABLE, Key, find_images, image_folder, read_slice

# The outer shell of a head, by depth relative to its middle: CT shows the skull there.
RIM_DEPTH = 0.35

COLUMNS = ("folder", "slices", "type", "mode", "pixels", "values", "names")


@dataclass(frozen=True)
class Report:
    """What `check_folder` found. `str` gives a table of the contents and one of the findings.

    Args:
        folder: that was checked.
        contents: a row of `COLUMNS` for each of the four folders.
        findings: one for each kind of problem.
        notes: what was not checked.
    """

    folder: Path
    contents: tuple[tuple[str, ...], ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        table = (COLUMNS, *self.contents)
        widths = [max(map(len, column)) for column in zip(*table)]

        lines = []
        for row in table:
            cells = [cell.ljust(width) for cell, width in zip(row, widths)]
            lines.append("  ".join(cells).rstrip())

        lines += ["", "slices  finding" if self.findings else "no problems found"]
        for finding in self.findings:
            lines.append(f"{len(finding.files):6}  {finding.kind}: {finding.summary}")
            lines.append(f"{'':8}{finding.advice}")
        lines += [f"note: {note}" for note in self.notes]
        return printable("\n".join(lines))


def check_folder(folder: str | Path) -> Report:
    """Look at every slice of a folder and report what could spoil training or a score.

    Finds files that cannot be read, blank, coloured, identical and nearly identical slices (within
    a side and across train and test), saturated 8-bit pictures, mixed sizes, people in both train
    and test, JPEG on one side only, and CT and MR that look swapped. Nothing is changed.

    Args:
        folder: holds trainA, trainB, testA and testB, at any depth.

    Returns:
        The report.

    Raises:
        FileNotFoundError: one of the four folders holds no image.
        ValueError: manifest.csv is bad.

    Example:
        >>> from ctmri_utils import check_folder, machine
        >>> report = check_folder(machine.data_folder() / "scans")
        >>> sorted({finding.kind for finding in report.findings})
        ['near-duplicate', 'near-duplicate, train and test', 'patients, train and test']
    """
    folder = image_folder(Path(folder))
    manifest = read_manifest(folder)
    images, left_out = find_images(folder)
    slices = inspect_all(folder, images)
    if manifest is None:
        patients = patients_by_folder(slices)
    else:
        patients = patients_in_manifest(slices, manifest)
    names = [patients.get(name, "") for name in slices["name"]]
    slices["patient"] = pd.Series(names, dtype=object)

    notes = []
    if manifest is None and not patients:
        notes.append(
            "no manifest.csv, so whether a person is in both train and test cannot be checked"
        )
    notes += left_out_notes(left_out)

    by_folder = slices.groupby(["side", "modality"], sort=False)
    contents = tuple(contents_row(FOLDERS[key], group) for key, group in by_folder)
    return Report(folder, contents, tuple(find_problems(slices)), tuple(notes))


def patients_in_manifest(slices: pd.DataFrame, manifest: dict[str, ManifestRow]) -> dict[str, str]:
    """The patient of each file, as the manifest says; its names are spelled as they are here."""
    rows = {name: manifest.get(manifest_name(name)) for name in slices["name"]}
    return {name: row.patient for name, row in rows.items() if row is not None}


def patients_by_folder(slices: pd.DataFrame) -> dict[str, str]:
    """The patient of each file that lies in a folder inside trainA and so on."""
    names = [name for name in slices["name"] if len(Path(name).parts) > 2]
    patients = find_patients(
        [Evidence(Path(name).parts[1:-1], has_file_name=False) for name in names]
    )
    return {name: label or UNKNOWN for name, label in zip(names, patients.labels, strict=True)}


def inspect_all(folder: Path, images: dict[Key, list[Path]]) -> pd.DataFrame:
    """Inspect every image, on all cores; a row for each."""
    files = [(path, *key) for key, paths in images.items() for path in paths]

    # Threads help, because Pillow decodes without Python's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = pool.map(lambda file: inspect_slice(folder, *file), files)
        # As objects: Arrow's strings refuse file names that are no UTF-8.
        return pd.DataFrame(list(with_progress(rows, len(files))), dtype=object)


def with_progress(rows: Iterator[dict], total: int) -> Iterator[dict]:
    """Show a bar in a terminal, if tqdm is installed."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return rows
    return tqdm(rows, total=total, unit="slice", disable=None, leave=False)


def inspect_slice(folder: Path, path: Path, side: str, modality: str) -> dict:
    """Inspect one image file.

    Args:
        folder: holds the four folders.
        path: of the file.
        side: "train" or "test".
        modality: "ct" or "mri".

    Returns:
        name: below the folder, with forward slashes.
        side, modality: as given.
        type: of the header, such as "PNG".
        mode: Pillow's.
        pixels: "HxW".
        problem: "unreadable", "blank", "colour" or "mask" if it cannot be a slice, and then
            everything below but `sentence` is None; "" otherwise.
        sentence: what the problem is.
        lowest, highest: stored values.
        is_saturated: whether too much of an 8-bit picture is 255.
        digest: of the pixels, so that the same picture in another format counts as the same.
        bits: perceptual hash, (255,) bool.
        rim: brightness of the head's rim over that of its inside.
    """
    name = path.relative_to(folder).as_posix()
    row = {"name": name, "side": side, "modality": modality, "problem": "", "sentence": ""}
    row |= {"type": "?", "mode": "?", "pixels": "?"}
    row |= dict.fromkeys(("lowest", "highest", "is_saturated", "digest", "bits", "rim"))
    try:
        with Image.open(path) as image:
            row["type"] = image.format
            row["mode"] = image.mode
            row["pixels"] = f"{image.height}x{image.width}"
        pixels, _ = read_slice(path)
    except UNREADABLE as error:
        # A BadSlice says its kind; anything else comes from Pillow or the disk.
        row["problem"] = getattr(error, "kind", "unreadable")
        row["sentence"] = str(error).removeprefix(f"{path} ").replace(str(path), name)
        return row

    content = f"{pixels.dtype}{pixels.shape}".encode() + pixels.tobytes()
    picture = Image.fromarray(pixels.astype(np.float32))
    thumb = np.asarray(picture.resize((THUMB, THUMB), Image.Resampling.BILINEAR))
    return row | {
        "lowest": int(pixels.min()),
        "highest": int(pixels.max()),
        "is_saturated": pixels.dtype == np.uint8 and (pixels == 255).mean() >= SATURATED,
        "digest": hashlib.sha256(content).hexdigest(),
        "bits": perceptual_hash(thumb),
        "rim": rim_brightness(thumb),
    }


def rim_brightness(thumb: np.ndarray) -> float:
    """Brightness of the head's rim over that of its inside; not a number if one is missing."""
    thumb = thumb - thumb.min()
    head = binary_fill_holes(thumb > thumb.mean() / 2)
    depth = distance_transform_edt(np.pad(head, 1))[1:-1, 1:-1]

    # A speck has no inside, so its depth counts as shallow.
    depth /= max(depth.max(), THUMB / 8)
    rim = thumb[(depth > 0) & (depth <= RIM_DEPTH)]
    inside = thumb[depth > RIM_DEPTH]
    if rim.size == 0 or not inside.any():
        return float("nan")
    return float(rim.mean() / inside.mean())


def contents_row(folder: str, slices: pd.DataFrame) -> tuple[str, ...]:
    """A row of the table of contents; patterns of names have # for their numbers."""
    readable = slices[slices["problem"] == ""]
    values = "none"
    if len(readable):
        values = f"{readable['lowest'].min()} to {readable['highest'].max()}"

    patterns = Counter(re.sub(r"\d+", "#", Path(name).name) for name in slices["name"])
    return (
        folder,
        str(len(slices)),
        most_common_values(slices["type"]),
        most_common_values(slices["mode"]),
        most_common_values(slices["pixels"]),
        values,
        listed(pattern for pattern, _ in patterns.most_common()),
    )


def most_common_values(values: Sequence[str]) -> str:
    """The four commonest values, with their counts unless all are the same."""
    texts = []
    for value, count in Counter(values).most_common(4):
        texts.append(f"{value} ({count})" if count < len(values) else str(value))
    return ", ".join(texts)

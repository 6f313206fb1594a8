"""Check a folder of slices before anything is trained on it."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import binary_fill_holes, distance_transform_edt

from ..discovery import printable
from ..people import Evidence, find_people
from .copies import THUMB, perceptual_hash
from .findings import SATURATED, Finding, SliceSummary, find_problems, shortened
from .manifest import Row, manifest_name, read_manifest
from .slices import FOLDERS, UNKNOWN, UNREADABLE, find_images, image_folder, read_slice

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
        widths = [max(len(cell) for cell in column) for column in zip(*table)]

        lines = []
        for row in table:
            cells = [cell.ljust(width) for cell, width in zip(row, widths)]
            lines.append("  ".join(cells).rstrip())

        lines += ["", "slices  finding" if self.findings else "no problems found"]
        for found in self.findings:
            lines.append(f"{len(found.files):6}  {found.kind}: {found.seen}")
            lines.append(f"{'':8}{found.advice}")
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
    images, ignored = find_images(folder)
    slices = _summaries(folder, images)

    contents = []
    for (side, modality), name in FOLDERS.items():
        group = [slice_ for slice_ in slices if (slice_.side, slice_.modality) == (side, modality)]
        contents.append(_contents(name, group))

    rows = _rows_on_disk(slices, manifest)
    notes = []
    if manifest is None and not rows:
        notes.append(
            "no manifest.csv, so whether a person is in both train and test cannot be checked"
        )
    if ignored:
        counts = Counter(ignored)
        kinds = ", ".join(f"{counts[kind]} x {kind}" for kind in sorted(counts))
        notes.append(f"{len(ignored)} file(s) were ignored ({kinds})")

    findings = find_problems(slices, rows)
    return Report(folder, tuple(contents), tuple(findings), tuple(notes))


def _rows_on_disk(
    slices: Sequence[SliceSummary], manifest: dict[str, Row] | None
) -> dict[str, Row]:
    """The manifest's rows by the names that the files have here.

    Without a manifest, folders inside trainA and so on tell the people.
    """
    if manifest is None:
        in_folders = [slice_ for slice_ in slices if len(Path(slice_.name).parts) > 2]
        places = [Path(slice_.name).parts[1:-1] for slice_ in in_folders]
        people = find_people([Evidence(place, has_file_name=False) for place in places])
        return {
            slice_.name: {"patient": person or UNKNOWN}
            for slice_, person in zip(in_folders, people.of, strict=True)
        }

    rows = {}
    for slice_ in slices:
        row = manifest.get(manifest_name(slice_.name))
        if row is not None:
            rows[slice_.name] = row
    return rows


def _summaries(folder: Path, images: dict[tuple[str, str], list[Path]]) -> list[SliceSummary]:
    """Look at every image, on all cores."""
    paths: list[Path] = []
    keys: list[tuple[str, str]] = []
    for key, group in images.items():
        paths += group
        keys += [key] * len(group)

    # Threads help, because Pillow decodes without Python's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        summaries = pool.map(_summarise, paths, keys, repeat(folder))
        return list(_with_progress(summaries, len(paths)))


def _with_progress(summaries: Iterator[SliceSummary], total: int):
    """Show a bar in a terminal, if tqdm is installed."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return summaries
    return tqdm(summaries, total=total, unit="slice", disable=None, leave=False)


def _summarise(path: Path, key: tuple[str, str], folder: Path) -> SliceSummary:
    side, modality = key
    name = path.relative_to(folder).as_posix()
    about = {"name": name, "side": side, "modality": modality}
    try:
        with Image.open(path) as image:
            about["file_format"] = image.format
            about["mode"] = image.mode
            about["size"] = f"{image.height}x{image.width}"
        pixels, _ = read_slice(path)
    except UNREADABLE as error:
        # A BadSlice says its kind; anything else comes from Pillow or the disk.
        kind = getattr(error, "kind", "unreadable")
        sentence = str(error).removeprefix(f"{path} ").replace(str(path), name)
        return SliceSummary(**about, problem=kind, sentence=sentence)

    is_saturated = pixels.dtype == np.uint8 and (pixels == 255).mean() >= SATURATED
    content = f"{pixels.dtype}{pixels.shape}".encode() + pixels.tobytes()
    picture = Image.fromarray(pixels.astype(np.float32))
    thumb = np.asarray(picture.resize((THUMB, THUMB), Image.Resampling.BILINEAR))
    return SliceSummary(
        **about,
        lowest=int(pixels.min()),
        highest=int(pixels.max()),
        is_saturated=bool(is_saturated),
        digest=hashlib.sha256(content).hexdigest(),
        bits=perceptual_hash(thumb),
        rim=_rim(thumb),
    )


def _rim(thumb: np.ndarray) -> float:
    """Brightness of the head's rim over that of its inside; not a number if one is missing."""
    thumb = thumb - thumb.min()
    head = binary_fill_holes(thumb > thumb.mean() / 2)
    depth = distance_transform_edt(np.pad(head, 1))[1:-1, 1:-1]

    # A speck has no inside, so its depth counts as shallow.
    depth /= max(depth.max(), THUMB / 8)
    rim = thumb[(depth > 0) & (depth <= RIM_DEPTH)]
    inside = thumb[depth > RIM_DEPTH]
    if rim.size == 0 or inside.size == 0:
        return float("nan")
    return float(rim.mean() / inside.mean())


def _contents(folder: str, slices: Sequence[SliceSummary]) -> tuple[str, ...]:
    """A row of the table of contents; patterns of names have # for their numbers."""
    readable = [slice_ for slice_ in slices if not slice_.problem]
    values = "none"
    if readable:
        lowest = min(slice_.lowest for slice_ in readable)
        highest = max(slice_.highest for slice_ in readable)
        values = f"{lowest} to {highest}"

    names = [Path(slice_.name).name for slice_ in slices]
    patterns = Counter(re.sub(r"\d+", "#", name) for name in names)
    return (
        folder,
        str(len(slices)),
        _most_common([slice_.file_format for slice_ in slices]),
        _most_common([slice_.mode for slice_ in slices]),
        _most_common([slice_.size for slice_ in slices]),
        values,
        shortened(pattern for pattern, _ in patterns.most_common()),
    )


def _most_common(values: Sequence[str]) -> str:
    """The four commonest values, with their counts unless all are the same."""
    texts = []
    for value, count in Counter(values).most_common(4):
        texts.append(f"{value} ({count})" if count < len(values) else str(value))
    return ", ".join(texts)

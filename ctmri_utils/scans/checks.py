"""What is wrong with a folder of slices, before anything is trained on it.

A table of what lies there and one of what to look at.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import binary_fill_holes, distance_transform_edt

from .slices import (
    FOLDERS,
    UNKNOWN,
    UNREADABLE,
    find_images,
    read_manifest,
    read_slice,
)

# the perceptual hash: signs of 16 x 16 cosine coefficients, less the mean, of a 32 x 32 thumbnail
THUMB, FREQUENCIES = 32, 16
# hashes of 255 bits that near are copies or neighbours in one scan; two people differ in 26 or more
COPY_BITS = 12
# share of an 8-bit picture at 255 from which its window is said to cut something off
SATURATED = 0.01
# the outer shell of a head, by depth relative to its middle: CT shows the skull there
RIM_DEPTH = 0.35
# MR's rim over CT's from which the folders look swapped; 0.1 to 0.8 in every window of our own data
SWAPPED = 1.1


@dataclass(frozen=True)
class Look:
    """What one file showed: format, mode and size of its header.

    Of its pixels the extremes, and what the comparisons need.
    """

    # below the folder, with forward slashes
    name: str
    # (side, modality), as in FOLDERS
    key: tuple[str, str]
    header: tuple[str, str, str] = ("?", "?", "?")
    # (kind, sentence) if it cannot be a slice; then nothing below is set
    problem: tuple[str, str] | None = None
    extremes: tuple[int, int] = (0, 0)
    saturated: bool = False
    # of the pixels, so that the same picture in another format counts as the same
    digest: str = ""
    # perceptual hash, (255,) bool
    bits: np.ndarray | None = None
    # brightness of the head's rim over that of its inside
    rim: float = float("nan")


@dataclass(frozen=True)
class Finding:
    """One kind of problem: the slices it concerns, pairs next to each other, what was seen, and
    what to make of it.
    """

    kind: str
    files: tuple[str, ...]
    seen: str
    advice: str


@dataclass(frozen=True)
class Report:
    """What `check` found. `str` gives a table of what lies there and one of the findings.

    Notes say what was not checked.
    """

    folder: Path
    contents: tuple[tuple[str, ...], ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        columns = ("folder", "slices", "type", "mode", "pixels", "values", "names")
        widths = [max(map(len, column)) for column in zip(columns, *self.contents)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
            for row in (columns, *self.contents)
        ]
        lines += ["", "slices  finding" if self.findings else "nothing to object to"]
        for found in self.findings:
            lines += [f"{len(found.files):6}  {found.kind}: {found.seen}", f"{'':8}{found.advice}"]
        return "\n".join(lines + [f"note: {note}" for note in self.notes])


def check(folder: str | Path) -> Report:
    """Look at every slice of trainA, trainB, testA and testB in a folder and say what could spoil a
    training or a score.

    Finds files that cannot be read, blank, coloured, identical and nearly identical slices (within
    a side and across train and test), saturated 8-bit pictures, mixed sizes, people in both train
    and test, JPEG on one side only, and CT and MR that look swapped. Nothing is changed. Raises
    FileNotFoundError if one of the four folders holds no image, ValueError for a bad manifest.csv.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    images, ignored = find_images(folder)
    tasks = [(path, folder, key) for key, paths in images.items() for path in paths]
    # Pillow decodes without Python's lock
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = list(_progress(pool.map(lambda task: _look(*task), tasks), len(tasks)))
    seen = [look for look in looks if look.problem is None]
    findings = [
        *_bad_files(looks),
        *_copies(seen),
        *_near_copies(seen),
        *_pictures(seen),
        *_formats(looks),
        *_people(looks, manifest or {}),
        *_swapped(looks),
    ]
    notes = ["no manifest.csv, so whether a person is in both train and test cannot be checked"] * (
        manifest is None
    )
    notes += [
        f"{len(ignored)} file(s) with other endings were left alone "
        f"({', '.join(sorted(set(ignored)))})"
    ] * bool(ignored)
    contents = (_contents(key, [look for look in looks if look.key == key]) for key in FOLDERS)
    return Report(folder, tuple(contents), tuple(findings), tuple(notes))


def _progress(results, total: int):
    """With a bar in a terminal, if tqdm is there."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return results
    return tqdm(results, total=total, unit="slice", disable=None, leave=False)


def _look(path: Path, folder: Path, key: tuple[str, str]) -> Look:
    name, header = path.relative_to(folder).as_posix(), ("?", "?", "?")
    try:
        with Image.open(path) as image:
            header = (image.format, image.mode, f"{image.height}x{image.width}")
        pixels, _ = read_slice(path)
    except UNREADABLE as error:
        # BadSlice, which says its kind, or what Pillow or the disk said
        sentence = str(error).removeprefix(f"{path} ").replace(str(path), name)
        return Look(name, key, header, (getattr(error, "kind", "unreadable"), sentence))
    saturated = pixels.dtype == np.uint8 and (pixels == 255).mean() >= SATURATED
    digest = hashlib.sha256(f"{pixels.dtype}{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
    thumb = np.asarray(
        Image.fromarray(pixels.astype(np.float32)).resize((THUMB, THUMB), Image.Resampling.BILINEAR)
    )
    return Look(
        name,
        key,
        header,
        None,
        (int(pixels.min()), int(pixels.max())),
        bool(saturated),
        digest,
        perceptual_hash(thumb),
        _rim(thumb),
    )


def perceptual_hash(thumb: np.ndarray) -> np.ndarray:
    """(32, 32) -> (255,) bool.

    Which low cosine coefficients, the mean left out, exceed their median (Zauner 2010, "pHash",
    with 16 x 16).

    It hardly changes when a picture is resized, saved as JPEG, smoothed or made brighter; it does
    when the head moves or turns.
    """
    coefficients = dctn(thumb.astype(np.float64), norm="ortho")[:FREQUENCIES, :FREQUENCIES].ravel()[
        1:
    ]
    return coefficients > np.median(coefficients)


def _rim(thumb: np.ndarray) -> float:
    thumb = thumb - thumb.min()
    depth = distance_transform_edt(np.pad(binary_fill_holes(thumb > thumb.mean() / 2), 1))[
        1:-1, 1:-1
    ]
    # a speck has no inside
    depth /= max(depth.max(), THUMB / 8)
    rim, inside = thumb[(depth > 0) & (depth <= RIM_DEPTH)], thumb[depth > RIM_DEPTH]
    return float(rim.mean() / inside.mean()) if rim.size and inside.size else float("nan")


def _few(names, join: str = ", ", most: int = 3) -> str:
    names = list(names)
    return join.join(names[:most] + [f"and {len(names) - most} more"] * (len(names) > most))


def _contents(key: tuple[str, str], looks: list[Look]) -> tuple[str, ...]:
    """A row of the first table; patterns of names have # for their numbers."""
    shown = [
        ", ".join(
            f"{value} ({count})" if count < len(looks) else str(value)
            for value, count in Counter(values).most_common(4)
        )
        for values in zip(*(look.header for look in looks))
    ]
    extremes = [look.extremes for look in looks if look.problem is None]
    values = (
        f"{min(low for low, _ in extremes)} to {max(high for _, high in extremes)}"
        if extremes
        else "none"
    )
    patterns = Counter(re.sub(r"\d+", "#", Path(look.name).name) for look in looks)
    return (
        FOLDERS[key],
        str(len(looks)),
        *shown,
        values,
        _few(name for name, _ in patterns.most_common()),
    )


def _bad_files(looks: list[Look]):
    for kind in ("unreadable", "blank", "colour"):
        if bad := [look for look in looks if look.problem and look.problem[0] == kind]:
            names = tuple(look.name for look in bad)
            yield Finding(kind, names, _few(names), bad[0].problem[1])


def _copies(looks: list[Look]):
    groups: dict[str, list[Look]] = {}
    for look in looks:
        groups.setdefault(look.digest, []).append(look)
    alike = [group for group in groups.values() if len(group) > 1]
    for kind, wanted, advice in (
        (
            "duplicate, CT and MR",
            lambda group: _spread(group, 1),
            "a slice has one modality: delete the misplaced one",
        ),
        (
            "duplicate, train and test",
            lambda group: _spread(group, 0),
            "scores on them mean nothing: delete one of each",
        ),
        (
            "duplicate",
            lambda group: not _spread(group, 0) and not _spread(group, 1),
            "delete all but one of each",
        ),
    ):
        if chosen := [group for group in alike if wanted(group)]:
            names = _few((" = ".join(look.name for look in group[:3]) for group in chosen), "; ", 2)
            yield Finding(
                kind, tuple(look.name for group in chosen for look in group), names, advice
            )


def _spread(group: list[Look], part: int) -> bool:
    return len({look.key[part] for look in group}) > 1


def _near_copies(looks: list[Look]):
    if not looks:
        return
    bits = np.stack([look.bits for look in looks])
    test = np.array([look.key[0] == "test" for look in looks])
    digests = np.unique([look.digest for look in looks], return_inverse=True)[1]
    for kind, allowed, advice in (
        (
            "near-duplicate, train and test",
            lambda rows: test[rows, None] != test,
            "copies saved again, or neighbours in one scan: scores on them show memory, so split "
            "by person",
        ),
        (
            "near-duplicate",
            lambda rows: test[rows, None] == test,
            "copies saved again, to be deleted, or neighbours in one scan",
        ),
    ):
        nearest = nearest_copies(
            bits,
            lambda rows: allowed(rows) & (digests[rows, None] != digests),  # noqa: B023
        )
        pairs = dict.fromkeys(tuple(sorted((i, int(j)))) for i, j in enumerate(nearest) if j >= 0)
        if pairs:
            files = dict.fromkeys(looks[i].name for pair in pairs for i in pair)
            yield Finding(
                kind,
                tuple(files),
                _few((f"{looks[i].name} ~ {looks[j].name}" for i, j in pairs), "; ", 2),
                advice,
            )


def nearest_copies(
    bits: np.ndarray, allowed: Callable[[slice], np.ndarray], block: int = 512
) -> np.ndarray:
    """For each hash, of (N, K) bool, the index of the nearest other one that differs in at most
    COPY_BITS bits, else -1: (N,) int.

    allowed(rows) -> (len(rows), N) bool says which may be paired. Hamming distances come from
    products of +-1, K - 2 x distance, a block of rows at a time, so that 5,000 hashes take a second
    and memory stays small.
    """
    signs = np.where(bits, 1, -1).astype(np.float32)
    nearest = np.full(len(bits), -1)
    for start in range(0, len(bits), block):
        rows = slice(start, start + block)
        distance = np.where(allowed(rows), (bits.shape[1] - signs[rows] @ signs.T) / 2, np.inf)
        best = distance.argmin(1)
        nearest[rows] = np.where(distance[np.arange(len(best)), best] <= COPY_BITS, best, -1)
    return nearest


def _pictures(looks: list[Look]):
    if saturated := [look.name for look in looks if look.saturated]:
        yield Finding(
            "saturated",
            tuple(saturated),
            _few(saturated),
            f"at least {SATURATED:.0%} of the picture is 255, so whatever was brighter is lost: "
            "export a wider window, or 16 bits",
        )
    sizes = Counter(look.header[2] for look in looks)
    if len(sizes) > 1:
        (usual, _), *others = sizes.most_common()
        odd = [look.name for look in looks if look.header[2] != usual]
        counts = _few(f"{count} of {size}" for size, count in others)
        yield Finding(
            "mixed sizes",
            tuple(odd),
            f"{counts} instead of {usual} pixels: {_few(odd)}",
            "all will be resized to one size, so heads may differ in scale",
        )


def _formats(looks: list[Look]):
    jpeg = {
        modality: np.mean([look.header[0] == "JPEG" for look in looks if look.key[1] == modality])
        for modality in ("ct", "mri")
    }
    if abs(jpeg["ct"] - jpeg["mri"]) > 0.1:
        lossy = "ct" if jpeg["ct"] > jpeg["mri"] else "mri"
        files = tuple(
            look.name for look in looks if look.header[0] == "JPEG" and look.key[1] == lossy
        )
        yield Finding(
            "JPEG on one side",
            files,
            f"{jpeg['ct']:.0%} of the CT and {jpeg['mri']:.0%} of the MR are JPEG",
            "a critic can tell them apart by compression instead of anatomy: export both alike "
            "from the source",
        )


def _people(looks: list[Look], manifest: dict[str, dict[str, str]]):
    people = [(look, manifest[look.name]["patient"]) for look in looks if look.name in manifest]
    both = set.intersection(
        *({person for look, person in people if look.key[0] == side} for side in ("train", "test"))
    ) - {UNKNOWN}
    if both:
        files = tuple(
            look.name for look, person in people if person in both and look.key[0] == "test"
        )
        yield Finding(
            "patients, train and test",
            files,
            _few(sorted(both)),
            "scores say nothing about other people: split by person",
        )


def _swapped(looks: list[Look]):
    other = {"ct": "mri", "mri": "ct"}
    rims = {
        modality: [look.rim for look in looks if look.key[1] == modality and np.isfinite(look.rim)]
        for modality in other
    }
    ct, mri = (
        float(np.median(rims[modality])) if rims[modality] else float("nan")
        for modality in ("ct", "mri")
    )
    words = {"ct": r"ct(?![a-z])", "mri": r"(mri?|t[12]w?|flair)(?![a-z])"}
    named = [
        look.name
        for look in looks
        if re.match(words[other[look.key[1]]], Path(look.name).name.lower())
    ]
    advice = "trainA and testA are for CT, trainB and testB for MR: look whether they are swapped"
    if mri > SWAPPED * ct:
        files = (
            look.name for key in FOLDERS for look in [one for one in looks if one.key == key][:2]
        )
        yield Finding(
            "swapped?",
            tuple(files),
            "the heads' rim, where CT shows the skull, is brighter than their inside by a factor "
            f"of {ct:.2f} in the A folders and {mri:.2f} in the B folders",
            advice,
        )
    elif named:
        yield Finding(
            "swapped?", tuple(named), f"{_few(named)}: named like the other modality", advice
        )

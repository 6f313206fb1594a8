"""Problems that a look at every slice of a data set can find."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .copies import nearest_copies
from .manifest import Row
from .slices import FOLDERS, UNKNOWN

# Share of an 8-bit picture at 255 from which its window seems to cut something off.
SATURATED = 0.01

# Ratio of MR's rim over CT's from which the folders look swapped. It is 0.1 to 0.8 in every window
# of our own data.
SWAPPED = 1.1

# How a file name says its modality.
NAMED_CT = r"ct(?![a-z])"
NAMED_MRI = r"(mri?|t[12]w?|flair)(?![a-z])"


@dataclass(frozen=True)
class SliceSummary:
    """What one file showed.

    Args:
        name: below the folder, with forward slashes.
        side: "train" or "test".
        modality: "ct" or "mri".
        file_format: of the header, such as "PNG".
        mode: Pillow's mode.
        size: "HxW".
        problem: "unreadable", "blank", "colour" or "mask" if it cannot be a slice, and then nothing
            below but `sentence` is set; "" otherwise.
        sentence: what the problem is.
        lowest: stored value.
        highest: stored value.
        is_saturated: whether too much of an 8-bit picture is 255.
        digest: of the pixels, so that the same picture in another format counts as the same.
        bits: perceptual hash, (255,) bool.
        rim: brightness of the head's rim over that of its inside.
    """

    name: str
    side: str
    modality: str
    file_format: str = "?"
    mode: str = "?"
    size: str = "?"
    problem: str = ""
    sentence: str = ""
    lowest: int = 0
    highest: int = 0
    is_saturated: bool = False
    digest: str = ""
    bits: np.ndarray | None = None
    rim: float = float("nan")


@dataclass(frozen=True)
class Finding:
    """One kind of problem.

    Args:
        kind: its name.
        files: the slices it concerns, pairs next to each other.
        seen: what was seen.
        advice: what to make of it.
    """

    kind: str
    files: tuple[str, ...]
    seen: str
    advice: str


def find_problems(slices: Sequence[SliceSummary], manifest: dict[str, Row]) -> list[Finding]:
    """Find everything that could spoil training or a score.

    Args:
        slices: of all four folders.
        manifest: its rows by file name, empty if there is none.

    Returns:
        The findings, one for each kind of problem.
    """
    readable = [slice_ for slice_ in slices if not slice_.problem]
    return [
        *_bad_files(slices),
        *_copies(readable),
        *_near_copies(readable),
        *_saturated(readable),
        *_mixed_sizes(readable),
        *_formats(slices),
        *_people(slices, manifest),
        *_swapped(slices),
    ]


def shortened(names: Iterable[str], separator: str = ", ", most: int = 3) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    shown = names[:most]
    if len(names) > most:
        shown.append(f"and {len(names) - most} more")
    return separator.join(shown)


def _bad_files(slices: Sequence[SliceSummary]) -> Iterator[Finding]:
    for kind in ("unreadable", "blank", "colour", "mask"):
        bad = [slice_ for slice_ in slices if slice_.problem == kind]
        if bad:
            names = tuple(slice_.name for slice_ in bad)
            yield Finding(kind, names, shortened(names), bad[0].sentence)


def _copies(slices: Sequence[SliceSummary]) -> Iterator[Finding]:
    by_digest: dict[str, list[SliceSummary]] = {}
    for slice_ in slices:
        by_digest.setdefault(slice_.digest, []).append(slice_)

    across_modalities, across_sides, within = [], [], []
    for group in by_digest.values():
        several_modalities = len({slice_.modality for slice_ in group}) > 1
        several_sides = len({slice_.side for slice_ in group}) > 1
        if several_modalities:
            across_modalities.append(group)
        if several_sides:
            across_sides.append(group)
        if len(group) > 1 and not several_modalities and not several_sides:
            within.append(group)

    if across_modalities:
        yield _copy_finding(
            "duplicate, CT and MR",
            across_modalities,
            "a slice has one modality: move the misplaced one",
        )
    if across_sides:
        yield _copy_finding(
            "duplicate, train and test",
            across_sides,
            "scores on them are meaningless: keep one of each",
        )
    if within:
        yield _copy_finding("duplicate", within, "keep one of each")


def _copy_finding(kind: str, groups: list[list[SliceSummary]], advice: str) -> Finding:
    equations = [" = ".join(slice_.name for slice_ in group[:3]) for group in groups]
    names = tuple(slice_.name for group in groups for slice_ in group)
    return Finding(kind, names, shortened(equations, "; ", 2), advice)


def _near_copies(slices: Sequence[SliceSummary]) -> Iterator[Finding]:
    if not slices:
        return
    bits = np.stack([slice_.bits for slice_ in slices])
    is_test = np.array([slice_.side == "test" for slice_ in slices])
    # Identical pixels get the same number: they are copies, not near-copies.
    content = np.unique([slice_.digest for slice_ in slices], return_inverse=True)[1]

    def across_sides(rows: slice) -> np.ndarray:
        return (is_test[rows, None] != is_test) & (content[rows, None] != content)

    def within_a_side(rows: slice) -> np.ndarray:
        return (is_test[rows, None] == is_test) & (content[rows, None] != content)

    across = _near_pairs(bits, across_sides)
    if across:
        yield _near_finding(
            "near-duplicate, train and test",
            [(slices[i].name, slices[j].name) for i, j in across],
            "copies that were saved again, or neighbours in one scan: scores on them measure "
            "memorisation, so split by person",
        )
    within = _near_pairs(bits, within_a_side)
    if within:
        yield _near_finding(
            "near-duplicate",
            [(slices[i].name, slices[j].name) for i, j in within],
            "copies that were saved again, which should be moved away, or neighbours in one scan",
        )


def _near_pairs(bits: np.ndarray, allowed: Callable[[slice], np.ndarray]) -> list[tuple[int, int]]:
    """Each slice with its nearest near-copy, the lower index first, every pair once."""
    pairs = {}
    for i, nearest in enumerate(nearest_copies(bits, allowed)):
        j = int(nearest)
        if j >= 0:
            pairs[min(i, j), max(i, j)] = True
    return list(pairs)


def _near_finding(kind: str, pairs: list[tuple[str, str]], advice: str) -> Finding:
    names = dict.fromkeys(name for pair in pairs for name in pair)
    seen = shortened((f"{first} ~ {second}" for first, second in pairs), "; ", 2)
    return Finding(kind, tuple(names), seen, advice)


def _saturated(slices: Sequence[SliceSummary]) -> Iterator[Finding]:
    names = [slice_.name for slice_ in slices if slice_.is_saturated]
    if names:
        yield Finding(
            "saturated",
            tuple(names),
            shortened(names),
            f"at least {SATURATED:.0%} of the picture is 255, so whatever was brighter is lost: "
            "export a wider window, or 16 bits",
        )


def _mixed_sizes(slices: Sequence[SliceSummary]) -> Iterator[Finding]:
    sizes = Counter(slice_.size for slice_ in slices)
    if len(sizes) > 1:
        (usual, _), *others = sizes.most_common()
        odd = [slice_.name for slice_ in slices if slice_.size != usual]
        counts = shortened(f"{count} of {size}" for size, count in others)
        yield Finding(
            "mixed sizes",
            tuple(odd),
            f"{counts} instead of {usual} pixels: {shortened(odd)}",
            "all will be resized to one size, so heads may differ in scale",
        )


def _formats(slices: Sequence[SliceSummary]) -> Iterator[Finding]:
    ct_share = np.mean(
        [slice_.file_format == "JPEG" for slice_ in slices if slice_.modality == "ct"]
    )
    mri_share = np.mean(
        [slice_.file_format == "JPEG" for slice_ in slices if slice_.modality == "mri"]
    )
    if abs(ct_share - mri_share) > 0.1:
        lossy = "ct" if ct_share > mri_share else "mri"
        jpegs = [slice_ for slice_ in slices if slice_.file_format == "JPEG"]
        yield Finding(
            "JPEG on one side",
            tuple(slice_.name for slice_ in jpegs if slice_.modality == lossy),
            f"{ct_share:.0%} of the CT and {mri_share:.0%} of the MR are JPEG",
            "a discriminator can tell them apart by compression instead of anatomy: export both "
            "alike from the source",
        )


def _people(slices: Sequence[SliceSummary], manifest: dict[str, Row]) -> Iterator[Finding]:
    listed = [slice_ for slice_ in slices if slice_.name in manifest]
    train = {manifest[slice_.name]["patient"] for slice_ in listed if slice_.side == "train"}
    test = {manifest[slice_.name]["patient"] for slice_ in listed if slice_.side == "test"}

    both = (train & test) - {UNKNOWN}
    if both:
        in_test = [slice_.name for slice_ in listed if slice_.side == "test"]
        yield Finding(
            "patients, train and test",
            tuple(name for name in in_test if manifest[name]["patient"] in both),
            shortened(sorted(both)),
            "scores say nothing about other people: split by person",
        )


def _swapped(slices: Sequence[SliceSummary]) -> Iterator[Finding]:
    """CT in the MR folders, seen by the bright skull, or by the file names."""
    ct, mri = _median_rim(slices, "ct"), _median_rim(slices, "mri")
    named = [slice_.name for slice_ in slices if _is_named_otherwise(slice_)]
    advice = "trainA and testA are for CT, trainB and testB for MR: check whether they are swapped"

    if mri > SWAPPED * ct:
        examples: list[str] = []
        for side, modality in FOLDERS:
            group = [
                slice_ for slice_ in slices if (slice_.side, slice_.modality) == (side, modality)
            ]
            examples += [slice_.name for slice_ in group[:2]]
        yield Finding(
            "swapped?",
            tuple(examples),
            "the heads' rim, where CT shows the skull, is brighter than their inside by a factor "
            f"of {ct:.2f} in the A folders and {mri:.2f} in the B folders",
            advice,
        )
    elif named:
        yield Finding(
            "swapped?", tuple(named), f"{shortened(named)}: named like the other modality", advice
        )


def _median_rim(slices: Sequence[SliceSummary], modality: str) -> float:
    rims = [
        slice_.rim for slice_ in slices if slice_.modality == modality and np.isfinite(slice_.rim)
    ]
    return float(np.median(rims)) if rims else float("nan")


def _is_named_otherwise(slice_: SliceSummary) -> bool:
    """Whether the file is named like the other modality."""
    pattern = NAMED_MRI if slice_.modality == "ct" else NAMED_CT
    return re.match(pattern, Path(slice_.name).name.lower()) is not None

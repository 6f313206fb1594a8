"""Problems that a look at every slice of a data set can find."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..discovery import listed
from .copies import nearest_copies
from .slices import UNKNOWN

# Share of an 8-bit picture at 255 from which its window seems to cut something off.
SATURATED = 0.01

# Ratio of MR's rim over CT's from which the folders look swapped. It is 0.1 to 0.8 in every window
# of our own data.
SWAPPED = 1.1

# How a file name says its modality.
NAMED_CT = r"ct(?![a-z])"
NAMED_MRI = r"(mri?|t[12]w?|flair)(?![a-z])"

# What to make of each kind of problem. What is wrong with a file that is no slice says it itself.
ADVICE = {
    "duplicate, CT and MR": "a slice has one modality: move the misplaced one",
    "duplicate, train and test": "scores on them are meaningless: keep one of each",
    "duplicate": "keep one of each",
    "near-duplicate, train and test": (
        "copies that were saved again, or neighbours in one scan: scores on them measure "
        "memorisation, so split by person"
    ),
    "near-duplicate": (
        "copies that were saved again, which should be moved away, or neighbours in one scan"
    ),
    "saturated": (
        f"at least {SATURATED:.0%} of the picture is 255, so whatever was brighter is lost: "
        "export a wider window, or 16 bits"
    ),
    "mixed sizes": "all will be resized to one size, so heads may differ in scale",
    "JPEG on one side": (
        "a discriminator can tell them apart by compression instead of anatomy: export both "
        "alike from the source"
    ),
    "patients, train and test": "scores say nothing about other people: split by person",
    "swapped?": (
        "trainA and testA are for CT, trainB and testB for MR: check whether they are swapped"
    ),
}


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


def find_problems(slices: pd.DataFrame) -> list[Finding]:
    """Find everything that could spoil training or a score.

    Args:
        slices: a row for each slice of the four folders, as `checks.look_at` makes it, and its
            `patient`: a name, `UNKNOWN`, or "" where nothing names one.

    Returns:
        The findings, one for each kind of problem.
    """
    readable = slices[slices["problem"] == ""]
    findings = []
    for kind in ("unreadable", "blank", "colour", "mask"):
        bad = slices[slices["problem"] == kind]
        if len(bad):
            advice = bad["sentence"].iloc[0]
            findings.append(Finding(kind, tuple(bad["name"]), listed(bad["name"]), advice))

    for kind, names, seen in (
        *_copies(readable),
        *_near_copies(readable),
        *_saturated(readable),
        *_mixed_sizes(readable),
        *_formats(slices),
        *_people(slices),
        *_swapped(slices),
    ):
        findings.append(Finding(kind, tuple(names), seen, ADVICE[kind]))
    return findings


# Each of these yields the kind, the names of the files, and what was seen.
Problems = Iterator[tuple[str, list[str], str]]


def _copies(slices: pd.DataFrame) -> Problems:
    copies = {"duplicate, CT and MR": [], "duplicate, train and test": [], "duplicate": []}
    for _, group in slices.groupby("digest", sort=False):
        several_modalities = group["modality"].nunique() > 1
        several_sides = group["side"].nunique() > 1
        if several_modalities:
            copies["duplicate, CT and MR"].append(group)
        if several_sides:
            copies["duplicate, train and test"].append(group)
        if len(group) > 1 and not several_modalities and not several_sides:
            copies["duplicate"].append(group)

    for kind, groups in copies.items():
        if groups:
            equations = [" = ".join(group["name"][:3]) for group in groups]
            yield kind, [*pd.concat(groups)["name"]], listed(equations, "; ", 2)


def _near_copies(slices: pd.DataFrame) -> Problems:
    if slices.empty:
        return
    is_test = (slices["side"] == "test").to_numpy()
    # Identical pixels get the same number: they are copies, not near-copies.
    content, _ = pd.factorize(slices["digest"])

    def across_sides(rows: slice) -> np.ndarray:
        return (is_test[rows, None] != is_test) & (content[rows, None] != content)

    def within_a_side(rows: slice) -> np.ndarray:
        return (is_test[rows, None] == is_test) & (content[rows, None] != content)

    names = [*slices["name"]]
    bits = np.stack([*slices["bits"]])
    for kind, allowed in (
        ("near-duplicate, train and test", across_sides),
        ("near-duplicate", within_a_side),
    ):
        # Every pair once, the lower index first.
        nearest = enumerate(nearest_copies(bits, allowed).tolist())
        pairs = dict.fromkeys((min(i, j), max(i, j)) for i, j in nearest if j >= 0)
        if pairs:
            in_pairs = dict.fromkeys(names[k] for pair in pairs for k in pair)
            equations = [f"{names[i]} ~ {names[j]}" for i, j in pairs]
            yield kind, [*in_pairs], listed(equations, "; ", 2)


def _saturated(slices: pd.DataFrame) -> Problems:
    names = [*slices["name"][slices["is_saturated"].astype(bool)]]
    if names:
        yield "saturated", names, listed(names)


def _mixed_sizes(slices: pd.DataFrame) -> Problems:
    sizes = Counter(slices["pixels"])
    if len(sizes) > 1:
        (usual, _), *others = sizes.most_common()
        odd = [*slices["name"][slices["pixels"] != usual]]
        counts = listed(f"{count} of {pixels}" for pixels, count in others)
        yield "mixed sizes", odd, f"{counts} instead of {usual} pixels: {listed(odd)}"


def _formats(slices: pd.DataFrame) -> Problems:
    is_jpeg = slices["type"] == "JPEG"
    share = is_jpeg.groupby(slices["modality"]).mean()
    if abs(share["ct"] - share["mri"]) > 0.1:
        names = [*slices["name"][is_jpeg & (slices["modality"] == share.idxmax())]]
        seen = f"{share['ct']:.0%} of the CT and {share['mri']:.0%} of the MR are JPEG"
        yield "JPEG on one side", names, seen


def _people(slices: pd.DataFrame) -> Problems:
    known = slices[~slices["patient"].isin(["", UNKNOWN])]
    in_test = known[known["side"] == "test"]
    both = {*known["patient"][known["side"] == "train"]} & {*in_test["patient"]}
    if both:
        names = [*in_test["name"][in_test["patient"].isin(both)]]
        yield "patients, train and test", names, listed(sorted(both))


def _swapped(slices: pd.DataFrame) -> Problems:
    """CT in the MR folders, seen by the bright skull, or by the file names."""
    rim = slices["rim"].astype(float).groupby(slices["modality"]).median()
    if rim["mri"] > SWAPPED * rim["ct"]:
        examples = slices.groupby(["side", "modality"]).head(2)
        seen = (
            "the heads' rim, where CT shows the skull, is brighter than their inside by a factor "
            f"of {rim['ct']:.2f} in the A folders and {rim['mri']:.2f} in the B folders"
        )
        yield "swapped?", [*examples["name"]], seen
        return

    named = []
    for name, modality in zip(slices["name"], slices["modality"], strict=True):
        other = NAMED_MRI if modality == "ct" else NAMED_CT
        if re.match(other, Path(name).name.lower()):
            named.append(name)
    if named:
        yield "swapped?", named, f"{listed(named)}: named like the other modality"

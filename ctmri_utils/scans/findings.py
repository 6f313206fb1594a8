"""Problems that a look at every slice of a data set can find."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.fft import dctn

from ..discovery import listed
from ..units import other_modality
from .slices import UNKNOWN

# The window of an 8-bit picture cuts something off if at least this share of it is 255.
SATURATED = 0.01

# The folders look swapped if MR's rim over CT's is at least this. It is 0.1 to 0.8 in every window
# of the embedded data.
SWAPPED = 1.1

# A file name that says its modality begins like this.
MODALITY_IN_NAME = {"ct": r"ct(?![a-z])", "mri": r"(mri?|t[12]w?|flair)(?![a-z])"}

# The perceptual hash: signs of 16 x 16 cosine coefficients, less the mean, of a 32 x 32 thumbnail.
THUMB = 32
FREQUENCIES = 16

# Hashes of 255 bits that differ in at most this many are of copies or of neighbours in one scan.
# Those of two people differ in 26 or more.
COPY_BITS = 12

# What to do about each kind of problem. The error of a file that is no slice gives its own advice.
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
        summary: what is wrong, with examples.
        advice: what to do about it.
    """

    kind: str
    files: tuple[str, ...]
    summary: str
    advice: str


def find_problems(slices: pd.DataFrame) -> list[Finding]:
    """Find everything that could spoil training or a score.

    Args:
        slices: a row for each slice of the four folders, as `checks.inspect_slice` makes it, and
            its `patient`: a name, `UNKNOWN`, or "" where nothing names one.

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

    for kind, names, summary in (
        *find_duplicates(readable),
        *find_near_duplicates(readable),
        *find_saturated(readable),
        *find_mixed_sizes(readable),
        *find_one_sided_jpeg(slices),
        *find_shared_patients(slices),
        *find_swapped(slices),
    ):
        findings.append(Finding(kind, tuple(names), summary, ADVICE[kind]))
    return findings


# Each of these yields the kind, the names of the files, and a summary.
Problems = Iterator[tuple[str, list[str], str]]


def find_duplicates(slices: pd.DataFrame) -> Problems:
    """Slices with the same pixels, by where the copies lie."""
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


def find_near_duplicates(slices: pd.DataFrame) -> Problems:
    """Slices that look alike but differ in pixels, across train and test or within one of them."""
    if slices.empty:
        return
    is_test = (slices["side"] == "test").to_numpy()
    # Identical pixels get the same number: they are copies, not near-copies.
    content, _ = pd.factorize(slices["digest"])

    def may_be_paired(rows: slice, within_a_side: bool) -> np.ndarray:
        same_side = is_test[rows, None] == is_test
        return (same_side == within_a_side) & (content[rows, None] != content)

    names = [*slices["name"]]
    bits = np.stack([*slices["bits"]])
    kinds = {"near-duplicate, train and test": False, "near-duplicate": True}
    for kind, within_a_side in kinds.items():
        nearest = nearest_copies(bits, partial(may_be_paired, within_a_side=within_a_side))

        # Every pair once, the lower index first.
        equations = {}
        for i, j in enumerate(nearest):
            if j >= 0:
                first, second = names[min(i, j)], names[max(i, j)]
                equations[first, second] = f"{first} ~ {second}"

        if equations:
            files = dict.fromkeys(chain.from_iterable(equations))
            yield kind, list(files), listed(equations.values(), "; ", 2)


def find_saturated(slices: pd.DataFrame) -> Problems:
    """8-bit pictures of which too much is 255."""
    names = [*slices["name"][slices["is_saturated"].astype(bool)]]
    if names:
        yield "saturated", names, listed(names)


def find_mixed_sizes(slices: pd.DataFrame) -> Problems:
    """Slices of another size than most."""
    sizes = Counter(slices["pixels"])
    if len(sizes) > 1:
        (usual, _), *rarer = sizes.most_common()
        odd = [*slices["name"][slices["pixels"] != usual]]
        counts = listed(f"{count} of {pixels}" for pixels, count in rarer)
        yield "mixed sizes", odd, f"{counts} instead of {usual} pixels: {listed(odd)}"


def find_one_sided_jpeg(slices: pd.DataFrame) -> Problems:
    """JPEG files of the modality that has more of them, where the shares differ."""
    is_jpeg = slices["type"] == "JPEG"
    share = is_jpeg.groupby(slices["modality"]).mean()
    if abs(share["ct"] - share["mri"]) > 0.1:
        names = [*slices["name"][is_jpeg & (slices["modality"] == share.idxmax())]]
        summary = f"{share['ct']:.0%} of the CT and {share['mri']:.0%} of the MR are JPEG"
        yield "JPEG on one side", names, summary


def find_shared_patients(slices: pd.DataFrame) -> Problems:
    """Test slices of patients who are in training too."""
    known = slices[~slices["patient"].isin(["", UNKNOWN])]
    in_test = known[known["side"] == "test"]
    shared = {*known["patient"][known["side"] == "train"]} & {*in_test["patient"]}
    if shared:
        names = [*in_test["name"][in_test["patient"].isin(shared)]]
        yield "patients, train and test", names, listed(sorted(shared))


def find_swapped(slices: pd.DataFrame) -> Problems:
    """CT in the MR folders, seen by the bright skull, or by the file names."""
    rim = slices["rim"].astype(float).groupby(slices["modality"]).median()
    if rim["mri"] > SWAPPED * rim["ct"]:
        examples = slices.groupby(["side", "modality"]).head(2)
        summary = (
            "the heads' rim, where CT shows the skull, is brighter than their inside by a factor "
            f"of {rim['ct']:.2f} in the A folders and {rim['mri']:.2f} in the B folders"
        )
        yield "swapped?", [*examples["name"]], summary
        return

    misnamed = []
    for name, modality in zip(slices["name"], slices["modality"], strict=True):
        pattern = MODALITY_IN_NAME[other_modality(modality)]
        if re.match(pattern, Path(name).name.lower()):
            misnamed.append(name)
    if misnamed:
        yield "swapped?", misnamed, f"{listed(misnamed)}: named like the other modality"


def perceptual_hash(thumb: np.ndarray) -> np.ndarray:
    """Hash a thumbnail by which low cosine coefficients, without the mean, exceed their median.

    The hash hardly changes when a picture is resized, saved as JPEG, smoothed or made brighter. It
    changes when the head moves or turns.

    Args:
        thumb: (32, 32).

    Returns:
        (255,) bool.

    Source: Zauner 2010, "pHash", here with 16 x 16 coefficients.
    """
    coefficients = dctn(thumb.astype(np.float64), norm="ortho")
    low_frequencies = coefficients[:FREQUENCIES, :FREQUENCIES].ravel()
    without_mean = low_frequencies[1:]
    return without_mean > np.median(without_mean)


def nearest_copies(
    bits: np.ndarray, allowed: Callable[[slice], np.ndarray], block: int = 512
) -> np.ndarray:
    """Find the nearest near-copy of each slice.

    A block of rows at a time, so that 5,000 hashes take a second and memory stays small.

    Args:
        bits: one hash per slice, (N, K) bool.
        allowed: allowed(rows) -> (len(rows), N) bool says which slices may be paired.
        block: rows at a time.

    Returns:
        (N,) int: the index of the allowed slice whose hash is nearest, or -1 if all of them differ
        in more than COPY_BITS bits.
    """
    # The product of two hashes of +-1 is K - 2 x their Hamming distance.
    signs = np.where(bits, 1, -1).astype(np.float32)
    nearest = np.full(len(bits), -1)
    for start in range(0, len(bits), block):
        rows = slice(start, start + block)
        distance = (bits.shape[1] - signs[rows] @ signs.T) / 2
        distance = np.where(allowed(rows), distance, np.inf)

        best = distance.argmin(1)
        best_distance = distance[np.arange(len(best)), best]
        nearest[rows] = np.where(best_distance <= COPY_BITS, best, -1)
    return nearest

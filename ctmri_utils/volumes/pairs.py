"""Registered pairs: CT and MR of one patient, found in a folder and checked.

A pair's files share their path up to the last word, which says what each is: `1BA001/ct.nii.gz`,
`1BA001/mr.nii.gz` and perhaps `1BA001/mask.nii.gz`, as in SynthRAD; `p7_ct.mha` and `p7_t1.mha`; or
nnU-Net's channels `p7_0000` and `p7_0001`, of which the values tell the CT. Other names need two
patterns, in which `*` stands for what the two paths share.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..discovery import (
    MODALITY_WORDS,
    TRANSLATED,
    ending,
    left_out_notes,
    list_files,
    listed,
    printable,
    stem,
)
from ..evaluation.metrics import dice
from ..units import MODALITIES
from .axial_slices import AxialStack, axial, axial_like, resample
from .scan_files import Scan, scan_of_file, without_voxel_files
from .volume import Volume, check_even, corner_indices

CHANNELS = ("0000", "0001")
ROLES = {"mask": {"mask"}, "ct": MODALITY_WORDS["ct"], "mri": MODALITY_WORDS["mri"]}

# A path without its ending: what a pair shares, and the last word.
LAST_WORD = re.compile(r"(.*?)[-_ ./]*([^-_ ./]*)[-_ ./]*", flags=re.DOTALL)

# Overlap (Dice) of the two whole heads, on the slices that both scans show: 0.98 in registered
# phantoms; 0.91 to 0.93, 0.83 to 0.87 and 0.75 to 0.81 after a shift in the plane by 10, 20 and
# 30 mm; still 0.95 after 20 mm up. A pair below the first number is refused; one below the second
# gets a note.
LEAST_OVERLAP = 0.8
GOOD_OVERLAP = 0.9

# A pair whose heads have their middles further apart than this gets a note.
FAR_MM = 4.0

# Two grids are one if their corners lie nearer to each other than this.
SAME_GRID_MM = 0.01

# A pair is refused if more of the MR's head than this lies outside of the CT's field.
MOST_OUTSIDE = 0.5

# A note says so if more of the head than this is cut away. A rim of the skin always is.
MOST_CUT = 0.1


@dataclass(frozen=True)
class Pair:
    """The files of a pair.

    Args:
        name: what their paths share.
        ct, mri: the two scans; of channels, in their order.
        mask: the region in which both count, or None.
        is_named: whether the names say which is the CT.
    """

    name: str
    ct: Scan
    mri: Scan
    mask: Scan | None
    is_named: bool = True


@dataclass(frozen=True)
class PairedVolumes:
    """A pair as read, each on its own grid.

    Args:
        ct: the CT.
        mri: the MR; None in an evaluation that needs none.
        mask: of 0 and 1, None if there is none.
    """

    ct: Volume
    mri: Volume | None
    mask: Volume | None


def find_pairs(
    source: Path, ct: str | None = None, mri: str | None = None
) -> tuple[list[Pair], list[str]]:
    """Find every pair below a folder.

    Args:
        source: the folder.
        ct, mri: patterns of the paths below it, such as "*/CT_reg.nii.gz"; None: by their names.

    Returns:
        The pairs by name, and notes on what was left out.

    Raises:
        FileNotFoundError: there is no pair; says what was found instead.
        ValueError: there is one pattern only.
    """
    source = Path(source)
    if (ct is None) != (mri is None):
        raise ValueError("pairs need --ct and --mri, two patterns, or none of them")
    if not source.is_dir():
        raise FileNotFoundError(f"{source} is not a folder: give one that holds the pairs")

    by_pair, left_out = scans_by_pair(source, ct, mri)
    pairs, notes, unpaired = [], [], []
    for name, scans in sorted(by_pair.items()):
        is_named = bool(scans["ct"] or scans["mri"])
        ct_role, mri_role = ("ct", "mri") if is_named else CHANNELS
        cts, mris, masks = scans[ct_role], scans[mri_role], scans["mask"]
        if not (cts and mris):
            for scans_of_role in scans.values():
                unpaired += [scan.name for scan in scans_of_role]
        elif max(len(cts), len(mris), len(masks)) > 1:
            notes.append(
                f"left out: {printable(name)}: it has {len(cts)} CT, {len(mris)} MR and "
                f"{len(masks)} mask files, but a pair has one of each; choose them by --ct and "
                "--mri"
            )
        else:
            mask = masks[0] if masks else None
            pairs.append(Pair(name, cts[0], mris[0], mask, is_named))

    if unpaired:
        number = f"{len(unpaired)} volume{'s' if len(unpaired) > 1 else ''}"
        notes.append(printable(f"no partner was found for {number}: {listed(sorted(unpaired))}"))
    notes += left_out_notes(left_out)
    if not pairs:
        raise FileNotFoundError(
            f"{printable(source)} holds no pair (looked for ct and mr in one folder, for _ct and "
            f"_mr, and for _0000 and _0001; {'; '.join(notes) or 'it is empty'}): rename the "
            "files, or find them by --ct PATTERN --mri PATTERN"
        )
    return pairs, notes


def scans_by_pair(
    source: Path, ct: str | None, mri: str | None
) -> tuple[dict[str, dict[str, list[Scan]]], Counter]:
    """The scans below a folder, by the name of their pair and their role; and what is left out."""
    listing = list_files(source)
    left_out = Counter(listing.left_out)
    by_pair = defaultdict(lambda: defaultdict(list))
    for path in without_voxel_files(listing.files):
        name, role = name_and_role(path.relative_to(source).as_posix(), ct, mri)
        scan = scan_of_file(path, source)
        if not role or not scan.is_file:
            left_out[ending(path)] += 1
        elif scan.synthetic:
            left_out[TRANSLATED] += 1
        else:
            by_pair[name][role].append(scan)
    return by_pair, left_out


def name_and_role(path: str, ct: str | None, mri: str | None) -> tuple[str, str]:
    """The name that a path shares with its partner's, and its role.

    The role is "ct", "mri", "mask", a channel, or "" for a path that is none of these.
    """
    for role, pattern in (("ct", ct), ("mri", mri)):
        match = re.fullmatch(pattern_expression(pattern), path) if pattern else None
        if match:
            return "".join(match.groups()).strip("/-_ ."), role

    head, word = LAST_WORD.fullmatch(stem(path)).groups()
    name = head.strip("/-_ .")
    for role, words in ROLES.items():
        if word.lower() in words and (role == "mask" or ct is None):
            return name, role
    if word in CHANNELS and ct is None:
        return name, word
    return "", ""


def shared_name(path: str) -> str:
    """What a path shares with its partner's; the file's own name where that is nothing."""
    name, _ = name_and_role(path, None, None)
    return name or stem(path)


def pattern_expression(pattern: str) -> str:
    """A regular expression for a pattern; what `*` and `?` stand for are its groups."""
    groups = {"*": "(.*)", "?": "(.)"}
    return "".join(groups.get(character, re.escape(character)) for character in pattern)


def read_pair(pair: Pair) -> PairedVolumes:
    """Read the files of a pair.

    Raises:
        ValueError: one cannot be read, or CT and MR are swapped or cannot be told apart.
    """
    mask = read_mask(pair.mask) if pair.mask else None
    if not pair.is_named:
        first, second = pair.ct.read(), pair.mri.read()
        if first.modality == second.modality:
            raise ValueError(
                f"by their values both channels are {MODALITIES[first.modality]}: tell "
                "them apart by --ct and --mri"
            )
        if first.modality == "ct":
            return PairedVolumes(first, second, mask)
        return PairedVolumes(second, first, mask)
    try:
        return PairedVolumes(pair.ct.read("ct"), pair.mri.read("mri"), mask)
    except ValueError:
        if are_swapped(pair):
            raise ValueError(
                "its CT and its MR look swapped, judging by their values: rename them, or tell "
                "them apart by --ct and --mri"
            ) from None
        raise


def read_mask(scan: Scan) -> Volume:
    """A mask as a volume of 0 and 1.

    Raises:
        ValueError: it cannot be read, or is empty.
    """
    volume = scan.read("mri", labels=True)
    if not (volume.values > 0).any():
        raise ValueError(f"{scan.files[0]}: the mask is empty: make it again, or remove it")
    return replace(volume, values=(volume.values > 0).astype(np.float32))


def are_swapped(pair: Pair) -> bool:
    """Whether each of the two can be read as the other, and not by chance: the MR as a CT."""
    try:
        pair.ct.read("mri")
        return pair.mri.read().modality == "ct"
    except ValueError:
        return False


def same_grid(first: Volume, second: Volume) -> bool:
    """Whether two volumes have the same voxels, to a hundredth of a millimetre."""
    if first.values.shape != second.values.shape:
        return False
    difference = first.affine - second.affine
    offsets_mm = difference[:3, :3] @ corner_indices(first.values.shape) + difference[:3, 3:]
    return bool(np.abs(offsets_mm).max() < SAME_GRID_MM)


def axial_pair(volumes: PairedVolumes, size: int) -> tuple[AxialStack, AxialStack, list[str]]:
    """CT and MR as axial slices of one grid, which is the MR's, and cut to what both show.

    Args:
        volumes: the pair.
        size: pixels per side, see `axial`.

    Returns:
        The CT, the MR, and notes.

    Raises:
        ValueError: there is no head in one of them, the two heads lie elsewhere, the mask leaves
            none, or slices lie unevenly.
    """
    for volume in (volumes.ct, volumes.mri):
        check_even(volume, "pairs are compared voxel by voxel: resample it evenly first")
    mri = axial(volumes.mri, size)
    ct = axial_like(volumes.ct, mri)
    notes = [*volumes.ct.notes, *volumes.mri.notes, *ct.notes, *mri.notes]
    if not same_grid(volumes.ct, volumes.mri):
        notes.append("CT and MR have different grids: the CT was resampled onto the MR's slices")

    in_ct = covered_pixels(volumes.ct, mri)
    outside = np.mean(~in_ct[mri.head])
    if outside > MOST_OUTSIDE:
        raise ValueError(
            f"{outside:.0%} of the head in the MR lies outside the CT: they are not registered, "
            "or hardly show the same, so register them or give a CT of the whole head"
        )
    # The heads are compared before anything is cut, but only on slices that both scans show: one
    # of them may end lower or higher.
    in_both = in_ct.any((1, 2))
    notes += overlap_notes(ct.head[in_both], mri.head[in_both], mri.affine)

    shared_region = in_ct & covered_pixels(volumes.mri, mri)
    if volumes.mask is not None:
        mask = volumes.mask
        shared_region &= resample(mask.values, mask.affine, mri.affine, mri.values.shape, 0) > 0.5
        notes += [f"the mask: {note}" for note in mask.notes]
        if not same_grid(mask, volumes.mri):
            notes.append("mask and MR have different grids: the mask was resampled onto the MR's")
    cut = np.mean(~shared_region[mri.head])
    if cut == 1:
        raise ValueError("its mask leaves nothing of the head: give the mask of this pair")
    if cut > MOST_CUT:
        notes.append(
            f"{cut:.0%} of the head in the MR lies outside the CT or the mask, and became "
            "background"
        )
    ct = replace(ct, head=ct.head & shared_region)
    mri = replace(mri, head=mri.head & shared_region)
    return ct, mri, notes


def covered_pixels(volume: Volume, stack: AxialStack) -> np.ndarray:
    """Which pixels of a stack lie in a voxel of a volume, bool."""
    pixels = np.indices(stack.values.shape).reshape(3, -1)
    return covered(volume, stack.affine, pixels).reshape(stack.values.shape)


def covered(volume: Volume, affine: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Which points lie in a voxel of a volume, (K,) bool.

    Args:
        volume: on whose grid they may lie.
        affine: of the points, index -> mm.
        index: the points, (3, K).
    """
    to_index = np.linalg.inv(volume.affine) @ affine
    index = to_index[:3, :3] @ index + to_index[:3, 3:]

    beyond = np.array(volume.values.shape)[:, None] - 0.5
    return ((index > -0.5) & (index < beyond)).all(0)


def overlap_notes(ct_head: np.ndarray, mri_head: np.ndarray, affine: np.ndarray) -> list[str]:
    """A sentence on two heads that do not quite overlap.

    Args:
        ct_head, mri_head: (Z, H, W) bool.
        affine: of both, index -> mm.

    Raises:
        ValueError: they hardly overlap.
    """
    overlap = dice(ct_head, mri_head)
    if not overlap > LEAST_OVERLAP:
        raise ValueError(
            f"the heads in CT and MR overlap by {np.nan_to_num(overlap):.2f} (Dice): they are not "
            "registered, or of two people, so register them first"
        )
    middles = [np.argwhere(head).mean(0) for head in (ct_head, mri_head)]
    offset_mm = affine[:3, :3] @ (middles[0] - middles[1])
    distance = float(np.linalg.norm(offset_mm))
    if overlap >= GOOD_OVERLAP and distance <= FAR_MM:
        return []
    right, front, up = offset_mm
    return [
        f"the heads in CT and MR overlap by {overlap:.2f} (Dice), and the CT's middle lies "
        f"{distance:.0f} mm from the MR's ({right:+.0f} to the right, {front:+.0f} to the front, "
        f"{up:+.0f} up): check whether they are registered"
    ]

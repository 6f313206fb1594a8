"""Pairs of scans: CT and MR of one person that lie upon each other, found in a folder and checked.

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
from .axial_slices import AxialStack, axial, axial_like, resample
from .scan_files import Scan, scan_of_file, without_voxel_files
from .volume import MODALITIES, Volume, check_even, corner_indices

CHANNELS = ("0000", "0001")
ROLES = {"mask": {"mask"}, "ct": MODALITY_WORDS["ct"], "mri": MODALITY_WORDS["mri"]}

# A path without its ending: what a pair shares, and the last word.
LAST_WORD = re.compile(r"(.*?)[-_ ./]*([^-_ ./]*)[-_ ./]*", flags=re.DOTALL)

# Overlap (Dice) of the two whole heads, on the slices that both scans show: 0.98 in registered
# phantoms; 0.91 to 0.93, 0.83 to 0.87 and 0.75 to 0.81 after a shift in the plane by 10, 20 and
# 30 mm; still 0.95 after 20 mm up. Below the first number they are refused, below the second named.
LEAST_OVERLAP = 0.8
GOOD_OVERLAP = 0.9

# So far apart, the middles of the two heads are named.
FAR_MM = 4.0

# Grids whose corners lie so near are one.
SAME_GRID_MM = 0.01

# If more of the MR's head than this lies outside of the CT's field, the pair is refused.
MOST_OUTSIDE = 0.5

# If more of the head is cut away than this, it is said. A rim of the skin always is.
MOST_CUT = 0.1


@dataclass(frozen=True)
class Pair:
    """The files of a pair.

    Args:
        name: what their paths share.
        ct, mri: the two scans; of channels, in their order.
        mask: where both are to be looked at, or None.
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

    found, left_out = _by_name(source, ct, mri)
    pairs, notes, alone = [], [], []
    for name, scans in sorted(found.items()):
        roles = ("ct", "mri") if scans["ct"] or scans["mri"] else CHANNELS
        cts, mris, masks = (scans[role] for role in (*roles, "mask"))
        if not (cts and mris):
            alone += [scan.name for of_role in scans.values() for scan in of_role]
        elif max(len(cts), len(mris), len(masks)) > 1:
            notes.append(
                f"left out: {printable(name)}: it has {len(cts)} CT, {len(mris)} MR and "
                f"{len(masks)} mask files, but a pair has one of each; choose them by --ct and "
                "--mri"
            )
        else:
            mask = masks[0] if masks else None
            pairs.append(Pair(name, cts[0], mris[0], mask, is_named=roles is not CHANNELS))

    if alone:
        number = f"{len(alone)} volume{'s' if len(alone) > 1 else ''}"
        notes.append(printable(f"no partner was found for {number}: {listed(sorted(alone))}"))
    notes += left_out_notes(left_out)
    if not pairs:
        raise FileNotFoundError(
            f"{printable(source)} holds no pair (looked for ct and mr in one folder, for _ct and "
            f"_mr, and for _0000 and _0001; {'; '.join(notes) or 'it is empty'}): rename the "
            "files, or find them by --ct PATTERN --mri PATTERN"
        )
    return pairs, notes


def _by_name(
    source: Path, ct: str | None, mri: str | None
) -> tuple[dict[str, dict[str, list[Scan]]], Counter]:
    """Name of a pair -> role -> the scans below a folder that have both; and what is left out."""
    listing = list_files(source)
    left_out = Counter(listing.left_out)
    found = defaultdict(lambda: defaultdict(list))
    for path in without_voxel_files(listing.files):
        name, role = _name_and_role(path.relative_to(source).as_posix(), ct, mri)
        scan = scan_of_file(path, source)
        if not role or not scan.is_file:
            left_out[ending(path)] += 1
        elif scan.synthetic:
            left_out[TRANSLATED] += 1
        else:
            found[name][role].append(scan)
    return found, left_out


def _name_and_role(path: str, ct: str | None, mri: str | None) -> tuple[str, str]:
    """What a path shares with its partner's, and "ct", "mri", "mask", a channel or ""."""
    for role, pattern in (("ct", ct), ("mri", mri)):
        match = re.fullmatch(_expression(pattern), path) if pattern else None
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
    name, _ = _name_and_role(path, None, None)
    return name or stem(path)


def _expression(pattern: str) -> str:
    """A regular expression for a pattern; what `*` and `?` stand for are its groups."""
    signs = {"*": "(.*)", "?": "(.)"}
    return "".join(signs.get(sign, re.escape(sign)) for sign in pattern)


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
        ct, mri = (first, second) if first.modality == "ct" else (second, first)
        return PairedVolumes(ct, mri, mask)
    try:
        return PairedVolumes(pair.ct.read("ct"), pair.mri.read("mri"), mask)
    except ValueError:
        if _are_swapped(pair):
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


def _are_swapped(pair: Pair) -> bool:
    """Whether each of the two can be read as the other, and not by chance: the MR as a CT."""
    try:
        pair.ct.read("mri")
        return pair.mri.read().modality == "ct"
    except ValueError:
        return False


def same_grid(one: Volume, other: Volume) -> bool:
    """Whether two volumes have the same voxels, to a hundredth of a millimetre."""
    if one.values.shape != other.values.shape:
        return False
    apart = one.affine - other.affine
    apart_mm = apart[:3, :3] @ corner_indices(one.values.shape) + apart[:3, 3:]
    return bool(np.abs(apart_mm).max() < SAME_GRID_MM)


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

    in_ct = _shown(volumes.ct, mri)
    outside = np.mean(~in_ct[mri.head])
    if outside > MOST_OUTSIDE:
        raise ValueError(
            f"{outside:.0%} of the head in the MR lies outside the CT: they are not registered, "
            "or hardly show the same, so register them or give a CT of the whole head"
        )
    # Before anything is cut: where only one of the two shows a head, the other lies elsewhere. But
    # a scan may end lower or higher than the other.
    both = in_ct.any((1, 2))
    notes += overlap_notes(ct.head[both], mri.head[both], mri.affine)

    common = in_ct & _shown(volumes.mri, mri)
    if volumes.mask is not None:
        mask = volumes.mask
        common &= resample(mask.values, mask.affine, mri.affine, mri.values.shape, 0) > 0.5
        notes += [f"the mask: {note}" for note in volumes.mask.notes]
        if not same_grid(volumes.mask, volumes.mri):
            notes.append("mask and MR have different grids: the mask was resampled onto the MR's")
    cut = np.mean(~common[mri.head])
    if cut == 1:
        raise ValueError("its mask leaves nothing of the head: give the mask of this pair")
    if cut > MOST_CUT:
        notes.append(
            f"{cut:.0%} of the head in the MR lies outside the CT or the mask, and became "
            "background"
        )
    ct = replace(ct, head=ct.head & common)
    mri = replace(mri, head=mri.head & common)
    return ct, mri, notes


def _shown(volume: Volume, stack: AxialStack) -> np.ndarray:
    """Which pixels of a stack lie in a voxel of a volume, bool."""
    pixels = np.indices(stack.values.shape).reshape(3, -1)
    return covered(volume, stack.affine, pixels).reshape(stack.values.shape)


def covered(volume: Volume, affine: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Which points lie in a voxel of a volume, (K,) bool.

    Args:
        volume: the volume.
        affine: of the points, index -> mm.
        index: the points, (3, K).
    """
    to_index = np.linalg.inv(volume.affine) @ affine
    index = to_index[:3, :3] @ index + to_index[:3, 3:]

    beyond = np.array(volume.values.shape)[:, None] - 0.5
    return ((index > -0.5) & (index < beyond)).all(0)


def overlap_notes(ct_head: np.ndarray, mri_head: np.ndarray, affine: np.ndarray) -> list[str]:
    """A sentence on two heads that do not quite lie upon each other.

    Args:
        ct_head, mri_head: (Z, H, W) bool.
        affine: of both, index -> mm.

    Raises:
        ValueError: they are two heads, or lie elsewhere.
    """
    overlap = dice(ct_head, mri_head)
    if not overlap > LEAST_OVERLAP:
        raise ValueError(
            f"the heads in CT and MR overlap by {np.nan_to_num(overlap):.2f} (Dice): they are not "
            "registered, or of two people, so register them first"
        )
    middles = [np.argwhere(head).mean(0) for head in (ct_head, mri_head)]
    apart = affine[:3, :3] @ (middles[0] - middles[1])
    distance = float(np.linalg.norm(apart))
    if overlap >= GOOD_OVERLAP and distance <= FAR_MM:
        return []
    right, front, up = apart
    return [
        f"the heads in CT and MR overlap by {overlap:.2f} (Dice), and the CT's middle lies "
        f"{distance:.0f} mm from the MR's ({right:+.0f} to the right, {front:+.0f} to the front, "
        f"{up:+.0f} up): check whether they are registered"
    ]

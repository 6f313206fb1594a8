"""Pairs in a folder of slices: the manifest's column `pair` says which CT and MR slice are one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..files import large_tensor
from ..units import HU
from .slices import SliceFile, width_mm
from .unpaired import Truth

Row = Mapping[str, str]

# A side and a modality, as in `slices.FOLDERS`.
Key = tuple[str, str]
SIDES = ("train", "test")


def pair_of(row: Row | None) -> str:
    """What a manifest row calls its pair; "" if it has none."""
    return (row or {}).get("pair", "").strip()


def check_pairs(rows: dict[str, Row], path: Path) -> None:
    """Raise ValueError unless every pair is a CT and an MR slice of one patient on one side.

    Args:
        rows: of a manifest, by file name.
        path: of the manifest.
    """
    members = defaultdict(list)
    for name, row in rows.items():
        if pair_of(row):
            members[pair_of(row)].append(name)

    for pair, names in members.items():
        folders = sorted(name.partition("/")[0] for name in names)
        if folders not in (["trainA", "trainB"], ["testA", "testB"]):
            raise ValueError(
                f"{path}: the pair {pair!r} is {', '.join(names)}: it must be one CT and one MR "
                "slice, both in train or both in test"
            )
        patients = {rows[name]["patient"] for name in names}
        if len(patients) > 1:
            raise ValueError(
                f"{path}: the pair {pair!r} is of {' and of '.join(sorted(patients))}: a pair "
                "shows one patient"
            )


def order_by_pairs(images: dict[Key, list[Path]], rows: dict[Path, Row]) -> None:
    """Bring the MR slices of each side into the order of the CT slices that they are paired with.

    Args:
        images: the slices by (side, modality), changed in place; those without a pair come last.
        rows: their manifest rows.
    """
    for side in SIDES:
        ct = images[side, "ct"]
        place = {pair_of(rows[path]): k for k, path in enumerate(ct) if pair_of(rows[path])}
        images[side, "mri"] = sorted(
            images[side, "mri"], key=lambda path: place.get(pair_of(rows[path]), len(ct))
        )


def are_paired(ct: list[SliceFile], mri: list[SliceFile]) -> bool:
    """Whether every slice of a side has its partner at the same index."""
    pairs = [file.pair for file in ct]
    return all(pairs) and pairs == [file.pair for file in mri]


def check_partners(files: dict[Key, list[SliceFile]]) -> None:
    """Raise ValueError where the two slices of a pair cannot lie upon each other."""
    for side in SIDES:
        partners = {file.pair: file for file in files[side, "mri"] if file.pair}
        for file in files[side, "ct"]:
            if file.pair in partners and not _same_grid(file, partners[file.pair]):
                raise ValueError(
                    f"{file.path} and {partners[file.pair].path} are a pair, but differ in pixels "
                    "or spacing_mm: resample them to one grid, or empty their pair in manifest.csv"
                )


def _same_grid(file: SliceFile, other: SliceFile) -> bool:
    widths = width_mm(file), width_mm(other)
    if None in widths:
        return file.shape == other.shape
    return file.shape == other.shape and abs(widths[0] / widths[1] - 1) < 1e-3


def pairing_notes(files: dict[Key, list[SliceFile]]) -> list[str]:
    """Say so where only some slices of a side have a partner."""
    notes = []
    for side in SIDES:
        ct, mri = files[side, "ct"], files[side, "mri"]
        paired = sum(bool(file.pair) for file in ct)
        if paired and not are_paired(ct, mri):
            notes.append(
                f"{paired} of {len(ct)} CT and {len(mri)} MR slices in {side} have a pair, so it "
                "counts as unpaired"
            )
    return notes


def truths_of_pairs(
    files: dict[Key, list[SliceFile]], images: dict[Key, Tensor]
) -> dict[str, Truth | None]:
    """The CT of each side as it was measured; None if the side is unpaired or not in HU.

    Args:
        files: the slices by (side, modality).
        images: (N, 1, H, W) each, before they are scaled; copied.
    """
    truths = {}
    for side in SIDES:
        ct, mri = files[side, "ct"], files[side, "mri"]
        truths[side] = None
        if are_paired(ct, mri) and ct[0].unit == HU.unit:
            measured = images[side, "ct"][:, 0]
            copy = large_tensor(tuple(measured.shape), torch.float32)
            truths[side] = Truth(np.asarray(copy.copy_(measured)))
    return truths

"""The one form that all scans take: `UnpairedScans`, tensors split into train and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from ..masks import ct_head_mask
from ..units import Scale
from .phantom import SyntheticPatients
from .slices import UNKNOWN


@dataclass(frozen=True, eq=False)
class Truth:
    """What translations of real pairs are scored against.

    `SyntheticPatients` has the same two fields, and more.

    Args:
        ct_hu: (N, H, W) float32, the measured CT, not clipped.
    """

    ct_hu: np.ndarray

    @cached_property
    def head(self) -> np.ndarray:
        """Where the head is in the CT, (N, H, W) bool."""
        return ct_head_mask(self.ct_hu)


@dataclass(frozen=True)
class Split:
    """The slices of one side of the split, train or test.

    Args:
        ct: (N, 1, H, W), float32 in [-1, 1].
        mri: (M, 1, H, W), float32 in [-1, 1].
        ct_names: a name for each CT slice.
        mri_names: a name for each MR slice.
        ct_patients: the patient of each CT slice.
        mri_patients: the patient of each MR slice.
        truth: of pairs, what paired metrics need; None where the CT is not in HU.
        positions: the height of each CT and of each MR slice within what was scanned, 0 to 1, or
            None if it is not known.
        paired: whether ct[i] and mri[i] are the same slice of the same patient.
    """

    ct: Tensor
    mri: Tensor
    ct_names: tuple[str, ...]
    mri_names: tuple[str, ...]
    ct_patients: tuple[str, ...]
    mri_patients: tuple[str, ...]
    truth: SyntheticPatients | Truth | None = None
    positions: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    paired: bool = False

    def __repr__(self) -> str:
        return f"Split of {pixels_in_words(self.ct)} pixels: {counts_in_words(self)}"


@dataclass(frozen=True)
class UnpairedScans:
    """CT and MR slices, split into train and test; unpaired unless `Split.paired`.

    Nothing downstream asks where they came from.

    Args:
        name: of the data set.
        train: slices to train on.
        test: slices to test on.
        ct_scale: turns the CT tensors back into its unit; `HU`, or `GREY` for 8-bit pictures.
        mri_scales: one scale per MR patient.
        spacing_mm: pixel size of the CT, None if unknown.
        notes: one sentence for everything that was ignored, resized, clipped or converted.
    """

    name: str
    train: Split
    test: Split
    ct_scale: Scale
    mri_scales: dict[str, Scale]
    spacing_mm: float | None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        spacing = f"{self.spacing_mm:.2f} mm" if self.spacing_mm else "unknown size"
        pixels = f"{pixels_in_words(self.train.ct)} pixels of {spacing}"
        lines = [
            f"{self.name}: {pixels}, CT in {self.ct_scale.unit}",
            f"  train: {counts_in_words(self.train)}",
            f"  test: {counts_in_words(self.test)}",
        ]
        return "\n".join(lines)

    def describe(self) -> str:
        """Summarise the data set: counts, patients, size, units and every note."""
        notes = [f"  note: {note}" for note in self.notes]
        return "\n".join([repr(self), *notes])


def pixels_in_words(images: Tensor) -> str:
    """The height and width of images."""
    height, width = images.shape[-2:]
    return f"{height} x {width}"


def counts_in_words(split: Split) -> str:
    """How many slices of how many patients there are, and whether they are paired."""
    ct = f"{len(split.ct)} CT slices of {count_patients(split.ct_patients)} patient(s)"
    mri = f"{len(split.mri)} MR slices of {count_patients(split.mri_patients)} patient(s)"
    pairing = "unpaired"
    if split.paired:
        pairing = "paired" if split.truth is None else "paired, with truth"
    return f"{ct}, {mri}; {pairing}"


def count_patients(patients: Sequence[str]) -> int | str:
    """How many patients there are, or "unknown"."""
    return "unknown" if UNKNOWN in patients else len(set(patients))

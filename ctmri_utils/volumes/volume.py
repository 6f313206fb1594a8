"""A scan with its place in space: what readers check, and what writers need."""

from __future__ import annotations

import itertools
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..discovery import EXPECTED_ERROR, SYNTHETIC_LABEL, looks_like_labels
from ..evaluation.checked_inputs import check_hu
from ..files import atomic_write
from ..units import AIR_HU, MODALITIES, STORED_HU_OFFSET

# DICOM and ITK count millimetres towards the patient's left and back, we towards right and front.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])

# Nothing has a lower density: scanners mark by it what was not measured.
LOWEST_HU = -float(STORED_HU_OFFSET)

# MR magnitudes never reach so low, and a CT always holds air.
CT_REACHES = -500.0

# Fat is the darkest tissue of a CT. Interpolation lets MR undershoot zero by this share.
FAT_HU = -50.0
RINGING = 0.05

# Measured values are smaller than this.
IMPOSSIBLE_VALUE = 1e9

# The largest volume has 1024 slices of 512 x 512, which are 1 GB as float32.
MOST_VOXELS = 2**28


@dataclass(frozen=True)
class Volume:
    """A scan in its own grid.

    Args:
        values: (I, J, K) float32, HU for CT, arbitrary units for MR.
        affine: (4, 4), index (i, j, k) -> mm towards the patient's right, front and head (RAS+, as
            in NIfTI). It may be oblique or, after a gantry tilt, sheared.
        modality: "ct" or "mri".
        notes: a sentence for each thing that was noticed or changed while reading.
        space: NIfTI's code of the space that the millimetres belong to.
        synthetic: whether a network made it.
        warnings: of a translation, a sentence for everything that the networks have not seen in
            the scan that it was made from, see `input_checks`; of a map of expected errors, what
            it was calibrated on.
        heights: (K,), for slices that lie unevenly: where each lies along the third axis, in steps
            of the affine, from 0 to K - 1; None if they lie evenly.
        error_map: whether the values are no scan, but the error to expect of a translation into
            this modality, in its unit.

    Raises:
        ValueError: another modality, not one volume, a volume that is too large, an affine that
            cannot be a scan's, or heights that do not rise.
    """

    values: np.ndarray
    affine: np.ndarray
    modality: str
    notes: tuple[str, ...] = ()
    space: int = 1
    synthetic: bool = False
    warnings: tuple[str, ...] = ()
    heights: np.ndarray | None = None
    error_map: bool = False

    def __post_init__(self):
        if self.modality not in MODALITIES:
            raise ValueError(f'modality {self.modality!r} is not known here: choose "ct" or "mri"')
        check_shape(self.values.shape)
        if not is_plausible(self.affine):
            raise ValueError(
                "the position of its voxels in space is not plausible (voxels from 0.01 to 100 mm "
                "are expected, along three directions): export it again from the scanner's files"
            )
        if self.heights is not None and not heights_rise(self.heights, self.values.shape[2]):
            raise ValueError(
                "the heights of its slices do not rise from 0 to the number of slices - 1: sort "
                "the slices, and give the mean distance as the affine's step"
            )

    @property
    def label(self) -> str:
        """The label in the header of its file, if a network made it."""
        kind = EXPECTED_ERROR if self.error_map else SYNTHETIC_LABEL
        return kind.format(MODALITIES[self.modality])

    @property
    def background(self) -> float:
        """What surrounds the head: air, or the darkest MR value."""
        if self.modality == "ct":
            return AIR_HU
        return float(self.values.min())

    def describe(self) -> str:
        """One line on modality and size, then the warnings and the notes."""
        shape = " x ".join(str(length) for length in self.values.shape)
        sides = " x ".join(f"{side:.2f}" for side in voxel_sides_mm(self.affine))

        lines = [f"{MODALITIES[self.modality]}, {shape} voxels of {sides} mm"]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


@contextmanager
def quiet_readers() -> Iterator[None]:
    """Inside the block, pydicom and nibabel neither warn nor log.

    Their messages quote what they read, and that can be a patient's name.
    """
    loggers = [logging.getLogger(name) for name in ("pydicom", "nibabel.global")]
    levels = [logger.level for logger in loggers]

    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def voxel_sides_mm(affine: np.ndarray) -> np.ndarray:
    """The distance in mm between neighbouring voxels along each index, (3,)."""
    return np.linalg.norm(affine[:3, :3], axis=0)


def corner_indices(shape: tuple[int, ...]) -> np.ndarray:
    """The indices of a volume's eight corner voxels, (3, 8)."""
    return np.array(list(itertools.product(*[(0, length - 1) for length in shape]))).T


def is_plausible(affine: np.ndarray) -> bool:
    """Whether an affine can be a scan's: three directions, voxels of 0.01 to 100 mm, near."""
    if not np.isfinite(affine).all():
        return False

    sides = voxel_sides_mm(affine)
    if not ((sides > 0.01) & (sides < 100)).all():
        return False

    three_directions = abs(np.linalg.det(affine[:3, :3])) > 0.1 * sides.prod()
    near = np.abs(affine).max() < 1e5
    return bool(three_directions and near)


def heights_rise(heights: np.ndarray, count: int) -> bool:
    """Whether there are `count` heights, rising from 0 to count - 1."""
    return (
        heights.shape == (count,)
        and bool((np.diff(heights) > 0).all())
        and np.allclose(heights[[0, -1]], [0, count - 1])
    )


def check_even(volume: Volume, reason: str) -> None:
    """Raise ValueError for slices that lie unevenly; the reason also says what to do."""
    if volume.heights is not None:
        raise ValueError(f"its slices lie unevenly, and {reason}")


def check_shape(shape: tuple[int, ...]) -> None:
    """Raise ValueError unless it is the shape of one volume that fits into memory."""
    sides = " x ".join(str(length) for length in shape)

    if len(shape) != 3:
        raise ValueError(
            f"it has {len(shape)} dimensions ({sides}), but a volume has 3: "
            "save its time points, echoes or directions as separate volumes"
        )
    if min(shape) < 1 or math.prod(shape) > MOST_VOXELS:
        raise ValueError(
            f"it claims {sides} voxels; 1 to {MOST_VOXELS} are read: it is damaged, or crop it"
        )


def three_dimensions(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without trailing ones beyond three dimensions, or filled up with them."""
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape + (1,) * (3 - len(shape))


def measured_volume(
    values: np.ndarray, affine: np.ndarray, modality: str | None, labels: bool
) -> Volume:
    """A volume of what stands in a file, which is `cleaned`.

    Args:
        values: (I, J, K), HU for CT; may be changed in place.
        affine: as in `Volume`.
        modality: "ct", "mri", or None to judge by the values.
        labels: False refuses what looks like a mask or label map.

    Raises:
        ValueError: as `cleaned` and `Volume`, or they are labels.
    """
    if not labels and looks_like_labels(np.nan_to_num(values)):
        raise ValueError(
            "it holds a few whole numbers in large pieces, as a mask or label map does: it is no "
            "scan"
        )
    values, modality, notes = cleaned(values, modality)
    return Volume(values, affine, modality, tuple(notes))


def cleaned(values: np.ndarray, modality: str | None) -> tuple[np.ndarray, str, list[str]]:
    """Replace what was not measured, and recognise the modality where it is not given.

    NaN, infinity and the like become -1024 HU in CT, as what was not measured, and in MR 0 or, if
    there are negative values, the smallest. CT below -1024 HU becomes -1024.

    Args:
        values: any shape, HU for CT; may be changed in place.
        modality: "ct", "mri", or None to judge by the values.

    Returns:
        The values as float32, the modality, and notes on what was changed or assumed.

    Raises:
        ValueError: no finite value, a CT that is not in HU, or an MR that looks like a CT.
    """
    values = np.asarray(values, np.float32)

    # NaN compares as false, so it counts as broken.
    broken = ~(np.abs(values) < IMPOSSIBLE_VALUE)
    if broken.all():
        raise ValueError("it holds no finite number: export it again")
    measured = values[~broken] if broken.any() else values
    lowest, highest = float(measured.min()), float(measured.max())

    modality, notes = recognise_modality(modality, lowest, highest, has_holes=bool(broken.any()))
    if modality == "ct":
        check_hu("CT", measured, np.ones(measured.shape, bool), brightest=0)
    values[broken] = LOWEST_HU if modality == "ct" else min(lowest, 0)

    if modality == "ct":
        below = (values < LOWEST_HU).mean()
        if below:
            notes.append(
                f"{below:.1%} of the voxels are below {LOWEST_HU:.0f} HU, not measured, and were "
                "set to it"
            )
        np.maximum(values, LOWEST_HU, out=values)

    if broken.any():
        smallest = "the smallest value" if lowest <= 0 else "0"
        background = "-1024 HU, as not measured" if modality == "ct" else smallest
        notes.append(f"{broken.sum()} voxels are not finite numbers and were set to {background}")
    return values, modality, notes


def recognise_modality(
    modality: str | None, lowest: float, highest: float, has_holes: bool
) -> tuple[str, list[str]]:
    """The modality, by the values where it is not given, and a note on that."""
    # Without its air, a CT still holds fat; MR magnitudes are not negative but for small ringing.
    looks_like_ct = lowest <= CT_REACHES
    may_be_ct = lowest <= FAT_HU and lowest < -RINGING * highest

    if modality == "mri" and looks_like_ct:
        raise ValueError(
            f"its values reach down to {lowest:.0f}, like those of a CT: it is not a "
            "magnitude image of MR"
        )
    if modality is not None:
        return modality, []

    if may_be_ct and not looks_like_ct and not has_holes:
        raise ValueError(
            f"its values are {lowest:.0f} to {highest:.0f}, too low for MR and without the air of "
            "a CT, as after clipping to a window: export it in the full range, or say what it is"
        )
    modality = "ct" if looks_like_ct or may_be_ct else "mri"
    note = (
        f"the file does not say what it is; taken for {MODALITIES[modality]}, because its values "
        f"are {lowest:.0f} to {highest:.0f}"
    )
    return modality, [note]


def as_int16(volume: Volume) -> np.ndarray:
    """The values as whole numbers for a file.

    Returns:
        (I, J, K) int16.

    Raises:
        ValueError: rounding would lose the image, because values lie beyond int16, or because an
            MR has less than 100 steps.
    """
    low, high = float(volume.values.min()), float(volume.values.max())

    beyond = low < -32768 or high > 32767
    is_mri = volume.modality == "mri" and not volume.error_map
    too_coarse = is_mri and high - low < 100
    if beyond or too_coarse:
        raise ValueError(
            f"values from {low:.4g} to {high:.4g} do not survive rounding to 16-bit whole numbers: "
            "rescale them first"
        )
    return np.rint(volume.values).astype(np.int16)


def check_free(path: Path) -> None:
    """Raise FileExistsError where something exists; an empty folder counts as nothing."""
    is_empty = path.is_dir() and not any(path.iterdir())
    if not is_empty and (path.exists() or path.is_symlink()):
        raise FileExistsError(f"{path} exists already: choose another output, or move it away")


@contextmanager
def atomic_create(path: str | Path) -> Iterator[Path]:
    """As `atomic_write`, but nothing is ever overwritten.

    Raises:
        FileExistsError: `path` exists, see `check_free`.
    """
    path = Path(path)
    check_free(path)
    if path.is_dir():
        path.rmdir()

    with atomic_write(path) as temporary:
        yield temporary

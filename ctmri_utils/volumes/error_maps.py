"""The error to expect of a translated volume: how unsteady the translation is, in HU.

Slightly moved copies of a slice should be translated alike. How far they disagree is turned into an
expected absolute error, `a + b * disagreement`, fitted on synthetic patients, whose errors are
known (see `evaluation.uncertainty`). Real heads are other patients: there it says where to look,
not how large an error is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from ..cyclegan.model import Translator
from ..evaluation.uncertainty import UncertaintyMap, disagreement
from ..scans.datasets import phantom_scans
from ..units import other_modality
from .axial_slices import FIELD_MM
from .network_slices import SCALES, in_batches, network_slices, slice_grid, translate_slices
from .volume import Volume

# The map is calibrated on this many synthetic patients of each family, one slice each, and checked
# on as many others.
PATIENTS = 10
FAMILIES = ("formula", "atlas")
SEED = 41
DISAGREEMENT = "disagreement"


@dataclass(frozen=True)
class HeldOut:
    """How a calibration fares on synthetic patients of one family that it has not seen.

    Args:
        true: mean absolute error inside the head.
        expected: mean of the expected error there.
        below_twice: share of the pixels whose error is at most twice the expected one.
    """

    true: float
    expected: float
    below_twice: float


@dataclass(frozen=True)
class Calibration:
    """Turns disagreement into an expected error, for one model and direction.

    Args:
        to: "ct" or "mri", what the model makes.
        uncertainty_map: of the sign "disagreement", in the unit of what is made.
        patients: how many synthetic patients of each family it was fitted on.
        held_out: by family, for as many others.
    """

    to: str
    uncertainty_map: UncertaintyMap
    patients: int
    held_out: dict[str, HeldOut]

    def describe(self) -> str:
        """One line: what it was fitted on, and how it fares on others."""
        unit = SCALES[self.to].unit
        results = []
        for family, held_out in self.held_out.items():
            results.append(
                f"{family} expects a mean error of {held_out.expected:.0f} {unit} where it is "
                f"{held_out.true:.0f}, with {held_out.below_twice:.0%} of the pixels below twice "
                "the expected one"
            )
        return (
            f"calibrated on phantoms: fitted on {len(self.held_out) * self.patients} synthetic "
            f"patients; on as many others, {' and '.join(results)}; expect larger errors in real "
            "heads"
        )


def calibrate(
    model: Translator,
    to: str,
    size: int | None = None,
    spacing_mm: float | None = None,
    patients: int = PATIENTS,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Calibration:
    """Learn on synthetic patients what a model's disagreement with itself says of its errors.

    Args:
        model: as in `translate_volume`.
        to: "ct" or "mri", what it makes.
        size: pixels per side of the slices, as in `translate_volume`.
        spacing_mm: their pixel size, likewise.
        patients: how many of each family of phantoms to calibrate on; as many others check it.
        progress: wraps the loop over families.

    Raises:
        ValueError: as `slice_grid`.
    """
    size, spacing_mm, _ = slice_grid(model, to, size, spacing_mm)
    fov_mm = size * spacing_mm if spacing_mm else FIELD_MM
    for_fit, for_check = [], {}
    for family in progress(FAMILIES):
        arrays = signs_and_errors(model, to, size, fov_mm, family, 2 * patients)
        for_fit.append([array[:patients] for array in arrays])
        for_check[family] = [array[patients:] for array in arrays]

    signs, errors, heads = (np.concatenate(arrays) for arrays in zip(*for_fit, strict=True))
    uncertainty_map = UncertaintyMap.calibrated({DISAGREEMENT: signs}, errors, heads)
    held_out = {}
    for family, (signs, errors, heads) in for_check.items():
        expected = uncertainty_map({DISAGREEMENT: signs})[heads]
        true = np.abs(errors[heads])
        below_twice = float((true <= 2 * expected).mean())
        held_out[family] = HeldOut(float(true.mean()), float(expected.mean()), below_twice)
    return Calibration(to, uncertainty_map, patients, held_out)


def signs_and_errors(
    model: Translator, to: str, size: int, fov_mm: float, family: str, patients: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Disagreement, error and head of synthetic patients, (N, H, W) each."""
    options = {"anatomy": family, "mri_contrast": "varied", "fov_mm": fov_mm}
    split = phantom_scans(1, patients, size, SEED, **options).test
    images, truth = (split.mri, split.ct) if to == "ct" else (split.ct, split.mri)

    scale = SCALES[to]
    translated = translate_slices(model, images, to)
    errors = scale.from_network(translated) - scale.from_network(truth[:, 0].numpy())
    return disagreement_of(model, images, to), errors, split.truth.head


def disagreement_of(
    model: Translator, images: Tensor, to: str, progress: Callable[[Iterable], Iterable] = iter
) -> np.ndarray:
    """`evaluation.uncertainty.disagreement` of many slices, (N, H, W), a batch at a time."""

    def of_batch(part: Tensor) -> np.ndarray:
        return disagreement([model], part, to, SCALES[to], SEED)

    return in_batches(model, images, of_batch, progress)


def expected_error(
    model: Translator,
    volume: Volume,
    calibration: Calibration,
    size: int | None = None,
    spacing_mm: float | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Volume:
    """The absolute error to expect of a volume's translation, on the grid of the volume.

    Args:
        model: as in `translate_volume`.
        volume: the scan that is translated.
        calibration: of this model and direction, see `calibrate`.
        size: as in `translate_volume`.
        spacing_mm: likewise.
        progress: wraps the loop over batches.

    Returns:
        A map of expected errors, see `Volume`: HU of a CT, MR units of an MR, and 0 outside the
        head.

    Raises:
        ValueError: as `translate_volume`, or the calibration is of the other direction.
    """
    to = other_modality(volume.modality)
    if calibration.to != to:
        raise ValueError(
            f"the calibration is for making {calibration.to}, and this scan becomes {to}: "
            "calibrate for it"
        )
    stack, images, _ = network_slices(model, volume, size, spacing_mm)
    signs = disagreement_of(model, images, to, progress)
    expected = calibration.uncertainty_map({DISAGREEMENT: signs})
    expected = np.where(stack.head_and_rim, expected, 0).astype(np.float32)
    return replace(
        volume,
        values=stack.back_onto(volume, expected, 0),
        modality=to,
        synthetic=True,
        error_map=True,
        notes=(),
        warnings=(calibration.describe(),),
    )

"""Whole volumes through a trained translator; `translation_files` does it for files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage

from ..units import HU, Scale, mri_scale
from .axial_slices import AxialStack, axial
from .input_checks import check_input
from .volume import MODALITIES, Volume, check_even

OTHER = {"ct": "mri", "mri": "ct"}

# MR has no unit of its own: 12 bits, as scanners store it.
TRANSLATED_MRI = Scale(0.0, 4095.0, "MR unit")

# Of what the networks make, in the range of the networks.
SCALES = {"ct": HU, "mri": TRANSLATED_MRI}

# Pixels per side for networks without a contract.
ASSUMED_SIZE = 128

# Memory for the activations of one batch, on the CPU.
BATCH_BYTES = 2**29

# A generator holds as many images of its largest size at once, per slice: measured, 3.5 to 5.
IMAGES_AT_ONCE = 5
MOST_SLICES_AT_ONCE = 32


def translate_volume(
    model,
    volume: Volume,
    size: int | None = None,
    spacing_mm: float | None = None,
    smooth_mm: float = 0.0,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Volume:
    """A CT made from an MR volume, or an MR from a CT, on the very grid of the volume.

    The head is found in the volume itself; what lies outside is background before and after the
    network.

    Args:
        model: anything with `translate(images, to)`, a CycleGAN for example. Its `contract`, if it
            has one, says which slices it knows.
        volume: the scan.
        size: pixels per side of the network's slices, see `axial`; None as the contract says, and
            128 without one.
        spacing_mm: their pixel size, see `axial`; None likewise.
        smooth_mm: SD of a Gaussian across the slices of the result.
        progress: wraps the loop over batches.

    Returns:
        The translation: CT in HU, -1000 to 1000, MR from 0 to 4095. Its warnings name what the
        networks have not seen, see `input_checks`.

    Raises:
        ValueError: there is no head, it is a scan that the networks cannot know, a size that
            contradicts the contract, or the smoothing is none from 0 to 100 mm, or across slices
            that lie unevenly.

    Example:
        >>> import numpy as np
        >>> from ctmri_utils import Volume, synthetic_patients, trained_translator, translate_volume
        >>> patient = synthetic_patients(1, seed=2026, slices=12)  # 5 mm apart
        >>> affine = np.diag([-3.4, -3.4, 5.0, 1.0])
        >>> mri = Volume(patient.mri[0].T, affine, "mri")
        >>> model, source = trained_translator("heads", "laptop", seed=2026)
        >>> ct = translate_volume(model, mri)
        >>> ct.modality, ct.values.shape
        ('ct', (64, 64, 12))
    """
    if not 0 <= smooth_mm <= 100:
        raise ValueError(f"smoothing by {smooth_mm:g} mm is out of range: choose 0 to 100")

    to = OTHER[volume.modality]
    if smooth_mm:
        check_even(volume, "they are smoothed only where even: leave the smoothing out")
    slices = network_slices(model, volume, size, spacing_mm)
    stack, images = slices.stack, slices.images
    # What a network painted may be odd in any way.
    warnings = () if volume.synthetic else check_input(volume, stack)

    at_once = batch_size(model, images.shape[-1])
    batches = [
        model.translate(images[first : first + at_once], to)
        for first in progress(range(0, len(images), at_once))
    ]
    result = torch.cat(batches)[:, 0].numpy()  # (Z, size, size)

    if smooth_mm:
        sd_slices = smooth_mm / stack.spacing_mm[0]
        result = ndimage.gaussian_filter1d(result, sd_slices, axis=0, mode="nearest")
    scale = SCALES[to]
    result = scale.from_network(np.where(stack.head_and_rim, result, -1)).astype(np.float32)
    return replace(
        volume,
        values=stack.back_onto(volume, result, scale.low),
        modality=to,
        notes=(*volume.notes, *stack.notes, *slices.notes),
        synthetic=True,
        warnings=warnings,
    )


@dataclass(frozen=True)
class NetworkSlices:
    """A volume as a model takes it.

    Args:
        stack: its axial slices.
        images: the same in the range of the networks, background outside the head, (Z, 1, H, W).
        notes: on what was assumed of the model.
    """

    stack: AxialStack
    images: torch.Tensor
    notes: tuple[str, ...]


def network_slices(
    model, volume: Volume, size: int | None = None, spacing_mm: float | None = None
) -> NetworkSlices:
    """Turn a volume into the slices that a model translates.

    The arguments and errors are those of `translate_volume`.
    """
    size, spacing_mm, notes = slice_grid(model, OTHER[volume.modality], size, spacing_mm)
    stack = axial(volume, size, spacing_mm)
    scale = HU if volume.modality == "ct" else mri_scale(stack.values, stack.head)
    values = np.where(stack.head_and_rim, scale.to_network(stack.values), -1)
    return NetworkSlices(stack, torch.from_numpy(values.astype(np.float32))[:, None], notes)


def slice_grid(
    model, to: str, size: int | None, spacing_mm: float | None
) -> tuple[int, float | None, tuple[str, ...]]:
    """Pixels per side and pixel size of the slices that a model translates, see `axial`, and notes.

    Raises:
        ValueError: they contradict the model's contract, or it does not make `to` of a volume.
    """
    contract = getattr(model, "contract", None)
    if contract is None and size is None:
        note = (
            f"the weights do not say which slices they know, and {ASSUMED_SIZE} x {ASSUMED_SIZE} "
            "pixels were assumed: another size changes the result"
        )
        return ASSUMED_SIZE, spacing_mm, (note,)
    if contract is None:
        return size, spacing_mm, ()

    contract.check_slices(size, spacing_mm)
    if to not in contract.makes:
        made = " and ".join(MODALITIES[modality] for modality in contract.makes)
        raise ValueError(
            f"these weights make {made}, not {MODALITIES[to]}: choose other weights for "
            f"{MODALITIES[OTHER[to]]}"
        )
    if contract.ct_unit != HU.unit:
        raise ValueError(
            f"these weights know CT in {contract.ct_unit}s, as in pictures, but volumes are in HU: "
            "train on data in HU"
        )
    return contract.size, spacing_mm or contract.pixel_mm, ()


def batch_size(model, size: int) -> int:
    """How many slices of size x size fit into memory at once, 1 to 32.

    They may take half of what the GPU has free, or 512 MB on the CPU.
    """
    first_weights = next(model.parameters())  # (ngf, 1, 7, 7)
    if first_weights.is_cuda:
        budget = torch.cuda.mem_get_info(first_weights.device)[0] // 2
    else:
        budget = BATCH_BYTES

    # The largest images inside the generator have ngf channels.
    largest_bytes = first_weights.shape[0] * size**2 * first_weights.element_size()
    return int(np.clip(budget // (IMAGES_AT_ONCE * largest_bytes), 1, MOST_SLICES_AT_ONCE))

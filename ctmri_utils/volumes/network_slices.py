"""Volumes as a trained translator takes them: its slices, its grey values, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from ..cyclegan.model import Translator
from ..units import HU, MODALITIES, Scale, mri_scale, other_modality
from .axial_slices import AxialStack, axial
from .volume import Volume

# MR has no unit of its own: 12 bits, as scanners store it.
TRANSLATED_MRI = Scale(0.0, 4095.0, "MR unit")

# The scales that turn translations from the range of the networks into HU and MR units.
SCALES = {"ct": HU, "mri": TRANSLATED_MRI}

# Networks without a contract get slices with this many pixels per side.
ASSUMED_SIZE = 128

# On the CPU, the activations of one batch may take this much memory.
BATCH_BYTES = 2**29

# A generator holds this many images of its largest size at once, per slice: measured, 3.5 to 5.
IMAGES_AT_ONCE = 5
MOST_SLICES_AT_ONCE = 32


def network_slices(
    model: Translator, volume: Volume, size: int | None = None, spacing_mm: float | None = None
) -> tuple[AxialStack, Tensor, tuple[str, ...]]:
    """Turn a volume into the slices that a model translates.

    The arguments and errors are those of `translate_volume`.

    Returns:
        The axial slices; the same in the range of the networks, background outside the head,
        (Z, 1, size, size) float32 in [-1, 1]; and notes on what was assumed of the model.
    """
    size, spacing_mm, notes = slice_grid(model, other_modality(volume.modality), size, spacing_mm)
    stack = axial(volume, size, spacing_mm)
    scale = HU if volume.modality == "ct" else mri_scale(stack.values, stack.head)
    values = np.where(stack.head_and_rim, scale.to_network(stack.values), -1)
    return stack, torch.from_numpy(values.astype(np.float32))[:, None], notes


def slice_grid(
    model: Translator, to: str, size: int | None = None, spacing_mm: float | None = None
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
        outputs = " and ".join(MODALITIES[modality] for modality in contract.makes)
        raise ValueError(
            f"these weights make {outputs}, not {MODALITIES[to]}: choose other weights for "
            f"{MODALITIES[other_modality(to)]}"
        )
    if contract.ct_unit != HU.unit:
        raise ValueError(
            f"these weights know CT in {contract.ct_unit}s, as in pictures, but volumes are in HU: "
            "train on data in HU"
        )
    return contract.size, spacing_mm or contract.pixel_mm, ()


def check_one_channel(model: Translator, weights: str) -> None:
    """Raise ValueError, which names the weights, for networks of several channels."""
    channels = max(model.architecture.ct_channels, model.architecture.mri_channels)
    if channels > 1:
        raise ValueError(
            f"{weights} are for slices of {channels} channels: choose weights for 1, a slice at a "
            "time"
        )


def translate_slices(
    model: Translator, images: Tensor, to: str, progress: Callable[[Iterable], Iterable] = iter
) -> np.ndarray:
    """Translate slices (N, 1, H, W) in [-1, 1]; the result is (N, H, W), in the same range."""

    def of_batch(part: Tensor) -> np.ndarray:
        return model.translate(part, to).cpu().numpy()

    return in_batches(model, images, of_batch, progress)[:, 0]


def in_batches(
    model: Translator,
    images: Tensor,
    of_batch: Callable[[Tensor], np.ndarray],
    progress: Callable[[Iterable], Iterable] = iter,
) -> np.ndarray:
    """Apply a function to many slices, as many at a time as fit into memory.

    Args:
        model: the translator that the function calls; its size decides how many fit.
        images: (N, 1, H, W).
        of_batch: the function, of a part of the images.
        progress: wraps the loop over batches.
    """
    at_once = batch_size(model, images.shape[-1])
    firsts = progress(range(0, len(images), at_once))
    return np.concatenate([of_batch(images[first : first + at_once]) for first in firsts])


def batch_size(model: Translator, size: int) -> int:
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

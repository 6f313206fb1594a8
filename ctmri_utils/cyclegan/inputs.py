"""What `fit` refuses, and how a run names its slices."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch

from ..machine import cpu_lacks_bf16
from ..settings import Training
from .batches import CT, MRI, Slices, UnpairedBatches
from .model import CycleGAN
from .remedies import LOSSES

# The weights of `Objective`, by which a loss is switched on.
LOSS_WEIGHTS = ("adversarial", "cycle_ct", "cycle_mri", "identity", *LOSSES)

# Interpolation in float32 may leave slices outside of [-1, 1] by as much.
ROUNDING = 1e-3


def check_inputs(
    model: CycleGAN, slices: Slices, training: Training, validate: Callable | None
) -> None:
    """Raise ValueError, in one sentence, unless model, slices and settings fit together."""
    if not isinstance(model, CycleGAN):
        raise ValueError(f"a {type(model).__name__} cannot be trained: pass a CycleGAN")
    if not (isinstance(getattr(slices, "ct", None), torch.Tensor) and hasattr(slices, "mri")):
        raise ValueError(
            f"a {type(slices).__name__} holds no slices to train on: pass the train side of loaded "
            "scans (scans.train), or tensors in a batches.Slices"
        )
    if not any(getattr(model.objective, name) for name in LOSS_WEIGHTS):
        raise ValueError("all weights of the losses are 0: give at least one of them a weight")
    if not training.steps:
        raise ValueError("steps=0 trains nothing: say how many steps the whole training has")

    check_shape("ct", slices.ct, model.architecture.ct_channels)
    check_shape("mri", slices.mri, model.architecture.mri_channels)
    check_names("ct", slices.ct_names, len(slices.ct))
    check_names("mri", slices.mri_names, len(slices.mri))
    check_sampling(model, slices, training)

    objective = model.objective
    has_metric = validate or objective.cycle_ct or objective.cycle_mri
    if training.lr_policy == "plateau" and not has_metric:
        raise ValueError(
            'lr_policy="plateau" watches the cycle loss, and there is none: pass validate, or '
            "choose another policy"
        )


def check_shape(modality: str, images: torch.Tensor, channels: int) -> None:
    if images.ndim != 4 or images.shape[1] != channels or len(images) == 0:
        raise ValueError(
            f"{modality} is of shape {tuple(images.shape)} and should be (N, {channels}, H, W), N "
            f"at least 1: give such slices, or build the model with other {modality}_channels"
        )


def check_names(modality: str, names: Sequence[str], count: int) -> None:
    if names and len(names) != count:
        raise ValueError(
            f"{modality}_names has {len(names)} names for {count} slices: give one for each"
        )


def check_numbers(**numbers: int | None) -> None:
    """Raise ValueError unless each is a whole number from 0 on (save_every: from 1 on), or None."""
    for name, value in numbers.items():
        least = 1 if name == "save_every" else 0
        optional = value is None and name != "seed"
        if not optional and (type(value) is not int or value < least):
            raise ValueError(f"{name}={value!r} should be a whole number of at least {least}")


def check_sampling(model: CycleGAN, slices: Slices, training: Training) -> None:
    """Raise ValueError where a loss or a sampling needs what the slices do not have."""
    counts = [len(slices.ct), len(slices.mri)]
    if training.sampling == "paired" and not (slices.paired and counts[0] == counts[1]):
        raise ValueError(
            'sampling="paired" needs CT and MR of the same slices of the same patients, and these '
            'are not: choose "random"'
        )

    heights = [len(heights) for heights in slices.positions or ()]
    if training.sampling == "position" and heights != counts:
        raise ValueError(
            'sampling="position" needs the height of every slice, and this set does not say it: '
            'choose "random"'
        )

    supervised = model.objective.supervised
    if supervised and training.sampling != "paired":
        raise ValueError(
            f'supervised={supervised:g} needs pairs, and sampling="{training.sampling}" gives '
            'none: set sampling = "paired" with paired data, or supervised = 0'
        )


def check_finite(slices: Slices) -> None:
    """Raise ValueError, naming the slice, if one is not finite or not in [-1, 1]."""
    for modality in (CT, MRI):
        images = (slices.ct, slices.mri)[modality]
        for i, image in enumerate(images):
            if not image.isfinite().all():
                raise ValueError(
                    f"{MODALITY_NAMES[modality]} slice {slice_name(slices, modality, i)} holds "
                    "values that are not finite: remove or repair it before training"
                )
            if image.abs().max() > 1 + ROUNDING:
                raise ValueError(
                    f"{MODALITY_NAMES[modality]} slice {slice_name(slices, modality, i)} reaches "
                    f"from {image.min():.4g} to {image.max():.4g} and should be in [-1, 1]: scale "
                    "it as `units.HU.to_network` does"
                )


def check_precision(precision: str, device: torch.device) -> None:
    """Raise ValueError for a precision that the device lacks; warn if it would be imitated."""
    if device.type != "cpu":
        return
    if precision == "fp16":
        raise ValueError('precision="fp16" needs a GPU: choose "bf16" or "fp32" on the CPU')
    if precision == "bf16" and cpu_lacks_bf16():
        warnings.warn(
            "this CPU has no bf16, and to imitate it takes longer than fp32: choose "
            'precision="fp32"',
            stacklevel=4,
        )


MODALITY_NAMES = ("CT", "MR")


def slice_name(slices: Slices, modality: int, index: int) -> str:
    names = (slices.ct_names, slices.mri_names)[modality]
    return names[index] if names else f"number {index}"


def describe_data(slices: Slices) -> str:
    """A short description by which a run recognises its slices.

    Three digits, since another machine may round the last ones differently.
    """
    parts = []
    for name, images in zip(MODALITY_NAMES, (slices.ct, slices.mri), strict=True):
        # In parts, for large sets.
        total = sum(float(part.double().sum()) for part in images.split(64))
        parts.append(f"{len(images)} {name} slices of mean {total / images.numel():.3f}")
    return " and ".join(parts)


def describe_batch(slices: Slices, batches: UnpairedBatches, step: int) -> str:
    """Which slices a step sees, as the middle of an error message."""
    parts = []
    for modality in (CT, MRI):
        indexes = batches.indexes(step, modality).tolist()
        names = ", ".join(slice_name(slices, modality, i) for i in indexes)
        parts.append(f"{MODALITY_NAMES[modality]} {names}")
    return f", on {' and '.join(parts)}"

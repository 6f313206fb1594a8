"""What `fit` refuses: model, slices and settings that do not fit together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..settings import Training
from ..units import MODALITIES
from .batches import Slices, slice_name
from .model import CycleGAN
from .remedies import LOSSES

# The weights of `Objective`, by which a loss is switched on.
LOSS_WEIGHTS = ("adversarial", "cycle_ct", "cycle_mri", "identity", *LOSSES)

# Interpolation in float32 may leave slices outside of [-1, 1] by this much.
ROUNDING = 1e-3


def check_inputs(
    model: CycleGAN, slices: Slices, training: Training, validate: Callable | None
) -> None:
    """Raise ValueError, in one sentence, unless model, slices and settings fit together."""
    if not isinstance(model, CycleGAN):
        raise ValueError(
            f"model is of type {type(model).__name__} and cannot be trained: pass a CycleGAN"
        )
    if not (isinstance(getattr(slices, "ct", None), torch.Tensor) and hasattr(slices, "mri")):
        raise ValueError(
            f"slices is of type {type(slices).__name__} and holds none to train on: pass the train "
            "side of loaded scans (scans.train), or tensors in a batches.Slices"
        )
    if not training.steps:
        raise ValueError("steps=0 trains nothing: say how many steps the whole training has")

    check_images("ct", slices.ct, slices.ct_names, model.architecture.ct_channels)
    check_images("mri", slices.mri, slices.mri_names, model.architecture.mri_channels)
    check_sampling(slices, training)
    check_objective(model, training, validate)
    check_values(MODALITIES["ct"], slices.ct, slices.ct_names)
    check_values(MODALITIES["mri"], slices.mri, slices.mri_names)


def check_images(modality: str, images: torch.Tensor, names: Sequence[str], channels: int) -> None:
    """Raise ValueError unless slices are (N, channels, H, W), with a name for each or none."""
    if images.ndim != 4 or images.shape[1] != channels or len(images) == 0:
        raise ValueError(
            f"{modality} is of shape {tuple(images.shape)} and should be (N, {channels}, H, W), N "
            f"at least 1: give such slices, or build the model with other {modality}_channels"
        )
    if names and len(names) != len(images):
        raise ValueError(
            f"{modality}_names has {len(names)} names for {len(images)} slices: give one for each"
        )


def check_sampling(slices: Slices, training: Training) -> None:
    """Raise ValueError where a sampling needs what the slices do not have."""
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


def check_objective(model: CycleGAN, training: Training, validate: Callable | None) -> None:
    """Raise ValueError where the losses and how they are minimised do not fit together."""
    objective = model.objective
    if not any(getattr(objective, name) for name in LOSS_WEIGHTS):
        raise ValueError("all weights of the losses are 0: give at least one of them a weight")
    if objective.supervised and training.sampling != "paired":
        raise ValueError(
            f'supervised={objective.supervised:g} needs pairs, and sampling="{training.sampling}" '
            'gives none: set sampling = "paired" with paired data, or supervised = 0'
        )

    has_metric = validate or objective.cycle_ct or objective.cycle_mri
    if training.lr_policy == "plateau" and not has_metric:
        raise ValueError(
            'lr_policy="plateau" watches the cycle loss, and there is none: pass validate, or '
            "choose another policy"
        )


def check_values(title: str, images: torch.Tensor, names: Sequence[str]) -> None:
    """Raise ValueError, naming the slice, if one is not finite or not in [-1, 1]."""
    for i, image in enumerate(images):
        if not image.isfinite().all():
            raise ValueError(
                f"{title} slice {slice_name(names, i)} holds values that are not finite: "
                "remove or repair it before training"
            )
        if image.abs().max() > 1 + ROUNDING:
            raise ValueError(
                f"{title} slice {slice_name(names, i)} reaches from {image.min():.4g} to "
                f"{image.max():.4g} and should be in [-1, 1]: scale it by `units.HU.to_network`"
            )


def check_numbers(seed: int, stop_at: int | None, save_every: int) -> None:
    """Raise ValueError unless these are whole numbers that make sense."""
    limits = [("seed", seed, 0), ("save_every", save_every, 1)]
    if stop_at is not None:
        limits.append(("stop_at", stop_at, 0))
    for name, value, least in limits:
        if type(value) is not int or value < least:
            raise ValueError(f"{name}={value!r} should be a whole number of at least {least}")

"""Trained weights as files: written atomically, read without running anything in them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..cyclegan.fast_cpu import use_fast_layers
from ..cyclegan.model import CycleGAN, Translator
from ..cyclegan.resume import TRAIN_FIRST, load_checkpoint
from ..files import atomic_write, existing
from ..machine import checkpoint_file, data_folder
from ..settings import Architecture


def save_weights(model: Translator, path: Path, about: dict[str, Any]) -> None:
    """Keep the averaged generators, in half precision, with their architecture.

    Args:
        model: whose weights to keep.
        path: a .safetensors file.
        about: what to say of them, anything that JSON can hold.
    """
    from safetensors.torch import save_file

    weights = {
        name: weight.half().contiguous() for name, weight in model.averaged.state_dict().items()
    }

    # One entry only: safetensors writes several in an order that changes from call to call.
    card = json.dumps({"architecture": asdict(model.architecture), "about": about})
    with atomic_write(path) as temporary:
        save_file(weights, temporary, {"card": card})


def load_weights(path: Path) -> tuple[Translator, dict[str, Any]]:
    """The translator kept by `save_weights`, and what was said about it.

    Raises:
        FileNotFoundError, ValueError: as `load_checkpoint`.
    """
    from safetensors import SafetensorError, safe_open

    existing(path, TRAIN_FIRST)
    try:
        with safe_open(path, "pt") as file:
            card = json.loads((file.metadata() or {})["card"])
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        model = Translator(Architecture.of(card["architecture"]))
        model.averaged.load_state_dict(weights)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise ValueError(
            f"{path} holds no weights of `save_weights` ({' '.join(str(error).split())[:200]}): "
            "make it anew"
        ) from error

    for to, network in model.current.items():
        network.load_state_dict(model.averaged[to].state_dict())
    return ready_to_translate(model), card["about"]


def load_translator(path: Path) -> Translator:
    """The trained model in a checkpoint written by `fit`, or in a .safetensors file of weights.

    Raises:
        FileNotFoundError, ValueError: as `load_checkpoint`.
    """
    if Path(path).suffix == ".safetensors":
        model, _ = load_weights(path)
        return model
    return model_from_checkpoint(load_checkpoint(path), path)


def model_from_checkpoint(state: dict, path: Path) -> Translator:
    """The trained model in a checkpoint.

    Args:
        state: what `load_checkpoint` read.
        path: where from, for the error.

    Raises:
        ValueError: it fits no network of this version.
    """
    try:
        model = CycleGAN.from_settings(state["identity"])
        model.load_state_dict(state["model"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path} does not fit this version's networks ({' '.join(str(error).split())[:200]}): "
            "train again"
        ) from error
    return ready_to_translate(model)


def ready_to_translate(model: Translator) -> Translator:
    """The model in eval mode, with the layers that are faster on a CPU."""
    use_fast_layers(model)
    return model.eval()


def weights_file(dataset: str) -> Path:
    """Where the weights that come with the project lie, for "phantom" and for "scans"."""
    return data_folder() / "weights" / f"{dataset}.safetensors"


def trained_translator(dataset: str, profile: str, seed: int) -> tuple[Translator, str]:
    """A trained model for the data set: of your own run of lesson 03, else the project's.

    Returns:
        The model, and a sentence on where it comes from.

    Raises:
        FileNotFoundError: there is neither, as for a folder of one's own before any training.
    """
    run = checkpoint_file(dataset, profile, seed)
    if run.is_file():
        state = load_checkpoint(run)
        source = f"{dataset}: your own training, {state['step']} steps ({run.name})"
        return model_from_checkpoint(state, run), source

    shipped = weights_file(dataset)
    if not shipped.is_file():
        raise FileNotFoundError(
            f"there is no training on {dataset} yet ({run} does not exist): run lesson 03 with "
            "this DATASET first"
        )
    model, about = load_weights(shipped)
    source = (
        f"{dataset}: the weights that come with the course, {about['steps']} steps (none of yours "
        "has this PROFILE and SEED)"
    )
    return model, source

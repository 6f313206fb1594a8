"""Trained weights as files: written atomically, read without running anything in them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..cyclegan.model import CycleGAN, Translator
from ..cyclegan.resume import TRAIN_FIRST, load_checkpoint
from ..files import existing, replacing
from ..machine import checkpoint_file, data_folder
from ..settings import Architecture


def save_weights(model: Translator, path: Path, about: dict[str, Any]) -> None:
    """Keep the averaged generators, in half precision, with their architecture and `about`
    (anything that JSON can hold).
    """
    from safetensors.torch import save_file

    weights = {
        name: weight.half().contiguous() for name, weight in model.averaged.state_dict().items()
    }
    # One entry only: safetensors writes several in an order that changes from call to call.
    with replacing(path) as temporary:
        save_file(
            weights,
            temporary,
            {"card": json.dumps({"architecture": asdict(model.architecture), "about": about})},
        )


def load_weights(path: Path) -> tuple[Translator, dict[str, Any]]:
    """The translator kept by `save_weights`, and what was said about it.

    FileNotFoundError or ValueError as `load_checkpoint`.
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
    return model.eval(), card["about"]


def load_translator(path: Path) -> Translator:
    """The trained model in a checkpoint written by `fit`, or in a .safetensors file of weights.

    Errors as `load_checkpoint`.
    """
    if Path(path).suffix == ".safetensors":
        return load_weights(path)[0]
    return rebuilt(load_checkpoint(path), path)


def rebuilt(state: dict, path: Path) -> Translator:
    """The trained model in a checkpoint that was read from this path.

    Raises ValueError if it fits no network of this version.
    """
    try:
        model = CycleGAN.from_settings(state["identity"])
        model.load_state_dict(state["model"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path} does not fit this version's networks ({' '.join(str(error).split())[:200]}): "
            "train again"
        ) from error
    return model.eval()


def weights_file(dataset: str) -> Path:
    """Where the weights that come with the project lie.

    There are some for "phantom" and for "scans".
    """
    return data_folder() / "weights" / f"{dataset}.safetensors"


def trained_translator(dataset: str, profile: str, seed: int) -> tuple[Translator, str]:
    """A trained model for the data set, and a sentence on where it comes from.

    Your own run of lesson 03, else the project's weights.

    Raises FileNotFoundError if there is neither, as for a folder of one's own before any training.
    """
    run = checkpoint_file(dataset, profile, seed)
    if run.is_file():
        state = load_checkpoint(run)
        return rebuilt(
            state, run
        ), f"{dataset}: your own training, {state['step']} steps ({run.name})"
    shipped = weights_file(dataset)
    if not shipped.is_file():
        raise FileNotFoundError(
            f"there is no training on {dataset} yet ({run} does not exist): run lesson 03 with "
            "this DATASET first"
        )
    model, about = load_weights(shipped)
    return (
        model,
        f"{dataset}: the weights that come with the course, {about['steps']} steps (none of yours "
        "has this PROFILE and SEED)",
    )

"""Trained weights as files: written atomically, read without running anything in them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from ..cyclegan.fast_cpu import use_fast_layers
from ..cyclegan.model import CycleGAN, Translator
from ..cyclegan.networks import Generator
from ..cyclegan.resume import load_checkpoint
from ..files import atomic_write
from ..machine import checkpoint_file, data_folder
from ..settings import Architecture
from ..units import CT_MAPS
from .contract import Contract
from .recognise import Checkpoint, Networks, Weights, locate, recognise
from .reference import (
    check_finite,
    choose_network,
    compare,
    generators_by_direction,
    grey_generator,
    in_float32,
)


def save_weights(model: Translator, path: Path, contract: Contract | None = None) -> None:
    """Keep the averaged generators, in half precision, with their architecture and contract.

    Args:
        model: whose weights to keep.
        path: a .safetensors file.
        contract: which slices they know; None takes the model's own, if it has one.

    Raises:
        ValueError: the contract names another CT map than the networks have.
    """
    from safetensors.torch import save_file

    weights = {
        name: weight.half().contiguous() for name, weight in model.averaged.state_dict().items()
    }

    card = {"architecture": asdict(model.architecture)}
    contract = contract or model.contract
    if contract:
        check_map(contract, model)
        card["contract"] = asdict(contract)

    # One entry only: safetensors writes several in an order that changes from call to call.
    with atomic_write(path) as temporary:
        save_file(weights, temporary, {"card": json.dumps(card)})


def check_map(contract: Contract, model: Translator) -> None:
    """Raise ValueError where a contract names another CT map than the networks have."""
    if contract.ct_map != model.architecture.ct_map:
        raise ValueError(
            f"the contract says ct_map = {contract.ct_map!r} and the networks have "
            f"{model.architecture.ct_map!r}: state theirs"
        )


class ReferenceTranslator(Translator):
    """Generators of another program, for the directions that they make.

    Its `averaged` generators are all that it has, and its slices have one channel.

    Args:
        generators: by what they make, "mri" or "ct".
    """

    def __init__(self, generators: dict[str, Generator]):
        # Not `Translator`'s: these networks are built already.
        nn.Module.__init__(self)
        self.architecture = Architecture()
        self.ct_map = CT_MAPS[self.architecture.ct_map]
        self.contract = None
        self.averaged = nn.ModuleDict(generators).requires_grad_(False)

    @property
    def current(self) -> dict[str, nn.Module]:
        return dict(self.averaged)

    def translate(self, images: Tensor, to: str, *args, **options) -> Tensor:
        """As `Translator.translate`; ValueError for a direction that the file does not hold."""
        if to not in self.averaged:
            raise ValueError(
                f"to={to!r} is not here: this network makes {' and '.join(self.current)}"
            )
        return super().translate(images, to, *args, **options)


def translator_from_weights(weights: Weights) -> Translator:
    """The translator that `save_weights` kept.

    Raises:
        ValueError: the weights do not fit what their card says, or are not finite.
    """
    path, state = weights.path, in_float32(weights.state)
    try:
        architecture = Architecture.of(weights.card["architecture"])

        # Shapes without numbers: memory is taken only for what the file really holds.
        with torch.device("meta"):
            empty = Translator(architecture)
        contract = Contract.of(weights.card["contract"])
        if contract:
            check_map(contract, empty)
    except ValueError as error:
        raise ValueError(f"{path} does not fit this version's networks: {error}") from error

    difference = compare(state, empty.averaged.state_dict())
    if difference:
        raise ValueError(f"{path} does not fit its card: it {difference}")
    check_finite(state, path)

    model = Translator(architecture)
    model.averaged.load_state_dict(state)
    for to, network in model.current.items():
        network.load_state_dict(model.averaged[to].state_dict())
    model.contract = contract
    return ready_to_translate(model)


def load_translator(
    source: str | Path, to: str | None = None, padding: str = "reflect"
) -> Translator:
    """The trained model in any file that holds one: here or in the layout of the reference.

    Args:
        source: a run's folder or name, a checkpoint of `fit`, weights such as
            data/weights/heads.safetensors, or a file that `load_reference` reads. Generators for
            colour are made grey, see `one_channel`.
        to: "mri" or "ct", what the reference's generator makes, which its file does not say; of
            two generators, by their names, both are taken if it is None.
        padding: see `load_reference`.

    Raises:
        FileNotFoundError, ValueError: as `recognise`.

    Example:
        >>> from ctmri_utils import load_translator, runs
        >>> model = load_translator(runs.weights_file("heads"))
        >>> model.contract.size, model.contract.pixel_mm
        (128, 1.75)
    """
    contents = recognise(locate(source))
    if isinstance(contents, Networks):
        return reference_translator(contents, to, padding)
    if padding != "reflect":
        raise ValueError(f"padding={padding!r} is for networks of other programs: leave it out")
    if isinstance(contents, Checkpoint):
        return model_from_checkpoint(contents.state, contents.path)
    return translator_from_weights(contents)


def reference_translator(
    contents: Networks, to: str | None, padding: str = "reflect"
) -> ReferenceTranslator:
    """A translator for one direction, or for both where the file holds both.

    Raises:
        ValueError: it is not clear which network makes what.
    """
    states = generators_by_direction(contents)
    if to is not None:
        states = {to: choose_network(contents, to)}
    elif len(states) < 2:
        raise ValueError(
            f"{contents.path} does not say what its network makes: give --to mri or --to ct"
        )

    generators = {
        made: grey_generator(state, contents.path, padding) for made, state in states.items()
    }
    return ready_to_translate(ReferenceTranslator(generators))


def model_from_checkpoint(state: dict, path: Path) -> CycleGAN:
    """The trained model in a checkpoint.

    Args:
        state: what `load_checkpoint` read.
        path: where from, for the error.

    Raises:
        ValueError: it fits no network of this version, or is not finite.
    """
    try:
        with torch.device("meta"):
            expected = CycleGAN.from_settings(state["identity"]).state_dict()
        difference = compare(state["model"], expected)
        contract = Contract.of(state.get("contract"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} does not fit this version's networks ({error}): train again"
        ) from error
    if difference:
        raise ValueError(f"{path} does not fit this version's networks: it {difference}")

    check_finite(state["model"], path)
    model = CycleGAN.from_settings(state["identity"])
    model.load_state_dict(state["model"])
    model.contract = contract
    return ready_to_translate(model)


def ready_to_translate(model: Translator) -> Translator:
    """The model in eval mode, with the layers that are faster on a CPU."""
    use_fast_layers(model)
    return model.eval()


# The pair for heads, which learned from the atlas, serves all that shows anatomy.
SHIPPED = {"scans": "heads", "atlas": "heads"}


def weights_file(dataset: str) -> Path:
    """Where the weights that come with the project for a data set lie, if there are any."""
    return data_folder() / "weights" / f"{SHIPPED.get(dataset, dataset)}.safetensors"


def trained_translator(dataset: str, profile: str, seed: int) -> tuple[Translator, str]:
    """A trained model for the data set: of your own run of lesson 03, else the project's.

    Returns:
        The model, and a sentence on where it comes from.

    Raises:
        FileNotFoundError: there is neither, as for a folder of one's own before any training.

    Example:
        >>> from ctmri_utils import trained_translator
        >>> model, source = trained_translator("heads", "laptop", seed=2026)
        >>> print(source)
        heads: the weights heads that come with the course...
    """
    run = checkpoint_file(dataset, profile, seed)
    if run.is_file():
        state = load_checkpoint(run)
        source = f"{dataset}: your own training run, {state['step']} steps ({run.name})"
        return model_from_checkpoint(state, run), source

    shipped = weights_file(dataset)
    if not shipped.is_file():
        raise FileNotFoundError(
            f"there is no training run on {dataset} yet ({run} does not exist): run lesson 03 with "
            "this DATASET first"
        )
    model = load_translator(shipped)
    source = (
        f"{dataset}: the weights {shipped.stem} that come with the course (no training of yours "
        "has this PROFILE and SEED)"
    )
    return model, source

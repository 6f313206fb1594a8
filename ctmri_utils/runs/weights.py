"""Trained networks from files and into files: `load_translator`, `save_weights`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from ..cyclegan.fast_cpu import use_fast_layers
from ..cyclegan.model import CycleGAN, Translator
from ..cyclegan.networks import Generator
from ..cyclegan.resume import load_checkpoint
from ..files import atomic_write
from ..settings import Architecture
from ..units import CT_MAPS
from .contract import Contract
from .locations import checkpoint_file, locate, weights_file
from .recognise import Networks, SavedModel, recognise
from .reference import check_weights, choose_network, generators_by_direction, grey_generator


def load_translator(
    source: str | Path, to: str | None = None, padding: str = "reflect"
) -> Translator:
    """The trained model in a file, of this package or in the layout of the reference.

    Args:
        source: a run's folder or name, shipped weights (heads, phantom), a file of weights, or one
            that `load_reference` reads. Generators for colour are made grey, see `grey_state`.
        to: "mri" or "ct": what a single generator of the reference makes, since its file does not
            say it. None takes both generators where a file holds two and their names say which.
        padding: see `load_reference`.

    Raises:
        FileNotFoundError, ValueError: as `recognise`.

    Example:
        >>> from ctmri_utils import load_translator
        >>> model = load_translator("heads")
        >>> model.contract.size, model.contract.pixel_mm
        (128, 1.75)
    """
    return translator_of(recognise(locate(source)), to, padding)


def translator_of(
    contents: SavedModel | Networks, to: str | None = None, padding: str = "reflect"
) -> Translator:
    """As `load_translator`, from what `recognise` found."""
    if isinstance(contents, Networks):
        model = reference_translator(contents, to, padding)
    elif padding != "reflect":
        raise ValueError(f"padding={padding!r} is for networks of other programs: leave it out")
    else:
        model = saved_translator(contents)
    use_fast_layers(model)
    return model.eval()


def saved_translator(saved: SavedModel) -> Translator:
    """The model of this package in a file.

    Raises:
        ValueError: it fits no networks of this version, or is not finite.
    """

    def build() -> Translator:
        if saved.is_checkpoint:
            return CycleGAN.from_settings(saved.settings)
        return Translator(Architecture(**saved.settings))

    path = saved.path
    try:
        # On the meta device a model takes no memory, whatever sizes a damaged file names.
        with torch.device("meta"):
            empty = build()
        contract = Contract.of(saved.contract)
        if contract:
            check_map(contract, empty)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} does not fit this version's networks ({error}): train again, or update "
            "ctmri-utils"
        ) from error
    check_weights(saved.state, empty, path, "this version's networks")

    model = build()
    model.load_state_dict(saved.state)
    model.contract = contract
    return model


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
    return ReferenceTranslator(
        {to: grey_generator(state, contents.path, padding) for to, state in states.items()}
    )


class ReferenceTranslator(Translator):
    """Generators of another program, for the directions that they make.

    Its `averaged` generators are all that it has, and its slices have one channel.

    Args:
        generators: by what they make, "mri" or "ct".
    """

    def __init__(self, generators: dict[str, Generator]):
        # `Translator.__init__` would build networks, and these are built already.
        nn.Module.__init__(self)
        self.architecture = Architecture()
        self.ct_map = CT_MAPS[self.architecture.ct_map]
        self.contract = None
        self.averaged = nn.ModuleDict(generators).requires_grad_(False)

    @property
    def current(self) -> dict[str, nn.Module]:
        """The same generators: the file of another program holds no second set."""
        return dict(self.averaged)


def save_weights(model: Translator, path: Path) -> None:
    """Keep the averaged generators, in half precision, with their architecture and contract.

    Args:
        model: whose weights to keep; its `contract` says which slices they know.
        path: a .safetensors file.

    Raises:
        ValueError: the contract names another CT map than the networks have.
    """
    from safetensors.torch import save_file

    weights = {
        name: weight.half().contiguous() for name, weight in model.averaged.state_dict().items()
    }

    card = {"architecture": asdict(model.architecture)}
    if model.contract:
        check_map(model.contract, model)
        card["contract"] = asdict(model.contract)

    # Everything is in one entry: safetensors writes several in an order that varies.
    with atomic_write(path) as temporary:
        save_file(weights, temporary, {"card": json.dumps(card)})


def check_map(contract: Contract, model: Translator) -> None:
    """Raise ValueError where a contract names another CT map than the networks have."""
    if contract.ct_map != model.architecture.ct_map:
        raise ValueError(
            f"the contract says ct_map = {contract.ct_map!r} and the networks have "
            f"{model.architecture.ct_map!r}: correct the contract"
        )


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
        return translator_of(SavedModel.of_run(state, run)), source

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

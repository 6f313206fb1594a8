"""A new training run from old weights: `start = RUN, weights file or reference .pth`."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..cyclegan.architectures import infer_architecture
from ..cyclegan.model import CycleGAN
from .locations import locate
from .recognise import GENERATORS, Networks, SavedModel, State, recognise
from .reference import ALL_NETWORKS, NETWORKS, grey_state, network_from_state, networks_by_role

# The reference keeps one network in each file, such as latest_net_G_A.pth.
REFERENCE_FILE = re.compile(r"(.*net_)([GD]_[AB])(\.\w+)", flags=re.IGNORECASE)


@dataclass(frozen=True)
class Start:
    """What a training run starts from.

    Args:
        digest: SHA-256 of all weights that were loaded, with their names.
        summary: a sentence on what was loaded, and on what was not there.
    """

    digest: str
    summary: str


def start_from(model: CycleGAN, source: str | Path) -> Start:
    """Load the generators of a file into a new model, and the discriminators where it has them.

    The averaged generators start from the loaded ones. Whatever the file lacks stays as it was
    drawn. Pass the digest on: `fit(..., start=start_from(model, source).digest)`.

    Args:
        model: a CycleGAN that is not trained yet.
        source: a run's folder or name, shipped weights (heads, phantom), a file of weights, or a
            file of the reference, whose neighbours are read too: with latest_net_G_A.pth also
            ..._G_B.pth, ..._D_A.pth and ..._D_B.pth.

    Returns:
        The digest of what was loaded, and a sentence on it.

    Raises:
        FileNotFoundError, ValueError: in one sentence, as `recognise`, or networks that differ
            from the model's.
    """
    contents = recognise(locate(source))
    path = contents.path
    if isinstance(contents, Networks):
        ct_map = "linear"
        states = reference_networks(contents)
    else:
        ct_map = contents.settings.get("ct_map", "linear")
        states = model_networks(contents)
    if ct_map != model.architecture.ct_map:
        raise ValueError(
            f"the networks of {path} see CT with ct_map = {ct_map!r}: set the same to start from "
            "them"
        )

    # All networks are checked before the first one is changed.
    fitting = {
        name: fit_to(model.get_submodule(name), state, path) for name, state in states.items()
    }
    for name, state in fitting.items():
        model.get_submodule(name).load_state_dict(state)
    for to, network in model.current.items():
        if f"averaged.{to}" not in fitting:
            model.averaged[to].load_state_dict(network.state_dict())
    return Start(digest_of(fitting), summary_of(fitting, path))


def model_networks(saved: SavedModel) -> dict[str, State]:
    """The networks of a model of this package, by their names in it."""
    names = ALL_NETWORKS if saved.is_checkpoint else GENERATORS.values()
    if saved.settings.get("adversarial") == 0:
        # The discriminators of such a run were never trained.
        names = [name for name in names if not name.startswith("D_")]
    return {name: part_of(saved.state, name) for name in names}


def part_of(state: State, name: str) -> State:
    """The weights of one network in those of a model."""
    prefix = f"{name}."
    return {
        key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)
    }


def reference_networks(contents: Networks) -> dict[str, State]:
    """The networks of another program, by the names that they have in a model.

    Raises:
        ValueError: no name says what the generator makes.
    """
    states = contents.states
    if len(states) == 1:
        states = with_neighbours(contents)
    networks = networks_by_role(states)
    if not networks.keys() & set(GENERATORS.values()):
        raise ValueError(
            f"{contents.path} does not say what its generator makes: name the file "
            "latest_net_G_A.pth if it makes MR from CT, latest_net_G_B.pth if CT from MR"
        )
    return networks


def with_neighbours(contents: Networks) -> dict[str, State]:
    """A single network and those beside it, if the files have the reference's names."""
    [(name, state)] = contents.states.items()
    match = REFERENCE_FILE.fullmatch(contents.path.name)
    if match is None:
        return {name or contents.path.stem: state}

    prefix, role, suffix = match.groups()
    states = {role: state}
    for neighbour_role in ("G_A", "G_B", "D_A", "D_B"):
        path = contents.path.with_name(prefix + neighbour_role + suffix)
        if neighbour_role == role.upper() or not path.is_file():
            continue
        neighbour = recognise(path)
        if isinstance(neighbour, Networks) and len(neighbour.states) == 1:
            [states[neighbour_role]] = neighbour.states.values()
    return states


def fit_to(network: nn.Module, state: State, path: Path) -> State:
    """The weights for this network, made grey if they are for colour and it is for grey.

    Raises:
        ValueError: they are for another network; it names the settings to change.
    """
    expected = infer_architecture(network.state_dict())
    loaded = network_from_state(state, path)
    architecture = infer_architecture(state)
    if architecture["in_channels"] == 3 and expected["in_channels"] == 1:
        loaded = network_from_state(grey_state(state, path), path)
        architecture = infer_architecture(loaded.state_dict())

    if architecture.get("padding") == "zero":
        raise ValueError(
            f"{path} holds a ResNet without padding layers, which can translate and be exported "
            "here, but not be trained: start from a network that has them"
        )
    expected_settings = settings_of(expected)
    changes = [
        f"{name} = {value!r}"
        for name, value in settings_of(architecture).items()
        if expected_settings.get(name) != value
    ]
    if changes:
        raise ValueError(
            f"{path} holds networks unlike this run's: set {', '.join(changes)} to start from it"
        )
    sides = ("in_channels", "out_channels")
    if any(architecture.get(side) != expected.get(side) for side in sides):
        raise ValueError(
            f"{path} holds a network for images of {architecture['in_channels']} channels, unlike "
            "this run's: set ct_channels and mri_channels"
        )
    return loaded.state_dict()


def settings_of(architecture: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run that make networks of this architecture."""
    names = ("ngf", "ndf", "norm", "dropout", "upsampling", "spectral")
    settings = {name: architecture[name] for name in names if name in architecture}

    name = architecture["name"]
    resnet = re.fullmatch(r"resnet_(\d+)blocks", name)
    if resnet:
        return settings | {"generator": "resnet", "n_blocks": int(resnet[1])}
    if "ngf" in architecture:
        return settings | {"generator": name}
    if name == "pixel":
        return settings | {"discriminator": "pixel"}
    return settings | {"discriminator": "n_layers", "n_layers": architecture["n_layers"]}


def digest_of(networks: dict[str, State]) -> str:
    """SHA-256 of networks: of the names, shapes and numbers of their weights."""
    digest = hashlib.sha256()
    for name, state in sorted(networks.items()):
        for key, tensor in sorted(state.items()):
            digest.update(f"{name}.{key} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def summary_of(networks: dict[str, State], path: Path) -> str:
    """One sentence on what was loaded, and on what was not there."""
    loaded = [name for name in NETWORKS if name in networks]
    drawn = [name for name in NETWORKS if name not in networks]
    sentence = f"Starts from {path}: {', '.join(loaded)}"
    return f"{sentence}; {', '.join(drawn)} drawn anew" if drawn else sentence

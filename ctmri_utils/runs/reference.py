"""Networks of other programs: rebuilt from their weights, in the layout of the reference."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

from ..cyclegan.networks import Generator
from ..cyclegan.variants import (
    convolutions,
    infer_architecture,
    make_discriminator,
    make_generator,
)
from .recognise import Networks, State, recognise

# The names of networks that say a direction, such as G_A, netG_AB, genA2B and latest_net_D_B.
ROLE = re.compile(
    r"(?:^|[._])(?:net_?)?(?:g|gen|generator|d|dis|discriminator)_?"
    r"(a2b|ab|atob|a|ct2mri|b2a|ba|btoa|b|mri2ct)$",
    flags=re.IGNORECASE,
)

# A is CT and B is MR, as in trainA and trainB.
TO_MRI = ("a2b", "ab", "atob", "a", "ct2mri")

MOST_NAMED = 3  # tensors


def load_reference(
    path: str | Path, grey: bool = False, padding: str = "reflect", to: str | None = None
) -> nn.Module:
    """The network in a file of the reference, its architecture read off the weights.

    Any generator or discriminator of the reference, old or new, also from inside DataParallel,
    torch.compile or a Lightning checkpoint, in a .safetensors file, with the spectral norm of old
    PyTorch or without padding layers; and those that `save_reference` writes.

    Args:
        path: such as latest_net_G_A.pth.
        grey: make a colour network take and give one channel, see `one_channel`.
        padding: "replicate" if the residual blocks of the network were built with padding_type
            "replicate". Its weights look like those of "reflect", which is the reference's default.
        to: "mri" or "ct", which of two generators, by their names: A is CT, B is MR.

    Returns:
        A network of this package, float32, in eval mode.

    Raises:
        FileNotFoundError, ValueError: in one sentence, a file that is missing, damaged, unsafe or
            something else.
    """
    contents = recognise(path)
    if not isinstance(contents, Networks):
        raise ValueError(
            f"{path} was written by this package and holds several networks: "
            "`runs.load_translator` reads it"
        )
    state = choose_network(contents, to)
    return network_from_state(state, contents.path, grey, padding)


def choose_network(contents: Networks, to: str | None) -> State:
    """The only network in a file, its only generator, or of several the one that makes `to`.

    Raises:
        ValueError: it is not clear which one is meant.
    """
    states = list(contents.states.values())
    only = states if len(states) == 1 else [state for state in states if is_generator(state)]
    if len(only) == 1:
        return only[0]

    names = ", ".join(name or "one without a name" for name in contents.states)
    generators = generators_by_direction(contents)
    if to in generators:
        return generators[to]
    if to is None and generators:
        raise ValueError(
            f"{contents.path} holds several networks ({names}): give --to mri for the one that "
            "makes MR, or --to ct; A counts as CT, B as MR"
        )
    raise ValueError(
        f"{contents.path} holds several networks ({names}), and no name says which one makes "
        f"{to or 'what'}: save that one's state_dict() in its own file"
    )


def generators_by_direction(contents: Networks) -> dict[str, State]:
    """The generators of a file by what they make, where their names say so, each once."""
    found: dict[str, list[State]] = {}
    for name, state in contents.states.items():
        to = direction_of(name)
        if to and is_generator(state):
            found.setdefault(to, []).append(state)
    return {to: states[0] for to, states in found.items() if len(states) == 1}


def direction_of(name: str) -> str | None:
    """What a generator of this name makes, None where the name does not say it."""
    role = ROLE.search(name)
    if role is None:
        return None
    return "mri" if role[1].lower() in TO_MRI else "ct"


def is_generator(state: State) -> bool:
    """Whether weights begin as a generator's do, rather than a discriminator's."""
    return any(re.match(r"model\.1\.|model\.model\.", key) for key in state) and not any(
        re.match(r"(model|net)\.0\.", key) for key in state
    )


def network_from_state(
    state: State, path: Path, grey: bool = False, padding: str = "reflect"
) -> nn.Module:
    """The network with these weights, float32 and in eval mode.

    Raises:
        ValueError: in one sentence, they fit none of this package, or are not finite.
    """
    check_finite(state, path)
    if grey:
        state = grey_state(state, path)
    try:
        network = build_network(state, padding)
    except (LookupError, RuntimeError) as error:
        raise ValueError(f"{path} holds no network of a known kind") from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from error

    difference = compare(state, network.state_dict())
    if difference:
        raise ValueError(
            f"{path} looks like {description(state)}, but {difference}: export it again"
        )
    network.load_state_dict(in_float32(state), assign=True)
    return network.eval()


def check_finite(state: State, path: Path) -> None:
    """Raise ValueError for weights that are not finite."""
    for key, tensor in state.items():
        if not tensor.isfinite().all():
            raise ValueError(
                f"{path} holds weights that are not finite ({key}): its training run failed, so "
                "take an earlier checkpoint"
            )


def in_float32(state: State) -> State:
    return {
        key: tensor.float() if tensor.is_floating_point() else tensor
        for key, tensor in state.items()
    }


def build_network(state: State, padding: str = "reflect") -> nn.Module:
    """An empty network, without memory, for these weights.

    Raises:
        ValueError: it is none of this package.
    """
    filters = [key for key in state if key.endswith(".filt")]
    if filters:
        raise ValueError(
            f"it is an antialiased network of CUT, which blurs where it changes the size "
            f"({filters[0]}); train CUT with --no_antialias --no_antialias_up to use it here"
        )

    scales = [key for key, tensor in state.items() if key.endswith("weight") and tensor.ndim == 1]
    if scales and not any(key.endswith("running_mean") for key in state):
        raise ValueError(
            f"its normalisation has weights and no running statistics ({scales[0]}), as affine "
            "instance norm, which this package does not build"
        )

    architecture = infer_architecture(state)
    if padding != "reflect":
        has_layers = "dropout" in architecture and "padding" not in architecture
        if padding != "replicate" or not has_layers:
            raise ValueError(
                f"padding={padding!r} does not fit these weights: replicate is for ResNets whose "
                "blocks have padding layers, so leave it out for all others"
            )
        architecture["padding"] = padding

    make_network = make_discriminator if "ndf" in architecture else make_generator
    with torch.device("meta"):
        return make_network(**architecture)


def description(state: State) -> str:
    """What a network is, in a few words."""
    architecture = infer_architecture(state)
    name = architecture["name"]
    if "ndf" in architecture:
        return f"a {name} discriminator"
    blocks = re.fullmatch(r"resnet_(\d+)blocks", name)
    if not blocks:
        return f"a {name}"
    words = f"a ResNet of {blocks[1]} blocks"
    return words + " without padding layers" if architecture.get("padding") == "zero" else words


def compare(state: State, expected: State) -> str | None:
    """How weights differ from those of a network, as a sentence's end; None if they fit."""
    missing = [key for key in expected if key not in state]
    if missing:
        return f"lacks {some_of(missing)}"
    further = [key for key in state if key not in expected]
    if further:
        return f"also has {some_of(further)}"

    for key, tensor in expected.items():
        if tensor.shape != state[key].shape:
            return (
                f"has {key} in the shape {tuple(state[key].shape)} instead of {tuple(tensor.shape)}"
            )
    return None


def some_of(keys: list[str]) -> str:
    """The first of these keys, and how many more there are."""
    words = ", ".join(keys[:MOST_NAMED])
    if len(keys) > MOST_NAMED:
        words += f" and {len(keys) - MOST_NAMED} more"
    return words


def grey_state(state: State, path: Path) -> State:
    """As `one_channel`, of weights that fit a network; ValueError names the file."""
    network_from_state(state, path)
    try:
        return one_channel(state)
    except ValueError as error:
        raise ValueError(f"{path} cannot be made grey: {error}") from error


def one_channel(state: State) -> State:
    """The weights for one channel of a network that was made for several.

    It does what the network does with a grey image in all its channels. The first kernels are
    summed over their inputs, which is exact. The last, of a generator, are averaged over its
    outputs before the tanh, which is exact where these agree, as grey ones do.

    Raises:
        ValueError: spectral norm, which the sum would change.
    """
    architecture = infer_architecture(state)
    if architecture.get("spectral"):
        raise ValueError("its spectral norm would no longer be that of its weights")
    kernels = convolutions(state)
    first, last = kernels[0], kernels[-1]
    grey = state | {first: state[first].sum(1, keepdim=True)}

    if "ngf" in architecture:
        # The outputs come first, but second in the U-Net's last, transposed convolution.
        outputs = 1 if last == "model.model.3.weight" else 0
        bias = last.removesuffix("weight") + "bias"
        grey[last] = grey[last].mean(outputs, keepdim=True)
        grey[bias] = grey[bias].mean(0, keepdim=True)
    return grey


def grey_generator(state: State, path: Path, padding: str = "reflect") -> Generator:
    """A generator that takes and gives slices of one channel, made of one for grey or colour.

    Raises:
        ValueError: it is a discriminator, or for another number of channels.
    """
    generator = network_from_state(state, path, padding=padding)
    if not isinstance(generator, Generator):
        raise ValueError(
            f"{path} holds a discriminator, but only generators translate: give a generator"
        )

    architecture = infer_architecture(state)
    channels = {architecture["in_channels"], architecture["out_channels"]}
    if not channels <= {1, 3}:
        raise ValueError(
            f"{path} is for images of {architecture['in_channels']} channels and makes "
            f"{architecture['out_channels']}: choose a network for grey (1) or colour (3)"
        )
    if channels == {1}:
        return generator
    return network_from_state(state, path, grey=True, padding=padding)

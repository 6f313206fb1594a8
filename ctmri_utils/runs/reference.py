"""Networks of other programs, in the layout of the reference: which is which, and rebuilt."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

from ..cyclegan.architectures import (
    convolutions,
    infer_architecture,
    make_discriminator,
    make_generator,
)
from ..cyclegan.networks import Generator
from .recognise import GENERATORS, Networks, State, recognise

# The names of networks that say a direction, such as G_A, netG_AB, genA2B and latest_net_D_B.
ROLE = re.compile(
    r"(?:^|[._])(?:net_?)?(?:g|gen|generator|d|dis|discriminator)_?"
    r"(a2b|ab|atob|a|ct2mri|b2a|ba|btoa|b|mri2ct)$",
    flags=re.IGNORECASE,
)

# A is CT and B is MR, as in trainA and trainB.
TO_MRI = ("a2b", "ab", "atob", "a", "ct2mri")

# The networks of a model, without and with the averaged generators.
NETWORKS = ("G_ct2mri", "G_mri2ct", "D_ct", "D_mri")
ALL_NETWORKS = (*NETWORKS, "averaged.mri", "averaged.ct")

# An error names no more tensors than these.
MOST_NAMED = 3


def load_reference(
    path: str | Path, grey: bool = False, padding: str = "reflect", to: str | None = None
) -> nn.Module:
    """The network in a file of the reference, its architecture read off the weights.

    Any generator or discriminator of the reference, old or new, also from inside DataParallel,
    torch.compile or a Lightning checkpoint, in a .safetensors file, with the spectral norm of old
    PyTorch or without padding layers; and those that `save_reference` writes.

    Args:
        path: such as latest_net_G_A.pth.
        grey: make a colour network take and give one channel, see `grey_state`.
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
    if grey:
        state = grey_state(state, contents.path)
    return network_from_state(state, contents.path, padding)


def choose_network(contents: Networks, to: str | None) -> State:
    """The only network in a file, its only generator, or of several the one that makes `to`.

    Raises:
        ValueError: it is not clear which one is meant.
    """
    states = list(contents.states.values())
    candidates = states if len(states) == 1 else list(filter(is_generator, states))
    if len(candidates) == 1:
        return candidates[0]

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
    """The generators of a file by what they make, where their names say so."""
    roles = networks_by_role(contents.states)
    return {to: roles[role] for to, role in GENERATORS.items() if role in roles}


def networks_by_role(states: dict[str, State]) -> dict[str, State]:
    """Networks by the names that they have in a model, where their own names say which they are.

    In the reference D_A judges what G_A makes, which is B. Where generators are called G_AB or
    G_A2B, D_A judges A. Networks that would share a name are left out.
    """
    letters = {}
    for name in states:
        match = ROLE.search(name)
        if match:
            letters[name] = match[1].lower()
    names_say_both = any(len(word) > 1 for word in letters.values())

    by_role: dict[str, list[State]] = {}
    for name, state in states.items():
        if name in ALL_NETWORKS:
            role = name
        elif name not in letters:
            continue
        elif is_generator(state):
            role = "G_ct2mri" if letters[name] in TO_MRI else "G_mri2ct"
        else:
            judges_mri = (letters[name] in TO_MRI) != names_say_both
            role = "D_mri" if judges_mri else "D_ct"
        by_role.setdefault(role, []).append(state)
    return {role: group[0] for role, group in by_role.items() if len(group) == 1}


def is_generator(state: State) -> bool:
    """Whether weights begin as a generator's do, rather than a discriminator's."""
    return any(re.match(r"model\.1\.|model\.model\.", key) for key in state) and not any(
        re.match(r"(model|net)\.0\.", key) for key in state
    )


def network_from_state(state: State, path: Path, padding: str = "reflect") -> nn.Module:
    """The network with these weights, float32 and in eval mode.

    Raises:
        ValueError: in one sentence, they fit none of this package, or are not finite.
    """
    try:
        network = build_network(state, padding)
    except (LookupError, RuntimeError) as error:
        raise ValueError(
            f"{path} holds no network of a known kind: it must be a ResNet or U-Net generator, or "
            "a discriminator"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from error

    check_weights(state, network, path, infer_architecture(state)["name"])
    in_float32 = {
        key: tensor.float() if tensor.is_floating_point() else tensor
        for key, tensor in state.items()
    }
    network.load_state_dict(in_float32, assign=True)
    return network.eval()


def generator_from_state(state: State, path: Path, padding: str = "reflect") -> Generator:
    """As `network_from_state`; ValueError also for a discriminator."""
    network = network_from_state(state, path, padding)
    if not isinstance(network, Generator):
        raise ValueError(f"{path} holds a discriminator, which makes nothing: give a generator")
    return network


def check_weights(state: State, network: nn.Module, path: Path, name: str) -> None:
    """Check that weights are those of a network, and finite.

    Args:
        state: the weights.
        network: with weights of the right names and shapes.
        path: of the file, for the error.
        name: of the network or networks, for the error.

    Raises:
        ValueError: they are not.
    """
    difference = state_difference(state, network.state_dict())
    if difference:
        raise ValueError(f"{path} does not fit {name}: it {difference}")
    for key, tensor in state.items():
        if not tensor.isfinite().all():
            raise ValueError(
                f"{path} holds weights that are not finite ({key}): its training run failed, so "
                "take an earlier checkpoint"
            )


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


def state_difference(state: State, expected: State) -> str | None:
    """How weights differ from those of a network, as a sentence's end; None if they fit."""
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    for verb, keys in (("lacks", missing), ("also has", unexpected)):
        if keys:
            more = f" and {len(keys) - MOST_NAMED} more" if len(keys) > MOST_NAMED else ""
            return f"{verb} {', '.join(keys[:MOST_NAMED])}{more}"

    for key, tensor in expected.items():
        shape, expected_shape = tuple(state[key].shape), tuple(tensor.shape)
        if shape != expected_shape:
            return f"has {key} in the shape {shape} instead of {expected_shape}"
    return None


def grey_state(state: State, path: Path) -> State:
    """The weights for one channel of a network that was made for several.

    It does what the network does with a grey image in all its channels. The first kernels are
    summed over their inputs, which is exact. The last, of a generator, are averaged over its
    outputs before the tanh, which is exact where these agree, as grey ones do.

    Raises:
        ValueError: they fit no network, or have spectral norm, which the sum would change.
    """
    network_from_state(state, path)
    architecture = infer_architecture(state)
    if architecture.get("spectral"):
        raise ValueError(
            f"{path} cannot be made grey: its spectral norm would no longer be that of its weights"
        )
    kernels = convolutions(state)
    first, last = kernels[0], kernels[-1]
    grey = state | {first: state[first].sum(1, keepdim=True)}

    if "ngf" in architecture:
        # A weight's first axis is the outputs; of the U-Net's transposed convolution, the second.
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
    generator = generator_from_state(state, path, padding)
    architecture = infer_architecture(state)
    inputs, outputs = architecture["in_channels"], architecture["out_channels"]
    if not {inputs, outputs} <= {1, 3}:
        raise ValueError(
            f"{path} is for images of {inputs} channels and makes {outputs}: choose a network for "
            "grey (1) or colour (3)"
        )
    if inputs == outputs == 1:
        return generator
    return generator_from_state(grey_state(state, path), path, padding)

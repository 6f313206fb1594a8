"""What a file of networks holds: one answer for every command; nothing in a file is run.

It is a model of this package, from a checkpoint or from `save_weights`, or networks of another
program: state dicts in the layout of the reference, whatever wraps them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..cyclegan.resume import PARTS, checkpoint_content
from ..files import existing, read_start

State = dict[str, Tensor]

# How files begin that are often taken for weights, and what to say of them.
FOREIGN = {
    b"<": "is a web page, from a failed download: download it again in a browser",
    b"version https://git-lfs": "is a pointer of Git LFS: run `git lfs pull` where it came from",
    b"\x89HDF": "is HDF5, as Keras writes it: only PyTorch networks can be read",
    b"\x08": "is ONNX, which is written but not read: use the file that it was exported from",
}

# Keys under which containers keep a network, and which say nothing about it.
WRAPPERS = {"state_dict", "model_state_dict", "model_state", "params", "model", "weights"}

# DataParallel and torch.compile put these before or between the names of layers.
INSERTED = {"module", "_orig_mod"}

LAYER = re.compile(r"(?:^|(?<=\.))(?:model|net)\.\d+\.")

# Spectral norm had these names before PyTorch's parametrizations, and the same numbers.
OLD_SPECTRAL = {
    "weight_orig": "parametrizations.weight.original",
    "weight_u": "parametrizations.weight.0._u",
    "weight_v": "parametrizations.weight.0._v",
}

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

# The generators of a model, by what they make.
GENERATORS = {"mri": "G_ct2mri", "ct": "G_mri2ct"}


@dataclass(frozen=True)
class SavedModel:
    """A model of this package.

    Args:
        path: of the file.
        state: weights by their names in the model; where only averaged generators were kept, they
            are the current ones too.
        settings: those that build its networks, among others.
        contract: as JSON keeps it, None in a file that is older than contracts.
        is_checkpoint: whether the discriminators are there too.
    """

    path: Path
    state: State
    settings: dict[str, Any]
    contract: dict[str, Any] | None
    is_checkpoint: bool

    @classmethod
    def of_run(cls, run: dict[str, Any], path: Path) -> SavedModel:
        """The model in a checkpoint that `load_checkpoint` read."""
        return cls(path, run["model"], run["identity"], run.get("contract"), is_checkpoint=True)


@dataclass(frozen=True)
class Networks:
    """State dicts by their names in the file; "" where the file is a single network."""

    path: Path
    states: dict[str, State]


def recognise(path: str | Path) -> SavedModel | Networks:
    """What a file holds, read without running anything in it.

    Args:
        path: .pt, .pth, .ckpt, .safetensors: what is inside decides, not the name.

    Raises:
        FileNotFoundError, OSError: it is missing, or the system does not let it be read.
        ValueError: in one sentence, it is damaged, unsafe or something else.
    """
    path = existing(path, "give the path of a file of weights")
    beginning = read_start(path, 64)
    if not beginning:
        raise ValueError(f"{path} is empty: copy or download it again")

    # A .safetensors file begins with the length of its header, which may look like anything.
    if beginning[8:9] == b"{":
        content, card = read_safetensors(path)
        if card is not None:
            return averaged_model(content, card, path)
    else:
        content = read_pickle(path, beginning)

    if isinstance(content, dict) and PARTS.keys() <= content.keys():
        return SavedModel.of_run(checkpoint_content(content, path), path)
    return Networks(path, networks_in(content, path))


def read_safetensors(path: Path) -> tuple[State, str | None]:
    """The tensors of a .safetensors file, and the card of `save_weights` if it has one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            card = (file.metadata() or {}).get("card")
            return {name: file.get_tensor(name) for name in file.keys()}, card  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(path, error) from error


def averaged_model(weights: State, card: str, path: Path) -> SavedModel:
    """The model whose averaged generators `save_weights` kept.

    Raises:
        ValueError: the card is not one of a model.
    """
    try:
        content = json.loads(card)
        settings, contract = dict(content["architecture"]), content.get("contract")
    except KeyError as error:
        raise ValueError(
            f"{path} holds no translator (its card names no architecture): choose weights of a "
            "run, or shipped ones such as heads"
        ) from error
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} has a card that cannot be read ({type(error).__name__}): copy or download "
            "the file again"
        ) from error

    state = {}
    for name, tensor in weights.items():
        state[f"averaged.{name}"] = tensor
        to, _, layer = name.partition(".")
        if to in GENERATORS:
            state[f"{GENERATORS[to]}.{layer}"] = tensor
    return SavedModel(path, state, settings, contract, is_checkpoint=False)


def read_pickle(path: Path, beginning: bytes) -> Any:
    """What `torch.save` wrote, if it is tensors and plain values."""
    for start, sentence in FOREIGN.items():
        if beginning.lstrip().startswith(start):
            raise ValueError(f"{path} {sentence}")
    if not beginning.startswith((b"PK", b"\x80")):
        raise ValueError(
            f"{path} holds no weights of a known format, or is damaged: give a .pt, .pth, .ckpt "
            "or .safetensors file"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        objects = names_of_objects(path)
        if objects:
            raise ValueError(
                f"{path} holds Python objects besides tensors ({', '.join(objects[:3])}), none of "
                "which was run: save only the network's state_dict() in the program that made it"
            ) from error
        raise damaged(path, error) from error


def names_of_objects(path: Path) -> list[str]:
    """The classes and functions that a file asks for; none where that cannot be read."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:
        return []


def damaged(path: Path, error: Exception) -> ValueError:
    """The error for a file that cannot be read."""
    return ValueError(
        f"{path} is damaged, truncated or holds more than tensors ({type(error).__name__}), and "
        "nothing in it was run: copy or download it again"
    )


def networks_in(content: Any, path: Path) -> dict[str, State]:
    """The networks in what was read, by the names that remain once wrappers are taken away.

    Raises:
        ValueError: there is none.
    """
    tensors = dict(flatten(content))
    groups: dict[str, State] = {}
    outside = {}
    for key, tensor in tensors.items():
        parts = [part for part in key.split(".") if part not in INSERTED]
        plain = ".".join(parts)
        layer = LAYER.search(plain)
        if layer is None:
            outside[plain] = tensor
        else:
            prefix, name = plain[: layer.start()], plain[layer.start() :]
            groups.setdefault(prefix, {})[name] = tensor

    if not groups:
        sample = f" (its first tensor is {next(iter(tensors))!r})" if tensors else ""
        raise ValueError(
            f"{path} holds no network of a known kind{sample}: give a ResNet, U-Net or "
            "PatchGAN in the reference's layout"
        )

    # Tensors beside the layers of a network belong to it, so that `check_weights` refuses them.
    for key, tensor in outside.items():
        for prefix, state in groups.items():
            if key.startswith(prefix):
                state[key.removeprefix(prefix)] = tensor
    for state in groups.values():
        check_size(state, path)
    return with_short_names({prefix: modernised(state) for prefix, state in groups.items()})


def check_size(state: State, path: Path) -> None:
    """Raise ValueError for tensors that a file of this size cannot hold."""
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if size_bytes > path.stat().st_size:
        raise ValueError(
            f"{path} claims to hold more numbers than fit into it: it is damaged or malicious"
        )


def flatten(content: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested dicts, by their keys joined with dots."""
    if isinstance(content, Tensor) and prefix:
        yield prefix.removesuffix("."), content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from flatten(value, f"{prefix}{key}.")


def with_short_names(groups: dict[str, State]) -> dict[str, State]:
    """The networks by their prefixes without wrappers' names, where these tell them apart."""
    short = {}
    for prefix in groups:
        parts = [part for part in prefix.split(".") if part and part not in WRAPPERS]
        short[prefix] = ".".join(parts)

    counts = Counter(short.values())
    named = {}
    for prefix, state in groups.items():
        unique = counts[short[prefix]] == 1
        named[short[prefix] if unique else prefix.removesuffix(".")] = state
    return named


def modernised(state: State) -> State:
    """A state dict with today's names, and without what old versions kept for nothing."""
    renamed = {}
    for key, tensor in state.items():
        layer, dot, last = key.rpartition(".")
        renamed[layer + dot + OLD_SPECTRAL.get(last, last)] = tensor

    # The levels of a U-Net are nested; the outermost one's name was taken for a prefix.
    if any(re.match(r"model\.\d+\.model\.", key) for key in renamed):
        renamed = {f"model.{key}": tensor for key, tensor in renamed.items()}

    # Before PyTorch 0.4 instance norm kept running statistics, and ignored them. Only those of
    # batch norm stand beside a weight.
    modern = {}
    for key, tensor in renamed.items():
        layer, _, last = key.rpartition(".")
        if last not in STATISTICS or f"{layer}.weight" in renamed:
            modern[key] = tensor

            # Batch norm counts its batches since PyTorch 0.4.1.
            if last == "running_var":
                modern.setdefault(f"{layer}.num_batches_tracked", torch.tensor(0))
    return modern

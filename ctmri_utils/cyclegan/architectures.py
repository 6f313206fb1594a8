"""Networks by the names of the reference implementation, and those names read off weights."""

from __future__ import annotations

import re

from torch import Tensor

from .networks import Generator, PatchDiscriminator, ResnetGenerator
from .variants import PixelDiscriminator, UnetGenerator


def make_generator(
    name: str = "resnet_9blocks", in_channels: int = 1, out_channels: int = 1, **options
) -> Generator:
    """The generator with the reference's name.

    Args:
        name: resnet_9blocks (or any number of blocks), unet_256 (or any power of two from 4 on).
        in_channels, out_channels: of the images.
        options: ngf, norm, dropout, upsampling, padding, as the classes take them.

    Raises:
        ValueError: another name.
    """
    resnet = re.fullmatch(r"resnet_(\d+)blocks", name)
    if resnet:
        return ResnetGenerator(in_channels, out_channels, n_blocks=int(resnet[1]), **options)

    unet = re.fullmatch(r"unet_(\d+)", name)
    if unet:
        side = int(unet[1])
        n_downs = side.bit_length() - 1
        if n_downs >= 2 and side == 2**n_downs:
            return UnetGenerator(in_channels, out_channels, n_downs=n_downs, **options)

    raise ValueError(
        f"generator={name!r} is not known: choose resnet_9blocks, resnet_6blocks (any number of "
        "blocks), unet_256, unet_128 (any power of two from 4 on)"
    )


def make_discriminator(
    name: str = "basic",
    in_channels: int = 1,
    *,
    ndf: int = 64,
    n_layers: int = 3,
    norm: str = "instance",
    spectral: bool = False,
) -> PatchDiscriminator | PixelDiscriminator:
    """The discriminator with the reference's name.

    Args:
        name: basic (a PatchGAN of 3 layers), n_layers (of `n_layers`), pixel.
        in_channels, ndf, n_layers, norm, spectral: as `PatchDiscriminator` takes them.

    Raises:
        ValueError: another name, or basic with another number of layers.
    """
    if name == "basic" and n_layers != 3:
        raise ValueError(
            f"the basic discriminator has 3 layers, not n_layers={n_layers}: choose n_layers as "
            "its name"
        )
    if name in ("basic", "n_layers"):
        return PatchDiscriminator(in_channels, ndf, n_layers, norm, spectral)
    if name == "pixel":
        return PixelDiscriminator(in_channels, ndf, norm, spectral)
    raise ValueError(f"discriminator={name!r} is not known: choose one of basic, n_layers, pixel")


def convolutions(state: dict[str, Tensor]) -> list[str]:
    """The keys of all convolutions' weights in a state dict, from the first layer to the last."""

    def in_order(key: str) -> list[str]:
        # model.4 comes before model.10.
        return [part.zfill(9) for part in key.split(".")]

    keys = [key for key, tensor in state.items() if key.endswith(".weight") and tensor.ndim == 4]
    return sorted(keys, key=in_order)


def infer_architecture(state: dict[str, Tensor]) -> dict:
    """The arguments with which `make_generator` or `make_discriminator` rebuilds a network.

    A U-Net's weights do not say whether it had dropout: the answer is no. A ResNet's do not say
    whether its blocks pad by reflection or by replication: "padding" is given only if it is "zero".

    Args:
        state: names and shapes as the reference has them, in any order, and as "resize" and
            spectral norm have them.

    Returns:
        The arguments by name; "ndf" is among those of a discriminator, "ngf" of a generator.

    Raises:
        ValueError: the weights of any other network.
    """
    plain = {
        key.replace(".parametrizations.weight.original", ".weight"): tensor
        for key, tensor in state.items()
    }
    kernels = convolutions(plain)
    first = kernels[0] if len(kernels) >= 3 else None
    if first in ("model.0.weight", "net.0.weight"):
        arguments = discriminator_arguments(kernels) | {"spectral": plain.keys() != state.keys()}
        width = "ndf"
    elif first == "model.1.weight":
        arguments, width = resnet_arguments(plain, kernels), "ngf"
    elif first == "model.model.0.weight":
        arguments, width = unet_arguments(plain, kernels), "ngf"
    else:
        raise ValueError(
            "these weights belong to no network known here (resnet_9blocks, unet_256 and their "
            "kin; basic, n_layers, pixel)"
        )

    # The second convolution stands before a normalisation, which decides on its bias.
    if any(key.endswith(".weight") and tensor.ndim == 1 for key, tensor in plain.items()):
        norm = "batch"
    else:
        norm = "instance" if kernels[1].removesuffix("weight") + "bias" in plain else "none"
    outputs, inputs = plain[first].shape[:2]
    return arguments | {width: outputs, "in_channels": inputs, "norm": norm}


def discriminator_arguments(kernels: list[str]) -> dict:
    """What the names of its convolutions say of a discriminator."""
    if kernels[0] == "net.0.weight":
        return {"name": "pixel"}
    n_layers = len(kernels) - 2
    return {"name": "basic" if n_layers == 3 else "n_layers", "n_layers": n_layers}


def resnet_arguments(state: dict[str, Tensor], kernels: list[str]) -> dict:
    """What the names and shapes of its convolutions say of a ResNet generator."""
    matches = [re.fullmatch(r"model\.\d+\.conv_block\.(\d+)\.weight", key) for key in kernels]

    # The two convolutions of a block are its layers 1 and 5, with dropout 1 and 6; without padding
    # layers 0 and 3, with dropout 0 and 4. Layers that reflect and that replicate look the same.
    positions = [match[1] for match in matches if match]
    zero = "0" in positions
    n_blocks = len(positions) // 2
    resize = f"model.{10 + n_blocks}.2.weight" in state
    arguments = {
        "name": f"resnet_{n_blocks}blocks",
        "dropout": ("4" if zero else "6") in positions,
        "out_channels": state[kernels[-1]].shape[0],
        "upsampling": "resize" if resize else "transposed",
    }
    return arguments | {"padding": "zero"} if zero else arguments


def unet_arguments(state: dict[str, Tensor], kernels: list[str]) -> dict:
    """What the names and shapes of its convolutions say of a U-Net generator."""
    resize = kernels[-1] == "model.model.3.2.weight"

    # A transposed convolution's weight has the inputs first, then the outputs.
    outputs = 0 if resize else 1
    return {
        "name": f"unet_{2 ** (len(kernels) // 2)}",
        "out_channels": state[kernels[-1]].shape[outputs],
        "upsampling": "resize" if resize else "transposed",
    }

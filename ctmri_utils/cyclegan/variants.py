"""Other networks than the paper's, all networks by name, and names read off weights.

Source: Isola et al. 2017 (arXiv 1611.07004) and the reference implementation.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from .networks import (
    Generator,
    PatchDiscriminator,
    ResnetGenerator,
    add_spectral_norm,
    has_bias,
    norm_layer,
    upsample,
)


class UnetBlock(nn.Module):
    """One level of the U-Net: halve, go through the next level, double, keep the input beside it.

    The outermost level is the one that says its `in_channels`; the innermost has no submodule.
    """

    def __init__(
        self,
        outer: int,
        inner: int,
        norm: str,
        upsampling: str,
        *,
        submodule: nn.Module | None = None,
        in_channels: int | None = None,
        dropout: bool = False,
    ):
        super().__init__()
        self.outermost = in_channels is not None
        innermost = submodule is None
        bias = has_bias(norm)

        halve = nn.Conv2d(
            in_channels if self.outermost else outer, inner, 4, stride=2, padding=1, bias=bias
        )
        double = upsample(
            upsampling, inner if innermost else 2 * inner, outer, 4, bias or self.outermost
        )

        # In place on purpose: the skip carries the *activated* input, as it does in the reference.
        activation = nn.LeakyReLU(0.2, inplace=True)
        if self.outermost:
            layers = [halve, submodule, nn.ReLU(True), double, nn.Tanh()]
        elif innermost:
            layers = [activation, halve, nn.ReLU(True), double, norm_layer(norm, outer)]
        else:
            layers = [
                activation,
                halve,
                norm_layer(norm, inner),
                submodule,
                nn.ReLU(True),
                double,
                norm_layer(norm, outer),
            ]
        if dropout:
            layers.append(nn.Dropout(0.5))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        if self.outermost:
            return self.model(x)
        return torch.cat([x, self.model(x)], 1)


class UnetGenerator(Generator):
    """The pix2pix generator: `n_downs` halvings with skips; 8 is the reference's unet_256.

    Images are padded to multiples of 2**n_downs (see `Generator`). Dropout is between the widest
    levels, so only with 6 halvings or more. The arguments are those of `ResnetGenerator`.

    Raises:
        ValueError: n_downs below 2.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        ngf: int = 64,
        n_downs: int = 8,
        norm: str = "instance",
        dropout: bool = False,
        upsampling: str = "transposed",
        pad: bool = True,
    ):
        if n_downs < 2:
            raise ValueError(f"n_downs={n_downs} is too few for a U-Net: use 2 or more")
        widths = [ngf * min(2**level, 8) for level in range(n_downs)]

        # From the innermost level outwards.
        block = None
        for level in range(n_downs - 1, 0, -1):
            block = UnetBlock(
                widths[level - 1],
                widths[level],
                norm,
                upsampling,
                submodule=block,
                dropout=dropout and 4 <= level < n_downs - 1,
            )
        block = UnetBlock(
            out_channels, ngf, norm, upsampling, submodule=block, in_channels=in_channels
        )
        super().__init__(block, multiple=2**n_downs, smallest=2, pad=pad)


class PixelDiscriminator(nn.Module):
    """A 1x1 PatchGAN: judges every pixel's value alone.

    (N, in_channels, H, W) -> (N, 1, H, W), unbounded. The arguments are those of
    `PatchDiscriminator`.
    """

    def __init__(
        self, in_channels: int = 1, ndf: int = 64, norm: str = "instance", spectral: bool = False
    ):
        super().__init__()
        bias = has_bias(norm)
        self.net = nn.Sequential(
            nn.Conv2d(in_channels, ndf, 1),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(ndf, 2 * ndf, 1, bias=bias),
            norm_layer(norm, 2 * ndf),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(2 * ndf, 1, 1, bias=bias),
        )
        if spectral:
            add_spectral_norm(self.net)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def make_generator(
    name: str = "resnet_9blocks", in_channels: int = 1, out_channels: int = 1, **options
) -> Generator:
    """The generator with the reference's name.

    Args:
        name: resnet_9blocks (or any number of blocks), unet_256 (or any power of two from 4 on).
        in_channels, out_channels: of the images.
        options: ngf, norm, dropout, upsampling, pad, padding, as the classes take them.

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
    arguments = {}
    if first in ("model.0.weight", "net.0.weight"):
        arguments = discriminator_arguments(kernels, spectral=plain.keys() != state.keys())
        arguments["ndf"] = plain[first].shape[0]
    elif first == "model.1.weight":
        arguments = resnet_arguments(plain, kernels)
        arguments["ngf"] = plain[first].shape[0]
    elif first == "model.model.0.weight":
        arguments = unet_arguments(plain, kernels)
        arguments["ngf"] = plain[first].shape[0]
    else:
        raise ValueError(
            "these weights belong to no network known here (resnet_9blocks, unet_256 and their "
            "kin; basic, n_layers, pixel)"
        )

    # The second convolution stands before a normalisation, which decides on its bias.
    has_scale = any(key.endswith(".weight") and tensor.ndim == 1 for key, tensor in plain.items())
    keeps_bias = kernels[1].removesuffix("weight") + "bias" in plain
    if has_scale:
        norm = "batch"
    else:
        norm = "instance" if keeps_bias else "none"
    return arguments | {"in_channels": plain[first].shape[1], "norm": norm}


def discriminator_arguments(kernels: list[str], spectral: bool) -> dict:
    if kernels[0] == "net.0.weight":
        return {"name": "pixel", "spectral": spectral}
    n_layers = len(kernels) - 2
    name = "basic" if n_layers == 3 else "n_layers"
    return {"name": name, "n_layers": n_layers, "spectral": spectral}


def resnet_arguments(state: dict[str, Tensor], kernels: list[str]) -> dict:
    matches = [re.fullmatch(r"model\.\d+\.conv_block\.(\d+)\.weight", key) for key in kernels]

    # Of the convolutions in all blocks: 1 and 5, after dropout 6. Without padding layers 0 and 3,
    # after dropout 4. Layers that reflect and layers that replicate look alike.
    places = [match[1] for match in matches if match]
    zero = "0" in places
    n_blocks = len(places) // 2
    resize = f"model.{10 + n_blocks}.2.weight" in state
    arguments = {
        "name": f"resnet_{n_blocks}blocks",
        "dropout": ("4" if zero else "6") in places,
        "out_channels": state[kernels[-1]].shape[0],
        "upsampling": "resize" if resize else "transposed",
    }
    return arguments | {"padding": "zero"} if zero else arguments


def unet_arguments(state: dict[str, Tensor], kernels: list[str]) -> dict:
    resize = kernels[-1] == "model.model.3.2.weight"

    # A transposed convolution's weight has the inputs first, then the outputs.
    outputs = 0 if resize else 1
    return {
        "name": f"unet_{2 ** (len(kernels) // 2)}",
        "out_channels": state[kernels[-1]].shape[outputs],
        "upsampling": "resize" if resize else "transposed",
    }

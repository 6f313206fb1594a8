"""Generators and discriminators in the reference implementation's module order, so that its `*.pth`
files load as they are.

Source of every architecture: Zhu et al. 2017 (arXiv 1703.10593), Isola et al. 2017 (arXiv
1611.07004) and the module order of junyanz/pytorch-CycleGAN-and-pix2pix. All networks take (N,
in_channels, H, W) float tensors in [-1, 1].
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from .fast_cpu import InstanceNorm, LastConv, ReflectionPad

NORMS = {
    "instance": lambda channels: InstanceNorm(),
    "batch": lambda channels: nn.BatchNorm2d(channels),
    "none": lambda channels: nn.Identity(),
}


def normalisation(norm: str):
    """The constructor of a normalisation layer, and whether the convolution before it keeps its
    bias (as the reference decides it).

    Raises ValueError for a name other than "instance", "batch" or "none".
    """
    if norm not in NORMS:
        raise ValueError(f"norm={norm!r} is not known: choose one of {', '.join(NORMS)}")
    return NORMS[norm], norm == "instance"


def upsample(kind: str, inner: int, outer: int, kernel: int, bias: bool) -> nn.Module:
    """The layer that doubles both sides.

    "transposed" convolution as in the reference, or "resize", which draws no checkerboard.

    "resize" is nearest-neighbour enlargement and a 3x3 convolution (Odena et al. 2016). Raises
    ValueError for another kind.
    """
    if kind == "transposed":
        return nn.ConvTranspose2d(
            inner, outer, kernel, stride=2, padding=1, output_padding=kernel % 2, bias=bias
        )
    if kind == "resize":
        return nn.Sequential(
            nn.Upsample(scale_factor=2), ReflectionPad(1), nn.Conv2d(inner, outer, 3, bias=bias)
        )
    raise ValueError(f"upsampling={kind!r} is not known: choose one of transposed, resize")


class Generator(nn.Module):
    """What both generators share: images of any size.

    The layers need sides that are divisible by `multiple` and at least `smallest`. With `pad` other
    images are extended by reflection, and the result is cropped back. Raises ValueError for images
    too small for that, and without `pad` for all that do not fit.
    """

    def __init__(self, model: nn.Module, multiple: int, smallest: int, pad: bool):
        super().__init__()
        self.model, self.multiple, self.smallest, self.pad = model, multiple, smallest, pad

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        # pixels to add
        down, across = -height % self.multiple, -width % self.multiple
        if not self.pad and (down or across):
            raise ValueError(
                f"the generator got {height}x{width} pixels: both sides must be divisible by "
                f"{self.multiple}; build it with pad=True or with fewer halvings, or resize first"
            )
        top, left = down // 2, across // 2
        if (
            min(height + down, width + across) < self.smallest
            or down - top >= height
            or across - left >= width
        ):
            raise ValueError(
                f"the generator got {height}x{width} pixels, too few for it even with padding: use "
                "larger slices, or a network with fewer halvings"
            )
        if self.pad:
            x = F.pad(x, [left, across - left, top, down - top], mode="reflect")
        # (N, out_channels, H, W) in (-1, 1)
        return self.model(x)[..., top : top + height, left : left + width]


class ResnetBlock(nn.Module):
    """Two 3x3 convolutions whose result is added to the input; (N, channels, H, W) in and out."""

    def __init__(self, channels: int, norm: str, dropout: bool):
        super().__init__()
        layer, bias = normalisation(norm)
        self.conv_block = nn.Sequential(
            ReflectionPad(1),
            nn.Conv2d(channels, channels, 3, bias=bias),
            layer(channels),
            nn.ReLU(True),
            *([nn.Dropout(0.5)] if dropout else []),
            ReflectionPad(1),
            nn.Conv2d(channels, channels, 3, bias=bias),
            layer(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)  # (N, channels, H, W)


class ResnetGenerator(Generator):
    """The CycleGAN generator.

    7x7 convolution, two halvings, `n_blocks` residual blocks, two doublings, 7x7 convolution, tanh.

    (N, in_channels, H, W) in [-1, 1] -> (N, out_channels, H, W) in (-1, 1); H and W at least 8,
    padded to multiples of 4 (see `Generator`). A blank slice, whose values differ by less than
    1e-4, becomes a blank one with instance norm: all its activations are constant, so they are 0
    after each norm, and computing them would only amplify rounding errors into a texture and into
    gradients of thousands.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        ngf: int = 64,
        n_blocks: int = 9,
        norm: str = "instance",
        dropout: bool = False,
        upsampling: str = "transposed",
        pad: bool = True,
    ):
        layer, bias = normalisation(norm)
        modules = [
            ReflectionPad(3),
            nn.Conv2d(in_channels, ngf, 7, bias=bias),
            layer(ngf),
            nn.ReLU(True),
        ]
        for width in (ngf, 2 * ngf):
            modules += [
                nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=bias),
                layer(2 * width),
                nn.ReLU(True),
            ]
        modules += [ResnetBlock(4 * ngf, norm, dropout) for _ in range(n_blocks)]
        for width in (4 * ngf, 2 * ngf):
            modules += [
                upsample(upsampling, width, width // 2, 3, bias),
                layer(width // 2),
                nn.ReLU(True),
            ]
        modules += [ReflectionPad(3), LastConv(ngf, out_channels, 7), nn.Tanh()]
        super().__init__(nn.Sequential(*modules), multiple=4, smallest=8, pad=pad)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        translated = super().forward(x)
        if self.norm != "instance":
            return translated
        blank = (x.amax((2, 3), keepdim=True) - x.amin((2, 3), keepdim=True) < 1e-4).all(
            1, keepdim=True
        )  # (N, 1, 1, 1)
        return torch.where(
            blank, self.model[-2].bias.tanh()[:, None, None].to(translated.dtype), translated
        )


class UnetBlock(nn.Module):
    """One level of the U-Net.

    Halve, go through the next level, double, and hand the input on beside the result.
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
        layer, bias = normalisation(norm)
        self.outermost = in_channels is not None
        down = nn.Conv2d(
            outer if in_channels is None else in_channels, inner, 4, stride=2, padding=1, bias=bias
        )
        up = upsample(
            upsampling, inner if submodule is None else 2 * inner, outer, 4, bias or self.outermost
        )
        # In place on purpose: the skip carries the *activated* input, as it does in the reference.
        activation = nn.LeakyReLU(0.2, inplace=True)
        if self.outermost:
            modules = [down, submodule, nn.ReLU(True), up, nn.Tanh()]
        elif submodule is None:
            modules = [activation, down, nn.ReLU(True), up, layer(outer)]
        else:
            modules = [activation, down, layer(inner), submodule, nn.ReLU(True), up, layer(outer)]
        self.model = nn.Sequential(*modules, *([nn.Dropout(0.5)] if dropout else []))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


class UnetGenerator(Generator):
    """The pix2pix generator.

    `n_downs` halvings with skips; 8 is the reference's unet_256, 7 its unet_128.

    (N, in_channels, H, W) in [-1, 1] -> (N, out_channels, H, W) in (-1, 1), padded to multiples of
    2**n_downs (see `Generator`). Dropout is between the widest levels, so only with 6 halvings or
    more. Raises ValueError for n_downs below 2.
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
        block = None
        for level in range(n_downs - 1, 0, -1):
            drops = dropout and 4 <= level < n_downs - 1
            block = UnetBlock(
                widths[level - 1], widths[level], norm, upsampling, submodule=block, dropout=drops
            )
        block = UnetBlock(
            out_channels, ngf, norm, upsampling, submodule=block, in_channels=in_channels
        )
        super().__init__(block, multiple=2**n_downs, smallest=2, pad=pad)


def spectrally_normalised(network: nn.Module, wanted: bool = True) -> nn.Module:
    """The network, if `wanted` with each convolution's weight divided by its largest singular value
    (Miyato et al. 2018).
    """
    for module in network.modules():
        if wanted and isinstance(module, nn.Conv2d):
            spectral_norm(module)
    return network


class PatchDiscriminator(nn.Module):
    """PatchGAN: one verdict for each overlapping patch, 70x70 pixels with `n_layers=3` ("basic" in
    the reference).

    (N, in_channels, H, W) -> (N, 1, h, w), unbounded; h = H / 2**n_layers - 2 if that divides H.
    Raises ValueError for images smaller than 3 * 2**n_layers pixels: their last normalised map
    would be a single pixel.
    """

    def __init__(
        self,
        in_channels: int = 1,
        ndf: int = 64,
        n_layers: int = 3,
        norm: str = "instance",
        spectral: bool = False,
    ):
        super().__init__()
        if n_layers < 1:
            raise ValueError(
                f"n_layers={n_layers} is too few for a PatchGAN: use 1 or more, or the pixel "
                "discriminator"
            )
        layer, bias = normalisation(norm)
        widths = [ndf * min(2**n, 8) for n in range(n_layers + 1)]
        modules: list[nn.Module] = [
            nn.Conv2d(in_channels, ndf, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, True),
        ]
        for n in range(1, n_layers + 1):
            stride = 2 if n < n_layers else 1
            convolution = nn.Conv2d(
                widths[n - 1], widths[n], 4, stride=stride, padding=1, bias=bias
            )
            modules += [convolution, layer(widths[n]), nn.LeakyReLU(0.2, True)]
        self.smallest = 3 * 2**n_layers
        self.model = spectrally_normalised(
            nn.Sequential(*modules, nn.Conv2d(widths[-1], 1, 4, stride=1, padding=1)), spectral
        )

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if min(height, width) < self.smallest:
            raise ValueError(
                f"the PatchGAN got {height}x{width} pixels: it needs {self.smallest} per side, or "
                "fewer n_layers"
            )
        return self.model(x)  # (N, 1, h, w)


class PixelDiscriminator(nn.Module):
    """A 1x1 PatchGAN: judges every pixel's value alone.

    (N, in_channels, H, W) -> (N, 1, H, W), unbounded.
    """

    def __init__(
        self, in_channels: int = 1, ndf: int = 64, norm: str = "instance", spectral: bool = False
    ):
        super().__init__()
        layer, bias = normalisation(norm)
        self.net = spectrally_normalised(
            nn.Sequential(
                nn.Conv2d(in_channels, ndf, 1),
                nn.LeakyReLU(0.2, True),
                nn.Conv2d(ndf, 2 * ndf, 1, bias=bias),
                layer(2 * ndf),
                nn.LeakyReLU(0.2, True),
                nn.Conv2d(2 * ndf, 1, 1, bias=bias),
            ),
            spectral,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # (N, 1, H, W)


def make_generator(
    name: str = "resnet_9blocks", in_channels: int = 1, out_channels: int = 1, **options
) -> Generator:
    """The generator with the reference's `name`.

    Resnet_9blocks (or any number of blocks), unet_256 (or any power of two from 4 on).

    options: ngf, norm, dropout, upsampling, pad, as the classes take them. Raises ValueError for
    another name.
    """
    if blocks := re.fullmatch(r"resnet_(\d+)blocks", name):
        return ResnetGenerator(in_channels, out_channels, n_blocks=int(blocks[1]), **options)
    size = re.fullmatch(r"unet_(\d+)", name)
    if size and (n_downs := int(size[1]).bit_length() - 1) >= 2 and int(size[1]) == 2**n_downs:
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
    """The discriminator with the reference's `name`.

    Basic (a PatchGAN of 3 layers), n_layers (of `n_layers`), pixel.

    Raises ValueError for another name, and for basic with another number of layers.
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
    keys = [key for key, tensor in state.items() if key.endswith(".weight") and tensor.ndim == 4]
    # model.4 before model.10
    return sorted(keys, key=lambda key: [part.zfill(9) for part in key.split(".")])


def infer_architecture(state: dict[str, Tensor]) -> dict:
    """The arguments of `make_generator` or `make_discriminator` that rebuild the network of a state
    dict; "name" tells which of the two.

    Names and shapes as the reference has them, in any order, and as "resize" and spectral norm have
    them. A U-Net's weights do not say whether it had dropout: the answer is no. Raises ValueError
    for the weights of any other network.
    """
    plain = {
        key.replace(".parametrizations.weight.original", ".weight"): tensor
        for key, tensor in state.items()
    }
    kernels = convolutions(plain)
    first = kernels[0] if len(kernels) >= 3 else None
    if first not in ("model.0.weight", "net.0.weight", "model.1.weight", "model.model.0.weight"):
        raise ValueError(
            "these weights belong to no network known here (resnet_9blocks, unet_256 and their "
            "kin; basic, n_layers, pixel)"
        )
    (width, in_channels), last = plain[first].shape[:2], plain[kernels[-1]].shape
    batch = any(key.endswith(".weight") and tensor.ndim == 1 for key, tensor in plain.items())
    biased = kernels[1].removesuffix("weight") + "bias" in plain
    found = {
        "in_channels": in_channels,
        "norm": "batch" if batch else "instance" if biased else "none",
    }
    if first in ("model.0.weight", "net.0.weight"):
        found |= {"ndf": width, "spectral": plain.keys() != state.keys()}
        n_layers = len(kernels) - 2
        return found | (
            {"name": "pixel"}
            if first == "net.0.weight"
            else {"name": "basic" if n_layers == 3 else "n_layers", "n_layers": n_layers}
        )
    if first == "model.1.weight":
        blocks = [re.fullmatch(r"model\.\d+\.conv_block\.(\d+)\.weight", key) for key in kernels]
        # of the convolutions in all blocks: 1 and 5, after dropout 6
        places = [block[1] for block in blocks if block]
        resize = f"model.{10 + len(places) // 2}.2.weight" in plain
        found |= {
            "name": f"resnet_{len(places) // 2}blocks",
            "dropout": "6" in places,
            "out_channels": last[0],
        }
    else:
        resize = kernels[-1] == "model.model.3.2.weight"
        found |= {
            "name": f"unet_{2 ** (len(kernels) // 2)}",
            "out_channels": last[0 if resize else 1],
        }
    return found | {"ngf": width, "upsampling": "resize" if resize else "transposed"}


INITS = {
    "normal": lambda weight, gain: nn.init.normal_(weight, 0.0, gain),
    "xavier": lambda weight, gain: nn.init.xavier_normal_(weight, gain=gain),
    "kaiming": lambda weight, gain: nn.init.kaiming_normal_(weight, a=0, mode="fan_in"),
    "orthogonal": lambda weight, gain: nn.init.orthogonal_(weight, gain=gain),
}


def init_weights(network: nn.Module, init: str = "normal", gain: float = 0.02) -> nn.Module:
    """Draw all weights of convolutions and linear layers anew in place (biases 0, batch-norm scales
    around 1) and return the network.

    Under spectral norm the weight becomes a new Parameter, so call this before an optimizer is
    built. Raises ValueError for an unknown `init`. Source: the reference's init_weights; 0.02 is
    the standard deviation of DCGAN.
    """
    if init not in INITS:
        raise ValueError(f"init={init!r} is not known: choose one of {', '.join(INITS)}")
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            # its singular vectors belong to the old weight
            if spectral := parametrize.is_parametrized(module):
                parametrize.remove_parametrizations(module, "weight")
            INITS[init](module.weight.data, gain)
            if spectral:
                spectral_norm(module)
            if module.bias is not None:
                nn.init.zeros_(module.bias.data)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight.data, 1.0, gain)
            nn.init.zeros_(module.bias.data)
    return network


def count_parameters(network: nn.Module) -> int:
    """Number of trainable scalars."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)

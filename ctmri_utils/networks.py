"""Generators and discriminators in the reference implementation's module order, so that its `*.pth` files load as they are.

Source of every architecture: Zhu et al. 2017 (arXiv 1703.10593), Isola et al. 2017 (arXiv 1611.07004) and the module order of
junyanz/pytorch-CycleGAN-and-pix2pix. All networks take (N, in_channels, H, W) float tensors in [-1, 1].
"""
from __future__ import annotations

import torch
from torch import Tensor, nn

NORMS = {
    "instance": lambda channels: nn.InstanceNorm2d(channels),    # no parameters, no running statistics: the same in train and eval mode
    "batch": lambda channels: nn.BatchNorm2d(channels),
    "none": lambda channels: nn.Identity(),
}


def normalisation(norm: str):
    """The constructor of a normalisation layer, and whether the convolution before it keeps its bias (as the reference decides it).

    Raises ValueError for a name other than "instance", "batch" or "none".
    """
    if norm not in NORMS:
        raise ValueError(f"norm={norm!r} is not known: choose one of {', '.join(NORMS)}")
    return NORMS[norm], norm == "instance"


class ResnetBlock(nn.Module):
    """Two 3x3 convolutions whose result is added to the input; (N, channels, H, W) in and out."""

    def __init__(self, channels: int, norm: str, dropout: bool):
        super().__init__()
        layer, bias = normalisation(norm)
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), layer(channels), nn.ReLU(True),
            *([nn.Dropout(0.5)] if dropout else []),
            nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), layer(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)                            # (N, channels, H, W)


class ResnetGenerator(nn.Module):
    """The CycleGAN generator: 7x7 convolution, two halvings, `n_blocks` residual blocks, two doublings, 7x7 convolution, tanh.

    (N, in_channels, H, W) in [-1, 1] -> (N, out_channels, H, W) in (-1, 1); H and W divisible by 4 and at least 8, else ValueError.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, ngf: int = 64, n_blocks: int = 9, norm: str = "instance",
                 dropout: bool = False):
        super().__init__()
        layer, bias = normalisation(norm)
        modules = [nn.ReflectionPad2d(3), nn.Conv2d(in_channels, ngf, 7, bias=bias), layer(ngf), nn.ReLU(True)]
        for width in (ngf, 2 * ngf):
            modules += [nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=bias), layer(2 * width), nn.ReLU(True)]
        modules += [ResnetBlock(4 * ngf, norm, dropout) for _ in range(n_blocks)]
        for width in (4 * ngf, 2 * ngf):
            up = nn.ConvTranspose2d(width, width // 2, 3, stride=2, padding=1, output_padding=1, bias=bias)
            modules += [up, layer(width // 2), nn.ReLU(True)]
        modules += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, out_channels, 7), nn.Tanh()]
        self.model = nn.Sequential(*modules)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height % 4 or width % 4 or min(height, width) < 8:
            raise ValueError(f"the ResNet generator got {height}x{width} pixels: "
                             "both sides must be divisible by 4 and at least 8, so resize or pad first")
        return self.model(x)                                     # (N, out_channels, H, W) in (-1, 1)


class UnetBlock(nn.Module):
    """One level of the U-Net: halve, go through the next level, double, and hand the input on beside the result."""

    def __init__(self, outer: int, inner: int, norm: str, *, submodule: nn.Module | None = None, in_channels: int | None = None,
                 dropout: bool = False):
        super().__init__()
        layer, bias = normalisation(norm)
        self.outermost = in_channels is not None
        down = nn.Conv2d(outer if in_channels is None else in_channels, inner, 4, stride=2, padding=1, bias=bias)
        up = nn.ConvTranspose2d(inner if submodule is None else 2 * inner, outer, 4, stride=2, padding=1, bias=bias or self.outermost)
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


class UnetGenerator(nn.Module):
    """The pix2pix generator: `n_downs` halvings with skips; 8 is the reference's unet_256, 7 its unet_128.

    (N, in_channels, H, W) in [-1, 1] -> (N, out_channels, H, W) in (-1, 1); H and W divisible by 2**n_downs, else ValueError.
    n_downs must be at least 5.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, ngf: int = 64, n_downs: int = 8, norm: str = "instance",
                 dropout: bool = False):
        super().__init__()
        if n_downs < 5:
            raise ValueError(f"n_downs={n_downs} is too few for the reference's U-Net: use 5 or more, or a ResNet generator")
        self.n_downs = n_downs
        block = UnetBlock(8 * ngf, 8 * ngf, norm)
        for _ in range(n_downs - 5):
            block = UnetBlock(8 * ngf, 8 * ngf, norm, submodule=block, dropout=dropout)
        for outer in (4 * ngf, 2 * ngf, ngf):
            block = UnetBlock(outer, 2 * outer, norm, submodule=block)
        self.model = UnetBlock(out_channels, ngf, norm, submodule=block, in_channels=in_channels)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if height % 2**self.n_downs or width % 2**self.n_downs:
            raise ValueError(f"the U-Net generator got {height}x{width} pixels: "
                             f"both sides must be divisible by {2**self.n_downs}; resize, pad or use fewer n_downs")
        return self.model(x)                                     # (N, out_channels, H, W) in (-1, 1)


class PatchDiscriminator(nn.Module):
    """PatchGAN: one verdict for each overlapping patch, 70x70 pixels with `n_layers=3` ("basic" in the reference).

    (N, in_channels, H, W) -> (N, 1, h, w), unbounded; h = H / 2**n_layers - 2 if that divides H. Raises ValueError for images smaller than
    3 * 2**n_layers pixels: their last normalised map would be a single pixel.
    """

    def __init__(self, in_channels: int = 1, ndf: int = 64, n_layers: int = 3, norm: str = "instance"):
        super().__init__()
        layer, bias = normalisation(norm)
        widths = [ndf * min(2**n, 8) for n in range(n_layers + 1)]
        modules: list[nn.Module] = [nn.Conv2d(in_channels, ndf, 4, stride=2, padding=1), nn.LeakyReLU(0.2, True)]
        for n in range(1, n_layers + 1):
            stride = 2 if n < n_layers else 1
            convolution = nn.Conv2d(widths[n - 1], widths[n], 4, stride=stride, padding=1, bias=bias)
            modules += [convolution, layer(widths[n]), nn.LeakyReLU(0.2, True)]
        self.smallest = 3 * 2**n_layers
        self.model = nn.Sequential(*modules, nn.Conv2d(widths[-1], 1, 4, stride=1, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if min(height, width) < self.smallest:
            raise ValueError(f"the PatchGAN got {height}x{width} pixels: it needs {self.smallest} per side, or fewer n_layers")
        return self.model(x)                                     # (N, 1, h, w)


class PixelDiscriminator(nn.Module):
    """A 1x1 PatchGAN: judges every pixel's value alone. (N, in_channels, H, W) -> (N, 1, H, W), unbounded."""

    def __init__(self, in_channels: int = 1, ndf: int = 64, norm: str = "instance"):
        super().__init__()
        layer, bias = normalisation(norm)
        self.net = nn.Sequential(
            nn.Conv2d(in_channels, ndf, 1), nn.LeakyReLU(0.2, True),
            nn.Conv2d(ndf, 2 * ndf, 1, bias=bias), layer(2 * ndf), nn.LeakyReLU(0.2, True),
            nn.Conv2d(2 * ndf, 1, 1, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)                                       # (N, 1, H, W)


INITS = {
    "normal": lambda weight, gain: nn.init.normal_(weight, 0.0, gain),
    "xavier": lambda weight, gain: nn.init.xavier_normal_(weight, gain=gain),
    "kaiming": lambda weight, gain: nn.init.kaiming_normal_(weight, a=0, mode="fan_in"),
    "orthogonal": lambda weight, gain: nn.init.orthogonal_(weight, gain=gain),
}


def init_weights(network: nn.Module, init: str = "normal", gain: float = 0.02) -> nn.Module:
    """Draw all convolution weights anew in place (biases 0, batch-norm scales around 1) and return the network.

    Raises ValueError for an unknown `init`. Source: the reference's init_weights; 0.02 is the standard deviation of DCGAN.
    """
    if init not in INITS:
        raise ValueError(f"init={init!r} is not known: choose one of {', '.join(INITS)}")
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            INITS[init](module.weight.data, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias.data)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight.data, 1.0, gain)
            nn.init.zeros_(module.bias.data)
    return network


def count_parameters(network: nn.Module) -> int:
    """Number of trainable scalars."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)

"""Other networks than the paper's: the U-Net generator and the pixel discriminator.

Source: Isola et al. 2017 (arXiv 1611.07004) and the reference implementation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .networks import Generator, add_spectral_norm, has_bias, norm_layer, upsample


class UnetLevel(nn.Module):
    """The layers of one level of the U-Net, which keep the level's input beside their result."""

    def __init__(self, *layers: nn.Module, skip: bool = True):
        super().__init__()
        self.model = nn.Sequential(*layers)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        inside = self.model(x)
        return torch.cat([x, inside], 1) if self.skip else inside


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
    ):
        if n_downs < 2:
            raise ValueError(f"n_downs={n_downs} is too few for a U-Net: use 2 or more")
        widths = [ngf * min(2**level, 8) for level in range(n_downs)]
        bias = has_bias(norm)

        def halve(outer: int, inner: int) -> list[nn.Module]:
            # It works in place so that the skip carries the activated input, as in the reference.
            activation = nn.LeakyReLU(0.2, inplace=True)
            return [activation, nn.Conv2d(outer, inner, 4, stride=2, padding=1, bias=bias)]

        def double(inner: int, outer: int) -> list[nn.Module]:
            layer = upsample(upsampling, inner, outer, 4, bias)
            return [nn.ReLU(True), layer, norm_layer(norm, outer)]

        # The U-Net is built from the innermost level outwards.
        outer, inner = widths[-2:]
        level = UnetLevel(*halve(outer, inner), *double(inner, outer))
        for n in range(n_downs - 2, 0, -1):
            outer, inner = widths[n - 1], widths[n]
            layers = [*halve(outer, inner), norm_layer(norm, inner), level]
            layers += double(2 * inner, outer)
            if dropout and n >= 4:
                layers.append(nn.Dropout(0.5))
            level = UnetLevel(*layers)

        outermost = UnetLevel(
            nn.Conv2d(in_channels, ngf, 4, stride=2, padding=1, bias=bias),
            level,
            nn.ReLU(True),
            upsample(upsampling, 2 * ngf, out_channels, 4, bias=True),
            nn.Tanh(),
            skip=False,
        )
        super().__init__(outermost, multiple=2**n_downs, smallest=2)


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

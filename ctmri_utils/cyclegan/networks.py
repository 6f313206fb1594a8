"""The two networks of CycleGAN: a ResNet generator and a PatchGAN discriminator.

Their modules stand in the order of the reference implementation, so that its `*.pth` files load as
they are. All networks take (N, in_channels, H, W) float tensors in [-1, 1].

Source: Zhu et al. 2017 (arXiv 1703.10593), Isola et al. 2017 (arXiv 1611.07004) and the module
order of junyanz/pytorch-CycleGAN-and-pix2pix.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from ..settings import INITS, NORMS

# The layers that extend an image; the convolution itself pads with zeros.
PADDINGS = {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d, "zero": None}

# A slice is blank if its largest and its smallest value differ by less than this.
BLANK = 1e-4


def norm_layer(norm: str, channels: int) -> nn.Module:
    """A normalisation layer: "instance", "batch" or "none". Raises ValueError for others."""
    if norm == "instance":
        return nn.InstanceNorm2d(channels)
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "none":
        return nn.Identity()
    raise ValueError(f"norm={norm!r} is not known: choose one of {', '.join(NORMS)}")


def has_bias(norm: str) -> bool:
    """Whether the convolution before a normalisation keeps its bias, as the reference decides.

    Batch norm has a shift of its own. Instance norm would cancel a bias, and "none" could use one,
    but the reference's files hold it with the first and not with the second.
    """
    return norm == "instance"


def upsample(kind: str, inner: int, outer: int, kernel: int, bias: bool) -> nn.Module:
    """The layer that doubles both sides of an image.

    Args:
        kind: "transposed" convolution as in the reference, or "resize", nearest-neighbour
            enlargement and a 3x3 convolution, which draws no checkerboard (Odena et al. 2016).
        inner, outer: channels before and after.
        kernel: side of the transposed convolution's kernel.

    Raises:
        ValueError: another kind.
    """
    if kind == "transposed":
        return nn.ConvTranspose2d(
            inner, outer, kernel, stride=2, padding=1, output_padding=kernel % 2, bias=bias
        )
    if kind == "resize":
        return nn.Sequential(
            nn.Upsample(scale_factor=2),
            nn.ReflectionPad2d(1),
            nn.Conv2d(inner, outer, 3, bias=bias),
        )
    raise ValueError(f"upsampling={kind!r} is not known: choose one of transposed, resize")


class Generator(nn.Module):
    """What all generators share: images of any size.

    The layers need sides that are divisible by `multiple` and at least `smallest`. Other images are
    extended by reflection, and the result is cropped back.
    """

    def __init__(self, model: nn.Module, multiple: int, smallest: int):
        super().__init__()
        self.model = model
        self.multiple = multiple
        self.smallest = smallest

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) in [-1, 1] -> (N, out_channels, H, W) in (-1, 1).

        Raises:
            ValueError: images too small even with padding.
        """
        height, width = x.shape[-2:]
        rows, columns = -height % self.multiple, -width % self.multiple
        top, left = rows // 2, columns // 2
        bottom, right = rows - top, columns - left

        too_small = min(height + rows, width + columns) < self.smallest
        if too_small or bottom >= height or right >= width:
            raise ValueError(
                f"the generator got {height}x{width} pixels, too few for it even with padding: "
                "use larger slices, or a network with fewer halvings"
            )
        padded = F.pad(x, [left, right, top, bottom], mode="reflect")
        return self.model(padded)[..., top : top + height, left : left + width]


def padded_convolution(channels: int, norm: str, padding: str) -> list[nn.Module]:
    """The layers of a 3x3 convolution that keeps the image's size, and their normalisation."""
    if padding not in PADDINGS:
        raise ValueError(f"padding={padding!r} is not known: choose one of {', '.join(PADDINGS)}")
    bias = has_bias(norm)
    if padding == "zero":
        layers = [nn.Conv2d(channels, channels, 3, padding=1, bias=bias)]
    else:
        layers = [PADDINGS[padding](1), nn.Conv2d(channels, channels, 3, bias=bias)]
    return [*layers, norm_layer(norm, channels)]


class ResnetBlock(nn.Module):
    """Two 3x3 convolutions whose result is added to the input; (N, channels, H, W) in and out."""

    def __init__(self, channels: int, norm: str, dropout: bool, padding: str = "reflect"):
        super().__init__()
        layers = [*padded_convolution(channels, norm, padding), nn.ReLU(True)]
        if dropout:
            layers.append(nn.Dropout(0.5))
        layers += padded_convolution(channels, norm, padding)
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class ResnetGenerator(Generator):
    """The CycleGAN generator.

    A 7x7 convolution, two halvings, `n_blocks` residual blocks, two doublings, a 7x7 convolution
    and tanh. H and W are at least 8, and padded to multiples of 4 (see `Generator`).

    With instance norm a blank slice becomes a blank one: all its activations are constant, so they
    are 0 after each norm, and computing them would only amplify rounding errors into a texture.

    Args:
        in_channels, out_channels: of the images.
        ngf: width of the first layer; the residual blocks have four times as many channels.
        n_blocks: residual blocks.
        norm: "instance", "batch" or "none".
        dropout: in the residual blocks.
        upsampling: "transposed" or "resize", see `upsample`.
        padding: how the residual blocks extend their images, "reflect", "replicate" or "zero".
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
        padding: str = "reflect",
    ):
        bias = has_bias(norm)
        layers = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(in_channels, ngf, 7, bias=bias),
            norm_layer(norm, ngf),
            nn.ReLU(True),
        ]
        for width in (ngf, 2 * ngf):
            halve = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=bias)
            layers += [halve, norm_layer(norm, 2 * width), nn.ReLU(True)]

        for _ in range(n_blocks):
            layers.append(ResnetBlock(4 * ngf, norm, dropout, padding))

        for width in (4 * ngf, 2 * ngf):
            double = upsample(upsampling, width, width // 2, 3, bias)
            layers += [double, norm_layer(norm, width // 2), nn.ReLU(True)]

        layers += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, out_channels, 7), nn.Tanh()]
        super().__init__(nn.Sequential(*layers), multiple=4, smallest=8)
        self.norm = norm
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        translated = super().forward(x)
        if self.norm != "instance":
            return translated

        span = x.amax((2, 3), keepdim=True) - x.amin((2, 3), keepdim=True)
        blank = (span < BLANK).all(1, keepdim=True)  # (N, 1, 1, 1)
        blank_value = self.model[-2].bias.tanh()[:, None, None].to(translated.dtype)
        return torch.where(blank, blank_value, translated)


class PatchDiscriminator(nn.Module):
    """PatchGAN: one verdict for each overlapping patch, of 70x70 pixels with `n_layers=3`.

    Three layers are "basic" in the reference.

    Args:
        in_channels: of the images.
        ndf: width of the first layer.
        n_layers: halvings, and one more convolution.
        norm: "instance", "batch" or "none".
        spectral: divide each weight by its largest singular value (Miyato et al. 2018).

    Raises:
        ValueError: fewer than one layer.
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
        bias = has_bias(norm)
        widths = [ndf * min(2**n, 8) for n in range(n_layers + 1)]

        layers = [
            nn.Conv2d(in_channels, ndf, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, True),
        ]
        for n in range(1, n_layers + 1):
            stride = 2 if n < n_layers else 1
            layers += [
                nn.Conv2d(widths[n - 1], widths[n], 4, stride=stride, padding=1, bias=bias),
                norm_layer(norm, widths[n]),
                nn.LeakyReLU(0.2, True),
            ]
        layers.append(nn.Conv2d(widths[-1], 1, 4, stride=1, padding=1))

        self.model = nn.Sequential(*layers)
        if spectral:
            add_spectral_norm(self.model)

        # In smaller images the last normalised map would be a single pixel.
        self.smallest = 3 * 2**n_layers

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, 1, h, w), unbounded; h = H / 2**n_layers - 2.

        Raises:
            ValueError: images smaller than 3 * 2**n_layers pixels.
        """
        height, width = x.shape[-2:]
        if min(height, width) < self.smallest:
            raise ValueError(
                f"the PatchGAN got {height}x{width} pixels: it needs {self.smallest} per side, or "
                "fewer n_layers"
            )
        return self.model(x)


def add_spectral_norm(network: nn.Module) -> None:
    """Divide each convolution's weight by its largest singular value, from now on."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            spectral_norm(module)


def init_weights(network: nn.Module, init: str = "normal", gain: float = 0.02) -> nn.Module:
    """Draw all weights anew, in place: biases 0, batch norm's scales around 1.

    Under spectral norm the weight becomes a new Parameter, so call this before an optimizer is
    built.

    Args:
        network: any module.
        init: "normal", "xavier", "kaiming" or "orthogonal".
        gain: spread of the weights; 0.02 is the standard deviation of DCGAN.

    Returns:
        The network.

    Raises:
        ValueError: an unknown `init`.

    Source: the reference's init_weights.
    """
    if init not in INITS:
        raise ValueError(f"init={init!r} is not known: choose one of {', '.join(INITS)}")

    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            draw_weight(module, init, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias.data)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight.data, 1.0, gain)
            nn.init.zeros_(module.bias.data)
    return network


def draw_weight(module: nn.Module, init: str, gain: float) -> None:
    """Draw the weight of one layer anew, see `init_weights`."""
    # Spectral norm keeps singular vectors of the old weight, so it is put on anew.
    spectral = parametrize.is_parametrized(module)
    if spectral:
        parametrize.remove_parametrizations(module, "weight")

    weight = module.weight.data
    if init == "normal":
        nn.init.normal_(weight, 0.0, gain)
    elif init == "xavier":
        nn.init.xavier_normal_(weight, gain=gain)
    elif init == "kaiming":
        nn.init.kaiming_normal_(weight, a=0, mode="fan_in")
    else:
        nn.init.orthogonal_(weight, gain=gain)

    if spectral:
        spectral_norm(module)


def count_parameters(network: nn.Module) -> int:
    """Number of trainable scalars."""
    return sum(weight.numel() for weight in network.parameters() if weight.requires_grad)

"""The published networks once more, in the module order of the reference and of CUT.

Written from the papers and from that order, and nothing is imported from the package: what it reads
is held to these.
"""

import torch
from torch import nn
from torch.nn import functional as F

PADS = {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d}


def unchanged(layer):
    return layer


def instance(channels):
    return nn.InstanceNorm2d(channels, affine=False, track_running_stats=False)


class Block(nn.Module):
    def __init__(self, width, norm, dropout, padding):
        super().__init__()
        layers = []
        for half in (1, 2):
            if padding in PADS:
                layers.append(PADS[padding](1))
            zero = int(padding not in PADS)
            layers += [nn.Conv2d(width, width, 3, padding=zero, bias=norm is instance), norm(width)]
            if half == 1:
                layers.append(nn.ReLU(True))
                if dropout:
                    layers.append(nn.Dropout(0.5))
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.conv_block(x)


class Resnet(nn.Module):
    """c7s1-k, two halvings, blocks, two doublings, c7s1; blur layers as in CUT if antialiased."""

    def __init__(
        self,
        inputs=3,
        outputs=3,
        ngf=4,
        blocks=2,
        norm=instance,
        dropout=False,
        padding="reflect",
        antialiased=False,
    ):
        super().__init__()
        bias = norm is instance
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(inputs, ngf, 7, bias=bias), norm(ngf)]
        layers.append(nn.ReLU(True))
        for width in (ngf, 2 * ngf):
            stride = 1 if antialiased else 2
            layers += [nn.Conv2d(width, 2 * width, 3, stride, 1, bias=bias), norm(2 * width)]
            layers.append(nn.ReLU(True))
            if antialiased:
                layers.append(Blur(2 * width))
        layers += [Block(4 * ngf, norm, dropout, padding) for _ in range(blocks)]
        for width in (4 * ngf, 2 * ngf):
            if antialiased:
                layers += [Blur(width), nn.Conv2d(width, width // 2, 3, 1, 1, bias=bias)]
            else:
                layers.append(nn.ConvTranspose2d(width, width // 2, 3, 2, 1, 1, bias=bias))
            layers += [norm(width // 2), nn.ReLU(True)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, outputs, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return self.model(x)


class Blur(nn.Module):
    """As a file of CUT names it; it is never run here."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("filt", torch.full((channels, 1, 3, 3), 1 / 9))


class Level(nn.Module):
    """One level of a U-Net around the next one."""

    def __init__(self, outer, inner, inside=None, inputs=None):
        super().__init__()
        self.outermost = inputs is not None
        down = nn.Conv2d(inputs or outer, inner, 4, 2, 1)
        up = nn.ConvTranspose2d(inner if inside is None else 2 * inner, outer, 4, 2, 1)
        if self.outermost:
            layers = [down, inside, nn.ReLU(True), up, nn.Tanh()]
        elif inside is None:
            layers = [nn.LeakyReLU(0.2, True), down, nn.ReLU(True), up, instance(outer)]
        else:
            layers = [nn.LeakyReLU(0.2, True), down, instance(inner), inside, nn.ReLU(True), up]
            layers.append(instance(outer))
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


class Unet(nn.Module):
    """Five halvings, so unet_32."""

    def __init__(self, inputs=1, outputs=1, ngf=4):
        super().__init__()
        level = Level(8 * ngf, 8 * ngf)
        for outer, inner in ((4, 8), (2, 4), (1, 2)):
            level = Level(outer * ngf, inner * ngf, level)
        self.model = Level(outputs, ngf, level, inputs)

    def forward(self, x):
        return self.model(x)


class Patches(nn.Module):
    """The PatchGAN of three layers, "basic"."""

    def __init__(self, inputs=3, ndf=4, wrap=unchanged):
        super().__init__()
        layers = [wrap(nn.Conv2d(inputs, ndf, 4, 2, 1)), nn.LeakyReLU(0.2, True)]
        for width, stride in ((ndf, 2), (2 * ndf, 2), (4 * ndf, 1)):
            layers += [wrap(nn.Conv2d(width, 2 * width, 4, stride, 1)), instance(2 * width)]
            layers.append(nn.LeakyReLU(0.2, True))
        layers.append(wrap(nn.Conv2d(8 * ndf, 1, 4, 1, 1)))
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return self.model(x)


def drawn(network, seed=0, spread=0.2):
    """The network with weights that make something to look at, in eval mode."""
    torch.manual_seed(seed)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=spread)
    return network.eval()


def with_grey_pictures(generator):
    """A ResNet whose output channels are alike."""
    last = generator.model[-2]
    with torch.no_grad():
        last.weight.copy_(last.weight[:1].expand_as(last.weight))
        last.bias.copy_(last.bias[:1].expand_as(last.bias))
    return generator


def blurred_noise(channels, seed=1, side=32, batch=2):
    """Images in [-1, 1]."""
    torch.manual_seed(seed)
    return F.avg_pool2d(torch.rand(batch, channels, side, side) * 2 - 1, 3, 1, 1)

"""Checks of assignment 2: networks and receptive fields."""

from __future__ import annotations

import torch
from torch import nn

from .checking import check


@check("A2.1", "widths stop doubling", "beyond 8 * ndf a layer has the width of the one before")
def widths_stop(discriminator_parameters):
    steps = [discriminator_parameters(1, 4, n) for n in (5, 6, 7)]
    return steps[1] - steps[0] == steps[2] - steps[1]


@check("A2.1", "biases count", "one for each output channel")
def biases_count(discriminator_parameters):
    return discriminator_parameters(1, 1, 1) % 16 == 4


@check("A2.1", "it is arithmetic", "do not build the network: ten million channels must work")
def arithmetic(discriminator_parameters):
    return discriminator_parameters(1, 10_000_000, 3) > 10**15


@check("A2.2", "a stride counts for the layers behind it", "a layer's own stride comes too late")
def stride_counts_later(field_on_paper):
    return field_on_paper([(3, 2, 1)]) == field_on_paper([(3, 1, 1)])


@check("A2.2", "dilation spreads the taps", "three taps, d apart, span how many pixels?")
def dilation_spreads(field_on_paper):
    return field_on_paper([(3, 1, 1)]) < field_on_paper([(3, 1, 3)]) == field_on_paper([(7, 1, 1)])


@check("A2.3", "height and width are told apart", "in which order does PyTorch name them?")
def height_and_width(measured_field):
    tall = nn.Conv2d(1, 1, (5, 1), padding=(2, 0))
    return tuple(measured_field(tall, 12)) == (5, 1)


@check("A2.3", "holes belong to the field", "the rectangle around all influences, not their number")
def holes_belong(measured_field):
    torch.manual_seed(0)
    holes = nn.Conv2d(1, 1, 3, padding=2, dilation=2)
    height, width = measured_field(holes, 14)
    return height > 3 and width > 3


@check("A2.4", "each slice has its own mean", "over which dimensions is the mean?")
def own_mean(instance_norm):
    x = torch.stack([torch.rand(2, 5, 5), torch.rand(2, 5, 5) + 9])
    return instance_norm(x).mean((2, 3)).abs().max().item() < 1e-4


@check("A2.4", "a constant map gives zeros", "eps stands inside of the root")
def constant_gives_zeros(instance_norm):
    return instance_norm(torch.full((1, 1, 4, 4), 3.0)).abs().max().item() < 1e-6


@check("A2.5", "the shape stays for every dilation", "pad by as much as the convolution takes")
def shape_stays(block):
    x = torch.rand(1, 4, 16, 17)
    return all(block(4, dilation)(x).shape == x.shape for dilation in (1, 2, 4))


@check("A2.5", "nothing comes after the addition", "a block that changes nothing returns its input")
def addition_is_last(block):
    made, x = block(3, 2), torch.randn(1, 3, 9, 9)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
    return torch.allclose(made(x), x, atol=1e-5)


@check("A2.6", "the size doubles and the channels halve", "look at the shape of your output")
def size_doubles(enlarge):
    return enlarge(6)(torch.rand(1, 6, 5, 7)).shape == (1, 3, 10, 14)


@check("A2.6", "a constant picture stays constant at its edges", "what does zero padding add?")
def constant_stays(enlarge):
    torch.manual_seed(0)
    large = enlarge(4)(torch.ones(1, 4, 6, 6))
    return (large.amax((2, 3)) - large.amin((2, 3))).max().item() < 1e-5


@check("A2.6", "it can learn", "where are the weights?")
def can_learn(enlarge):
    return any(parameter.requires_grad for parameter in enlarge(4).parameters())

"""Checks of the exercises of lesson 2."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..cyclegan import networks
from ..evaluation.faithfulness import checkerboard_db
from .checking import check

# Outputs that differ by less agree but for rounding; they lie in [-1, 1].
ROUNDING = 1e-3


def sees(n_layers: int, side: int) -> bool:
    """Whether one verdict of a PatchGAN sees a whole side of so many pixels."""
    return 18 * 2 ** (n_layers - 1) - 2 >= side


@check("2.1", "one verdict sees a whole side of the slice", "by which rule does the field grow?")
def sees_all(n_layers, side):
    return sees(n_layers, side)


@check("2.1", "one layer fewer does not", "is a smaller number enough, too?")
def sees_no_more(n_layers, side):
    return n_layers == 1 or not sees(n_layers - 1, side)


def largest_change(generator: nn.Module, ct: Tensor, names: Iterable[str]) -> float:
    """The largest change of the output if these parameters are filled with random numbers."""
    changed = copy.deepcopy(generator)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in names:
            parameter = changed.get_parameter(name)
            parameter.copy_(torch.randn(parameter.shape, generator=noise))
        return (changed(ct) - generator(ct)).abs().max().item()


@check("2.2", "there is such a parameter", "what does a normalisation take away again?")
def not_empty(names, generator, ct):
    return len(names) > 0


@check("2.2", "the output stays when they are random", "is there a norm behind each of them?")
def change_nothing(names, generator, ct):
    return largest_change(generator, ct, names) < ROUNDING


@check("2.2", "every other parameter has an effect", "have you looked inside of the blocks?")
def all_found(names, generator, ct):
    others = [name for name, _ in generator.named_parameters() if name not in names]
    return all(largest_change(generator, ct, [name]) > ROUNDING for name in others)


@check("2.3", "a slice keeps its size", "do kernel, stride and padding fit each other?")
def keeps_size(build, level_db, blob):
    return build(ngf=4, n_blocks=1)(blob).shape == blob.shape


@check("2.3", "both enlarging layers have kernel 4", "which layers enlarge?")
def both_replaced(build, level_db, blob):
    layers = build(ngf=4, n_blocks=1).modules()
    sizes = [layer.kernel_size for layer in layers if isinstance(layer, nn.ConvTranspose2d)]
    return sizes == [(4, 4), (4, 4)]


@check("2.3", "the level is the mean of ten seeds", "seeds 0 to 9, and the mean of their decibels")
def level_is_right(build, level_db, blob):
    levels = []
    for seed in range(10):
        torch.manual_seed(seed)
        generator = networks.init_weights(build(ngf=8, n_blocks=2))
        with torch.no_grad():
            levels.append(checkerboard_db(generator(blob)))
    return abs(level_db - sum(levels) / 10) < 0.1

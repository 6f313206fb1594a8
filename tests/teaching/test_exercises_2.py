"""The checks of lesson 2: right answers pass, typical wrong ones get a hint."""

from functools import partial

import pytest
import torch
from torch import nn

from ctmri_utils.cyclegan import networks
from ctmri_utils.evaluation.faithfulness import checkerboard_db


@pytest.mark.parametrize(("side", "answer"), [(16, 1), (64, 3), (96, 4), (128, 4), (142, 4)])
def test_the_patch_as_wide_as_the_slice(passes, gets_a_hint, side, answer):
    passes("2.1", answer, side)
    for wrong in (answer - 1, answer + 1, side):
        gets_a_hint("2.1", wrong, side)


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    return networks.init_weights(networks.ResnetGenerator(ngf=8, n_blocks=2))


@pytest.fixture(scope="module")
def ct():
    """A ring of bone around a disc of brain, (1, 1, 32, 32) in [-1, 1]."""
    position = torch.linspace(-1, 1, 32)
    radius = (position[:, None] ** 2 + position**2).sqrt()
    ring = torch.where(radius < 0.7, 1.0, -1.0)
    return torch.where(radius < 0.6, 0.04, ring)[None, None]


def test_the_parameters_that_do_nothing(passes, gets_a_hint, generator, ct):
    before = {name: weight.clone() for name, weight in generator.state_dict().items()}
    biases = [name for name in generator.state_dict() if name.endswith("bias")]
    passes("2.2", biases[:-1], generator, ct)
    passes("2.2", set(biases[:-1]), generator, ct)

    outside_blocks = [name for name in biases[:-1] if "conv_block" not in name]
    for wrong in ([], biases, outside_blocks, ["model.1.weight"]):
        gets_a_hint("2.2", wrong, generator, ct)
    gets_a_hint("2.2", ["no such name"], generator, ct, stops=True)
    assert all(torch.equal(generator.state_dict()[name], kept) for name, kept in before.items())


def with_kernel(size, replaced=2, **sizes):
    """A generator of the lesson whose first transposed convolutions have another kernel."""
    generator = networks.ResnetGenerator(**sizes)
    places = [k for k, x in enumerate(generator.model) if isinstance(x, nn.ConvTranspose2d)]
    for place in places[:replaced]:
        old = generator.model[place]
        channels = old.in_channels, old.out_channels
        generator.model[place] = nn.ConvTranspose2d(*channels, size, stride=2, padding=1)
    return generator


def mean_level(build, blob, seeds=10):
    levels = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        generator = networks.init_weights(build(ngf=8, n_blocks=2))
        levels.append(checkerboard_db(generator(blob).detach()))
    return sum(levels) / seeds


def test_whether_kernel_4_is_enough(passes, gets_a_hint):
    position = torch.linspace(-1, 1, 32)
    squared_distance = position[:, None] ** 2 + position**2
    blob = 2 * torch.exp(-squared_distance / 0.18)[None, None] - 1
    right = partial(with_kernel, 4)
    level_db = mean_level(right, blob)
    passes("2.3", right, level_db, blob)

    resizing = partial(networks.ResnetGenerator, upsampling="resize")
    wrong = [
        (resizing, mean_level(resizing, blob)),
        (networks.ResnetGenerator, mean_level(networks.ResnetGenerator, blob)),
        (partial(with_kernel, 4, 1), level_db),
        (partial(with_kernel, 3), level_db),
        (right, mean_level(right, blob, seeds=1)),
        (right, -level_db),
    ]
    for build, level in wrong:
        gets_a_hint("2.3", build, level, blob)

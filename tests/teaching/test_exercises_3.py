"""The checks of lesson 3's exercises: a right answer holds, typical wrong ones get a hint."""

import pytest
import torch

from ctmri_utils.cyclegan import CycleGAN, ImagePool
from ctmri_utils.cyclegan.losses import adversarial_loss
from ctmri_utils.settings import Architecture


def vanilla_cost(verdict):
    return adversarial_loss(torch.full((1, 1, 14, 14), verdict), True, "vanilla")


def copy(images):
    return images


def inverted(images):
    return -images


def one_head(images):
    return torch.zeros_like(images)


def measured_wait():
    torch.manual_seed(2026)
    numbered = torch.arange(20000.0).reshape(-1, 1, 1, 1)
    waited = (numbered - ImagePool(50)(numbered)).flatten()
    return waited[waited > 0].mean()


def with_gradients():
    torch.manual_seed(2026)
    model = CycleGAN(Architecture(ngf=2, ndf=2, n_blocks=1, n_layers=1))
    model.training_step(*torch.rand(2, 1, 1, 16, 16)).generator_loss.backward()
    networks = dict(model.named_children())
    names = ("G_ct2mri", "G_mri2ct", "D_ct", "D_mri")
    return [name for name in names if next(networks[name].parameters()).grad is not None]


RIGHT = {
    "3.1": lambda: [vanilla_cost(0.0)],
    "3.2": lambda: [copy, copy],
    "3.3": lambda: [measured_wait()],
    "3.4": lambda: [with_gradients()],
}


@pytest.mark.parametrize("part", RIGHT)
def test_the_solution_passes(passes, part):
    passes(part, *RIGHT[part]())


@pytest.mark.parametrize(
    "part, answers, hint",
    [
        # The verdict of a least-squares discriminator, its cost, and a verdict for each patch.
        ("3.1", [vanilla_cost(0.5)], "logits"),
        ("3.1", [0.25], "logits"),
        ("3.2", [inverted, inverted], ""),
        ("3.2", [one_head, one_head], ""),
        ("3.2", [copy, inverted], ""),
        # Steps instead of images, no coin, no slot.
        ("3.3", [25], "how many images enter"),
        ("3.3", [50], "both draws"),
        ("3.3", [2], ""),
        ("3.4", [["G_ct2mri", "G_mri2ct", "D_ct", "D_mri"]], "`frozen`"),
        ("3.4", [["G_ct2mri", "D_mri"]], "`frozen`"),
        ("3.4", [["G_ct2mri"]], ""),
        ("3.4", [["generators"]], ""),
        ("3.4", [[]], ""),
    ],
)
def test_a_typical_mistake_gets_a_hint(gets_a_hint, part, answers, hint):
    gets_a_hint(part, *answers, hint=hint)


def test_a_tensor_of_two_numbers_stops_the_check(gets_a_hint):
    gets_a_hint("3.1", torch.zeros(2), stops=True)

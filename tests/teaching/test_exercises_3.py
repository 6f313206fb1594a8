"""The checks of lesson 3's exercises: a right answer holds, typical wrong ones get a hint."""

import pytest
import torch

from ctmri_utils.cyclegan import CycleGAN, ImagePool
from ctmri_utils.cyclegan.losses import adversarial_loss
from ctmri_utils.settings import Architecture
from ctmri_utils.teaching import check_answer


@pytest.fixture
def answer(capsys):
    """Gives answers and returns what is printed."""

    def give(part, *answers):
        check_answer(part, *answers)
        return capsys.readouterr().out

    return give


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
    return [
        name
        for name in ("G_ct2mri", "G_mri2ct", "D_ct", "D_mri")
        if any(weight.grad is not None for weight in networks[name].parameters())
    ]


RIGHT = {
    "3.1": lambda: [vanilla_cost(0.0)],
    "3.2": lambda: [copy, copy],
    "3.3": lambda: [measured_wait()],
    "3.4": lambda: [with_gradients()],
}


@pytest.mark.parametrize("part", RIGHT)
def test_the_solution_passes(answer, part):
    text = answer(part, *RIGHT[part]())
    assert "every check holds" in text and "[open]" not in text


@pytest.mark.parametrize("part, count", [("3.1", 1), ("3.2", 2), ("3.3", 1), ("3.4", 1)])
def test_no_answer_yet_gets_no_hint(answer, part, count):
    assert "not answered yet" in answer(part, *[None] * count)


@pytest.mark.parametrize(
    "part, answers",
    [
        # The verdict of a least-squares discriminator, and its cost.
        ("3.1", [vanilla_cost(0.5)]),
        ("3.1", [0.25]),
        ("3.1", [torch.zeros(2)]),
        ("3.2", [inverted, inverted]),
        ("3.2", [one_head, one_head]),
        ("3.2", [copy, inverted]),
        # Steps instead of images, no coin, no slot.
        ("3.3", [25]),
        ("3.3", [50]),
        ("3.3", [2]),
        ("3.4", [["G_ct2mri", "G_mri2ct", "D_ct", "D_mri"]]),
        ("3.4", [["G_ct2mri"]]),
        ("3.4", [["generators"]]),
        ("3.4", [[]]),
    ],
)
def test_a_typical_mistake_gets_a_hint(answer, part, answers):
    text = answer(part, *answers)
    assert "Hint: " in text and "every check holds" not in text


def test_a_mistake_in_steps_or_logits_gets_the_hint_that_fits(answer):
    assert "how many images enter" in answer("3.3", 25)
    assert "both draws" in answer("3.3", 50)
    assert "logits" in answer("3.1", 0.25)
    assert "`frozen`" in answer("3.4", ["G_ct2mri", "D_mri"])

"""Losses against values worked out by hand."""
import math

import pytest
import torch

from ctmri_utils.losses import adversarial_loss, cycle_loss, generator_loss, gradient_penalty, identity_loss


def test_lsgan_is_the_squared_distance_to_the_label():
    verdict = torch.tensor([[[[0.0, 1.0], [2.0, -1.0]]]])
    assert adversarial_loss(verdict, True).item() == pytest.approx((1 + 0 + 1 + 4) / 4)
    assert adversarial_loss(verdict, False).item() == pytest.approx((0 + 1 + 4 + 1) / 4)


def test_vanilla_is_the_cross_entropy_of_the_logit():
    verdict = torch.tensor([[[[0.7]]]])
    # float32 exponentials: 1e-6.
    assert adversarial_loss(verdict, True, "vanilla").item() == pytest.approx(math.log(1 + math.exp(-0.7)), abs=1e-6)
    assert adversarial_loss(verdict, False, "vanilla").item() == pytest.approx(math.log(1 + math.exp(0.7)), abs=1e-6)


@pytest.mark.parametrize("loss", [cycle_loss, identity_loss])
def test_image_losses_are_mean_absolute_differences(loss):
    image = torch.zeros(2, 1, 4, 4)
    other = image.clone()
    other[0, 0, 0, 0] = -0.5
    assert loss(image, image).item() == 0
    assert loss(other, image).item() == loss(image, other).item() == pytest.approx(0.5 / 32)


def test_bad_input_gets_one_sentence():
    with pytest.raises(ValueError, match="different shapes"):
        cycle_loss(torch.zeros(2, 1, 4, 4), torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match="gan_mode='wasserstein' is not known"):
        adversarial_loss(torch.zeros(1), True, "wasserstein")


def test_hinge_asks_for_a_margin_of_the_discriminator_and_for_more_of_the_generator():
    verdict = torch.tensor([[[[-2.0, 0.5, 3.0]]]])
    assert adversarial_loss(verdict, True, "hinge").item() == pytest.approx((3 + 0.5 + 0) / 3)
    assert adversarial_loss(verdict, False, "hinge").item() == pytest.approx((0 + 1.5 + 4) / 3)
    assert generator_loss(verdict, "hinge").item() == pytest.approx(-0.5)


def test_wgangp_is_the_mean_verdict():
    verdict = torch.tensor([[[[-2.0, 0.5, 3.0]]]])
    assert adversarial_loss(verdict, True, "wgangp").item() == generator_loss(verdict, "wgangp").item() == pytest.approx(-0.5)
    assert adversarial_loss(verdict, False, "wgangp").item() == pytest.approx(0.5)


@pytest.mark.parametrize("mode", ["lsgan", "vanilla"])
def test_the_generator_wants_its_fakes_called_real(mode):
    verdict = torch.randn(2, 1, 3, 3)
    assert generator_loss(verdict, mode) == adversarial_loss(verdict, True, mode)


def test_gradient_penalty_of_a_linear_discriminator_is_known():
    """D(x) = w . x has the slope |w| everywhere."""
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 1)).double()
    real, fake = torch.rand(2, 3, 1, 4, 4, dtype=torch.float64)
    penalty = gradient_penalty(linear, real, fake)
    assert penalty.item() == pytest.approx((linear[1].weight.norm() - 1).square().item(), abs=1e-12)
    penalty.backward()
    assert linear[1].weight.grad.abs().sum() > 0                 # it teaches the discriminator


def test_gradient_penalty_is_the_finite_difference_slope_between_the_images():
    torch.manual_seed(0)
    real, fake = torch.rand(2, 1, 1, 3, 3, dtype=torch.float64)

    def judge(images):
        return (images ** 3).sum((1, 2, 3)) / 5

    torch.manual_seed(4)
    penalty = gradient_penalty(judge, real, fake)
    torch.manual_seed(4)
    point, slope = fake + torch.rand(1, 1, 1, 1, dtype=torch.float64) * (real - fake), []
    for i in range(9):
        nudge = torch.zeros(9, dtype=torch.float64)
        nudge[i] = 1e-5
        slope.append((judge(point + nudge.view(1, 1, 3, 3)) - judge(point - nudge.view(1, 1, 3, 3))) / 2e-5)
    # central differences of a cubic: an error of h^2, 1e-10
    assert penalty.item() == pytest.approx((torch.stack(slope).norm() - 1).square().item(), abs=1e-8)

"""Losses against values worked out by hand."""
import math

import pytest
import torch

from ctmri_utils.losses import adversarial_loss, cycle_loss, identity_loss


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

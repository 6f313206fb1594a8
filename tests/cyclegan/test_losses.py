"""Losses against values worked out by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from ctmri_utils.cyclegan.losses import (
    adversarial_loss,
    cycle_loss,
    fooling_loss,
    gradient_penalty,
    identity_loss,
)
from ctmri_utils.cyclegan.remedies import (
    correlation_loss,
    gradient_loss,
    mask_loss,
    mind,
    mind_loss,
    patch_nce_loss,
)


def test_lsgan_is_the_squared_distance_to_the_label():
    verdict = torch.tensor([[[[0.0, 1.0], [2.0, -1.0]]]])
    assert adversarial_loss(verdict, True).item() == pytest.approx((1 + 0 + 1 + 4) / 4)
    assert adversarial_loss(verdict, False).item() == pytest.approx((0 + 1 + 4 + 1) / 4)


def test_vanilla_is_the_cross_entropy_of_the_logit():
    verdict = torch.tensor([[[[0.7]]]])
    # float32 exponentials: 1e-6.
    real = adversarial_loss(verdict, True, "vanilla").item()
    fake = adversarial_loss(verdict, False, "vanilla").item()
    assert real == pytest.approx(math.log(1 + math.exp(-0.7)), abs=1e-6)
    assert fake == pytest.approx(math.log(1 + math.exp(0.7)), abs=1e-6)


@pytest.mark.parametrize("loss", [cycle_loss, identity_loss])
def test_image_losses_are_mean_absolute_differences(loss):
    image = torch.zeros(2, 1, 4, 4)
    other = image.clone()
    other[0, 0, 0, 0] = -0.5
    assert loss(image, image).item() == 0
    assert loss(other, image).item() == loss(image, other).item() == pytest.approx(0.5 / 32)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="shapes"):
        cycle_loss(torch.zeros(2, 1, 4, 4), torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match="gan_mode="):
        adversarial_loss(torch.zeros(1), True, "wasserstein")


def test_hinge_has_a_margin_for_the_discriminator_only():
    verdict = torch.tensor([[[[-2.0, 0.5, 3.0]]]])
    assert adversarial_loss(verdict, True, "hinge").item() == pytest.approx((3 + 0.5 + 0) / 3)
    assert adversarial_loss(verdict, False, "hinge").item() == pytest.approx((0 + 1.5 + 4) / 3)
    assert fooling_loss(verdict, "hinge").item() == pytest.approx(-0.5)


def test_wgangp_is_the_mean_verdict():
    verdict = torch.tensor([[[[-2.0, 0.5, 3.0]]]])
    assert (
        adversarial_loss(verdict, True, "wgangp").item()
        == fooling_loss(verdict, "wgangp").item()
        == pytest.approx(-0.5)
    )
    assert adversarial_loss(verdict, False, "wgangp").item() == pytest.approx(0.5)


@pytest.mark.parametrize("mode", ["lsgan", "vanilla"])
def test_the_generator_wants_its_fakes_called_real(mode):
    verdict = torch.randn(2, 1, 3, 3)
    assert fooling_loss(verdict, mode) == adversarial_loss(verdict, True, mode)


def test_gradient_penalty_of_a_linear_discriminator_is_known():
    """D(x) = w . x has the slope |w| everywhere."""
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 1)).double()
    real, fake = torch.rand(2, 3, 1, 4, 4, dtype=torch.float64)
    penalty = gradient_penalty(linear, real, fake)
    assert penalty.item() == pytest.approx((linear[1].weight.norm() - 1).square().item(), abs=1e-12)
    penalty.backward()
    assert linear[1].weight.grad.abs().sum() > 0  # it teaches the discriminator


def test_gradient_penalty_agrees_with_finite_differences():
    torch.manual_seed(0)
    real, fake = torch.rand(2, 1, 1, 3, 3, dtype=torch.float64)

    def judge(images):
        return (images**3).sum((1, 2, 3)) / 5

    torch.manual_seed(4)
    penalty = gradient_penalty(judge, real, fake)
    torch.manual_seed(4)
    point = fake + torch.rand(1, 1, 1, 1, dtype=torch.float64) * (real - fake)
    slope = []
    for i in range(9):
        nudge = torch.zeros(9, dtype=torch.float64)
        nudge[i] = 1e-5
        nudge = nudge.view(1, 1, 3, 3)
        slope.append((judge(point + nudge) - judge(point - nudge)) / 2e-5)
    expected = (torch.stack(slope).norm() - 1).square().item()
    # central differences of a cubic: an error of h^2, 1e-10
    assert penalty.item() == pytest.approx(expected, abs=1e-8)


def textured(seed=0, n=2, side=9):
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, side, side, generator=draw, dtype=torch.float64) * 2 - 1


def literal_mind(image):
    """Heinrich et al. 2012 in NumPy and SciPy: (H, W) to (8, H, W)."""
    height, width = image.shape
    padded = np.pad(image, 1, mode="edge")
    distances, nearest = [], []
    for row, column in itertools.product((-1, 0, 1), repeat=2):
        if (row, column) == (0, 0):
            continue
        shifted = padded[1 + row : 1 + row + height, 1 + column : 1 + column + width]
        squares = (shifted - image) ** 2
        distances.append(ndimage.gaussian_filter(squares, sigma=0.5, radius=1, mode="nearest"))
        if abs(row) + abs(column) == 1:
            nearest.append(distances[-1])

    variance = np.mean(nearest, axis=0)
    typical = variance.mean()
    likeness = np.exp(-np.stack(distances) / variance.clip(0.001 * typical, 1000 * typical))
    return likeness / likeness.max(0)


def test_mind_is_the_published_descriptor():
    """float64 twice: sums in another order differ by 1e-12 at most."""
    images = textured()
    # next to nothing happens here, so V meets its lower limit
    images[..., 5:] = images[..., 5:] / 100
    expected = np.stack([literal_mind(image[0].numpy()) for image in images])
    np.testing.assert_allclose(mind(images), expected, rtol=0, atol=1e-12)


def test_mind_in_a_flat_image_and_its_own_maximum():
    assert torch.equal(mind(torch.full((1, 1, 8, 8), 0.3)), torch.ones(1, 8, 8, 8))
    assert torch.equal(mind(textured()).amax(1), torch.ones(2, 9, 9, dtype=torch.float64))


@pytest.mark.parametrize("loss", [gradient_loss, mind_loss, correlation_loss])
def test_structure_losses_ignore_polarity_and_contrast(loss):
    """A negative of other brightness has the same structure.

    1e-6 covers float64 sums and the guards against division by 0.
    """
    original = textured(side=16)
    assert loss(0.2 - 0.4 * original, original).item() == pytest.approx(0, abs=1e-6)
    moved = loss(original.roll(1, -1), original).item()
    assert 0.02 < moved <= 1
    # oblong images too
    assert loss(original[:, :, :-1], original[:, :, :-1]) < 1e-6
    two_channels = torch.cat([original, original], 1)
    assert loss(two_channels, original).item() == pytest.approx(0, abs=1e-6)
    assert loss(original.bfloat16(), original.bfloat16()).dtype == torch.float32
    with pytest.raises(ValueError, match="shapes"):
        loss(original[..., :8], original)


@pytest.mark.parametrize("loss", [gradient_loss, mind_loss, correlation_loss])
def test_structure_losses_of_a_blank_image_have_finite_gradients(loss):
    blank = torch.zeros(1, 1, 8, 8, requires_grad=True)
    value = loss(blank, textured(n=1, side=8).float())
    value.backward()
    assert value.isfinite()
    assert blank.grad.isfinite().all()


def test_correlation_and_gradient_losses_are_numpys_correlations():
    one, other = textured(1), textured(2)

    def r2(a, b):
        pairs = zip(a, b, strict=True)
        return np.mean([np.corrcoef(x.ravel(), y.ravel())[0, 1] ** 2 for x, y in pairs])

    a, b = one.numpy()[:, 0], other.numpy()[:, 0]
    assert correlation_loss(one, other).item() == pytest.approx(1 - r2(a, b), abs=1e-12)
    edges = [r2(np.diff(a, axis=axis), np.diff(b, axis=axis)) for axis in (1, 2)]
    assert gradient_loss(one, other).item() == pytest.approx(1 - sum(edges) / 2, abs=1e-12)


def test_mask_loss_is_small_only_where_the_head_is():
    head = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    head[..., 2:6, 2:6] = True
    ct_hu = torch.where(head, 40.0, -1000.0)
    # 340 HU above the threshold is sigmoid(6.8) = 0.9989: 16 of 64 pixels miss a thousandth, the
    # others e^-14.
    assert mask_loss(ct_hu, head).item() == pytest.approx(
        (1 - 1 / (1 + math.exp(-6.8))) / 4 + 0.75 / (1 + math.exp(14)), rel=1e-3
    )
    assert mask_loss(ct_hu.roll(1, -1), head).item() == pytest.approx(8 / 64, rel=0.01)
    with pytest.raises(ValueError, match="uint8"):
        mask_loss(ct_hu, head.byte())
    with pytest.raises(ValueError, match="slice 1 .* empty"):
        mask_loss(ct_hu.repeat(2, 1, 1, 1), torch.cat([head, torch.zeros_like(head)]))


def test_patch_nce_is_the_literal_loop():
    """1e-6: the cross-entropy is computed in float32 at least, here in float64."""
    draw = torch.Generator().manual_seed(3)
    directions = torch.randn(2, 2, 5, 4, generator=draw, dtype=torch.float64)
    queries, keys = torch.nn.functional.normalize(directions, dim=-1)
    total = 0.0
    for q, k in zip(queries.tolist(), keys.tolist(), strict=True):
        for s in range(5):
            logits = [sum(a * b for a, b in zip(q[s], k[t], strict=True)) / 0.07 for t in range(5)]
            total -= math.log(math.exp(logits[s]) / sum(math.exp(logit) for logit in logits))
    assert patch_nce_loss(queries, keys).item() == pytest.approx(total / 10, abs=1e-9)
    keys.requires_grad_()
    queries.requires_grad_()
    patch_nce_loss(queries, keys).backward()
    assert keys.grad is None
    assert queries.grad.abs().sum() > 0

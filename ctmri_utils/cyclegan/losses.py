"""What a plain CycleGAN minimises: adversarial, cycle and identity losses, one function each."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..settings import GAN_MODES


def check_same_shape(first: Tensor, second: Tensor) -> None:
    """Raise ValueError unless both tensors have one shape: broadcasting would hide a mistake."""
    if first.shape != second.shape:
        raise ValueError(
            f"the two images have different shapes, {tuple(first.shape)} and "
            f"{tuple(second.shape)}: compare like with like"
        )


def mean_absolute_difference(image: Tensor, target: Tensor) -> Tensor:
    """mean |image - target|, a scalar; ValueError unless both have one shape."""
    check_same_shape(image, target)
    return (image - target).abs().mean()


def adversarial_loss(verdict: Tensor, real: bool, gan_mode: str = "lsgan") -> Tensor:
    """A discriminator's loss on one batch of images, all real or all fake.

    The forms:

    * "lsgan": mean (verdict - target)^2, target 1 for real and 0 for fake (Mao et al. 2017);
    * "vanilla": binary cross-entropy on logits (Goodfellow et al. 2014);
    * "hinge": mean max(0, 1 - verdict) for real, max(0, 1 + verdict) for fake (Lim and Ye 2017);
    * "wgangp": minus the mean verdict for real, plus it for fake (Arjovsky et al. 2017), to which
      `gradient_penalty` belongs.

    Args:
        verdict: (N, 1, h, w), unbounded.
        real: whether the images were real.
        gan_mode: one of the four forms.

    Returns:
        A scalar.

    Raises:
        ValueError: an unknown form.
    """
    if gan_mode in ("lsgan", "vanilla"):
        target = torch.full_like(verdict, float(real))
        if gan_mode == "lsgan":
            return F.mse_loss(verdict, target)
        return F.binary_cross_entropy_with_logits(verdict, target)

    signed = verdict if real else -verdict
    if gan_mode == "hinge":
        return F.relu(1 - signed).mean()
    if gan_mode == "wgangp":
        return -signed.mean()
    raise ValueError(f"gan_mode={gan_mode!r} is not known: choose one of {', '.join(GAN_MODES)}")


def fooling_loss(verdict: Tensor, gan_mode: str = "lsgan") -> Tensor:
    """A generator's loss by a verdict on its translations: the lower, the more they pass for real.

    As `adversarial_loss(verdict, True, gan_mode)`, except for "hinge", where it is minus the mean
    verdict: a generator gains by convincing more, however convinced the discriminator is.

    Args:
        verdict: (N, 1, h, w), unbounded.
        gan_mode: one of the four forms.

    Returns:
        A scalar.

    Raises:
        ValueError: an unknown form.
    """
    if gan_mode == "hinge":
        gan_mode = "wgangp"
    return adversarial_loss(verdict, True, gan_mode)


def gradient_penalty(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Mean squared difference between a discriminator's slope and 1.

    The slope is the length of the gradient of an image's summed verdict, taken at a random point on
    the line between a real and a fake image.

    Args:
        discriminator: the network.
        real, fake: (N, C, H, W) of one shape.

    Returns:
        mean (slope - 1)^2, a scalar >= 0, to be multiplied by 10.

    Raises:
        ValueError: the shapes differ.

    Source: Gulrajani et al. 2017 (arXiv 1704.00028), eq. 3.
    """
    check_same_shape(real, fake)
    share = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    between = torch.lerp(fake.detach().to(real.dtype), real, share).requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(between).sum(), between, create_graph=True)

    # The reference adds 1e-16 too: at 0 the norm has no derivative.
    slope = (gradient.flatten(1) + 1e-16).norm(dim=1)
    return (slope - 1).square().mean()


def cycle_loss(cycled: Tensor, original: Tensor) -> Tensor:
    """Mean absolute difference between a scan and its round trip.

    Args:
        cycled: G_mri2ct(G_ct2mri(ct)), (N, C, H, W) in [-1, 1].
        original: ct, same shape and range.

    Returns:
        A scalar >= 0, to be multiplied by 10 as in the paper.

    Raises:
        ValueError: the shapes differ.

    Source: Zhu et al. 2017, eq. 2.
    """
    return mean_absolute_difference(cycled, original)


def identity_loss(identity: Tensor, original: Tensor) -> Tensor:
    """Mean absolute change when a generator is given what it should produce.

    Args:
        identity: G_mri2ct(ct), (N, C, H, W) in [-1, 1].
        original: ct, same shape and range.

    Returns:
        A scalar >= 0, to be multiplied by 5 as in the paper, half the cycle's weight.

    Raises:
        ValueError: the shapes differ.

    Source: Zhu et al. 2017, section 5.2.
    """
    return mean_absolute_difference(identity, original)

"""What the networks are asked to minimise: adversarial, cycle and identity losses, one function each."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .options import GAN_MODES


def same_shape(one: Tensor, other: Tensor) -> None:
    """Raise ValueError unless both tensors have one shape: broadcasting would hide the mistake."""
    if one.shape != other.shape:
        raise ValueError(f"the two images have different shapes, {tuple(one.shape)} and {tuple(other.shape)}: compare like with like")


def adversarial_loss(verdict: Tensor, real: bool, gan_mode: str = "lsgan") -> Tensor:
    """How far a discriminator's verdict is from calling every patch real (or fake): a scalar, what the discriminator minimises.

    verdict: (N, 1, h, w), unbounded. "lsgan": mean (verdict - target)^2 with target 1 for real and 0 for fake (Mao et al. 2017);
    "vanilla": binary cross-entropy on logits (Goodfellow et al. 2014); "hinge": mean max(0, 1 - verdict) for real, with the sign turned for
    fake (Lim and Ye 2017); "wgangp": minus the mean verdict for real, plus it for fake (Arjovsky et al. 2017), to which belongs
    `gradient_penalty`. Raises ValueError for another mode.
    """
    if gan_mode == "lsgan":
        return F.mse_loss(verdict, torch.full_like(verdict, float(real)))
    if gan_mode == "vanilla":
        return F.binary_cross_entropy_with_logits(verdict, torch.full_like(verdict, float(real)))
    signed = verdict if real else -verdict
    if gan_mode == "hinge":
        return F.relu(1 - signed).mean()
    if gan_mode == "wgangp":
        return -signed.mean()
    raise ValueError(f"gan_mode={gan_mode!r} is not known: choose one of {', '.join(GAN_MODES)}")


def generator_loss(verdict: Tensor, gan_mode: str = "lsgan") -> Tensor:
    """What a generator minimises, given the verdict on its fakes: that they be called real.

    As `adversarial_loss(verdict, True, gan_mode)`, except for "hinge", where it is minus the mean verdict: a generator gains by convincing
    more, however convinced the discriminator is.
    """
    return adversarial_loss(verdict, True, "wgangp" if gan_mode == "hinge" else gan_mode)


def gradient_penalty(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """How far the discriminator's slope is from 1, between real and fake images: mean (|gradient| - 1)^2, a scalar >= 0.

    real, fake: (N, C, H, W) of the same shape, else ValueError. The gradient of an image's summed verdict is taken at a random point on
    the line between the two. Source: Gulrajani et al. 2017 (arXiv 1704.00028), eq. 3, to be multiplied by 10.
    """
    same_shape(real, fake)
    share = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    between = torch.lerp(fake.detach().to(real.dtype), real, share).requires_grad_()          # (N, C, H, W)
    slope, = torch.autograd.grad(discriminator(between).sum(), between, create_graph=True)
    return ((slope.flatten(1) + 1e-16).norm(dim=1) - 1).square().mean()       # as the reference: the norm has no slope of its own at 0


def cycle_loss(cycled: Tensor, original: Tensor) -> Tensor:
    """Mean absolute difference between a scan and its round trip, |G_mri2ct(G_ct2mri(ct)) - ct|.

    Both (N, C, H, W), float, in [-1, 1]. Returns a scalar >= 0, to be multiplied by 10 as in the paper.
    Raises ValueError if the shapes differ. Source: Zhu et al. 2017, eq. 2.
    """
    same_shape(cycled, original)
    return (cycled - original).abs().mean()


def identity_loss(identity: Tensor, original: Tensor) -> Tensor:
    """Mean absolute change when a generator is given what it should produce, |G_mri2ct(ct) - ct|.

    Both (N, C, H, W), float, in [-1, 1]. Returns a scalar >= 0, to be multiplied by 5 (half the cycle's weight).
    Raises ValueError if the shapes differ. Source: Zhu et al. 2017, section 5.2.
    """
    same_shape(identity, original)
    return (identity - original).abs().mean()

"""What the networks are asked to minimise: adversarial, cycle and identity losses, one function each."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

GAN_MODES = ("lsgan", "vanilla")


def same_shape(one: Tensor, other: Tensor) -> None:
    """Raise ValueError unless both tensors have one shape: broadcasting would hide the mistake."""
    if one.shape != other.shape:
        raise ValueError(f"the two images have different shapes, {tuple(one.shape)} and {tuple(other.shape)}: compare like with like")


def adversarial_loss(verdict: Tensor, real: bool, gan_mode: str = "lsgan") -> Tensor:
    """How far a discriminator's verdict is from calling every patch real (or fake): scalar >= 0.

    verdict: (N, 1, h, w), unbounded. "lsgan": mean (verdict - target)^2 with target 1 for real and 0 for fake (Mao et al. 2017);
    "vanilla": binary cross-entropy on logits (Goodfellow et al. 2014). The generator passes real=True for its fakes.
    Raises ValueError for another mode.
    """
    target = torch.full_like(verdict, float(real))
    if gan_mode == "lsgan":
        return F.mse_loss(verdict, target)
    if gan_mode == "vanilla":
        return F.binary_cross_entropy_with_logits(verdict, target)
    raise ValueError(f"gan_mode={gan_mode!r} is not known: choose one of {', '.join(GAN_MODES)}")


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

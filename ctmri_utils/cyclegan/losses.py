"""What the networks are asked to minimise.

Adversarial, cycle, identity, structure and contrast losses, one function each.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..settings import GAN_MODES


def same_shape(one: Tensor, other: Tensor) -> None:
    """Raise ValueError unless both tensors have one shape: broadcasting would hide the mistake."""
    if one.shape != other.shape:
        raise ValueError(
            f"the two images have different shapes, {tuple(one.shape)} and {tuple(other.shape)}: "
            "compare like with like"
        )


def adversarial_loss(verdict: Tensor, real: bool, gan_mode: str = "lsgan") -> Tensor:
    """How far a discriminator's verdict is from calling every patch real (or fake).

    A scalar, what the discriminator minimises.

    verdict: (N, 1, h, w), unbounded. "lsgan": mean (verdict - target)^2 with target 1 for real and
    0 for fake (Mao et al. 2017); "vanilla": binary cross-entropy on logits (Goodfellow et al.
    2014); "hinge": mean max(0, 1 - verdict) for real, with the sign turned for fake (Lim and Ye
    2017); "wgangp": minus the mean verdict for real, plus it for fake (Arjovsky et al. 2017), to
    which belongs `gradient_penalty`. Raises ValueError for another mode.
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

    As `adversarial_loss(verdict, True, gan_mode)`, except for "hinge", where it is minus the mean
    verdict: a generator gains by convincing more, however convinced the discriminator is.
    """
    return adversarial_loss(verdict, True, "wgangp" if gan_mode == "hinge" else gan_mode)


def gradient_penalty(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """How far the discriminator's slope is from 1, between real and fake images.

    Mean (|gradient| - 1)^2, a scalar >= 0.

    real, fake: (N, C, H, W) of the same shape, else ValueError. The gradient of an image's summed
    verdict is taken at a random point on the line between the two. Source: Gulrajani et al. 2017
    (arXiv 1704.00028), eq. 3, to be multiplied by 10.
    """
    same_shape(real, fake)
    share = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    between = torch.lerp(fake.detach().to(real.dtype), real, share).requires_grad_()  # (N, C, H, W)
    (slope,) = torch.autograd.grad(discriminator(between).sum(), between, create_graph=True)
    # as the reference: the norm has no slope of its own at 0
    return ((slope.flatten(1) + 1e-16).norm(dim=1) - 1).square().mean()


def cycle_loss(cycled: Tensor, original: Tensor) -> Tensor:
    """Mean absolute difference between a scan and its round trip, |G_mri2ct(G_ct2mri(ct)) - ct|.

    Both (N, C, H, W), float, in [-1, 1]. Returns a scalar >= 0, to be multiplied by 10 as in the
    paper. Raises ValueError if the shapes differ. Source: Zhu et al. 2017, eq. 2.
    """
    same_shape(cycled, original)
    return (cycled - original).abs().mean()


def identity_loss(identity: Tensor, original: Tensor) -> Tensor:
    """Mean absolute change when a generator is given what it should produce, |G_mri2ct(ct) - ct|.

    Both (N, C, H, W), float, in [-1, 1]. Returns a scalar >= 0, to be multiplied by 5 (half the
    cycle's weight). Raises ValueError if the shapes differ. Source: Zhu et al. 2017, section 5.2.
    """
    same_shape(identity, original)
    return (identity - original).abs().mean()


def grey(images: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, 1, H, W), the mean of the channels, in 32 bits at least (within autocast,
    what follows may have fewer).
    """
    return images.to(torch.promote_types(images.dtype, torch.float32)).mean(1, keepdim=True)


def squared_correlation(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's r, squared, of each pair of images (N, ..., H, W) over all their pixels.

    (N,), 0 where one of the two is constant.
    """
    one, other = (
        images.flatten(1) - images.flatten(1).mean(1, keepdim=True) for images in (one, other)
    )  # (N, pixels)
    return (one * other).sum(1).square() / (one.square().sum(1) * other.square().sum(1)).clamp(
        min=1e-12
    )


def correlation_loss(translation: Tensor, original: Tensor) -> Tensor:
    """How little of a translation a straight line would predict from its original, mean 1 - r^2.

    A scalar in [0, 1].

    translation, original: (N, C, H, W) and (N, C', H, W). r is Pearson's correlation over an
    image's pixels; squared, because what is bright in CT may be dark in MR. Source: Ge et al. 2019
    (who do not square it). Raises ValueError if the sizes differ.
    """
    translation, original = grey(translation), grey(original)
    same_shape(translation, original)
    return 1 - squared_correlation(translation, original).mean()


def gradient_loss(translation: Tensor, original: Tensor) -> Tensor:
    """How little the edges of a translation agree with those of its original, mean 1 - (r_x^2 +
    r_y^2) / 2: a scalar in [0, 1].

    translation, original: (N, C, H, W) and (N, C', H, W). r_x, r_y: Pearson's correlation of the
    differences between neighbours along rows and columns; squared, because edges turn their sign
    between CT and MR. But the square is of the whole slice's r, and not all edges turn: those of
    skin and bone partly cancel, so on heads this loss knows little (lesson 07). Source: after Hiasa
    et al. 2018 (arXiv 1803.06629). Raises ValueError if the sizes differ.
    """
    translation, original = grey(translation), grey(original)
    same_shape(translation, original)
    agreement = [
        squared_correlation(translation.diff(dim=axis), original.diff(dim=axis)).mean()
        for axis in (-1, -2)
    ]
    return 1 - sum(agreement) / 2


MIND_SHIFTS = [
    (row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if (row, column) != (0, 0)
]
# of the patch: a Gaussian of 3 x 3 pixels holds all but a thousandth of it
MIND_SIGMA_PX = 0.5


def mind(images: Tensor) -> Tensor:
    """Modality independent neighbourhood descriptor.

    How alike a pixel's patch is to those of its 8 neighbours; (N, 8, H, W) in (0, 1].

    images: (N, 1, H, W). exp(-D_r / V) / max_r, where D_r is the squared difference to the image
    shifted by r, weighted by a Gaussian patch, and V the mean of D over the 4 nearest neighbours,
    between 0.001 and 1000 times its mean over the image. Borders are repeated. It tells where edges
    are and not what their sign is. Source: Heinrich et al. 2012.
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, [1, 1, 1, 1], mode="replicate")
    shifted = torch.cat(
        [
            padded[..., 1 + row : 1 + row + height, 1 + column : 1 + column + width]
            for row, column in MIND_SHIFTS
        ],
        1,
    )
    bell = torch.exp(
        -torch.arange(-1, 2, device=images.device, dtype=images.dtype).square()
        / (2 * MIND_SIGMA_PX**2)
    )
    patch = torch.outer(bell, bell) / bell.sum().square()  # (3, 3)
    difference = F.pad((shifted - images).square(), [1, 1, 1, 1], mode="replicate")
    distance = F.conv2d(
        difference, patch.expand(len(MIND_SHIFTS), 1, 3, 3), groups=len(MIND_SHIFTS)
    )  # (N, 8, H, W)
    nearest = [abs(row) + abs(column) == 1 for row, column in MIND_SHIFTS]
    variance = distance[:, nearest].mean(1, keepdim=True)
    typical = variance.mean((2, 3), keepdim=True).clamp(min=1e-8)
    likeness = torch.exp(-distance / variance.clamp(0.001 * typical, 1000 * typical))
    return likeness / likeness.amax(1, keepdim=True)


def mind_loss(translation: Tensor, original: Tensor) -> Tensor:
    """Mean absolute difference between the `mind` descriptors of a translation and of its original:
    a scalar in [0, 1].

    translation, original: (N, C, H, W) and (N, C', H, W). Source: Yang et al. 2018 (arXiv
    1809.04536). ValueError if the sizes differ.
    """
    translation, original = grey(translation), grey(original)
    same_shape(translation, original)
    return (mind(translation) - mind(original)).abs().mean()


def mask_loss(fake_ct_hu: Tensor, head: Tensor) -> Tensor:
    """How far the head of a fake CT is from where it belongs.

    Mean |sigmoid((HU + 300) / 50) - head|, a scalar in [0, 1].

    fake_ct_hu: (N, 1, H, W) in HU; head: the same shape, bool, the head's mask in the MR, cavities
    filled. Only CT has a threshold that tells head from air; in MR the skull is as black. Source:
    after MaskGAN (Phan et al. 2023, arXiv 2307.16143), whose mask is learned. Raises ValueError if
    the shapes differ, or a mask is not bool or empty.
    """
    same_shape(fake_ct_hu, head)
    if head.dtype != torch.bool:
        raise ValueError(f"the head mask is of {head.dtype} and should be bool: pass mask > 0")
    if empty := (~head.flatten(1).any(1)).nonzero().flatten().tolist():
        raise ValueError(
            f"the head mask of slice {empty[0]} of this batch is empty, so there is nothing to "
            "hold its translation to: remove the slice, or set mask = 0"
        )
    return (torch.sigmoid((fake_ct_hu + 300) / 50) - head.to(fake_ct_hu.dtype)).abs().mean()


def patch_nce_loss(queries: Tensor, keys: Tensor, temperature: float = 0.07) -> Tensor:
    """How badly a patch of the translation is told by its features from the other patches of its
    original: a scalar >= 0.

    queries, keys: (N, P, C), of length 1 along C, of P places in a translation and of the same
    places in its original. The cross-entropy of choosing among the P keys of the same image the one
    of the same place, with logits q.k / temperature; no gradient flows into the keys. Source: Park
    et al. 2020 (arXiv 2007.15651), section 3. Raises ValueError if the shapes differ.
    """
    same_shape(queries, keys)
    logits = queries @ keys.detach().transpose(1, 2) / temperature  # (N, P, P)
    places = torch.arange(logits.shape[-1], device=logits.device).expand(len(logits), -1)
    return F.cross_entropy(
        logits.flatten(0, 1).to(torch.promote_types(logits.dtype, torch.float32)), places.flatten()
    )

"""The remedies of lesson 07: further losses for a CycleGAN, one row of a table each.

`LOSSES` is that table. The name of a row is the name of its weight in `settings.Objective`, of its
part of the step's losses, and of its line in the progress bar. To add a loss: write its function,
add a row here and a field there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..masks import mri_head_mask
from ..units import HU
from .losses import check_same_shape, mean_absolute_difference
from .networks import ResnetBlock, ResnetGenerator, init_weights

if TYPE_CHECKING:
    from .model import CycleGAN, Images

# The eight neighbours of a pixel, as (row, column).
NEIGHBOURS = [
    (row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if (row, column) != (0, 0)
]

# The patch of `mind` is a Gaussian; 3 x 3 pixels hold all but a thousandth of it.
MIND_SIGMA_PX = 0.5

# The patches of each image and layer that are compared, and their features (Park et al. 2020).
PATCHES = 256
PATCH_FEATURES = 256

# The layers of a `ResnetGenerator` that pad the image first, and that halve it.
PADDING, HALVINGS = 0, (4, 7)


def check_losses(model: CycleGAN) -> None:
    """Raise ValueError, in one sentence, for a loss that the model's networks cannot have."""
    ct_channels, mri_channels = model.mapped_ct_channels, model.architecture.mri_channels
    for name in ("identity", "nce", "nce_identity"):
        weight = getattr(model.objective, name)
        if weight and ct_channels != mri_channels:
            raise ValueError(
                f"{name}={weight:g} needs as many CT as MR channels, and there are "
                f"{ct_channels} and {mri_channels}: set {name} = 0"
            )

    mask, channels = model.objective.mask, model.architecture.ct_channels
    if mask and channels > 1:
        raise ValueError(
            f"mask={mask:g} needs one CT channel, and there are {channels}: set mask = 0"
        )


def extra_networks(model: CycleGAN) -> nn.ModuleDict:
    """The networks that losses of the table train along with the generators, often none.

    They are a `PatchContrast` for each generator, with weights drawn as the model's others, if
    `nce` or `nce_identity` has a weight.
    """
    networks = nn.ModuleDict()
    if model.objective.nce or model.objective.nce_identity:
        for to, generator in model.current.items():
            networks[to] = PatchContrast(generator)
    return init_weights(networks, model.architecture.init, model.architecture.init_gain)


def grey(images: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, 1, H, W), the mean of the channels, in 32 bits at least."""
    # Under autocast images may have 16 bits, too few for the sums that follow.
    return images.to(torch.promote_types(images.dtype, torch.float32)).mean(1, keepdim=True)


def grey_pair(translation: Tensor, original: Tensor) -> tuple[Tensor, Tensor]:
    """Both images after `grey`; ValueError if their sizes differ."""
    translation, original = grey(translation), grey(original)
    check_same_shape(translation, original)
    return translation, original


def squared_correlation(translation: Tensor, original: Tensor) -> Tensor:
    """Pearson's r, squared, of each pair of images (N, ..., H, W) over all their pixels.

    Returns:
        (N,), 0 where one of the two images is constant.
    """
    a, b = translation.flatten(1), original.flatten(1)  # (N, pixels)
    a = a - a.mean(1, keepdim=True)
    b = b - b.mean(1, keepdim=True)
    spreads = a.square().sum(1) * b.square().sum(1)
    return (a * b).sum(1).square() / spreads.clamp(min=1e-12)


def correlation_loss(translation: Tensor, original: Tensor) -> Tensor:
    """Mean 1 - r^2, where r is Pearson's correlation of a translation with its original.

    So it is the share of a translation's variance that no straight line predicts from its original.
    r is squared, because what is bright in CT may be dark in MR.

    Args:
        translation: (N, C, H, W).
        original: (N, C', H, W).

    Returns:
        A scalar in [0, 1].

    Raises:
        ValueError: the sizes differ.

    Source: Ge et al. 2019 (who do not square it).
    """
    translation, original = grey_pair(translation, original)
    return 1 - squared_correlation(translation, original).mean()


def gradient_loss(translation: Tensor, original: Tensor) -> Tensor:
    """1 - (r_x^2 + r_y^2) / 2, from correlations of a translation's edges with its original's.

    r_x and r_y are Pearson's correlations of the differences between neighbours along rows and
    columns; squared, because edges turn their sign between CT and MR. But the square is of the
    whole slice's r, and not all edges turn: those of skin and bone partly cancel, so on heads this
    loss knows little (lesson 07).

    Args:
        translation: (N, C, H, W).
        original: (N, C', H, W).

    Returns:
        The mean over the images, a scalar in [0, 1].

    Raises:
        ValueError: the sizes differ.

    Source: after Hiasa et al. 2018 (arXiv 1803.06629).
    """
    translation, original = grey_pair(translation, original)
    along_rows = squared_correlation(translation.diff(dim=-1), original.diff(dim=-1)).mean()
    along_columns = squared_correlation(translation.diff(dim=-2), original.diff(dim=-2)).mean()
    return 1 - (along_rows + along_columns) / 2


def mind(images: Tensor) -> Tensor:
    """MIND, the modality independent neighbourhood descriptor of each pixel.

    It says how alike a pixel's patch is to its neighbours' patches: exp(-D_r / V) / max_r, where
    D_r is the squared difference to the image shifted by r, weighted by a Gaussian patch, and V the
    mean of D over the 4 nearest neighbours, between 0.001 and 1000 times its mean over the image.
    Borders are repeated. It tells where edges are and not what their sign is.

    Args:
        images: (N, 1, H, W).

    Returns:
        (N, 8, H, W) in (0, 1], a channel for each of the `NEIGHBOURS`.

    Source: Heinrich et al. 2012.
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, [1, 1, 1, 1], mode="replicate")
    shifted = [
        padded[..., 1 + row : 1 + row + height, 1 + column : 1 + column + width]
        for row, column in NEIGHBOURS
    ]
    difference = (torch.cat(shifted, 1) - images).square()

    offsets = torch.arange(-1, 2, device=images.device, dtype=images.dtype)
    bell = torch.exp(-offsets.square() / (2 * MIND_SIGMA_PX**2))
    patch = torch.outer(bell, bell) / bell.sum().square()  # (3, 3)
    distance = F.conv2d(
        F.pad(difference, [1, 1, 1, 1], mode="replicate"),
        patch.expand(len(NEIGHBOURS), 1, 3, 3),
        groups=len(NEIGHBOURS),
    )  # (N, 8, H, W)

    nearest = [abs(row) + abs(column) == 1 for row, column in NEIGHBOURS]
    variance = distance[:, nearest].mean(1, keepdim=True)
    typical = variance.mean((2, 3), keepdim=True).clamp(min=1e-8)
    likeness = torch.exp(-distance / variance.clamp(0.001 * typical, 1000 * typical))
    return likeness / likeness.amax(1, keepdim=True)


def mind_loss(translation: Tensor, original: Tensor) -> Tensor:
    """Mean absolute difference between the `mind` descriptors of a translation and its original.

    Args:
        translation: (N, C, H, W).
        original: (N, C', H, W).

    Returns:
        A scalar in [0, 1].

    Raises:
        ValueError: the sizes differ.

    Source: Yang et al. 2018 (arXiv 1809.04536).
    """
    translation, original = grey_pair(translation, original)
    return (mind(translation) - mind(original)).abs().mean()


def mask_loss(fake_ct_hu: Tensor, head: Tensor) -> Tensor:
    """Mean absolute difference between a soft mask of the head in a fake CT and its mask in the MR.

    Only CT has a threshold that tells head from air; in MR the skull is as black as air.

    Args:
        fake_ct_hu: (N, 1, H, W) in HU.
        head: the same shape, bool: the head's mask in the MR, cavities filled.

    Returns:
        mean |sigmoid((HU + 300) / 50) - head|, a scalar in [0, 1].

    Raises:
        ValueError: the shapes differ, or a mask is not bool or empty.

    Source: after MaskGAN (Phan et al. 2023, arXiv 2307.16143), whose mask is learned.
    """
    check_same_shape(fake_ct_hu, head)
    if head.dtype != torch.bool:
        raise ValueError(f"the head mask is of {head.dtype} and should be bool: pass mask > 0")

    empty = (~head.flatten(1).any(1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(
            f"the head mask of slice {empty[0]} of this batch is empty, so there is nothing to "
            "hold its translation to: remove the slice, or set mask = 0"
        )
    return (torch.sigmoid((fake_ct_hu + 300) / 50) - head.to(fake_ct_hu.dtype)).abs().mean()


def head_in(mri: Tensor) -> Tensor:
    """The head's mask in each MR slice: (N, C, H, W) in [-1, 1] -> bool (N, 1, H, W).

    Raises:
        ValueError: all slices are blank.
    """
    images = mri.mean(1, keepdim=True).detach().float().cpu().numpy()
    return torch.from_numpy(mri_head_mask(images)).to(mri.device)


def patch_nce_loss(queries: Tensor, keys: Tensor, temperature: float = 0.07) -> Tensor:
    """Cross-entropy of finding, for each patch of a translation, its position in the original.

    Each query chooses among the P keys of the same image, with logits q.k / temperature; the key of
    the same position is right. No gradient flows into the keys.

    Args:
        queries: (N, P, C), of length 1 along C, of P positions in a translation.
        keys: the same of the same positions in its original.
        temperature: divides the logits.

    Returns:
        A scalar >= 0.

    Raises:
        ValueError: the shapes differ.

    Source: Park et al. 2020 (arXiv 2007.15651), section 3.
    """
    check_same_shape(queries, keys)
    logits = queries @ keys.detach().transpose(1, 2) / temperature  # (N, P, P)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = torch.arange(logits.shape[-1], device=logits.device).expand(len(logits), -1)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class PatchContrast(nn.Module):
    """`patch_nce_loss` on features of layers in the first half of a ResNet generator.

    Five layers are compared, as in CUT (Park et al. 2020): the padded image, both halvings, the
    first and the middle residual block. Each has a small network that turns a patch's features into
    a direction; the same positions are drawn from both images, by torch's global generator.

    Raises:
        ValueError: a generator without residual blocks.
    """

    def __init__(self, generator: nn.Module):
        super().__init__()
        layers = list(generator.model.children())
        blocks = [i for i, layer in enumerate(layers) if isinstance(layer, ResnetBlock)]
        if not blocks:
            raise ValueError(
                "nce needs the residual blocks of a ResNet generator: set generator = "
                '"resnet" with n_blocks of 1 or more, or nce = 0'
            )
        middle = blocks[len(blocks) // 2]
        self.layers = [PADDING, *HALVINGS, *sorted({blocks[0], middle})]

        # All layers from the second halving on have the same width.
        first = layers[PADDING + 1]
        widths = [first.in_channels, 2 * first.out_channels]
        widths += [4 * first.out_channels for _ in self.layers[2:]]
        self.heads = nn.ModuleList(projection_head(width) for width in widths)

    def forward(self, generator: ResnetGenerator, translation: Tensor, original: Tensor) -> Tensor:
        """The mean loss over the layers; both images (N, C, H, W), C what the generator takes."""
        # No gradient flows into the original's features, which are the target.
        with torch.no_grad():
            targets = self.features(generator, original)

        total = 0
        translated = self.features(generator, translation)
        for head, query_map, key_map in zip(self.heads, translated, targets, strict=True):
            query_map, key_map = query_map.flatten(2), key_map.flatten(2)  # (N, width, h * w)
            patches = torch.randperm(query_map.shape[-1])[:PATCHES].to(query_map.device)
            queries = F.normalize(head(query_map[..., patches].transpose(1, 2)), dim=-1)
            keys = F.normalize(head(key_map[..., patches].transpose(1, 2)), dim=-1)
            total = total + patch_nce_loss(queries, keys)
        return total / len(self.heads)

    def features(self, generator: ResnetGenerator, images: Tensor) -> list[Tensor]:
        """What the compared layers make of images, (N, width, h, w) each."""
        maps = []
        for i, layer in enumerate(generator.model[: self.layers[-1] + 1]):
            images = layer(images)
            if i in self.layers:
                # A copy is kept, because the next layer may be a ReLU, which works in place.
                maps.append(images.clone())
        return maps


def projection_head(width: int) -> nn.Sequential:
    """The network that turns a patch's features into the vector that is compared."""
    return nn.Sequential(
        nn.Linear(width, PATCH_FEATURES), nn.ReLU(), nn.Linear(PATCH_FEATURES, PATCH_FEATURES)
    )


def both_ways(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[CycleGAN, Images], Tensor]:
    """A loss between a translation and its original, summed over both directions."""

    def summed(model: CycleGAN, images: Images) -> Tensor:
        return loss(images.fake_mri, images.ct) + loss(images.fake_ct, images.mri)

    return summed


def mask_term(model: CycleGAN, images: Images) -> Tensor:
    """`mask_loss` of the fake CT."""
    fake_ct_hu = HU.from_network(model.ct_map.decode(images.fake_ct))
    return mask_loss(fake_ct_hu, head_in(images.mri))


def nce_term(model: CycleGAN, images: Images) -> Tensor:
    """`patch_nce_loss` between both translations and their originals."""
    to_mri = model.contrast["mri"](model.G_ct2mri, images.fake_mri, images.ct)
    to_ct = model.contrast["ct"](model.G_mri2ct, images.fake_ct, images.mri)
    return to_mri + to_ct


def nce_identity_term(model: CycleGAN, images: Images) -> Tensor:
    """`patch_nce_loss` where a generator is given what it should produce."""
    to_mri = model.contrast["mri"](model.G_ct2mri, images.identity_mri, images.mri)
    to_ct = model.contrast["ct"](model.G_mri2ct, images.identity_ct, images.ct)
    return to_mri + to_ct


def supervised_term(model: CycleGAN, images: Images) -> Tensor:
    """Mean absolute difference between both translations and their truth, on pairs."""
    of_mri = mean_absolute_difference(images.fake_mri, images.mri)
    return of_mri + mean_absolute_difference(images.fake_ct, images.ct)


# Weight in `settings.Objective` -> f(model, images), a scalar without its weight.
LOSSES = {
    "gradient": both_ways(gradient_loss),
    "mind": both_ways(mind_loss),
    "correlation": both_ways(correlation_loss),
    "mask": mask_term,
    "nce": nce_term,
    "nce_identity": nce_identity_term,
    "supervised": supervised_term,
}

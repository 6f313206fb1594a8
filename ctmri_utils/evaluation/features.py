"""Images -> feature vectors, by a network that is always named.

A KID says nothing without the name of its extractor.

"ctmri-small-v1" ships with the project (card: data/weights/README.md); "inception-v3" is the
network behind published FID and KID, loaded by torchmetrics. Their numbers cannot be compared with
each other, nor the first one's with anything published. Neither is a default, and neither ever
stands in for the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

from ..files import existing
from ..machine import data_folder
from .distributions import kid

SMALL, INCEPTION = "ctmri-small-v1", "inception-v3"
SMALL_SHA256 = "df97ec0f54a80e02e3943e832270bf9cb357fd3f2ba38b3f26a10acb80f3e046"
# pixels per side
SMALLEST = 32
# bounds the memory, changes no result beyond rounding
BATCH = 32


class NamedDistance(NamedTuple):
    """A KID with its 95 % interval and the extractor without whose name it means nothing."""

    extractor: str
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"KID {self.value:.4f} [{self.low:.4f}, {self.high:.4f}] ({self.extractor})"


class SmallEncoder(nn.Module):
    """(N, 1, H, W) in [-1, 1] -> (N, 128), each between -1 and 1, so that no picture, however
    strange, outweighs all others in a KID.

    Of the 24 maps after the second convolution, which see texture: mean and SD over the image. Of
    the 40 after the last, which see 33 x 33 pixels: mean, and upper half minus lower half.
    Standardised with `centre` and `spread`, then z / (1 + |z|).
    """

    def __init__(self):
        super().__init__()

        def convolved(*layers: tuple[int, int, int]) -> nn.Sequential:
            return nn.Sequential(
                *(
                    m
                    for i, o, stride in layers
                    for m in (nn.Conv2d(i, o, 3, stride, padding=1), nn.LeakyReLU(0.1))
                )
            )

        self.texture = convolved((1, 16, 1), (16, 24, 2))
        self.deep = convolved((24, 48, 2), (48, 48, 1), (48, 48, 2), (48, 40, 1))
        self.register_buffer("centre", torch.zeros(128))
        self.register_buffer("spread", torch.ones(128))

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Texture (N, 24, H/2, W/2) and deep (N, 40, H/8, W/8) maps; sides are rounded up."""
        # background 0, like the padding
        texture = self.texture(images + 1)
        return texture, self.deep(texture)

    def pooled(self, maps: Sequence[Tensor]) -> Tensor:
        """(N, 128), before it is standardised."""
        texture, deep = maps
        sd = (texture.var((2, 3), correction=0) + 1e-8).sqrt()
        upper, lower = F.adaptive_avg_pool2d(deep, (2, 1))[..., 0].unbind(2)
        return torch.cat([texture.mean((2, 3)), sd, (upper + lower) / 2, upper - lower], 1)

    def forward(self, images: Tensor) -> Tensor:
        # other sums for other batches
        pooled = self.pooled([maps.double() for maps in self.maps(images)])
        return F.softsign((pooled - self.centre) / self.spread)


def features(images, extractor: str) -> np.ndarray:
    """One feature vector per image, float64 (N, d), for `distances.kid` and `distances.fid`.

    Computed on the CPU.

    images: (N, 1, H, W) in [-1, 1], tensor or array, of one modality and one pixel spacing:
    features change with both. extractor: "ctmri-small-v1" (d = 128) or "inception-v3" (d = 2048;
    images become 8-bit RGB of 299 x 299 pixels; the first use downloads 91 MB). Raises ValueError
    for other images or names, ImportError or FileNotFoundError if the extractor cannot be had.
    """
    images = checked_images(images)
    network = load_extractor(extractor)
    with torch.inference_mode():
        return torch.cat([network(part) for part in images.split(BATCH)]).double().numpy()


def kid_of(images_a, images_b, extractor: str, seed: int) -> NamedDistance:
    """KID between two sets of images with its interval, and the extractor's name.

    See `features` and `distances.kid`.

    Meant for translations and real images of the modality that they imitate. Tensors do not say
    what they show, so CT can be compared with MR: that number is an upper end for the scale. At
    least 10 images in each set. Raises ValueError, ImportError or FileNotFoundError as `features`
    does, and ValueError for too few images or sets of different size in pixels.
    """
    a, b = checked_images(images_a), checked_images(images_b)
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(
            f"the two sets hold images of {tuple(a.shape[2:])} and {tuple(b.shape[2:])} pixels, so "
            "their features differ whatever they show: bring both to one size and pixel spacing "
            "first."
        )
    return NamedDistance(extractor, *kid(features(a, extractor), features(b, extractor), seed))


def checked_images(images) -> Tensor:
    """The images as a float32 tensor on the CPU, or one sentence on what is wrong with them."""
    images = torch.as_tensor(images).detach().to("cpu", torch.float32)
    if (
        images.ndim != 4
        or images.shape[1] != 1
        or len(images) == 0
        or min(images.shape[2:]) < SMALLEST
    ):
        raise ValueError(
            "feature extractors take images (N, 1, H, W) of one modality, H and W at least "
            f"{SMALLEST}, got {tuple(images.shape)}: stack single-channel slices."
        )
    if not torch.isfinite(images).all():
        raise ValueError(
            f"the images hold {int((~torch.isfinite(images)).sum())} NaN or infinite values: mend "
            "them before comparing."
        )
    low, high = float(images.min()), float(images.max())
    if low < -1.001 or high > 1.001 or 0 <= low < high:
        raise ValueError(
            f"the images span {low:.4g} to {high:.4g}, but extractors take [-1, 1] with the "
            "background near -1: use the scale's to_network."
        )
    return images


@lru_cache
def load_extractor(extractor: str) -> Callable[[Tensor], Tensor]:
    """The function behind a name, (N, 1, H, W) in [-1, 1] -> (N, d); that one or an error."""
    if extractor in (SMALL, INCEPTION):
        return small_encoder() if extractor == SMALL else inception()
    raise ValueError(f'extractor={extractor!r} is not known: choose "{SMALL}" or "{INCEPTION}".')


def small_encoder() -> SmallEncoder:
    path = existing(
        data_folder() / "weights" / f"{SMALL}.safetensors",
        "install ctmri-utils again, or restore it from the repository",
    )
    stored = path.read_bytes()
    if hashlib.sha256(stored).hexdigest() != SMALL_SHA256:
        raise ValueError(
            f"{path} is damaged or from another training run, so its numbers are not those of "
            f"{SMALL}: restore the file."
        )
    encoder = SmallEncoder().eval().requires_grad_(False)
    encoder.load_state_dict(load(stored))
    return encoder


def inception() -> Callable[[Tensor], Tensor]:
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        network = NoTrainInceptionV3(name="inception-v3-compat", features_list=["2048"])
    except ImportError as error:
        raise ImportError(
            f'"{INCEPTION}" needs two more packages: pip install torchmetrics torch-fidelity, or '
            f'choose "{SMALL}", '
            "whose numbers are others."
        ) from error
    except Exception as error:
        # no network, a proxy's page, a download cut short
        raise FileNotFoundError(
            f'the weights of "{INCEPTION}" could not be downloaded or read '
            f"({' '.join(str(error).split())}): try again "
            f'with a connection to github.com, or choose "{SMALL}", whose numbers are others.'
        ) from error
    return lambda images: network(
        ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)
    )

"""Images -> feature vectors, by a network that is always named.

A KID says nothing without the name of its extractor. "ctmri-small-v1" ships with the project (card:
data/weights/README.md). "inception-v3" is the network behind published FID and KID, loaded by
torchmetrics. Their numbers cannot be compared with each other, nor the first one's with anything
published. Neither is a default, and neither ever stands in for the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

from ..files import existing
from ..machine import data_folder
from .checked_inputs import checked_numbers
from .distributions import kid

__all__ = [
    "INCEPTION",
    "SMALL",
    "NamedDistance",
    "SmallEncoder",
    "features",
    "kid_of",
]

SMALL = "ctmri-small-v1"
INCEPTION = "inception-v3"
SMALL_SHA256 = "df97ec0f54a80e02e3943e832270bf9cb357fd3f2ba38b3f26a10acb80f3e046"

# The least number of pixels per side.
SMALLEST = 32

# Batches bound the memory. Their size changes results by rounding at most.
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
    """A small encoder, (N, 1, H, W) in [-1, 1] -> (N, 128).

    Of the 24 maps after the second convolution, which see texture: mean and SD over the image. Of
    the 40 after the last, which see 33 x 33 pixels: mean, and upper half minus lower half.

    They are standardised with `centre` and `spread`, then z / (1 + |z|) brings each between -1 and
    1, so that no picture, however strange, outweighs all others in a KID.
    """

    def __init__(self):
        super().__init__()
        self.texture = convolutions((1, 16, 1), (16, 24, 2))
        self.deep = convolutions((24, 48, 2), (48, 48, 1), (48, 48, 2), (48, 40, 1))
        self.register_buffer("centre", torch.zeros(128))
        self.register_buffer("spread", torch.ones(128))

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Texture (N, 24, H/2, W/2) and deep (N, 40, H/8, W/8) maps; sides are rounded up."""
        # The background becomes 0, like the padding.
        texture = self.texture(images + 1)
        return texture, self.deep(texture)

    def pooled(self, maps: Sequence[Tensor]) -> Tensor:
        """(N, 128), before it is standardised."""
        texture, deep = maps
        mean = texture.mean((2, 3))
        sd = (texture.var((2, 3), correction=0) + 1e-8).sqrt()
        upper, lower = F.adaptive_avg_pool2d(deep, (2, 1))[..., 0].unbind(2)
        return torch.cat([mean, sd, (upper + lower) / 2, upper - lower], 1)

    def forward(self, images: Tensor) -> Tensor:
        # Batches of other sizes add in another order. In float64 that hardly shows.
        pooled = self.pooled([maps.double() for maps in self.maps(images)])
        return F.softsign((pooled - self.centre) / self.spread)


def convolutions(*layers: tuple[int, int, int]) -> nn.Sequential:
    """3 x 3 convolutions of (inputs, outputs, stride), each with a leaky ReLU."""
    modules = []
    for inputs, outputs, stride in layers:
        modules.append(nn.Conv2d(inputs, outputs, 3, stride, padding=1))
        modules.append(nn.LeakyReLU(0.1))
    return nn.Sequential(*modules)


def features(images: Tensor | ArrayLike, extractor: str) -> np.ndarray:
    """One feature vector per image, for `distributions.kid` and `distributions.fid`.

    Computed on the CPU.

    Args:
        images: (N, 1, H, W) in [-1, 1], tensor or array, of one modality and one pixel spacing:
            features change with both.
        extractor: "ctmri-small-v1" (d = 128) or "inception-v3" (d = 2048). For the latter, images
            become 8-bit RGB of 299 x 299 pixels, and the first use downloads 91 MB.

    Returns:
        float64 (N, d).

    Raises:
        ValueError: other images, or another name.
        ImportError: the extractor's packages are not installed.
        FileNotFoundError: the extractor's weights are missing or could not be downloaded.
    """
    images = checked_images(images)
    network = load_extractor(extractor)
    with torch.inference_mode():
        vectors = [network(batch) for batch in images.split(BATCH)]
    return torch.cat(vectors).double().numpy()


def kid_of(
    images_a: Tensor | ArrayLike, images_b: Tensor | ArrayLike, extractor: str, seed: int
) -> NamedDistance:
    """KID between two sets of images with its interval, and the extractor's name.

    Meant for translations and real images of the modality that they imitate. Tensors do not say
    what they show, so CT can be compared with MR: that number is an upper end for the scale.

    Args:
        images_a: (N, 1, H, W) in [-1, 1], at least 10 images.
        images_b: (M, 1, H, W), at least 10 images of the same size.
        extractor: "ctmri-small-v1" or "inception-v3", see `features`.
        seed: of the bootstrap, see `distributions.kid`.

    Returns:
        The distance, its 95 % interval and the extractor's name.

    Raises:
        ValueError: too few images, or sets of different size in pixels. Also what `features`
            raises.
    """
    a = checked_images(images_a)
    b = checked_images(images_b)
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(
            f"the two sets hold images of {tuple(a.shape[2:])} and {tuple(b.shape[2:])} pixels, so "
            "their features differ whatever they show: bring both to one size and pixel spacing "
            "first"
        )

    distance = kid(features(a, extractor), features(b, extractor), seed)
    return NamedDistance(extractor, distance.value, distance.low, distance.high)


def checked_images(images: Tensor | ArrayLike) -> Tensor:
    """The images as a float32 tensor on the CPU; ValueError unless an extractor can take them."""
    images = torch.as_tensor(images).detach().to("cpu", torch.float32)
    is_batch = images.ndim == 4 and images.shape[1] == 1 and len(images) > 0
    if not is_batch or min(images.shape[2:]) < SMALLEST:
        raise ValueError(
            "feature extractors take images (N, 1, H, W) of one modality, H and W at least "
            f"{SMALLEST}, got {tuple(images.shape)}: stack single-channel slices"
        )

    checked_numbers(images, "set of images")
    low, high = float(images.min()), float(images.max())
    if low < -1.001 or high > 1.001 or 0 <= low < high:
        raise ValueError(
            f"the images span {low:.4g} to {high:.4g}, but extractors take [-1, 1] with the "
            "background near -1: use the scale's to_network"
        )
    return images


@lru_cache
def load_extractor(extractor: str) -> Callable[[Tensor], Tensor]:
    """The function behind a name, (N, 1, H, W) in [-1, 1] -> (N, d); that one or an error."""
    if extractor == SMALL:
        return small_encoder()
    if extractor == INCEPTION:
        return inception()
    raise ValueError(f'extractor={extractor!r} is not known: choose "{SMALL}" or "{INCEPTION}"')


def small_encoder() -> SmallEncoder:
    """The encoder of this project, with the weights that its name stands for."""
    path = existing(
        data_folder() / "weights" / f"{SMALL}.safetensors",
        "reinstall ctmri-utils, or restore it from the repository",
    )
    stored = path.read_bytes()
    if hashlib.sha256(stored).hexdigest() != SMALL_SHA256:
        raise ValueError(
            f"{path} is damaged or from another training run, so its numbers are not those of "
            f"{SMALL}: restore the file"
        )

    encoder = SmallEncoder().eval().requires_grad_(False)
    encoder.load_state_dict(load(stored))
    return encoder


def inception() -> Callable[[Tensor], Tensor]:
    """Inception v3 with the weights behind published FID and KID."""
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        network = NoTrainInceptionV3(name="inception-v3-compat", features_list=["2048"])
    except ImportError as error:
        raise ImportError(
            f'"{INCEPTION}" needs two more packages: pip install torchmetrics torch-fidelity, or '
            f'choose "{SMALL}", whose numbers are others'
        ) from error
    except Exception as error:
        # There is no network, a proxy sent its own page, or the download was cut short.
        raise FileNotFoundError(
            f'the weights of "{INCEPTION}" could not be downloaded or read '
            f"({' '.join(str(error).split())}): try again "
            f'with a connection to github.com, or choose "{SMALL}", whose numbers are others'
        ) from error

    def extract(images: Tensor) -> Tensor:
        grey = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return network(grey.expand(-1, 3, -1, -1))

    return extract

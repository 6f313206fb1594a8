"""How training slices are moved about, by torchvision's transforms.

What moves in from beyond the edge is background. Never top to bottom: heads are not scanned upside
down.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from ..settings import Training

BACKGROUND = -1


def random_seed(*numbers: int) -> int:
    """A seed made of these numbers, the same on every machine."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return int(state >> 1)


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Inside the block what torch draws on the CPU depends on these numbers alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(random_seed(*numbers))
        yield


class Augmentation:
    """Shift or crop, mirror and rotate slices of one size.

    Shifts and crops are by whole pixels: interpolation would blur, and the networks would learn to
    blur.

    Args:
        training: its crop_size, shift, flip, rotation_deg and jitter.
        size: height and width of the slices.
    """

    def __init__(self, training: Training, size: tuple[int, int]):
        crop = (training.crop_size, training.crop_size) if training.crop_size else size
        reach = round(training.shift * max(size))
        moves = [v2.RandomCrop(crop, padding=reach, fill=BACKGROUND)]
        if training.flip:
            moves.append(v2.RandomHorizontalFlip())
        if training.rotation_deg:
            moves.append(
                v2.RandomRotation(
                    training.rotation_deg, InterpolationMode.BILINEAR, fill=BACKGROUND
                )
            )
        self.moves = v2.Compose(moves)
        self.brightness = v2.ColorJitter(brightness=training.jitter) if training.jitter else None

    def move(self, image: Tensor) -> Tensor:
        """Move a slice, (C, H, W) in [-1, 1], all its channels in the same way."""
        return self.moves(as_image(image)).as_subclass(Tensor)[:, 0]

    def brighten(self, mri: Tensor) -> Tensor:
        """Brighten or darken an MR slice, (C, H, W) in [-1, 1]; its background stays.

        CT is never brightened: Hounsfield units are calibrated, so a brighter CT is another tissue.
        """
        if self.brightness is None:
            return mri
        shares = as_image((mri + 1) / 2)
        return self.brightness(shares).as_subclass(Tensor)[:, 0] * 2 - 1


def as_image(image: Tensor) -> tv_tensors.Image:
    """(C, H, W) as C grey pictures: torchvision knows one or three colours."""
    return tv_tensors.Image(image[:, None])  # (C, 1, H, W)

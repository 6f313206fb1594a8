"""Training batches: which slices a step sees, and how they are augmented.

Both depend on the seed and the step alone, so that a resumed run sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..files import is_large, large_tensor
from ..settings import Training
from ..units import MODALITIES
from .augmentation import Augmentation, random_seed, seeded
from .engine import Worker

# Slices are kept in 16 bits, so [-1, 1] has this many levels on each side, 0.03 HU apart.
LEVELS = 32767

# Heights that differ by this share of the head count as equal, as in MaskGAN's sampling.
LIKE_HEIGHT = 0.03


@dataclass(frozen=True)
class Slices:
    """The slices that `fit` trains on; a `Split` of `scans` has the same fields.

    Args:
        ct, mri: (N, C, H, W) and (M, C, H, W), float32 in [-1, 1].
        ct_names, mri_names: a name for each slice, for error messages.
        positions: the height in the head of each CT and of each MR slice, 0 to 1, or None.
        paired: whether ct[i] and mri[i] are one slice of one patient.
    """

    ct: Tensor
    mri: Tensor
    ct_names: Sequence[str] = ()
    mri_names: Sequence[str] = ()
    positions: tuple[Sequence[float], Sequence[float]] | None = None
    paired: bool = False


class UnpairedBatches:
    """`batches(step)` gives the CT and the MR batch of a training step.

    Every slice of a modality is seen once before any is seen again, in an order that is shuffled
    anew each time and independent of the other modality's: that is what unpaired means. With
    sampling "position" each CT meets an MR within 3 % of its height, drawn anew each time (the
    nearest if there is none); with "paired" it meets the MR of its own index, moved as it is.

    Args:
        slices: what to draw from, a `Slices` or a `scans.Split`.
        training: batch size, sampling and augmentation.
        seed: of the order and of the augmentation.
        worker: where the batches go; each of several processes gets its part of the batch that
            they share.

    Raises:
        ValueError: the slices are smaller than the crop.
    """

    def __init__(self, slices: Slices, training: Training, seed: int, worker: Worker = Worker()):
        self.training = training
        self.seed = seed
        self.worker = worker
        self.names = {"ct": slices.ct_names, "mri": slices.mri_names}
        self.positions = [torch.tensor(heights) for heights in slices.positions or ()]

        self.images = {}
        self.augmentations = {}
        for modality, images in (("ct", slices.ct), ("mri", slices.mri)):
            images = compact(images, training.load_size)
            if min(images.shape[-2:]) < training.crop_size:
                raise ValueError(
                    f"crop_size={training.crop_size} is larger than the slices of "
                    f"{'x'.join(map(str, images.shape[-2:]))} pixels: choose less, or a load_size "
                    "at least as large"
                )
            on_disk = is_large(images.shape, images.dtype)
            self.images[modality] = images if on_disk else images.to(worker.device)
            self.augmentations[modality] = Augmentation(training, images.shape[-2:])

        # A batch needs the orders of both modalities, of one turn or of two.
        self.order = lru_cache(maxsize=4)(self.shuffled)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """The CT and the MR batch, (batch_size, C, H, W) in [-1, 1] each; steps count from 0."""
        ct_indexes, mri_indexes = self.indexes(step, "ct"), self.indexes(step, "mri")
        first = self.worker.process * self.training.batch_size

        ct_batch, mri_batch = [], []
        for i in range(first, first + self.training.batch_size):
            ct = self.slice("ct", ct_indexes[i])
            mri = self.slice("mri", mri_indexes[i])
            with seeded(self.seed, 1, step, i):
                if self.training.sampling == "paired":
                    # The channels of one slice are moved alike.
                    pair = self.augmentations["ct"].move(torch.cat([ct, mri]))
                    ct, mri = pair.split([len(ct), len(mri)])
                else:
                    ct = self.augmentations["ct"].move(ct)
                    mri = self.augmentations["mri"].move(mri)
                mri = self.augmentations["mri"].brighten(mri)
            ct_batch.append(ct)
            mri_batch.append(mri)

        device = self.worker.device
        return torch.stack(ct_batch).to(device), torch.stack(mri_batch).to(device)

    def describe(self, step: int) -> str:
        """Which slices a step sees, for an error message."""
        parts = []
        for modality, title in MODALITIES.items():
            indexes = self.indexes(step, modality).tolist()
            names = [slice_name(self.names[modality], index) for index in indexes]
            parts.append(f"{title} {', '.join(names)}")
        return " and ".join(parts)

    def slice(self, modality: str, index: Tensor) -> Tensor:
        """One slice as it was given, (C, H, W) in [-1, 1]."""
        return self.images[modality][int(index)].float().div_(LEVELS)

    def indexes(self, step: int, modality: str) -> Tensor:
        """Which slices the processes see together in a step, (batch_size * processes,)."""
        if modality == "mri" and self.training.sampling == "paired":
            return self.indexes(step, "ct")
        if modality == "mri" and self.training.sampling == "position":
            return self.of_like_height(self.indexes(step, "ct"), random_source(self.seed, 2, step))

        count = len(self.images[modality])
        together = self.training.batch_size * self.worker.processes
        indexes = []
        for drawn in range(step * together, (step + 1) * together):
            turn, position = divmod(drawn, count)
            indexes.append(self.order(modality, turn)[position])
        return torch.stack(indexes)

    def of_like_height(self, ct: Tensor, random: torch.Generator) -> Tensor:
        """An MR slice of like height for each CT slice."""
        ct_heights, mri_heights = self.positions
        distances = (mri_heights - ct_heights[ct][:, None]).abs()  # (CTs, all MRs)
        near = distances <= distances.amin(1, keepdim=True).clamp(min=LIKE_HEIGHT)
        return torch.multinomial(near.float(), 1, generator=random)[:, 0]

    def shuffled(self, modality: str, turn: int) -> Tensor:
        """The order in which a modality's slices come in one turn through all of them."""
        stream = list(MODALITIES).index(modality)
        random = random_source(self.seed, 0, stream, turn)
        return torch.randperm(len(self.images[modality]), generator=random)


def slice_name(names: Sequence[str], index: int) -> str:
    """The name of a slice in an error message; its number where slices have no names."""
    return names[index] if names else f"number {index}"


def random_source(*numbers: int) -> torch.Generator:
    """A source of random numbers that is seeded by these numbers alone."""
    return torch.Generator().manual_seed(random_seed(*numbers))


def compact(images: Tensor, size: int = 0) -> Tensor:
    """(N, C, H, W) in [-1, 1] as int16, half the memory of float32 (or none, see `large_tensor`).

    Args:
        images: the slices.
        size: resize them to this many pixels a side; 0: as they are.
    """
    height, width = (size, size) if size else images.shape[-2:]
    stored = large_tensor((*images.shape[:2], height, width), torch.int16)
    for part, target in zip(images.split(64), stored.split(64), strict=True):
        if part.shape[-2:] != (height, width):
            part = F.interpolate(
                part, (height, width), mode="bicubic", antialias=True, align_corners=False
            )
        target.copy_((part.clamp(-1, 1) * LEVELS).round())
    return stored

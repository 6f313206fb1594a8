"""Training batches: which slices a step sees, and how they are augmented.

Both depend on the seed and the step alone, so that a resumed run sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..files import is_large, large_tensor
from ..settings import Training

CT, MRI = 0, 1

# [-1, 1] in 16 bits: steps of 0.03 HU.
LEVELS = 32767

# Of the scanned height, as in MaskGAN's position-based sampling.
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


def generator_for(*numbers: int) -> torch.Generator:
    """A random source of its own for these numbers, the same on every machine."""
    seed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed >> 1))


class UnpairedBatches:
    """`batches(step)` gives the CT and the MR batch of a training step.

    Every slice of a modality is seen once before any is seen again, in an order that is shuffled
    anew each time and independent of the other modality's: that is what unpaired means. With
    sampling "position" each CT meets an MR within 3 % of its height, drawn anew each time (the
    nearest if there is none); with "paired" it meets the MR of its own index, moved as it is.

    Args:
        ct, mri: (N, C, H, W) and (M, C, H, W) in [-1, 1].
        training: batch size, sampling and augmentation.
        seed: of the order and of the augmentation.
        device: where the batches go.
        process, processes: each of several processes gets its part of the batch that they share.
        positions: the height of each CT and of each MR slice, 0 to 1.

    Raises:
        ValueError: the slices are smaller than the crop.
    """

    def __init__(
        self,
        ct: Tensor,
        mri: Tensor,
        training: Training,
        seed: int,
        device: torch.device | str = "cpu",
        process: int = 0,
        processes: int = 1,
        positions: Sequence[Sequence[float]] | None = None,
    ):
        self.training = training
        self.seed = seed
        self.device = device
        self.process = process
        self.processes = processes
        self.positions = [torch.tensor(heights) for heights in positions or ()]
        self.orders: dict[tuple[int, int], Tensor] = {}

        self.images = []
        for images in (ct, mri):
            images = compact(images, training.load_size)
            if min(images.shape[-2:]) < training.crop_size:
                raise ValueError(
                    f"crop_size={training.crop_size} is larger than the slices of "
                    f"{'x'.join(map(str, images.shape[-2:]))} pixels: choose less, or a load_size "
                    "at least as large"
                )
            on_disk = is_large(images.shape, images.dtype)
            self.images.append(images if on_disk else images.to(device))

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """The CT and the MR batch, (batch_size, C, H, W) in [-1, 1] each; steps count from 0."""
        return self.batch(step, CT), self.batch(step, MRI)

    def batch(self, step: int, modality: int) -> Tensor:
        images = self.images[modality]
        indexes = self.indexes(step, modality)

        # A pair is moved alike.
        stream = CT if self.training.sampling == "paired" else modality
        random = generator_for(self.seed, 1, stream, step)
        moves = draw_moves(self.training, len(indexes), images.shape[-2:], random)
        if modality == CT:
            # Hounsfield units are calibrated: a brighter CT is another tissue.
            moves["gain"] = torch.ones(len(indexes))

        moves = {name: self.own_part(move) for name, move in moves.items()}
        chosen = [images[i] for i in self.own_part(indexes).tolist()]
        parts = cut_out(chosen, moves, self.training, background=-LEVELS)
        return distort(parts.to(self.device).float().div_(LEVELS), moves, self.training)

    def indexes(self, step: int, modality: int) -> Tensor:
        """Which slices the processes see together in a step, (batch_size * processes,)."""
        if modality == MRI and self.training.sampling == "paired":
            return self.indexes(step, CT)
        if modality == MRI and self.training.sampling == "position":
            return self.of_like_height(self.indexes(step, CT), generator_for(self.seed, 2, step))

        count = len(self.images[modality])
        together = self.training.batch_size * self.processes
        chosen = []
        for place in range(step * together, (step + 1) * together):
            turn, index = divmod(place, count)
            chosen.append(self.order(modality, turn)[index])
        return torch.stack(chosen)

    def of_like_height(self, ct: Tensor, random: torch.Generator) -> Tensor:
        """An MR slice of like height for each CT slice."""
        ct_heights, mri_heights = self.positions
        distances = (mri_heights - ct_heights[ct][:, None]).abs()  # (CTs, all MRs)
        near = distances <= distances.amin(1, keepdim=True).clamp(min=LIKE_HEIGHT)
        return torch.multinomial(near.float(), 1, generator=random)[:, 0]

    def order(self, modality: int, turn: int) -> Tensor:
        """The order in which a modality's slices come in one turn through all of them."""
        key = modality, turn
        if key not in self.orders:
            # A batch reaches back to the turn before, at most.
            self.orders = {
                (other, old): order
                for (other, old), order in self.orders.items()
                if other != modality or old >= turn - 1
            }
            random = generator_for(self.seed, 0, modality, turn)
            self.orders[key] = torch.randperm(len(self.images[modality]), generator=random)
        return self.orders[key]

    def own_part(self, together: Tensor) -> Tensor:
        """This process's part of what belongs to the batch of all processes."""
        size = self.training.batch_size
        return together[self.process * size :][:size]


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


def draw_moves(
    training: Training, count: int, size: tuple[int, int], random: torch.Generator
) -> dict[str, Tensor]:
    """How each of `count` images of a size is to be augmented, (count,) each.

    Returns:
        "top" and "left" of its cut-out, "mirrored" or not, "angle" in degrees, and "gain".
    """
    reach = round(training.shift * max(size))
    rows, columns = (side + 2 * reach - (training.crop_size or side) + 1 for side in size)

    moves = {
        "top": torch.randint(rows, (count,), generator=random),
        "left": torch.randint(columns, (count,), generator=random),
    }
    if training.flip:
        moves["mirrored"] = torch.rand(count, generator=random) < 0.5
    else:
        moves["mirrored"] = torch.zeros(count, dtype=torch.bool)
    moves["angle"] = (2 * torch.rand(count, generator=random) - 1) * training.rotation_deg
    moves["gain"] = 1 + (2 * torch.rand(count, generator=random) - 1) * training.jitter
    return moves


def cut_out(
    images: Sequence[Tensor], moves: dict[str, Tensor], training: Training, background: float
) -> Tensor:
    """The shifted, mirrored or cropped (N, C, crop_size, crop_size) of N images (C, H, W).

    Without a crop (N, C, H, W). Whole pixels only: interpolation would blur, and the networks would
    learn to blur. What moves in is background. Never top to bottom: heads are not scanned upside
    down.
    """
    sides = images[0].shape[-2:]
    height, width = (training.crop_size or side for side in sides)
    reach = round(training.shift * max(sides))
    parts = images[0].new_full((len(images), len(images[0]), height, width), background)

    for k, image in enumerate(images):
        top, left = int(moves["top"][k]) - reach, int(moves["left"][k]) - reach
        part = image[:, max(top, 0) : top + height, max(left, 0) : left + width]

        # Rows and columns of background before the part of the image.
        above, before = max(-top, 0), max(-left, 0)
        if moves["mirrored"][k]:
            part = part.flip(-1)
            before = width - before - part.shape[-1]
        parts[k][:, above : above + part.shape[-2], before : before + part.shape[-1]] = part
    return parts


def distort(images: Tensor, moves: dict[str, Tensor], training: Training) -> Tensor:
    """Rotate and brighten (N, C, H, W) in [-1, 1] by each one's angle and gain; same out.

    What turns in is background, -1.
    """
    if training.rotation_deg:
        angles = moves["angle"].to(images.device)
        grid = F.affine_grid(rotations(angles, images.shape[-2:]), list(images.shape), False)

        # Beyond the edge grid_sample sees 0, which is background here.
        images = F.grid_sample(images + 1, grid, align_corners=False) - 1
    if training.jitter:
        gain = moves["gain"].to(images.device)[:, None, None, None]
        images = ((images + 1) * gain - 1).clamp(-1, 1)
    return images


def rotations(angles: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, 2, 3) matrices for `affine_grid` that rotate by angles in degrees; pixels are square."""
    height, width = size
    cos, sin, zero = angles.deg2rad().cos(), angles.deg2rad().sin(), torch.zeros_like(angles)
    of_x = torch.stack([cos, -sin * height / width, zero], 1)
    of_y = torch.stack([sin * width / height, cos, zero], 1)
    return torch.stack([of_x, of_y], 1)

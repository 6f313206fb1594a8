"""Training batches: which slices a step sees and how they are moved about, a function of the seed
and the step alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..files import is_large, roomy
from ..settings import Training

# [-1, 1] in 16 bits: steps of 0.03 HU
LEVELS = 32767
# of the scanned height, as MaskGAN's position-based sampling
LIKE_HEIGHT = 0.03


def compact(images: Tensor, size: int = 0) -> Tensor:
    """(N, C, H, W) in [-1, 1] as int16, half the memory of float32 (or none, see `roomy`).

    Resized to `size` pixels a side, unless that is 0.
    """
    height, width = (size, size) if size else images.shape[-2:]
    stored = roomy((*images.shape[:2], height, width), torch.int16)
    for part, target in zip(images.split(64), stored.split(64), strict=True):
        if part.shape[-2:] != (height, width):
            part = F.interpolate(
                part, (height, width), mode="bicubic", antialias=True, align_corners=False
            )
        target.copy_((part.clamp(-1, 1) * LEVELS).round())
    return stored


def generator_for(*numbers: int) -> torch.Generator:
    """A random source of its own for these numbers, the same on every machine."""
    return torch.Generator().manual_seed(
        int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
    )


class UnpairedBatches:
    """`batches(step)` gives the CT and the MR batch of a training step, (batch_size, C, H, W) in
    [-1, 1] each.

    ct, mri: (N, C, H, W) and (M, C, H, W) in [-1, 1]. Every slice of a modality is seen once before
    any is seen again, in an order that is shuffled anew each time and independent of the other
    modality's: that is what unpaired means. With sampling "position" each CT meets an MR within 3 %
    of its height, drawn anew each time (the nearest if there is none), positions being the heights
    of both, 0 to 1; with "paired" it meets the MR of its own index, moved as it is. process,
    processes: with several of them, each gets its own part of the larger batch that they see
    together. Raises ValueError if the slices are smaller than the crop.
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
        self.training, self.seed, self.device = training, seed, device
        self.positions = [torch.tensor(heights) for heights in positions or ()]
        self.process, self.processes = process, processes
        self.images = [compact(images, training.load_size) for images in (ct, mri)]
        for images in self.images:
            if min(images.shape[-2:]) < training.crop_size:
                raise ValueError(
                    f"crop_size={training.crop_size} is larger than the slices of "
                    f"{'x'.join(map(str, images.shape[-2:]))} pixels: choose less, or a load_size "
                    "at least as large"
                )
        self.images = [
            images if is_large(images.shape, images.dtype) else images.to(device)
            for images in self.images
        ]
        self.orders: dict[tuple[int, int], Tensor] = {}

    def indexes(self, step: int, modality: int) -> Tensor:
        """Which slices of a modality (0 CT, 1 MR) the processes see together in a step, counted
        from 0: (batch_size * processes,).
        """
        if modality == 1 and self.training.sampling == "paired":
            return self.indexes(step, 0)
        if modality == 1 and self.training.sampling == "position":
            return self.neighbours(self.indexes(step, 0), generator_for(self.seed, 2, step))
        count, together = len(self.images[modality]), self.training.batch_size * self.processes
        rounds = [divmod(place, count) for place in range(step * together, (step + 1) * together)]
        return torch.stack([self.order(modality, turn)[place] for turn, place in rounds])

    def neighbours(self, ct: Tensor, generator: torch.Generator) -> Tensor:
        """An MR slice of like height for each CT slice."""
        distances = (self.positions[1] - self.positions[0][ct][:, None]).abs()  # (CTs, all MRs)
        near = distances <= distances.amin(1, keepdim=True).clamp(min=LIKE_HEIGHT)
        return torch.multinomial(near.float(), 1, generator=generator)[:, 0]

    def order(self, modality: int, turn: int) -> Tensor:
        key = modality, turn
        if key not in self.orders:
            self.orders = {
                other: order
                for other, order in self.orders.items()
                if other[0] != modality or other[1] >= turn - 1
            }
            self.orders[key] = torch.randperm(
                len(self.images[modality]), generator=generator_for(self.seed, 0, *key)
            )
        return self.orders[key]

    def mine(self, together: Tensor) -> Tensor:
        """This process's part of what belongs to the larger batch."""
        return together[self.process * self.training.batch_size :][: self.training.batch_size]

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        batches = []
        for modality, images in enumerate(self.images):
            chosen = self.indexes(step, modality)
            moved_as = 0 if self.training.sampling == "paired" else modality
            moves = draw_moves(
                self.training,
                len(chosen),
                images.shape[-2:],
                generator_for(self.seed, 1, moved_as, step),
            )
            if modality == 0:
                # Hounsfield units are calibrated: a brighter CT is another tissue
                moves["gain"] = torch.ones(len(chosen))
            moves = {name: self.mine(move) for name, move in moves.items()}
            parts = cut_out(
                [images[i] for i in self.mine(chosen).tolist()],
                moves,
                self.training,
                background=-LEVELS,
            )
            batches.append(
                distort(parts.to(self.device).float().div_(LEVELS), moves, self.training)
            )
        return batches[0], batches[1]


def draw_moves(
    training: Training, count: int, size: tuple[int, int], generator: torch.Generator
) -> dict[str, Tensor]:
    """How each of `count` images of a size is to be moved.

    Top and left of its cut-out, mirrored or not, angle and gain, (count,) each.
    """
    reach = round(training.shift * max(size))
    room = [side + 2 * reach - (training.crop_size or side) + 1 for side in size]
    return {
        "top": torch.randint(room[0], (count,), generator=generator),
        "left": torch.randint(room[1], (count,), generator=generator),
        "mirrored": torch.rand(count, generator=generator) < 0.5
        if training.flip
        else torch.zeros(count, dtype=torch.bool),
        "angle": (2 * torch.rand(count, generator=generator) - 1) * training.rotation_deg,
        "gain": 1 + (2 * torch.rand(count, generator=generator) - 1) * training.jitter,
    }


def cut_out(
    images: Sequence[Tensor], moves: dict[str, Tensor], training: Training, background: float
) -> Tensor:
    """The moved, mirrored or cropped (N, C, crop_size, crop_size) of N images (C, H, W).

    (N, C, H, W) without a crop.

    Whole pixels only: interpolation would blur, and the networks would learn to blur. What moves in
    is background. Never top to bottom: heads are not scanned upside down.
    """
    sides = images[0].shape[-2:]
    height, width = (training.crop_size or side for side in sides)
    reach = round(training.shift * max(sides))
    parts = images[0].new_full((len(images), len(images[0]), height, width), background)
    places = zip(*(moves[name].tolist() for name in ("top", "left", "mirrored")), strict=True)
    for image, part, (top, left, mirrored) in zip(images, parts, places, strict=True):
        # rows and columns of background
        above, before = max(reach - top, 0), max(reach - left, 0)
        found = image[
            :,
            max(top - reach, 0) : top - reach + height,
            max(left - reach, 0) : left - reach + width,
        ]
        if mirrored:
            found, before = found.flip(-1), width - before - found.shape[-1]
        part[:, above : above + found.shape[-2], before : before + found.shape[-1]] = found
    return parts


def distort(images: Tensor, moves: dict[str, Tensor], training: Training) -> Tensor:
    """Turn and brighten (N, C, H, W) in [-1, 1] by each one's angle and gain; same out.

    What turns in is background, -1.
    """
    moves = {name: move.to(images.device) for name, move in moves.items()}
    if training.rotation_deg:
        height, width = images.shape[-2:]
        cos, sin, zero = (
            moves["angle"].deg2rad().cos(),
            moves["angle"].deg2rad().sin(),
            torch.zeros_like(moves["angle"]),
        )
        turns = torch.stack(
            [
                torch.stack([cos, -sin * height / width, zero], 1),
                torch.stack([sin * width / height, cos, zero], 1),
            ],
            1,
        )
        grid = F.affine_grid(turns, list(images.shape), align_corners=False)
        # beyond the edge: 0, which is background
        images = F.grid_sample(images + 1, grid, align_corners=False) - 1
    if training.jitter:
        images = ((images + 1) * moves["gain"][:, None, None, None] - 1).clamp(-1, 1)
    return images

"""Train the feature extractor "ctmri-small-v1" on synthetic patients.

Data/weights/ctmri-small-v1.safetensors.

    python data/build_extractor.py                               # about five minutes on one core

The encoder sees CT and MR slices, disturbed at random, and learns two things at once: which share
of every 8 x 8 block is which tissue, and what was done to the picture (upside down, noise, blur,
gamma, level). The second task keeps in the features what the first would learn to ignore. Only the
encoder is written. The same machine and library versions give the same bytes; other bytes are
another extractor and need another name. See data/weights/README.md for what it is for and how well
it learned.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ctmri_utils.cyclegan.networks import count_parameters
from ctmri_utils.evaluation.features import SMALL, SmallEncoder
from ctmri_utils.scans.datasets import phantom_scans
from ctmri_utils.scans.phantom import TISSUES

# pixels per side, over the phantom's 220 mm
SIZES = (64, 96, 128)
# half CT, half MR
BATCH = 16
LEARNING_RATE = 2e-3
# batches of each size
EXAMINED = 20
# pixels per side of a block, the encoder's stride
CELL = 8
CONDITIONS = ("ct", "upside down", "noise", "blur", "gamma", "level")
# so many of these are; the others are shares of the largest amount
YES_OR_NO = 2
MOST_NOISE, MOST_BLUR_PX, MOST_LOG_GAMMA, MOST_LEVEL, MOST_BIAS = 0.15, 1.5, 0.4, 0.2, 0.2

# ct, mri in [-1, 1], labels: (N, 1, size, size) each, paired
Patients = tuple[Tensor, Tensor, Tensor]


def patients(n: int, size: int, seed: int) -> Patients:
    # its training patients are not used
    both = phantom_scans(1, n, size, seed).test
    return both.ct, both.mri, torch.from_numpy(both.truth.labels)[:, None].float()


def drawn(group: Patients, count: int, source: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Images (count, 1, H, W), half CT and half MR of patients drawn at random, their labels, and
    whether each is CT (count,).
    """
    ct, mri, labels = group
    chosen = torch.randint(len(ct), (count,), generator=source)
    is_ct = torch.arange(count) < count // 2
    return (
        torch.where(is_ct[:, None, None, None], ct[chosen], mri[chosen]),
        labels[chosen],
        is_ct.float(),
    )


def disturb(
    images: Tensor, labels: Tensor, is_ct: Tensor, source: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Turn, zoom, mirror, shade, brighten, blur and add noise.

    Images and labels (N, 1, H, W) -> the same, and `CONDITIONS` (N, 6).
    """
    n = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=source)

    def half_of_them() -> Tensor:
        return (torch.rand(n, generator=source) < 0.5).float()

    moved, mirrored, upside_down = half_of_them(), half_of_them(), half_of_them()
    zoom, turn = 1 + moved * uniform(-0.15, 0.15), moved * uniform(-0.15, 0.15)
    x, y = zoom * (1 - 2 * mirrored), zoom * (1 - 2 * upside_down)
    rows = [
        torch.stack([x * turn.cos(), -y * turn.sin(), moved * uniform(-0.05, 0.05)], 1),
        torch.stack([x * turn.sin(), y * turn.cos(), moved * uniform(-0.05, 0.05)], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), images.shape, align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    labels = F.grid_sample(labels, grid, mode="nearest", padding_mode="border", align_corners=False)

    noise, blur_px = (
        half_of_them() * uniform(0, MOST_NOISE),
        half_of_them() * uniform(0, MOST_BLUR_PX),
    )
    log_gamma = half_of_them() * uniform(-MOST_LOG_GAMMA, MOST_LOG_GAMMA)
    level = half_of_them() * uniform(-MOST_LEVEL, MOST_LEVEL)
    coarse = 2 * torch.rand(n, 1, 3, 3, generator=source) - 1
    shading = (
        F.interpolate(coarse, images.shape[2:], mode="bicubic", align_corners=True)
        * MOST_BIAS
        * (1 - is_ct)[:, None, None, None]
    )
    brightness = ((images + 1) / 2 * (1 + shading)).clamp(1e-4, 1) ** log_gamma.exp()[
        :, None, None, None
    ]
    images = blurred(2 * brightness - 1 + level[:, None, None, None], blur_px)
    images = images + noise[:, None, None, None] * torch.randn(images.shape, generator=source)
    conditions = [
        is_ct,
        upside_down,
        noise / MOST_NOISE,
        blur_px / MOST_BLUR_PX,
        log_gamma / MOST_LOG_GAMMA,
        level / MOST_LEVEL,
    ]
    return images.clamp(-1, 1), labels, torch.stack(conditions, 1)


def blurred(images: Tensor, sd_px: Tensor) -> Tensor:
    """Each of the images (N, 1, H, W) convolved with its own Gaussian, sd_px (N,)."""
    reach = 5
    kernels = torch.exp(
        -0.5 * (torch.arange(-reach, reach + 1) / sd_px.clamp(min=1e-2)[:, None]) ** 2
    )
    kernels = (kernels / kernels.sum(1, keepdim=True))[:, None]  # (N, 1, 11)
    across = F.pad(images.transpose(0, 1), [reach] * 4, mode="replicate")
    across = F.conv2d(across, kernels[:, :, None], groups=len(images))
    return F.conv2d(across, kernels[..., None], groups=len(images)).transpose(0, 1)


def tissue_shares(labels: Tensor) -> Tensor:
    """(N, 1, H, W) -> (N, tissues, H/8, W/8), summing to 1."""
    return F.avg_pool2d(
        F.one_hot(labels[:, 0].long(), len(TISSUES)).permute(0, 3, 1, 2).float(), CELL
    )


class Pupil(nn.Module):
    """The encoder with the two heads that teach it and are thrown away."""

    def __init__(self):
        super().__init__()
        self.encoder = SmallEncoder()
        self.tissues = nn.Conv2d(40, len(TISSUES), 1)
        self.conditions = nn.Sequential(
            nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, len(CONDITIONS))
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.encoder.maps(images)
        return self.tissues(maps[1]), self.conditions(self.encoder.pooled(maps))


def loss(tissues: Tensor, conditions: Tensor, labels: Tensor, truth: Tensor) -> Tensor:
    """Cross entropy of the tissue shares and of yes or no, squared error of the amounts."""
    answers, amounts = conditions.split([YES_OR_NO, len(CONDITIONS) - YES_OR_NO], 1)
    true_answers, true_amounts = truth.split([YES_OR_NO, len(CONDITIONS) - YES_OR_NO], 1)
    return (
        F.cross_entropy(tissues, tissue_shares(labels))
        + F.binary_cross_entropy_with_logits(answers, true_answers)
        + F.mse_loss(amounts, true_amounts)
    )


def train(pupil: Pupil, groups: list[Patients], steps: int, source: torch.Generator) -> None:
    optimizer = torch.optim.Adam(pupil.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for step in range(1, steps + 1):
        images, labels, is_ct = drawn(groups[step % len(groups)], BATCH, source)
        images, labels, truth = disturb(images, labels, is_ct, source)
        error = loss(*pupil(images), labels, truth)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0 or step == steps:
            print(f"step {step}: loss {float(error.detach()):.3f}", flush=True)


@torch.no_grad()
def standardise(encoder: SmallEncoder, groups: list[Patients]) -> None:
    """Set centre and spread: mean and SD over undisturbed slices of all sizes, as many CT as MR."""
    found = torch.cat(
        [
            encoder.pooled(encoder.maps(part))
            for ct, mri, _ in groups
            for part in torch.cat([ct, mri]).split(BATCH)
        ]
    )
    encoder.centre.copy_(found.mean(0))
    encoder.spread.copy_(found.std(0).clamp(min=1e-2))


@torch.no_grad()
def examination(pupil: Pupil, groups: list[Patients], source: torch.Generator) -> dict[str, float]:
    """What the pupil learned, on disturbed slices of patients that it has never seen."""
    right, blocks, answers, truths = 0, 0, [], []
    for group in groups:
        for _ in range(EXAMINED):
            images, labels, is_ct = drawn(group, BATCH, source)
            images, labels, truth = disturb(images, labels, is_ct, source)
            tissues, conditions = pupil(images)
            shares = tissue_shares(labels)
            head = shares[:, TISSUES["air"].label] < 1
            right += int((tissues.argmax(1) == shares.argmax(1))[head].sum())
            blocks += int(head.sum())
            answers.append(conditions)
            truths.append(truth)
    answer, truth = torch.cat(answers), torch.cat(truths)
    found = {"main tissue of a block right": right / blocks}
    for i, name in enumerate(CONDITIONS):
        if i < YES_OR_NO:
            found[f"{name} right"] = float(
                ((answer[:, i] > 0) == (truth[:, i] > 0.5)).float().mean()
            )
        else:
            found[f"{name} R2"] = 1 - float(
                (answer[:, i] - truth[:, i]).square().mean() / truth[:, i].var(correction=0)
            )
    return {name: round(value, 3) for name, value in found.items()}


def build(path: Path, steps: int, n: int, seed: int) -> dict:
    """Train from the seed on n patients of each size, write the encoder with its card (JSON, in the
    file's header) and return the card.
    """
    torch.manual_seed(seed)
    # more threads add in another order
    torch.set_num_threads(1)
    source, started = torch.Generator().manual_seed(seed), time.process_time()
    pupil = Pupil()
    groups = [patients(n, size, seed) for size in SIZES]
    train(pupil, groups, steps, source)
    standardise(pupil.encoder, groups)
    unseen = [patients(max(n // 4, 1), size, seed + 1) for size in SIZES]
    card = {
        "name": SMALL,
        "parameters": count_parameters(pupil.encoder),
        "seed": seed,
        "steps": steps,
        "batch": BATCH,
        "patients": n,
        "sizes": SIZES,
        "torch": torch.__version__.split("+")[0],
        "unseen patients": examination(pupil, unseen, source),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.contiguous() for name, tensor in pupil.encoder.state_dict().items()}
    # several keys have no fixed order
    save_file(weights, path, metadata={"card": json.dumps(card)})
    print(f"{path}: {path.stat().st_size} bytes, {time.process_time() - started:.0f} s of CPU time")
    return card


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument(
        "--patients",
        type=int,
        default=400,
        help="of each of the sizes 64, 96 and 128 (default: 400)",
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "weights" / f"{SMALL}.safetensors"
    )
    options = parser.parse_args(arguments)
    print(json.dumps(build(options.out, options.steps, options.patients, options.seed), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())

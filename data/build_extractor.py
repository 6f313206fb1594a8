"""Train the feature extractor "ctmri-small-v1" on synthetic patients.

    python data/build_extractor.py                               # about five minutes on one core

It writes data/weights/ctmri-small-v1.safetensors. The encoder sees CT and MR slices, disturbed at
random, and learns two things at once: which share of every 8 x 8 block is which tissue, and what
was done to the picture (upside down, noise, blur, gamma, level). The second task keeps in the
features what the first would learn to ignore. Only the encoder is written.

The same machine and library versions give the same bytes. Other bytes are another extractor and
need another name. data/weights/README.md says what it is for and how well it learned.
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
from ctmri_utils.scans.physics import TISSUES

# Pixels per side, over the phantom's 220 mm.
SIZES = (64, 96, 128)
# Half CT, half MR.
BATCH = 16
LEARNING_RATE = 2e-3
# Test batches of each size.
EXAMINED = 20
# Pixels per side of a block, the encoder's stride.
CELL = 8
# The tissues that the phantom from formulas has; deep grey matter comes after them.
CLASSES = TISSUES["tumour"].label + 1

# What was done to a picture. The first two are yes or no, the others shares of the largest amount.
CONDITIONS = ("ct", "upside down", "noise", "blur", "gamma", "level")
YES_OR_NO = 2

MOST_NOISE = 0.15
MOST_BLUR_PX = 1.5
MOST_LOG_GAMMA = 0.4
MOST_LEVEL = 0.2
MOST_BIAS = 0.2

# ct, mri in [-1, 1], labels: (N, 1, size, size) each, paired.
Patients = tuple[Tensor, Tensor, Tensor]


def patients(n: int, size: int, seed: int) -> Patients:
    """Paired slices of n synthetic patients."""
    # Only the test patients have both scans.
    paired = phantom_scans(1, n, size, seed).test
    labels = torch.from_numpy(paired.truth.labels)[:, None].float()
    return paired.ct, paired.mri, labels


def draw_batch(group: Patients, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw patients at random and show half of them as CT, half as MR.

    Returns:
        Images (count, 1, H, W), their labels, and whether each is CT (count,).
    """
    ct, mri, labels = group
    chosen = torch.randint(len(ct), (count,), generator=rng)
    is_ct = torch.arange(count) < count // 2
    images = torch.where(per_image(is_ct), ct[chosen], mri[chosen])
    return images, labels[chosen], is_ct.float()


def disturb(
    images: Tensor, labels: Tensor, is_ct: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Turn, zoom, mirror, shade, brighten, blur and add noise.

    Args:
        images: (N, 1, H, W) in [-1, 1].
        labels: (N, 1, H, W).
        is_ct: (N,), 1 or 0.
        rng: draws the disturbances.

    Returns:
        Images and labels of the same shapes, and `CONDITIONS`, (N, 6).
    """
    n = len(images)
    images, labels, upside_down = move(images, labels, rng)

    noise = half_of(n, rng) * uniform(n, 0, MOST_NOISE, rng)
    blur_px = half_of(n, rng) * uniform(n, 0, MOST_BLUR_PX, rng)
    log_gamma = half_of(n, rng) * uniform(n, -MOST_LOG_GAMMA, MOST_LOG_GAMMA, rng)
    level = half_of(n, rng) * uniform(n, -MOST_LEVEL, MOST_LEVEL, rng)

    # Shading of the receive coil, on MR only.
    coarse = 2 * torch.rand(n, 1, 3, 3, generator=rng) - 1
    smooth = F.interpolate(coarse, images.shape[2:], mode="bicubic", align_corners=True)
    shading = smooth * MOST_BIAS * per_image(1 - is_ct)

    brightness = ((images + 1) / 2 * (1 + shading)).clamp(1e-4, 1) ** per_image(log_gamma.exp())
    images = blurred(2 * brightness - 1 + per_image(level), blur_px)
    images = images + per_image(noise) * torch.randn(images.shape, generator=rng)

    conditions = [
        is_ct,
        upside_down,
        noise / MOST_NOISE,
        blur_px / MOST_BLUR_PX,
        log_gamma / MOST_LOG_GAMMA,
        level / MOST_LEVEL,
    ]
    return images.clamp(-1, 1), labels, torch.stack(conditions, 1)


def move(images: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Turn, zoom, shift and mirror images and labels alike; also whether each is upside down."""
    n = len(images)
    moved, mirrored, upside_down = half_of(n, rng), half_of(n, rng), half_of(n, rng)
    zoom = 1 + moved * uniform(n, -0.15, 0.15, rng)
    turn = moved * uniform(n, -0.15, 0.15, rng)
    shift_x = moved * uniform(n, -0.05, 0.05, rng)
    shift_y = moved * uniform(n, -0.05, 0.05, rng)

    x = zoom * (1 - 2 * mirrored)
    y = zoom * (1 - 2 * upside_down)
    first_row = torch.stack([x * turn.cos(), -y * turn.sin(), shift_x], 1)
    second_row = torch.stack([x * turn.sin(), y * turn.cos(), shift_y], 1)
    matrices = torch.stack([first_row, second_row], 1)  # (N, 2, 3)

    grid = F.affine_grid(matrices, images.shape, align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    labels = F.grid_sample(labels, grid, mode="nearest", padding_mode="border", align_corners=False)
    return images, labels, upside_down


def uniform(n: int, low: float, high: float, rng: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=rng)


def half_of(n: int, rng: torch.Generator) -> Tensor:
    """n numbers, each 0 or 1 with equal chance."""
    return (torch.rand(n, generator=rng) < 0.5).float()


def per_image(values: Tensor) -> Tensor:
    """(N,) -> (N, 1, 1, 1), to act on images."""
    return values[:, None, None, None]


def blurred(images: Tensor, sd_px: Tensor) -> Tensor:
    """Convolve each image with its own Gaussian; images (N, 1, H, W), sd_px (N,)."""
    reach = 5
    offsets = torch.arange(-reach, reach + 1)
    kernels = torch.exp(-0.5 * (offsets / sd_px.clamp(min=1e-2)[:, None]) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True))[:, None]  # (N, 1, 11)

    # One group per image; first along the rows, then along the columns.
    across = F.pad(images.transpose(0, 1), [reach] * 4, mode="replicate")  # (1, N, H+10, W+10)
    across = F.conv2d(across, kernels[:, :, None], groups=len(images))
    return F.conv2d(across, kernels[..., None], groups=len(images)).transpose(0, 1)


def tissue_shares(labels: Tensor) -> Tensor:
    """(N, 1, H, W) -> (N, tissues, H/8, W/8), summing to 1."""
    one_hot = F.one_hot(labels[:, 0].long(), CLASSES).permute(0, 3, 1, 2)
    return F.avg_pool2d(one_hot.float(), CELL)


class TrainedEncoder(nn.Module):
    """The encoder with the two heads that train it and are then thrown away."""

    def __init__(self):
        super().__init__()
        self.encoder = SmallEncoder()
        self.tissues = nn.Conv2d(40, CLASSES, 1)
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


def train(model: TrainedEncoder, groups: list[Patients], steps: int, rng: torch.Generator) -> None:
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for step in range(1, steps + 1):
        images, labels, is_ct = draw_batch(groups[step % len(groups)], BATCH, rng)
        images, labels, truth = disturb(images, labels, is_ct, rng)
        tissues, conditions = model(images)
        error = loss(tissues, conditions, labels, truth)

        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0 or step == steps:
            print(f"step {step}: loss {float(error.detach()):.3f}", flush=True)


@torch.no_grad()
def standardise(encoder: SmallEncoder, groups: list[Patients]) -> None:
    """Set centre and spread: mean and SD over undisturbed slices of all sizes, as many CT as MR."""
    pooled = []
    for ct, mri, _ in groups:
        for part in torch.cat([ct, mri]).split(BATCH):
            pooled.append(encoder.pooled(encoder.maps(part)))

    features = torch.cat(pooled)
    encoder.centre.copy_(features.mean(0))
    encoder.spread.copy_(features.std(0).clamp(min=1e-2))


@torch.no_grad()
def evaluate(
    model: TrainedEncoder, groups: list[Patients], rng: torch.Generator
) -> dict[str, float]:
    """Measure what the encoder learned, on disturbed slices of patients that it has never seen."""
    right, blocks = 0, 0
    answers, truths = [], []
    for group in groups:
        for _ in range(EXAMINED):
            images, labels, is_ct = draw_batch(group, BATCH, rng)
            images, labels, truth = disturb(images, labels, is_ct, rng)
            tissues, conditions = model(images)
            answers.append(conditions)
            truths.append(truth)

            # Blocks of nothing but air do not count.
            shares = tissue_shares(labels)
            head = shares[:, TISSUES["air"].label] < 1
            right += int((tissues.argmax(1) == shares.argmax(1))[head].sum())
            blocks += int(head.sum())

    answer, truth = torch.cat(answers), torch.cat(truths)
    results = {"main tissue of a block right": right / blocks}
    for i, name in enumerate(CONDITIONS):
        if i < YES_OR_NO:
            is_right = (answer[:, i] > 0) == (truth[:, i] > 0.5)
            results[f"{name} right"] = float(is_right.float().mean())
        else:
            error = (answer[:, i] - truth[:, i]).square().mean()
            results[f"{name} R2"] = 1 - float(error / truth[:, i].var(correction=0))
    return {name: round(value, 3) for name, value in results.items()}


def build(path: Path, steps: int, n: int, seed: int) -> dict:
    """Train the encoder and write it with its card, as JSON in the file's header.

    Args:
        path: the file to write.
        steps: of training.
        n: patients of each size.
        seed: draws patients, weights and disturbances.

    Returns:
        The card.
    """
    torch.manual_seed(seed)
    # More threads add in another order.
    torch.set_num_threads(1)
    rng = torch.Generator().manual_seed(seed)
    started = time.process_time()

    model = TrainedEncoder()
    groups = [patients(n, size, seed) for size in SIZES]
    train(model, groups, steps, rng)
    standardise(model.encoder, groups)

    unseen = [patients(max(n // 4, 1), size, seed + 1) for size in SIZES]
    card = {
        "name": SMALL,
        "parameters": count_parameters(model.encoder),
        "seed": seed,
        "steps": steps,
        "batch": BATCH,
        "patients": n,
        "sizes": SIZES,
        "torch": torch.__version__.split("+")[0],
        "unseen patients": evaluate(model, unseen, rng),
    }

    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.contiguous() for name, tensor in model.encoder.state_dict().items()}
    # One key only: several would be written in no fixed order.
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

"""Measure how long scoring takes.

Every paired metric on 200 slices of 128 x 128, features per second, and KID of 1,000 slices.

    python benchmarks/evaluation.py                              # about half a minute on two cores
    CTMRI_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/evaluation.py

All lines come from one run. Each step runs once, after a small one of its kind to load what it
needs. "wall" is what a reader waits, "CPU" what all threads used together.

Targets on two cores: all paired metrics under 10 s, KID of 1,000 slices under 10 s after features.
The predictions are other patients' CTs and MRs, so no metric meets an easy case. "inception-v3" is
timed too if it can be loaded.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ctmri_utils.evaluation import faithfulness, lesions, metrics
from ctmri_utils.evaluation.ct_metrics import CT_METRICS, CtMetric
from ctmri_utils.evaluation.distributions import fid, kid
from ctmri_utils.evaluation.features import INCEPTION, SMALL, features
from ctmri_utils.machine import report
from ctmri_utils.scans.datasets import phantom_scans
from ctmri_utils.scans.phantom import SyntheticPatients
from ctmri_utils.scans.physics import TISSUES
from ctmri_utils.seeds import set_up

SEED = 0
MRI_RANGE = (-1.0, 1.0)

# Inception takes seconds per image, so it gets no more images than this.
FEW_IMAGES = 32


class Pairs:
    """Every paired metric as a function of (i, j), which scores patient j as a prediction of i.

    Args:
        truth: of N patients.
        mri: the same patients' MR, (N, H, W) in [-1, 1].
    """

    def __init__(self, truth: SyntheticPatients, mri: np.ndarray):
        self.truth = truth
        self.mri = mri
        self.grey = truth.labels == TISSUES["grey matter"].label
        self.white = truth.labels == TISSUES["white matter"].label

    def metrics(self) -> dict[str, Callable[[int, int], object]]:
        """Name -> function, the metrics of CT before those of MR."""
        of_ct = {name: partial(self.ct_metric, metric) for name, metric in CT_METRICS.items()}
        return of_ct | {
            "shift px": self.shift_px,
            "head mask Dice": self.head_dice,
            "lesion contrast recovery": self.lesion_contrast_recovery,
            "lesion detector": self.detects_lesion,
            "nMAE of MR": self.nmae,
            "PSNR dB of MR": self.psnr_db,
            "SSIM of MR": self.ssim,
            "rank correlation of MR": self.rank_correlation,
        }

    def ct_metric(self, metric: CtMetric, i: int, j: int) -> float:
        truth = self.truth
        return metric(truth.ct_hu[j], truth.ct_hu[i], truth.head[i], truth.spacing_mm)

    def shift_px(self, i: int, j: int) -> np.ndarray:
        return faithfulness.shift_px(self.truth.ct_hu[j], self.truth.ct_hu[i])

    def head_dice(self, i: int, j: int) -> float:
        return faithfulness.mask_dice(self.truth.head[j], self.truth.head[i])

    def lesion_contrast_recovery(self, i: int, j: int) -> float:
        # The time does not depend on whether there is a lesion, so grey matter stands in for one.
        ct_hu = self.truth.ct_hu
        return lesions.lesion_contrast_recovery(ct_hu[j], ct_hu[i], self.grey[i], self.white[i])

    def detects_lesion(self, i: int, j: int) -> bool:
        return lesions.detects_lesion(self.truth.ct_hu[j], self.truth.head[i])

    def nmae(self, i: int, j: int) -> float:
        return metrics.nmae(self.mri[j], self.mri[i], self.truth.head[i], MRI_RANGE)

    def psnr_db(self, i: int, j: int) -> float:
        return metrics.psnr_db(self.mri[j], self.mri[i], self.truth.head[i], MRI_RANGE)

    def ssim(self, i: int, j: int) -> float:
        return metrics.ssim(self.mri[j], self.mri[i], self.truth.head[i], MRI_RANGE)

    def rank_correlation(self, i: int, j: int) -> float:
        return metrics.rank_correlation(self.mri[j], self.mri[i], self.truth.head[i])


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    wall = time.perf_counter()
    cpu = time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def print_line(what: str, seconds: tuple[float, float], note: str = "") -> None:
    print(f"{what:<44} {seconds[0]:8.2f} {seconds[1]:8.2f}  {note}".rstrip(), flush=True)


def time_paired_metrics(truth: SyntheticPatients, mri: np.ndarray, size: int) -> None:
    """One line for each paired metric on all slices, and one for their sum."""
    slices = len(mri)
    wall = cpu = 0.0
    for name, score in Pairs(truth, mri).metrics().items():

        def score_all(score=score):
            for i in range(slices):
                score(i, i - 1)

        score(0, 1)
        seconds = timed(score_all)
        wall += seconds[0]
        cpu += seconds[1]
        print_line(f"{name}, {slices} slices", seconds)

    what = f"all of these, {slices} slices of {size} x {size}"
    print_line(what, (wall, cpu), "target: 10 s")


def noisy_copies(images: Tensor, count: int) -> Tensor:
    """As many images as asked for, repeated with a little noise: enough for a timing."""
    repeats = -(-count // len(images))
    repeated = images.repeat(repeats, 1, 1, 1)[:count]
    return (repeated + 0.01 * torch.randn(repeated.shape)).clamp(-1, 1)


def time_features(sets: list[Tensor]) -> list[np.ndarray]:
    """A line for each extractor; returns the small one's features of both sets."""
    extracted = []

    def extract_small():
        for images in sets:
            extracted.append(features(images, SMALL))

    count = len(sets[0]) + len(sets[1])
    features(sets[0][:2], SMALL)
    seconds = timed(extract_small)
    print_line(
        f"features of {count} slices, {SMALL}", seconds, f"{count / seconds[0]:.0f} slices/s"
    )

    few = sets[0][:FEW_IMAGES]
    try:
        features(few[:2], INCEPTION)
        seconds = timed(lambda: features(few, INCEPTION))
        rate = f"{len(few) / seconds[0]:.1f} slices/s"
        print_line(f"features of {len(few)} slices, {INCEPTION}", seconds, rate)
    except (ImportError, FileNotFoundError) as error:
        print(f"{INCEPTION} left out: {error}")
    return extracted


def time_distances(extracted: list[np.ndarray]) -> None:
    """Lines for KID and FID of these features, and for KID of as many as Inception's."""
    images, d = extracted[0].shape
    sizes = f"{images} + {images} slices"
    seconds = timed(lambda: kid(*extracted, seed=SEED))
    print_line(f"KID, {sizes}, d = {d}", seconds, "target: 10 s")
    print_line(f"FID, {sizes}, d = {d}", timed(lambda: fid(*extracted)))

    wide = [np.random.default_rng(i).random((images, 2048)) for i in (0, 1)]
    seconds = timed(lambda: kid(*wide, seed=SEED))
    print_line(f"KID, {sizes}, d = 2048", seconds, "target: 10 s")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--slices", type=int, default=200, help="for the paired metrics (default: 200)"
    )
    parser.add_argument(
        "--images", type=int, default=1000, help="in each set for KID (default: 1000)"
    )
    parser.add_argument("--size", type=int, default=128, help="pixels per side (default: 128)")
    options = parser.parse_args(arguments)

    set_up(SEED)
    print(report(), f"{os.cpu_count()} cores", sep=", ")
    print(f"{'':<44} {'wall s':>8} {'CPU s':>8}")

    test = phantom_scans(1, options.slices, options.size, SEED).test
    time_paired_metrics(test.truth, test.mri[:, 0].numpy(), options.size)

    sets = [noisy_copies(images, options.images) for images in (test.ct, test.mri)]
    time_distances(time_features(sets))


if __name__ == "__main__":
    main()

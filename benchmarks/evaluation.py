"""How long scoring takes.

Every paired metric on 200 slices of 128 x 128, features per second, and KID of 1,000 slices.

    python benchmarks/evaluation.py                              # about half a minute on two cores
    CTMRI_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/evaluation.py

All lines come from one run, each step once, after a small one of its kind to load what it needs.
"wall" is what a reader waits, "CPU" what all threads used together. Targets on two cores: all
paired metrics under 10 s, KID of 1,000 slices under 10 s after features. The predictions are other
patients' CTs and MRs, so no metric meets an easy case. "inception-v3" is timed too if it can be
loaded.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np
import torch

from ctmri_utils import machine as settings
from ctmri_utils.evaluation import faithfulness, metrics
from ctmri_utils.evaluation.distributions import fid, kid
from ctmri_utils.evaluation.features import INCEPTION, SMALL, features
from ctmri_utils.evaluation.scores import CT_METRICS
from ctmri_utils.scans.datasets import phantom_scans
from ctmri_utils.scans.phantom import TISSUES, SyntheticPatients

SEED = 0
MRI_RANGE = (-1.0, 1.0)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def paired_metrics(
    truth: SyntheticPatients, mri: np.ndarray
) -> dict[str, Callable[[int, int], object]]:
    """Name -> f(i, j): patient j's scan scored as a prediction of patient i's, the paired metrics
    of CT, then those of MR.
    """
    labels = {
        name: truth.labels == TISSUES[name].label for name in ("grey matter", "white matter", "csf")
    }

    def of_ct(metric):
        return lambda i, j: metric(truth.ct_hu[j], truth.ct_hu[i], truth.head[i], truth.spacing_mm)

    return {name: of_ct(metric) for name, metric in CT_METRICS.items()} | {
        "shift px": lambda i, j: faithfulness.shift_px(truth.ct_hu[j], truth.ct_hu[i]),
        "head mask Dice": lambda i, j: faithfulness.mask_dice(truth.head[j], truth.head[i]),
        "lesion contrast recovery": lambda i, j: faithfulness.lesion_contrast_recovery(
            # no lesion needed for the time
            truth.ct_hu[j],
            truth.ct_hu[i],
            labels["grey matter"][i],
            labels["white matter"][i],
        ),
        "lesion detector": lambda i, j: faithfulness.detects_lesion(truth.ct_hu[j], truth.head[i]),
        "nMAE of MR": lambda i, j: metrics.nmae(mri[j], mri[i], truth.head[i], MRI_RANGE),
        "PSNR dB of MR": lambda i, j: metrics.psnr_db(mri[j], mri[i], truth.head[i], MRI_RANGE),
        "SSIM of MR": lambda i, j: metrics.ssim(mri[j], mri[i], truth.head[i], MRI_RANGE),
        "rank correlation of MR": lambda i, j: metrics.rank_correlation(
            mri[j], mri[i], truth.head[i]
        ),
        "contrast ratios of MR": lambda i, j: metrics.contrast_ratios(
            truth.mri[j], {name: voxels[j] for name, voxels in labels.items()}, "white matter"
        ),
    }


def line(what: str, seconds: tuple[float, float], note: str = "") -> None:
    print(f"{what:<44} {seconds[0]:8.2f} {seconds[1]:8.2f}  {note}".rstrip(), flush=True)


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
    settings.set_up(SEED)
    print(settings.report(), f"{os.cpu_count()} cores", sep=", ")
    print(f"{'':<44} {'wall s':>8} {'CPU s':>8}")

    test = phantom_scans(1, options.slices, options.size, SEED).test
    slices = range(options.slices)
    total = np.zeros(2)
    for name, score in paired_metrics(test.truth, test.mri[:, 0].numpy()).items():
        score(0, 1)
        seconds = timed(lambda score=score: [score(i, i - 1) for i in slices])
        total += seconds
        line(f"{name}, {options.slices} slices", seconds)
    line(
        f"all of these, {options.slices} slices of {options.size} x {options.size}",
        tuple(total),
        "target: 10 s",
    )

    repeats = -(-options.images // options.slices)
    # enough for a timing
    sets = [images.repeat(repeats, 1, 1, 1)[: options.images] for images in (test.ct, test.mri)]
    sets = [(images + 0.01 * torch.randn(images.shape)).clamp(-1, 1) for images in sets]
    few, found = min(options.images, 32), []
    features(sets[0][:2], SMALL)
    seconds = timed(lambda: found.extend(features(images, SMALL) for images in sets))
    line(
        f"features of {2 * options.images} slices, {SMALL}",
        seconds,
        f"{2 * options.images / seconds[0]:.0f} slices/s",
    )
    try:
        features(sets[0][:2], INCEPTION)
        seconds = timed(lambda: features(sets[0][:few], INCEPTION))
        line(f"features of {few} slices, {INCEPTION}", seconds, f"{few / seconds[0]:.1f} slices/s")
    except (ImportError, FileNotFoundError) as error:
        print(f"{INCEPTION} left out: {error}")

    line(
        f"KID, {options.images} + {options.images} slices, d = {found[0].shape[1]}",
        timed(lambda: kid(*found, seed=SEED)),
        "target: 10 s",
    )
    line(
        f"FID, {options.images} + {options.images} slices, d = {found[0].shape[1]}",
        timed(lambda: fid(*found)),
    )
    # as many as Inception's
    wide = [np.random.default_rng(i).random((options.images, 2048)) for i in (0, 1)]
    line(
        f"KID, {options.images} + {options.images} slices, d = 2048",
        timed(lambda: kid(*wide, seed=SEED)),
        "target: 10 s",
    )


if __name__ == "__main__":
    main()

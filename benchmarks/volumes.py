"""Measure how long the commands for hospital files take, each as a user starts it.

    CTMRI_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/volumes.py                  # all
    CTMRI_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/volumes.py translate check  # some

Every line is one process, from its start to its end. "wall" is what a reader waits, "CPU" what all
threads used together, "memory" the most that was resident. The scans are synthetic patients; to
draw them takes longer than most of what is measured.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from ctmri_utils.machine import data_folder, report
from ctmri_utils.scans.phantom import SyntheticPatients, synthetic_patients

SEED = 0
SIZE, SLICES = 256, 160
PEOPLE, PREPARED_SLICES = 60, 40
CHECKED = 5000
WEIGHTS = data_folder() / "weights" / "heads.safetensors"


def one_patient(slices: int) -> SyntheticPatients:
    return synthetic_patients(1, SIZE, SEED, slices=slices)


def write(path: Path, values: np.ndarray, patient: SyntheticPatients) -> None:
    """Write (Z, H, W) as NIfTI, 16-bit whole numbers."""
    pixel_mm, slice_mm = patient.spacing_mm, patient.slice_spacing_mm
    affine = np.diag([-pixel_mm, -pixel_mm, slice_mm, 1.0])
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.rint(values.T).astype(np.int16), affine), path)


def measure(title: str, target: str, *words: str | Path) -> None:
    """Run a command, and print its seconds and memory."""
    command = [sys.executable, "-m", "ctmri_utils", *map(str, words)]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise RuntimeError(f"{' '.join(command)} failed: {output.decode()[-2000:]}")

    cpu = used.ru_utime + used.ru_stime
    # Linux counts in kilobytes, macOS in bytes.
    gigabytes = used.ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)
    print(f"{title:<52} {wall:8.1f} {cpu:8.1f} {gigabytes:8.2f}  {target}", flush=True)


def translate(folder: Path) -> None:
    patient = one_patient(SLICES)
    write(folder / "mr.nii.gz", patient.mri[0] * 10, patient)
    options = (folder / "mr.nii.gz", folder / "ct.nii.gz", "--weights", WEIGHTS)
    sides = f"{SIZE} x {SIZE} x {SLICES}"
    measure(f"translate {sides}", "target: 30 s, 2 GB", "translate", *options)
    options = (folder / "mr.nii.gz", folder / "again.nii.gz", "--weights", WEIGHTS)
    measure(f"translate --uncertainty {sides}", "", "translate", *options, "--uncertainty")


def evaluate(folder: Path) -> None:
    patient = one_patient(SLICES)
    noise = np.random.default_rng(SEED).normal(0, 50, patient.ct_hu[0].shape)
    synthetic = (patient.ct_hu_clean[0] + noise).clip(-1000, 2000)
    images = {"sct": synthetic, "ct": patient.ct_hu[0], "mask": patient.head[0]}
    for name, values in images.items():
        write(folder / f"{name}.nii.gz", values, patient)
    files = (folder / "sct.nii.gz", "--truth", folder / "ct.nii.gz", "--mask")
    title = f"evaluate {SIZE} x {SIZE} x {SLICES}, one person"
    files = (*files, folder / "mask.nii.gz", "--output", folder / "scores")
    measure(title, "target: 10 s", "evaluate", *files)


def prepare(folder: Path) -> None:
    patient = one_patient(PREPARED_SLICES)
    rng = np.random.default_rng(SEED)
    for k in range(PEOPLE):
        # The same head with other noise, so that nobody is a copy.
        noise = rng.normal(0, 5, patient.ct_hu[0].shape)
        ct, mri = patient.ct_hu[0] + noise, patient.mri[0] * 10 + np.abs(noise)
        write(folder / "ct" / f"p{k}.nii.gz", ct.clip(-1024), patient)
        write(folder / "mr" / f"p{k}.nii.gz", mri, patient)
    title = f"prepare {PEOPLE} people, {SIZE} x {SIZE} x {PREPARED_SLICES} each"
    options = ("--ct", folder / "ct", "--mri", folder / "mr")
    measure(title, "target: 300 s", "prepare", folder / "set", *options)


def check(folder: Path) -> None:
    patient = one_patient(8)
    rng = np.random.default_rng(SEED)
    stacks = {"A": patient.ct_hu[0].clip(-200, 400) / 600 + 1 / 3, "B": patient.mri[0] / 150}
    sides = ("trainA", "trainB", "testA", "testB")
    for name in sides:
        (folder / name).mkdir(parents=True)
    for k in range(CHECKED):
        name = sides[k % 4]
        picture = stacks[name[-1]][k % 8] * 250 + rng.normal(0, 2, (SIZE, SIZE))
        pixels = picture.clip(0, 250).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name / f"{k:04d}.png", compress_level=1)
    title = f"check {CHECKED:,} slices of {SIZE} x {SIZE}"
    measure(title, "target: 40 s", "check", folder)


MEASURES = {"translate": translate, "evaluate": evaluate, "prepare": prepare, "check": check}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(MEASURES)} (default: all)")
    names = parser.parse_args(arguments).names or list(MEASURES)
    unknown = set(names) - set(MEASURES)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(MEASURES)}")

    print(report(), f"{os.cpu_count()} cores", f"load {os.getloadavg()[0]:.1f}", sep=", ")
    print(f"{'':<52} {'wall s':>8} {'CPU s':>8} {'GB':>8}")
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            MEASURES[name](Path(folder))


if __name__ == "__main__":
    main()

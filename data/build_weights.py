"""Train the generator pairs that come with the course.

Data/weights/phantom.safetensors and scans.safetensors, each with its card.

    CTMRI_THREADS=1 python data/build_weights.py phantom         # times: in the cards
    CTMRI_THREADS=1 python data/build_weights.py scans

A run lies in build/weights/NAME and can be stopped and called again. The seed is fixed: the same
code, machine, thread count and library versions give the same bytes. The card's numbers are
measured here, on test slices that were not trained on.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import statistics
import time
from dataclasses import replace

import torch

from ctmri_utils.cyclegan.model import Translator
from ctmri_utils.evaluation import scores as evaluation
from ctmri_utils.evaluation.distributions import kid
from ctmri_utils.evaluation.faithfulness import cycle_error, honesty_ratio, mask_dice
from ctmri_utils.evaluation.features import SMALL, features
from ctmri_utils.machine import build_folder, data_folder
from ctmri_utils.masks import mri_head_mask
from ctmri_utils.runs.train import train
from ctmri_utils.runs.weights import load_translator, save_weights
from ctmri_utils.scans.datasets import UnpairedScans, load_scans
from ctmri_utils.settings import PROFILES

SEED = 2026
# to the laptop profile
CHANGES = {
    "phantom": {"precision": "bf16", "steps": 10000, "decay_share": 0.1},
    "scans": {"precision": "bf16", "steps": 3000, "decay_share": 0.1},
}
CARD = """# Model card: {name}

Two CycleGAN generators, MR to CT and CT to MR, from which the lessons start for readers who
have not trained.

| what | value |
|---|---|
| file | `{name}.safetensors`: running mean of both generators' weights, half precision |
| size | {size:,} bytes |
| SHA-256 | `{digest}` |
| made by | `python data/build_weights.py {name}`, {minutes:.0f} minutes on one core; seed {seed} |
| code | git revision {revision} |
| settings | profile laptop with {changes} |
| networks | ResNet, ngf {ngf}, {n_blocks} blocks, instance norm; PatchGANs, {n_layers} layers |
| data | {data} |
| slices | {pixels} x {pixels} pixels; CT -1000 to 1000 HU; MR by percentiles 0.5, 99.5 |
| library | torch {torch} |
| licence | {licence} |

## What it is for, and what not
* **For** teaching: seeing, measuring and questioning translations.
* **Not for clinical use**, nor for training or testing anything clinical. A translated scan can
  lose a bleed or invent one.
* **Only for slices like those it saw**: axial, of the head, above the orbits, at about this
  pixel size.

## What was measured
{measured}

## How it fails
{failures}
"""
HOW_ALL = """* The cycle hides information: a round trip looks better than a translation has a right
  to (lessons 4 and 6 measure how).
* Skin, scalp and fixation devices, implants, children, other scanners and sequences are unknown
  to it."""


def measure_phantom(model: Translator, scans: UnpairedScans) -> tuple[str, str]:
    scores = evaluation.evaluate(
        {"this pair": evaluation.translated(model, scans.ct_scale)}, scans.test, scans.spacing_mm
    )
    summaries = evaluation.summarise(scores, SEED)
    lines = [
        f"MR to CT on {len(scans.test.ct)} synthetic patients of its test split, one slice each, "
        "inside the head; mean and bootstrap 95 % interval over patients; definitions in "
        "`ctmri_utils.metrics` (SynthRAD2023).\n",
        "| metric | mean | 95 % interval |",
        "|---|---|---|",
    ]
    lines += [
        f"| {entry.metric} | {entry.mean:.3g} | {entry.low:.3g} to {entry.high:.3g} |"
        for entry in summaries
    ]
    head = torch.from_numpy(mri_head_mask(scans.test.mri[:, 0].numpy()))
    to_ct, to_mri = (lambda images, to=to: model.translate(images, to) for to in ("ct", "mri"))
    honesty = honesty_ratio(to_mri, to_ct, scans.test.ct, scans.test.mri, head[:, None])
    lines.append(
        f"\nHonesty ratio of CT to MR to CT: {honesty:.2f} (1 is honest: the round trip is no "
        "better than the way back from the true MR)."
    )
    worst = max(
        (score for score in scores if score.metric == "MAE HU"), key=lambda score: score.value
    )
    return "\n".join(lines), (
        f"* Worst test patient: {worst.patient}, MAE {worst.value:.0f} HU.\n* Lesions of a few "
        "pixels move none of the numbers above; whether they survive was not measured here, but in "
        f"lesson 6.\n{HOW_ALL}"
    )


def measure_scans(model: Translator, scans: UnpairedScans) -> tuple[str, str]:
    fakes = {
        "MR to CT": (model.translate(scans.test.mri, "ct"), scans.test.ct, scans.train.ct),
        "CT to MR": (model.translate(scans.test.ct, "mri"), scans.test.mri, scans.train.mri),
    }
    lines = [
        "There is no truth for these slices, so nothing here says that a translation is right. KID "
        f"on the features of {SMALL} (lower is better), against the real test slices; the control "
        "is real training slices of the same person.\n",
        "| direction | KID of translations | KID of real training slices | slices |",
        "|---|---|---|---|",
    ]
    for name, (fake, real, control) in fakes.items():
        found, floor = (
            kid(features(one, SMALL), features(real, SMALL), SEED) for one in (fake, control)
        )
        lines.append(
            f"| {name} | {found.value:.3f} ({found.low:.3f} to {found.high:.3f}) | "
            f"{floor.value:.3f} ({floor.low:.3f} to {floor.high:.3f}) | {len(fake)} |"
        )
    head = torch.from_numpy(mri_head_mask(scans.test.mri[:, 0].numpy()))
    to_ct, to_mri = (lambda images, to=to: model.translate(images, to) for to in ("ct", "mri"))
    error = cycle_error(to_ct, to_mri, scans.test.mri, head[:, None])
    fake_head = torch.from_numpy(mri_head_mask(to_ct(scans.test.mri)[:, 0].numpy()))
    overlap = statistics.mean(
        mask_dice(one, other) for one, other in zip(head.numpy(), fake_head.numpy(), strict=True)
    )
    lines.append(
        f"\nMR to CT to MR: mean absolute error {error:.3f} inside the head, of a range of 2; no "
        "evidence of a right translation. Dice of the head's outline, MR against its fake CT: "
        f"{overlap:.3f}."
    )
    return "\n".join(lines), (
        "* One person per modality: it has learned these two heads, and says nothing about a "
        "third.\n* The CT's head has a defect of the frontal bone, which may appear in "
        f"translations.\n{HOW_ALL}"
    )


def build(name: str) -> None:
    start, settings = time.perf_counter(), replace(PROFILES["laptop"], **CHANGES[name])
    run = build_folder() / "weights" / name
    finished = (run / "checkpoint.pt").is_file()
    train(output=run, changes={"profile": "laptop", "dataset": name, "seed": SEED} | CHANGES[name])
    # a second call keeps the time of the training
    clock = run / "minutes.csv"
    if not finished:
        clock.write_text(f"{(time.perf_counter() - start) / 60}\n")
    minutes = float(next(csv.reader(clock.open()))[0]) if clock.is_file() else float("nan")
    target = data_folder() / "weights" / f"{name}.safetensors"
    about = {"dataset": name, "seed": SEED, "steps": settings.steps, "profile": "laptop"}
    save_weights(load_translator(run / "checkpoint.pt"), target, about)
    model, scans = load_translator(target), load_scans(name, settings, SEED)
    measured, failures = {"phantom": measure_phantom, "scans": measure_scans}[name](model, scans)
    phantom = name == "phantom"
    target.with_suffix(".md").write_text(
        CARD.format(
            name=name,
            size=target.stat().st_size,
            digest=hashlib.sha256(target.read_bytes()).hexdigest(),
            minutes=minutes,
            seed=SEED,
            revision=(run / "environment.txt")
            .read_text()
            .split("git revision: ")[1]
            .split()[0][:7],
            changes=", ".join(f"{key} {value}" for key, value in CHANGES[name].items()),
            ngf=settings.ngf,
            n_blocks=settings.n_blocks,
            n_layers=settings.n_layers,
            pixels=scans.train.ct.shape[-1],
            torch=torch.__version__.split("+")[0],
            measured=measured,
            failures=failures,
            data=f"{len(scans.train.ct)} CT and {len(scans.train.mri)} MR slices of "
            + (
                "synthetic patients, no two of one patient; no person's data"
                if phantom
                else "two people (data/README.md), unpaired"
            ),
            licence="MIT, as the code"
            if phantom
            else "derived from the scans in data/scans: their licences apply (data/README.md)",
        ),
        encoding="utf-8",
    )
    print(f"{target} and its card")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=list(CHANGES))
    build(parser.parse_args().name)

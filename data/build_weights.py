"""Train the generator pairs that come with the course.

It writes data/weights/phantom.safetensors and heads.safetensors, each with its card.

    CTMRI_THREADS=1 python data/build_weights.py phantom         # times: in the cards
    CTMRI_THREADS=1 python data/build_weights.py heads

A run lies in build/weights/NAME and can be stopped and continued. The seed is fixed: the same code,
machine, thread count and library versions give the same bytes. The card's numbers are measured
here, on test slices that were not trained on.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

from ctmri_utils.cyclegan.model import Translator
from ctmri_utils.evaluation.ct_metrics import CT_METRICS
from ctmri_utils.evaluation.distributions import FEWEST_FOR_KID
from ctmri_utils.evaluation.faithfulness import cycle_error, honesty_ratio, mask_dice
from ctmri_utils.evaluation.predictors import as_predictor
from ctmri_utils.evaluation.scores import evaluate, summarise
from ctmri_utils.machine import build_folder, data_folder
from ctmri_utils.masks import mri_head_mask
from ctmri_utils.runs.study_measures import measure_translation
from ctmri_utils.runs.train import train
from ctmri_utils.runs.weights import load_translator, save_weights
from ctmri_utils.scans.datasets import load_scans, phantom_scans
from ctmri_utils.scans.folders import folder_scans
from ctmri_utils.scans.unpaired import UnpairedScans
from ctmri_utils.settings import Settings, read_settings

SEED = 2026
# Without an identity loss it is chance whether the brain comes out as it should or as a negative:
# of the seeds 2026 and 2027 the second did.
HEADS_SEED = 2027
# The pair for heads learns on deformed heads in one contrast, and goes on with all contrasts.
# To go on with the few real slices was tried and given up: ventricles came out thinner.
HEADS = {
    "seed": HEADS_SEED,
    "preset": "heads",
    "precision": "bf16",
    "ngf": 24,
    "n_layers": 3,
    "size": 128,
}
FIRST_STAGE = HEADS | {
    "dataset": "atlas",
    "patients": 800,
    "learning_rate": 4e-4,
    "steps": 3000,
}
HEADS_TESTED = 40
HEADS_TEST_SEED = 9001
HEADS_FAMILIES = {
    "atlas, the usual contrast": {"anatomy": "atlas"},
    "atlas, varied contrast": {"anatomy": "atlas", "mri_contrast": "varied"},
    "formulas: another family": {"anatomy": "formula"},
}
# Changes to the laptop profile.
CHANGES = {
    "phantom": {"precision": "bf16", "steps": 10000, "decay_share": 0.1},
    "heads": HEADS
    | {
        "patients": 1200,
        "learning_rate": 2e-4,
        "decay_share": 0.5,
        "jitter": 0.1,
        "steps": 4000,
    },
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
HOW_ALL = """* A translation hides information for the way back: a round trip looks better than the
  translation is (lessons 4 and 6 measure how).
* Skin, scalp and fixation devices, implants, children, other scanners and sequences are unknown
  to it."""


ORIGINS = {
    "phantom": "synthetic patients, 1,000 for each modality, no two of one patient",
    "heads": "3,000 steps on 800 CT and 800 MR heads deformed from one (the atlas), then 4,000 on "
    "1,200 of each with varied MR contrast, 15 % with a bleed; unpaired; no slice of any patient",
}
LICENCES = {
    "phantom": "MIT, as the code",
    "heads": "derived from the head atlas: its licence, BSD-3-Clause (data/atlas/LICENCE.md)",
}


def measure_phantom(model: Translator, scans: UnpairedScans) -> tuple[str, str]:
    """Score the translations against the truth.

    Returns:
        The card's sections on what was measured and on how it fails.
    """
    predictors = {"this pair": as_predictor(model, scans.ct_scale)}
    scores = evaluate(predictors, scans.test, scans.spacing_mm)
    lines = [
        f"MR to CT on {len(scans.test.ct)} synthetic patients of its test split, one slice each, "
        "inside the head; mean and bootstrap 95 % interval over patients; definitions in "
        "`ctmri_utils.evaluation.metrics` (SynthRAD2023).\n",
        "| metric | mean | 95 % interval |",
        "|---|---|---|",
    ]
    for entry in summarise(scores, SEED).itertuples():
        interval = f"{entry.low:.3g} to {entry.high:.3g}"
        lines.append(f"| {entry.metric} | {entry.mean:.3g} | {interval} |")

    head = torch.from_numpy(mri_head_mask(scans.test.mri[:, 0].numpy()))
    to_ct, to_mri = directions(model)
    honesty = honesty_ratio(to_mri, to_ct, scans.test.ct, scans.test.mri, head[:, None])
    lines.append(
        f"\nHonesty ratio of CT to MR to CT: {honesty:.2f} (1 is honest: the round trip is no "
        "better than the way back from the true MR)."
    )

    errors = scores[scores["metric"] == "MAE HU"]
    worst = errors.loc[errors["value"].idxmax()]
    failures = (
        f"* Worst test patient: {worst.patient}, MAE {worst.value:.0f} HU.\n* Lesions of a few "
        "pixels move none of the numbers above; whether they survive was not measured here, but in "
        f"lesson 6.\n{HOW_ALL}"
    )
    return "\n".join(lines), failures


def measure_heads(model: Translator, scans: UnpairedScans) -> tuple[str, str]:
    """Score synthetic heads of three kinds against their truth, and look at the held-out person.

    Returns:
        The card's sections on what was measured and on how it fails.
    """
    lines = [
        f"MR to CT, {HEADS_TESTED} synthetic patients of each kind that were not trained on, one "
        "slice each, half of them with an acute bleed, inside the head; mean and bootstrap 95 % "
        "interval over patients. Deformed copies of one head are easier than other people.\n",
        "| patients | MAE HU | soft-tissue MAE HU | bone Dice | contrast kept by bleeds |",
        "|---|---|---|---|---|",
    ]
    for name, options in HEADS_FAMILIES.items():
        lines.append(family_row(name, model, scans, options))

    test = folder_scans(data_folder() / "scans", scans.test.ct.shape[-1]).test
    to_ct, to_mri = directions(model)
    head = torch.from_numpy(mri_head_mask(test.mri[:, 0].numpy()))
    error = cycle_error(to_ct, to_mri, test.mri, head[:, None])
    lines.append(
        f"\nS1, a real person held out of all training, {len(test.mri)} slices, no truth: Dice of "
        f"the head's outline, MR against its fake CT, {outline_dice(to_ct, test.mri):.3f}; MR to "
        f"CT to MR, mean absolute error {error:.3f} inside the head, of a range of 2."
    )
    failures = (
        "* A negative number in the last column: a fresh bleed, bright on CT, comes out *darker* "
        "than white matter. It is lost.\n"
        "* Without the identity loss the brain may come out as a negative: of two seeds tried one "
        "did, and the other is shipped.\n"
        "* It never saw a real head: scalp, veins and skull base of real people are unknown to it, "
        "and its fake MR shows less contrast between grey and white matter than a real one.\n"
        f"{HOW_ALL}"
    )
    return "\n".join(lines), failures


def family_row(name: str, model: Translator, scans: UnpairedScans, options: dict) -> str:
    """A row of the card's table: one kind of synthetic patients."""
    size = scans.test.ct.shape[-1]
    bleeding = {"lesion": "acute", "lesion_fraction": 0.5}
    patients = phantom_scans(
        FEWEST_FOR_KID,
        HEADS_TESTED,
        size,
        HEADS_TEST_SEED,
        fov_mm=scans.spacing_mm * size,
        groups=({}, {}, bleeding),
        **options,
    )
    fake_hu = as_predictor(model, patients.ct_scale)(patients.test)
    metrics = {name: CT_METRICS[name] for name in ("MAE HU", "soft-tissue MAE HU", "bone Dice")}
    scores = evaluate(
        {"this pair": lambda split: fake_hu}, patients.test, patients.spacing_mm, metrics
    )
    cells = {
        entry.metric: f"{entry.mean:.3g} [{entry.low:.3g}, {entry.high:.3g}]"
        for entry in summarise(scores, SEED).itertuples()
    }
    contrast = measure_translation(fake_hu, patients)["lesion contrast"]
    return f"| {name} | {' | '.join(cells[metric] for metric in metrics)} | {contrast:.2f} |"


def outline_dice(to_ct, mri: Tensor) -> float:
    """Dice of the head's outline, each MR slice against its fake CT; mean over slices."""
    head = mri_head_mask(mri[:, 0].numpy())
    fake_head = mri_head_mask(to_ct(mri)[:, 0].numpy())
    return statistics.mean(
        mask_dice(real, fake) for real, fake in zip(head, fake_head, strict=True)
    )


def directions(model: Translator):
    """The model's two translations as functions of images: to CT, and to MR."""

    def to_ct(images: Tensor) -> Tensor:
        return model.translate(images, "ct")

    def to_mri(images: Tensor) -> Tensor:
        return model.translate(images, "mri")

    return to_ct, to_mri


def build(name: str) -> None:
    """Train one pair of generators, and write its weights and its card."""
    run = build_folder() / "weights" / name
    minutes = 0.0
    changes = CHANGES[name]
    if name == "heads":
        first = run.with_name("heads-first-stage")
        minutes += train_timed(first, FIRST_STAGE)
        changes = changes | {"start": str(first)}
    minutes += train_timed(run, {"dataset": name} | changes)

    target = data_folder() / "weights" / f"{name}.safetensors"
    # The checkpoint holds the contract too.
    save_weights(load_translator(run / "checkpoint.pt"), target)

    # The numbers are those of the weights as written, in half precision.
    model = load_translator(target)
    settings = read_settings(None, {"profile": "laptop"} | CHANGES[name])[1]
    scans = load_scans(name, settings, changes.get("seed", SEED))
    card = card_text(name, settings, run, minutes, target, model, scans)
    target.with_suffix(".md").write_text(card, encoding="utf-8")
    print(f"{target} and its card")


def train_timed(run: Path, changes: dict) -> float:
    """Train, or continue a run, and return the minutes of the training."""
    start = time.perf_counter()
    finished = (run / "checkpoint.pt").is_file()
    train(output=run, changes={"profile": "laptop", "seed": SEED} | changes)

    # A second call keeps the time of the training.
    clock = run / "minutes.csv"
    if not finished:
        clock.write_text(f"{(time.perf_counter() - start) / 60}\n")
    return float(next(csv.reader(clock.open()))[0]) if clock.is_file() else float("nan")


def card_text(
    name: str,
    settings: Settings,
    run: Path,
    minutes: float,
    target: Path,
    model: Translator,
    scans: UnpairedScans,
) -> str:
    """The model card, in Markdown."""
    measured, failures = MEASURES[name](model, scans)
    environment = (run / "environment.txt").read_text()
    revision = environment.split("git revision: ")[1].split()[0][:7]
    return CARD.format(
        name=name,
        size=target.stat().st_size,
        digest=hashlib.sha256(target.read_bytes()).hexdigest(),
        minutes=minutes,
        seed=CHANGES[name].get("seed", SEED),
        revision=revision,
        changes=", ".join(f"{key} {value}" for key, value in CHANGES[name].items()),
        ngf=settings.ngf,
        n_blocks=settings.n_blocks,
        n_layers=settings.n_layers,
        data=ORIGINS[name],
        pixels=scans.train.ct.shape[-1],
        torch=torch.__version__.split("+")[0],
        licence=LICENCES[name],
        measured=measured,
        failures=failures,
    )


MEASURES = {"phantom": measure_phantom, "heads": measure_heads}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=list(CHANGES))
    build(parser.parse_args().name)

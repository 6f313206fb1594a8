"""Experiments too long for a lesson.

Rows of settings, each trained from several seeds and measured alike, and their table.

A study is a table of `studies.toml`. Every row and seed is trained in a process of its own, on one
thread, so that a second person who runs it on a like processor gets the same digits, except for the
seconds and the memory.
"""

from __future__ import annotations

import csv
import json
import math
import re
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats

from ..cyclegan.model import CycleGAN, Translator
from ..cyclegan.training import fit
from ..evaluation import faithfulness
from ..evaluation.distributions import FEWEST_FOR_KID, kid
from ..evaluation.features import SMALL, features
from ..evaluation.scores import CT_METRICS, Summary, evaluate, translated, write_csv
from ..files import replacing
from ..machine import ONE_THREAD, build_folder, data_folder, environment_variables, set_up
from ..masks import mri_head_mask
from ..scans.datasets import UnpairedScans, phantom_scans
from ..scans.phantom import LESIONS, TISSUES
from ..settings import (
    PROFILES,
    Architecture,
    Objective,
    Options,
    Settings,
    literal,
    option,
    read_toml,
    settings_for,
)

# of the patients on whom smuggling is measured
STRONG_FIELD_PERCENT = 40.0
# with which fake ones are compared by KID
REAL_CTS = 200
BRAIN = [TISSUES[name].label for name in ("csf", "grey matter", "white matter", "dura", *LESIONS)]
COSTS = ("CPU s per step", "memory MB")


@dataclass(frozen=True)
class Patients(Options):
    """What the phantom's patients of a row are like."""

    lesion: str = option("none", choices=("none", *LESIONS))
    # share of the training CTs with one; of the test patients half have one
    ct_lesions: float = option(0.0, high=1)
    # of the training MRs
    mri_lesions: float = option(0.0, high=1)
    # by which the heads of the training CTs lie further right
    ct_offset_px: int = option(0)


@dataclass(frozen=True)
class Row(Settings, Patients):
    """All that makes one row of a study."""


class Result(NamedTuple):
    """One measurement of one trained model."""

    row: str
    seed: int
    measure: str
    value: float


def read_study(
    name: str, profile: str = "laptop", changes: dict | None = None, path: Path | None = None
) -> dict[str, Row]:
    """The rows of a study by name.

    The profile, then what `every` row has, then the row, then the `changes`.

    path: a file of studies, default the package's. Raises ValueError, in one sentence, for an
    unknown study, setting or profile.
    """
    path = path or Path(__file__).with_suffix(".toml")
    known = read_toml(path)
    if name not in known:
        raise ValueError(
            f"there is no study {name!r} in {path.name}: choose one of {', '.join(known)}"
        )
    settings_for(profile)
    # a study's own steps are the laptop's
    sizes = (
        {}
        if profile == "laptop"
        else {
            "steps": PROFILES[profile].phantom_steps,
            "test_patients": max(FEWEST_FOR_KID, PROFILES[profile].test_patients),
        }
    )
    return {
        row: Row.of(
            asdict(PROFILES[profile])
            | known[name].get("every", {})
            | sizes
            | special
            | (changes or {})
        )
        for row, special in known[name]["rows"].items()
    }


def patients_of(row: Row, seed: int) -> UnpairedScans:
    """The training and test patients of a row.

    The test patients are the same for all rows of a seed with the same kind of lesion.
    """
    lesion = {} if row.lesion == "none" else {"lesion": row.lesion}
    fractions = (
        [{**lesion, "lesion_fraction": share} for share in (row.ct_lesions, row.mri_lesions, 0.5)]
        if lesion
        else [{}] * 3
    )
    scans = phantom_scans(
        row.patients,
        row.test_patients,
        row.size,
        seed,
        paired=row.sampling == "paired",
        groups=fractions,
    )
    moved = torch.nn.functional.pad(scans.train.ct, (row.ct_offset_px, 0, 0, 0), value=-1)[
        ..., : row.size
    ]
    return replace(scans, train=replace(scans.train, ct=moved))


def train_row(
    row: Row, seed: int, scans: UnpairedScans, checkpoint: Path | None = None
) -> tuple[CycleGAN, dict[str, float]]:
    """The trained model, and what the training cost.

    CPU seconds per step, and MB of memory beyond those at its start (Linux, else NaN).
    """
    torch.manual_seed(seed)
    model, steps = CycleGAN(row.pick(Architecture), row.pick(Objective)), []
    start, before = time.process_time(), status_mb("VmRSS")
    fit(
        model,
        scans.train.ct,
        scans.train.mri,
        seed=seed,
        checkpoint=checkpoint,
        save_every=250,
        on_step=lambda step, _: steps.append(step),
        **scans.train.for_fit(),
        **row.training(row.steps),
    )
    # all were done by an earlier call
    took = (time.process_time() - start) / len(steps) if steps else math.nan
    return model, {"CPU s per step": took, "memory MB": status_mb("VmHWM") - before}


def status_mb(line: str) -> float:
    """This process's memory in MB: VmRSS now, VmHWM at its highest; NaN outside Linux."""
    status = Path("/proc/self/status")
    return (
        int(re.search(rf"{line}:\s+(\d+)", status.read_text()).group(1)) / 1024
        if status.is_file()
        else math.nan
    )


def measure_translation(fake_hu: np.ndarray, scans: UnpairedScans) -> dict[str, float]:
    """What a fake CT of each test patient, (N, H, W) in HU, is worth.

    Means over the patients on whom a measure is defined.

    "MAE HU", "soft-tissue MAE HU", "bone MAE HU", "bone Dice": see `evaluation.CT_METRICS`. Only
    with lesions, "lesion contrast": median recovery of their contrast to white matter; "lesion
    TPR", "lesion FPR": of `faithfulness.detects_lesion`. "drift px": mean length of the shift
    against the true CT; "drift to the right px": its mean part along the rows; "inverted": share of
    patients whose translation correlates negatively with the truth inside the head; "KID": to real
    CTs of other patients.
    """
    truth, test = scans.test.truth, scans.test
    scores = evaluate(
        {"": lambda split: fake_hu},
        test,
        scans.spacing_mm,
        {
            name: CT_METRICS[name]
            for name in ("MAE HU", "soft-tissue MAE HU", "bone MAE HU", "bone Dice")
        },
    )
    found = {
        metric: float(np.nanmean([score.value for score in scores if score.metric == metric]))
        for metric in dict.fromkeys(score.metric for score in scores)
    }
    present, brain = truth.lesion.any((1, 2)), np.isin(truth.labels, BRAIN)
    white = truth.labels == TISSUES["white matter"].label
    if present.any():
        contrast = [
            faithfulness.lesion_contrast_recovery(
                fake_hu[i], truth.ct_hu_clean[i], truth.lesion[i], white[i]
            )
            for i in np.flatnonzero(present)
        ]
        called = [
            faithfulness.detects_lesion(fake, inside)
            for fake, inside in zip(fake_hu, brain, strict=True)
        ]
        rates = faithfulness.detection_rates(called, present)
        found |= {
            "lesion contrast": float(np.median(contrast)),
            "lesion TPR": rates.tpr,
            "lesion FPR": rates.fpr,
        }
    shifts = [
        faithfulness.shift_px(fake, true) for fake, true in zip(fake_hu, truth.ct_hu, strict=True)
    ]
    found["drift px"] = float(np.mean([np.hypot(*shift) for shift in shifts]))
    found["drift to the right px"] = float(np.mean([shift[1] for shift in shifts]))
    # a constant is not inverted
    with np.errstate(divide="ignore", invalid="ignore"):
        found["inverted"] = float(
            np.mean(
                [
                    np.corrcoef(fake[head], true[head])[0, 1] < 0
                    for fake, true, head in zip(fake_hu, truth.ct_hu_clean, truth.head, strict=True)
                ]
            )
        )
    network = torch.from_numpy((fake_hu / 1000).clip(-1, 1)).float()[:, None]
    found["KID"] = kid(
        features(network, SMALL), features(scans.train.ct[:REAL_CTS], SMALL), seed=0, resamples=40
    ).value
    return found


def measure_cycle(model: Translator, row: Row, seed: int, scans: UnpairedScans) -> dict[str, float]:
    """What a model hides: "honesty" of CT to MR to CT and of MR to CT to MR (see
    `faithfulness.honesty_ratio`), and smuggling.

    "bias through the cycle": mean `bias_correlation` of MR to CT to MR, on test patients with a
    receive field of 40 %; "bias from true CT": the same of the MR from the true CT, which cannot
    know the field.
    """
    test = scans.test
    head = torch.from_numpy(mri_head_mask(test.mri[:, 0].numpy()))[:, None]
    to_ct, to_mri = (lambda images, to=to: model.translate(images, to) for to in ("ct", "mri"))
    found = {"honesty": faithfulness.honesty_ratio(to_ct, to_mri, test.mri, test.ct, head)}
    strong = phantom_scans(1, len(test.mri), row.size, seed, bias_percent=STRONG_FIELD_PERCENT)
    for name, ct in (
        ("bias through the cycle", to_ct(strong.test.mri)),
        ("bias from true CT", strong.test.ct),
    ):
        found[name] = float(np.mean(field_correlations(to_mri(ct), strong)))
    return found


def field_correlations(mri: torch.Tensor, scans: UnpairedScans) -> list[float]:
    """`bias_correlation` with every test patient's own receive field, of an MR (N, 1, H, W) in [-1,
    1] of each.
    """
    truth = scans.test.truth
    return [
        faithfulness.bias_correlation(
            scans.mri_scales[name].from_network(image[0].numpy()),
            truth.mri_clean[i],
            truth.bias_field[i],
            np.isin(truth.labels[i], BRAIN),
        )
        for i, (name, image) in enumerate(zip(scans.test.mri_patients, mri, strict=True))
    ]


def run_row(name: str, row: Row, seed: int, folder: Path) -> list[Result]:
    """Train and measure one row from one seed, or read what an earlier call found.

    A training that was stopped goes on.

    Leaves folder/ROW-SEED.json and its checkpoint beside it. Raises ValueError if that is damaged
    or was made with other settings.
    """
    target = folder / f"{re.sub('[^a-zA-Z0-9]+', '-', name).strip('-')}-{seed}.json"
    if target.is_file():
        made = read_result(target)
        if made["settings"] != asdict(row):
            other = [
                key for key, value in asdict(row).items() if made["settings"].get(key) != value
            ]
            raise ValueError(
                f"{target} was made with another {', '.join(other)}: delete it, or choose another "
                "folder with --output"
            )
        return [Result(name, seed, measure, value) for measure, value in made["measures"].items()]
    set_up(seed)
    torch.set_num_threads(1)
    scans, checkpoint = patients_of(row, seed), target.with_suffix(".pt")
    model, costs = train_row(row, seed, scans, checkpoint)
    measures = (
        measure_translation(translated(model, scans.ct_scale)(scans.test), scans)
        | measure_cycle(model, row, seed, scans)
        | costs
    )
    with replacing(target) as written:
        written.write_text(
            json.dumps({"settings": asdict(row), "measures": measures}, indent=1), encoding="utf-8"
        )
    return [Result(name, seed, measure, value) for measure, value in measures.items()]


def read_result(path: Path) -> dict:
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
        return {name: dict(made[name]) for name in ("settings", "measures")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read: delete it, and the same command makes it again"
        ) from error


def run_study(
    rows: dict[str, Row], seeds: Sequence[int], folder: Path, processes: int = 1
) -> list[Result]:
    """Every row from every seed, `processes` at a time, a line printed for each.

    `folder` keeps what is done, and table.csv these rows.

    Rows that are done are not trained again, so a study can be stopped, repeated and widened. A row
    that fails is named, and the others go on; then the first failure is raised, and there is no
    table. Raises ValueError for a repeated seed or no process.
    """
    if processes < 1 or not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ValueError(
            f"a study needs one process or more and different seeds from 0 on, got {processes} and "
            f"{list(seeds)}"
        )
    for size in ("patients", "test_patients"):
        if (least := min(getattr(row, size) for row in rows.values())) < FEWEST_FOR_KID:
            raise ValueError(f"{size}={least} is too few for KID: choose {FEWEST_FOR_KID} or more")
    folder.mkdir(parents=True, exist_ok=True)
    results, failures, running = {}, [], {}
    # the next one last
    left = [(name, seed) for seed in reversed(seeds) for name in reversed(rows)]
    jobs = len(left)
    with (
        environment_variables(**ONE_THREAD),
        ProcessPoolExecutor(processes, get_context("spawn"), max_tasks_per_child=1) as pool,
    ):
        while left or running:
            # none waits in the pool, where Ctrl-C would not stop it
            while left and len(running) < processes:
                name, seed = left.pop()
                running[pool.submit(run_row, name, rows[name], seed, folder)] = name, seed
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for job in done:
                name, seed = running.pop(job)
                if isinstance(error := job.exception(), ValueError | OSError | FloatingPointError):
                    failures.append(type(error)(f"row {name!r}, seed {seed}: {error}"))
                    print(failures[-1], flush=True)
                    continue
                results[name, seed] = job.result()
                values = {result.measure: result.value for result in job.result()}
                print(
                    f"{len(results)} of {jobs}: {name}, seed {seed}: MAE {values['MAE HU']:.1f} "
                    f"HU, {values['CPU s per step']:.3f} s per step",
                    flush=True,
                )
    if failures:
        raise failures[0]
    found = [result for row in rows for seed in seeds for result in results[row, seed]]
    write_csv(found, folder / "table.csv")
    return found


def shipped(name: str) -> list[Result]:
    """The table of a study that comes with the course: data/studies/NAME.csv."""
    with (data_folder() / "studies" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return [
            Result(line["row"], int(line["seed"]), line["measure"], float(line["value"]))
            for line in csv.DictReader(file)
        ]


def over_seeds(results: Sequence[Result]) -> list[Summary]:
    """Mean and 95 % interval over seeds of every row and measure.

    Student's t with n - 1 degrees of freedom, so that three seeds give a wide one. NaN are left
    out; with fewer than two values left there is no interval.
    """
    groups: dict[tuple[str, str], list[float]] = {}
    for result in results:
        groups.setdefault((result.row, result.measure), []).append(result.value)
    return [summary(row, measure, values) for (row, measure), values in groups.items()]


def differences(results: Sequence[Result], reference: str) -> list[Summary]:
    """Every other row minus the reference, seed by seed (same patients and first weights), with the
    interval of that difference.
    """
    values = {(result.row, result.measure, result.seed): result.value for result in results}
    if reference not in {result.row for result in results}:
        raise ValueError(
            f"there is no row {reference!r} to compare with: choose one of "
            f"{', '.join(dict.fromkeys(r.row for r in results))}"
        )
    groups: dict[tuple[str, str], list[float]] = {}
    for (row, measure, seed), value in values.items():
        if row != reference and (reference, measure, seed) in values:
            groups.setdefault((row, measure), []).append(value - values[reference, measure, seed])
    return [summary(row, measure, found) for (row, measure), found in groups.items()]


def improvements(
    results: Sequence[Result], rows: dict[str, Row], reference: str, measure: str = "MAE HU"
) -> list[Summary]:
    """The differences of those rows that train without pairs and lie below the reference with their
    whole interval, the lowest first.
    """
    below = [
        d
        for d in differences(results, reference)
        if d.metric == measure and d.high < 0 and rows[d.method].sampling != "paired"
    ]
    return sorted(below, key=lambda d: d.mean)


def core_hours(rows: dict[str, Row], seeds: int, results: Sequence[Result]) -> float:
    """Hours of one core for which so many seeds of these rows train, by a table's CPU seconds per
    step; rows it lacks count as its mean.
    """
    seconds = {
        found.method: found.mean for found in over_seeds(results) if found.metric == COSTS[0]
    }
    typical = float(np.mean(list(seconds.values())))
    return seeds * sum(row.steps * seconds.get(name, typical) for name, row in rows.items()) / 3600


def summary(row: str, measure: str, values: Sequence[float]) -> Summary:
    kept = np.array([value for value in values if not math.isnan(value)])
    if len(kept) < 2:
        return Summary(
            row,
            measure,
            float(kept.mean()) if len(kept) else math.nan,
            math.nan,
            math.nan,
            len(kept),
        )
    half = stats.t.ppf(0.975, len(kept) - 1) * kept.std(ddof=1) / math.sqrt(len(kept))
    return Summary(
        row,
        measure,
        float(kept.mean()),
        float(kept.mean() - half),
        float(kept.mean() + half),
        len(kept),
    )


def add_command(commands) -> None:
    """Add `study` to the sub-commands of `python -m ctmri_utils`."""
    parser = commands.add_parser(
        "study", help="train and measure the rows of a study (lessons 06 and 07), or go on with it"
    )
    parser.add_argument("name", help="a table of studies.toml: failures, polarity or remedies")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument(
        "--processes", type=int, default=1, help="trainings at once; each uses one core"
    )
    parser.add_argument("--profile", default="laptop")
    parser.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a setting for all rows",
    )
    parser.add_argument(
        "--output", type=Path, help="folder of the results (default: build/studies/NAME-PROFILE)"
    )
    parser.set_defaults(run=command)


def command(options) -> None:
    """`python -m ctmri_utils study`."""
    rows = read_study(
        options.name, options.profile, {name: literal(value) for name, value in options.parameter}
    )
    for row in options.rows or ():
        if row not in rows:
            raise ValueError(
                f"there is no row {row!r} in the study {options.name}: choose from "
                f"{', '.join(map(repr, rows))}"
            )
    rows = {name: row for name, row in rows.items() if name in (options.rows or rows)}
    folder = options.output or build_folder() / "studies" / "-".join(
        [options.name, options.profile, *["part"] * bool(options.rows)]
    )
    if (
        options.profile == "laptop"
        and (data_folder() / "studies" / f"{options.name}.csv").is_file()
    ):
        hours = core_hours(rows, len(options.seeds), shipped(options.name))
        print(
            f"{len(rows) * len(options.seeds)} training(s), by the table that comes with the "
            f"course {hours:.1f} hours of one core; what is done already is not repeated",
            flush=True,
        )
    run_study(rows, options.seeds, folder, options.processes)
    print(f"Table in {folder / 'table.csv'}")

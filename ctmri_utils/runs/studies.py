"""Experiments too long for a lesson: rows of settings, each trained from several seeds.

A study is a table of `studies.toml`. Every row and seed is trained in a process of its own, on one
thread, so that a second person who runs it on a like processor gets the same digits, except for the
seconds and the memory.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch

from ..cyclegan.batches import Slices
from ..cyclegan.model import CycleGAN
from ..cyclegan.training import fit
from ..evaluation.distributions import FEWEST_FOR_KID
from ..evaluation.predictors import translated
from ..files import atomic_write
from ..machine import ONE_THREAD, build_folder, data_folder, environment_variables
from ..scans.datasets import SYNTHETIC, phantom_scans
from ..scans.physics import LESIONS
from ..scans.unpaired import Split, UnpairedScans
from ..seeds import set_up
from ..settings import (
    Options,
    Settings,
    option,
    read_toml,
    settings_for,
)
from .study_measures import BRAIN, field_correlations, measure_cycle, measure_translation
from .study_statistics import core_hours, differences, over_seeds

# With what is measured of a model, and the statistics over seeds.
__all__ = [
    "BRAIN",
    "Row",
    "core_hours",
    "differences",
    "field_correlations",
    "measure_cycle",
    "measure_translation",
    "over_seeds",
    "patients_of",
    "read_study",
    "run_study",
    "shipped",
    "train_row",
]


@dataclass(frozen=True)
class Patients(Options):
    """What the phantom's patients of a row are like."""

    dataset: str = option("atlas", "where their heads come from", choices=("phantom", "atlas"))
    lesion: str = option("none", "which lesion they have", choices=("none", *LESIONS))
    ct_lesions: float = option(
        0.0, "share of the training CTs with one; of the test patients half have one", high=1
    )
    mri_lesions: float = option(0.0, "share of the training MRs with one", high=1)
    ct_offset_px: int = option(0, "pixels that the heads in the training CTs are shifted right")


@dataclass(frozen=True)
class Row(Settings, Patients):
    """All that makes one row of a study."""

    pairs: int = option(0, "train on this many pairs only; 0: on all slices")
    unpaired_steps: int = option(
        0, "steps of an unpaired training run, on all slices, from which the row starts"
    )


def read_study(
    name: str, profile: str = "laptop", changes: dict | None = None, path: Path | None = None
) -> dict[str, Row]:
    """The rows of a study by name.

    Later ones win: the profile, what `every` row has, the profile's sizes if it is not
    the laptop's, the row, the changes.

    Args:
        name: a table of the file.
        profile: for whose sizes the rows are read.
        changes: settings for all rows.
        path: a file of studies, default the package's.

    Raises:
        ValueError: in one sentence, an unknown study, setting or profile.
    """
    path = path or Path(__file__).with_suffix(".toml")
    studies = read_toml(path)
    if name not in studies:
        raise ValueError(
            f"there is no study {name!r} in {path.name}: choose one of {', '.join(studies)}"
        )
    base = settings_for(profile)

    # The steps in the file are the laptop's.
    sizes = {}
    if profile != "laptop":
        sizes["steps"] = base.phantom_steps
        sizes["test_patients"] = max(FEWEST_FOR_KID, base.test_patients)

    common = asdict(base) | studies[name].get("every", {}) | sizes
    return {
        row: Row.of(common | special | (changes or {}))
        for row, special in studies[name]["rows"].items()
    }


def patients_of(row: Row, seed: int) -> UnpairedScans:
    """The training and test patients of a row.

    The test patients are the same for all rows of a seed with the same kind of lesion.
    """
    groups = [{}, {}, {}]
    if row.lesion != "none":
        shares = (row.ct_lesions, row.mri_lesions, 0.5)
        groups = [{"lesion": row.lesion, "lesion_fraction": share} for share in shares]

    scans = phantom_scans(
        row.patients,
        row.test_patients,
        row.size,
        seed,
        name=row.dataset,
        paired=row.sampling == "paired",
        groups=groups,
        **SYNTHETIC[row.dataset],
    )

    # Heads move to the right where air is put in on the left.
    padded = torch.nn.functional.pad(scans.train.ct, (row.ct_offset_px, 0, 0, 0), value=-1)
    return replace(scans, train=replace(scans.train, ct=padded[..., : row.size]))


def train_row(
    row: Row, seed: int, scans: UnpairedScans, checkpoint: Path | None = None
) -> tuple[CycleGAN, dict[str, float]]:
    """Train one row from one seed.

    Args:
        row: the settings.
        seed: of weights and draws.
        scans: of `patients_of`.
        checkpoint: where the training run is kept, and resumes from.

    Returns:
        The trained model, and what the training cost: CPU seconds per step, and MB of memory beyond
        those at its start (Linux, else NaN).
    """
    torch.manual_seed(seed)
    model = CycleGAN(row.architecture, row.objective)
    if row.unpaired_steps:
        model.load_state_dict(_unpaired_model(row, seed).state_dict())

    steps = []
    start_s = time.process_time()
    start_mb = status_mb("VmRSS")
    fit(
        model,
        _first_pairs(scans.train, row.pairs) if row.pairs else scans.train,
        row.training,
        seed=seed,
        checkpoint=checkpoint,
        save_every=250,
        on_step=lambda step, _: steps.append(step),
    )
    # Without a step, an earlier call had done them all.
    seconds = math.nan
    if steps:
        seconds = (time.process_time() - start_s) / len(steps)
    return model, {"CPU s per step": seconds, "memory MB": status_mb("VmHWM") - start_mb}


def _unpaired_model(row: Row, seed: int) -> CycleGAN:
    """A CycleGAN trained by the row's settings, but without pairs and supervision."""
    unpaired = replace(
        row, sampling="random", supervised=0, steps=row.unpaired_steps, unpaired_steps=0, pairs=0
    )
    model, _ = train_row(unpaired, seed, patients_of(unpaired, seed))
    return model


def _first_pairs(train: Split, pairs: int) -> Slices:
    """The first few pairs of a paired split."""
    return Slices(ct=train.ct[:pairs], mri=train.mri[:pairs], paired=True)


def status_mb(line: str) -> float:
    """This process's memory in MB: VmRSS now, VmHWM at its highest; NaN outside Linux."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return math.nan
    kilobytes = re.search(rf"{line}:\s+(\d+)", status.read_text()).group(1)
    return int(kilobytes) / 1024


def run_row(name: str, row: Row, seed: int, folder: Path) -> pd.DataFrame:
    """Train and measure one row from one seed, or read what an earlier call found.

    A stopped training run resumes. Leaves folder/ROW-SEED.json and its checkpoint beside it.

    Returns:
        Columns row, seed, measure and value.

    Raises:
        ValueError: that file is damaged or was made with other settings.
    """
    slug = re.sub("[^a-zA-Z0-9]+", "-", name).strip("-")
    target = folder / f"{slug}-{seed}.json"
    if target.is_file():
        measures = _earlier_measures(target, row)
    else:
        measures = _train_and_measure(row, seed, target.with_suffix(".pt"))
        content = {"settings": asdict(row), "measures": measures}
        with atomic_write(target) as temporary:
            temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")

    # pandas repeats the name and the seed on every line.
    values = list(measures.values())
    return pd.DataFrame({"row": name, "seed": seed, "measure": list(measures), "value": values})


def _train_and_measure(row: Row, seed: int, checkpoint: Path) -> dict[str, float]:
    """Everything that is measured of one row, on one thread."""
    set_up(seed)
    torch.set_num_threads(1)

    scans = patients_of(row, seed)
    model, costs = train_row(row, seed, scans, checkpoint)
    fake_hu = translated(model, scans.ct_scale)(scans.test)
    translation = measure_translation(fake_hu, scans)
    cycle = measure_cycle(model, row, seed, scans)
    return translation | cycle | costs


def _earlier_measures(path: Path, row: Row) -> dict[str, float]:
    """What an earlier call measured; ValueError if it had other settings."""
    result = read_result(path)
    settings = asdict(row)
    if result["settings"] != settings:
        other = [key for key, value in settings.items() if result["settings"].get(key) != value]
        raise ValueError(
            f"{path} was made with another {', '.join(other)}: choose another folder "
            "with --output, or move it away"
        )
    return result["measures"]


def read_result(path: Path) -> dict[str, dict]:
    """The settings and the measures that `run_row` kept; ValueError if they cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: dict(content[name]) for name in ("settings", "measures")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read: move it away, and the same command makes it again"
        ) from error


def run_study(
    rows: dict[str, Row], seeds: Sequence[int], folder: Path, processes: int = 1
) -> pd.DataFrame:
    """Run every row from every seed, and print a line for each.

    Rows that are done are not trained again, so a study can be stopped, repeated and widened. A row
    that fails is named, and the others go on; then the first failure is raised, and there is no
    table.

    Args:
        rows: name -> settings.
        seeds: all different.
        folder: keeps what is done, and table.csv these rows.
        processes: training runs at a time.

    Returns:
        The table: columns row, seed, measure and value.

    Raises:
        ValueError: a repeated seed, no process, or too few patients.
    """
    _check_study(rows, seeds, processes)
    folder.mkdir(parents=True, exist_ok=True)

    jobs = [(name, seed) for seed in seeds for name in rows]
    by_job = _run_jobs(jobs, rows, folder, processes)
    in_order = [by_job[name, seed] for name in rows for seed in seeds]
    results = pd.concat(in_order, ignore_index=True)
    # The format of the tables that come with the course, on every system.
    results.to_csv(folder / "table.csv", index=False, na_rep="nan", lineterminator="\r\n")
    return results


def _check_study(rows: dict[str, Row], seeds: Sequence[int], processes: int) -> None:
    if processes < 1 or not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ValueError(
            "a study needs at least one process, and different seeds of at least 0, got "
            f"{processes} and {list(seeds)}"
        )
    for size in ("patients", "test_patients"):
        least = min(getattr(row, size) for row in rows.values())
        if least < FEWEST_FOR_KID:
            raise ValueError(f"{size}={least} is too few for KID: choose {FEWEST_FOR_KID} or more")


def _run_jobs(
    jobs: list[tuple[str, int]], rows: dict[str, Row], folder: Path, processes: int
) -> dict[tuple[str, int], pd.DataFrame]:
    """The results by row and seed; the first failure is raised when all others are done."""
    results, failures, running = {}, [], {}
    waiting = jobs[::-1]
    with (
        environment_variables(**ONE_THREAD),
        ProcessPoolExecutor(processes, get_context("spawn"), max_tasks_per_child=1) as pool,
    ):
        while waiting or running:
            # No job waits in the pool, where Ctrl-C would not stop it.
            while waiting and len(running) < processes:
                name, seed = waiting.pop()
                future = pool.submit(run_row, name, rows[name], seed, folder)
                running[future] = (name, seed)

            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                name, seed = running.pop(future)
                error = future.exception()
                if isinstance(error, ValueError | OSError | FloatingPointError):
                    failures.append(type(error)(f"row {name!r}, seed {seed}: {error}"))
                    print(failures[-1], flush=True)
                    continue

                results[name, seed] = future.result()
                values = future.result().set_index("measure")["value"]
                print(
                    f"{len(results)} of {len(jobs)}: {name}, seed {seed}: "
                    f"MAE {values['MAE HU']:.1f} HU, {values['CPU s per step']:.3f} s per step",
                    flush=True,
                )
    if failures:
        raise failures[0]
    return results


def shipped_table(name: str) -> Path:
    """Where the table of a study lies that comes with the course, if there is one."""
    return data_folder() / "studies" / f"{name}.csv"


def shipped(name: str) -> pd.DataFrame:
    """The table of a study that comes with the course: data/studies/NAME.csv."""
    # Before version 3.1, pandas itself reads the last digit inexactly.
    return pd.read_csv(shipped_table(name), converters={"value": float})


def print_study(
    study: str,
    profile: str,
    changes: dict,
    chosen: Sequence[str],
    seeds: Sequence[int],
    processes: int,
    output: Path | None,
) -> None:
    """Run a study, or the chosen ones of its rows, and print how long it takes and where it is."""
    rows = read_study(study, profile, changes)
    parts = [study, profile]

    if chosen:
        for name in chosen:
            if name not in rows:
                raise ValueError(
                    f"there is no row {name!r} in the study {study}: choose from "
                    f"{', '.join(map(repr, rows))}"
                )
        rows = {name: row for name, row in rows.items() if name in chosen}
        parts.append("part")
    folder = output or build_folder() / "studies" / "-".join(parts)

    if profile == "laptop" and shipped_table(study).is_file():
        hours = core_hours(rows, len(seeds), shipped(study))
        print(
            f"{len(rows) * len(seeds)} training run(s), by the table that comes with the "
            f"course {hours:.1f} hours of one core; finished runs are not repeated",
            flush=True,
        )
    run_study(rows, seeds, folder, processes)
    print(f"Table in {folder / 'table.csv'}")

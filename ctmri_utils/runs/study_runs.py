"""`ctmri study`: every row of a study trained and measured from several seeds.

Every row and seed is trained in a process of its own, on one thread, so that a second person who
runs it on a like processor gets the same digits, except for the seconds and the memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch

from ..evaluation.distributions import FEWEST_FOR_KID
from ..evaluation.predictors import as_predictor
from ..files import atomic_write
from ..machine import ONE_THREAD, environment_variables
from ..seeds import set_up
from .studies import Row, core_hours, patients_of, shipped_table, shipped_table_file, train_row
from .study_measures import measure_cycle, measure_translation

Measures = dict[str, float]


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
    if processes < 1 or not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ValueError(
            "a study needs at least one process, and different seeds of at least 0, got "
            f"{processes} and {list(seeds)}"
        )
    for size in ("patients", "test_patients"):
        least = min(getattr(row, size) for row in rows.values())
        if least < FEWEST_FOR_KID:
            raise ValueError(f"{size}={least} is too few for KID: choose {FEWEST_FOR_KID} or more")

    folder.mkdir(parents=True, exist_ok=True)
    measures = run_jobs([(name, seed) for seed in seeds for name in rows], rows, folder, processes)
    lines = []
    for name in rows:
        for seed in seeds:
            lines += [(name, seed, *measure) for measure in measures[name, seed].items()]
    table = pd.DataFrame(lines, columns=["row", "seed", "measure", "value"])

    # On every system the table has the format of those that come with the course.
    table.to_csv(folder / "table.csv", index=False, na_rep="nan", lineterminator="\r\n")
    return table


def run_jobs(
    jobs: list[tuple[str, int]], rows: dict[str, Row], folder: Path, processes: int
) -> dict[tuple[str, int], Measures]:
    """The measures by row and seed; the first failure is raised when all others are done."""
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
                running[pool.submit(run_row, name, rows[name], seed, folder)] = (name, seed)

            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                name, seed = running.pop(future)
                error = future.exception()
                if isinstance(error, ValueError | OSError | FloatingPointError):
                    failures.append(type(error)(f"row {name!r}, seed {seed}: {error}"))
                    print(failures[-1], flush=True)
                    continue

                measures = results[name, seed] = future.result()
                print(
                    f"{len(results)} of {len(jobs)}: {name}, seed {seed}: "
                    f"MAE {measures['MAE HU']:.1f} HU, {measures['CPU s per step']:.3f} s per step",
                    flush=True,
                )
    if failures:
        raise failures[0]
    return results


def run_row(name: str, row: Row, seed: int, folder: Path) -> Measures:
    """Train and measure one row from one seed, or read what an earlier call found.

    A stopped training run resumes. Leaves folder/ROW-SEED.json and its checkpoint beside it.

    Raises:
        ValueError: that file is damaged or was made with other settings.
    """
    slug = re.sub("[^a-zA-Z0-9]+", "-", name).strip("-")
    target = folder / f"{slug}-{seed}.json"
    if target.is_file():
        return earlier_measures(target, row)

    measures = train_and_measure(row, seed, target.with_suffix(".pt"))
    content = {"settings": asdict(row), "measures": measures}
    with atomic_write(target) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return measures


def train_and_measure(row: Row, seed: int, checkpoint: Path) -> Measures:
    """Everything that is measured of one row, on one thread."""
    set_up(seed)
    torch.set_num_threads(1)

    scans = patients_of(row, seed)
    model, costs = train_row(row, seed, scans, checkpoint)
    fake_hu = as_predictor(model, scans.ct_scale)(scans.test)
    translation = measure_translation(fake_hu, scans)
    cycle = measure_cycle(model, seed, scans)
    return translation | cycle | costs


def earlier_measures(path: Path, row: Row) -> Measures:
    """What an earlier call measured; ValueError if it is damaged or had other settings."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        earlier, measures = dict(content["settings"]), dict(content["measures"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read: move it away, and the same command makes it again"
        ) from error

    settings = asdict(row)
    if earlier != settings:
        changed = [name for name, value in settings.items() if earlier.get(name) != value]
        raise ValueError(
            f"{path} was made with another {', '.join(changed)}: choose another folder "
            "with --output, or move it away"
        )
    return measures


def run_and_report(
    study: str,
    profile: str,
    rows: dict[str, Row],
    seeds: Sequence[int],
    folder: Path,
    processes: int,
) -> None:
    """As `run_study`, and print how long it takes, where the course knows it, and where it is."""
    if profile == "laptop" and shipped_table_file(study).is_file():
        hours = core_hours(rows, len(seeds), shipped_table(study))
        print(
            f"{len(rows) * len(seeds)} training run(s), by the table that comes with the "
            f"course {hours:.1f} hours of one core; finished runs are not repeated",
            flush=True,
        )
    run_study(rows, seeds, folder, processes)
    print(f"Table in {folder / 'table.csv'}")

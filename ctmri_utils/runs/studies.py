"""Studies, experiments too long for a lesson: their rows, trainings, and statistics over seeds.

A study is a table of `studies.toml`; `study_runs` trains and measures all of its rows. The results
are a table with the columns row, seed, measure and value. Its summaries have the columns of
`evaluation.summarise`, as `evaluation.score_table` and `figures.interval_plot` take them: method is
the row, metric the measure, and n counts seeds.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from scipy import stats

from ..cyclegan.batches import Slices
from ..cyclegan.model import CycleGAN
from ..cyclegan.training import fit
from ..evaluation.distributions import FEWEST_FOR_KID
from ..evaluation.scores import SUMMARY_COLUMNS
from ..machine import data_folder
from ..options import Options, option, read_toml
from ..scans.datasets import PHANTOM_OPTIONS, phantom_scans
from ..scans.physics import LESIONS
from ..scans.unpaired import UnpairedScans
from ..settings import Settings, settings_for

STUDIES = read_toml(Path(__file__).with_suffix(".toml"))

COSTS = ("CPU s per step", "memory MB")

# These measures are shares, so their intervals end at 0 and 1.
SHARES = ("lesion TPR", "lesion FPR", "inverted")


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
    name: str,
    profile: str = "laptop",
    changes: dict | None = None,
    only: Sequence[str] = (),
) -> dict[str, Row]:
    """The rows of a study by name.

    Later ones win: the profile, what `every` row has, the profile's sizes if it is not
    the laptop's, the row, the changes.

    Args:
        name: a table of `studies.toml`.
        profile: for whose sizes the rows are read.
        changes: settings for all rows.
        only: the names of the rows to read, default all.

    Raises:
        ValueError: in one sentence, an unknown study, row, setting or profile.
    """
    if name not in STUDIES:
        raise ValueError(f"there is no study {name!r}: choose one of {', '.join(STUDIES)}")
    base = settings_for(profile)

    # studies.toml gives the steps for the laptop.
    sizes = {}
    if profile != "laptop":
        sizes["steps"] = base.phantom_steps
        sizes["test_patients"] = max(FEWEST_FOR_KID, base.test_patients)

    common = asdict(base) | STUDIES[name].get("every", {}) | sizes
    special = STUDIES[name]["rows"]
    for row in only:
        if row not in special:
            raise ValueError(
                f"there is no row {row!r} in the study {name}: choose from "
                f"{', '.join(map(repr, special))}"
            )
    return {
        row: Row(**common | special[row] | (changes or {}))
        for row in special
        if not only or row in only
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
        **PHANTOM_OPTIONS[row.dataset],
    )

    # Padding with air on the left moves the heads to the right.
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
        model.load_state_dict(unpaired_model(row, seed).state_dict())

    train = scans.train
    if row.pairs:
        train = Slices(ct=train.ct[: row.pairs], mri=train.mri[: row.pairs], paired=True)

    steps = []
    start_s = time.process_time()
    start_mb = status_mb("VmRSS")
    fit(
        model,
        train,
        row.training,
        seed=seed,
        checkpoint=checkpoint,
        save_every=250,
        on_step=lambda step, _: steps.append(step),
    )
    # No step was made if an earlier call had trained the row to its end.
    seconds = math.nan
    if steps:
        seconds = (time.process_time() - start_s) / len(steps)
    return model, {"CPU s per step": seconds, "memory MB": status_mb("VmHWM") - start_mb}


def unpaired_model(row: Row, seed: int) -> CycleGAN:
    """A CycleGAN trained by the row's settings, but without pairs and supervision."""
    unpaired = replace(
        row, sampling="random", supervised=0, steps=row.unpaired_steps, unpaired_steps=0, pairs=0
    )
    model, _ = train_row(unpaired, seed, patients_of(unpaired, seed))
    return model


def status_mb(line: str) -> float:
    """This process's memory in MB: VmRSS now, VmHWM at its highest; NaN outside Linux."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return math.nan
    kilobytes = re.search(rf"{line}:\s+(\d+)", status.read_text()).group(1)
    return int(kilobytes) / 1024


def shipped_table_file(name: str) -> Path:
    """Where the table of a study lies that comes with the course, if there is one."""
    return data_folder() / "studies" / f"{name}.csv"


def shipped_table(name: str) -> pd.DataFrame:
    """The table of a study that comes with the course: data/studies/NAME.csv."""
    # Before version 3.1, pandas itself reads the last digit inexactly.
    return pd.read_csv(shipped_table_file(name), converters={"value": float})


def over_seeds(results: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval over seeds of every row and measure, see `mean_interval`.

    The interval of a share is cut off at 0 and 1, which no share can pass.
    """
    summaries = summarise_rows(results)
    of_shares = summaries["metric"].isin(SHARES)
    for end in ("low", "high"):
        summaries.loc[of_shares, end] = summaries.loc[of_shares, end].clip(0, 1)
    return summaries


def summarise_rows(results: pd.DataFrame) -> pd.DataFrame:
    """Mean and 95 % interval of each row and measure, in the columns of a summary."""
    rows = [
        (row, measure, *mean_interval(values))
        for (row, measure), values in results.groupby(["row", "measure"], sort=False)["value"]
    ]
    return pd.DataFrame(rows, columns=SUMMARY_COLUMNS)


def differences(results: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Every other row minus the reference, seed by seed, with the interval of that difference.

    One seed gives all rows the same patients and first weights.

    Raises:
        ValueError: there is no such row.
    """
    rows = results["row"].unique()
    if reference not in rows:
        raise ValueError(
            f"there is no row {reference!r} to compare with: choose one of {', '.join(rows)}"
        )

    is_reference = results["row"] == reference
    pairs = results[~is_reference].merge(
        results[is_reference], on=["measure", "seed"], suffixes=("", "_of_reference")
    )
    return summarise_rows(pairs.assign(value=pairs["value"] - pairs["value_of_reference"]))


def core_hours(rows: Mapping[str, Settings], seeds: int, results: pd.DataFrame) -> float:
    """Hours of one core for which so many seeds of these rows train.

    Args:
        rows: name -> settings.
        seeds: how many.
        results: a table with the CPU seconds per step; rows it lacks count as its mean.
    """
    costs = over_seeds(results[results["measure"] == COSTS[0]])
    seconds = costs.set_index("method")["mean"]
    typical = float(np.mean(seconds.to_numpy()))

    one_seed = sum(row.steps * seconds.get(name, typical) for name, row in rows.items())
    return seeds * one_seed / 3600


def mean_interval(values: ArrayLike) -> tuple[float, float, float, int]:
    """Mean and 95 % interval of values from different seeds.

    Student's t with n - 1 degrees of freedom, so that three seeds give a wide interval. NaN are
    left out; with fewer than two values there is no interval.

    Args:
        values: (n,), one for each seed.

    Returns:
        The mean, the interval's two ends, and how many values were not NaN.
    """
    values = np.asarray(values, dtype=float)
    kept = values[~np.isnan(values)]
    n = len(kept)
    if n == 0:
        return math.nan, math.nan, math.nan, n

    mean = float(kept.mean())
    if n == 1:
        return mean, math.nan, math.nan, n

    half_width = stats.t.ppf(0.975, n - 1) * kept.std(ddof=1) / math.sqrt(n)
    return mean, float(mean - half_width), float(mean + half_width), n

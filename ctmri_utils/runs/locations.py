"""Where training runs and weights lie, and the file that a name stands for."""

from __future__ import annotations

from pathlib import Path

from ..machine import build_folder, data_folder
from ..settings import DATASETS

CHECKPOINT = "checkpoint.pt"

# The weights that come with the project, by name.
SHIPPED = sorted({row["weights"] for row in DATASETS.values() if "weights" in row})


def run_folder(name: str, profile: str, seed: int) -> Path:
    """Where the training run on the data set `name` lies.

    Lesson 03 or `ctmri train` writes it, later lessons find it.
    """
    return build_folder() / "runs" / f"{name}-{profile}-{seed}"


def checkpoint_file(name: str, profile: str, seed: int) -> Path:
    """The run's checkpoint, inside `run_folder`."""
    return run_folder(name, profile, seed) / CHECKPOINT


def weights_file(dataset: str) -> Path:
    """Where the weights that come with the project for a data set lie, if there are any."""
    name = DATASETS.get(dataset, {}).get("weights", dataset)
    return data_folder() / "weights" / f"{name}.safetensors"


def locate(source: str | Path) -> Path:
    """The file that a path, a run's folder, or the name of a run or of shipped weights stands for.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(source)
    if path.is_dir():
        path = path / CHECKPOINT
    runs = build_folder() / "runs"
    candidates = [path, runs / source / CHECKPOINT]
    if str(source) in SHIPPED:
        candidates.append(weights_file(str(source)))
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(
        f"{path} is neither a file nor a run in {runs}, nor shipped ({', '.join(SHIPPED)}): train "
        "first, or give one of these"
    )

"""The one table of sizes (profiles), and the one place where seeds, threads and folders are set."""
from __future__ import annotations

import os
import platform
import random
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch


@dataclass(frozen=True)
class Settings:
    """How large the lessons run; one row of `PROFILES`."""

    size: int                   # pixels per side of the phantom's slices
    scans_size: int             # pixels per side of real slices
    patients: int               # synthetic patients per domain, for training
    test_patients: int          # synthetic patients with truth, for scoring
    ngf: int                    # width of the generators
    ndf: int                    # width of the discriminators
    n_blocks: int               # residual blocks of the generators
    n_layers: int               # layers of the PatchGAN
    batch_size: int
    learning_rate: float        # of Adam; narrow networks bear more than the paper's 2e-4
    cycle_weight: float         # the paper's is 10; narrow networks learn faster with less
    identity_weight: float      # the paper's is 5; likewise
    short_steps: int            # training steps of a demonstration
    scans_steps: int            # training steps on the embedded scans (or the reader's own)
    phantom_steps: int          # training steps on the phantom

    def training_steps(self, dataset: str) -> int:
        """Training steps on a data set by its name, the phantom's or everything else's."""
        return self.phantom_steps if dataset == "phantom" else self.scans_steps


PROFILES = {
    "ci": Settings(size=64, scans_size=64, patients=16, test_patients=6, ngf=8, ndf=8, n_blocks=2, n_layers=2,
                   batch_size=1, learning_rate=6e-4, cycle_weight=5, identity_weight=0.5,
                   short_steps=6, scans_steps=12, phantom_steps=12),
    "laptop": Settings(size=64, scans_size=96, patients=1000, test_patients=40, ngf=16, ndf=32, n_blocks=4, n_layers=2,
                       batch_size=1, learning_rate=6e-4, cycle_weight=5, identity_weight=0.5,
                       short_steps=150, scans_steps=1200, phantom_steps=3300),
    "gpu": Settings(size=128, scans_size=128, patients=2000, test_patients=100, ngf=64, ndf=64, n_blocks=9, n_layers=3,
                    batch_size=8, learning_rate=2e-4, cycle_weight=10, identity_weight=5,
                    short_steps=300, scans_steps=10000, phantom_steps=20000),
}


def settings_for(profile: str) -> Settings:
    """The sizes of a profile, with a warning where "gpu" meets none. Raises ValueError, naming the known ones, for another name."""
    if profile not in PROFILES:
        raise ValueError(f"PROFILE={profile!r} is not known: choose one of {', '.join(PROFILES)}")
    if profile == "gpu" and not torch.cuda.is_available():
        warnings.warn("PROFILE='gpu' without a GPU trains for days: choose 'laptop', or a machine with CUDA", stacklevel=2)
    return PROFILES[profile]


def set_up(seed: int) -> torch.device:
    """Seed Python, NumPy and torch, set the thread count on purpose, and return the device to train on.

    Threads: CTMRI_THREADS if set, else one for every two cores, since threads that wait for a busy core cost many times what they
    bring. On the CPU the same seed and thread count give the same digits twice; a GPU may differ in the last ones. Raises ValueError
    if CTMRI_THREADS is no whole number above zero.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    threads = os.environ.get("CTMRI_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))
    if not threads.isdecimal() or int(threads) < 1:
        raise ValueError(f"CTMRI_THREADS={threads!r} must be a whole number above zero: correct or unset it")
    torch.set_num_threads(int(threads))
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else None
"""The folder of the checkout this package runs from; None where it was installed without one, as on Colab."""


def data_folder() -> Path:
    """Where the embedded scans lie: `data` in the checkout, or the copy installed inside the package."""
    return CHECKOUT / "data" if CHECKOUT else PACKAGE / "data"


def build_folder() -> Path:
    """Where executed lessons and training runs go: $CTMRI_BUILD, else `build` in the checkout or here. Created if missing."""
    folder = Path(os.environ.get("CTMRI_BUILD", (CHECKOUT or Path.cwd()) / "build"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def checkpoint_file(name: str, profile: str, seed: int) -> Path:
    """Where the lessons keep the training run on the data set `name`: lesson 03 writes it, lesson 04 finds it."""
    return build_folder() / "runs" / f"{name}-{profile}-{seed}.pt"


def report() -> str:
    """One line on the machine: Python, torch, device and threads; to be printed at the top of a lesson or an issue."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return f"Python {platform.python_version()}, torch {torch.__version__}, {device}, {platform.system()} {platform.machine()}"

"""`python -m ctmri_utils train`: a training from a settings file, in a folder that describes it."""

from __future__ import annotations

import csv
import io
import math
import os
import platform
import subprocess
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..cyclegan.model import CycleGAN
from ..cyclegan.resume import load_checkpoint
from ..cyclegan.training import fit
from ..files import check_writable
from ..machine import CHECKOUT, report, run_folder, several_processes
from ..scans.datasets import NAMED, load_scans
from ..scans.unpaired import UnpairedScans
from ..seeds import set_up
from ..settings import Settings, literal, read_settings, to_toml
from ..units import HU
from ..viewers.progress import Progress

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-image", "pillow", "safetensors")

# Slices of each modality that the strips show.
WATCHED = 4


class RunLog(Progress):
    """`Progress` on the command line, which also writes the run's folder.

    Nothing is written before the first step, since `fit` may refuse.

    Args:
        run: the folder.
        earlier: the losses of the steps before this call.
        settings: what settings.toml shall hold.
        tensorboard: also write losses and strips for TensorBoard.
        watched, options: as `Progress` takes them.

    Raises:
        ModuleNotFoundError: tensorboard is missing.
    """

    def __init__(
        self,
        run: Path,
        earlier: list[dict[str, float]],
        settings: dict,
        tensorboard: bool,
        *watched,
        **options,
    ):
        super().__init__(*watched, folder=run / "strips", **options)
        self.run = run
        self.earlier = earlier
        self.settings = settings
        self.writer = summary_writer() if tensorboard else None
        self.board = None

    def begin(self, step: int) -> None:
        super().begin(step)
        (self.run / "settings.toml").write_text(to_toml(self.settings), encoding="utf-8")
        with (self.run / "environment.txt").open("a", encoding="utf-8") as file:
            file.write(environment())
        if self.writer:
            self.board = self.writer(str(self.run), purge_step=step)

    def __call__(self, step: int, losses: dict[str, float]) -> None:
        super().__call__(step, losses)
        if self.board:
            for name, loss in losses.items():
                self.board.add_scalar(f"losses/{name}", loss, step)

    def refresh(self, step: int) -> bytes:
        strip = super().refresh(step)
        self.write_losses(step)
        if self.board:
            picture = np.asarray(Image.open(io.BytesIO(strip)).convert("RGB"))
            self.board.add_image("strip", picture, step, dataformats="HWC")
            self.board.flush()
        return strip

    def write_losses(self, step: int) -> None:
        """Write losses.csv, a row for each step of the whole run."""
        rows = self.history
        if len(rows) < step:
            rows = self.earlier + rows
        with (self.run / "losses.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, ["step", *rows[0]])
            table.writeheader()
            for number, row in enumerate(rows, 1):
                table.writerow({"step": number} | row)


def summary_writer() -> type:
    """TensorBoard's writer, or an error that says how to get it."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "--tensorboard needs tensorboard: pip install 'ctmri-utils[train]'"
        ) from error
    return SummaryWriter


def environment() -> str:
    """What a run was made with: command, machine, versions, and the revision of the code."""
    lines = [
        f"command: {' '.join(sys.argv)}",
        f"machine: {report()}",
        f"processor: {platform.processor() or platform.machine()}",
    ]
    lines += [f"{name}: {version(name)}" for name in PACKAGES]
    if CHECKOUT:
        revision = git("rev-parse", "HEAD") or "unknown"
        changed = " with changes" if git("status", "--porcelain") else ""
        lines.append(f"git revision: {revision}{changed}")
    return "\n".join(lines) + "\n"


def git(*words: str) -> str:
    """What git says in the checkout; "" where there is no git."""
    command = ["git", "-C", str(CHECKOUT), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def check_memory(settings: Settings, device: torch.device) -> None:
    """Refuse networks that need more memory than there is: the system would end the process.

    Weights count, and of those trained their gradient and Adam's two means; 4 bytes each. Where the
    system does not tell its memory (Windows), nothing is refused.

    Raises:
        ValueError: in one sentence.
    """
    # Shapes without numbers.
    with torch.device("meta"):
        model = CycleGAN(settings.architecture, settings.objective)

    numbers = 0
    for weight in model.parameters():
        numbers += weight.numel() * (4 if weight.requires_grad else 1)
    needed = 4 * numbers

    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    elif hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    else:
        memory = math.inf
    if needed > memory:
        raise ValueError(
            f"the networks and their optimizers need {needed / 1e9:.0f} GB of memory and there are "
            f"{memory / 1e9:.0f}: choose a smaller ngf, ndf or n_blocks"
        )


def check_unit(settings: Settings, scans: UnpairedScans) -> None:
    """Raise ValueError where a setting that counts in HU meets pictures in grey levels."""
    if scans.ct_scale.unit == HU.unit:
        return
    needs_hu = []
    if settings.mask:
        needs_hu.append(f"mask={settings.mask:g}")
    if settings.ct_map != "linear":
        needs_hu.append(f"ct_map={settings.ct_map!r}")
    if needs_hu:
        raise ValueError(
            f"{needs_hu[0]} counts in HU, and the CT of this set is in {scans.ct_scale.unit}s: "
            "leave it out"
        )


def train(
    path: Path | None = None,
    output: Path | None = None,
    tensorboard: bool = False,
    changes: dict | None = None,
) -> Path:
    """Train as a settings file says, print the run's folder and return it.

    A folder that holds an unfinished run is resumed. It gets settings.toml (all of them: itself a
    settings file), environment.txt, checkpoint.pt, losses.csv, strips/ and, with `tensorboard`, its
    events.

    Args:
        path: the settings file, or None for the defaults.
        output: the run's folder; default build/runs/DATASET-PROFILE-SEED, where the lessons look.
        tensorboard: also write for TensorBoard.
        changes: settings by name that replace the file's.

    Raises:
        ValueError, OSError or FloatingPointError: in one sentence.
    """
    run, settings = read_settings(path, changes or {})
    dataset, seed = run["dataset"], run["seed"]
    name = dataset if dataset in NAMED else Path(dataset).resolve().name
    folder = Path(output or run_folder(name, run["profile"], seed))
    steps = settings.training_steps(name)

    # What may be refused comes before what takes time.
    check_writable(folder)
    device = set_up(seed)
    engine = several_processes()
    if engine:
        device = engine.device
    check_memory(settings, device)

    torch.manual_seed(seed)
    model = CycleGAN(settings.architecture, settings.objective).to(device)
    scans = load_scans(dataset, settings, seed)
    check_unit(settings, scans)

    # One process speaks for all.
    log = None
    if engine is None or engine.is_main_process:
        values = run | asdict(settings) | {"steps": steps}
        log = start_log(folder, values, tensorboard, model, scans, steps)
    try:
        losses = fit(
            model,
            scans.train,
            settings.training,
            steps=steps,
            seed=seed,
            checkpoint=folder / "checkpoint.pt",
            on_step=log,
        )
    finally:
        # The bar's line ends before an error's begins.
        if log:
            log.bar.close()

    if log:
        trained = bool(log.history)
        log.finish(losses)
        print(
            f"Run in {folder}" if trained else f"{folder} is already trained to its {steps} steps"
        )
    return folder


def start_log(
    folder: Path,
    settings: dict,
    tensorboard: bool,
    model: CycleGAN,
    scans: UnpairedScans,
    steps: int,
) -> RunLog:
    checkpoint = folder / "checkpoint.pt"
    earlier = load_checkpoint(checkpoint)["losses"] if checkpoint.exists() else []
    watched = [evenly_chosen(images) for images in (scans.test.ct, scans.test.mri)]
    every = max(1, steps // 20)
    return RunLog(folder, earlier, settings, tensorboard, model, *watched, steps=steps, every=every)


def evenly_chosen(images: torch.Tensor) -> torch.Tensor:
    return images[:: max(1, len(images) // WATCHED)][:WATCHED]


def add_command(commands) -> None:
    """Add `train` to the sub-commands of `python -m ctmri_utils`."""
    parser = commands.add_parser(
        "train",
        help="train a CycleGAN as a settings file says, or go on with such a training",
        description="On several GPUs or machines: accelerate launch -m ctmri_utils train ...; "
        "on several CPU processes: torchrun --nproc-per-node 2 -m ctmri_utils train ...",
    )
    parser.add_argument(
        "settings",
        nargs="?",
        type=Path,
        help="a TOML file, such as a run's settings.toml; any setting may be left out",
    )
    parser.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a setting that replaces the file's, such as -p dataset scans -p steps 500 -p "
        "gan_mode hinge",
    )
    parser.add_argument(
        "--output", type=Path, help="the run folder (default: build/runs/DATASET-PROFILE-SEED)"
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="also write losses and strips for TensorBoard"
    )
    parser.set_defaults(run=command)


def command(options) -> None:
    """`python -m ctmri_utils train`."""
    changes = {name: literal(value) for name, value in options.parameter}
    train(options.settings, options.output, options.tensorboard, changes)

"""`ctmri train`: a training run from a settings file, in a folder that describes it."""

from __future__ import annotations

import io
import math
import os
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from ..cyclegan.model import CycleGAN
from ..cyclegan.resume import load_checkpoint
from ..cyclegan.training import fit
from ..files import check_writable
from ..issue_report import report_text
from ..machine import run_folder, several_processes
from ..scans.datasets import NAMED, load_scans
from ..scans.unpaired import UnpairedScans
from ..seeds import set_up
from ..settings import Settings, read_settings, to_toml
from ..units import HU
from ..viewers.figures import evenly_chosen
from ..viewers.progress import Progress
from .contract import contract_for, settings_for_scans
from .recognise import locate
from .start import Start, start_from

# Slices of each modality that the strips show.
WATCHED = 4


class RunLog(Progress):
    """`Progress` on the command line, which also writes the run's folder.

    Nothing is written before the first step, since `fit` may refuse.

    Args:
        run: the folder.
        earlier: the losses of the steps before this call.
        records: texts that describe the run, by the name of their file.
        tensorboard: also write losses and strips for TensorBoard.
        watched, options: as `Progress` takes them.

    Raises:
        ModuleNotFoundError: tensorboard is missing.
    """

    def __init__(
        self,
        run: Path,
        earlier: list[dict[str, float]],
        records: dict[str, str],
        tensorboard: bool,
        *watched,
        **options,
    ):
        super().__init__(*watched, folder=run / "strips", **options)
        self.run = run
        self.earlier = earlier
        self.records = records
        self.writer = summary_writer() if tensorboard else None
        self.board = None

    def begin(self, step: int) -> None:
        super().begin(step)
        for name, text in self.records.items():
            (self.run / name).write_text(text, encoding="utf-8")
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
        table = pd.DataFrame(rows, index=range(1, len(rows) + 1))
        table.to_csv(self.run / "losses.csv", index_label="step")


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
    """What a run was made with: the command, and what `ctmri report` says."""
    return f"command: {' '.join(sys.argv)}\n{report_text()}"


def check_memory(settings: Settings, device: torch.device) -> None:
    """Refuse networks that need more memory than there is: the system would end the process.

    Weights count, and of those trained their gradient and Adam's two means; 4 bytes each. Where the
    system does not tell its memory (Windows), nothing is refused.

    Raises:
        ValueError: in one sentence.
    """
    # On the meta device weights have shapes and no numbers.
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
            f"the networks and their optimizers need {needed / 1e9:.0f} GB of memory but there are "
            f"{memory / 1e9:.0f}: choose a smaller ngf, ndf or n_blocks"
        )


def check_unit(settings: Settings, scans: UnpairedScans) -> None:
    """Raise ValueError where the mask loss, which counts in HU, meets pictures in grey levels."""
    if settings.mask and scans.ct_scale.unit != HU.unit:
        raise ValueError(
            f"mask={settings.mask:g} needs CT in HU, but the CT of this set is in "
            f"{scans.ct_scale.unit}s: leave it out"
        )


def train(
    path: Path | None = None,
    output: Path | None = None,
    tensorboard: bool = False,
    changes: dict | None = None,
) -> Path:
    """Train as a settings file says, print the run's folder and return it.

    A folder that holds an unfinished run is resumed. It gets settings.toml (all of them: itself a
    settings file), data.txt (what was done to the data), environment.txt, checkpoint.pt,
    losses.csv, strips/ and, with `tensorboard`, its events.

    Args:
        path: the settings file, or None for the defaults.
        output: the run's folder; default build/runs/DATASET-PROFILE-SEED, where the lessons look.
        tensorboard: also write for TensorBoard.
        changes: settings by name that replace the file's.

    Raises:
        ValueError, OSError or FloatingPointError: in one sentence.
    """
    run, settings = read_settings(path, changes or {})
    name = run_name(run["dataset"])
    folder = Path(output or run_folder(name, run["profile"], run["seed"]))
    steps = settings.training_steps(name)

    # What may be refused comes before what takes time.
    check_writable(folder)
    engine = several_processes()
    model = build_model(settings, run["seed"], engine)
    start = load_start(run, model, folder) if run["start"] else None
    scans = load_scans(run["dataset"], settings, run["seed"])
    check_unit(settings, scans)
    description = scans.describe()
    fitting = settings_for_scans(settings, scans)
    if fitting != settings:
        description += f"\nCT is in {scans.ct_scale.unit}s: the networks see it without a CT map"
        settings = fitting
        model = build_model(settings, run["seed"], engine)
        start = load_start(run, model, folder) if run["start"] else None
    model.contract = contract_for(scans, settings, run["seed"], steps, run["start"])

    # One of several processes writes the folder and the screen.
    log = None
    if engine is None or engine.is_main_process:
        print(description)
        if start:
            print(start.summary)
        records = {
            "settings.toml": to_toml(run | asdict(settings) | {"steps": steps}),
            "data.txt": f"{description}\n",
        }
        log = start_log(folder, records, tensorboard, model, scans, steps)
    try:
        losses = fit(
            model,
            scans.train,
            settings.training,
            steps=steps,
            seed=run["seed"],
            checkpoint=folder / "checkpoint.pt",
            on_step=log,
            start=start.digest if start else None,
        )
    finally:
        # The bar's line ends before an error's begins.
        if log:
            log.bar.close()
    if log:
        finish(log, losses, folder, steps)
    return folder


def run_name(dataset: str) -> str:
    """What a run on this data set is called: the set's name, or that of its folder."""
    return dataset if dataset in NAMED else Path(dataset).resolve().name


def build_model(settings: Settings, seed: int, engine) -> CycleGAN:
    """The untrained model, on the device that it is trained on; `engine` of `several_processes`."""
    device = set_up(seed)
    if engine:
        device = engine.device
    check_memory(settings, device)
    torch.manual_seed(seed)
    return CycleGAN(settings.architecture, settings.objective).to(device)


def finish(log: RunLog, losses: list[dict[str, float]], folder: Path, steps: int) -> None:
    trained = bool(log.history)
    log.finish(losses)
    if trained:
        print(f"Run in {folder}")
    else:
        print(f"{folder} is already trained to its {steps} steps")


def load_start(run: dict, model: CycleGAN, folder: Path) -> Start:
    """Load what a run starts from, whose full path then stands in `run`.

    Raises:
        ValueError, OSError: in one sentence.
    """
    path = locate(run["start"]).resolve()
    if path == (folder / "checkpoint.pt").resolve():
        raise ValueError(
            f"start = {run['start']!r} is the run in {folder} itself: leave start out to resume "
            "it, or give another folder with --output for a new run"
        )
    run["start"] = str(path)
    return start_from(model, path)


def start_log(
    folder: Path,
    records: dict[str, str],
    tensorboard: bool,
    model: CycleGAN,
    scans: UnpairedScans,
    steps: int,
) -> RunLog:
    checkpoint = folder / "checkpoint.pt"
    earlier = load_checkpoint(checkpoint)["losses"] if checkpoint.exists() else []
    watched = [evenly_chosen(images, WATCHED) for images in (scans.test.ct, scans.test.mri)]
    every = max(1, steps // 20)
    return RunLog(folder, earlier, records, tensorboard, model, *watched, steps=steps, every=every)

"""`ctmri train`: a training run from a settings file, in a folder that describes it."""

from __future__ import annotations

import io
import math
import os
import sys
from contextlib import nullcontext
from dataclasses import asdict, replace
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
from ..machine import import_optional, run_folder, several_processes
from ..scans.datasets import load_scans
from ..scans.unpaired import UnpairedScans
from ..seeds import set_up
from ..settings import DATASETS, Run, Settings, read_settings, to_toml
from ..viewers.figures import evenly_chosen
from ..viewers.progress import Progress
from .contract import contract_for, settings_for_scans
from .recognise import locate
from .start import Start, start_from

# Slices of each modality that the strips show.
WATCHED = 4


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
    run, requested = read_settings(path, changes or {})
    requested = replace(requested, steps=requested.training_steps(run.dataset))
    folder = Path(output or run_folder(run_name(run.dataset), run.profile, run.seed))
    checkpoint = folder / "checkpoint.pt"

    check_writable(folder)
    run = with_full_start(run, checkpoint)
    engine = several_processes()
    settings, model, start, scans = prepare(run, requested, engine)
    model.contract = contract_for(scans, settings, run.seed, settings.steps, run.start)

    # One of several processes writes the folder and the screen.
    log = None
    if engine is None or engine.is_main_process:
        about = scans.describe()
        if settings != requested:
            about += f"\nCT is in {scans.ct_scale.unit}s: the networks see it without a CT map"
        print(about)
        if start:
            print(start.summary)

        settings_file = to_toml(asdict(run) | asdict(settings))
        records = {"settings.toml": settings_file, "data.txt": f"{about}\n"}
        log = RunLog(folder, model, scans, settings.steps, records, tensorboard)

    with log or nullcontext():
        losses = fit(
            model,
            scans.train,
            settings.training,
            seed=run.seed,
            checkpoint=checkpoint,
            on_step=log,
            start=start.digest if start else None,
        )
    if log:
        log.finish(losses)
    return folder


def prepare(
    run: Run, settings: Settings, engine
) -> tuple[Settings, CycleGAN, Start | None, UnpairedScans]:
    """The settings that fit the scans, a model, what it starts from if anything, and the scans.

    Args:
        run: says data set, seed, and the path of the weights to start from.
        settings: as they were asked for.
        engine: what `several_processes` returned.
    """
    # What may be refused comes before the scans, which take time.
    model, start = new_model(run, settings, engine)
    scans = load_scans(run.dataset, settings, run.seed)
    fitting = settings_for_scans(settings, scans)
    if fitting != settings:
        model, start = new_model(run, fitting, engine)
    return fitting, model, start, scans


def run_name(dataset: str) -> str:
    """What a run on this data set is called: the set's name, or that of its folder."""
    return dataset if dataset in DATASETS else Path(dataset).resolve().name


def with_full_start(run: Run, checkpoint: Path) -> Run:
    """The run with the full path of the file whose weights it starts from, if it does.

    Raises:
        ValueError: that is the run's own checkpoint.
        FileNotFoundError: there is no such file.
    """
    if not run.start:
        return run
    path = locate(run.start).resolve()
    if path == checkpoint.resolve():
        raise ValueError(
            f"start = {run.start!r} is the run in {checkpoint.parent} itself: leave start out to "
            "resume it, or give another folder with --output for a new run"
        )
    return replace(run, start=str(path))


def new_model(run: Run, settings: Settings, engine) -> tuple[CycleGAN, Start | None]:
    """The model on the device that it is trained on, and what it starts from, if anything."""
    device = set_up(run.seed)
    if engine:
        device = engine.device
    check_memory(settings, device)
    torch.manual_seed(run.seed)
    model = CycleGAN(settings.architecture, settings.objective).to(device)
    return model, start_from(model, run.start) if run.start else None


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


class RunLog(Progress):
    """`Progress` on the command line, which also writes the run's folder.

    Nothing is written before the first step, since `fit` may refuse.

    Args:
        folder: of the run.
        model: which is trained.
        scans: whose first test slices the strips show.
        steps: of the whole run.
        records: texts that describe the run, by the name of their file.
        tensorboard: also write losses and strips for TensorBoard.

    Raises:
        ModuleNotFoundError: tensorboard is missing.
    """

    def __init__(
        self,
        folder: Path,
        model: CycleGAN,
        scans: UnpairedScans,
        steps: int,
        records: dict[str, str],
        tensorboard: bool,
    ):
        ct, mri = (evenly_chosen(images, WATCHED) for images in (scans.test.ct, scans.test.mri))
        every = max(1, steps // 20)
        super().__init__(model, ct, mri, steps=steps, every=every, folder=folder / "strips")
        self.run = folder
        self.records = records
        self.tensorboard = tensorboard
        self.board = None
        if tensorboard:
            import_optional("tensorboard", "train")

        # The losses of the steps before this call.
        checkpoint = folder / "checkpoint.pt"
        self.earlier = load_checkpoint(checkpoint)["losses"] if checkpoint.exists() else []

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_) -> None:
        # The bar's line ends before an error's begins.
        self.bar.close()

    def begin(self, step: int) -> None:
        super().begin(step)
        for name, text in self.records.items():
            (self.run / name).write_text(text, encoding="utf-8")
        with (self.run / "environment.txt").open("a", encoding="utf-8") as file:
            file.write(environment())
        if self.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(self.run), purge_step=step)

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

    def finish(self, losses: list[dict[str, float]]) -> None:
        trained = bool(self.history)
        super().finish(losses)
        if trained:
            print(f"Run in {self.run}")
        else:
            print(f"{self.run} is already trained to its {self.steps} steps")

    def write_losses(self, step: int) -> None:
        """Write losses.csv, a row for each step of the whole run."""
        rows = self.history
        if len(rows) < step:
            rows = self.earlier + rows
        table = pd.DataFrame(rows, index=range(1, len(rows) + 1))
        table.to_csv(self.run / "losses.csv", index_label="step")


def environment() -> str:
    """What a run was made with: the command, and what `ctmri report` says."""
    return f"command: {' '.join(sys.argv)}\n{report_text()}"

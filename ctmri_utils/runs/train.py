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
from ..machine import import_optional, start_accelerator, training_device
from ..options import to_toml
from ..scans.datasets import load_scans
from ..scans.unpaired import UnpairedScans
from ..seeds import set_up
from ..settings import DATASETS, Run, Settings, read_settings
from ..viewers.figures import evenly_chosen
from ..viewers.progress import Progress
from .contract import contract_for, settings_for_scans
from .locations import CHECKPOINT, locate, run_folder
from .start import start_from

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
    check_writable(folder)
    run = with_full_start(run, folder)

    accelerator = start_accelerator()
    device = accelerator.device if accelerator else training_device()
    set_up(run.seed)

    # What may be refused comes before the scans, which take time.
    check_memory(requested, device)
    scans = load_scans(run.dataset, requested, run.seed)
    settings = settings_for_scans(requested, scans)
    model = new_model(run, settings, scans).to(device)
    start = start_from(model, run.start) if run.start else None

    # One of several processes writes the folder and the screen.
    log = None
    if accelerator is None or accelerator.is_main_process:
        records = describe_run(run, scans, settings, requested)
        print(records["data.txt"], end="")
        if start:
            print(start.summary)
        log = RunLog(folder, model, scans, settings.steps, records, tensorboard)

    with log or nullcontext():
        losses = fit(
            model,
            scans.train,
            settings.training,
            seed=run.seed,
            checkpoint=folder / CHECKPOINT,
            on_step=log,
            start=start.digest if start else None,
        )
    if log:
        log.finish(losses)
    return folder


def run_name(dataset: str) -> str:
    """What a run on this data set is called: the set's name, or that of its folder."""
    return dataset if dataset in DATASETS else Path(dataset).resolve().name


def with_full_start(run: Run, folder: Path) -> Run:
    """The run with the full path of the file whose weights it starts from, if it does.

    Args:
        run: profile, data set, seed and start, by which it is called.
        folder: where it is written.

    Raises:
        ValueError: that file is the run's own checkpoint.
        FileNotFoundError: there is no such file.
    """
    if not run.start:
        return run
    path = locate(run.start).resolve()
    if path == (folder / CHECKPOINT).resolve():
        raise ValueError(
            f"start = {run.start!r} is the run in {folder} itself: leave start out to "
            "resume it, or give another folder with --output for a new run"
        )
    return replace(run, start=str(path))


def new_model(run: Run, settings: Settings, scans: UnpairedScans) -> CycleGAN:
    """The untrained model of a run, with its contract."""
    torch.manual_seed(run.seed)
    model = CycleGAN(settings.architecture, settings.objective)
    model.contract = contract_for(scans, settings, run.seed, settings.steps, run.start)
    return model


def describe_run(
    run: Run, scans: UnpairedScans, settings: Settings, requested: Settings
) -> dict[str, str]:
    """The texts that describe a run, by the name of their file: its settings and its data."""
    data = f"{scans.describe()}\n"
    if settings != requested:
        data += f"CT is in {scans.ct_scale.unit}s: the networks see it without a CT map\n"
    return {"settings.toml": to_toml(asdict(run) | asdict(settings)), "data.txt": data}


def check_memory(settings: Settings, device: torch.device) -> None:
    """Refuse networks that need more memory than there is: the system would end the process.

    Each weight takes 4 bytes; one that is trained also has a gradient and Adam's two means. Where
    the system does not tell its memory (Windows), nothing is refused.

    Raises:
        ValueError: in one sentence.
    """
    # On the meta device weights have shapes and no numbers.
    with torch.device("meta"):
        model = CycleGAN(settings.architecture, settings.objective)

    needed = 0
    for weight in model.parameters():
        copies = 4 if weight.requires_grad else 1
        needed += 4 * copies * weight.numel()

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

        # A resumed run keeps the losses of the steps before this call.
        checkpoint = folder / CHECKPOINT
        self.earlier = load_checkpoint(checkpoint)["losses"] if checkpoint.exists() else []

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_) -> None:
        # An error must not be printed on the line of the progress bar.
        self.bar.close()

    def begin(self, step: int) -> None:
        """Also write the records and the environment, and open TensorBoard's log."""
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
        """Also write losses.csv, and give TensorBoard the strip."""
        strip = super().refresh(step)
        self.write_losses(step)
        if self.board:
            picture = np.asarray(Image.open(io.BytesIO(strip)).convert("RGB"))
            self.board.add_image("strip", picture, step, dataformats="HWC")
            self.board.flush()
        return strip

    def finish(self, losses: list[dict[str, float]]) -> None:
        """Also print where the run is, or that there was nothing left to train."""
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

"""`python -m ctmri_utils train`.

A training from a settings file, with a run folder that says how it was made.
"""

from __future__ import annotations

import csv
import math
import os
import platform
import subprocess
import sys
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import torch

from ..cyclegan.model import CycleGAN
from ..cyclegan.resume import load_checkpoint
from ..cyclegan.training import fit, several_processes
from ..files import check_writable
from ..machine import CHECKOUT, report, run_folder, set_up
from ..scans.datasets import NAMED, UnpairedScans, load_scans
from ..settings import Architecture, Objective, Settings, literal, read_settings, to_toml
from ..units import HU
from ..viewers.progress import Progress

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-image", "pillow", "safetensors")


class RunLog(Progress):
    """`Progress` on the command line.

    The losses go to losses.csv, and with `tensorboard` there too, with the strips.

    earlier: the losses up to here; told: the settings. Nothing is written before the first step,
    for `fit` may refuse.
    """

    def __init__(
        self,
        run: Path,
        earlier: list[dict[str, float]],
        told: dict,
        tensorboard: bool,
        *watched,
        **options,
    ):
        super().__init__(*watched, folder=run / "strips", **options)
        self.run, self.earlier, self.told, self.writer, self.board = run, earlier, told, None, None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ModuleNotFoundError as error:
                raise ModuleNotFoundError(
                    "--tensorboard needs tensorboard: pip install 'ctmri-utils[train]'"
                ) from error
            self.writer = SummaryWriter

    def begin(self, step: int) -> None:
        super().begin(step)
        (self.run / "settings.toml").write_text(to_toml(self.told), encoding="utf-8")
        with (self.run / "environment.txt").open("a", encoding="utf-8") as file:
            file.write(environment())
        self.board = self.writer and self.writer(str(self.run), purge_step=step)

    def __call__(self, step: int, losses: dict[str, float]) -> None:
        super().__call__(step, losses)
        if self.board:
            for name, loss in losses.items():
                self.board.add_scalar(f"losses/{name}", loss, step)

    def refresh(self, step: int) -> bytes:
        strip = super().refresh(step)
        rows = self.history if len(self.history) == step else self.earlier + self.history
        with (self.run / "losses.csv").open("w", newline="", encoding="utf-8") as lines:
            table = csv.DictWriter(lines, ["step", *rows[0]])
            table.writeheader()
            table.writerows({"step": number} | row for number, row in enumerate(rows, 1))
        if self.board:
            import io

            import numpy as np
            from PIL import Image

            self.board.add_image(
                "strip",
                np.asarray(Image.open(io.BytesIO(strip)).convert("RGB")),
                step,
                dataformats="HWC",
            )
            self.board.flush()
        return strip


def environment() -> str:
    """What a run was made with: command, machine, versions, and the revision of the code."""
    lines = [
        f"command: {' '.join(sys.argv)}",
        f"machine: {report()}",
        f"processor: {platform.processor() or platform.machine()}",
    ]
    lines += [f"{name}: {version(name)}" for name in PACKAGES]
    if CHECKOUT:

        def git(*words):
            try:
                return subprocess.run(
                    ["git", "-C", str(CHECKOUT), *words],
                    capture_output=True,
                    text=True,
                    check=False,
                ).stdout.strip()
            except OSError:
                # no git on this machine
                return ""

        revision = git("rev-parse", "HEAD") or "unknown"
        changed = " with changes" if git("status", "--porcelain") else ""
        lines.append(f"git revision: {revision}{changed}")
    return "\n".join(lines) + "\n"


def check_memory(settings: Settings, device: torch.device) -> None:
    """Raise ValueError, in one sentence, if the networks alone need more memory than there is.

    The system would end it without a word.

    Counted are weights and, of those trained, their gradient and Adam's two means; 4 bytes each.
    Where the system does not tell its memory (Windows), nothing is refused.
    """
    # shapes without numbers
    with torch.device("meta"):
        weights = list(CycleGAN(settings.pick(Architecture), settings.pick(Objective)).parameters())
    needed = 4 * sum(weight.numel() * (4 if weight.requires_grad else 1) for weight in weights)
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device).total_memory
    else:
        there = (
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            if hasattr(os, "sysconf")
            else math.inf
        )
    if needed > there:
        raise ValueError(
            f"the networks and their optimizers need {needed / 1e9:.0f} GB of memory and there are "
            f"{there / 1e9:.0f}: choose a smaller ngf, ndf or n_blocks"
        )


def train(
    path: Path | None = None,
    output: Path | None = None,
    tensorboard: bool = False,
    changes: dict | None = None,
) -> Path:
    """Train as a settings file says, print the run folder and return it.

    One that holds an unfinished run is resumed.

    output: default build/runs/DATASET-PROFILE-SEED, where the lessons look. It gets settings.toml
    (all of them: itself a settings file), environment.txt, checkpoint.pt, losses.csv, strips/ and,
    with `tensorboard`, its events. Raises ValueError, OSError or FloatingPointError, in one
    sentence.
    """
    what, settings = read_settings(path, changes or {})
    name = what["dataset"] if what["dataset"] in NAMED else Path(what["dataset"]).resolve().name
    run = Path(output or run_folder(name, what["profile"], what["seed"]))
    # before the work
    check_writable(run)
    device, first = set_up(what["seed"]), True
    if engine := several_processes():
        device, first = engine.device, engine.is_main_process
    check_memory(settings, device)
    torch.manual_seed(what["seed"])
    model = CycleGAN(settings.pick(Architecture), settings.pick(Objective)).to(device)
    scans = load_scans(what["dataset"], settings, what["seed"])
    needs_hu(settings, scans)
    checkpoint, steps = run / "checkpoint.pt", settings.training_steps(name)
    log = None
    if first:
        earlier = load_checkpoint(checkpoint)["losses"] if checkpoint.exists() else []
        watched = (
            scans.test.ct[:: max(1, len(scans.test.ct) // 4)][:4],
            scans.test.mri[:: max(1, len(scans.test.mri) // 4)][:4],
        )
        told = (
            what
            | {spec.name: getattr(settings, spec.name) for spec in fields(Settings)}
            | {"steps": steps}
        )
        log = RunLog(
            run, earlier, told, tensorboard, model, *watched, steps=steps, every=max(1, steps // 20)
        )
    try:
        losses = fit(
            model,
            scans.train.ct,
            scans.train.mri,
            seed=what["seed"],
            checkpoint=checkpoint,
            **scans.train.for_fit(),
            **settings.training(steps),
            **({"on_step": log} if log else {}),
        )
    finally:
        if log:
            # ends its line, before an error's
            log.bar.close()
    if log:
        trained = bool(log.history)
        log.finish(losses)
        print(f"Run in {run}" if trained else f"{run} is already trained to its {steps} steps")
    return run


def needs_hu(settings: Settings, scans: UnpairedScans) -> None:
    """Raise ValueError where a setting that counts in HU meets pictures in grey levels."""
    asked = [f"mask={settings.mask:g}"] * bool(settings.mask) + [f"ct_map={settings.ct_map!r}"] * (
        settings.ct_map != "linear"
    )
    if asked and scans.ct_scale.unit != HU.unit:
        raise ValueError(
            f"{asked[0]} counts in HU, and the CT of this set is in {scans.ct_scale.unit}s: leave "
            "it out"
        )


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
    train(
        options.settings,
        options.output,
        options.tensorboard,
        {name: literal(value) for name, value in options.parameter},
    )

"""`python -m ctmri_utils train`: a training from a settings file, with a run folder that says how it was made."""
from __future__ import annotations

import csv
import platform
import subprocess
import sys
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import torch

from .checkpoints import load_checkpoint
from .options import Architecture, Objective, Settings, literal, to_toml
from .progress import Progress
from .scans import NAMED, UnpairedScans, load_scans
from .settings import CHECKOUT, read_settings, report, run_folder, set_up
from .training import fit, several_processes
from .translators import CycleGAN
from .units import HU

PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-image", "pillow", "safetensors")


class RunLog(Progress):
    """`Progress` on the command line: the losses go to losses.csv, and with `tensorboard` there too, with the strips."""

    def __init__(self, run: Path, earlier: list[dict[str, float]], tensorboard: bool, *watched, **options):
        super().__init__(*watched, folder=run / "strips", **options)
        self.file, self.earlier, self.board = run / "losses.csv", earlier, None
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ModuleNotFoundError as error:
                raise ModuleNotFoundError("--tensorboard needs tensorboard: pip install 'ctmri-utils[train]'") from error
            self.board = SummaryWriter(str(run), purge_step=len(earlier) + 1)

    def __call__(self, step: int, losses: dict[str, float]) -> None:
        super().__call__(step, losses)
        if self.board:
            for name, loss in losses.items():
                self.board.add_scalar(f"losses/{name}", loss, step)

    def refresh(self, step: int) -> bytes:
        strip = super().refresh(step)
        rows = self.history if len(self.history) == step else self.earlier + self.history
        with self.file.open("w", newline="", encoding="utf-8") as lines:
            table = csv.DictWriter(lines, ["step", *rows[0]])
            table.writeheader()
            table.writerows({"step": number} | row for number, row in enumerate(rows, 1))
        if self.board:
            import io

            import numpy as np
            from PIL import Image

            self.board.add_image("strip", np.asarray(Image.open(io.BytesIO(strip)).convert("RGB")), step, dataformats="HWC")
            self.board.flush()
        return strip


def environment() -> str:
    """What a run was made with: command, machine, versions, and the revision of the code."""
    lines = [f"command: {' '.join(sys.argv)}", f"machine: {report()}", f"processor: {platform.processor() or platform.machine()}"]
    lines += [f"{name}: {version(name)}" for name in PACKAGES]
    if CHECKOUT:
        def git(*words):
            try:
                return subprocess.run(["git", "-C", str(CHECKOUT), *words], capture_output=True, text=True, check=False).stdout.strip()
            except OSError:                                      # no git on this machine
                return ""

        lines.append(f"git revision: {git('rev-parse', 'HEAD') or 'unknown'}{' with changes' if git('status', '--porcelain') else ''}")
    return "\n".join(lines) + "\n"


def train(path: Path | None = None, output: Path | None = None, tensorboard: bool = False, changes: dict | None = None) -> Path:
    """Train as a settings file says, print the run folder and return it; one that holds an unfinished run is resumed.

    output: default build/runs/DATASET-PROFILE-SEED, where the lessons look. It gets settings.toml (all of them: itself a settings file),
    environment.txt, checkpoint.pt, losses.csv, strips/ and, with `tensorboard`, its events. Raises ValueError, OSError or
    FloatingPointError, in one sentence.
    """
    what, settings = read_settings(path, changes or {})
    device, first = set_up(what["seed"]), True
    if engine := several_processes():
        device, first = engine.device, engine.is_main_process
    torch.manual_seed(what["seed"])
    model = CycleGAN(settings.pick(Architecture), settings.pick(Objective)).to(device)
    scans = load_scans(what["dataset"], settings, what["seed"])
    name = what["dataset"] if what["dataset"] in NAMED else Path(what["dataset"]).resolve().name
    needs_hu(settings, scans)
    run = Path(output or run_folder(name, what["profile"], what["seed"]))
    checkpoint, steps = run / "checkpoint.pt", settings.training_steps(name)
    log = None
    if first:
        earlier = load_checkpoint(checkpoint)["losses"] if checkpoint.exists() else []
        if len(earlier) == steps:
            print(f"{run} is already trained to its {steps} steps")
        watched = (scans.test.ct[::max(1, len(scans.test.ct) // 4)][:4], scans.test.mri[::max(1, len(scans.test.mri) // 4)][:4])
        try:
            run.mkdir(parents=True, exist_ok=True)
            if not checkpoint.exists():                          # else `fit` looks whether it is the same run
                told = what | {spec.name: getattr(settings, spec.name) for spec in fields(Settings)} | {"steps": steps}
                (run / "settings.toml").write_text(to_toml(told), encoding="utf-8")
            with (run / "environment.txt").open("a", encoding="utf-8") as file:
                file.write(environment())
        except OSError as error:
            raise OSError(f"{run} cannot be written to ({error.strerror}): choose another folder with --output") from error
        log = RunLog(run, earlier, tensorboard, model, *watched, steps=steps, every=max(1, steps // 20))
    try:
        losses = fit(model, scans.train.ct, scans.train.mri, seed=what["seed"], checkpoint=checkpoint,
                     **scans.train.for_fit(), **settings.training(steps),
                     **({"on_step": log} if log else {}))
    finally:
        if log:
            log.bar.close()                                      # ends its line, before an error's
    if log:
        log.finish(losses)
        print(f"Run in {run}")
    return run


def needs_hu(settings: Settings, scans: UnpairedScans) -> None:
    """Raise ValueError where a setting that counts in HU meets pictures in grey levels."""
    asked = [f"mask={settings.mask:g}"] * bool(settings.mask) + [f"ct_map={settings.ct_map!r}"] * (settings.ct_map != "linear")
    if asked and scans.ct_scale.unit != HU.unit:
        raise ValueError(f"{asked[0]} counts in HU, and the CT of this set is in {scans.ct_scale.unit}s: leave it out")


def add_command(commands) -> None:
    """Add `train` to the sub-commands of `python -m ctmri_utils`."""
    parser = commands.add_parser("train", help="train a CycleGAN as a settings file says, or go on with such a training",
                                 description="On several GPUs or machines: accelerate launch -m ctmri_utils train ...; "
                                             "on several CPU processes: torchrun --nproc-per-node 2 -m ctmri_utils train ...")
    parser.add_argument("settings", nargs="?", type=Path, help="a TOML file, such as a run's settings.toml; any setting may be left out")
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                        help="a setting that replaces the file's, such as -p dataset scans -p steps 500 -p gan_mode hinge")
    parser.add_argument("--output", type=Path, help="the run folder (default: build/runs/DATASET-PROFILE-SEED)")
    parser.add_argument("--tensorboard", action="store_true", help="also write losses and strips for TensorBoard")
    parser.set_defaults(run=command)


def command(options) -> None:
    """`python -m ctmri_utils train`."""
    train(options.settings, options.output, options.tensorboard, {name: literal(value) for name, value in options.parameter})

"""The commands check, train, study, export and page; what they run is imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from ..command_line import Parameters, Profile, Switch, WholeNumber, default_is, optional
from ..settings import read_settings
from .setting_flags import (
    ArchitectureFlags,
    ObjectiveFlags,
    RunFlags,
    SizeFlags,
    TrainingFlags,
    read_words,
)


def check(folder: Positional[Path], /, *, strict: Switch = False) -> int:
    """Report what could spoil training on a folder of slices.

    Draws the first slice of each problem, in check-NAME.png in the build folder.

    Args:
        folder: a folder with trainA, trainB, testA and testB in it, at any depth.
        strict: exit with status 1 if any problem was found.
    """
    from .check import print_check

    has_problems = print_check(folder)
    return int(strict and has_problems)


def train(
    settings: Annotated[Positional[Path | None], optional()] = None,
    /,
    *,
    output: Annotated[Path | None, default_is("build/runs/DATASET-PROFILE-SEED", "FOLDER")] = None,
    tensorboard: Switch = False,
    parameter: Parameters = (),
    run: OmitArgPrefixes[RunFlags],
    architecture: OmitArgPrefixes[ArchitectureFlags],
    objective: OmitArgPrefixes[ObjectiveFlags],
    training: OmitArgPrefixes[TrainingFlags],
    sizes: Annotated[OmitArgPrefixes[SizeFlags], arg(name="size")],
) -> None:
    """Train a CycleGAN, or resume an unfinished training run.

    For example: ctmri train --dataset atlas --steps 2000 --gan-mode hinge

    What wins: flags, then -p, the settings file, the preset, the profile.

    Defaults are those of the profile laptop, and of ci and gpu where they differ.

    On several GPUs: accelerate launch -m ctmri_utils train ...

    On several CPUs: torchrun --nproc-per-node 2 -m ctmri_utils train ...

    Args:
        settings: a TOML file, such as a run's settings.toml; any setting may be left out.
        output: the folder of the run.
        tensorboard: also write losses and sample translations for TensorBoard.
        parameter: a setting by name, such as -p steps 500; the flags below do the same.
    """
    words = dict(parameter) | run | architecture | objective | training | sizes
    changes = read_words(words)

    # A wrong setting is refused before torch is imported, which takes seconds.
    read_settings(settings, changes)
    from .train import train as train_run

    train_run(settings, output=output, tensorboard=tensorboard, changes=changes)


def study(
    name: Positional[str],
    /,
    *,
    rows: Annotated[tuple[str, ...], default_is("all", "NAME ...")] = (),
    seeds: Annotated[tuple[int, ...], arg(metavar="N ...")] = (1, 2, 3),
    processes: WholeNumber = 1,
    profile: Profile = "laptop",
    parameter: Parameters = (),
    output: Annotated[Path | None, default_is("build/studies/NAME-PROFILE", "FOLDER")] = None,
) -> None:
    """Train and measure the rows of a study, or resume one.

    Lessons 06 and 07 read the results.

    Args:
        name: a study in studies.toml: failures, pairs, polarity, recipe or remedies.
        rows: run only these rows.
        seeds: one training run per row and seed.
        processes: training runs at a time; each uses one core.
        profile: sizes for this kind of machine.
        parameter: a setting for all rows.
        output: the folder of the results.
    """
    from ..machine import build_folder
    from .studies import read_study
    from .study_runs import run_and_report

    chosen = read_study(name, profile, read_words(dict(parameter)), only=rows)
    part = "-part" if rows else ""
    folder = output or build_folder() / "studies" / f"{name}-{profile}{part}"
    run_and_report(name, profile, chosen, seeds, folder, processes)


def export(
    weights: Positional[str],
    output: Positional[Path],
    /,
    *,
    to: Annotated[Literal["ct", "mri"] | None, default_is("the only one in the file")] = None,
    grey: Switch = False,
    padding: Literal["reflect", "replicate"] = "reflect",
) -> None:
    """Export a generator as .onnx, or as the reference's .pth.

    Args:
        weights: a run's folder or name, shipped weights (heads, phantom), or a file: .pt, .pth,
            .ckpt, .safetensors.
        output: the file to write; its ending, .onnx or .pth, chooses the format.
        to: which of two generators to export: the one that makes MR, or the one that makes CT.
        grey: convert a colour network of the reference to one channel in and out.
        padding: padding in the blocks of a reference network, which its weights do not record.
    """
    from .export import export as export_generator

    export_generator(weights, output, to=to, grey=grey, padding=padding)
    print(f"{output} is written. For research and teaching, not for clinical use.")


def page(
    run: Positional[str],
    /,
    *,
    dataset: Annotated[str | None, default_is("the run's", "NAME")] = None,
    output: Annotated[Path | None, default_is("page.html in the run's folder", "FILE")] = None,
) -> None:
    """Write a page of a run's test slices and their translations.

    It opens in any browser, without Python and without a network.

    Args:
        run: a run's folder, or its name in build/runs, such as scans-laptop-2026.
        dataset: the data set to compare on.
        output: the page to write.
    """
    from .page import run_page

    print(f"Open {run_page(run, dataset, output)} in a browser.")

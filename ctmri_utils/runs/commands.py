"""The commands check, train, study and export; what they run is imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from ..command_line import (
    ArchitectureFlags,
    ObjectiveFlags,
    Parameters,
    Profile,
    RunFlags,
    SizeFlags,
    Switch,
    TrainingFlags,
    WholeNumber,
    default_is,
    read_words,
)
from ..settings import read_settings


def check(folder: Positional[Path], /, *, strict: Switch = False) -> int:
    """Report what could spoil training on a folder of slices.

    The first slice of each problem is also drawn, in check-NAME.png in the build folder.

    Args:
        folder: a folder with trainA, trainB, testA and testB in it, at any depth.
        strict: exit with status 1 if any problem was found.
    """
    from .check import print_check

    found = print_check(folder)
    return int(strict and found)


def train(
    settings: Annotated[Positional[Path | None], default_is("none")] = None,
    /,
    *,
    output: Annotated[Path | None, default_is("build/runs/DATASET-PROFILE-SEED", "FOLDER")] = None,
    tensorboard: Switch = False,
    parameter: Parameters = (),
    run: OmitArgPrefixes[RunFlags],
    architecture: OmitArgPrefixes[ArchitectureFlags],
    objective: OmitArgPrefixes[ObjectiveFlags],
    training: OmitArgPrefixes[TrainingFlags],
    sizes: OmitArgPrefixes[SizeFlags],
) -> None:
    """Train a CycleGAN, or resume an unfinished training run.

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

    train_run(settings, output, tensorboard, changes)


def study(
    name: Positional[str],
    /,
    *,
    rows: Annotated[tuple[str, ...], default_is("all", "NAME ...")] = (),
    seeds: Annotated[tuple[int, ...], default_is("1 2 3", "N ...")] = (1, 2, 3),
    processes: WholeNumber = 1,
    profile: Profile = "laptop",
    parameter: Parameters = (),
    output: Annotated[Path | None, default_is("build/studies/NAME-PROFILE", "FOLDER")] = None,
) -> None:
    """Train and measure the rows of a study (lessons 06 and 07), or resume one.

    Args:
        name: a study in studies.toml: failures, pairs, polarity, recipe or remedies.
        rows: run only these rows.
        seeds: one training run per row and seed.
        processes: training runs at a time; each uses one core.
        profile: sizes for this kind of machine.
        parameter: a setting for all rows.
        output: the folder of the results.
    """
    from .studies import print_study

    print_study(name, profile, read_words(dict(parameter)), rows, seeds, processes, output)


def export(
    source: Annotated[Positional[str], arg(metavar="RUN_OR_CHECKPOINT")],
    output: Positional[Path],
    /,
    *,
    to: Annotated[Literal["mri", "ct"] | None, default_is("the only one in the file")] = None,
    grey: Switch = False,
    padding: Literal["reflect", "replicate"] = "reflect",
) -> None:
    """Export a generator for other programs, as a .pth of the reference implementation or as .onnx.

    Args:
        source: a run's folder or name, or a file of weights: .pt, .pth, .ckpt, .safetensors.
        output: the file to write; its ending, .pth or .onnx, chooses the format.
        to: which of two generators to export: the one that makes MR, or the one that makes CT.
        grey: convert a colour network of the reference to one channel in and out.
        padding: padding in the blocks of a reference network, which its weights do not record.
    """
    from .export import export as export_generator

    export_generator(source, output, to, grey, padding)
    print(f"{output} is written. For research and teaching, not for clinical use.")

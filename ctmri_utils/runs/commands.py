"""The commands check, train, study and export; what they run is imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg

from ..command_line import (
    ArchitectureFlags,
    ObjectiveFlags,
    Parameters,
    RunFlags,
    SizeFlags,
    TrainingFlags,
    default_is,
)
from ..settings import read_settings, read_words


def check(folder: Positional[Path], /, *, strict: bool = False) -> int:
    """Say what could spoil a training on a folder of slices.

    Args:
        folder: a folder with trainA, trainB, testA and testB in it, at any depth.
        strict: end with status 1 if anything was found.
    """
    from .check import print_check

    found = print_check(folder)
    return int(strict and found)


def train(
    settings: Annotated[Positional[Path | None], default_is("none")] = None,
    /,
    *,
    output: Annotated[Path | None, default_is("build/runs/DATASET-PROFILE-SEED")] = None,
    tensorboard: bool = False,
    parameter: Parameters = (),
    run: OmitArgPrefixes[RunFlags],
    architecture: OmitArgPrefixes[ArchitectureFlags],
    objective: OmitArgPrefixes[ObjectiveFlags],
    training: OmitArgPrefixes[TrainingFlags],
    sizes: OmitArgPrefixes[SizeFlags],
) -> None:
    """Train a CycleGAN, or go on with a training that is unfinished.

    Args:
        settings: a TOML file, such as a run's settings.toml; any setting may be left out.
        output: the run's folder.
        tensorboard: also write losses and strips for TensorBoard.
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
    rows: Annotated[tuple[str, ...], default_is("all")] = (),
    seeds: tuple[int, ...] = (1, 2, 3),
    processes: int = 1,
    profile: str = "laptop",
    parameter: Parameters = (),
    output: Annotated[Path | None, default_is("build/studies/NAME-PROFILE")] = None,
) -> None:
    """Train and measure the rows of a study (lessons 06 and 07), or go on with it.

    Args:
        name: a table of studies.toml: failures, pairs, polarity, recipe or remedies.
        rows: only these rows.
        seeds: of the trainings of each row.
        processes: trainings at once; each uses one core.
        profile: sizes for a kind of machine: ci, laptop or gpu.
        parameter: a setting for all rows.
        output: folder of the results.
    """
    from .studies import print_study

    print_study(name, profile, read_words(dict(parameter)), rows, seeds, processes, output)


def export(
    source: Annotated[Positional[str], arg(metavar="RUN_OR_CHECKPOINT")],
    output: Positional[Path],
    /,
    *,
    to: Annotated[Literal["mri", "ct"] | None, default_is("the only one there is")] = None,
    grey: bool = False,
    padding: Literal["reflect", "replicate"] = "reflect",
) -> None:
    """Write a generator for other programs: .pth of the reference, or .onnx.

    Args:
        source: a run's folder or name, or a file of weights: .pt, .pth, .ckpt, .safetensors.
        output: the file to write; .pth or .onnx names the format.
        to: which of a run's two generators: the one that makes MR, or CT.
        grey: make a colour network of the reference take and give one channel.
        padding: of a reference network's blocks, which its weights do not tell.
    """
    from .export import export as export_generator

    export_generator(source, output, to, grey, padding)
    print(f"{output} is written. For research and teaching, not for clinical use.")

"""What the commands share: flags for the settings, built from their fields, and `-p NAME VALUE`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import Field, fields
from typing import Annotated, TypedDict

from tyro.conf import UseAppendAction, arg

from .settings import (
    DEFAULT_RUN,
    PRESETS,
    PROFILES,
    REFERENCE_NAMES,
    Architecture,
    Objective,
    Settings,
    Training,
)

NUMBERS = {bool: "{true,false}", int: "N", float: "X", str: "TEXT"}

Parameters = Annotated[
    UseAppendAction[tuple[tuple[str, str], ...]],
    arg(aliases=["-p"], metavar="NAME VALUE", help_behavior_hint="(may be repeated)"),
]
"""`-p NAME VALUE`, as often as it is given."""


def default_is(text: str) -> object:
    """What the help says of a default that the command works out itself."""
    return arg(help_behavior_hint=f"(default: {text})")


def braces(choices: Iterable[str]) -> str:
    return "{" + ",".join(choices) + "}"


def hint(spec: Field) -> str:
    """A setting's default in the profile laptop, those of other profiles, and its limits."""
    default = getattr(PROFILES["laptop"], spec.name)
    words = f"default: {shown(default)}"
    for name, profile in PROFILES.items():
        value = getattr(profile, spec.name)
        if value != default:
            words += f", {name}: {shown(value)}"

    low, high = spec.metadata["low"], spec.metadata["high"]
    if type(spec.default) in (int, float):
        words += f"; at least {low:g}" if high == math.inf else f"; {low:g} to {high:g}"
    return f"({words})"


def shown(value: bool | int | float | str) -> str:
    """A value as it is typed."""
    if type(value) is bool:
        return str(value).lower()
    return f"{value:g}" if type(value) is float else str(value)


def setting_flags(title: str, specs: Iterable[Field]) -> type:
    """A group of flags, one for each setting, whose values are texts.

    `Settings` checks the values, so that a flag, a file and `-p` get the same errors. Flags that
    are not given are left out, so that a preset or a file may decide.
    """
    flags = {}
    for spec in specs:
        choices = spec.metadata["choices"]
        flag = arg(
            help=spec.metadata["help"],
            metavar=braces(choices) if choices else NUMBERS[type(spec.default)],
            help_behavior_hint=hint(spec),
        )
        flags[spec.name] = Annotated[str, flag]
    return TypedDict(title, flags, total=False)


PARTS = (Architecture, Objective, Training)
SIZES = [spec for spec in fields(Settings) if not any(hasattr(part, spec.name) for part in PARTS)]

ArchitectureFlags = setting_flags("ArchitectureFlags", fields(Architecture))
ObjectiveFlags = setting_flags("ObjectiveFlags", fields(Objective))
TrainingFlags = setting_flags("TrainingFlags", fields(Training))
SizeFlags = setting_flags("SizeFlags", SIZES)


def run_flag(name: str, metavar: str, help: str) -> object:
    default = DEFAULT_RUN.get(name) or "none"
    return arg(metavar=metavar, help=help, help_behavior_hint=f"(default: {default})")


class RunFlags(TypedDict, total=False):
    """Flags win over -p, then come the settings file, the preset and the profile.

    The defaults below are those of the profile laptop, with those of ci and gpu where they differ.

    On several GPUs: accelerate launch -m ctmri_utils train ...; on several CPU processes:
    torchrun --nproc-per-node 2 -m ctmri_utils train ...
    """

    profile: Annotated[str, run_flag("profile", braces(PROFILES), "sizes for a kind of machine")]
    preset: Annotated[str, run_flag("preset", braces(PRESETS), "some settings by one name")]
    dataset: Annotated[str, run_flag("dataset", "NAME", "scans, atlas, phantom or a folder")]
    start: Annotated[str, run_flag("start", "FILE", "a run or weights to start from, or a .pth")]
    seed: Annotated[str, run_flag("seed", "N", "of weights, order and synthetic patients")]


def reference_hint(words: Sequence[str]) -> str | None:
    """One sentence if a flag has the name that it has in the reference implementation."""
    for word in words:
        name = word.split("=")[0].removeprefix("--").replace("-", "_")
        if word.startswith("--") and name in REFERENCE_NAMES:
            return f"--{name} is no option here: {REFERENCE_NAMES[name]}"
    return None

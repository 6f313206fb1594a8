"""The flags of `ctmri train` that are made of the settings, and how their words are read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import Field, fields
from typing import Annotated, Any, Literal, TypedDict

from tyro.conf import arg

from ..command_line import braces, literal
from ..settings import PRESETS, PROFILES, Architecture, Objective, Run, Settings, Training

METAVARS = {bool: "{true,false}", int: "N", float: "X", str: "TEXT"}


def hint(spec: Field) -> str:
    """A setting's default in the profile laptop, those of other profiles, and its limits."""
    default = getattr(PROFILES["laptop"], spec.name, spec.default)
    if default == "":
        return ""

    text = f"default: {as_typed(default)}"
    for name, profile in PROFILES.items():
        value = getattr(profile, spec.name, default)
        if value != default:
            text += f", {name}: {as_typed(value)}"

    if type(spec.default) in (int, float):
        low, high = spec.metadata["low"], spec.metadata["high"]
        limits = f"at least {low:g}" if high == math.inf else f"{low:g} to {as_typed(high)}"
        text += f"; {limits}"
    return f"({text})"


def as_typed(value: bool | int | float | str) -> str:
    """A value as it is typed."""
    if type(value) is bool:
        return str(value).lower()
    if type(value) is float:
        return f"{value:g}"
    return str(value)


def setting_flags(specs: Iterable[Field]) -> dict[str, Any]:
    """A flag for each setting, whose value is a string.

    `Settings` checks all but the choices, so that a flag, a file and `-p` get the same errors.
    """
    flags = {}
    for spec in specs:
        choices = spec.metadata["choices"]
        flag = arg(
            help=f"{spec.metadata['help']}.",
            metavar=braces(choices) if choices else METAVARS[type(spec.default)],
            help_behavior_hint=hint(spec),
        )
        flags[spec.name] = Annotated[Literal[choices] if choices else str, flag]
    return flags


PRESET = arg(
    help="a named set of settings, on top of the profile.",
    metavar=braces(PRESETS),
    help_behavior_hint="",
)

# The fields of Settings itself, without those that it inherits.
SIZES = [spec for spec in fields(Settings) if spec.name in Settings.__annotations__]

# Groups of the help. Flags that are not given are left out, so that a preset or a file may decide.
RunFlags = TypedDict(
    "RunFlags",
    {"preset": Annotated[Literal[tuple(PRESETS)], PRESET]} | setting_flags(fields(Run)),
    total=False,
)
ArchitectureFlags = TypedDict("ArchitectureFlags", setting_flags(fields(Architecture)), total=False)
ObjectiveFlags = TypedDict("ObjectiveFlags", setting_flags(fields(Objective)), total=False)
TrainingFlags = TypedDict("TrainingFlags", setting_flags(fields(Training)), total=False)
SizeFlags = TypedDict("SizeFlags", setting_flags(SIZES), total=False)


def read_words(words: Mapping[str, str]) -> dict[str, Any]:
    """Settings from words of the command line; strings stay as they were typed."""
    specs = [*fields(Settings), *fields(Run)]
    texts = {"preset"} | {spec.name for spec in specs if type(spec.default) is str}
    return {name: word if name in texts else literal(word) for name, word in words.items()}

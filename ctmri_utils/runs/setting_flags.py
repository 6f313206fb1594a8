"""The flags of `ctmri train` that are made of the settings, and how their words are read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import Field, fields
from typing import Annotated, Any, TypedDict

from tyro.conf import arg

from ..command_line import braces, literal
from ..settings import PROFILES, Architecture, Objective, Run, Settings, Training

METAVARS = {bool: "{true,false}", int: "N", float: "X", str: "TEXT"}


def hint(spec: Field) -> str:
    """A setting's default in the profile laptop, those of other profiles, and its limits."""
    default = getattr(PROFILES["laptop"], spec.name, spec.default)
    words = f"default: {shown(default)}"
    for name, profile in PROFILES.items():
        value = getattr(profile, spec.name, default)
        if value != default:
            words += f", {name}: {shown(value)}"

    low, high = shown(spec.metadata["low"]), shown(spec.metadata["high"])
    if type(spec.default) in (int, float):
        words += f"; at least {low}" if spec.metadata["high"] == math.inf else f"; {low} to {high}"
    return f"({words})"


def shown(value: bool | int | float | str) -> str:
    """A value as it is typed."""
    if type(value) is bool:
        return str(value).lower()
    if type(value) is float:
        return f"{value:g}"
    return str(value) or "none"


def setting_flags(title: str, specs: Iterable[Field]) -> type:
    """A group of flags, one for each setting, whose values are strings.

    `Settings` checks the values, so that a flag, a file and `-p` get the same errors. Flags that
    are not given are left out, so that a preset or a file may decide.
    """
    flags = {}
    for spec in specs:
        choices = spec.metadata["choices"]
        flag = arg(
            help=spec.metadata["help"],
            metavar=braces(choices) if choices else METAVARS[type(spec.default)],
            help_behavior_hint=hint(spec),
        )
        flags[spec.name] = Annotated[str, flag]
    return TypedDict(title, flags, total=False)


# The fields of Settings itself, without those that it inherits.
SIZES = [spec for spec in fields(Settings) if spec.name in Settings.__annotations__]

RunFlags = setting_flags("RunFlags", fields(Run))
ArchitectureFlags = setting_flags("ArchitectureFlags", fields(Architecture))
ObjectiveFlags = setting_flags("ObjectiveFlags", fields(Objective))
TrainingFlags = setting_flags("TrainingFlags", fields(Training))
SizeFlags = setting_flags("SizeFlags", SIZES)


def read_words(words: Mapping[str, str]) -> dict[str, Any]:
    """Settings from words of the command line; strings stay as they were typed."""
    specs = [*fields(Settings), *fields(Run)]
    texts = {"preset"} | {spec.name for spec in specs if type(spec.default) is str}
    return {name: word if name in texts else literal(word) for name, word in words.items()}

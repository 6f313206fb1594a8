"""What the commands share: flags for the settings, built from their fields, and `-p NAME VALUE`."""

from __future__ import annotations

import ast
import inspect
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, fields
from typing import Annotated, Any, TypedDict

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


WholeNumber = Annotated[int, arg(metavar="N")]
Number = Annotated[float, arg(metavar="X")]
Profile = Annotated[str, arg(metavar="{" + ",".join(PROFILES) + "}")]
Switch = Annotated[bool, arg(help_behavior_hint="(default: off)")]
"""Kinds of flags, shown in the help as those of the settings are."""


def default_is(text: str, metavar: str | None = None) -> object:
    """What the help says of a default that the command works out itself, and of the value."""
    return arg(help_behavior_hint=f"(default: {text})", metavar=metavar)


def unwrapped(docstring: str) -> str:
    """A docstring with each argument's text on one line; tyro would keep its line breaks."""
    continuation = r"\n {8}"
    return re.sub(continuation, " ", inspect.cleandoc(docstring))


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
    """A group of flags, one for each setting, whose values are strings.

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
    """Flags override -p, then come the settings file, the preset and the profile.

    Defaults are those of the profile laptop; those of ci and gpu are given where they differ.

    On several GPUs: accelerate launch -m ctmri_utils train ...; on several CPU processes:
    torchrun --nproc-per-node 2 -m ctmri_utils train ...
    """

    profile: Annotated[str, run_flag("profile", braces(PROFILES), "sizes for this kind of machine")]
    preset: Annotated[
        str, run_flag("preset", braces(PRESETS), "a named set of settings, on top of the profile")
    ]
    dataset: Annotated[
        str,
        run_flag(
            "dataset", "NAME", "scans, phantom, atlas, heads, kaggle, or the path of a folder"
        ),
    ]
    start: Annotated[str, run_flag("start", "FILE", "a run, weights or a .pth to start from")]
    seed: Annotated[
        str,
        run_flag(
            "seed", "N", "seed of the initial weights, the order of slices, and synthetic patients"
        ),
    ]


def reference_hint(words: Sequence[str]) -> str | None:
    """One sentence if a flag has the name that it has in the reference implementation."""
    for word in words:
        name = word.split("=")[0].removeprefix("--").replace("-", "_")
        if word.startswith("--") and name in REFERENCE_NAMES:
            return f"--{name} is not an option: {REFERENCE_NAMES[name]}"
    return None


def read_words(words: Mapping[str, str]) -> dict[str, Any]:
    """Settings from words of the command line; strings stay as they were typed."""
    texts = {spec.name for spec in fields(Settings) if type(spec.default) is str}
    texts |= {"profile", "preset", "dataset", "start"}
    return {name: word if name in texts else literal(word) for name, word in words.items()}


def literal(text: str) -> Any:
    """A word of the command line as Python or TOML reads it (1, 6e-4, true, None), else as text."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text

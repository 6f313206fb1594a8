"""Options with a type, limits and a line of help, and the TOML files that hold them."""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

# What each type of option is called in an error.
KINDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a string"}

# A longer list of names is left to the page that lists all settings.
MOST_NAMES = 10
HELP_PAGE = "`ctmri train --help`"

# This finds a path such as "C:\Users\me"; TOML reads it correctly with two backslashes each.
WINDOWS_PATH = re.compile(r'^\s*\w+\s*=\s*"\w:\\(?!\\)', flags=re.MULTILINE)


def read_toml(path: Path) -> dict[str, Any]:
    """A settings file as a dict.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not TOML.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        if WINDOWS_PATH.search(text):
            raise ValueError(
                f"{path} has a path with backslashes in double quotes, which TOML reads as special "
                "characters: write it in single quotes or with forward slashes"
            )
        return tomllib.loads(text)
    except OSError as error:
        raise type(error)(
            f"{path} cannot be read ({error.strerror}): give the path of a settings file"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(
            f"{path} is not valid TOML ({error}): write lines such as learning_rate = 0.0002"
        ) from error


def to_toml(values: Mapping[str, Any]) -> str:
    """A flat mapping of strings, numbers and booleans as TOML, which `read_toml` reads back."""
    lines = (
        f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items()
    )
    return "".join(lines)


# Options of the reference implementation that are called otherwise here, with what to do.
REFERENCE_NAMES = read_toml(Path(__file__).with_name("reference_names.toml"))


def option(
    default: Any, help: str, *, choices: tuple = (), low: float = 0, high: float = math.inf
) -> Any:
    """A field that `Options` checks: one of `choices`, or a number from `low` to `high`."""
    limits = {"help": help, "choices": choices, "low": low, "high": high}
    return field(default=default, metadata=limits)


@dataclass(frozen=True)
class Options:
    """A frozen set of options, checked when it is made.

    Raises:
        ValueError: in one sentence, an unknown name, a wrong type, an unknown choice or a number
            out of range.
    """

    def __new__(cls, *_, **values: Any):
        # The dataclass's own `__init__` would raise a TypeError that suggests no name.
        known = [spec.name for spec in fields(cls)]
        for name in values:
            if name not in known:
                advice = REFERENCE_NAMES.get(name) or suggestion(name, known, HELP_PAGE)
                raise ValueError(f"{name} is not an option: {advice}")
        return super().__new__(cls)

    def __post_init__(self):
        for spec in fields(self):
            value = convert(getattr(self, spec.name), type(spec.default))
            object.__setattr__(self, spec.name, value)
            check_option(spec, value)

    def pick(self, part: type[Options]):
        """Those of these options that belong to `part`, as a `part`."""
        return part(**{spec.name: getattr(self, spec.name) for spec in fields(part)})


def suggestion(name: str, known: Iterable[str], help_page: str = "") -> str:
    """What to choose instead of an unknown name: the nearest known one, else any of them.

    Where there are more than `MOST_NAMES`, the help page lists them, if there is one.
    """
    known = list(known)
    nearest = difflib.get_close_matches(name, known, 1)
    if nearest:
        return f"did you mean {nearest[0]}?"
    if help_page and len(known) > MOST_NAMES:
        return f"see {help_page}"
    return f"choose from {', '.join(known)}"


def convert(value: Any, kind: type) -> Any:
    """A number as the kind that is needed, if that changes nothing: 5 as 5.0, and 1e3 as 1000."""
    if kind is float and type(value) is int:
        return float(value)
    if kind is int and type(value) is float and value.is_integer():
        return int(value)
    return value


def check_option(spec: Field, value: Any) -> None:
    """Raise ValueError unless the value has its default's type and keeps its limits."""
    name, kind, limits = spec.name, type(spec.default), spec.metadata
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise ValueError(f"{name}={value!r} should be {KINDS[kind]}")

    choices = limits["choices"]
    if choices and value not in choices:
        raise ValueError(f"{name}={value!r} is not known: choose one of {', '.join(choices)}")

    low, high = limits["low"], limits["high"]
    if kind in (int, float) and not low <= value <= high:
        upper = f" and at most {high:g}" if high < math.inf else ""
        raise ValueError(f"{name}={value} should be at least {low:g}{upper}")

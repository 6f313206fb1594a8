"""What the commands share: the kinds of their flags, and the check of the words that are typed."""

from __future__ import annotations

import ast
import difflib
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints, is_typeddict

from tyro.conf import UseAppendAction, arg

from .options import KINDS, REFERENCE_NAMES, suggestion
from .settings import PROFILES


def braces(choices: Iterable[str]) -> str:
    return "{" + ",".join(choices) + "}"


def default_is(text: str, metavar: str | None = None) -> object:
    """The help of a flag whose default the command works out itself, and of its value."""
    return arg(help_behavior_hint=f"(default: {text})", metavar=metavar)


def optional(metavar: str | None = None) -> object:
    """The help of a flag that may simply be left out, and of its value."""
    return arg(help_behavior_hint="", metavar=metavar)


WholeNumber = Annotated[int, arg(metavar="N")]
Number = Annotated[float, arg(metavar="X")]
Switch = Annotated[bool, optional()]
Profile = Annotated[str, arg(metavar=braces(PROFILES))]

# `-p NAME VALUE`, as often as it is given.
Pairs = tuple[tuple[str, str], ...]
Parameters = Annotated[
    UseAppendAction[Pairs],
    arg(aliases=["-p"], metavar="NAME VALUE", help_behavior_hint="(may be repeated)"),
]


def literal(text: str) -> Any:
    """A word of the command line as Python or TOML reads it (1, 6e-4, true, None), else as text."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def unwrapped(docstring: str) -> str:
    """A docstring with each argument's text on one line; tyro would keep its line breaks."""
    continuation = r"\n {8}"
    return re.sub(continuation, " ", inspect.cleandoc(docstring))


class UsageError(Exception):
    """A mistake in the words of the command line, in one sentence."""


def check_words(command: Callable, words: Sequence[str]) -> None:
    """Refuse, in one sentence, what tyro would refuse in a box of many lines.

    tyro prints its errors itself, and has no public way to word them otherwise.

    Args:
        command: its positional parameters are the arguments, its keywords the flags.
        words: of the command line, after the command.

    Raises:
        UsageError: an unknown flag, a missing or wrong value, too few or too many arguments.
    """
    types = flag_types(command)
    arguments, flags = [], set()
    for flag, following in words_by_flag(words):
        n_values = count_values(flag, following, types) if flag else 0
        arguments += following[n_values:]
        flags.add(flag)

    parameters = inspect.signature(command).parameters.values()
    positional = [p for p in parameters if p.kind is p.POSITIONAL_ONLY]
    if len(arguments) > len(positional):
        extra = arguments[len(positional)]
        raise UsageError(f"{extra} is one argument too many: leave it out")

    missing = [p.name.upper() for p in positional[len(arguments) :] if p.default is p.empty]
    for p in parameters:
        # A group of settings has no default either, but is not a flag.
        flag = flag_for(p.name)
        if p.default is p.empty and flag in types and flag not in flags:
            missing.append(flag)
    if missing:
        raise UsageError(f"{', '.join(missing)} must be given")


def flag_for(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def flag_types(command: Callable) -> dict[str, Any]:
    """The flags of a command, each with the type of its value."""
    types = {}
    hints = get_type_hints(command)
    for name, parameter in inspect.signature(command).parameters.items():
        if is_typeddict(hints[name]):
            types |= {flag_for(key): kind for key, kind in get_type_hints(hints[name]).items()}
        elif parameter.kind is parameter.KEYWORD_ONLY:
            types[flag_for(name)] = hints[name]
    if "--parameter" in types:
        types["-p"] = types["--parameter"]
    return types


def words_by_flag(words: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Each flag with the words up to the next; what comes before the first one stands under ""."""
    groups = [("", [])]
    for word in words:
        # A negative number is a value.
        if re.match("--?[a-zA-Z]", word):
            flag, equals, value = word.partition("=")
            groups.append((flag.replace("_", "-"), [value] if equals else []))
        else:
            groups[-1][1].append(word)
    return groups


def count_values(flag: str, following: Sequence[str], types: Mapping[str, Any]) -> int:
    """How many of the words after a flag are its values; UsageError if one is wrong."""
    if flag not in types:
        raise UsageError(f"{flag} is not a flag: {instead_of(flag, types)}")
    kind = types[flag]
    if kind is bool:
        return 0
    if kind == Pairs:
        if len(following) < 2:
            raise UsageError(f"{flag} needs a name and a value")
        return 2
    if not following:
        raise UsageError(f"{flag} needs a value")

    values = following if get_origin(kind) is tuple else following[:1]
    for value in values:
        check_value(flag, value, kind)
    return len(values)


def instead_of(flag: str, known: Iterable[str]) -> str:
    """What to do instead of typing an unknown flag."""
    name = flag.removeprefix("--").replace("-", "_")
    if name in REFERENCE_NAMES and "--learning-rate" in known:
        return with_flags(REFERENCE_NAMES[name], known)
    nearest = difflib.get_close_matches(flag, known, 1, cutoff=0.7)
    return f"did you mean {nearest[0]}?" if nearest else "leave it out"


def with_flags(advice: str, known: Iterable[str]) -> str:
    """Advice for a settings file, such as "set cycle_ct", in flags: "set --cycle-ct"."""

    def name_flag(words: re.Match) -> str:
        verb, name = words.groups()
        return f"{verb} {flag_for(name)}" if flag_for(name) in known else words[0]

    return re.sub(r"\b(set|and) (\w+)", name_flag, advice)


def check_value(flag: str, value: str, kind: Any) -> None:
    """Refuse a word that is not of the kind, such as `int | None` or `Literal["ct", "mri"]`."""
    for part in (kind, *get_args(kind)):
        choices = get_args(part) if get_origin(part) is Literal else ()
        if choices and value not in choices:
            raise UsageError(f"{flag} {value} is not known: {suggestion(value, choices)}")
        if part in (int, float) and not is_number(value, part):
            raise UsageError(f"{flag} {value} should be {KINDS[part]}")


def is_number(word: str, kind: type[int] | type[float]) -> bool:
    try:
        return math.isfinite(kind(word))
    except ValueError:
        return False

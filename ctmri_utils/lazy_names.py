"""The public names of the package and its rooms: loaded when first used, suggested when unknown."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import lazy_loader


def attach(package: str, **parts: Any) -> tuple[Callable, Callable, list[str]]:
    """`lazy_loader.attach`, whose `__getattr__` suggests a name for an unknown one."""
    load_name, list_names, names = lazy_loader.attach(package, **parts)
    return suggesting(package, load_name, names), list_names, names


def suggesting(package: str, load_name: Callable, names: Collection[str]) -> Callable:
    """`load_name`, but its error for all except `names` says which name may be meant."""

    def load_or_suggest(name: str) -> Any:
        if name in names:
            return load_name(name)

        from .options import suggestion

        advice = suggestion(name, names, f"dir({package})")
        raise AttributeError(f"{package} has no {name}: {advice}")

    return load_or_suggest

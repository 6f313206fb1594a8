"""The reference of the public names, a page a room, as Sphinx's autodoc reads it."""

from __future__ import annotations

import ast
import importlib
import inspect
from operator import attrgetter
from pathlib import Path

from ...machine import PACKAGE

ROOMS = ("cyclegan", "scans", "evaluation", "viewers", "volumes", "runs", "teaching")

# The page of the names that stand in no room.
OTHERS = "settings and units"

# Rooms without a page: the commands start what is in here.
NOT_DOCUMENTED = ("course",)


def public_names() -> dict[str, list[str]]:
    """{page: names}, as `__init__.pyi` lists them; the rooms themselves are pages, not names."""
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    pages = {room: [] for room in (*ROOMS, OTHERS)}
    for statement in stub.body:
        for alias in statement.names:
            # `from . import units` names a module.
            room = (statement.module or alias.name).split(".")[0]
            is_room = statement.module is None and alias.name in (*ROOMS, *NOT_DOCUMENTED)
            if not is_room:
                pages[room if room in ROOMS else OTHERS].append(alias.name)
    return pages


def entries() -> dict[str, list[str]]:
    """{page: names} of all that is documented.

    The public names come first, then what a room offers beside them, as "runs.contract_for" or
    "evaluation.metrics", unless it stands in a module that the room offers.
    """
    pages = public_names()
    public = {name for names in pages.values() for name in names}
    for room in ROOMS:
        offered = {name: resolve(f"{room}.{name}") for name in resolve(room).__all__}
        modules = {entry.__name__ for entry in offered.values() if inspect.ismodule(entry)}
        for name, entry in offered.items():
            in_module = getattr(entry, "__module__", None) in modules
            if name not in public and not in_module:
                pages[room].append(f"{room}.{name}")
    return pages


def resolve(name: str) -> object:
    """The object of a name below the package, such as "fit" or "runs.contract_for"."""
    return attrgetter(name)(importlib.import_module("ctmri_utils"))


def write_reference(source: Path) -> list[str]:
    """Write the pages of the reference.

    Args:
        source: the folder of the site's sources.

    Returns:
        Their paths in it.
    """
    paths = []
    pages = entries()
    public = [name for names in pages.values() for name in names if "." not in name]
    for page, names in pages.items():
        path = f"reference/{page.replace(' ', '_')}.md"
        lines = [f"# {page}", ""]
        for name in names:
            lines += ["```{eval-rst}", *directive(name, resolve(name), public), "```", ""]
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text("\n".join(lines), encoding="utf-8")
        paths.append(path)
    return paths


def directive(name: str, entry: object, public: list[str]) -> list[str]:
    """The lines that make Sphinx document a name; what is public is left out of its module."""
    target = f"ctmri_utils.{name}"
    if inspect.ismodule(entry):
        left_out = f"   :exclude-members: {', '.join(public)}"
        return [f".. automodule:: {entry.__name__}", "   :members:", left_out]
    if inspect.isclass(entry):
        return [f".. autoclass:: {target}", "   :members:"]
    if callable(entry):
        return [f".. autofunction:: {target}"]

    content = repr(entry)
    if isinstance(entry, dict):
        content = f"A dictionary with the keys {', '.join(map(repr, entry))}."
    return [f".. py:data:: {target}", "", f"   {content}"]

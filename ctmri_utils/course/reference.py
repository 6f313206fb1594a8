"""The reference of the public names, a page a room, as Sphinx's autodoc reads it."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

from ..machine import PACKAGE

# Rooms that are files and offer a few names have a page together.
ROOMS = ("cyclegan", "scans", "evaluation", "viewers", "volumes", "runs")
OTHERS = "settings and units"


def public_names() -> dict[str, list[str]]:
    """{page: names}, as `__init__.pyi` lists them; the rooms themselves are pages, not names."""
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    pages = {room: [] for room in (*ROOMS, OTHERS)}
    for statement in stub.body:
        if not isinstance(statement, ast.ImportFrom) or not statement.module:
            continue
        room = statement.module.split(".")[0]
        page = room if room in ROOMS else OTHERS
        pages[page] += [alias.name for alias in statement.names if alias.name != "main"]
    return pages


def write_reference(source: Path) -> list[str]:
    """Write the pages of the reference.

    Args:
        source: the folder of the site's sources.

    Returns:
        Their paths in it.
    """
    package = importlib.import_module("ctmri_utils")
    written = []
    for page, names in public_names().items():
        path = f"reference/{page.replace(' ', '_')}.md"
        lines = [f"# {page}", ""]
        for name in names:
            lines += ["```{eval-rst}", *directive(name, getattr(package, name)), "```", ""]
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text("\n".join(lines), encoding="utf-8")
        written.append(path)
    return written


def directive(name: str, thing: object) -> list[str]:
    """The lines that make Sphinx document a public name."""
    target = f"ctmri_utils.{name}"
    if inspect.ismodule(thing):
        return [f".. automodule:: {thing.__name__}", "   :members:"]
    if inspect.isclass(thing):
        return [f".. autoclass:: {target}", "   :members:"]
    if callable(thing):
        return [f".. autofunction:: {target}"]

    content = repr(thing)
    if isinstance(thing, dict):
        content = f"A dictionary with the keys {', '.join(map(repr, thing))}."
    return [f".. py:data:: {target}", "", f"   {content}"]

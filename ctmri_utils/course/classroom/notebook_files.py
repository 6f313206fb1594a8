"""Read whatever was handed in as a notebook, and say in one sentence why something is none."""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbformat import NotebookNode

LARGEST_MB = 50

HTML = "an HTML page, not the notebook: File > Download > Download .ipynb"

# How files begin that are no notebooks, and what the teacher reads about them.
BEGINNINGS = {
    b"%PDF": "a PDF, not the notebook: File > Download > Download .ipynb",
    b"\x89PNG": "a picture, not the notebook",
    b"\xff\xd8\xff": "a picture, not the notebook",
    b"Rar!": "a RAR archive, which cannot be opened here: ask for the notebook itself",
    b"7z\xbc\xaf": "a 7z archive, which cannot be opened here: ask for the notebook itself",
    b"\x1f\x8b": "a gz archive, which cannot be opened here: ask for the notebook itself",
}

# How their names end, for files whose content has told nothing.
ENDINGS = {
    (".py", ".r", ".jl"): "a script, not the notebook: File > Download > Download .ipynb, not .py",
    (".doc", ".docx", ".odt", ".rtf"): "a text document, not the notebook",
    (".gdoc", ".url", ".webloc", ".lnk"): "a link, not the notebook: download the file itself",
    (".zip",): "an archive that cannot be opened",
    (".html", ".htm"): HTML,
}
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class NotANotebook(ValueError):
    """A file that is no notebook; the message is the end of "this is ..."."""


def read_notebook(data: bytes, name: str) -> NotebookNode:
    """Read a notebook, in any encoding and with any harmless damage.

    Args:
        data: the file's content.
        name: the file's name, for the message.

    Returns:
        A notebook of nbformat 4 without outputs; every cell has a source and metadata.

    Raises:
        NotANotebook: it is none.
    """
    import nbformat

    content = parse(data, name)
    try:
        if "cells" in content:
            content["cells"] = [repaired(cell) for cell in content["cells"]]
            content["metadata"] = content.get("metadata") or {}
            content.setdefault("nbformat_minor", 5)
        notebook = nbformat.reads(json.dumps(content), as_version=4)
    except Exception as error:
        # Any file at all may have been handed in.
        raise NotANotebook(f"a damaged notebook ({type(error).__name__})") from error

    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            cell.execution_count = None
    return notebook


def parse(data: bytes, name: str) -> dict:
    """The JSON of a notebook, or NotANotebook."""
    if not data.strip(b"\0 \t\r\n"):
        raise NotANotebook("an empty file")
    if len(data) > LARGEST_MB << 20:
        raise NotANotebook(f"larger than {LARGEST_MB} MB: restart the kernel and clear all outputs")
    for beginning, reason in BEGINNINGS.items():
        if data.startswith(beginning):
            raise NotANotebook(reason)

    text = decode(data)
    if re.match(r"\s*<(!doctype|html|\?xml|head|body|meta)", text, flags=re.I):
        raise NotANotebook(HTML)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and ("cells" in content or "worksheets" in content):
        return {"nbformat": 4, **content}

    ending = re.search(r"(\.\w+)?$", name.lower())[0]
    for endings, reason in ENDINGS.items():
        if ending in endings:
            raise NotANotebook(reason)
    if '"cells"' in text and '"cell_type"' in text:
        raise NotANotebook("a damaged notebook, cut off or edited as text: ask for it again")
    raise NotANotebook("no notebook")


def decode(data: bytes) -> str:
    """Text in the encoding that its beginning shows, else in UTF-8, else in that of old Windows."""
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    if b"\0" in data[:4]:
        # JSON begins with two ASCII characters, so the zeros show the order of the bytes.
        return data.decode("utf-16-be" if data[0] == 0 else "utf-16-le", errors="replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def repaired(cell: dict) -> dict:
    """A cell with all that a reader relies on."""
    metadata = cell.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    if not isinstance(metadata.get("nbgrader", {}), dict):
        del metadata["nbgrader"]
    source = cell.get("source") or ""
    if isinstance(source, list):
        source = "".join(map(str, source))

    fixed = {**cell, "metadata": metadata, "source": str(source)}
    if fixed.get("cell_type") not in ("code", "markdown", "raw"):
        fixed["cell_type"] = "code"
    if fixed["cell_type"] == "code":
        fixed |= {"outputs": [], "execution_count": None}
    return fixed


def recognise(notebook: NotebookNode, released: dict[str, NotebookNode]) -> str | None:
    """Which assignment a notebook is, by the names of its cells, or else by their text.

    Args:
        notebook: as `read_notebook` returns it.
        released: {assignment: the notebook that was handed out}.

    Returns:
        The name of the assignment, None if the notebook is none of them.
    """
    for features_of in (grade_ids, texts):
        common = Counter()
        for source in released.values():
            common.update(features_of(source))
        features = features_of(notebook)

        matches = {}
        for name, source in released.items():
            # What every assignment has, such as the cell `setup`, says nothing.
            distinctive = {feature for feature in features_of(source) if common[feature] == 1}
            matches[name] = len(features & distinctive)
        best = max(matches, key=matches.get, default=None)
        if best and matches[best] > 0:
            return best
    return None


def grade_id(cell: NotebookNode) -> str:
    """nbgrader's name of a cell, "" if it has none."""
    return cell.metadata.get("nbgrader", {}).get("grade_id", "")


def grade_ids(notebook: NotebookNode) -> set[str]:
    """nbgrader's names of a notebook's cells."""
    return set(map(grade_id, notebook.cells)) - {""}


def texts(notebook: NotebookNode) -> set[str]:
    """The longer sources of a notebook's cells; an import may stand in any notebook."""
    return {cell.source.strip() for cell in notebook.cells if len(cell.source) > 60}

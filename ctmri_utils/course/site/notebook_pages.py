"""Lessons as pages of the site: pictures as files with alt texts, and nothing needs a kernel."""

from __future__ import annotations

import html
import re
from base64 import b64decode
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

import nbformat
from PIL import Image

from ...viewers.html_pages import frame_element, page, viewer_section
from ..lessons.records import Record, read_record
from ..lessons.time_left import span

WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
SECTION = re.compile(r"^## (\d+)\.(\d+) ", flags=re.M)
RUN = (
    "*What you see was run in {time} with `PROFILE={profile}`: {hardware}, {peak_gb:.1f} GB. The "
    "exercises take about {exercises} min.*"
)
EXERCISE = re.compile(r"^### Exercise .*\((\d+) min", flags=re.M)
NOT_RUN = (
    "```{{attention}}\nThis lesson was not run when the site was made, so it shows no results: "
    "`ctmri course --lessons {number}` runs it.\n```"
)


def read_lesson(lesson: Path, build: Path) -> nbformat.NotebookNode:
    """The executed copy of a lesson in a build folder and what it cost, or the bare lesson.

    A note on this stands below the head.
    """
    executed = build / lesson.name
    record = read_record(executed)
    if executed.is_file():
        notebook = nbformat.read(executed, as_version=4)
        note = cost(record, notebook) if record else ""
    else:
        notebook = nbformat.read(lesson, as_version=4)
        note = NOT_RUN.format(number=int(lesson.name[:2]))
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell(note))
    return notebook


def cost(record: Record, notebook) -> str:
    """What a lesson's run took, and what its exercises take by their headings."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    exercises = sum(map(int, EXERCISE.findall(text)))
    return RUN.format(**asdict(record), time=span(record.minutes), exercises=exercises)


def without_kernel(notebook, figures: Path, address: str) -> None:
    """Replace all outputs that need a kernel, and write pictures into files.

    A viewer becomes the page that it carries, another widget what it showed last, and a PNG an
    image element of its size. Its alt text is its own, or else stands in the metadata of its cell.

    Args:
        notebook: is changed.
        figures: a folder, for the pictures.
        address: of that folder, as the lesson's page sees it.
    """
    widgets = notebook.metadata.pop("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    figures.mkdir(parents=True, exist_ok=True)
    pictures = 0
    for cell in notebook.cells:
        cell_alt = cell.metadata.get("alt", "")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            view = data.pop(WIDGET_VIEW, None)
            if view and "text/html" not in data:
                data["text/html"] = widget_html(view["model_id"], widgets, cell_alt)
            if "image/png" in data:
                pictures += 1
                png = b64decode(data["image/png"])
                (figures / f"{pictures:02d}.png").write_bytes(png)
                alt = output.metadata.get("image/png", {}).get("alt", cell_alt)
                element = image_element(f"{address}/{pictures:02d}.png", png, alt)
                output.data = {"text/html": element}


def image_element(address: str, png: bytes, alt: str) -> str:
    """An image that opens in full size when clicked, and whose place is kept while it loads."""
    width, height = Image.open(BytesIO(png)).size
    return (
        f'<a class="figure" href="{address}"><img src="{address}" alt="{html.escape(alt)}" '
        f'width="{width}" height="{height}"></a>'
    )


def widget_html(model: str, widgets: dict, alt: str) -> str:
    """What a widget of ipywidgets showed last, without its controls; a viewer as its page.

    Args:
        model: its key.
        widgets: {key: model} as a notebook stores them.
        alt: says what a picture in it shows.
    """
    state = widgets.get(model, {}).get("state", {})
    if "children" in state:
        children = [key.removeprefix("IPY_MODEL_") for key in state["children"]]
        return f"<div>{' '.join(widget_html(child, widgets, alt) for child in children)}</div>"

    # Of all widgets, only a viewer has a specification. Its one buffer holds the packed values.
    if "spec" in state:
        alt = state["spec"]["alt"]
        data = b64decode(widgets[model]["buffers"][0]["data"])
        document = page(alt, [viewer_section(state["spec"], data)])
        return frame_element(document, alt, f"<p>{html.escape(alt)}</p>")

    kind = state.get("_model_name", "")
    if kind == "OutputModel":
        return " ".join(output_html(output, alt) for output in state.get("outputs", []))
    value = state.get("value", "")
    if kind in ("HTMLModel", "HTMLMathModel"):
        return value
    label = html.escape(state.get("description", ""))
    if kind.endswith("ProgressModel"):
        return f'<progress aria-label="progress" value="{value}" max="{state["max"]}"></progress>'
    return f"<span>{label} {html.escape(str(value))}</span>"


def output_html(output: dict, alt: str) -> str:
    """A picture that a function of `interactive` has shown, as an HTML image element."""
    png = output.get("data", {}).get("image/png", "")
    image = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{png}">'
    return f"<div>{image}</div>" if png else ""


def fold_set_up(notebook) -> None:
    """Fold the cells that begin with imports, so that a page comes to its subject."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.source.startswith(("import ", "from ")):
            cell.metadata.tags = [*cell.metadata.get("tags", []), "hide-input"]


def mark_sections(notebook) -> None:
    """Give every numbered section a name to link to: `section-3-2` for 3.2."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = SECTION.sub(r"(section-\1-\2)=\n\g<0>", cell.source)

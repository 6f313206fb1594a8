"""Viewers as HTML pages that need a browser and nothing else, no network either."""

from __future__ import annotations

import html
import json
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent


def joined(*names: str) -> str:
    """Files of this folder as one text; the scripts among them import nothing."""
    return "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in names)


# Widgets and pages need the whole script in one piece.
STYLE = joined("viewer.css")
SCRIPT = joined("numbers.mjs", "modes.mjs", "controls.mjs", "input.mjs", "viewer.mjs")

# Only what stands in the page may run or be seen.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<meta http-equiv="Content-Security-Policy"
content="{policy}">
<style>
:root {{ color-scheme: light dark; background: canvas; color: canvastext }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 8px }}
img {{ max-width: 100% }}
{css}</style></head><body>{body}
<script type="module">
// In a notebook the page stands in a frame, and is light or dark as the notebook is.
{{
  const scheme = frameElement && getComputedStyle(frameElement).colorScheme;
  if (scheme && scheme !== "normal") document.documentElement.style.colorScheme = scheme;
}}
{script}
// The frame is as high as the page, which replaces what stood in for it.
frameElement?.previousElementSibling?.remove();
new ResizeObserver(() => {{
  if (frameElement) frameElement.style.height = `${{document.documentElement.offsetHeight}}px`;
}}).observe(document.documentElement);
</script></body></html>
"""

# Each section holds its specification and its values; a map stands in for the notebook's model.
START = """
for (const section of document.querySelectorAll("[data-viewer]")) {
  const { spec, data } = JSON.parse(section.querySelector("script").textContent);
  const text = atob(data);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);

  const model = new Map(Object.entries({ spec, data: bytes }));
  model.on = model.save_changes = () => {};
  viewer.render({ el: section, model });
}
"""


def page(title: str, sections: Sequence[str]) -> str:
    """One HTML page.

    Args:
        title: plain text.
        sections: HTML, of which `Viewer.section` makes those that hold a viewer.
    """
    script = SCRIPT.replace("export default", "const viewer =") + START
    body = "\n".join(sections)
    return PAGE.format(title=html.escape(title), policy=POLICY, css=STYLE, script=script, body=body)


def write_page(path: str | Path, document: str) -> None:
    """Write a whole HTML page into a file.

    Raises:
        OSError: the file cannot be written; in one sentence.
    """
    try:
        Path(path).write_text(document, encoding="utf-8")
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}") from error


def viewer_section(spec: dict, data: bytes) -> str:
    """The HTML of one viewer, with its specification and its packed values inside."""
    payload = json.dumps({"spec": spec, "data": b64encode(data).decode()}, allow_nan=False)

    # Text from outside, such as a name, must not end the script element.
    payload = payload.replace("<", "\\u003c")
    return (
        "<div data-viewer><noscript>Needs JavaScript.</noscript>"
        f'<script type="application/json">{payload}</script></div>'
    )


def jpeg_element(picture: bytes, alt: str) -> str:
    """A JPEG inside an HTML image element."""
    source = b64encode(picture).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/jpeg;base64,{source}">'


def frame_element(document: str, title: str, stand_in: str) -> str:
    """A whole HTML page inside a frame, for notebooks; the page gives the frame its height.

    Args:
        document: the page, made from `PAGE`.
        title: of the frame, plain text.
        stand_in: one HTML element, seen where frames or scripts are taken out, as in a notebook
            that is not trusted. The page removes it.
    """
    return (
        f'<div>{stand_in}<iframe srcdoc="{html.escape(document)}" title="{html.escape(title)}" '
        'width="100%" height="0" style="border: 0"></iframe></div>'
    )

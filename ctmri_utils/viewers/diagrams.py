"""The drawings that explain: SVG kept as text, in colours that serve on light and dark pages."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).with_name("drawings")


def diagram(name: str) -> None:
    """Display a drawing in a notebook. It carries its own title and description.

    Args:
        name: "cycle", "generator", "patchgan", "training_step" or "evaluation".

    Raises:
        ValueError: there is no such drawing.
    """
    from IPython.display import HTML, display

    file = FOLDER / f"{name}.svg"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in FOLDER.glob("*.svg")))
        raise ValueError(f"there is no drawing {name!r}: choose one of {known}")
    display(HTML(file.read_text(encoding="utf-8")))

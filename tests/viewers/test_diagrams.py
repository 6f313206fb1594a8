"""The drawings: each is sound SVG that describes itself and takes its colours from the page."""

import xml.etree.ElementTree as ElementTree

import pytest

from ctmri_utils.viewers import diagram, diagrams

SVG = "{http://www.w3.org/2000/svg}"
NAMES = ("cycle", "evaluation", "generator", "patchgan", "training_step")


def test_every_drawing_is_here():
    assert tuple(sorted(file.stem for file in diagrams.FOLDER.glob("*.svg"))) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_drawing_can_be_read_without_eyes_and_on_any_page(name):
    drawing = ElementTree.parse(diagrams.FOLDER / f"{name}.svg").getroot()
    assert drawing.get("role") == "img" and drawing.get("viewBox")
    described = drawing.get("aria-labelledby").split()
    texts = {part.get("id"): part.text for part in drawing.iter() if part.get("id")}
    assert len(described) == 2 and all(len(texts[part]) > 8 for part in described)

    # Black or white text would vanish on one of the pages.
    words = list(drawing.iter(f"{SVG}text"))
    inherited = {drawing.get("fill"), *(group.get("fill") for group in drawing.iter(f"{SVG}g"))}
    assert words and "currentColor" in inherited | {word.get("fill") for word in words}
    colours = {part.get(kind, "").lower() for part in drawing.iter() for kind in ("fill", "stroke")}
    assert not colours & {"black", "white", "#000", "#fff", "#000000", "#ffffff"}


def test_a_drawing_is_displayed_and_an_unknown_one_refused(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    diagram("cycle")
    assert shown[0].data.startswith("<svg")
    with pytest.raises(ValueError, match="'circle': choose one of cycle, evaluation"):
        diagram("circle")

"""The drawings: sound SVG that describes itself, takes its colours from the page and is right."""

import re
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from ctmri_utils.cyclegan.model import CycleGAN, Images
from ctmri_utils.cyclegan.networks import PatchDiscriminator
from ctmri_utils.settings import Architecture
from ctmri_utils.viewers import diagram, diagrams

SVG = "{http://www.w3.org/2000/svg}"
NAMES = ("cycle", "evaluation", "generator", "patchgan", "training_step")


def read(name):
    return ElementTree.parse(diagrams.FOLDER / f"{name}.svg").getroot()


def test_every_drawing_is_here():
    assert tuple(sorted(file.stem for file in diagrams.FOLDER.glob("*.svg"))) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_drawing_can_be_read_without_eyes_and_on_any_page(name):
    drawing = read(name)
    assert drawing.get("role") == "img" and drawing.get("viewBox").startswith("0 0 720 ")
    title, description = (
        next(part.text for part in drawing.iter() if part.get("id") == described)
        for described in drawing.get("aria-labelledby").split()
    )
    assert len(title) > 8 and len(description.split()) > 60

    # Black or white text would vanish on one of the pages.
    colours = {part.get(kind, "").lower() for part in drawing.iter() for kind in ("fill", "stroke")}
    assert drawing.get("fill") == "currentColor"
    assert not colours & {"black", "white", "#000", "#fff", "#000000", "#ffffff"}
    assert {text.get("fill") for text in drawing.iter(f"{SVG}text")} == {None}

    # A style sheet would apply to the whole page, and letters below 11 cannot be read.
    assert drawing.find(f".//{SVG}style") is None
    assert min(float(part.get("font-size", 14)) for part in drawing.iter()) >= 11


@pytest.mark.parametrize("name", NAMES)
def test_two_drawings_on_a_page_do_not_mix_up_their_parts(name):
    text = (diagrams.FOLDER / f"{name}.svg").read_text(encoding="utf-8")
    ids = re.findall(r' id="([^"]+)"', text)
    used = re.findall(r'(?:href="|url\()#([^")]+)', text)
    assert len(set(ids)) == len(ids) and all(part.startswith(f"{name}-") for part in ids)
    assert set(used) <= set(ids)


@pytest.mark.parametrize("name", NAMES)
def test_a_drawing_uses_the_names_of_the_code(name):
    model = CycleGAN(Architecture(ngf=1, ndf=1, n_blocks=1))
    known = {network for network, _ in model.named_children()} | set(Images.__annotations__)
    words = "".join(read(name).itertext()).split()
    named = {word.strip(".,;:") for word in words if "_" in word}
    assert named and named <= known


def test_the_patch_that_is_drawn_is_the_one_that_a_verdict_sees():
    discriminator = PatchDiscriminator(ndf=1, norm="none").eval()
    torch.manual_seed(0)
    image = torch.rand(1, 1, 256, 256, requires_grad=True)
    verdicts = discriminator(image)
    verdicts[0, 0, 8, 20].backward()
    rows, columns = image.grad[0, 0].nonzero().unbind(1)

    patches = [f'x="{columns.min()}" y="{rows.min()}" width="70" height="70"']
    patches += [f'viewBox="{columns.min()} {rows.min()} 70 70"']
    text = (diagrams.FOLDER / "patchgan.svg").read_text(encoding="utf-8")
    assert len(columns.unique()) == len(rows.unique()) == 70
    assert all(patch in text for patch in patches)


def test_the_fields_that_are_drawn_are_those_of_the_layers():
    discriminator = PatchDiscriminator(ndf=1)
    maps = torch.zeros(1, 1, 256, 256)
    sides = []
    strides = []
    for layer in discriminator.model:
        if isinstance(layer, torch.nn.Conv2d):
            sides.append(maps.shape[-1])
            strides.append(layer.stride[0])
        maps = layer(maps)

    field = 1
    labels = [f"of {maps.shape[-1]} × {maps.shape[-1]}"]
    for side, stride in zip(sides[::-1], strides[::-1], strict=True):
        field = (field - 1) * stride + 4
        labels += [f"{field} × {field}", f"of {side} × {side}", f"stride {stride}"]
    texts = [text.text for text in read("patchgan").iter(f"{SVG}text")]
    assert set(labels) <= set(texts)
    assert [texts.count(f"stride {stride}") for stride in (1, 2)] == [2, 3]


def test_a_drawing_is_displayed_and_an_unknown_one_refused(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    diagram("cycle")
    assert shown[0].data.startswith("<svg")
    with pytest.raises(ValueError, match="'circle': choose one of cycle, evaluation"):
        diagram("circle")

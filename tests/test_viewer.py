"""The first comparison widget and the live progress: what the sliders do to the pixels."""
import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from ctmri_utils.training import fit
from ctmri_utils.translators import Architecture, CycleGAN
from ctmri_utils.units import Window
from ctmri_utils.viewer import LiveProgress, compare, render

REAL = np.stack([np.full((8, 8), value, float) for value in (0, 40, 80)])
FAKE = REAL + np.array([0, 500, -250])[:, None, None]


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def parts(widget):
    sliders, presets = {}, {}
    for row in widget.children[:2]:
        for child in row.children:
            (presets if child.description == "window" else sliders)[child.description] = child
    return sliders, presets["window"], widget.children[2]


def picture(html):
    return pixels(base64.b64decode(re.search(r'base64,([^"]+)"', html.value).group(1)))


def test_render_windows_the_scans_and_colours_the_difference():
    strip = pixels(render(REAL[1], FAKE[1], Window(40, 80), 1))
    assert strip.shape == (8, 28, 3)
    assert strip[4, 4].tolist() == [128, 128, 128] and strip[4, 14].tolist() == [255, 255, 255]
    assert strip[4, 24].tolist() == [255, 0, 0]                  # 500 HU too high: full red
    assert pixels(render(REAL[2], FAKE[2], Window(40, 80), 1))[4, 24].tolist() == [128, 128, 255]
    assert pixels(render(REAL[0], FAKE[0], Window(40, 80), 1))[4, 24].tolist() == [255, 255, 255]


def test_sliders_change_slice_and_window():
    widget = compare(REAL, FAKE, alt="three flat slices", zoom=2)
    sliders, preset, html = parts(widget)
    assert 'alt="three flat slices"' in html.value and picture(html)[8, 8].tolist() == [0, 0, 0]
    sliders["slice"].value = 1
    assert picture(html)[8, 8].tolist() == [128, 128, 128]
    sliders["level HU"].value = 0
    assert picture(html)[8, 8].tolist() == [255, 255, 255]
    preset.value = "bone"
    assert (sliders["level HU"].value, sliders["width HU"].value) == (450, 2000)
    assert picture(html)[8, 8, 0] == round(255 * ((40 - 450) / 2000 + 0.5))


@pytest.mark.parametrize(("real", "fake", "sentence"), [
    (REAL, FAKE[:2], "one shape"), (REAL[0], FAKE[0], "one shape"), (REAL[:0], FAKE[:0], "one shape"),
    (REAL, FAKE * np.nan, "finite values"),
])
def test_bad_input_gets_one_sentence(real, fake, sentence):
    with pytest.raises(ValueError, match=sentence):
        compare(real, fake, alt="nothing to see")


def test_live_progress_follows_the_training(monkeypatch):
    updates = []

    class Handle:
        def update(self, image):
            updates.append(image)

    monkeypatch.setattr("IPython.display.display", lambda *_, **__: Handle())
    torch.manual_seed(0)
    model, images = CycleGAN(Architecture(4, 4, 1, 1)), torch.rand(3, 1, 32, 32) * 2 - 1
    progress = LiveProgress(model, images[:2], images[1:], steps=5, every=2, alt="noise and its translations")
    fit(model, images, images, steps=5, batch_size=1, seed=0, on_step=progress)
    assert progress.bar.n == 5 and len(progress.history) == 5
    assert len(updates) == 6 and updates[0].alt == "noise and its translations" and "up to step 5" in updates[-1].alt

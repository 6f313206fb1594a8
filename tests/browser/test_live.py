"""Lesson 05 in a real JupyterLab.

Run, dragged, typed at, and what the reader chose comes back to Python.
"""

import re

import nbformat
import numpy as np
import pytest
from helpers.lab import ROOT, ask, jupyterlab
from playwright.sync_api import expect

LESSON = ROOT / "notebooks" / "05_compare_real_and_translated.ipynb"
FRAMES = 7
PIXELS = """c => {
  const image = c.getContext("2d").getImageData(0, 0, c.width, c.height);
  return [c.height, c.width, Array.from(image.data)]; }"""
ACTIVE_CELL = "window.jupyterapp.shell.currentWidget.content.activeCellIndex"


def pixels(canvas):
    height, width, values = canvas.evaluate(PIXELS)
    return np.array(values).reshape(height, width, 4)[..., :3]


def control(viewer, name):
    return viewer.locator(f".controls label:has(span:text-is('{name}'))").locator("input, select")


def scroll_to(canvas):
    canvas.scroll_into_view_if_needed()
    return canvas.bounding_box()


@pytest.fixture
def lesson():
    notebook = nbformat.read(LESSON, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace('PROFILE = "laptop"', 'PROFILE = "ci"')
        # the badges' pictures lie in the network
        cell.source = re.sub(r"^\[!\[Open In Colab.*", "", cell.source)
    return notebook


@pytest.mark.timeout(600)
def test_lesson_05_in_jupyterlab(new_tab, lesson, tmp_path, screenshots):
    with jupyterlab(tmp_path, new_tab, lesson=lesson) as lab:
        tab = lab.open("lesson.ipynb")
        lab.run(tab)

        frames = tab.locator("iframe")
        for k in range(FRAMES):
            frames.nth(k).scroll_into_view_if_needed()
            page = frames.nth(k).content_frame
            page.locator(".ctmri[data-ready]").wait_for(timeout=60_000)
            inside = page.locator("html").evaluate("root => root.offsetHeight")
            assert frames.nth(k).bounding_box()["height"] == pytest.approx(inside, abs=2)
        assert frames.count() == FRAMES

        check_the_sliders_made_by_hand(tab)
        check_the_live_viewer(tab, screenshots)

        # the error explorer: the worst patient first
        explorer = frames.nth(4).content_frame
        start = int(control(explorer, "Slice").input_value())
        assert start == int(ask(tab, "int(np.argmax(mae))"))
        scroll_to(explorer.locator("canvas"))
        tab.screenshot(path=screenshots / "lab_light.png")

        command = "apputils:change-theme', { theme: 'JupyterLab Dark' }"
        tab.evaluate(f"window.jupyterapp.commands.execute('{command})")
        tab.wait_for_function("document.body.dataset.jpThemeLight === 'false'")
        tab.wait_for_timeout(500)
        tab.screenshot(path=screenshots / "lab_dark.png")


def check_the_sliders_made_by_hand(tab):
    by_hand = tab.locator(".widget-interact")
    picture = by_hand.locator("img")
    before = picture.get_attribute("src")
    by_hand.locator(".noUi-handle").first.press("ArrowRight")
    expect(picture).not_to_have_attribute("src", before)


def check_the_live_viewer(tab, screenshots):
    viewer = tab.locator(".ctmri[data-ready]")
    viewer.scroll_into_view_if_needed()
    tab.screenshot(path=screenshots / "lab_live.png")
    viewer.get_by_label("Wipe", exact=True).check()

    check_mouse_and_keys(tab, viewer)
    check_the_reading_under_the_mouse(tab, viewer)
    check_kernel_and_viewer_agree(tab, viewer)


def check_mouse_and_keys(tab, viewer):
    canvas = viewer.locator("canvas")
    # Drag the divider and read pixels before and after.
    box = scroll_to(canvas)
    before = pixels(canvas)
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + box["height"] / 2, steps=5)
    tab.mouse.up()
    assert control(viewer, "Divider").input_value() == "20" and (pixels(canvas) != before).any()

    # JupyterLab would take these keys for its cells.
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowRight"):
        tab.keyboard.press(key)
    assert control(viewer, "Divider").input_value() == "32"
    cell = tab.evaluate(ACTIVE_CELL)
    for key in ("Home", "ArrowUp", "ArrowUp", "ArrowDown"):
        tab.keyboard.press(key)
    assert control(viewer, "Slice").input_value() == "1"
    assert tab.evaluate(ACTIVE_CELL) == cell

    # The sliders themselves take keys, too.
    slider = control(viewer, "Slice")
    slider.focus()
    tab.keyboard.press("ArrowRight")
    assert slider.input_value() == "2"


def check_the_reading_under_the_mouse(tab, viewer):
    canvas, size = viewer.locator("canvas"), int(ask(tab, "truth.ct_hu.shape[-1]"))
    control(viewer, "Divider").fill("0")
    row, column = size // 2, size // 3
    true = int(np.rint(float(ask(tab, f"float(truth.ct_hu[2, {row}, {column}])"))))
    grey = int(np.floor(255 * np.clip(true / 2000 + 0.5, 0, 1) + 0.5))
    assert pixels(canvas)[row, column].tolist() == [grey] * 3
    box = scroll_to(canvas)
    tab.mouse.move(
        box["x"] + (column + 0.5) * box["width"] / size,
        box["y"] + (row + 0.5) * box["height"] / size,
    )
    reading = f"row {row}, column {column}: your window {true} HU"
    assert reading in viewer.locator(".reading").inner_text()


def check_kernel_and_viewer_agree(tab, viewer):
    # What the reader chose comes back to the kernel, by a slider alone, too.
    control(viewer, "Window").select_option("bone")
    control(viewer, "Level").fill("-100")
    tab.wait_for_timeout(300)
    chosen = ask(tab, "(live.mode, live.slice, live.level, live.width, patient.value)")
    assert chosen == "('wipe', 2, -100.0, 2000.0, 2)"

    # A linked widget moves the viewer, and so does Python.
    tab.locator(".widget-vslider .noUi-handle").press("ArrowUp")
    expect(control(viewer, "Slice")).to_have_value("3")
    ask(tab, "[setattr(live, 'mode', mode) for mode in ('blend', 'side')]")
    expect(viewer).to_have_attribute("data-mode", "side")
    assert ask(tab, "live.slice") == "3"


def test_without_a_chromium_the_tests_fail_and_say_what_to_run(finder, monkeypatch):
    tried = []
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        pytest.fail.Exception, match="run `python -m playwright install --with-deps chromium`"
    ):
        finder("nowhere/chrome", run=lambda command, **_: tried.append(command))
    assert tried[0][1:] == ["-m", "playwright", "install", "chromium"]

"""A notebook with viewers that was saved, closed and opened again: nobody meets an error."""

import nbformat
import numpy as np
import pytest
from helpers.lab import check_it_is_live, jupyterlab
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import expect

from ctmri_utils.viewers.viewer import browse, compare

PYTHON = {"name": "python3", "display_name": "Python 3", "language": "python"}
CODE = """import numpy as np
from ctmri_utils import browse, compare
ct_hu = np.random.default_rng(0).normal(0, 300, (3, 64, 64))
compare(ct_hu, ct_hu / 2, alt="noise, and less of it")"""
BROWSE = 'browse(ct_hu, alt="noise alone")'
BY_HAND = """from ctmri_utils.viewers import figures
from ipywidgets import HBox, IntSlider, interactive, jslink
def show(level):
    row = figures.ImageRow(ct_hu[:1], level - 100, level + 100)
    figures.show(figures.montage({"noise": row}))
interactive(show, level=(0, 9))"""
LIVE = """live = compare(ct_hu, ct_hu / 2, alt="noise").widget
patient = IntSlider(max=2)
jslink((patient, "value"), (live, "slice"))
HBox([patient, live])"""
NOISE = np.random.default_rng(0).integers(-1000, 1000, (3, 24, 24))


@pytest.mark.timeout(400)
def test_a_notebook_saved_closed_and_opened_again(new_tab, tmp_path, screenshots):
    cells = [new_code_cell(source) for source in (CODE, BROWSE, BY_HAND, LIVE)]
    notebook = new_notebook(cells=cells, metadata={"kernelspec": PYTHON})
    with jupyterlab(tmp_path, new_tab, noise=notebook) as lab:
        tab = lab.open("noise.ipynb")
        lab.run(tab)
        check_it_is_live(tab.locator("iframe").first)
        tab.locator(".widget-interact img").wait_for(timeout=60_000)
        tab.locator(".widget-hbox .ctmri[data-ready]").wait_for(timeout=60_000)
        lab.close(tab)

        check_the_reopened_notebook(lab.open("noise.ipynb"), screenshots)
        check_a_notebook_that_is_not_trusted(lab, screenshots)


def check_the_reopened_notebook(tab, screenshots):
    for frame in tab.locator("iframe").all():
        check_it_is_live(frame)
    expect(tab.locator("iframe")).to_have_count(2)

    # The only picture is the widget's: those that stood in for the viewers are gone.
    viewer = tab.locator(".widget-hbox .ctmri[data-ready]")
    viewer.wait_for(timeout=60_000)
    expect(tab.locator(".widget-interact img")).to_have_count(1)
    expect(tab.locator(".jp-OutputArea-output img")).to_have_count(1)
    shown = " ".join(tab.locator(".jp-OutputArea-output").all_inner_texts())
    assert "rror" not in shown and "not found" not in shown

    # No kernel is asked: the link and the drawing are the browser's.
    tab.locator(".widget-hbox .widget-slider .noUi-handle").press("ArrowRight")
    slice_slider = viewer.locator(".controls label:has(span:text-is('Slice')) input")
    expect(slice_slider).to_have_value("1")
    tab.screenshot(path=screenshots / "reopened.png")


def check_a_notebook_that_is_not_trusted(lab, screenshots):
    """Somebody else's notebook, of which JupyterLab empties the frames."""
    saved = nbformat.read(lab.work / "noise.ipynb", as_version=4)
    saved.cells = saved.cells[:2]
    saved.cells[1].outputs[0].data["text/plain"] = "changed by somebody"
    nbformat.write(saved, lab.work / "received.ipynb")

    tab = lab.open("received.ipynb")
    # JupyterLab opens the other notebook again, too, with the picture of its widget.
    pictures = tab.locator(".jp-OutputArea-output img[alt]")
    expect(pictures).to_have_count(2)
    assert not any(frame.is_visible() for frame in tab.locator("iframe").all())
    assert pictures.first.evaluate("picture => picture.naturalWidth > 300")
    assert pictures.first.get_attribute("alt") == "noise, and less of it"
    tab.screenshot(path=screenshots / "reopened_untrusted.png")


@pytest.fixture
def static(tmp_path):
    """The address of a notebook with a viewer, as a static viewer shows it: no kernel."""
    data = {"text/html": compare(NOISE, NOISE, alt="noise twice")._repr_html_()}
    cell = new_code_cell("shown", outputs=[nbformat.v4.new_output("display_data", data)])
    html, _ = HTMLExporter(template_name="basic").from_notebook_node(new_notebook(cells=[cell]))
    (tmp_path / "static.html").write_text(html, encoding="utf-8")
    return (tmp_path / "static.html").as_uri()


def test_a_static_viewer_shows_a_live_one(new_tab, static):
    tab = new_tab()
    tab.goto(static)
    check_it_is_live(tab.locator("iframe"))
    expect(tab.locator("img")).to_have_count(0)


@pytest.mark.parametrize(("scheme", "letters"), [("light", 0), ("dark", 255)])
def test_the_viewer_is_light_or_dark_as_its_notebook_is(new_tab, scheme, letters):
    tab = new_tab(color_scheme="dark" if scheme == "light" else "light")
    shown = browse(NOISE, alt="noise")._repr_html_()
    tab.set_content(f'<body style="color-scheme: {scheme}">{shown}')
    status = tab.frame_locator("iframe").locator(".status")
    colour = f"rgb({letters}, {letters}, {letters})"
    assert status.evaluate("status => getComputedStyle(status).color") == colour


def test_where_no_script_runs_the_montage_is_seen(new_tab, static):
    tab = new_tab(java_script_enabled=False)
    tab.goto(static)
    assert tab.locator("img").bounding_box()["width"] > 300


def test_ct_opens_in_a_brain_and_a_bone_window(open_page):
    tab = open_page(browse(NOISE, alt="noise"))
    names = [tab.locator(f".stage .{place}") for place in ("first", "second")]
    assert [name.inner_text() for name in names] == ["brain", "bone"]
    tab.locator("canvas").focus()
    tab.keyboard.press("w")
    assert [name.inner_text() for name in names] == ["subdural", "bone"]
    tab.get_by_label("Slice", exact=True).first.check()
    assert [name.inner_text() for name in names] == ["subdural", ""]

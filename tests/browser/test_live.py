"""Lesson 05 in a real JupyterLab.

Run, dragged, typed at, and what the reader chose comes back to Python.
"""

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
LESSON = "05_compare_real_and_translated.ipynb"
PIXELS = """c => {
  const image = c.getContext("2d").getImageData(0, 0, c.width, c.height);
  return [c.height, c.width, Array.from(image.data)]; }"""
READY = """() => { const w = window.jupyterapp?.shell.currentWidget;
    return w?.context?.isReady && w.sessionContext?.session?.kernel?.status === "idle"; }"""
FINISHED = """() => {
    const widgets = window.jupyterapp.shell.currentWidget.content.widgets;
    const cells = widgets.filter((cell) => cell.model.type === "code");
    for (const cell of cells) for (const output of cell.model.outputs.toJSON())
      // it ends the run at once
      if (output.output_type === "error") throw new Error(output.ename + ": " + output.evalue);
    return cells.every(({ model }) => model.executionState !== "running" && model.executionCount);
  }"""
ASK = """async (answer) => {
    const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    const reply = await kernel.requestExecute({ code: "", user_expressions: { answer } }).done;
    return reply.content.user_expressions.answer.data["text/plain"]; }"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def serve(home: Path, *command: str, ready: str):
    """A server on loopback, with settings of its own and lesson 05 in its folder `work`.

    Yields its address once `ready` answers.
    """
    places = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "IPYTHONDIR": "ipython",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }
    environment = {
        **os.environ,
        **{name: str(home / folder) for name, folder in places.items()},
        "CTMRI_BUILD": str(home / "build"),
        "PYTHONPATH": str(ROOT),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    environment.pop("MPLBACKEND", None)
    for name, setting in (
        ("apputils-extension/notification", {"fetchNews": "false", "checkForUpdates": False}),
        # every cell stays in the page
        ("notebook-extension/tracker", {"windowingMode": "none"}),
    ):
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(setting))
    notebook = nbformat.read(ROOT / "notebooks" / LESSON, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace('PROFILE = "laptop"', 'PROFILE = "ci"')
        # the badge's picture lies in the network
        cell.source = re.sub(r"^\[!\[Open In Colab.*", "", cell.source)
    (home / "work").mkdir()
    nbformat.write(notebook, home / "work" / LESSON)
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with open(home / "log", "wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", *command, "--no-browser", f"--port={port}"],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        for _ in range(600):
            assert server.poll() is None, (home / "log").read_text()
            with contextlib.suppress(OSError):
                urllib.request.urlopen(address + ready, timeout=2).close()
                break
            time.sleep(0.1)
        else:
            raise TimeoutError((home / "log").read_text())
        yield address
    finally:
        server.send_signal(signal.SIGTERM)  # it stops its kernels
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def pixels(canvas):
    height, width, values = canvas.evaluate(PIXELS)
    return np.array(values).reshape(height, width, 4)[..., :3]


def control(viewer, name):
    return viewer.locator(f".controls label:has(span:text-is('{name}'))").locator("input, select")


def ask(tab, code):
    return tab.evaluate(ASK, code)


def scroll_to(canvas):
    canvas.scroll_into_view_if_needed()
    return canvas.bounding_box()


@pytest.mark.timeout(600)
def test_lesson_05_in_jupyterlab(new_tab, tmp_path, screenshots):
    token = secrets.token_hex(16)
    command = (
        "jupyter",
        "lab",
        "--ip=127.0.0.1",
        f"--IdentityProvider.token={token}",
        "--ServerApp.port_retries=0",
        "--ServerApp.allow_root=True",
        f"--ServerApp.root_dir={tmp_path / 'work'}",
        "--LabApp.expose_app_in_browser=True",
        "--LabApp.extension_manager=readonly",
    )
    with serve(tmp_path, *command, ready=f"/api/status?token={token}") as address:
        tab = new_tab()
        tab.goto(f"{address}/lab/tree/{LESSON}?token={token}")
        tab.wait_for_function(READY, timeout=90_000)
        tab.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        tab.wait_for_function(FINISHED, timeout=300_000)
        for viewer in tab.locator(".ctmri").all():
            viewer.locator("canvas").scroll_into_view_if_needed()
        tab.wait_for_function(
            "document.querySelectorAll('.ctmri[data-ready]').length === 7", timeout=60_000
        )

        # the error explorer: true and translated CT of the phantom
        viewer = tab.locator(".ctmri").nth(5)
        canvas, size = viewer.locator("canvas"), int(ask(tab, "truth.ct_hu.shape[-1]"))
        start = int(control(viewer, "Slice").input_value())
        assert start == int(ask(tab, "int(np.argmax(mae))"))  # the worst patient first

        # drag the divider and read pixels before and after
        box = scroll_to(canvas)
        before = pixels(canvas)
        tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tab.mouse.down()
        tab.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + box["height"] / 2, steps=5)
        tab.mouse.up()
        assert control(viewer, "Divider").input_value() == "20" and (pixels(canvas) != before).any()

        # JupyterLab would take these for its cells
        for key in ("ArrowRight", "ArrowRight", "Shift+ArrowRight"):
            tab.keyboard.press(key)
        assert control(viewer, "Divider").input_value() == "32"
        cell = tab.evaluate("window.jupyterapp.shell.currentWidget.content.activeCellIndex")
        for key in ("Home", "ArrowUp", "ArrowUp", "ArrowDown"):
            tab.keyboard.press(key)
        assert control(viewer, "Slice").input_value() == "1"
        assert tab.evaluate("window.jupyterapp.shell.currentWidget.content.activeCellIndex") == cell

        slider = control(viewer, "Slice")  # the sliders themselves, too
        slider.focus()
        tab.keyboard.press("ArrowRight")
        assert slider.input_value() == "2"
        control(viewer, "Window").select_option("everything")
        control(viewer, "Divider").fill("0")
        row, column = size // 2, size // 3
        true, fake = (
            int(np.rint(float(ask(tab, f"float({name}[2, {row}, {column}])"))))
            for name in ("truth.ct_hu", "fake_hu")
        )
        grey = int(np.floor(255 * np.clip(fake / 2000 + 0.5, 0, 1) + 0.5))
        assert pixels(canvas)[row, column].tolist() == [grey] * 3
        box = scroll_to(canvas)
        tab.mouse.move(
            box["x"] + (column + 0.5) * box["width"] / size,
            box["y"] + (row + 0.5) * box["height"] / size,
        )
        assert (
            f"row {row}, column {column}: real {true} HU · translated {fake} HU"
            in viewer.locator(".reading").inner_text()
        )
        viewer.screenshot(path=screenshots / "lab_explorer.png")
        tab.screenshot(path=screenshots / "lab_light.png")

        # what the reader chose comes back to the kernel
        viewer.get_by_label("Difference", exact=True).check()
        tab.wait_for_timeout(300)
        widgets = (
            "[w.state for w in __import__('ipywidgets').Widget.widgets.values() if hasattr(w, "
            "'spec') and 'table' in w.spec][0]"
        )
        assert (
            ask(tab, f"({widgets}['mode'], {widgets}['slice'], {widgets}['width'])")
            == "('difference', 2, 2000)"
        )
        control(viewer, "Level").fill("-100")  # by a slider alone, too
        tab.wait_for_timeout(300)
        assert ask(tab, f"{widgets}['level']") == "-100"

        tab.evaluate(
            "window.jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab "
            "Dark' })"
        )
        tab.wait_for_function("document.body.dataset.jpThemeLight === 'false'")
        tab.wait_for_timeout(500)
        tab.screenshot(path=screenshots / "lab_dark.png")


def test_without_a_chromium_the_tests_fail_and_say_what_to_run(finder, monkeypatch):
    tried = []
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        pytest.fail.Exception, match="run `python -m playwright install --with-deps chromium`"
    ):
        finder("nowhere/chrome", run=lambda command, **_: tried.append(command))
    assert tried[0][1:] == ["-m", "playwright", "install", "chromium"]

"""A JupyterLab of its own for tests: a server, a tab in it, and questions to its kernel."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = (
    "--ip=127.0.0.1",
    "--no-browser",
    "--ServerApp.port_retries=0",
    "--ServerApp.allow_root=True",
    "--LabApp.expose_app_in_browser=True",
    "--LabApp.extension_manager=readonly",
)
FOLDERS = {
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "IPYTHONDIR": "ipython",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    "CTMRI_BUILD": "build",
}
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    # Every cell stays in the page.
    "notebook-extension/tracker": {"windowingMode": "none"},
}
OPEN = "() => window.jupyterapp?.shell.currentWidget?.context?.isReady"
IDLE = """() => window.jupyterapp.shell.currentWidget.sessionContext?.session?.kernel?.status
    === "idle" """
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


class Lab:
    """A JupyterLab that shows the notebooks of its folder `work`, in tabs that `new_tab` opens."""

    def __init__(self, home: Path, new_tab):
        self.work = home / "work"
        self.new_tab = new_tab
        self.tabs = []
        self.token = secrets.token_hex(16)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self.log = home / "log"
        options = (
            *OPTIONS,
            f"--port={port}",
            f"--IdentityProvider.token={self.token}",
            f"--ServerApp.root_dir={self.work}",
            f"--LabApp.app_settings_dir={home / 'defaults'}",
        )
        with open(self.log, "wb") as log:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "jupyter", "lab", *options],
                env=environment(home),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self):
        """Wait until the server answers."""
        for _ in range(900):
            assert self.server.poll() is None, self.log.read_text()
            with contextlib.suppress(OSError):
                address = f"{self.address}/api/status?token={self.token}"
                urllib.request.urlopen(address, timeout=2).close()
                return
            time.sleep(0.1)
        raise TimeoutError(self.log.read_text())

    def stop(self):
        # A tab that loses its server complains.
        for tab in self.tabs:
            tab.close()
        # On SIGTERM the server stops its kernels.
        self.server.send_signal(signal.SIGTERM)
        try:
            self.server.wait(20)
        except subprocess.TimeoutExpired:
            self.server.kill()
            self.server.wait()

    def open(self, name: str):
        tab = self.new_tab()
        self.tabs.append(tab)
        tab.goto(f"{self.address}/lab/tree/{name}?token={self.token}")
        tab.wait_for_function(OPEN, timeout=90_000)
        return tab

    def run(self, tab):
        """Run all cells; an error in one of them is raised."""
        tab.wait_for_function(IDLE, timeout=90_000)
        tab.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
        tab.wait_for_function(FINISHED, timeout=300_000)

    def close(self, tab):
        """Save the notebook, end its kernel and close the tab."""
        tab.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
        tab.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        tab.close()


def environment(home: Path) -> dict[str, str]:
    """The environment variables of a server that keeps all of its files in a folder."""
    for name, setting in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(setting))
    defaults = home / "defaults" / "overrides.d"
    defaults.mkdir(parents=True)
    shutil.copy(ROOT / "ctmri_utils" / "viewers" / "ctmri-utils.json", defaults)
    folders = {name: str(home / folder) for name, folder in FOLDERS.items()}
    variables = {**os.environ, **folders, "PYTHONPATH": str(ROOT), "JUPYTER_PREFER_ENV_PATH": "1"}
    variables["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    variables.pop("MPLBACKEND", None)
    return variables


@contextlib.contextmanager
def jupyterlab(home: Path, new_tab, **notebooks):
    """A `Lab` with the notebooks, by their names without ending."""
    (home / "work").mkdir()
    for name, notebook in notebooks.items():
        nbformat.write(notebook, home / "work" / f"{name}.ipynb")
    lab = Lab(home, new_tab)
    try:
        lab.wait()
        yield lab
    finally:
        lab.stop()


def ask(tab, expression: str) -> str:
    """What the kernel answers, as text."""
    return tab.evaluate(ASK, expression)


def check_it_is_live(frame, ready_ms=60_000):
    """The viewer in the frame answers, and the frame is as high as it."""
    page = frame.content_frame
    page.locator(".ctmri[data-ready]").wait_for(timeout=ready_ms)
    slider = page.locator("input[type=range]:visible").first
    slider.focus()
    before = slider.input_value()
    slider.press("ArrowRight")
    assert slider.input_value() != before
    inside = page.locator("html").evaluate("root => root.offsetHeight")
    assert frame.bounding_box()["height"] == pytest.approx(inside, abs=2)

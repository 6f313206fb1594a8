"""A real Chromium for the tests of the viewers; never skipped.

Where none can be had, the tests fail with the command to run.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

# A busy machine is slow, not wrong.
expect.set_options(timeout=60_000)

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]
LOCAL = ("file:", "data:", "blob:", "about:", "http://127.0.0.1:", "ws://127.0.0.1:")


def find_chromium(own: str, run=subprocess.run) -> str:
    """On the PATH, else Playwright's own download (at `own`), else Debian's package when root."""
    attempts = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        attempts += [["apt-get", "update"], ["apt-get", "install", "-y", "chromium"]]
    for attempt in [None, *attempts]:
        if attempt:
            run(attempt, capture_output=True)
        for found in (*map(shutil.which, NAMES), own if Path(own).is_file() else None):
            if found:
                return found
    pytest.fail(
        "no Chromium was found and none could be installed: run `python -m playwright install "
        "--with-deps chromium`"
    )


@pytest.fixture
def finder():
    return find_chromium


@pytest.fixture(scope="session")
def chrome():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(playwright.chromium.executable_path), args=QUIET
        )
        yield browser
        browser.close()


@pytest.fixture
def new_tab(chrome):
    """Opens tabs that reach this machine only.

    Asking for anything else, and any error in a page, fails the test at its end.
    """
    contexts, complaints = [], []

    def open_tab(**options):
        def refuse(route):
            if route.request.url.startswith(LOCAL):
                return route.continue_()
            complaints.append(f"asked for {route.request.url}")
            route.abort()

        contexts.append(chrome.new_context(viewport={"width": 1100, "height": 950}, **options))
        tab = contexts[-1].new_page()
        tab.route("**/*", refuse)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        return tab

    yield open_tab
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def open_page(new_tab, tmp_path):
    """Opens a viewer's saved page in a tab, once its slices are drawn."""

    def open_page(made, **options):
        made.save(tmp_path / "page.html")
        tab = new_tab(**options)
        tab.goto((tmp_path / "page.html").as_uri())
        tab.wait_for_selector(".ctmri[data-ready]", timeout=20_000)
        return tab

    return open_page


@pytest.fixture(scope="session")
def screenshots():
    folder = ROOT / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder

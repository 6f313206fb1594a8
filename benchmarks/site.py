"""How fast the site's pages load from disk, and a viewer steps through slices of 256 x 256.

    make site && python benchmarks/site.py build/site

A step is processor time of the page's thread, which other programs hardly change; loading is what a
reader waits, so it needs a quiet machine. `make site` itself is timed by `time make site`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from playwright.sync_api import CDPSession, Page, sync_playwright

from ctmri_utils.viewers.viewer import compare

SLICES = 64
STEPS = 60
WAITED = "performance.getEntriesByType('navigation')[0].loadEventEnd / 1000"
STEP = """steps => {
  const canvas = document.querySelector("canvas");
  for (let k = 0; k < steps; k++) {
    canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowUp", bubbles: true }));
    // Reading a pixel makes the browser finish the picture.
    canvas.getContext("2d").getImageData(0, 0, 1, 1);
  }
}"""


def processor_s(session: CDPSession, action: Callable) -> float:
    """Seconds that the page's thread works while something is done."""
    task_s = []
    for done in (lambda: None, action):
        done()
        metrics = session.send("Performance.getMetrics")["metrics"]
        task_s += [one["value"] for one in metrics if one["name"] == "TaskDuration"]
    return task_s[1] - task_s[0]


def time_pages(tab: Page, site: Path) -> None:
    for page in sorted(site.rglob("*.html")):
        if "_static" not in page.parts:
            tab.goto(page.as_uri())
            name = page.relative_to(site).as_posix()
            print(f"loading {name:50s} {tab.evaluate(WAITED):6.2f} s", flush=True)


def time_viewer(tab: Page, session: CDPSession) -> None:
    slices = np.random.default_rng(0).integers(-100, 100, (SLICES, 256, 256))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "page.html")
        compare(slices, slices[::-1], alt="noise").save(path)
        tab.goto(path.as_uri())
        tab.wait_for_selector(".ctmri[data-ready]", timeout=60_000)

    for key, mode in (("1", "wipe"), ("2", "side by side"), ("4", "difference")):
        tab.locator("canvas").press(key)
        step_ms = 1000 * processor_s(session, lambda: tab.evaluate(STEP, STEPS)) / STEPS
        print(f"one slice further, {mode:39s} {step_ms:6.1f} ms", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path, help="the folder that `make site` has made")
    parser.add_argument("--chromium", help="its program, if Playwright has none of its own")
    options = parser.parse_args()

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=options.chromium, args=["--no-sandbox"]
        )
        tab = browser.new_page(viewport={"width": 1440, "height": 900})
        session = tab.context.new_cdp_session(tab)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        time_viewer(tab, session)
        time_pages(tab, options.site.resolve())
        browser.close()


if __name__ == "__main__":
    main()

"""Saved pages in a real browser without a network.

Every pixel against NumPy, keys, mouse, windows, read-outs, times.
"""

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ctmri_utils.machine import data_folder
from ctmri_utils.scans.folders import folder_scans
from ctmri_utils.units import HU
from ctmri_utils.viewers import viewer
from ctmri_utils.windows import WINDOWS, Window

N, H, W = 4, 26, 21  # odd and not square on purpose
REAL = np.random.default_rng(0).integers(-1000, 1500, (N, H, W))
FAKE = REAL + np.random.default_rng(1).integers(-700, 700, (N, H, W))
READ = """() => { const c = document.querySelector(".ctmri canvas");
  const image = c.getContext("2d").getImageData(0, 0, c.width, c.height);
  return [c.height, c.width, Array.from(image.data)]; }"""


def rounded(values):
    return np.floor(values + 0.5)


def grey(hu, window=WINDOWS["brain"]):
    return rounded(255 * window.apply(hu))[..., None].repeat(3, -1)


def difference(real, fake, limit):
    error = ((fake - real) / limit).clip(-1, 1)
    colours = [1 - (-error).clip(0), 1 - np.abs(error), 1 - error.clip(0)]
    return rounded(255 * np.stack(colours, -1))


def wiped(real, fake, split):
    return np.concatenate([grey(real)[:, :split], grey(fake)[:, split:]], 1)


def pixels(tab):
    height, width, values = tab.evaluate(READ)
    shown = np.array(values).reshape(height, width, 4)
    assert (shown[..., 3] == 255).all()
    return shown[..., :3]


def control(tab, name):
    return tab.locator(f".controls label:has(span:text-is('{name}'))").locator("input, select")


def mode(tab, name):
    tab.get_by_label(name, exact=True).check()


def text(tab, selector):
    return tab.locator(selector).inner_text()


def press(tab, *keys):
    for key in keys:
        tab.keyboard.press(key)


@pytest.fixture
def tab(open_page):
    return open_page(viewer.compare(REAL, FAKE, alt="noise, and noise on noise", spacing_mm=2.0))


def test_wipe_is_numpy_s_to_the_last_pixel(tab):
    for position in (0, 37, 50, 100):
        control(tab, "Divider").fill(str(position))
        split = int(rounded(W * position / 100))
        assert np.array_equal(pixels(tab), wiped(REAL[0], FAKE[0], split))


def test_side_by_side_blend_and_checkerboard_are_numpy_s(tab):
    mode(tab, "Side by side")
    gap = np.full((H, 2, 3), 128)
    expected = np.concatenate([grey(REAL[0]), gap, grey(FAKE[0])], 1)
    assert np.array_equal(pixels(tab), expected)
    mode(tab, "Blend")
    control(tab, "Share of the second").fill("30")
    blended = rounded((70 * grey(REAL[0]) + 30 * grey(FAKE[0])) / 100)
    assert np.array_equal(pixels(tab), blended)
    mode(tab, "Checkerboard")
    control(tab, "Square").fill("100")  # squares of a quarter of the width
    y, x = np.indices((H, W)) // int(rounded(W / 4))
    squares = np.where(((x + y) % 2)[..., None], grey(FAKE[0]), grey(REAL[0]))
    assert np.array_equal(pixels(tab), squares)


def test_difference_is_numpy_s_and_its_limit_follows_the_slider(tab):
    mode(tab, "Difference")
    assert np.array_equal(pixels(tab), difference(REAL[0], FAKE[0], 500))
    control(tab, "Full colour at").fill("90")
    assert np.array_equal(pixels(tab), difference(REAL[0], FAKE[0], 100))


def test_uncertainty_is_drawn_in_orange_and_read_under_the_pointer(open_page):
    uncertainty = np.random.default_rng(2).integers(0, 400, (N, H, W))
    uncertainty[0, 3, 17], uncertainty[0, 3, 16] = 0, 350  # none, and more than the limit
    tab = open_page(viewer.compare(REAL, FAKE, alt="noise", uncertainty=uncertainty))
    tab.locator("canvas").focus()
    press(tab, "7")
    for position, limit in ((50, 200), (75, 100)):
        control(tab, "Full colour at").fill(str(position))
        share = (uncertainty[0] / limit).clip(0, 1)[..., None]
        orange = np.array([230, 159, 0])
        shown = pixels(tab)
        assert np.array_equal(shown, rounded(grey(FAKE[0]) * (1 - share) + orange * share))
        assert np.array_equal(shown[3, 17], grey(FAKE[0])[3, 17])
        assert np.array_equal(shown[3, 16], orange)
    assert text(tab, ".first") == "translated" and "orange" in text(tab, ".status")
    tab.mouse.move(*point(tab, 3, 16))
    read = f"real {REAL[0, 3, 16]} HU · translated {FAKE[0, 3, 16]} HU · uncertainty 350 HU"
    assert read in text(tab, ".reading")
    mode(tab, "Side by side")
    assert pixels(tab).shape[1] == 2 * W + 2  # two panes, not three


def test_keys_change_slice_position_mode_window_and_zoom(tab):
    canvas = tab.locator("canvas")
    canvas.focus()
    press(tab, "ArrowUp", "ArrowUp", "ArrowDown")
    assert control(tab, "Slice").input_value() == "1"

    # Nothing lies beyond the last slice.
    press(tab, "End", "ArrowUp", "Shift+ArrowRight")
    assert np.array_equal(pixels(tab), wiped(REAL[-1], FAKE[-1], int(rounded(W * 0.6))))

    press(tab, "4", "Home", "3", "w", *["ArrowLeft"] * 11, *["Shift+ArrowLeft"] * 6)
    assert control(tab, "Window").input_value() == "subdural"
    # a blend with nothing of the second
    assert np.array_equal(pixels(tab), grey(REAL[0], WINDOWS["subdural"]))
    press(tab, "+")
    y, x = (H // 2 - H // 4 + np.arange(H) // 2), (W // 2 - W // 4 + np.arange(W) // 2)
    assert np.array_equal(pixels(tab), grey(REAL[0], WINDOWS["subdural"])[y][:, x])
    press(tab, "0")
    assert np.array_equal(pixels(tab), grey(REAL[0], WINDOWS["subdural"]))


def test_the_ways_of_comparing_are_one_group_for_the_keyboard(tab):
    tab.get_by_label("Wipe", exact=True).focus()
    press(tab, "ArrowRight")
    assert tab.locator(".ctmri").get_attribute("data-mode") == "side"
    assert tab.locator(".modes input:checked").count() == 1


def test_a_picture_stands_before_the_viewer(tab):
    picture = tab.locator("body > img")
    assert picture.evaluate("p => p.complete && p.naturalWidth > 300")
    assert picture.get_attribute("alt") == "noise, and noise on noise"
    assert picture.bounding_box()["y"] < tab.locator("canvas").bounding_box()["y"]


def test_level_and_width_act_on_hounsfield_units(tab):
    mode(tab, "Side by side")
    for name, window in WINDOWS.items():
        control(tab, "Window").select_option(name)
        assert np.array_equal(pixels(tab)[:, :W], grey(REAL[0], window))
    control(tab, "Level").fill("-200")
    control(tab, "Width").fill("900")
    assert np.array_equal(pixels(tab)[:, W + 2 :], grey(FAKE[0], Window(-200, 900)))
    assert control(tab, "Window").input_value() == "own"  # a window of one's own


def point(tab, row, column, panes=1):
    """Where a pixel of the canvas lies on the screen."""
    box = tab.locator("canvas").bounding_box()
    columns = panes * W + 2 * (panes - 1)
    x = box["x"] + (column + 0.5) * box["width"] / columns
    return x, box["y"] + (row + 0.5) * box["height"] / H


def drag(tab, start, end, button="left"):
    tab.mouse.move(*start)
    tab.mouse.down(button=button)
    tab.mouse.move(*end)
    tab.mouse.up(button=button)


def test_the_pointer_reads_hounsfield_units(tab):
    tab.mouse.move(*point(tab, 3, 17))
    real, fake = REAL[0, 3, 17], FAKE[0, 3, 17]
    values = f"real {real} HU · translated {fake} HU · difference {fake - real:+} HU"
    assert text(tab, ".reading") == f"row 3, column 17: {values}"

    # The pointer rests, and what lies under it changes.
    tab.locator("canvas").focus()
    press(tab, "ArrowUp")
    assert f"real {REAL[1, 3, 17]} HU · translated {FAKE[1, 3, 17]} HU" in text(tab, ".reading")
    press(tab, "ArrowDown")
    mode(tab, "Side by side")
    tab.mouse.move(*point(tab, 3, W + 2 + 17, panes=2))  # the same place in the second pane
    assert text(tab, ".reading") == f"row 3, column 17: {values}"
    tab.mouse.move(0, 0)
    assert text(tab, ".reading").strip() == ""


def test_mouse_drags_the_divider_the_zoomed_picture_and_the_window(tab):
    drag(tab, point(tab, 5, 10), point(tab, 5, 4))
    assert control(tab, "Divider").input_value() == "21"  # (4 + 0.5) of 21 columns, in %

    mode(tab, "Blend")
    tab.locator("canvas").focus()
    press(tab, "+")
    control(tab, "Share of the second").fill("0")
    before = pixels(tab)
    # Two of the picture's columns to the left.
    drag(tab, point(tab, 5, 10), point(tab, 5, 6))
    assert np.array_equal(pixels(tab)[:, :-4], before[:, 4:])

    x, y = point(tab, 5, 10)
    drag(tab, (x, y), (x + 20, y - 10), button="right")
    assert control(tab, "Width").input_value() == "100"
    assert control(tab, "Level").input_value() == "50"


def test_wheel_changes_the_slice_only_once_the_picture_was_clicked(tab):
    tab.mouse.move(*point(tab, 5, 10))
    tab.mouse.wheel(0, 100)
    assert control(tab, "Slice").input_value() == "0"
    tab.mouse.down()
    tab.mouse.up()
    tab.mouse.wheel(0, 100)
    tab.wait_for_function("document.querySelector('.status').textContent.includes('slice 2 of')")


def changes_in_two_seconds(tab):
    seen = tab.evaluate("""async () => { const c = document.querySelector("canvas"), seen = [];
        const start = performance.now();
        while (performance.now() - start < 2000) {
          seen.push(c.toDataURL());
          await new Promise((ok) => setTimeout(ok, 20));
        }
        return seen; }""")
    return sum(one != other for one, other in zip(seen, seen[1:]))


def test_flicker_swaps_by_itself_at_most_three_times_a_second_and_by_hand(tab):
    mode(tab, "Flicker")
    control(tab, "Changes a second").fill("100")
    assert 3 <= changes_in_two_seconds(tab) <= 6
    tab.locator("canvas").focus()
    press(tab, "Space")
    first = pixels(tab)
    press(tab, "Space")
    shown = [first, pixels(tab)]
    if np.array_equal(first, grey(FAKE[0])):
        shown.reverse()
    assert np.array_equal(shown, [grey(REAL[0]), grey(FAKE[0])])


def test_reduced_motion_keeps_the_flicker_still(open_page):
    tab = open_page(viewer.compare(REAL, FAKE, alt="noise"), reduced_motion="reduce")
    mode(tab, "Flicker")
    assert changes_in_two_seconds(tab) == 0


def marks(tab):
    sides = ("left", "right", "top", "bottom")
    return "".join(text(tab, f".pane .{side}") for side in sides)


def test_scale_bar_and_marks_tell_size_and_side(tab):
    canvas, bar = (tab.locator(name).bounding_box()["width"] for name in ("canvas", ".bar"))
    length = float(text(tab, ".bar").removesuffix(" mm"))
    # whole screen pixels
    assert bar / canvas * W * 2.0 == pytest.approx(length, rel=0.02)
    assert marks(tab) == "RLAP"


def test_a_volume_is_cut_in_three_planes(open_page):
    tab = open_page(viewer.browse(REAL, alt="a volume of noise", spacing_mm=(3.0, 1.0, 2.0)))
    # CT opens in two windows; the planes are looked at in one.
    tab.locator(".modes input[value=single]").check()
    assert np.array_equal(pixels(tab), grey(REAL[0]))
    control(tab, "Plane").select_option("coronal")
    control(tab, "Slice").fill("7")
    assert np.array_equal(pixels(tab), grey(REAL[::-1, 7]))  # the highest slice on top
    box = tab.locator("canvas").bounding_box()
    assert box["width"] / box["height"] == pytest.approx(W * 2 / (N * 3), rel=0.02)
    control(tab, "Plane").select_option("sagittal")
    control(tab, "Slice").fill("9")
    assert np.array_equal(pixels(tab), grey(REAL[::-1, :, 9]))
    assert marks(tab) == "APSI"


def test_window_level_shows_what_a_window_hides(open_page):
    tab = open_page(viewer.window_level(REAL, alt="noise in two windows"))
    control(tab, "Window").select_option("bone")
    shown = pixels(tab)
    assert np.array_equal(shown[:, :W], grey(REAL[0], WINDOWS["bone"]))
    assert np.array_equal(shown[:, W + 2 :], grey(REAL[0], WINDOWS["everything"]))


def test_mr_and_ct_keep_their_own_windows_and_units(open_page):
    mri = np.linspace(0, 400, N * H * W).reshape(N, H, W)
    tab = open_page(viewer.compare(mri, FAKE, alt="MR and CT", units=("MR unit", "HU")))
    names = tab.locator(".modes label").all_inner_texts()
    assert names == ["Wipe", "Side by side", "Blend", "Checkerboard", "Flicker"]
    mode(tab, "Side by side")
    before = pixels(tab)
    control(tab, "Window").select_option("bone")
    assert np.array_equal(pixels(tab)[:, :W], before[:, :W])
    assert np.array_equal(pixels(tab)[:, W + 2 :], grey(FAKE[0], WINDOWS["bone"]))
    tab.mouse.move(*point(tab, 25, 20, panes=2))
    shown = re.search(r"real ([\d.]+) MR unit · translated", text(tab, ".reading"))
    # stored in steps of 400 / 4095
    assert float(shown[1]) == pytest.approx(mri[0, 25, 20], abs=0.1)


METRICS = ["MAE HU", "bone Dice"]


def explorer(errors, metrics=METRICS):
    """Of patients with these MAE, and a Dice that rises with them."""
    rows = [("net", name, "MAE HU", mae) for name, mae in errors.items()]
    rows += [("net", name, "bone Dice", mae / 300) for name, mae in errors.items()]
    scores = pd.DataFrame(rows, columns=["method", "patient", "metric", "value"])
    options = {"method": "net", "metrics": metrics, "alt": "noise of four"}
    return viewer.error_explorer(scores, REAL, FAKE, list(errors), **options)


def test_explorer_starts_with_the_worst_and_follows_table_and_scatter(open_page):
    errors = {"anna": 90.0, "ben": 200.0, "cleo": float("inf"), "dora": float("nan")}
    tab = open_page(explorer(errors))
    # not scored: last
    assert tab.locator("tbody td:first-child").all_inner_texts() == ["cleo", "ben", "anna", "dora"]
    lines = tab.locator("tbody tr")
    assert [line.split() for line in lines.all_inner_texts()] == [
        ["cleo", "∞", "∞"],
        ["ben", "200", "0.667"],
        ["anna", "90", "0.3"],
        ["dora", "–", "–"],
    ]
    chosen = tab.locator("td button[aria-current=true]")
    assert chosen.all_inner_texts() == ["cleo"] and tab.locator(".dot").count() == 2
    control(tab, "Divider").fill("100")
    tab.get_by_role("button", name="ben").click()
    assert np.array_equal(pixels(tab), grey(REAL[1])) and chosen.all_inner_texts() == ["ben"]
    tab.locator(".dot[data-case=anna]").click()
    assert np.array_equal(pixels(tab), grey(REAL[0])) and "anna" in text(tab, ".status")
    anna, ben = (tab.locator(f".dot[data-case={name}]").bounding_box() for name in ("anna", "ben"))
    # 90 HU lies left of 200 HU, and 0.3 below 0.667
    assert anna["x"] < ben["x"] and anna["y"] > ben["y"]


def test_explorer_of_one_metric_has_no_scatter(open_page):
    errors = {"anna": 90.0, "ben": 200.0, "cleo": 120.0, "dora": 100.0}
    tab = open_page(explorer(errors, METRICS[:1]))
    assert tab.locator("tbody tr").count() == 4 and not tab.locator(".plot").is_visible()


def test_strips_of_a_training_follow_the_slider(open_page, tmp_path):
    for step, value in ((10, 40), (20, 200)):
        Image.fromarray(np.full((12, 30), value, np.uint8)).save(tmp_path / f"step-{step:06d}.png")
    tab = open_page(viewer.training_strip(tmp_path, alt="two strips"))
    assert (pixels(tab) == 40).all() and text(tab, ".status") == "step 10"
    control(tab, "Slice").fill("1")
    assert (pixels(tab) == 200).all() and text(tab, ".status") == "step 20"


@pytest.mark.parametrize(
    "stack",
    [np.zeros((1, 8, 8)), np.full((8, 8), 40), np.full((3, 1, 1), 1e6), np.zeros((10_000, 4, 4))],
    ids=["one slice", "no stack", "beyond int16", "10,000 slices"],
)
def test_odd_but_honest_slices_give_a_picture(open_page, stack):
    tab = open_page(viewer.compare(stack, stack, alt="nothing much"))
    assert np.array_equal(pixels(tab), grey(np.atleast_3d(stack.T).T[0].clip(-32768, 32767)))
    tab = open_page(viewer.browse(stack, unit="MR unit", alt="nothing much"))
    assert len(np.unique(pixels(tab))) == 1


def test_64_slices_of_256_pixels_load_and_step_quickly(open_page):
    """By the processor time of the page's own thread, which other programs on the machine do not
    change.
    """
    real = np.random.default_rng(0).integers(-100, 100, (64, 256, 256))
    tab = open_page(viewer.compare(real, real[::-1], alt="much noise"))
    session = tab.context.new_cdp_session(tab)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def work_s():
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(one["value"] for one in metrics if one["name"] == "TaskDuration")

    def worked_s(action):
        before = work_s()
        action()
        return work_s() - before

    def load():
        tab.reload()
        tab.wait_for_selector(".ctmri[data-ready]")

    # six slices in each of five ways of comparing
    def step():
        tab.evaluate("""async () => { const c = document.querySelector("canvas");
            const pixel = () => c.getContext("2d").getImageData(0, 0, 256, 256).data.join();
            const press = (key) =>
              c.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
            for (const key of ["1", "2", "3", "4", "5"]) {
              press(key);
              const before = pixel();
              for (let k = 0; k < 6; k++) press("ArrowUp");
              if (pixel() === before) throw new Error("nothing changed");
            } }""")

    loaded_s, step_ms = worked_s(load), 1000 * worked_s(step) / 30
    assert 0 < loaded_s < 2 and 0 < step_ms < 50, (
        f"{loaded_s:.2f} s of work to load, {step_ms:.1f} ms a step"
    )


@pytest.mark.parametrize(("scheme", "letters"), [("light", 0), ("dark", 255)])
def test_screenshots(open_page, screenshots, scheme, letters):
    ct_hu = HU.from_network(folder_scans(data_folder() / "scans", 128).test.ct[:, 0].numpy())
    pair = {"alt": "CT slices, and the same with less contrast", "spacing_mm": 1.7}
    made = viewer.compare(ct_hu, ct_hu * 0.9 + 20, uncertainty=(ct_hu / 5).clip(0), **pair)
    tab = open_page(made, color_scheme=scheme)
    for name in ("Wipe", "Difference", "Uncertainty"):
        mode(tab, name)
        tab.screenshot(path=screenshots / f"page_{scheme}_{name.lower()}.png", full_page=True)
    colour = tab.evaluate("getComputedStyle(document.querySelector('.status')).color")
    assert colour == f"rgb({letters}, {letters}, {letters})"


def test_slices_that_cannot_be_read_are_said_to_be_so(new_tab, tmp_path):
    made = viewer.browse(REAL, alt="noise, and half of it missing")
    made.data = made.data[: len(made.data) // 2]
    made.save(tmp_path / "page.html")
    tab = new_tab()
    tab.goto((tmp_path / "page.html").as_uri())
    tab.get_by_text("The slices could not be read: TypeError").wait_for()
    assert tab.locator(".ctmri").count() == 0  # no controls that move nothing

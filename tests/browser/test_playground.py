"""The CycleGAN to play with: its steps against torch and this package, and its page in Chromium."""

import json
import re

import pytest
import torch
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import expect
from torch import nn

from ctmri_utils.cyclegan import CycleGAN
from ctmri_utils.settings import Architecture, Objective, Training
from ctmri_utils.viewers.html_pages import joined
from ctmri_utils.viewers.playground_page import playground

ENGINE = joined("numbers.mjs", "playground_cyclegan.mjs", "playground_clouds.mjs")
NETWORKS = ("G_ct2mri", "G_mri2ct", "D_ct", "D_mri")
TRAIN = """([seed, steps, settings]) => {
  const [ct, mri] = [shapedCloud("ct", "line"), shapedCloud("mri", "S")];
  const model = new PointCycleGAN(seed);
  const weights = () => Object.fromEntries(
    ["G_ct2mri", "G_mri2ct", "D_ct", "D_mri"].map((name) => [name, [...model[name].weights]]));
  const start = weights();
  const losses = [];
  for (let k = 0; k < steps; k++) losses.push(model.step(ct, mri, settings));
  const { verdict } = measure(model, ct, mri);
  return JSON.stringify({ ct: [...ct], mri: [...mri], start, end: weights(), losses, verdict });
}"""


@pytest.fixture
def train(new_tab):
    """Trains in the browser without drawing: (seed, steps, weights of the losses) -> what came."""
    tab = new_tab()
    tab.add_script_tag(content=ENGINE)

    def train(seed, steps, cycle, identity, rate=0.002):
        settings = {"cycle": cycle, "identity": identity, "rate": rate}
        return json.loads(tab.evaluate(TRAIN, [seed, steps, settings]))

    return train


def mlp(outputs, weights):
    """A network of the playground in torch, for "images" (N, 2, 1, 1)."""
    layers = []
    for inputs, width in ((2, 16), (16, 16), (16, outputs)):
        layers += [nn.Linear(inputs, width), nn.LeakyReLU(0.2)]
    network = nn.Sequential(nn.Flatten(), *layers[:-1], nn.Unflatten(1, (outputs, 1, 1)))
    nn.utils.vector_to_parameters(torch.tensor(weights), network.parameters())
    return network


def images(points):
    return torch.tensor(points).reshape(-1, 2, 1, 1)


def close(one, other):
    return torch.allclose(torch.as_tensor(one), torch.as_tensor(other), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("cycle", "identity"), [(10, 5), (1, 0), (0, 0)])
def test_its_steps_are_this_package_s_in_torch(train, cycle, identity):
    torch.set_default_dtype(torch.float64)
    try:
        theirs = train(seed=3, steps=5, cycle=cycle, identity=identity)
        objective = Objective(cycle_ct=cycle, cycle_mri=cycle, identity=identity, pool_size=0)
        channels = {"ct_channels": 2, "mri_channels": 2, "norm": "none"}
        model = CycleGAN(Architecture(ngf=1, ndf=1, n_blocks=0, **channels), objective)
        for name in NETWORKS:
            outputs = 2 if name.startswith("G") else 1
            setattr(model, name, mlp(outputs, theirs["start"][name]))

        betas = (Training().beta1, Training().beta2)
        optimizers = [
            torch.optim.Adam(weights, lr=0.002, betas=betas)
            for weights in (model.generator_parameters, model.discriminator_parameters)
        ]
        for expected in theirs["losses"]:
            step = model.training_step(images(theirs["ct"]), images(theirs["mri"]))
            assert all(close(expected[name], loss) for name, loss in step.losses.items())
            for optimizer in optimizers:
                optimizer.zero_grad()
            (step.generator_loss + step.discriminator_loss).backward()
            for optimizer in optimizers:
                optimizer.step()

        for name in NETWORKS:
            weights = nn.utils.parameters_to_vector(getattr(model, name).parameters())
            assert close(theirs["end"][name], weights)
            assert not close(theirs["start"][name], weights)
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_same_seed_gives_the_same_digits_and_another_seed_others(train):
    assert train(1, 20, 1, 1)["end"] == train(1, 20, 1, 1)["end"]
    assert train(1, 20, 1, 1)["end"] != train(2, 20, 1, 1)["end"]


@pytest.fixture
def page(new_tab, tmp_path):
    playground().save(tmp_path / "playground.html")

    def open_page(**options):
        tab = new_tab(**options)
        tab.goto((tmp_path / "playground.html").as_uri())
        return tab

    return open_page


def press(tab, name):
    tab.locator(f"button[name={name}]").click()


def status(tab):
    return tab.get_by_role("status").inner_text()


def set_weight(tab, name, value):
    """By keys alone, down to 0 and up to the value."""
    slider = tab.locator(f"input[name={name}]")
    slider.focus()
    tab.keyboard.press("Home")
    while slider.get_attribute("aria-valuetext") != value:
        tab.keyboard.press("ArrowRight")


@pytest.mark.timeout(300)
def test_a_reader_makes_it_mirror_by_keys_alone(page, screenshots):
    tab = page()
    set_weight(tab, "cycle", "0.3")
    set_weight(tab, "identity", "0")
    for name in ("seed", "run"):
        tab.locator(f"button[name={name}]").focus()
        tab.keyboard.press("Enter")

    marks = tab.locator(".mark")
    expect(marks.nth(0)).to_have_text("✓", timeout=240_000)
    press(tab, "run")
    assert "the arrows are mirrored both ways" in status(tab)
    assert marks.all_inner_texts() == ["✓", "", "✓ smallest so far: 0.3"]
    tab.screenshot(path=screenshots / "playground.png", full_page=True)


@pytest.mark.parametrize(
    ("cycle", "identity", "verdicts"),
    [
        # The tasks of the page, from seeds 1 and 2; without the identity loss the seed decides.
        (1, 0, ["ordered", "mirrored"]),
        (1, 1, ["ordered", "ordered"]),
        (0, 0, ["collapsed", "collapsed"]),
    ],
)
def test_the_tasks_can_be_solved_as_the_page_says(train, cycle, identity, verdicts):
    found = [train(seed, 1000, cycle, identity)["verdict"] for seed in (1, 2)]
    assert found == verdicts


def test_steps_by_hand_repeat_after_a_new_start(page):
    tab = page()
    assert status(tab) == "Seed 1, step 0: nothing is learned yet."
    tab.locator("button[name=step]").focus()
    for _ in range(3):
        tab.keyboard.press("Enter")
    assert "step 3" in status(tab)
    losses = tab.locator(".legend").inner_text()

    press(tab, "reset")
    assert "step 0" in status(tab)
    for _ in range(3):
        press(tab, "step")
    assert tab.locator(".legend").inner_text() == losses

    press(tab, "seed")
    assert "Seed 2, step 0" in status(tab)
    for _ in range(3):
        press(tab, "step")
    assert tab.locator(".legend").inner_text() != losses


def test_slow_motion_makes_four_steps_a_second(page):
    tab = page()
    tab.clock.install(time=0)
    tab.clock.pause_at(60_000)
    tab.get_by_label("Slow motion").check()
    press(tab, "run")
    tab.clock.run_for(5_000)
    press(tab, "run")
    steps = int(re.search(r"step (\d+)", status(tab))[1])
    assert 18 <= steps <= 21


def test_a_finger_draws_a_cloud_on_a_narrow_screen(page, screenshots):
    tab = page(has_touch=True, color_scheme="dark")
    tab.set_viewport_size({"width": 390, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    canvas = tab.locator("[data-from=ct] canvas")
    assert canvas.evaluate("c => getComputedStyle(c).touchAction") != "none"
    tab.get_by_label("CT cloud").select_option("my drawing")
    assert "Draw one line into the picture CT → MR" in status(tab)

    # The finger neither scrolls the page nor keeps the old cloud.
    assert canvas.evaluate("c => getComputedStyle(c).touchAction") == "none"
    before = canvas.evaluate("c => c.toDataURL()")
    press(tab, "step")
    box = canvas.bounding_box()
    tab.mouse.move(box["x"] + 40, box["y"] + 40)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 60, box["y"] + 160)
    tab.mouse.move(box["x"] + 140, box["y"] + 250)
    tab.mouse.up()
    assert canvas.evaluate("c => c.toDataURL()") != before
    assert "step 0" in status(tab)
    press(tab, "step")
    assert "step 1" in status(tab)
    tab.screenshot(path=screenshots / "playground_phone.png", full_page=True)


def test_every_control_has_a_name_and_both_pictures_say_what_they_show(page):
    tab = page()
    for name in ("Cycle weight", "Identity weight", "Learning rate"):
        assert tab.get_by_role("slider", name=name).get_attribute("aria-valuetext")
    for name in ("CT cloud", "MR cloud"):
        assert tab.get_by_role("combobox", name=name).count() == 1
    assert tab.get_by_role("img", name="CT → MR: order").count() == 1
    assert tab.get_by_role("img", name="MR → CT: order").count() == 1
    tab.evaluate(AXE_SCRIPT)
    faults = tab.evaluate(
        "() => axe.run().then(({ violations }) => violations.map(({ id }) => id))"
    )
    assert faults == []


def test_in_a_notebook_the_frame_is_as_high_as_the_page(new_tab):
    tab = new_tab()
    tab.set_content(playground()._repr_html_())
    frame = tab.frame_locator("iframe")
    frame.locator("button[name=step]").click()
    assert "step 1" in frame.get_by_role("status").inner_text()
    heights = """() => { const frame = document.querySelector("iframe");
      return [frame.clientHeight, frame.contentDocument.documentElement.offsetHeight]; }"""
    shown, needed = tab.evaluate(heights)
    assert shown >= needed > 900

"""A first interactive comparison: slice, window and level, over real, translated and difference."""
from __future__ import annotations

import html
from base64 import b64encode
from io import BytesIO

import numpy as np
from PIL import Image

from .units import WINDOWS, Window

DIFFERENCE_LIMIT_HU = 500.0


def render(real_hu: np.ndarray, translated_hu: np.ndarray, window: Window, zoom: int) -> bytes:
    """PNG of real | translated | difference, each (H, W) in HU, enlarged `zoom` times without smoothing.

    The difference, translated - real, is white where equal, red where too high, blue where too low, saturated at +-DIFFERENCE_LIMIT_HU.
    """
    grey = [np.repeat(window.apply(image)[..., None], 3, -1) for image in (real_hu, translated_hu)]                # (H, W, 3) in [0, 1]
    error = ((translated_hu - real_hu) / DIFFERENCE_LIMIT_HU).clip(-1, 1)
    difference = np.stack([1 - (-error).clip(0), 1 - np.abs(error), 1 - error.clip(0)], -1)
    gap = np.ones((len(real_hu), 2, 3))
    strip = np.concatenate([grey[0], gap, grey[1], gap, difference], 1)
    pixels = np.rint(strip * 255).astype(np.uint8).repeat(zoom, 0).repeat(zoom, 1)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def compare(real_hu, translated_hu, *, alt: str, zoom: int = 4):
    """A widget with sliders for slice, level and width over real | translated | difference.

    Both (N, H, W) in HU, the same slices in the same order; alt: what they show, for those who cannot see it. Needs a running kernel;
    show a `montage` before it for every other reader. Raises ValueError if the shapes differ or values are not finite, ImportError
    without ipywidgets.
    """
    try:
        import ipywidgets as widgets
    except ImportError as error:
        raise ImportError('the sliders need ipywidgets: pip install "ctmri-utils[course]"') from error
    real_hu, translated_hu = np.asarray(real_hu), np.asarray(translated_hu)
    if real_hu.shape != translated_hu.shape or real_hu.ndim != 3 or not len(real_hu):
        raise ValueError(f"compare needs two stacks of slices of one shape (N, H, W), got {real_hu.shape} and {translated_hu.shape}")
    if not (np.isfinite(real_hu).all() and np.isfinite(translated_hu).all()):
        raise ValueError("compare needs finite values: replace NaN and infinity first")

    number = widgets.IntSlider(0, 0, len(real_hu) - 1, description="slice")
    preset = widgets.Dropdown(options=list(WINDOWS), value="brain", description="window")
    level = widgets.IntSlider(40, -1000, 1000, description="level HU")
    width = widgets.IntSlider(80, 1, 2500, description="width HU")
    picture = widgets.HTML()

    def draw(_=None):
        png = render(real_hu[number.value], translated_hu[number.value], Window(level.value, width.value), zoom)
        picture.value = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{b64encode(png).decode()}">'

    def choose(_):
        level.value, width.value = WINDOWS[preset.value].level, WINDOWS[preset.value].width

    preset.observe(choose, "value")
    for slider in (number, level, width):
        slider.observe(draw, "value")
    draw()
    caption = widgets.HTML("real | translated | translated - real: red too high, blue too low, "
                           f"full colour at {DIFFERENCE_LIMIT_HU:g} HU")
    return widgets.VBox([widgets.HBox([number, preset]), widgets.HBox([level, width]), picture, caption])


class LiveProgress:
    """An `on_step` callback for `fit`: a bar with the losses, and a strip of fixed slices and a loss plot, fresh every `every` steps.

    model: the CycleGAN being trained; ct, mri: the slices to watch, (N, 1, H, W) in [-1, 1]; alt: what the pictures show.
    """

    def __init__(self, model, ct, mri, *, steps: int, every: int, alt: str):
        from IPython.display import display
        from tqdm.auto import tqdm

        self.model, self.ct, self.mri, self.steps, self.every, self.alt = model, ct, mri, steps, every, alt
        self.history: list[dict[str, float]] = []
        self.bar = tqdm(total=steps, unit="step")
        self.strip, self.plot = display(None, display_id=True), display(None, display_id=True)

    def __call__(self, step: int, losses: dict[str, float]) -> None:
        self.history.append(losses)
        self.bar.update(step - self.bar.n)
        if step % self.every == 0 or step == self.steps:
            self.bar.set_postfix({name: f"{losses[name]:.2f}" for name in ("adversarial", "cycle", "identity")})
            self.refresh(step)

    def refresh(self, step: int) -> None:
        from IPython.display import Image

        from .figures import curves, png, translation_rows

        strip = png(translation_rows(self.model, self.ct, self.mri), dpi=80)
        lines = {name: [losses[name] for losses in self.history] for name in self.history[0]}
        plot = png(curves(lines, f"step, up to {step}", "loss", smooth=max(1, self.every // 4)), dpi=80)
        self.strip.update(Image(strip, alt=self.alt))
        self.plot.update(Image(plot, alt=f"loss curves up to step {step}: {', '.join(lines)}"))

"""Progress of training: a bar, strips of translated slices, and live pictures in a notebook."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cyclegan.model import Translator
from ..files import atomic_write

# Translations vary suspiciously little below this share of what real slices do.
SUSPICIOUS_SHARE = 0.1

# Every generator looks broken in its first steps.
FIRST_WARNING_STEP = 100

# A training diverges if its last losses are so many times its first. A mean over some steps,
# because single bursts of a discriminator's loss are harmless.
DIVERGENCE = 10
LAST_STEPS = 8

# The environment variable with the file in which whoever runs a lesson wants to read how far its
# training is.
PROGRESS_FILE = "CTMRI_PROGRESS"

# In seconds. Without any delay, tqdm's notebook bar would never be displayed.
SHORTEST_DELAY = 1e-9


@torch.no_grad()
def symptoms(model: Translator, ct: Tensor, mri: Tensor) -> str:
    """What looks wrong with the generators of the last step.

    Mode collapse: the translations differ from each other (standard deviation over slices) less
    than a tenth as much as real slices do. Identity mapping: a translation differs from its input
    less than a tenth as much as the mean real slice of the other modality does.

    Args:
        model: a CycleGAN.
        ct: at least two different slices, (N, C, H, W) in [-1, 1].
        mri: the same; the size may differ.

    Returns:
        A few words; "" if nothing looks wrong.
    """
    warnings = []
    for to, images, real in (("mri", ct, mri), ("ct", mri, ct)):
        fakes = model.translate(images, to, averaged=False)
        if _spread(fakes) < SUSPICIOUS_SHARE * _spread(real):
            warnings.append(f"every fake_{to} looks alike (mode collapse)")

        # With other channels, no generator could hand on its input.
        elif fakes.shape == images.shape:
            mean_slice = F.interpolate(real.mean(0, keepdim=True), images.shape[-2:], mode="area")
            expected_change = (mean_slice - images).abs().mean()
            if (fakes - images).abs().mean() < SUSPICIOUS_SHARE * expected_change:
                warnings.append(f"fake_{to} is its input (identity mapping)")
    return ", ".join(warnings)


def diverges(history: list[dict[str, float]]) -> bool:
    """Whether the losses of the last steps are ten times those of the first one."""
    if len(history) <= LAST_STEPS:
        return False
    last = sum(_total(losses) for losses in history[-LAST_STEPS:]) / LAST_STEPS
    return last > DIVERGENCE * _total(history[0])


def _total(losses: dict[str, float]) -> float:
    """The sum of the losses' sizes, since some are negative with "hinge" and "wgangp"."""
    return sum(abs(loss) for loss in losses.values())


def _spread(images: Tensor) -> Tensor:
    """Standard deviation over slices, averaged over pixels."""
    return images.std(0, correction=0).mean()


class Progress:
    """An `on_step` callback for `fit`: a bar with the losses.

    Every `every` steps it also draws a strip of fixed slices and looks for `symptoms`.

    Args:
        model: the CycleGAN being trained.
        ct: slices to watch, (N, C, H, W) in [-1, 1].
        mri: the same; the size may differ.
        steps: of the whole training.
        every: steps between two strips.
        folder: keep every strip here too, as step-000100.png. Strips of later steps, from an
            earlier run, are deleted.
    """

    def __init__(
        self,
        model: Translator,
        ct: Tensor,
        mri: Tensor,
        *,
        steps: int,
        every: int,
        folder: Path | None = None,
    ):
        from tqdm.auto import tqdm

        self.model = model
        self.ct = ct
        self.mri = mri
        self.steps = steps
        self.every = every
        self.folder = folder
        self.history: list[dict[str, float]] = []
        self.diverged = False

        # `begin` shows the bar, because `fit` may still refuse its arguments.
        self.bar = tqdm(total=steps, unit="step", delay=math.inf)

    def __call__(self, step: int, losses: dict[str, float]) -> None:
        if not self.history:
            self.begin(step)
        self.history.append(losses)
        self.bar.update(step - self.bar.n)

        if not self.diverged and diverges(self.history):
            self.diverged = True
            self.bar.write(
                f"WARNING: the losses have grown tenfold by step {step}: training is diverging, "
                "so stop it and lower the learning rate"
            )
        if step % self.every == 0 or step == self.steps:
            self.bar.set_postfix_str(self.postfix(step, losses))
            self.refresh(step)
            self.report(step)

    def report(self, step: int) -> None:
        """Write down how far the training is, if somebody wants to read it."""
        path = os.environ.get(PROGRESS_FILE)
        if path:
            seconds_per_step = self.bar.format_dict["elapsed"] / (step - self.bar.initial)
            seconds_left = (self.steps - step) * seconds_per_step
            report = {"step": step, "steps": self.steps, "seconds_left": seconds_left}
            with atomic_write(path) as part:
                part.write_text(json.dumps(report), encoding="utf-8")

    def postfix(self, step: int, losses: dict[str, float]) -> str:
        """What stands behind the bar: every loss, and a warning if there are symptoms."""
        parts = []
        for name, value in losses.items():
            short_name = name.replace("discriminator_", "D_")
            parts.append(f"{short_name}={value:.2f}")

        if step >= FIRST_WARNING_STEP:
            warning = symptoms(self.model, self.ct, self.mri)
            if warning:
                parts.append(f"WARNING: {warning}")
        return ", ".join(parts)

    def begin(self, step: int) -> None:
        """Show the bar and delete later strips, before the first step of this call of `fit`."""
        self.bar.delay = SHORTEST_DELAY

        # The time left is estimated from this step on.
        done = step - 1
        self.bar.initial = done
        self.bar.n = done
        self.bar.last_print_n = done

        if self.folder is not None:
            for strip in self.folder.glob("step-*.png"):
                if int(re.sub(r"\D", "", strip.stem)) >= step:
                    strip.unlink()

    def finish(self, losses: list[dict[str, float]]) -> None:
        """Show the whole run, with the steps before a resume; also of a run that was already done.

        Args:
            losses: what `fit` returned.
        """
        self.history = list(losses)
        self.bar.delay = SHORTEST_DELAY
        self.bar.update(len(losses) - self.bar.n)
        self.bar.close()
        self.refresh(len(losses))

    def refresh(self, step: int) -> bytes:
        """Draw the strip, keep it if there is a folder for it, and return it as PNG."""
        from .figures import png, translation_rows

        strip = png(translation_rows(self.model, self.ct, self.mri), dpi=80)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / f"step-{step:06d}.png").write_bytes(strip)
        return strip


class LiveProgress(Progress):
    """`Progress` with the strip and the loss curves live in a notebook.

    Args:
        alt: what the strip shows, in one sentence.

    The other arguments are those of `Progress`.
    """

    def __init__(self, model: Translator, ct: Tensor, mri: Tensor, *, alt: str, **options):
        from IPython.display import HTML, display

        super().__init__(model, ct, mri, **options)
        self.alt = alt
        self.strip = display(HTML(""), display_id=True)
        self.plot = display(HTML(""), display_id=True)

    def refresh(self, step: int) -> bytes:
        from IPython.display import Image

        from .figures import curves, png

        strip = super().refresh(step)
        lines = {name: [losses[name] for losses in self.history] for name in self.history[0]}
        smooth = max(1, self.every // 4)
        plot = png(curves(lines, f"step, up to {step}", "loss", smooth=smooth), dpi=80)

        self.strip.update(Image(strip, alt=self.alt))
        self.plot.update(Image(plot, alt=f"loss curves up to step {step}: {', '.join(lines)}"))
        return strip

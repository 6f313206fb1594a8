"""Progress of training: a bar, strips of translated slices, and live pictures in a notebook."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

from torch import Tensor

from ..cyclegan.model import Translator
from ..files import atomic_write
from .strips import remove_strips, save_strip
from .symptoms import diverges, symptoms

# Every generator looks broken in its first steps.
FIRST_WARNING_STEP = 100

# The environment variable with the file in which whoever runs a lesson wants to read how far its
# training is.
PROGRESS_FILE = "CTMRI_PROGRESS"

# In seconds. Without any delay, tqdm's notebook bar would never be displayed.
SHORTEST_DELAY = 1e-9


def report_progress(step: int, steps: int, seconds_left: float) -> None:
    """Write down how far a training is, if the environment names a file for it."""
    path = os.environ.get(PROGRESS_FILE)
    if path:
        report = {"step": step, "steps": steps, "seconds_left": seconds_left}
        with atomic_write(path) as part:
            part.write_text(json.dumps(report), encoding="utf-8")


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
            seconds_per_step = self.bar.format_dict["elapsed"] / (step - self.bar.initial)
            report_progress(step, self.steps, (self.steps - step) * seconds_per_step)

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
            remove_strips(self.folder, step)

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
            save_strip(self.folder, step, strip)
        return strip


class LiveProgress(Progress):
    """`Progress` with the strip and the loss curves live in a notebook.

    Args:
        model: the CycleGAN being trained.
        ct: slices to watch, (N, C, H, W) in [-1, 1].
        mri: the same; the size may differ.
        alt: what the strip shows, in one sentence.
        **options: `steps`, `every` and `folder` of `Progress`.
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
        lines = {}
        for name in self.history[0]:
            lines[name] = [losses[name] for losses in self.history]
        smooth = max(1, self.every // 4)
        plot = png(curves(lines, f"step, up to {step}", "loss", smooth=smooth), dpi=80)

        self.strip.update(Image(strip, alt=self.alt))
        self.plot.update(Image(plot, alt=f"loss curves up to step {step}: {', '.join(lines)}"))
        return strip

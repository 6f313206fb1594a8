"""Progress of a training run.

A bar, strips of slices that can be kept for `viewer.training_strip`, and in a notebook a live
picture.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cyclegan.model import Translator

# less than this share of what real slices do
ALIKE = 0.1
# seconds; with 0, tqdm's notebook bar would never be displayed
SHOWN = 1e-9
# steps before which every generator looks broken
TOO_EARLY = 100


@torch.no_grad()
def symptoms(model: Translator, ct: Tensor, mri: Tensor) -> str:
    """What looks wrong with the generators of the last step, in a few words; "" if nothing does.

    ct, mri: at least two different slices of each, (N, C, H, W) in [-1, 1]; sizes may differ. Mode
    collapse: the translations differ from each other (standard deviation over slices) less than a
    tenth as much as real slices do. Identity mapping: a translation differs from its input less
    than a tenth as much as the mean real slice of the other modality does.
    """
    found = []
    for to, images, real in (("mri", ct, mri), ("ct", mri, ct)):
        fakes = model.translate(images, to, averaged=False)
        if fakes.std(0, correction=0).mean() < ALIKE * real.std(0, correction=0).mean():
            found.append(f"every fake_{to} looks alike (mode collapse)")
        elif fakes.shape == images.shape:
            # else other channels: no generator could hand on its input
            usual = F.interpolate(real.mean(0, keepdim=True), images.shape[-2:], mode="area")
            if (fakes - images).abs().mean() < ALIKE * (usual - images).abs().mean():
                found.append(f"fake_{to} is its input (identity mapping)")
    return ", ".join(found)


class Progress:
    """An `on_step` callback for `fit`.

    A bar with the losses, and every `every` steps a strip of fixed slices and a look for
    `symptoms`.

    model: the CycleGAN being trained; ct, mri: the slices to watch, (N, C, H, W) in [-1, 1]. With
    `folder` every strip is also kept there as step-000100.png; strips of later steps, from an
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

        self.model, self.ct, self.mri, self.steps, self.every, self.folder = (
            model,
            ct,
            mri,
            steps,
            every,
            folder,
        )
        self.history: list[dict[str, float]] = []
        # shown by `begin`: `fit` may refuse
        self.bar = tqdm(total=steps, unit="step", delay=math.inf)

    def __call__(self, step: int, losses: dict[str, float]) -> None:
        if not self.history:
            self.begin(step)
        self.history.append(losses)
        self.bar.update(step - self.bar.n)
        if step % self.every == 0 or step == self.steps:
            self.bar.set_postfix(
                {name: f"{value:.2f}" for name, value in losses.items() if " " not in name}
            )
            if step >= TOO_EARLY and (wrong := symptoms(self.model, self.ct, self.mri)):
                self.bar.set_postfix_str(f"{self.bar.postfix}, WARNING: {wrong}")
            self.refresh(step)

    def begin(self, step: int) -> None:
        """Called before the first step that this call of `fit` makes."""
        self.bar.delay = SHOWN
        # the time left is reckoned from here
        self.bar.initial = self.bar.n = self.bar.last_print_n = step - 1
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            for old in self.folder.glob("step-*.png"):
                if int(re.sub(r"\D", "", old.stem)) >= step:
                    old.unlink()

    def finish(self, losses: list[dict[str, float]]) -> None:
        """Show the whole run, `losses` being what `fit` returned.

        Also the part before a resume, or a run that was already done.
        """
        self.history, self.bar.delay = list(losses), SHOWN
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

    `alt` says what the pictures show.
    """

    def __init__(self, model: Translator, ct: Tensor, mri: Tensor, *, alt: str, **options):
        from IPython.display import HTML, display

        super().__init__(model, ct, mri, **options)
        self.alt = alt
        self.strip, self.plot = (display(HTML(""), display_id=True) for _ in range(2))

    def refresh(self, step: int) -> bytes:
        from IPython.display import Image

        from .figures import curves, png

        strip = super().refresh(step)
        lines = {name: [losses[name] for losses in self.history] for name in self.history[0]}
        plot = png(
            curves(lines, f"step, up to {step}", "loss", smooth=max(1, self.every // 4)), dpi=80
        )
        self.strip.update(Image(strip, alt=self.alt))
        self.plot.update(Image(plot, alt=f"loss curves up to step {step}: {', '.join(lines)}"))
        return strip

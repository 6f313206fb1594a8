"""Live progress of a training run in a notebook: a bar, the losses and a strip of slices, which can be kept for `viewer.training_strip`."""
from __future__ import annotations

from pathlib import Path


class LiveProgress:
    """An `on_step` callback for `fit`: a bar with the losses, and a strip of fixed slices and a loss plot, fresh every `every` steps.

    model: the CycleGAN being trained; ct, mri: the slices to watch, (N, 1, H, W) in [-1, 1]; alt: what the pictures show. With `folder`
    every strip is also kept there as step-000100.png; strips of an earlier run in it are deleted.
    """

    def __init__(self, model, ct, mri, *, steps: int, every: int, alt: str, folder: Path | None = None):
        from IPython.display import HTML, display
        from tqdm.auto import tqdm

        self.model, self.ct, self.mri, self.steps, self.every, self.alt, self.folder = model, ct, mri, steps, every, alt, folder
        self.history: list[dict[str, float]] = []
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob("step-*.png"):
                old.unlink()
        self.bar = tqdm(total=steps, unit="step")
        self.strip, self.plot = (display(HTML(""), display_id=True) for _ in range(2))

    def __call__(self, step: int, losses: dict[str, float]) -> None:
        self.history.append(losses)
        self.bar.update(step - self.bar.n)
        if step % self.every == 0 or step == self.steps:
            self.bar.set_postfix({name: f"{losses[name]:.2f}" for name in ("adversarial", "cycle", "identity")})
            self.refresh(step)

    def finish(self, losses: list[dict[str, float]]) -> None:
        """Show the whole run, `losses` being what `fit` returned: also the part before a resume, or a run that was already done."""
        self.history = list(losses)
        self.bar.update(len(losses) - self.bar.n)
        self.bar.close()
        self.refresh(len(losses))

    def refresh(self, step: int) -> None:
        from IPython.display import Image

        from .figures import curves, png, translation_rows

        strip = png(translation_rows(self.model, self.ct, self.mri), dpi=80)
        lines = {name: [losses[name] for losses in self.history] for name in self.history[0]}
        plot = png(curves(lines, f"step, up to {step}", "loss", smooth=max(1, self.every // 4)), dpi=80)
        self.strip.update(Image(strip, alt=self.alt))
        self.plot.update(Image(plot, alt=f"loss curves up to step {step}: {', '.join(lines)}"))
        if self.folder is not None:
            (self.folder / f"step-{step:06d}.png").write_bytes(strip)

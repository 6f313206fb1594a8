"""Figures of lesson 3, and the progress of its trainings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ..cyclegan.model import CycleGAN
from ..scans.unpaired import UnpairedScans
from ..viewers import figures
from ..viewers.progress import LiveProgress

# Slices of each modality in a strip, and strips in a training.
WATCHED = 4
STRIPS = 20

# Losses that rate a network against another one. The rest are distances.
GAME = ("adversarial", "discriminator_ct", "discriminator_mri")

# What undecided discriminators cost by least squares: the generators in both directions together,
# and each discriminator.
UNDECIDED = {"adversarial": 0.5, "discriminator": 0.25}


def live_progress(model: CycleGAN, scans: UnpairedScans, steps: int, strips: Path) -> LiveProgress:
    """A bar, a strip of four test slices of each modality, and the loss curves.

    Args:
        model: the CycleGAN to be trained.
        scans: whose test slices are watched.
        steps: of the whole training.
        strips: the folder that keeps twenty strips, evenly spread over the training.
    """
    return LiveProgress(
        model,
        figures.evenly_chosen(scans.test.ct, WATCHED),
        figures.evenly_chosen(scans.test.mri, WATCHED),
        steps=steps,
        every=max(1, steps // STRIPS),
        folder=strips,
        alt=f"Slices of {scans.name}: CT, fake MR, cycled CT; MR, fake CT, cycled MR.",
    )


def loss_panels(losses: list[dict[str, float]]) -> Figure:
    """The losses over the steps: distances on the left, the game on the right.

    Dotted lines show the cost of undecided discriminators. Curves are running means over a fortieth
    of the steps.

    Args:
        losses: what `fit` returned, by least squares.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    distances, game = figure.subplots(1, 2)
    smooth = max(1, len(losses) // 40)
    steps = np.arange(smooth, len(losses) + 1)

    for name, colour, dash in zip(losses[0], figures.COLOURS, figures.DASHES, strict=False):
        values = [step[name] for step in losses]
        means = np.convolve(values, np.ones(smooth) / smooth, "valid")
        axis = game if name in GAME else distances
        axis.plot(steps, means, color=colour, linestyle=dash, label=name)

    right_edge = game.get_yaxis_transform()
    text_style = {"fontsize": 8, "va": "bottom", "ha": "right"}
    for name, cost in UNDECIDED.items():
        game.axhline(cost, color="0.4", linestyle=":")
        game.text(1, cost, f"{name}, undecided", transform=right_edge, **text_style)

    distances.set_title("distances: lower is better", fontsize=9)
    game.set_title("scores of a game: a flat curve can hide progress", fontsize=9)
    for axis in (distances, game):
        axis.set(xlabel="step", ylabel="loss")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend(
            fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3
        )
    return figure

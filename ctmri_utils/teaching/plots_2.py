"""Pictures and counts of lesson 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..units import HU, Scale
from ..viewers import figures
from ..windows import WINDOWS

ORANGE = figures.COLOURS[4]

# In gradient maps: how many powers of ten below the strongest pixel are told apart.
DECADES = 5


def windows_and_range(ct: Tensor, scale: Scale) -> Figure:
    """One CT slice in the brain and bone windows, and in its whole range.

    Args:
        ct: (1, 1, H, W) in [-1, 1].
        scale: its scale. Grey levels have no windows, so only the last picture is drawn.
    """
    pictures = {}
    if scale.unit == HU.unit:
        ct_hu = scale.from_network(ct[0, 0].numpy())
        for name in ("brain", "bone"):
            pictures[f"{name} window"] = WINDOWS[name].apply(ct_hu)
    pictures["the whole range"] = (ct[0, 0].numpy() + 1) / 2
    row = figures.ImageRow(list(pictures.values()), 0, 1)
    return figures.montage({"CT": row}, list(pictures), 2.2)


def extent(gradient: Tensor) -> tuple[int, int, int, int]:
    """First row, first column, height and width of the pixels (H, W) that are not 0."""
    rows, columns = gradient.nonzero().unbind(1)
    top, left = rows.min().item(), columns.min().item()
    return top, left, rows.max().item() - top + 1, columns.max().item() - left + 1


def stretched(image: Tensor) -> np.ndarray:
    """An image (H, W), its darkest value 0 and its brightest 1."""
    return ((image - image.min()) / (image.max() - image.min())).numpy()


def stage_pictures(stages: Sequence[tuple[str, Tensor]]) -> Figure:
    """The first channel of eight stages, stretched to its own darkest and brightest value.

    Args:
        stages: (name, (1, C, H, W)) each.
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    for axis, (name, tensor) in zip(figure.subplots(2, 4).flat, stages, strict=True):
        axis.imshow(stretched(tensor[0, 0]), cmap="gray", interpolation="nearest")
        channels, height, width = tensor.shape[1:]
        axis.set_title(f"{name}\n{channels} x {height} x {width}", fontsize=9)
        axis.axis("off")
    return figure


def draw_frame(axis, box: Sequence[int], colour: str = ORANGE) -> None:
    """Frame the pixels of a box (first row, first column, height, width)."""
    top, left, height, width = box
    corner = left - 0.5, top - 0.5
    axis.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=2))


def patch_on_slice(ct: Tensor, box: Sequence[int]) -> Figure:
    """A slice (1, 1, H, W) in [-1, 1] with a box of pixels (see `draw_frame`) framed."""
    title = f"one verdict sees {box[2]} x {box[3]} pixels"
    figure = figures.montage({"CT": figures.network_row(ct)}, [title], size=3)
    draw_frame(figure.axes[0], box)
    return figure


def gradient_maps(
    gradients: Mapping[str, Tensor], boxes: Sequence[Sequence[int]], label: str
) -> Figure:
    """Gradients by input pixel on a logarithmic scale, each with a box framed.

    Args:
        gradients: {title: (H, W), 0 or more}.
        boxes: one for each, see `draw_frame`.
        label: of the row.
    """
    maps = []
    for gradient in gradients.values():
        relative = gradient / gradient.max()
        maps.append(relative.clamp_min(1e-9).log10().numpy())
    row = figures.ImageRow(maps, -DECADES, 0, "magma", "log10, 0 = strongest")

    figure = figures.montage({label: row}, list(gradients), size=2)
    for axis, box in zip(figure.axes, boxes, strict=False):
        draw_frame(axis, box, figures.COLOURS[5])
    return figure


def change_maps(changes: Mapping[str, Tensor], titles: Sequence[str]) -> Figure:
    """Signed changes of an output, all in the same colours: one change in a hundred saturates.

    Args:
        changes: {row: (N, H, W)}.
        titles: of the N columns.
    """
    limit = max(change.abs().quantile(0.99).item() for change in changes.values())
    rows = {}
    for name, change in changes.items():
        rows[name] = figures.difference_row(change, limit, "network units")
    return figures.montage(rows, titles, size=2.2)


def stretched_rows(rows: Mapping[str, Sequence[Tensor]], titles: Sequence[str]) -> Figure:
    """Rows of images (1, 1, H, W), each stretched to its own darkest and brightest value."""
    pictures = {}
    for name, images in rows.items():
        pictures[name] = figures.ImageRow([stretched(image[0, 0]) for image in images], 0, 1)
    return figures.montage(pictures, titles, size=2.2)


@torch.no_grad()
def multiplications(network: nn.Module, image: Tensor) -> int:
    """Multiplications in all convolutions for a batch of images (N, C, H, W)."""
    with FlopCounterMode(display=False) as counter:
        network(image)

    # torch counts additions, too.
    return counter.get_total_flops() // 2

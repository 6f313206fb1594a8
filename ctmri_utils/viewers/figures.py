"""Static figures: rows of slices with fixed grey limits, and curves.

Every one is shown with a text for those who cannot see it.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..scans.slices import MOST_PIXELS, UNREADABLE
from ..units import WINDOWS

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError('figures need matplotlib: pip install "ctmri-utils[course]"') from error

# Okabe & Ito: told apart by everyone
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# ... and in print without colour
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))


class Row(NamedTuple):
    """One row of a montage: images (N, H, W), the values drawn darkest and brightest, and a colour
    map; `unit` adds a colour bar.
    """

    images: np.ndarray
    low: float
    high: float
    colours: str = "gray"
    unit: str = ""


def ct_row(ct_hu, window: str = "brain") -> Row:
    """CT slices (N, H, W) in HU through one of the clinical `WINDOWS`.

    KeyError names the known ones.
    """
    if window not in WINDOWS:
        raise KeyError(f"no window {window!r}: choose one of {', '.join(WINDOWS)}")
    level, width = WINDOWS[window].level, WINDOWS[window].width
    return Row(np.asarray(ct_hu), level - width / 2, level + width / 2)


def network_row(images) -> Row:
    """Network tensors (N, 1, H, W) in [-1, 1], black to white."""
    return Row(np.asarray(images)[:, 0], -1, 1)


def difference_row(difference, limit: float, unit: str = "HU") -> Row:
    """Signed differences (N, H, W): blue too low, red too high, white equal, cut at +-limit."""
    return Row(np.asarray(difference), -limit, limit, "RdBu_r", unit)


def montage(rows: dict[str, Row], titles: Sequence[str] = (), size: float = 1.5) -> Figure:
    """A grid with one labelled row per entry and one column per slice, `size` inches a picture.

    Limits are those of the row, the same for every slice in it, so that brightness can be compared
    along it; pixels are drawn as squares.
    """
    columns = max(len(row.images) for row in rows.values())
    figure = Figure(
        figsize=(size * columns + 1.1, size * len(rows) + 0.25 * bool(titles)), layout="constrained"
    )
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (label, row) in zip(axes, rows.items(), strict=True):
        for axis in line:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        for axis, image in zip(line, row.images, strict=False):
            drawn = axis.imshow(
                image, cmap=row.colours, vmin=row.low, vmax=row.high, interpolation="nearest"
            )
        line[0].set_ylabel(label, fontsize=9)
        if row.unit:
            figure.colorbar(drawn, ax=list(line), label=row.unit, shrink=0.9, aspect=12)
    for axis, title in zip(axes[0], titles, strict=False):
        axis.set_title(title, fontsize=8)
    return figure


def first_look(viewer, columns: int = 4) -> Figure:
    """What one of `viewer`'s viewers shows at first, as a montage.

    A row per scan, evenly spaced slices, or the worst if it has a table.
    """
    spec, labels, rows = viewer.spec, viewer.spec["planes"][0]["labels"], {}
    slices = np.linspace(0, len(viewer.values[0]) - 1, columns).round().astype(int)
    shown = (
        [row["start"] for row in spec["table"]["rows"][:columns]]
        if "table" in spec
        else list(dict.fromkeys(slices.tolist()))
    )
    for image in spec["images"]:
        level, width = image["window"] or (spec["state"]["level"], spec["state"]["width"])
        values = viewer.values[image["source"], shown] * image["gain"] + image["offset"]
        # a doubt map
        look = ("inferno", image["unit"]) if "limit" in image else ()
        rows[image["name"]] = Row(values, level - width / 2, level + width / 2, *look)
    return montage(rows, [labels[k] if labels else f"slice {k + 1}" for k in shown])


def translation_rows(model, ct, mri) -> Figure:
    """Both directions and both round trips of a trained or training CycleGAN, for slices (N, 1, H,
    W) in [-1, 1].
    """
    fake_mri, fake_ct = model.translate(ct, "mri"), model.translate(mri, "ct")
    rows = {
        "ct": ct,
        "fake_mri": fake_mri,
        "cycled_ct": model.translate(fake_mri, "ct"),
        "mri": mri,
        "fake_ct": fake_ct,
        "cycled_mri": model.translate(fake_ct, "mri"),
    }
    return montage({name: network_row(images) for name, images in rows.items()})


def curves(
    lines: dict[str, Sequence[float]],
    x_label: str,
    y_label: str,
    *,
    smooth: int = 1,
    x: Sequence[float] | None = None,
) -> Figure:
    """Lines over their index (or `x`), told apart by colour and dash.

    `smooth` takes the running mean of so many points.
    """
    figure = Figure(figsize=(6.5, 3), layout="constrained")
    axis = figure.subplots()
    for (label, values), colour, dash in zip(lines.items(), COLOURS * 3, DASHES * 3, strict=False):
        window = max(1, min(smooth, len(values)))
        means = np.convolve(values, np.ones(window) / window, "valid")
        places = np.arange(window, len(values) + 1) if x is None else x[window - 1 :]
        axis.plot(places, means, color=colour, linestyle=dash, label=label)
    axis.set(xlabel=x_label, ylabel=y_label)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def histograms(
    values: dict[str, np.ndarray], x_label: str, bins: np.ndarray, *, log: bool = False
) -> Figure:
    """Outlined histograms, each normalised to area 1, of flattened arrays over the same bins."""
    figure = Figure(figsize=(6.5, 3), layout="constrained")
    axis = figure.subplots()
    for (label, array), colour, dash in zip(values.items(), COLOURS, DASHES, strict=False):
        axis.hist(
            np.ravel(array),
            bins,
            density=True,
            histtype="step",
            color=colour,
            linestyle=dash,
            linewidth=1.5,
            label=label,
        )
    axis.set(xlabel=x_label, ylabel="density", yscale="log" if log else "linear")
    axis.legend(fontsize=8, frameon=False)
    return figure


def interval_plot(summaries, metrics: Sequence[str]) -> Figure:
    """Means with their 95 % intervals from `evaluation.summarise`.

    One panel per metric, methods as rows from the top, as in the table.

    A mean that is infinite, or that no patient has, is written at the right edge. Raises ValueError
    for a metric that was not scored.
    """
    if not metrics:
        raise ValueError(
            "a plot needs a metric to show, got none: pass names such as those of "
            "evaluation.CT_METRICS."
        )
    methods = list(dict.fromkeys(summary.method for summary in summaries))
    columns = 2 if len(metrics) in (2, 4) else min(len(metrics), 3)
    lines = -(-len(metrics) // columns)
    figure = Figure(
        figsize=(2 + 2.6 * columns, (0.7 + 0.24 * len(methods)) * lines), layout="constrained"
    )
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for axis, metric in zip(panels, metrics, strict=False):
        cells = [summary for summary in summaries if summary.metric == metric]
        if not cells:
            raise ValueError(
                f"no metric {metric!r} here: choose from "
                f"{', '.join(dict.fromkeys(summary.metric for summary in summaries))}."
            )
        for summary in cells:
            row = methods.index(summary.method)
            colour = COLOURS[row % len(COLOURS)]
            if np.isfinite(summary.mean):
                axis.plot(summary.mean, row, "o", color=colour, markersize=5)
                axis.hlines(row, summary.low, summary.high, color=colour, linewidth=2)
            else:
                axis.text(
                    0.98,
                    row,
                    "infinite" if np.isinf(summary.mean) else "none",
                    color=colour,
                    fontsize=8,
                    ha="right",
                    va="center",
                    transform=axis.get_yaxis_transform(),
                )
        axis.set_title(metric, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        axis.set(yticks=range(len(methods)), yticklabels=methods, ylim=(len(methods) - 0.5, -0.5))
    for axis in panels[len(metrics) :]:
        axis.set_visible(False)
    return figure


def offenders(report, most: int = 6) -> Figure:
    """The first slices of each finding of a `check`, one row per finding, with their names.

    What is saturated is drawn orange.

    Raises ValueError if there are none.
    """
    if not report.findings:
        raise ValueError(f"{report.folder} has no offenders to draw")
    shown = {
        f"{found.kind} ({len(found.files)})".replace(", ", ",\n").replace(" (", "\n("): found
        for found in report.findings
    }
    rows = {
        label: Row(
            [_rgb(report.folder / name, found.kind == "saturated") for name in found.files[:most]],
            0,
            1,
        )
        for label, found in shown.items()
    }
    figure = montage(rows, size=1.2)
    lines = np.reshape(figure.axes, (len(rows), -1))
    for line, found in zip(lines, shown.values(), strict=True):
        for axis, name in zip(line, found.files, strict=False):
            axis.set_title(name if len(name) <= 24 else f"...{name[-21:]}", fontsize=6)
    return figure


def _rgb(path: Path, mark: bool) -> np.ndarray:
    """(H, W, 3) in [0, 1], the brightest white, 255 orange if marked.

    An empty frame for a file that cannot be read or is huge.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError
            grey = image.mode in ("1", "L") or image.mode.startswith(("I", "F"))
            pixels = np.asarray(image.convert("F" if grey else "RGB"), np.float32)
    except UNREADABLE:
        return np.pad(np.ones((14, 14, 3)), ((1, 1), (1, 1), (0, 0)), constant_values=0.6)
    drawn = np.repeat(pixels[..., None], 3, 2) if grey else pixels
    drawn = drawn / max(drawn.max(), 1)
    if mark:
        drawn[pixels == 255 if grey else (pixels == 255).all(2)] = (0.84, 0.37, 0)
    return drawn


def png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as PNG on white, whatever the page's theme."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def jpeg(figure: Figure, dpi: int = 75) -> bytes:
    """The figure as JPEG on white: of noisy slices a quarter of what PNG takes."""
    buffer = BytesIO()
    figure.savefig(buffer, format="jpeg", dpi=dpi, facecolor="white", pil_kwargs={"quality": 75})
    return buffer.getvalue()


def show(figure: Figure, alt: str) -> None:
    """Display the figure in a notebook with `alt`, a sentence saying what is to be seen.

    Exported pages keep it.
    """
    from IPython.display import Image, display

    display(Image(png(figure), alt=alt))

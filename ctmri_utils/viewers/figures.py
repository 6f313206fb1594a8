"""Static figures: rows of slices with fixed grey limits, and curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

from ..cyclegan.model import Translator
from ..discovery import printable
from ..scans.checks import Report
from ..scans.slices import MOST_SLICE_PIXELS, UNREADABLE
from ..units import HU, Scale
from ..windows import WINDOWS

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError('figures need matplotlib: pip install "ctmri-utils[course]"') from error

if TYPE_CHECKING:
    import pandas as pd

    from .viewer import Viewer

# Okabe and Ito's colours, which people with colour blindness can tell apart, and dashes for prints
# without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))

# The colour of saturated pixels in `offenders`: red, green and blue in [0, 1].
SATURATED_COLOUR = (0.84, 0.37, 0)


class ImageRow(NamedTuple):
    """One row of a montage.

    Args:
        images: (N, H, W), or (N, H, W, 3) in colour.
        low: the value drawn darkest.
        high: the value drawn brightest.
        colours: a colour map of matplotlib.
        unit: adds a colour bar with this label.
    """

    images: np.ndarray
    low: float
    high: float
    colours: str = "gray"
    unit: str = ""


def ct_row(ct_hu: ArrayLike, window: str = "brain") -> ImageRow:
    """CT slices through one of the clinical `WINDOWS`.

    Args:
        ct_hu: (N, H, W), in HU.
        window: a name in `WINDOWS`.

    Raises:
        ValueError: there is no such window.
    """
    if window not in WINDOWS:
        raise ValueError(f"unknown window {window!r}: choose one of {', '.join(WINDOWS)}")
    level = WINDOWS[window].level
    width = WINDOWS[window].width
    return ImageRow(np.asarray(ct_hu), level - width / 2, level + width / 2)


def network_row(images: ArrayLike) -> ImageRow:
    """Network tensors (N, 1, H, W) in [-1, 1], black to white."""
    return ImageRow(np.asarray(images)[:, 0], -1, 1)


def ct_windows(name: str, ct: ArrayLike, scale: Scale) -> dict[str, ImageRow]:
    """Rows of a montage: network tensors (N, 1, H, W) of CT in the brain and in the bone window.

    Args:
        name: of the slices, the first line of the labels.
        ct: in [-1, 1].
        scale: of the CT. Grey levels have no windows and make one row.
    """
    if scale.unit != HU.unit:
        return {name: network_row(ct)}
    ct_hu = scale.from_network(np.asarray(ct)[:, 0])
    return {f"{name},\n{window}": ct_row(ct_hu, window) for window in ("brain", "bone")}


def difference_row(difference: ArrayLike, limit: float, unit: str = "HU") -> ImageRow:
    """Signed differences: blue too low, red too high, white equal.

    Args:
        difference: (N, H, W).
        limit: differences beyond +-limit get the full colour.
        unit: of both.
    """
    return ImageRow(np.asarray(difference), -limit, limit, "RdBu_r", unit)


def montage(rows: dict[str, ImageRow], titles: Sequence[str] = (), size: float = 1.5) -> Figure:
    """A grid with one labelled row per entry and one column per slice.

    Limits are those of the row, the same for every slice in it, so that brightness can be compared
    along it. Pixels are drawn as squares.

    Args:
        rows: {label: row}.
        titles: of the columns.
        size: of a picture, in inches.
    """
    columns = max(len(row.images) for row in rows.values())
    title_height = 0.25 if titles else 0
    size_inches = (size * columns + 1.1, size * len(rows) + title_height)
    figure = Figure(figsize=size_inches, layout="constrained")

    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row_axes, (label, row) in zip(axes, rows.items(), strict=True):
        draw_row(figure, row_axes, label, row)
    for axis, title in zip(axes[0], titles, strict=False):
        axis.set_title(title, fontsize=8)
    return figure


def draw_row(figure: Figure, axes: np.ndarray, label: str, row: ImageRow) -> None:
    """Draw the images of a row, its label on the left, and its colour bar."""
    for axis in axes:
        clear_axis(axis)
    for axis, image in zip(axes, row.images, strict=False):
        picture = draw_image(axis, image, row)

    axes[0].set_ylabel(label, fontsize=9)
    if row.unit:
        figure.colorbar(picture, ax=list(axes), label=row.unit, shrink=0.9, aspect=12)


def clear_axis(axis: Axes) -> None:
    """Take ticks and frame from the axis of a picture."""
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def draw_image(axis: Axes, image: np.ndarray, row: ImageRow, aspect: float = 1):
    """Draw one image of a row; `aspect` is the height of its pixels over their width."""
    return axis.imshow(
        image,
        cmap=row.colours,
        vmin=row.low,
        vmax=row.high,
        aspect=aspect,
        interpolation="nearest",
    )


def first_look(viewer: Viewer) -> Figure:
    """What a `Viewer` shows at first, as a montage with a row per scan.

    Four slices are shown, evenly spaced, or the worst ones if the viewer has a table.
    """
    spec = viewer.spec
    if "table" in spec:
        slices = [row["start"] for row in spec["table"]["rows"][:4]]
    else:
        slices = np.unique(np.linspace(0, len(viewer.values[0]) - 1, 4).round().astype(int))

    rows = {}
    first_window = [spec["state"]["level"], spec["state"]["width"]]
    window_names = {tuple(window): name for name, window in spec["windows"].items()}
    for image in spec["images"]:
        level, width = image["window"] or first_window
        values = viewer.values[image["source"], slices] * image["gain"] + image["offset"]
        row = ImageRow(values, level - width / 2, level + width / 2)

        # Among the images, only an uncertainty map has a limit.
        if "limit" in image:
            row = row._replace(colours="inferno", unit=image["unit"])

        # A scan alone has no name: it is called as its window, if that has one.
        rows[image["name"] or window_names.get(tuple(first_window), "")] = row

    labels = spec["planes"][0]["labels"]
    titles = [labels[k] if labels else f"slice {k + 1}" for k in slices]
    return montage(rows, titles)


def translation_rows(model: Translator, ct: Tensor, mri: Tensor) -> Figure:
    """Both directions and both round trips of a CycleGAN, trained or in training.

    Args:
        model: translates both ways.
        ct: (N, 1, H, W) in [-1, 1].
        mri: the same.
    """
    fake_mri = model.translate(ct, "mri")
    fake_ct = model.translate(mri, "ct")
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
    """Lines over their index or over `x`, told apart by colour and dash.

    Args:
        lines: {label: values}.
        x_label: with its unit.
        y_label: with its unit.
        smooth: take the running mean of so many points.
        x: one number for each value; by default 1, 2, 3, ...
    """
    figure, axis = line_axis(x_label, y_label)
    for label, values in lines.items():
        window = max(1, min(smooth, len(values)))
        means = np.convolve(values, np.ones(window) / window, "valid")

        # A mean stands where its last point is.
        positions = np.arange(window, len(values) + 1) if x is None else x[window - 1 :]
        axis.plot(positions, means, label=label)

    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def line_axis(x_label: str, y_label: str, height: float = 3) -> tuple[Figure, Axes]:
    """A figure, so many inches high, and its axis, whose lines differ in colour and dash."""
    figure = Figure(figsize=(6.5, height), layout="constrained")
    axis = figure.subplots()
    axis.set_prop_cycle(color=COLOURS, linestyle=DASHES)
    axis.set(xlabel=x_label, ylabel=y_label)
    axis.grid(alpha=0.3)
    return figure, axis


def rows_from_top(axis: Axes, labels: Sequence[str]) -> None:
    """Name the rows 0, 1, 2, ... of an axis, of which the first one stands on top."""
    axis.set(yticks=range(len(labels)), yticklabels=labels, ylim=(len(labels) - 0.5, -0.5))


def interval_plot(summaries: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    """Means with their 95 % intervals: a panel per metric, methods from the top as in the table.

    A mean that is infinite, or that no patient has, is written at the right edge.

    Args:
        summaries: the table from `evaluation.summarise`.
        metrics: which of their metrics to show.

    Raises:
        ValueError: no metrics, or one that was not scored.
    """
    if not metrics:
        raise ValueError(
            "a plot needs a metric to show, got none: pass names such as those of "
            "evaluation.CT_METRICS"
        )
    methods = list(summaries["method"].unique())
    columns = 2 if len(metrics) in (2, 4) else min(len(metrics), 3)
    rows = math.ceil(len(metrics) / columns)
    size_inches = (2 + 2.6 * columns, (0.7 + 0.24 * len(methods)) * rows)
    figure = Figure(figsize=size_inches, layout="constrained")

    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axis, metric in zip(panels, metrics, strict=False):
        of_metric = summaries[summaries["metric"] == metric]
        if of_metric.empty:
            known = ", ".join(summaries["metric"].unique())
            raise ValueError(f"unknown metric {metric!r}: choose from {known}")

        for summary in of_metric.itertuples():
            draw_interval(axis, methods.index(summary.method), summary)
        axis.set_title(metric, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        rows_from_top(axis, methods)

    for axis in panels[len(metrics) :]:
        axis.set_visible(False)
    return figure


def draw_interval(axis: Axes, row: int, summary: NamedTuple) -> None:
    """Draw one row of `evaluation.summarise`: its mean and interval, or a word at the edge."""
    colour = COLOURS[row % len(COLOURS)]
    if np.isfinite(summary.mean):
        axis.plot(summary.mean, row, "o", color=colour, markersize=5)
        axis.hlines(row, summary.low, summary.high, color=colour, linewidth=2)
        return

    text = "infinite" if np.isinf(summary.mean) else "none"
    right_edge = axis.get_yaxis_transform()
    alignment = {"ha": "right", "va": "center"}
    axis.text(0.98, row, text, color=colour, fontsize=8, transform=right_edge, **alignment)


def offenders(report: Report, most: int = 6) -> Figure:
    """The first slices of each finding of `check_folder`, one row per finding, with their names.

    Saturated pixels are drawn orange.

    Args:
        report: from `check_folder`.
        most: slices in a row.

    Raises:
        ValueError: there are no findings.
    """
    if not report.findings:
        raise ValueError(
            f"{report.folder} has no offenders to draw: draw only a report with findings"
        )

    rows = {}
    for finding in report.findings:
        # Row labels are narrow.
        label = f"{finding.kind} ({len(finding.files)})"
        label = label.replace(", ", ",\n").replace(" (", "\n(")
        saturated = finding.kind == "saturated"
        images = [read_colours(report.folder / name, saturated) for name in finding.files[:most]]
        rows[label] = ImageRow(images, 0, 1)

    figure = montage(rows, size=1.2)
    axes = np.reshape(figure.axes, (len(rows), -1))
    for row_axes, finding in zip(axes, report.findings, strict=True):
        for axis, name in zip(row_axes, finding.files, strict=False):
            name = printable(name)
            axis.set_title(name if len(name) <= 24 else f"...{name[-21:]}", fontsize=6)
    return figure


def read_colours(path: Path, mark_saturated: bool) -> np.ndarray:
    """(H, W, 3) in [0, 1], the brightest value 1; a frame for a file that is unreadable or huge."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MOST_SLICE_PIXELS:
                raise ValueError
            is_grey = image.mode in ("1", "L") or image.mode.startswith(("I", "F"))
            pixels = np.asarray(image.convert("F" if is_grey else "RGB"), np.float32)
    except UNREADABLE:
        white = np.ones((14, 14, 3))
        return np.pad(white, ((1, 1), (1, 1), (0, 0)), constant_values=0.6)

    colours = np.repeat(pixels[..., None], 3, 2) if is_grey else pixels
    saturated = (colours == 255).all(2)
    colours = colours / max(colours.max(), 1)
    if mark_saturated:
        colours[saturated] = SATURATED_COLOUR
    return colours


def png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as PNG on white, whatever the page's theme."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def jpeg(figure: Figure) -> bytes:
    """The figure as JPEG on white: noisy slices take a quarter of a PNG's bytes."""
    buffer = BytesIO()
    figure.savefig(buffer, format="jpeg", dpi=75, facecolor="white", pil_kwargs={"quality": 75})
    return buffer.getvalue()


def show(figure: Figure) -> None:
    """Display the figure in a notebook.

    What it shows is described in the cell's metadata, as "alt", which the site reads aloud.
    """
    from IPython.display import Image, display

    display(Image(png(figure)))


def evenly_chosen(slices: Tensor, most: int) -> Tensor:
    """At most so many of the slices, from the first one on, equally far apart."""
    step = math.ceil(len(slices) / most)
    return slices[::step]

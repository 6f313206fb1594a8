"""Interactive viewers of slices: a live widget in notebooks, and pages for any browser."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from ..evaluation.ct_metrics import CT_METRICS
from ..machine import import_optional
from ..units import HU
from ..windows import WINDOWS
from .html_pages import SCRIPT, STYLE, frame_element, jpeg_element, page, viewer_section, write_page
from .packing import pack
from .specification import ShownScan, specification
from .strips import strip_files

if TYPE_CHECKING:
    import pandas as pd

COMPARISONS = ["wipe", "side", "blend", "difference", "checker", "flicker"]

# Left, right, top and bottom: the patient's right is on the left.
MARKS = "RLAP"

# Expected error in HU that gets the full colour.
UNCERTAINTY_LIMIT_HU = 200.0


class Viewer:
    """Slices to look at: a notebook shows it as a page in a frame, and `save` writes that page.

    The page works without a kernel, in a notebook that was closed and opened again too. Where no
    script runs, its place is taken by the montage. What a reader chooses comes back to Python only
    from `widget`.

    Args:
        spec: what viewer.mjs reads, from `specification`.
        values: (images stored, N, H, W), int16.
    """

    def __init__(self, spec: dict, values: np.ndarray):
        self.spec = spec
        self.values = values

    @cached_property
    def data(self) -> bytes:
        """The values as the browser gets them."""
        return pack(self.values.ravel(), self.values.shape[-1])

    @cached_property
    def widget(self):
        """The viewer as a live widget of ipywidgets, to be shown in place of the page.

        Its `slice`, `level`, `width`, `mode`, `position`, `plane`, `zoom`, `x` and `y` are what
        the reader has chosen so far. They can be set, observed, and linked to other widgets, while
        the kernel lives. Opened again without it, a notebook still draws, if JupyterLab saves
        widgets, which is its default where this package is installed.

        Raises:
            ModuleNotFoundError: anywidget is not installed.
        """
        anywidget = import_optional("anywidget")
        import traitlets

        class ViewerWidget(anywidget.AnyWidget):
            _esm = SCRIPT
            _css = STYLE
            spec = traitlets.Dict().tag(sync=True)
            data = traitlets.Bytes().tag(sync=True)
            mode = traitlets.Unicode().tag(sync=True)
            plane = traitlets.Unicode().tag(sync=True)
            slice = traitlets.Int().tag(sync=True)
            position = traitlets.Float().tag(sync=True)
            level = traitlets.Float().tag(sync=True)
            width = traitlets.Float().tag(sync=True)
            zoom = traitlets.Int().tag(sync=True)
            x = traitlets.Int().tag(sync=True)
            y = traitlets.Int().tag(sync=True)

        # In a box it takes the place that its neighbours leave.
        layout = {"width": "100%"}
        return ViewerWidget(spec=self.spec, data=self.data, layout=layout, **self.spec["state"])

    def montage(self) -> str:
        """The first view as a picture in HTML, for paper, screen readers and where no script runs.

        Raises:
            ImportError: matplotlib is not installed.
        """
        from .figures import first_look, jpeg

        return jpeg_element(jpeg(first_look(self)), self.spec["alt"])

    def section(self, text: str = "") -> str:
        """A section of a `page`, below `text`, which is HTML."""
        return text + viewer_section(self.spec, self.data)

    def save(self, path: str | Path) -> None:
        """Write one HTML file that needs a browser and nothing else, no network either.

        Raises:
            OSError: the file cannot be written.
        """
        write_page(path, page(self.spec["alt"], [self.section(self.montage())]))

    def __repr__(self) -> str:
        return f"Viewer: {self.spec['alt']}"

    def _repr_html_(self) -> str:
        alt = self.spec["alt"]
        return frame_element(page(alt, [self.section()]), alt, self.montage())


def compare(
    real: ArrayLike,
    translated: ArrayLike,
    *,
    alt: str,
    units: str | tuple[str, str] = "HU",
    names: tuple[str, str] = ("real", "translated"),
    spacing_mm: float | Sequence[float] | None = None,
    labels: Sequence[str] = (),
    marks: str = MARKS,
    uncertainty: ArrayLike | None = None,
) -> Viewer:
    """Two stacks of the same slices, compared in several ways.

    These are wipe, side by side, blend, difference (translated - real), checkerboard and flicker.
    Values are kept to 1 HU, or to 1/4095 of an MR scan's range.

    Args:
        real: (N, H, W), or one slice (H, W).
        translated: same shape.
        alt: what is to be seen, in one sentence.
        units: "HU", windowed as CT, or another name, shown between the 0.5 and 99.5 percentile of
            all slices. A pair of them if the two differ; then there is no difference.
        names: of the two scans.
        spacing_mm: size of a pixel, or (z, y, x) of a volume.
        labels: what to call each slice.
        marks: letters for left, right, top and bottom, "" if unknown.
        uncertainty: same shape, the error to expect of the translated scan, in its unit. It is laid
            over that scan in orange, as one more way.

    Raises:
        ValueError: shapes differ, values are not finite numbers or too many for a browser, or other
            arguments do not fit.

    Example:
        >>> from ctmri_utils import compare, synthetic_patients
        >>> ct_hu = synthetic_patients(3, seed=2026).ct_hu
        >>> viewer = compare(ct_hu, ct_hu + 20, alt="Three CTs, and the same 20 HU denser.")
        >>> viewer.save("three.html")
    """
    if isinstance(units, str):
        units = (units, units)
    if len(units) != 2 or len(names) != 2 or names[0] == names[1]:
        raise ValueError(
            f"compare needs two different names and one unit or two, got names={names!r} and "
            f"units={units!r}"
        )

    scans = [ShownScan(names[0], real, units[0]), ShownScan(names[1], translated, units[1])]
    modes = list(COMPARISONS)
    if units[0] != units[1]:
        modes.remove("difference")
    if uncertainty is not None:
        scans.append(ShownScan("uncertainty", uncertainty, units[1]))
        modes.append("uncertainty")

    spec, values = specification(
        scans, modes, alt=alt, spacing_mm=spacing_mm, labels=labels, marks=marks
    )
    if uncertainty is not None:
        largest = max(float(np.max(uncertainty)), 1e-6)
        limit = UNCERTAINTY_LIMIT_HU if units[1] == HU.unit else largest
        spec["images"][2] |= {"limit": limit, "window": [limit / 2, limit]}
    return Viewer(spec, values)


def browse(
    slices: ArrayLike,
    *,
    alt: str,
    unit: str = "HU",
    spacing_mm: float | Sequence[float] | None = None,
    labels: Sequence[str] = (),
    marks: str = MARKS,
) -> Viewer:
    """One stack, slice by slice; a volume also in coronal and sagittal planes.

    CT is shown in two windows side by side: one of the reader's choice, at first that of the brain,
    and that of bone.

    Args:
        slices: (N, H, W), or one slice (H, W).
        alt: what is to be seen, in one sentence.
        unit: "HU", windowed as CT, or another name.
        spacing_mm: size of a pixel. Three numbers (z, y, x) make the stack a volume, z upward.
        labels: what to call each slice.
        marks: letters for left, right, top and bottom, "" if unknown.

    Raises:
        ValueError: as in `compare`.

    Example:
        >>> from ctmri_utils import browse, synthetic_patients
        >>> browse(synthetic_patients(3, seed=2026).ct_hu, alt="Three synthetic CTs.")
        Viewer: Three synthetic CTs.
    """
    is_ct = unit == HU.unit
    modes = ["side", "single"] if is_ct else ["single"]
    spec, values = specification(
        [ShownScan("", slices, unit)],
        modes,
        alt=alt,
        spacing_mm=spacing_mm,
        labels=labels,
        marks=marks,
    )
    if is_ct:
        add_window(spec, "bone")
    return Viewer(spec, values)


def window_level(
    ct_hu: ArrayLike,
    *,
    alt: str,
    spacing_mm: float | Sequence[float] | None = None,
    labels: Sequence[str] = (),
    marks: str = MARKS,
) -> Viewer:
    """CT slices twice: through a window of one's choice, and through one that shows everything.

    Args:
        ct_hu: (N, H, W), or one slice (H, W), in HU.
        alt: what is to be seen, in one sentence.
        spacing_mm: size of a pixel, or (z, y, x) of a volume.
        labels: what to call each slice.
        marks: letters for left, right, top and bottom, "" if unknown.

    Raises:
        ValueError: as in `compare`.
    """
    spec, values = specification(
        [ShownScan("your window", ct_hu, HU.unit)],
        ["side", "wipe"],
        alt=alt,
        spacing_mm=spacing_mm,
        labels=labels,
        marks=marks,
    )
    add_window(spec, "everything")
    return Viewer(spec, values)


def add_window(spec: dict, name: str) -> None:
    """Let a second image draw the same stored values, always in one window."""
    window = WINDOWS[name]
    fixed = {"name": name, "window": [window.level, window.width]}
    spec["images"].append(spec["images"][0] | fixed)


def training_strip(folder: str | Path, *, alt: str) -> Viewer:
    """A slider over the strips that `LiveProgress` kept in a folder.

    Raises:
        FileNotFoundError: the folder holds no strips.
    """
    files = strip_files(Path(folder))
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no strips (step-000100.png): train with LiveProgress(..., folder=...) "
            "first"
        )
    strips = [np.asarray(Image.open(file).convert("L")) for file in files.values()]
    labels = [f"step {step}" for step in files]
    viewer = browse(strips, alt=alt, unit="grey level", marks="", labels=labels)

    # Pictures are shown as they are: no window to choose, no values to read.
    viewer.spec |= {"windows": {}, "read": False}
    viewer.spec["state"] |= {"level": 127.5, "width": 255}
    return viewer


def error_explorer(
    scores: pd.DataFrame,
    real_hu: ArrayLike,
    translated_hu: ArrayLike,
    patients: Sequence[str],
    *,
    method: str,
    metrics: Sequence[str],
    alt: str,
    spacing_mm: float | Sequence[float] | None = None,
) -> Viewer:
    """`compare` with a table of one method's scores, and a scatter of the first two.

    The patient who is worst by the first metric stands on top and is shown first.

    Args:
        scores: the table from `evaluate`.
        real_hu: (N, H, W).
        translated_hu: (N, H, W).
        patients: whose slice each is, as in `Split.ct_patients`.
        method: one of the scores' methods.
        metrics: some of the scores' metrics.
        alt: what is to be seen, in one sentence.
        spacing_mm: size of a pixel.

    Raises:
        ValueError: a patient or a score is missing, or see `compare`.
    """
    patients = [str(patient) for patient in patients]
    values = scores_of(scores, method, patients, metrics)

    def first_severity(patient: str) -> float:
        return severity(metrics[0], values[patient, metrics[0]])

    viewer = compare(real_hu, translated_hu, alt=alt, spacing_mm=spacing_mm, labels=patients)
    distinct_patients = dict.fromkeys(patients)
    rows = []
    for patient in sorted(distinct_patients, key=first_severity, reverse=True):
        numbers = [json_number(values[patient, metric]) for metric in metrics]
        rows.append({"name": patient, "start": patients.index(patient), "numbers": numbers})

    viewer.spec["table"] = {"columns": ["patient", *metrics], "rows": rows}
    viewer.spec["state"]["slice"] = rows[0]["start"]
    return viewer


def scores_of(
    scores: pd.DataFrame, method: str, patients: list[str], metrics: Sequence[str]
) -> dict[tuple[str, str], float]:
    """{(patient, metric): value} of one method; ValueError if any is missing."""
    if not patients or not metrics:
        raise ValueError(
            f"a table needs patients and metrics, got {len(patients)} and {len(metrics)}"
        )

    method_scores = scores[scores["method"] == method]
    values = method_scores.set_index(["patient", "metric"])["value"].to_dict()
    for patient, metric in itertools.product(patients, metrics):
        if (patient, metric) not in values:
            raise ValueError(
                f"{method!r} has no {metric} for patient {patient}: choose methods, metrics "
                "and patients of these scores"
            )
    return values


def severity(metric: str, value: float) -> float:
    """How bad a score is: undefined ones come last, and a bias of either sign counts."""
    if math.isnan(value):
        return -math.inf
    known = CT_METRICS.get(metric)
    return -value if known and known.higher_is_better else abs(value)


def json_number(value: float) -> float | str:
    """The value, or a sign for what JSON does not know: infinity, and an undefined score."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "–"
    return "∞" if value > 0 else "−∞"

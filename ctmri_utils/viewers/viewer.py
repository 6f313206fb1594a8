"""Slices to look at and to compare, drawn in the browser.

A live widget in notebooks, and a page that needs nothing but a browser.
"""

from __future__ import annotations

import html
import json
import math
import zlib
from base64 import b64encode
from collections.abc import Sequence
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from ..units import HU, WINDOWS

COMPARISONS = ["wipe", "side", "blend", "difference", "checker", "flicker"]
# left, right, top, bottom: the patient's right is on the left
MARKS = "RLAP"
# full colour
DIFFERENCE_LIMIT_HU, DOUBT_LIMIT_HU = 500.0, 200.0
# of a scan: 64 slices of 512 x 512; a browser holds three of them as 96 MB
MOST_VALUES = 2**24
# of packed values: neighbours differ by less than 2**0, 2**1, ... 2**17
GROUPS = 18
HIGHER_IS_BETTER = ("PSNR", "SSIM", "Dice")
SCRIPT, STYLE = (
    Path(__file__).with_suffix(kind).read_text(encoding="utf-8") for kind in (".mjs", ".css")
)
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<meta http-equiv="Content-Security-Policy"
content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:">
<style>
:root {{ color-scheme: light dark }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 8px }}
img {{ max-width: 100% }}
{css}</style></head><body>{body}
<script type="module">
{script}
for (const place of document.querySelectorAll("[data-viewer]")) {{
  const {{ spec, data }} = JSON.parse(place.querySelector("script").textContent);
  const text = atob(data), bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  const model = new Map(Object.entries({{ spec, data: bytes, state: {{}} }}));
  viewer.render({{ el: place, model: Object.assign(model, {{ save_changes() {{}} }}) }});
}}
</script></body></html>
"""


class Viewer:
    """What the functions below return: shown by a notebook, or written to a page with `save`.

    Works without a kernel, once drawn.
    """

    def __init__(self, spec: dict, values: np.ndarray):
        # values: (images stored, N, H, W), int16
        self.spec, self.values = spec, values

    @cached_property
    def data(self) -> bytes:
        """The values as the browser gets them."""
        return pack(self.values.ravel(), self.values.shape[-1])

    @cached_property
    def widget(self):
        """The live widget; its `state` is what the reader has chosen so far.

        Raises ImportError without anywidget.
        """
        try:
            import anywidget
            import traitlets
        except ImportError as error:
            raise ImportError(
                'the live viewer needs anywidget: pip install "ctmri-utils[course]", or save a '
                "page instead"
            ) from error

        class ViewerWidget(anywidget.AnyWidget):
            _esm, _css = SCRIPT, STYLE
            spec, state = traitlets.Dict().tag(sync=True), traitlets.Dict().tag(sync=True)
            data = traitlets.Bytes().tag(sync=True)

        return ViewerWidget(spec=self.spec, data=self.data)

    def montage(self) -> str:
        """The first look as a picture in HTML, for paper, screen readers and where no script runs.

        ImportError without matplotlib.
        """
        from .figures import first_look, jpeg

        return (
            f'<img alt="{html.escape(self.spec["alt"])}" '
            f'src="data:image/jpeg;base64,{b64encode(jpeg(first_look(self))).decode()}">'
        )

    def section(self, text: str = "") -> str:
        """A part of a page made by `page`, under `text`, which is HTML."""
        payload = json.dumps(
            {"spec": self.spec, "data": b64encode(self.data).decode()}, allow_nan=False
        ).replace("<", "\\u003c")
        return (
            f"{text}<div data-viewer><noscript>Needs JavaScript.</noscript><script "
            f'type="application/json">{payload}</script></div>'
        )

    def save(self, path: str | Path) -> None:
        """Write one HTML file that needs a browser and nothing else, no network either.

        Raises OSError if it cannot be written.
        """
        write_page(path, self.spec["alt"], [self.section(self.montage())])

    def _repr_mimebundle_(self, **_):
        title, whole = (
            html.escape(self.spec["alt"]),
            html.escape(page(self.spec["alt"], [self.section()])),
        )
        shown = {
            "text/plain": f"Viewer: {self.spec['alt']}",
            "text/html": f'<iframe srcdoc="{whole}" title="{title}" width="100%" height="860" '
            'style="border: 0"></iframe>',
        }
        try:
            data, metadata = self.widget._repr_mimebundle_()
        except ImportError:
            return shown
        return {**data, **shown}, metadata


def page(title: str, sections: Sequence[str]) -> str:
    """One HTML page of the sections, which come from `Viewer.section`."""
    script = SCRIPT.replace("export default", "const viewer =")
    return PAGE.format(title=html.escape(title), css=STYLE, script=script, body="\n".join(sections))


def write_page(path: str | Path, title: str, sections: Sequence[str]) -> None:
    """`page`, into a file. Raises OSError, in one sentence, if it cannot be written."""
    try:
        Path(path).write_text(page(title, sections), encoding="utf-8")
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}") from error


def compare(
    real,
    translated,
    *,
    alt: str,
    units: str | tuple[str, str] = "HU",
    names=("real", "translated"),
    spacing_mm=None,
    labels=(),
    marks: str = MARKS,
    doubt=None,
) -> Viewer:
    """Two stacks of the same slices.

    Wipe, side by side, blend, difference (translated - real), checkerboard, flicker, doubt if
    given.

    All (N, H, W), or one slice (H, W). units: "HU", windowed as CT, or another name, shown between
    the 0.5 and 99.5 percentile of all slices; a pair of them if the two differ (then without
    difference). spacing_mm: size of a pixel. labels: what to call each slice. marks: letters for
    left, right, top and bottom, "" if unknown. doubt: the error to expect of the translated scan,
    in its unit, laid over it in orange. Values are kept to 1 HU, or to 1/4095 of an MR scan's
    range. Raises ValueError if shapes differ, values are not finite numbers or too many for a
    browser, or names or other arguments do not fit.
    """
    units = (units, units) if isinstance(units, str) else units
    if len(units) != 2 or len(names) != 2 or names[0] == names[1]:
        raise ValueError(
            f"compare needs two different names and one unit or two, got names={names!r} and "
            f"units={units!r}"
        )
    modes = [mode for mode in COMPARISONS if mode != "difference" or units[0] == units[1]]
    if doubt is None:
        return viewer(names, (real, translated), units, modes, alt, spacing_mm, labels, marks)
    made = viewer(
        (*names, "doubt"),
        (real, translated, doubt),
        (*units, units[1]),
        [*modes, "doubt"],
        alt,
        spacing_mm,
        labels,
        marks,
    )
    limit = DOUBT_LIMIT_HU if units[1] == HU.unit else max(float(np.max(doubt)), 1e-6)
    made.spec["images"][2] |= {"limit": limit, "window": [limit / 2, limit]}
    return made


def browse(
    slices, *, alt: str, unit: str = "HU", spacing_mm=None, labels=(), marks: str = MARKS
) -> Viewer:
    """One stack (N, H, W). With three numbers (z, y, x) as spacing_mm it is a volume, z upward.

    Axial, coronal and sagittal planes.
    """
    return viewer([""], [slices], [unit], ["single"], alt, spacing_mm, labels, marks)


def window_level(ct_hu, *, alt: str, spacing_mm=None, labels=(), marks: str = MARKS) -> Viewer:
    """CT slices (N, H, W) in HU twice.

    Through the window one chooses, and through one that shows everything, to see what it hides.
    """
    made = viewer(
        ["your window"], [ct_hu], ["HU"], ["side", "wipe"], alt, spacing_mm, labels, marks
    )
    everything = WINDOWS["everything"]
    made.spec["images"].append(
        {
            **made.spec["images"][0],
            "name": "everything",
            "window": [everything.level, everything.width],
        }
    )
    return made


def training_strip(folder: str | Path, *, alt: str) -> Viewer:
    """A slider over the strips that `LiveProgress` kept in a folder.

    Raises FileNotFoundError if there are none.
    """
    files = sorted(Path(folder).glob("step-*.png"))
    if not files:
        raise FileNotFoundError(
            f"{folder} holds no strips (step-000100.png): train with LiveProgress(..., folder=...) "
            "first"
        )
    made = browse(
        [np.asarray(Image.open(file).convert("L")) for file in files],
        alt=alt,
        unit="grey level",
        marks="",
        labels=[f"step {int(file.stem.removeprefix('step-'))}" for file in files],
    )
    made.spec |= {"windows": {}, "read": False}
    made.spec["state"] |= {"level": 127.5, "width": 255}
    return made


def error_explorer(
    scores,
    real_hu,
    translated_hu,
    patients: Sequence[str],
    *,
    method: str,
    metrics: Sequence[str],
    alt: str,
    spacing_mm=None,
) -> Viewer:
    """`compare` with a table of one method's scores, the worst patient by the first metric on top,
    and a scatter of the first two.

    scores: from `evaluate`; patients: whose slice each is, as in `Split.ct_patients`. ValueError if
    a patient or a score is missing.
    """
    value = {
        (score.patient, score.metric): float(score.value)
        for score in scores
        if score.method == method
    }
    patients = [str(patient) for patient in patients]
    for patient, metric in product(patients or ["(none given)"], metrics or ["(no metric given)"]):
        if (patient, metric) not in value:
            raise ValueError(
                f"{method!r} has no {metric} for patient {patient}: choose methods, metrics and "
                "patients of these scores"
            )

    # undefined last; infinity, and a bias of either sign, counts
    def badness(patient):
        number = value[patient, metrics[0]]
        return (
            -math.inf
            if math.isnan(number)
            else -number
            if any(word in metrics[0] for word in HIGHER_IS_BETTER)
            else abs(number)
        )

    # JSON knows finite numbers only
    def written(number):
        return (
            number if math.isfinite(number) else {"nan": "–", "inf": "∞", "-inf": "−∞"}[str(number)]
        )

    made = compare(real_hu, translated_hu, alt=alt, spacing_mm=spacing_mm, labels=patients)
    rows = [
        {
            "name": patient,
            "start": patients.index(patient),
            "numbers": [written(value[patient, metric]) for metric in metrics],
        }
        for patient in sorted(dict.fromkeys(patients), key=badness, reverse=True)
    ]
    made.spec["table"] = {"columns": ["patient", *metrics], "rows": rows}
    made.spec["state"]["slice"] = rows[0]["start"]
    return made


def viewer(
    names: Sequence[str],
    stacks,
    units: Sequence[str],
    modes: list[str],
    alt: str,
    spacing_mm,
    labels,
    marks: str,
) -> Viewer:
    """The specification that viewer.mjs reads, and the values; see `compare`."""
    stacks = [numbers(name or "the slices", slices) for name, slices in zip(names, stacks)]
    shape = stacks[0].shape
    if any(stack.shape != shape for stack in stacks):
        raise ValueError(
            "both scans need slices of one shape, got "
            f"{' and '.join(str(stack.shape) for stack in stacks)}"
        )
    if spacing_mm is not None and (
        np.shape(spacing_mm) not in ((), (3,))
        or not all(0 < mm < math.inf for mm in np.ravel(spacing_mm))
    ):
        raise ValueError(
            "spacing_mm must be the size of a pixel, or three for a volume (z, y, x), above 0 mm, "
            f"got {spacing_mm!r}"
        )
    labels = [str(label) for label in labels]
    if labels and len(labels) != shape[0]:
        raise ValueError(f"{len(labels)} labels for {shape[0]} slices: give one each, or none")
    # the unit that level and width act on
    live = HU.unit if HU.unit in units else units[0]
    images, stored, windows = [], [], {}
    for source, (name, stack, unit) in enumerate(zip(names, stacks, units, strict=True)):
        low, high = float(stack.min()), float(stack.max())
        if unit == HU.unit and -1 <= low < high <= 1:
            raise ValueError(
                "values in [-1, 1] are the network's, not HU: turn them into HU with "
                "ct_scale.from_network first"
            )
        gain, offset = (1.0, 0.0) if unit == HU.unit else (max(high - low, 1e-6) / 4095, low)
        if unit not in windows:
            low, high = np.percentile(stack, [0.5, 99.5]).tolist()
            windows[unit] = (
                {key: [window.level, window.width] for key, window in WINDOWS.items()}
                if unit == HU.unit
                else {"full range": [(low + high) / 2, max(high - low, gain)]}
            )
        images.append(
            {
                "name": name,
                "unit": unit,
                "source": source,
                "gain": gain,
                "offset": offset,
                "window": None if unit == live else windows[unit]["full range"],
            }
        )
        stored.append(np.rint((stack - offset) / gain).clip(-32768, 32767).astype(np.int16))
    level, width = next(iter(windows[live].values()))
    span = (
        [HU.low, HU.high, 1]
        if live == HU.unit
        else [level - width / 2, level + width / 2, width / 200]
    )
    spec = {
        "alt": alt,
        "images": images,
        "modes": modes,
        "windows": windows[live],
        "range": span,
        "unit": live,
        "read": True,
        "limit": DIFFERENCE_LIMIT_HU if live == HU.unit else width / 2,
        "planes": planes(shape, spacing_mm, labels, marks),
        "state": {
            "mode": modes[0],
            "position": 50,
            "plane": "axial",
            "slice": 0,
            "zoom": 1,
            "x": 0,
            "y": 0,
            "level": level,
            "width": width,
        },
    }
    return Viewer(spec, np.stack(stored))


def numbers(name: str, slices) -> np.ndarray:
    """Slices (N, H, W), or one (H, W), as float32 (N, H, W), or ValueError in one sentence."""
    try:
        stack = np.asarray(slices)
        got = f"{stack.dtype} {stack.shape}" if stack.ndim else repr(slices)
    except ValueError:
        # NumPy makes no array of them
        stack, got = np.empty(0), "slices of different shapes"
    if stack.dtype.kind not in "iuf" or stack.ndim not in (2, 3) or not stack.size:
        raise ValueError(
            f"{name} must be numbers in slices of one shape, (N, H, W) or (H, W), got {got}"
        )
    if (every := -(-stack.size // MOST_VALUES)) > 1:
        raise ValueError(
            f"{name} {stack.shape} has too many values for a browser: show every {every}th slice, "
            f"[::{every}], or a part"
        )
    if not np.isfinite(stack).all():
        raise ValueError(f"{name} must be finite values: replace NaN and infinity first")
    return stack.astype(np.float32).reshape(-1, *stack.shape[-2:])


def planes(shape: tuple[int, int, int], spacing_mm, labels: list[str], marks: str) -> list[dict]:
    """How to walk through the values of a stack, plane by plane.

    Slice s, row r and column c lie at origin + s, r and c times strides.
    """
    depth, height, width = shape
    z, y, x = spacing_mm if np.ndim(spacing_mm) else (None, spacing_mm, spacing_mm)
    # the last slice is the highest
    one, top = height * width, (depth - 1) * height * width
    rows = [
        ("axial", (depth, height, width), 0, (one, width, 1), (y, x), marks, labels),
        (
            "coronal",
            (height, depth, width),
            top,
            (width, -one, 1),
            (z, x),
            marks[:2].ljust(2) + "SI",
            [],
        ),
        (
            "sagittal",
            (width, depth, height),
            top,
            (1, -one, width),
            (z, y),
            marks[2:].ljust(2) + "SI",
            [],
        ),
    ]
    return [
        {
            "name": name,
            "slices": slices,
            "rows": down,
            "columns": right,
            "origin": origin,
            "strides": strides,
            "mm": None if mm[0] is None else [float(side) for side in mm],
            "marks": letters,
            "labels": named,
        }
        for name, (slices, down, right), origin, strides, mm, letters, named in rows[
            : 1 if z is None else 3
        ]
    ]


def pack(values: np.ndarray, columns: int) -> bytes:
    """int16 (K,), in rows of so many columns -> deflated bytes; unpacked by viewer.mjs.

    Each value is foretold as in lossless JPEG (JPEG-LS, ITU-T T.87): the median of left, above and
    left + above - corner. The rest d, modulo 2^16, becomes 2d or -2d - 1, whichever is not
    negative, and joins one of GROUPS groups by how much left, above and corner differ, as noise and
    plain air pack best apart. Stored: where each group starts (uint32), all low bytes, all high
    bytes.
    """
    before = np.concatenate([np.zeros(columns + 1, np.int32), values])
    left, above, corner = before[columns:-1], before[1:-columns], before[: -columns - 1]
    foretold = np.clip(left + above - corner, np.minimum(left, above), np.maximum(left, above))
    # it wraps
    rest = (values - foretold).astype(np.int16)
    # the number of bits
    group = np.frexp(np.abs(left - corner) + np.abs(above - corner))[1].astype(np.uint8)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(GROUPS)).astype("<u4")
    code = ((rest << 1) ^ (rest >> 15)).astype("<u2")[order]
    # noise has no repeats worth the search
    deflate = zlib.compressobj(strategy=zlib.Z_RLE)
    return (
        deflate.compress(starts.tobytes() + code.view(np.uint8).reshape(-1, 2).T.tobytes())
        + deflate.flush()
    )

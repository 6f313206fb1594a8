"""Slices to look at and to compare, drawn in the browser: a live widget in notebooks, and a page that needs nothing but a browser."""
from __future__ import annotations

import html
import json
import math
import zlib
from base64 import b64encode
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from .units import HU, WINDOWS

COMPARISONS = ["wipe", "side", "blend", "difference", "checker", "flicker"]
MARKS = "RLAP"                                                 # left, right, top, bottom: the patient's right is on the left
DIFFERENCE_LIMIT_HU = 500.0
MOST_VALUES = 2**25                                            # 64 slices of 512 x 512, twice; a browser holds them as 64 MB
HIGHER_IS_BETTER = ("PSNR", "SSIM", "Dice")
FILES = Path(__file__).parent
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'">
<style>:root {{ color-scheme: light dark }} body {{ font: 15px/1.5 system-ui, sans-serif; margin: 8px }}
{css}</style></head><body>{body}
<script type="module">
{script}
for (const place of document.querySelectorAll("[data-viewer]")) {{
  const {{ spec, data }} = JSON.parse(place.querySelector("script").textContent), text = atob(data), bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  const state = {{ spec, state: {{}}, data: bytes }};
  const model = {{ get: (name) => state[name], set(name, to) {{ state[name] = to; }}, save_changes() {{}}, on() {{}}, off() {{}} }};
  viewer.render({{ el: place, model }});
}}
</script></body></html>
"""
SECTION = '{text}<div data-viewer><noscript>{alt} (needs JavaScript)</noscript><script type="application/json">{payload}</script></div>'


class Viewer:
    """What the functions below return: shown by a notebook, or written to a page with `save`. Works without a kernel, once drawn."""

    def __init__(self, spec: dict, data: bytes):
        self.spec, self.data = spec, data

    @property
    def state(self) -> dict:
        """What the reader has chosen so far, in a running notebook: mode, position, slice, level, width, zoom ..."""
        return {**self.spec["state"], **self.widget.state}

    @cached_property
    def widget(self):
        """The live widget. Raises ImportError without anywidget."""
        return widget_class()(spec=self.spec, data=self.data)

    def section(self, text: str = "") -> str:
        """A part of a page made by `page`, under `text`, which is HTML."""
        payload = json.dumps({"spec": self.spec, "data": b64encode(self.data).decode()}, allow_nan=False).replace("<", "\\u003c")
        return SECTION.format(text=text, alt=html.escape(self.spec["alt"]), payload=payload)

    def save(self, path: str | Path) -> None:
        """Write one HTML file that opens anywhere: nothing is fetched from a network, nothing but a browser is needed."""
        Path(path).write_text(page(self.spec["alt"], [self.section()]), encoding="utf-8")

    def _repr_mimebundle_(self, **_):
        title, whole = html.escape(self.spec["alt"]), html.escape(page(self.spec["alt"], [self.section()]))
        shown = {"text/plain": f"Viewer: {self.spec['alt']}",
                 "text/html": f'<iframe srcdoc="{whole}" title="{title}" width="100%" height="860" style="border: 0"></iframe>'}
        try:
            data, metadata = self.widget._repr_mimebundle_()
        except ImportError:
            return shown
        return {**data, **shown}, metadata


@cache
def widget_class():
    try:
        import anywidget
        import traitlets
    except ImportError as error:
        raise ImportError('the live viewer needs anywidget: pip install "ctmri-utils[course]", or save a page instead') from error

    class ViewerWidget(anywidget.AnyWidget):
        _esm, _css = ((FILES / name).read_text(encoding="utf-8") for name in ("viewer.mjs", "viewer.css"))
        spec, state = traitlets.Dict().tag(sync=True), traitlets.Dict().tag(sync=True)
        data = traitlets.Bytes().tag(sync=True)

    return ViewerWidget


def page(title: str, sections: Sequence[str]) -> str:
    """One HTML page of the sections, which come from `Viewer.section`."""
    css, script = ((FILES / name).read_text(encoding="utf-8") for name in ("viewer.css", "viewer.mjs"))
    script = script.replace("export default", "const viewer =")
    return PAGE.format(title=html.escape(title), css=css, body="\n".join(sections), script=script)


def compare(real, translated, *, alt: str, units: str | tuple[str, str] = "HU", names=("real", "translated"), spacing_mm=None, labels=(),
            marks: str = MARKS) -> Viewer:
    """Two stacks of the same slices: wipe, side by side, blend, difference (translated - real), checkerboard and flicker.

    Both (N, H, W), or one slice (H, W). units: "HU", windowed as CT, or another name, shown between the 0.5 and 99.5 percentile of all
    slices; a pair of them if the two differ (then without difference). spacing_mm: size of a pixel. labels: what to call each slice.
    marks: letters for left, right, top and bottom, "" if unknown. Raises ValueError if shapes differ, values are not finite, or there
    are too many for a browser.
    """
    units = (units, units) if isinstance(units, str) else units
    modes = [mode for mode in COMPARISONS if mode != "difference" or units[0] == units[1]]
    return viewer(dict(zip(names, (real, translated), strict=True)), units, modes, alt, spacing_mm, labels, marks)


def browse(slices, *, alt: str, unit: str = "HU", spacing_mm=None, labels=(), marks: str = MARKS) -> Viewer:
    """One stack (N, H, W). With three numbers (z, y, x) as spacing_mm it is a volume, z upward: axial, coronal and sagittal planes."""
    return viewer({"": slices}, (unit,), ["single"], alt, spacing_mm, labels, marks)


def window_level(ct_hu, *, alt: str, spacing_mm=None, labels=(), marks: str = MARKS) -> Viewer:
    """CT slices (N, H, W) in HU twice: through the window one chooses, and through one that shows everything, to see what it hides."""
    made = viewer({"your window": ct_hu}, ("HU",), ["side", "wipe"], alt, spacing_mm, labels, marks)
    everything = WINDOWS["everything"]
    made.spec["images"].append({**made.spec["images"][0], "name": "everything", "window": [everything.level, everything.width]})
    return made


def training_strip(folder: str | Path, *, alt: str) -> Viewer:
    """A slider over the strips that `LiveProgress` kept in a folder. Raises FileNotFoundError if there are none."""
    files = sorted(Path(folder).glob("step-*.png"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no strips (step-000100.png): train with LiveProgress(..., folder=...) first")
    made = browse([np.asarray(Image.open(file).convert("L")) for file in files], alt=alt, unit="grey level", marks="",
                  labels=[f"step {int(file.stem.removeprefix('step-'))}" for file in files])
    made.spec |= {"windows": {}, "read": False}
    made.spec["state"] |= {"level": 127.5, "width": 255}
    return made


def error_explorer(scores, real_hu, translated_hu, patients: Sequence[str], *, method: str, metrics: Sequence[str], alt: str,
                   spacing_mm=None) -> Viewer:
    """`compare` with a table of one method's scores, the worst patient by the first metric on top, and a scatter of the first two.

    scores: from `evaluate`; patients: whose slice each is, as in `Split.ct_patients`. ValueError if a patient or a score is missing.
    """
    value = {(score.patient, score.metric): score.value for score in scores if score.method == method}
    rows = []
    for patient in dict.fromkeys(patients):
        if missing := [metric for metric in metrics if (patient, metric) not in value]:
            raise ValueError(f"{method!r} has no {missing[0]} for patient {patient}: choose methods, metrics and patients of these scores")
        numbers = [float(value[patient, metric]) for metric in metrics]
        rows.append({"name": patient, "start": list(patients).index(patient), "count": list(patients).count(patient),
                     "numbers": [number if math.isfinite(number) else None for number in numbers]})

    def badness(row):                                            # undefined last; infinity, and a bias of either sign, counts
        number = float(value[row["name"], metrics[0]])
        return -math.inf if math.isnan(number) else -number if any(word in metrics[0] for word in HIGHER_IS_BETTER) else abs(number)

    rows.sort(key=badness, reverse=True)
    made = compare(real_hu, translated_hu, alt=alt, spacing_mm=spacing_mm, labels=patients)
    made.spec["table"] = {"columns": ["patient", *metrics], "rows": rows}
    made.spec["state"]["slice"] = rows[0]["start"]
    return made


def viewer(stacks: dict, units: Sequence[str], modes: list[str], alt: str, spacing_mm, labels, marks: str) -> Viewer:
    """The specification that viewer.mjs reads, and the values; see `compare`."""
    stacks = {name: np.atleast_3d(np.asarray(stack).T).T for name, stack in stacks.items()}
    shape = check(stacks)
    if labels and len(labels) != shape[0]:
        raise ValueError(f"{len(labels)} labels for {shape[0]} slices: give one each, or none")
    images, stored, windows = [], [], {}
    for source, ((name, stack), unit) in enumerate(zip(stacks.items(), units, strict=True)):
        gain, offset = (1.0, 0.0) if unit == HU.unit else (max(float(stack.max()) - float(stack.min()), 1e-6) / 4095, float(stack.min()))
        if unit not in windows:
            low, high = np.percentile(stack, [0.5, 99.5]).tolist()
            windows[unit] = ({key: [window.level, window.width] for key, window in WINDOWS.items()} if unit == HU.unit
                             else {"full range": [(low + high) / 2, max(high - low, gain)]})
        images.append({"name": name, "unit": unit, "source": source, "gain": gain, "offset": offset})
        stored.append(np.rint((stack - offset) / gain).clip(-32768, 32767).astype(np.int16))
    live = HU.unit if HU.unit in units else units[0]                                        # the unit that level and width act on
    for image in images:
        image["window"] = None if image["unit"] == live else windows[image["unit"]]["full range"]
    presets = windows[live]
    level, width = next(iter(presets.values()))
    span = [HU.low, HU.high, 1] if live == HU.unit else [level - width / 2, level + width / 2, width / 200]
    spec = {"alt": alt, "images": images, "modes": modes, "windows": presets, "range": span, "unit": live, "read": True,
            "limit": DIFFERENCE_LIMIT_HU if live == HU.unit else width / 2, "counts": [stack.size for stack in stored],
            "planes": planes(shape, spacing_mm, list(labels), marks),
            "state": {"mode": modes[0], "position": 50, "slice": 0, "plane": 0, "level": level, "width": width, "zoom": 1, "x": 0, "y": 0}}
    return Viewer(spec, pack(np.concatenate([stack.ravel() for stack in stored])))


def check(stacks: dict[str, np.ndarray]) -> tuple[int, int, int]:
    """The shape (N, H, W) that all stacks share, or ValueError in one sentence."""
    shapes = [stack.shape for stack in stacks.values()]
    if len(set(shapes)) > 1 or len(shapes[0]) != 3 or not math.prod(shapes[0]):
        raise ValueError(f"the viewer needs slices of one shape, (N, H, W), got {' and '.join(map(str, shapes))}")
    if (values := len(shapes) * math.prod(shapes[0])) > MOST_VALUES:
        raise ValueError(f"{shapes[0][0]} slices of {shapes[0][1]} x {shapes[0][2]} are too many for a browser: "
                         f"show every {-(-values // MOST_VALUES)}th of them, slices[::{-(-values // MOST_VALUES)}]")
    if not all(np.isfinite(stack).all() for stack in stacks.values()):
        raise ValueError("the viewer needs finite values: replace NaN and infinity first")
    return shapes[0]


def planes(shape: tuple[int, int, int], spacing_mm, labels: list[str], marks: str) -> list[dict]:
    """How to walk through the values of a stack, plane by plane: slice s, row r and column c lie at origin + s, r and c times strides."""
    depth, height, width = shape
    z, y, x = spacing_mm if np.ndim(spacing_mm) else (None, spacing_mm, spacing_mm)
    one, top = height * width, (depth - 1) * height * width                                 # the last slice is the highest
    rows = [("axial", (depth, height, width), 0, (one, width, 1), (y, x), marks, labels),
            ("coronal", (height, depth, width), top, (width, -one, 1), (z, x), marks[:2].ljust(2) + "SI", []),
            ("sagittal", (width, depth, height), top, (1, -one, width), (z, y), marks[2:].ljust(2) + "SI", [])]
    return [{"name": name, "slices": slices, "rows": down, "columns": right, "origin": origin, "strides": strides,
             "mm": None if mm[0] is None else [float(side) for side in mm], "marks": letters, "labels": named, "middle": slices // 2}
            for name, (slices, down, right), origin, strides, mm, letters, named in rows[:1 if z is None else 3]]


def pack(values: np.ndarray) -> bytes:
    """int16 (K,) -> deflated bytes, about half of what deflate alone makes of a scan: neighbours' differences d, modulo 2^16, stored as
    2d or -2d - 1, whichever is not negative, first all low bytes, then all high ones. viewer.mjs unpacks it."""
    step = np.diff(values, prepend=np.int16(0))                                             # int16, so it wraps
    code = ((step << 1) ^ (step >> 15)).astype("<u2")
    return zlib.compress(code.view(np.uint8).reshape(-1, 2).T.tobytes(), 6)

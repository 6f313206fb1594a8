"""The specification that viewer.mjs reads: images, windows, planes and the first view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..units import HU
from ..windows import WINDOWS
from .packing import GROUPS

# The window in which CT slices first appear.
FIRST_CT_WINDOW = "brain"

# Difference in HU that gets the full colour.
DIFFERENCE_LIMIT_HU = 500.0

# 64 slices of 512 x 512. A browser holds three such scans in 96 MB.
MAX_VALUES = 2**24

# MR values and the like are stored in so many steps of their range.
STORED_STEPS = 4095


class ShownScan(NamedTuple):
    """One scan to be shown.

    Args:
        name: what it is called; "" for the only one.
        slices: (N, H, W), or one slice (H, W).
        unit: of its values.
    """

    name: str
    slices: ArrayLike
    unit: str


def specification(
    scans: Sequence[ShownScan],
    modes: list[str],
    *,
    alt: str,
    spacing_mm,
    labels: Sequence,
    marks: str,
) -> tuple[dict, np.ndarray]:
    """Check the slices, and describe them for viewer.mjs.

    Args:
        scans: of one shape.
        modes: ways of looking, by the names in viewer.mjs; the first one is shown first.
        alt: what is to be seen, in one sentence.
        spacing_mm: None, the size of a pixel, or (z, y, x) of a volume.
        labels: what to call each slice; none, or N.
        marks: letters for left, right, top and bottom.

    Returns:
        The specification, which JSON can hold, and the values (scans, N, H, W), int16.

    Raises:
        ValueError: in one sentence, for slices or arguments that cannot be shown.
    """
    stacks = [checked_stack(scan.name or "the slices", scan.slices) for scan in scans]
    if any(stack.shape != stacks[0].shape for stack in stacks):
        shapes = " and ".join(str(stack.shape) for stack in stacks)
        raise ValueError(f"both scans need slices of one shape, got {shapes}")
    check_spacing(spacing_mm)
    shape = stacks[0].shape
    labels = checked_labels(labels, shape[0])

    # Level and width act on one unit only; images of another one keep their own window.
    units = [scan.unit for scan in scans]
    main_unit = HU.unit if HU.unit in units else units[0]
    windows = {}
    images = []
    stored = []
    for source, (name, _, unit) in enumerate(scans):
        stack = stacks[source]
        gain, offset, own_windows = scale_and_windows(stack, unit)
        windows.setdefault(unit, own_windows)

        image = {"name": name, "unit": unit, "source": source, "gain": gain, "offset": offset}
        image["window"] = None if unit == main_unit else windows[unit]["full range"]
        images.append(image)
        stored.append(np.rint((stack - offset) / gain).clip(-32768, 32767).astype(np.int16))

    spec = {
        "alt": alt,
        "images": images,
        "modes": modes,
        "unit": main_unit,
        "read": True,
        "planes": planes(shape, spacing_mm, labels, marks),
        "groups": GROUPS,
    }
    spec |= first_view(main_unit, windows[main_unit], modes[0])
    return spec, np.stack(stored)


def checked_stack(name: str, slices) -> np.ndarray:
    """Slices (N, H, W), or one (H, W), as float32 (N, H, W), or ValueError in one sentence."""
    try:
        stack = np.asarray(slices)
        received = f"{stack.dtype} {stack.shape}" if stack.ndim else repr(slices)
    except ValueError:
        # NumPy makes no array of lists of different lengths.
        stack = np.empty(0)
        received = "slices of different shapes"

    if stack.dtype.kind not in "iuf" or stack.ndim not in (2, 3) or not stack.size:
        raise ValueError(
            f"{name} must be numbers in slices of one shape, (N, H, W) or (H, W), got {received}"
        )
    if stack.size > MAX_VALUES:
        every = math.ceil(stack.size / MAX_VALUES)
        raise ValueError(
            f"{name} {stack.shape} has too many values for a browser: show every {every}th slice, "
            f"[::{every}], or a part"
        )
    if not np.isfinite(stack).all():
        raise ValueError(f"{name} must be finite values: replace NaN and infinity first")
    return stack.astype(np.float32).reshape(-1, *stack.shape[-2:])


def check_spacing(spacing_mm) -> None:
    """Raise ValueError unless it is None, a length, or three of them."""
    if spacing_mm is None:
        return

    one_or_three = np.shape(spacing_mm) in ((), (3,))
    if not one_or_three or not all(0 < mm < math.inf for mm in np.ravel(spacing_mm)):
        raise ValueError(
            "spacing_mm must be the size of a pixel, or three for a volume (z, y, x), above 0 mm, "
            f"got {spacing_mm!r}"
        )


def checked_labels(labels: Sequence, slices: int) -> list[str]:
    """The labels as text, or ValueError unless there is one for each slice, or none."""
    labels = [str(label) for label in labels]
    if labels and len(labels) != slices:
        raise ValueError(f"{len(labels)} labels for {slices} slices: give one each, or none")
    return labels


def scale_and_windows(stack: np.ndarray, unit: str) -> tuple[float, float, dict[str, list[float]]]:
    """How a stack is stored and shown.

    Returns:
        Gain and offset, value = gain * stored + offset, and windows to choose from, {name: [level,
        width]}: clinical ones for CT, one for the rest.
    """
    lowest = float(stack.min())
    highest = float(stack.max())
    if unit != HU.unit:
        gain = max(highest - lowest, 1e-6) / STORED_STEPS
        low, high = np.percentile(stack, [0.5, 99.5]).tolist()
        return gain, lowest, {"full range": [(low + high) / 2, max(high - low, gain)]}

    if -1 <= lowest < highest <= 1:
        raise ValueError(
            "values in [-1, 1] are the network's, not HU: turn them into HU with "
            "ct_scale.from_network first"
        )
    return 1.0, 0.0, {name: [window.level, window.width] for name, window in WINDOWS.items()}


def first_view(unit: str, windows: dict[str, list[float]], mode: str) -> dict:
    """What the viewer shows at first, and how far its sliders go."""
    # The range is the lowest level, the highest one and the step between two.
    if unit == HU.unit:
        level, width = windows[FIRST_CT_WINDOW]
        level_range = [HU.low, HU.high, 1]
        limit = DIFFERENCE_LIMIT_HU
    else:
        level, width = windows["full range"]
        level_range = [level - width / 2, level + width / 2, width / 200]
        limit = width / 2

    return {
        "windows": windows,
        "range": level_range,
        "limit": limit,
        "state": {
            "mode": mode,
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


def planes(shape: tuple[int, int, int], spacing_mm, labels: list[str], marks: str) -> list[dict]:
    """How to walk through the values of a stack: axial, and of a volume coronal and sagittal too.

    Slice s, row r and column c lie at origin + s, r and c times strides.
    """
    depth, height, width = shape
    is_volume = np.ndim(spacing_mm) == 1
    z_mm, y_mm, x_mm = spacing_mm if is_volume else (None, spacing_mm, spacing_mm)
    axial = {
        "name": "axial",
        "slices": depth,
        "rows": height,
        "columns": width,
        "origin": 0,
        "strides": (height * width, width, 1),
        "mm": None if spacing_mm is None else [float(y_mm), float(x_mm)],
        "marks": marks,
        "labels": labels,
    }
    if not is_volume:
        return [axial]

    # Row 0 of the two other planes is the last slice, the highest one.
    upright = {"rows": depth, "origin": (depth - 1) * height * width, "labels": []}
    coronal = upright | {
        "name": "coronal",
        "slices": height,
        "columns": width,
        "strides": (width, -height * width, 1),
        "mm": [float(z_mm), float(x_mm)],
        "marks": marks[:2].ljust(2) + "SI",
    }
    sagittal = upright | {
        "name": "sagittal",
        "slices": width,
        "columns": height,
        "strides": (1, -height * width, width),
        "mm": [float(z_mm), float(y_mm)],
        "marks": marks[2:].ljust(2) + "SI",
    }
    return [axial, coronal, sagittal]

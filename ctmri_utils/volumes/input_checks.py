"""Whether a scan is one that the networks can know, before they translate it.

Networks that learned from whole heads paint a head whatever they are given. So a scan that cannot
be what it claims is refused, and what looks unlike the training is named, on the screen and in the
header of the result.

Measured by `benchmarks/input_checks.py` on volumes of both phantoms, with a fixed and with varied
MR contrasts, and on the embedded people but for S1. False alarms on whole heads: none in 97 CT,
none in 50 MR of a usual contrast, and "contrast" in 3 of 48 varied ones.

| check | found | of |
|---|---|---|
| refused: a CT without its offset, as MR | 24 | 24 |
| refused: an MR on a scale like HU, as CT | 24 | 24 |
| refused: a head across (row for column) | 27 | 27 |
| refused: upside down | 0 | 3 whose vertex is not in the scan; seen where it is |
| "no skull": a brain alone, in MR and in CT | 48 | 48 |
| "contrast": T2 | 24 | 24 |
| "contrast": FLAIR, and proton density | 18, 10 | 24 each |
| "cut off": 30 mm of the forehead | 27 | 27 |
| "size": half of it | 27 | 27 |

The three false alarms are inversion recoveries that null the grey matter, so that fluid is brighter
than it. In a field of 220 mm, as in the lessons, the largest atlas heads are "cut off": 3 of 40 CT
touch the border, 6 of 40 MR come within a pixel of it. A whole scan whose front and top were
swapped is not seen, nor is a mirrored one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from .axial_slices import AxialStack
from .volume import Volume

# Slices of at least this share of the largest one's area show the profile of a head.
LARGE_SLICE = 0.6
# Deep inside is what lies this share of the greatest depth under the surface.
DEEP = 1 / 3
# Depths, in mm, where scalp and skull lie, and all that counts as the rim of a head.
SCALP_MM = (0.0, 3.0, 6.0, 9.0)
SKULL_MM = (9.0, 12.0, 15.0, 20.0)
RIM_MM = 20.0
BONE_HU = 300.0

# Refused: brain in HU lies between these, and its middle half spans no more.
BRAIN_HU = (-20.0, 100.0)
MOST_SPREAD_HU = 100.0
# Refused: in MR, the middle half of the brain spans at least this share of its median. A CT that
# is stored without its offset of 1024 spans 0.01.
LEAST_SPREAD = 0.04
# Refused: width over length of a head.
WIDTH_TO_LENGTH = (0.55, 1.05)
# Refused: the lowest slice has less than this share of the largest area, the highest so much more.
VERTEX = 0.3
MORE_THAN_VERTEX = 0.25

# Warned: the skull of an MR is darker than this share of the scalp; bone makes up this share of the
# rim of a CT.
DARK_SKULL = 0.7
LEAST_BONE = 0.2
# Warned: grey values deep inside lean to the bright side by more than this, from -1 to 1. T1 leans
# to the dark side, unless half of what lies there is fluid.
T1_LEAN = 0.05
# Warned: the largest slice of an adult's head.
LARGEST_SLICE_CM2 = (100.0, 340.0)
# Warned: so many of the slices touch the border of the scan over so many mm.
CUT_MM = 20.0
MOST_CUT = 0.2

# So far, in voxels, an index may be off by rounding.
ROUNDING = 1e-6


class Look(NamedTuple):
    """What is measured in a scan.

    Args:
        width_to_length: of the head, in its large slices.
        lowest: area of the lowest slice of the head, of the largest one's.
        highest: likewise, of the highest slice.
        largest_cm2: area of the largest slice.
        cut: share of the slices that touch the border of the scan.
        middle: median of the values deep inside, HU or MR units.
        spread: width of the middle half of these values, likewise.
        lean: how much further the bright tail of these values reaches than the dark one, -1 to 1.
        skull: darkest of the skull over brightest of the scalp, in MR; share of bone in the rim,
            in CT.
    """

    width_to_length: float
    lowest: float
    highest: float
    largest_cm2: float
    cut: float
    middle: float
    spread: float
    lean: float
    skull: float


def check_input(volume: Volume, stack: AxialStack) -> tuple[str, ...]:
    """Refuse a scan that the networks cannot know, and name what they have not seen.

    Args:
        volume: the scan.
        stack: its axial slices.

    Returns:
        A sentence for each oddity, which begins with its name and a colon.

    Raises:
        ValueError: another modality or unit than it says, or a head that lies in another way.
    """
    look = look_at(volume, stack)
    check_orientation(look)
    check_modality(look, volume.modality)
    return tuple(oddities(look, volume.modality))


def check_orientation(look: Look) -> None:
    """Raise ValueError for a head that does not lie as its file says."""
    low, high = WIDTH_TO_LENGTH
    if look.cut <= MOST_CUT and not low <= look.width_to_length <= high:
        raise ValueError(
            f"its head is {look.width_to_length:.2f} times as wide as long, so its axes are not "
            "what the file says: correct the orientation in its header"
        )
    if look.lowest < VERTEX and look.highest > look.lowest + MORE_THAN_VERTEX:
        raise ValueError(
            "its head narrows downwards, so it stands upside down: correct the orientation in its "
            "header"
        )


def check_modality(look: Look, modality: str) -> None:
    """Raise ValueError for values that the modality does not have."""
    if modality == "mri" and look.spread < LEAST_SPREAD * abs(look.middle):
        raise ValueError(
            f"its brain is almost uniform (half of it within {look.spread:.3g} of "
            f"{look.middle:.4g}), as in a CT whose offset was not applied: it is not an MR; if it "
            "is a CT, export it in HU"
        )
    in_hu = BRAIN_HU[0] <= look.middle <= BRAIN_HU[1] and look.spread <= MOST_SPREAD_HU
    if modality == "ct" and not in_hu:
        raise ValueError(
            f"its brain lies at {look.middle:.0f} (half of it within {look.spread:.0f}), where a "
            "CT has 20 to 45 HU: it is an MR, or not in HU; export it in HU or say what it is"
        )


def oddities(look: Look, modality: str) -> list[str]:
    """What of a scan the networks have not seen; none of it is refused."""
    found = []
    if modality == "mri" and look.skull > DARK_SKULL:
        found.append(
            "no skull: no dark skull was found under a brighter scalp, as after skull stripping; "
            "the networks know whole heads and may paint bone over the brain"
        )
    if modality == "ct" and look.skull < LEAST_BONE:
        found.append(
            f"no skull: {look.skull:.1%} of the head's rim is bone, as after skull stripping; the "
            "networks know whole heads"
        )
    if modality == "mri" and look.lean > T1_LEAN:
        found.append(
            "contrast: fluid is not the darkest part of the brain, as in T2, FLAIR or proton "
            "density; the networks know T1"
        )
    if look.cut > MOST_CUT:
        found.append(
            f"cut off: {look.cut:.0%} of the slices show a head that reaches the border of the "
            "scan; what lies beyond is missing"
        )
    smallest, largest = LARGEST_SLICE_CM2
    if not smallest <= look.largest_cm2 <= largest:
        found.append(
            f"size: the largest slice of the head has {look.largest_cm2:.0f} cm2, an adult's "
            f"{smallest:.0f} to {largest:.0f}; the networks know adults, slices from the eyes up"
        )
    return found


def look_at(volume: Volume, stack: AxialStack) -> Look:
    """Measure a scan, see `Look`."""
    _, row_mm, column_mm = stack.spacing_mm
    area = stack.head.sum((1, 2)) * (row_mm * column_mm / 100)
    with_head = np.flatnonzero(area)
    large = area >= LARGE_SLICE * area.max()

    values, head = stack.values[large], stack.head[large]
    depth_mm = np.stack(
        [ndimage.distance_transform_edt(one, sampling=(row_mm, column_mm)) for one in head]
    )
    deep = values[depth_mm > DEEP * depth_mm.max()]
    dark, lower, middle, upper, bright = np.percentile(deep, [5, 25, 50, 75, 95])

    return Look(
        width_to_length=_width_to_length(head) * column_mm / row_mm,
        lowest=float(area[with_head[0]] / area.max()),
        highest=float(area[with_head[-1]] / area.max()),
        largest_cm2=float(area.max()),
        cut=_cut_share(volume, stack),
        middle=float(middle),
        spread=float(upper - lower),
        lean=float((bright - 2 * middle + dark) / max(bright - dark, 1e-9)),
        skull=_skull(values, depth_mm, volume.modality),
    )


def _width_to_length(head: np.ndarray) -> float:
    """Columns over rows that the head covers, median over slices (Z, H, W)."""
    rows = head.any(2)
    columns = head.any(1)
    return float(np.median(_extent(columns) / _extent(rows)))


def _extent(lines: np.ndarray) -> np.ndarray:
    """From the first true entry of each row to its last one, (Z, N) -> (Z,)."""
    return lines.shape[1] - np.argmax(lines[:, ::-1], 1) - np.argmax(lines, 1)


def _skull(values: np.ndarray, depth_mm: np.ndarray, modality: str) -> float:
    """See `Look.skull`."""
    if modality == "ct":
        rim = (depth_mm > 0) & (depth_mm <= RIM_MM)
        return float((values[rim] > BONE_HU).mean())

    scalp = max(_medians(values, depth_mm, SCALP_MM))
    skull = min(_medians(values, depth_mm, SKULL_MM), default=scalp)
    return float(skull / max(scalp, 1e-9))


def _medians(values: np.ndarray, depth_mm: np.ndarray, ends_mm: tuple[float, ...]) -> list[float]:
    """The median value of each layer between neighbouring depths, where there is one."""
    layers = [
        values[(depth_mm > above) & (depth_mm <= below)]
        for above, below in zip(ends_mm, ends_mm[1:], strict=False)
    ]
    return [float(np.median(layer)) for layer in layers if layer.size]


def _cut_share(volume: Volume, stack: AxialStack) -> float:
    """Share of the head's slices that touch the border of the volume, see `CUT_MM`.

    The first and the last slice do not count: a scan may begin and end inside of the head.
    """
    to_index = np.linalg.inv(volume.affine) @ stack.affine
    last = np.array(volume.values.shape)[:, None] - 1
    z, row, column = np.nonzero(stack.head)
    height = z if stack.heights is None else stack.heights[z]
    index = to_index[:3, :3] @ [height, row, column] + to_index[:3, 3:]  # (3, pixels)

    # A pixel of the head whose neighbour in the slice lies beyond the last voxels' centres.
    touches = np.zeros(len(z), bool)
    for axis in (1, 2):
        for step in (to_index[:3, axis, None], -to_index[:3, axis, None]):
            neighbour = index + step
            touches |= ((neighbour < -ROUNDING) | (neighbour > last + ROUNDING)).any(0)

    touching_mm = np.bincount(z[touches], minlength=len(stack.head)) * stack.spacing_mm[1]
    return float((touching_mm[stack.head.any((1, 2))] > CUT_MM).mean())

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

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import ndimage

from ..masks import CT_THRESHOLD_HU
from ..units import AIR_HU
from .volume import CT_REACHES, Volume

if TYPE_CHECKING:
    from .axial_slices import AxialStack

# A program filled in a value if this share of the volume, connected to a corner, is exactly that
# value, which is not air.
LEAST_FILLED = 0.01

# A CT was clipped to a window if a larger share than this is exactly at its lowest value, or at a
# highest value that dense bone exceeds.
DENSE_BONE_HU = 1200.0
MOST_SATURATED = 0.02

# Head and neck of an adult have 5 to 6 L, and the largest slice of a newborn's head has 75 cm2.
LARGEST_HEAD_LITRES = 8.0
SMALLEST_SLICE_CM2 = 40.0
MOST_BORDER = 0.5

# Slices of at least this share of the largest one's area show the profile of a head.
LARGE_SLICE = 0.6
# A pixel is deep inside if its depth under the surface is at least this share of the greatest.
DEEP = 1 / 3
# Depths in mm of the layers of the scalp, of those of the skull, and of the rim of a head.
SCALP_MM = (0.0, 3.0, 6.0, 9.0)
SKULL_MM = (9.0, 12.0, 15.0, 20.0)
RIM_MM = 20.0
BONE_HU = 300.0

# A CT is refused unless its brain lies between these and the middle half of it spans no more.
BRAIN_HU = (-20.0, 100.0)
MOST_SPREAD_HU = 100.0
# An MR is refused unless the middle half of its brain spans this share of the median. A CT that is
# stored without its offset of 1024 spans 0.01.
LEAST_SPREAD = 0.04
# A head is refused unless its width over its length lies between these.
WIDTH_TO_LENGTH = (0.55, 1.05)
# A head is upside down if its lowest slice has less than this share of the largest area, and its
# highest slice this much more.
VERTEX = 0.3
MORE_THAN_VERTEX = 0.25

# There is a skull if that of an MR is darker than this share of the scalp, or if this share of the
# rim of a CT is bone.
DARK_SKULL = 0.7
LEAST_BONE = 0.2
# An MR is not T1 if its grey values deep inside lean to the bright side by more than this, from -1
# to 1. T1 leans to the dark side, unless half of what lies there is fluid.
T1_LEAN = 0.05
# The largest slice of an adult's head has an area between these.
LARGEST_SLICE_CM2 = (100.0, 340.0)
# A head is cut off if a larger share of its slices than this touches the border of the scan, each
# over more mm than this.
MOST_CUT = 0.2
CUT_MM = 20.0

# Rounding may put an index off by this much, in voxels.
ROUNDING = 1e-6


def with_air(ct_hu: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Give a CT back the air around the head, where another value was filled in.

    Programs that mask, turn or register a scan fill what was outside with 0, which is water in HU.

    Args:
        ct_hu: (I, J, K) in HU; not changed.

    Returns:
        The CT, a copy if it was changed, and notes.

    Raises:
        ValueError: it shows no air, because it was clipped to a window or masked.
    """
    low, high = float(ct_hu.min()), float(ct_hu.max())
    notes = []

    fill = fill_value(ct_hu)
    region = np.zeros(ct_hu.shape, bool)
    if fill is not None and fill > low:
        region = connected_to_corners(ct_hu == fill)
    is_filled = region.mean() >= LEAST_FILLED
    measured = ct_hu[~region] if is_filled else ct_hu
    clipped_below = np.mean(measured == low) > MOST_SATURATED
    if low > CT_REACHES and (clipped_below or not is_filled):
        raise ValueError(
            f"it shows no air, with values of {low:.0f} to {high:.0f} HU, as after clipping to a "
            "window, so where the head ends cannot be seen: export it in the full range of HU"
        )

    if is_filled:
        if low <= CT_REACHES:
            # Interpolation left a rim between the real air and the filling.
            rim = ndimage.binary_dilation(region, np.ones((3, 3, 3)))
            region |= rim & (ct_hu < fill)
        ct_hu = np.where(region, np.float32(AIR_HU), ct_hu)
        notes.append(
            f"{region.mean():.1%} of the voxels are exactly {fill:g} HU from the corners on, as if "
            "filled in by a program, and were taken for air"
        )

    saturated = (ct_hu == high).sum() / (ct_hu > CT_THRESHOLD_HU).sum().clip(1)
    if high < DENSE_BONE_HU and saturated > MOST_SATURATED:
        notes.append(
            f"{saturated:.1%} of what is denser than air is exactly {high:g} HU, the highest "
            "value: it was clipped to a window, so bone is too dark"
        )
    return ct_hu, notes


def fill_value(ct_hu: np.ndarray) -> float | None:
    """The commonest value at the volume's eight corners, if it is no air."""
    corners = ct_hu[np.ix_(*[[0, length - 1] for length in ct_hu.shape])]
    values, counts = np.unique(corners[corners > CT_THRESHOLD_HU], return_counts=True)
    return float(values[np.argmax(counts)]) if counts.size else None


def connected_to_corners(mask: np.ndarray) -> np.ndarray:
    """The connected parts of a mask that reach a corner of the volume."""
    labels, _ = ndimage.label(mask)
    corners = labels[np.ix_(*[[0, length - 1] for length in mask.shape])]
    return mask & np.isin(labels, corners)


def head_notes(head: np.ndarray, spacing_mm: tuple[float, float, float]) -> list[str]:
    """Sentences on a head whose size or position is not that of a head.

    Args:
        head: (Z, Y, X) bool, over the whole field of the scan, not empty.
        spacing_mm: distances of slices, rows and columns.
    """
    slice_mm, row_mm, column_mm = spacing_mm
    litres = head.sum() * slice_mm * row_mm * column_mm / 1e6
    largest_cm2 = head.sum((1, 2)).max() * row_mm * column_mm / 100

    with_head = head[head.any((1, 2))]
    border = np.concatenate(
        [with_head[:, 0], with_head[:, -1], with_head[:, :, 0], with_head[:, :, -1]], axis=1
    )

    notes = []
    if litres > LARGEST_HEAD_LITRES:
        notes.append(f"the head that was found has {litres:.1f} L, more than a head and neck have")
    if largest_cm2 < SMALLEST_SLICE_CM2:
        notes.append(
            f"the head that was found has {largest_cm2:.0f} cm2 in its largest slice, less than a "
            "newborn's head"
        )
    if border.mean() > MOST_BORDER:
        notes.append(
            f"{border.mean():.0%} of the border of the field was found to be head, so the scan was "
            "cut, or its background is not dark"
        )
    return notes


class HeadMeasures(NamedTuple):
    """What `measure_head` finds in a scan.

    Args:
        width_to_length: of the head, in its large slices.
        lowest: area of the lowest slice of the head, as a share of the largest one's.
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
    measures = measure_head(volume, stack)
    check_orientation(measures)
    check_modality(measures, volume.modality)
    return tuple(oddities(measures, volume.modality))


def check_orientation(measures: HeadMeasures) -> None:
    """Raise ValueError for a head that does not lie as its file says."""
    low, high = WIDTH_TO_LENGTH
    if measures.cut <= MOST_CUT and not low <= measures.width_to_length <= high:
        raise ValueError(
            f"its head is {measures.width_to_length:.2f} times as wide as long, so its axes are "
            "not what the file says: correct the orientation in its header"
        )
    if measures.lowest < VERTEX and measures.highest > measures.lowest + MORE_THAN_VERTEX:
        raise ValueError(
            "its head narrows downwards, so it stands upside down: correct the orientation in its "
            "header"
        )


def check_modality(measures: HeadMeasures, modality: str) -> None:
    """Raise ValueError for values that the modality does not have."""
    if modality == "mri" and measures.spread < LEAST_SPREAD * abs(measures.middle):
        raise ValueError(
            f"its brain is almost uniform (half of it within {measures.spread:.3g} of "
            f"{measures.middle:.4g}), as in a CT whose offset was not applied: it is not an MR; "
            "if it is a CT, export it in HU"
        )
    has_level_of_brain = BRAIN_HU[0] <= measures.middle <= BRAIN_HU[1]
    in_hu = has_level_of_brain and measures.spread <= MOST_SPREAD_HU
    if modality == "ct" and not in_hu:
        raise ValueError(
            f"its brain lies at {measures.middle:.0f} (half of it within "
            f"{measures.spread:.0f}), where a CT has 20 to 45 HU: it is an MR, or not in HU; "
            "export it in HU or say what it is"
        )


def oddities(measures: HeadMeasures, modality: str) -> list[str]:
    """A sentence for everything that the networks have not seen; none of it is refused."""
    notes = []
    if modality == "mri" and measures.skull > DARK_SKULL:
        notes.append(
            "no skull: no dark skull was found under a brighter scalp, as after skull stripping; "
            "the networks know whole heads and may paint bone over the brain"
        )
    if modality == "ct" and measures.skull < LEAST_BONE:
        notes.append(
            f"no skull: {measures.skull:.1%} of the head's rim is bone, as after skull stripping; "
            "the networks know whole heads"
        )
    if modality == "mri" and measures.lean > T1_LEAN:
        notes.append(
            "contrast: fluid is not the darkest part of the brain, as in T2, FLAIR or proton "
            "density; the networks know T1"
        )
    if measures.cut > MOST_CUT:
        notes.append(
            f"cut off: {measures.cut:.0%} of the slices show a head that reaches the border of the "
            "scan; what lies beyond is missing"
        )
    smallest, largest = LARGEST_SLICE_CM2
    if not smallest <= measures.largest_cm2 <= largest:
        notes.append(
            f"size: the largest slice of the head has {measures.largest_cm2:.0f} cm2, an adult's "
            f"{smallest:.0f} to {largest:.0f}; the networks know adults, slices from the eyes up"
        )
    return notes


def measure_head(volume: Volume, stack: AxialStack) -> HeadMeasures:
    """Measure the head in a scan."""
    _, row_mm, column_mm = stack.spacing_mm
    area = stack.head.sum((1, 2)) * (row_mm * column_mm / 100)
    with_head = np.flatnonzero(area)
    large = area >= LARGE_SLICE * area.max()

    values, head = stack.values[large], stack.head[large]
    depth_mm = np.stack(
        [ndimage.distance_transform_edt(mask, sampling=(row_mm, column_mm)) for mask in head]
    )
    deep = values[depth_mm > DEEP * depth_mm.max()]
    dark, lower, middle, upper, bright = np.percentile(deep, [5, 25, 50, 75, 95])

    return HeadMeasures(
        width_to_length=median_width_to_length(head) * column_mm / row_mm,
        lowest=float(area[with_head[0]] / area.max()),
        highest=float(area[with_head[-1]] / area.max()),
        largest_cm2=float(area.max()),
        cut=cut_share(volume, stack),
        middle=float(middle),
        spread=float(upper - lower),
        lean=float((bright - 2 * middle + dark) / max(bright - dark, 1e-9)),
        skull=skull_contrast(values, depth_mm, volume.modality),
    )


def median_width_to_length(head: np.ndarray) -> float:
    """Columns over rows that the head covers, median over slices (Z, H, W)."""
    rows = head.any(2)
    columns = head.any(1)
    return float(np.median(extents(columns) / extents(rows)))


def extents(lines: np.ndarray) -> np.ndarray:
    """From the first true entry of each row to its last one, (Z, N) -> (Z,)."""
    return lines.shape[1] - np.argmax(lines[:, ::-1], 1) - np.argmax(lines, 1)


def skull_contrast(values: np.ndarray, depth_mm: np.ndarray, modality: str) -> float:
    """See `HeadMeasures.skull`."""
    if modality == "ct":
        rim = (depth_mm > 0) & (depth_mm <= RIM_MM)
        return float((values[rim] > BONE_HU).mean())

    scalp = max(layer_medians(values, depth_mm, SCALP_MM))
    skull = min(layer_medians(values, depth_mm, SKULL_MM), default=scalp)
    return float(skull / max(scalp, 1e-9))


def layer_medians(
    values: np.ndarray, depth_mm: np.ndarray, ends_mm: tuple[float, ...]
) -> list[float]:
    """The median value of each layer between neighbouring depths, where there is one."""
    layers = [
        values[(depth_mm > above) & (depth_mm <= below)]
        for above, below in zip(ends_mm, ends_mm[1:], strict=False)
    ]
    return [float(np.median(layer)) for layer in layers if layer.size]


def cut_share(volume: Volume, stack: AxialStack) -> float:
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

"""Heads from formulas: the numbers that shape one, and the tissue at every point.

Head coordinates in mm: x to the right of the picture, y backwards, z upwards. Row 0 of a slice is
the front, and z = 0 is the widest level.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .geometry import cosine_series, in_frontal_sinus, in_lesion, picture_to_head
from .physics import TISSUES

# Part of the seed, so that the families draw different numbers.
STREAM = 0

# Each is uniform between adult patients. They are drawn from top to bottom, so their order matters.
RANGES = {
    "half_width_mm": (73, 83),
    "half_length_mm": (90, 100),
    "half_height_mm": (78, 92),
    "egg": (0.03, 0.10),
    "skin_mm": (1.8, 2.6),
    "scalp_mm": (5.5, 9.9),
    "temporalis_mm": (3, 8),
    "table_mm": (2.2, 3.8),
    "diploe_mm": (3.3, 7.7),
    "sinus_mm": (4, 9),
    "sinus_width_mm": (12, 24),
    "sinus_top_mm": (-15, 35),
    "csf_rim_mm": (1.2, 3.0),
    "cortex_mm": (2.8, 3.8),
    "atrophy": (0, 1),
    "brain_size": (0.92, 1.08),
    "level_mm": (-5, 35),
}

# The radial outlines are tabulated in these directions.
ANGLES = np.linspace(0, 2 * np.pi, 1024, endpoint=False)

# A ray from outside the head to its centre crosses these layers.
LAYERS = (
    "air",
    "skin",
    "fat",
    "muscle",
    "cortical bone",
    "diploe",
    "cortical bone",
    "csf",
    "white matter",
)

# One lateral ventricle as a chain of discs: x, y and radius in mm.
VENTRICLE = np.array([(15, -33, 4.0), (6, -13, 4.5), (11, 10, 3.0), (25, 30, 6.0), (19, 46, 2.0)])

# Thalamus, lentiform and caudate nucleus of one side: centre x, y, z and half axes x, y, z in mm.
DEEP_GREY = ((11, 5, 0, 8.5, 14, 18), (26, -5, 2, 6.5, 16, 17), (16, -20, 8, 4.5, 10, 20))


def draw_shape(rng: np.random.Generator) -> dict:
    """Draw what `RANGES` do not hold: outlines, a warp of the brain, the depths of its sulci."""
    # Outlines: Fourier coefficients of the harmonics 2 to 7.
    harmonics = np.arange(2, 8)[:, None]
    shape = {
        "outline": (rng.standard_normal((6, 2)) / harmonics).tolist(),
        "bone_outline": (rng.standard_normal((6, 2)) / harmonics).tolist(),
    }

    # Three smooth fields that warp the brain: coefficients of cosine series over z, y, x.
    smooth = 1 / (1 + 0.3 * np.arange(3)[:, None, None] + np.hypot(*np.mgrid[:7, :7]))
    shape["warp"] = (rng.standard_normal((3, 3, 7, 7)) * smooth).tolist()

    sulcus_count = rng.integers(21, 27)
    shape["sulcus_depth_mm"] = rng.uniform(5, 17, sulcus_count).tolist()
    return shape


def lesion_centre_mm(patient: dict, side: int) -> list[float]:
    """Centre (x, y) of the lesion, close to the brain's surface at the patient's level."""
    wall = (
        patient["scalp_mm"]
        + 1.9 * patient["table_mm"]
        + patient["diploe_mm"]
        + 1.5 * patient["csf_rim_mm"]
    )
    level = np.sqrt(1 - (patient["level_mm"] / (patient["half_height_mm"] - wall)) ** 2)

    inset = 0.9 * patient["lesion_radius_mm"]
    reach_x = (patient["half_width_mm"] - wall) * level - inset
    reach_y = (patient["half_length_mm"] - wall) * level - inset
    angle = patient["lesion_angle"]
    return [float(side * reach_x * np.cos(angle)), float(reach_y * np.sin(angle))]


def head_labels(
    patient: dict, x_mm: np.ndarray, y_mm: np.ndarray, z_mm: float, lesion: str = "none"
) -> tuple[np.ndarray, np.ndarray]:
    """Label the tissue at every point of one axial plane.

    The head consists of nested ellipsoids, seen along rays from the centre: a plane at height z
    meets the skin in an ellipse scaled by sqrt(1 - (z/c)^2).

    Args:
        patient: from `draw_patient`.
        x_mm: (W,) positions of the columns.
        y_mm: (H,) positions of the rows.
        z_mm: height of the plane.
        lesion: "none", or one of `LESIONS`.

    Returns:
        uint8 (H, W) of `TISSUES` labels, and what the table's HU are multiplied by: 1 everywhere,
        float32 (H, W).
    """
    x, y = picture_to_head(patient, x_mm, y_mm[:, None])
    theta = np.arctan2(y, x)
    ray = np.rint(theta * (len(ANGLES) / (2 * np.pi))).astype(np.intp) % len(ANGLES)

    depth = depth_under_skin(patient, x, y, z_mm, ray)
    edges = layer_edges(patient, z_mm)
    layer = sum((depth > edge[ray]).view(np.uint8) for edge in edges)

    layer_labels = np.array([TISSUES[name].label for name in LAYERS], np.uint8)
    labels = layer_labels[layer]

    if z_mm < patient["sinus_top_mm"] - 4:
        in_front = (layer == LAYERS.index("diploe")) & (y < 0)
        labels[in_front & in_frontal_sinus(patient, np.abs(x))] = TISSUES["sinus air"].label

    brain = layer == LAYERS.index("white matter")
    points = BrainPoints(
        x=x[brain],
        y=y[brain],
        z=z_mm,
        theta=theta[brain],
        depth=(depth - edges[-1][ray])[brain],
        warp=[cosine_series(np.asarray(w), x_mm, y_mm, z_mm)[brain] for w in patient["warp"]],
    )
    labels[brain] = brain_labels(patient, points, lesion)
    return labels, np.ones(labels.shape, np.float32)


def depth_under_skin(patient: dict, x, y, z_mm: float, ray: np.ndarray) -> np.ndarray:
    """Depth in mm under the skin along the ray to the centre, (H, W)."""
    half_width = patient["half_width_mm"]
    half_length = patient["half_length_mm"]
    half_height = patient["half_height_mm"]

    # The head is narrower in front, like an egg.
    width = half_width * (1 + patient["egg"] * y / half_length)
    ellipsoid = (x / width) ** 2 + (y / half_length) ** 2 + (z_mm / half_height) ** 2
    relative_radius = np.sqrt(ellipsoid + 1e-6)
    radius = np.sqrt(x * x + y * y + z_mm**2 + 1e-3)

    # The fourth harmonic makes a blunt forehead.
    irregular = harmonic_curve(patient["outline"], z_mm)
    outline = (1 - 0.014 * np.cos(4 * ANGLES) + 0.012 * irregular).astype(np.float32)
    return radius * (outline[ray] / relative_radius - 1)


def harmonic_curve(pairs, z_mm: float) -> np.ndarray:
    """A smooth closed curve on `ANGLES` that turns slowly with z.

    The sum of a cos(k t) + b sin(k t) over k = 2, 3 ...
    """
    order = np.arange(2, 2 + len(pairs))[:, None]
    t = order * (ANGLES + z_mm / 400)
    a, b = np.asarray(pairs).T
    return a @ np.cos(t) + b @ np.sin(t)


def layer_edges(patient: dict, z_mm: float) -> np.ndarray:
    """Depth in mm under the skin at which each layer below air begins, (8 layers, angles)."""
    # From -pi/2 in front over 0 at the sides to pi/2 at the back.
    around = np.arctan2(np.sin(ANGLES), np.abs(np.cos(ANGLES)))
    from_front_mm = patient["half_length_mm"] * (around + np.pi / 2)
    from_back_mm = patient["half_length_mm"] * (np.pi / 2 - around)

    # The temporal muscle and the frontal sinus thin out upwards.
    muscle = (
        patient["temporalis_mm"]
        * np.exp(-(((around + 0.3) / 0.4) ** 2))
        * np.clip((35 - z_mm) / 30, 0, 1)
    )
    sinus = (
        patient["sinus_mm"]
        * np.exp(-((from_front_mm / patient["sinus_width_mm"]) ** 4))
        * np.clip((patient["sinus_top_mm"] - z_mm) / 8, 0, 1)
    )

    wobble = 1 + 0.25 * harmonic_curve(patient["bone_outline"], z_mm)
    thicker_at_ends = 0.45 + 0.55 * np.abs(np.sin(around))
    diploe = patient["diploe_mm"] * thicker_at_ends * wobble.clip(0.4, 1.6) + sinus

    # The inner table bears the occipital crest at the back.
    inner_table = 0.9 * patient["table_mm"] + 3 * np.exp(-((from_back_mm / 9) ** 2))
    atrophied = patient["csf_rim_mm"] * (0.8 + 0.7 * patient["atrophy"])
    csf = atrophied * (2 - wobble).clip(0.5, 1.5)

    # The skin begins at depth 0; every further layer begins where the one above it ends.
    fat = patient["scalp_mm"] - patient["skin_mm"]
    thicknesses = np.broadcast_arrays(
        0, patient["skin_mm"], fat, muscle, patient["table_mm"], diploe, inner_table, csf
    )
    return np.cumsum(thicknesses, axis=0).astype(np.float32)


class BrainPoints(NamedTuple):
    """The points of one plane that lie inside the brain's surface, as 1-D arrays."""

    x: np.ndarray  # mm
    y: np.ndarray  # mm
    z: float  # mm
    theta: np.ndarray  # rad
    # Below the brain's surface, along the ray.
    depth: np.ndarray  # mm
    # Three smooth random fields.
    warp: list[np.ndarray]


def brain_labels(patient: dict, points: BrainPoints, lesion: str) -> np.ndarray:
    """Label the points inside the brain; what is painted later covers what was painted before."""
    z, depth = points.z, points.depth
    x = (points.x + 2 * points.warp[0]) / patient["brain_size"]
    y = (points.y + 2 * points.warp[1]) / patient["brain_size"]
    side = np.abs(x)

    # The fissure between the hemispheres ends where the corpus callosum bridges it.
    callosum = 33 * np.sqrt(max(0, 1 - (z / 32) ** 2)) - np.abs(y - 2)
    fissure = np.hypot(side, callosum.clip(0))
    sulcus = sulcus_distance(patient, points)
    width = 0.5 + 0.7 * patient["atrophy"]

    # Cortex lies along everything that borders on CSF.
    labels = np.full(x.shape, TISSUES["white matter"].label, np.uint8)
    from_csf = np.minimum(np.minimum(depth, sulcus - width), fissure - width)
    labels[from_csf < patient["cortex_mm"]] = TISSUES["grey matter"].label

    for cx, cy, cz, sx, sy, sz in DEEP_GREY:
        nucleus = ((side - cx) / sx) ** 2 + ((y - cy) / sy) ** 2 + ((z - cz) / sz) ** 2 < 1
        labels[nucleus] = TISSUES["grey matter"].label
    labels[(sulcus < width) | (fissure < width + 0.7)] = TISSUES["csf"].label

    if lesion != "none":
        inside = in_lesion(patient, points.x, points.y, z, depth, points.warp[2])
        labels[inside] = TISSUES[lesion].label

    labels[in_ventricles(side, y, z, patient["atrophy"])] = TISSUES["csf"].label
    falx = (side < 0.9) & (callosum < -4)
    labels[falx] = TISSUES["dura"].label
    return labels


def sulcus_distance(patient: dict, points: BrainPoints) -> np.ndarray:
    """Distance in mm to the nearest sulcus."""
    z = points.z
    in_plane = np.hypot(points.x, points.y)
    deepest = np.asarray(patient["sulcus_depth_mm"], np.float32)
    count = len(deepest)

    # Each sulcus changes its depth with height, and the Sylvian fissure is deeper low down.
    direction = 2 * np.pi * np.arange(count) / count
    sylvian = np.exp(-(((np.sin(direction) + 0.15) / 0.2) ** 2)) * np.clip((30 - z) / 20, 0, 1)
    deepest = deepest * (1 + 0.3 * np.sin(z / 15 + 7 * deepest)) + 10 * sylvian

    # Distance across to the plane of the nearest sulcus.
    turn = points.theta * np.float32(count / (2 * np.pi)) + 0.35 * points.warp[2]
    nearest = np.rint(turn)
    across = np.abs(turn - nearest) * (2 * np.pi / count) * in_plane

    # Distance beyond its end, which never comes close to the middle of the brain.
    beyond_depth = points.depth - deepest[nearest.astype(np.intp) % count]
    beyond_middle = 0.45 * in_plane.max(initial=0) - in_plane
    beyond = np.maximum(beyond_depth, beyond_middle)
    return np.hypot(across, beyond.clip(0))


def in_ventricles(side: np.ndarray, y: np.ndarray, z: float, atrophy: float) -> np.ndarray:
    """Whether a point lies in the lateral ventricles or in the third ventricle."""
    inside = np.zeros(side.shape, bool)

    # Higher up, the lateral ventricles become two parallel stripes.
    opening = np.sqrt(max(0, 1 - ((z - 14) / 26) ** 2)) * (0.65 + 0.75 * atrophy)
    rise = np.clip((z - 12) / 25, 0, 1)
    chain = VENTRICLE * (1 - 0.45 * rise, 1 - 0.35 * rise, opening)
    if opening > 0:
        for start, end in zip(chain[:-1], chain[1:], strict=True):
            # The septum keeps the two sides apart.
            inside |= in_tapered_rod(side, y, start, end) & (side > 0.8)

    # The third ventricle is a narrow slit on the midline.
    if z < 10:
        inside |= (side < 1 + 1.5 * atrophy) & (np.abs(y - 4) < 13)
    return inside


def in_tapered_rod(x: np.ndarray, y: np.ndarray, start, end) -> np.ndarray:
    """Whether a point lies between two discs, (x, y, radius) each; the radius changes evenly."""
    start_x, start_y, start_radius = start
    end_x, end_y, end_radius = end
    length_x, length_y = end_x - start_x, end_y - start_y

    along = ((x - start_x) * length_x + (y - start_y) * length_y) / (length_x**2 + length_y**2)
    along = along.clip(0, 1)
    distance = np.hypot(x - start_x - along * length_x, y - start_y - along * length_y)
    return distance < start_radius + along * (end_radius - start_radius)

"""The anatomical phantom: every patient is a deformed copy of one head.

`data/atlas/head.npz` holds that head: labels of the brain, signed distances to the surfaces of
head, skull and cavity, and the density of the bone. A patient moves, scales and warps it, grows or
shrinks its layers, and widens its ventricles and sulci. Coordinates as in `formula`: mm, x to the
right of the picture, y backwards, z upwards; z = 0 is the plane through both commissures.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch.nn.functional import grid_sample

from ..machine import data_folder
from .geometry import (
    cosine_derivatives,
    cosine_series,
    cosines,
    in_frontal_sinus,
    in_lesion,
    picture_to_head,
    rotated,
)
from .physics import TISSUES

# Part of the seed, so that the families draw different numbers.
STREAM = 3

# Each is uniform between patients. They are drawn from top to bottom, so their order matters.
RANGES = {
    "scale_x": (0.92, 1.04),
    "scale_y": (0.90, 1.02),
    "scale_z": (0.92, 1.05),
    "pitch_rad": (-0.14, 0.14),
    "roll_rad": (-0.05, 0.05),
    # Growth of the layers, outwards.
    "scalp_growth_mm": (-1.5, 2.5),
    "skull_growth_mm": (-0.8, 2.0),
    "skin_mm": (1.6, 2.4),
    "fat_mm": (2.5, 6.5),
    "table_mm": (1.3, 2.2),
    "sinus_width_mm": (10, 24),
    "sinus_top_mm": (-12, 30),
    "csf_rim_mm": (0.0, 2.0),
    "atrophy": (0, 1),
    "level_mm": (-8, 48),
}

# The first voxel of the atlas (z, y, x) and the voxel sizes of its two grids.
ORIGIN_MM = (-24.0, -112.0, -90.0)
FINE_MM = 1.0
COARSE_MM = 2.0
DISTANCE_STEP_MM = 0.1

# Labels of the brain in the file; what is left inside the skull is grey matter of the cortex.
CSF, VENTRICLE, DEEP_GREY, WHITE = 1, 2, 4, 5

# The warp: standard deviation of each component, its wavelengths, and the largest strain. Below 1,
# no two points of the head meet.
WIDE_WARP_MM, WIDE_TERMS = 2.6, (3, 4, 4)
FINE_WARP_MM, FINE_TERMS = 0.7, (6, 12, 12)
MOST_STRAIN = 0.6
# The strain is looked at in this box (z, y, x), at points this far apart.
HEAD_BOX_MM = ((-20, 61), (-112, 113), (-96, 97))
STRAIN_STEP_MM = 8.0

# A smooth field: its wavelengths (z, y, x), and its standard deviation.
TEXTURE_TERMS = (3, 9, 9)
# A cosine has a mean square of 1/2, the constant one of an axis 1.
TEXTURE_SD = float(np.sqrt(np.prod([(terms + 1) / 2 for terms in TEXTURE_TERMS])))
# Fat is thinner and thicker in patches, by up to these factors.
FAT_FACTOR = (0.4, 1.6)

# Least scalp over the bone, and least depth of a sinus on either side.
LEAST_SCALP_MM = 2.5
SINUS_WALL_MM = 1.2
# Bone is at most this much lighter or denser than the table says.
BONE_FACTOR = (0.6, 1.5)
# The falx ends around the corpus callosum: this far in front of and behind the middle, and above.
FALX_FROM_MIDDLE_MM = 45
FALX_HEIGHT_MM = 38


def head_file() -> Path:
    """Where the atlas lies, if this copy of the course has one."""
    return data_folder() / "atlas" / "head.npz"


@lru_cache(maxsize=1)
def load_head() -> tuple[torch.Tensor, torch.Tensor]:
    """Read the atlas, as two stacks of volumes that are sampled trilinearly.

    Returns:
        Coarse, (1, 5, Z, Y, X): depth in mm under the head's, the skull's and the cavity's surface,
        and in the ventricles; bone density relative to its median. Fine, (1, 3, Z, Y, X): shares of
        CSF (ventricles included), white matter and deep grey matter.

    Raises:
        FileNotFoundError: this copy of the course has no atlas.
    """
    path = head_file()
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing, so no patients can be drawn from the atlas: use "
            'anatomy="formula", or rebuild the file with data/build_atlas.py'
        )
    with np.load(path) as file:
        arrays = dict(file)

    names = ("head", "skull", "cavity", "ventricle")
    coarse = [arrays[name].astype(np.float32) * DISTANCE_STEP_MM for name in names]

    in_skull = (arrays["skull"] > 0) & (arrays["cavity"] < 0)
    density = arrays["bone"] / np.median(arrays["bone"][in_skull])
    coarse.append(density.astype(np.float32))

    labels = arrays["labels"]
    groups = ((CSF, VENTRICLE), (WHITE,), (DEEP_GREY,))
    masks = [np.isin(labels, group).astype(np.float32) for group in groups]
    fine = [ndimage.gaussian_filter(mask, 0.6) for mask in masks]
    return torch.from_numpy(np.stack(coarse)[None]), torch.from_numpy(np.stack(fine)[None])


def draw_shape(rng: np.random.Generator) -> dict:
    """Draw what `RANGES` do not hold: the side, the warp, and the texture of fat and lesion."""
    shape = {
        "mirrored": bool(rng.random() < 0.5),
        "wide_warp": draw_warp(rng, WIDE_TERMS, WIDE_WARP_MM),
        "fine_warp": draw_warp(rng, FINE_TERMS, FINE_WARP_MM),
        "texture": rng.standard_normal(TEXTURE_TERMS).tolist(),
    }
    shape["warp_factor"] = strain_limit(shape)
    return shape


def draw_warp(rng: np.random.Generator, terms: tuple[int, int, int], sd_mm: float) -> list:
    """Coefficients (3 components, z, y, x) of a smooth random displacement."""
    frequencies = np.indices(terms)  # (3, *terms)
    order = np.sqrt(np.square(frequencies).sum(axis=0))
    smooth = np.exp(-((order / max(terms)) ** 2))
    # The constant term would only shift the head.
    smooth[0, 0, 0] = 0

    # As for `TEXTURE_SD`, but term by term.
    mean_square = 0.5 ** np.count_nonzero(frequencies, axis=0)
    sd = np.sqrt((smooth**2 * mean_square).sum())
    return (rng.standard_normal((3, *terms)) * smooth * sd_mm / sd).tolist()


def strain_limit(shape: dict) -> float:
    """What the warp is multiplied by, so that no strain exceeds `MOST_STRAIN`.

    The strain is the largest row sum of the displacement's absolute derivatives. Where it is below
    1, the Jacobian matrix of the warp is strictly diagonally dominant, so its determinant is
    positive and the warp is one to one.
    """
    positions = [np.arange(low, high, STRAIN_STEP_MM) for low, high in HEAD_BOX_MM]
    strain = 0.0
    for axis in range(3):
        derivative = displacement(shape, positions, derivative_along=axis)
        strain = strain + np.abs(derivative)
    return float(min(1, MOST_STRAIN / strain.max()))


def displacement(shape: dict, positions, derivative_along: int | None = None) -> np.ndarray:
    """The displacement (z, y, x) in mm on a grid, or its derivative, before `warp_factor`.

    Args:
        shape: from `draw_shape`, or a patient.
        positions: three arrays of mm: heights, rows and columns.
        derivative_along: the axis to take the derivative along.

    Returns:
        (3, Z, Y, X) float64.
    """
    total = 0.0
    for name in ("wide_warp", "fine_warp"):
        coefficients = np.asarray(shape[name])
        for axis in (2, 1, 0):
            functions = cosine_derivatives if axis == derivative_along else cosines
            along = functions(coefficients.shape[1 + axis], positions[axis])  # (positions, terms)
            # tensordot puts the positions last; they go where the terms were.
            summed = np.tensordot(coefficients, along, (1 + axis, 1))
            coefficients = np.moveaxis(summed, -1, 1 + axis)
        total = total + coefficients
    return total


def lesion_centre_mm(patient: dict, side: int) -> list[float]:
    """Centre (x, y) of the lesion, close to the brain's surface at the patient's level."""
    # From the middle outwards, the last point that is deep enough; high in the head there may be
    # none, and the deepest must do.
    along = np.arange(5, 100, 1.0)
    x = side * along * np.cos(patient["lesion_angle"])
    y = along * np.sin(patient["lesion_angle"])

    # The depth is looked up on a grid of 2 mm, of which only the ray's rows and columns are needed.
    columns_mm, column = np.unique(2 * np.rint(x / 2), return_inverse=True)
    rows_mm, row = np.unique(2 * np.rint(y / 2), return_inverse=True)
    on_ray = sample_plane(patient, columns_mm, rows_mm, patient["level_mm"]).cavity[row, column]
    deep_enough = np.flatnonzero(on_ray > 0.9 * patient["lesion_radius_mm"])
    chosen = deep_enough[-1] if len(deep_enough) else on_ray.argmax()
    return [float(x[chosen]), float(y[chosen])]


class AtlasPlane(NamedTuple):
    """What the atlas holds at the points of one plane, (H, W) float32 each."""

    # Depth in mm under the surface of the head, the skull and the cavity, and in the ventricles.
    head: np.ndarray
    skull: np.ndarray
    cavity: np.ndarray
    ventricle: np.ndarray
    # Density of bone, relative to its median.
    bone: np.ndarray
    # Shares of the brain's tissues, 0 to 1.
    csf: np.ndarray
    white: np.ndarray
    deep_grey: np.ndarray
    # Distance from the atlas' midline, and height and depth behind its middle, in mm.
    side: np.ndarray
    z: np.ndarray
    y: np.ndarray


def sample_plane(patient: dict, x_mm: np.ndarray, y_mm: np.ndarray, z_mm: float) -> AtlasPlane:
    """Sample the atlas at columns (W,) and rows (H,) of the patient's plane at a height."""
    x, y, z = to_atlas(patient, x_mm, y_mm, z_mm)
    positions = np.stack([x, y, z], axis=-1)  # (H, W, 3)

    sampled = []
    for volumes, spacing_mm in zip(load_head(), (COARSE_MM, FINE_MM), strict=True):
        # grid_sample counts from -1 at the first voxel to 1 at the last.
        voxels = (positions - np.array(ORIGIN_MM[::-1])) / spacing_mm
        depth, height, width = volumes.shape[2:]
        last = np.array([width, height, depth]) - 1
        grid = torch.from_numpy((2 * voxels / last - 1).astype(np.float32))[None, None]
        values = grid_sample(volumes, grid, padding_mode="border", align_corners=True)
        sampled.extend(values[0, :, 0].numpy())
    return AtlasPlane(*sampled, side=np.abs(x), z=z, y=y)


def to_atlas(patient: dict, x_mm: np.ndarray, y_mm: np.ndarray, z_mm: float) -> tuple:
    """Where the points of a patient's plane lie in the atlas: x, y and z in mm, (H, W) each."""
    positions = (np.array([z_mm]), y_mm, x_mm)
    moved = patient["warp_factor"] * displacement(patient, positions)[:, 0]
    x, y = picture_to_head(patient, x_mm + moved[2], y_mm[:, None] + moved[1])
    z = z_mm + moved[0]

    # Tilt the head, then undo its size.
    y, z = rotated(y, z, patient["pitch_rad"])
    x, z = rotated(x, z, patient["roll_rad"])

    x, y, z = x / patient["scale_x"], y / patient["scale_y"], z / patient["scale_z"]
    return (-x if patient["mirrored"] else x), y, z


def head_labels(
    patient: dict, x_mm: np.ndarray, y_mm: np.ndarray, z_mm: float, lesion: str = "none"
) -> tuple[np.ndarray, np.ndarray]:
    """Label the tissue at every point of one axial plane.

    Args:
        patient: from `draw_patient`.
        x_mm: (W,) positions of the columns.
        y_mm: (H,) positions of the rows.
        z_mm: height of the plane.
        lesion: "none", or one of `LESIONS`.

    Returns:
        uint8 (H, W) of `TISSUES` labels, and what the table's HU are multiplied by in bone,
        float32 (H, W).
    """
    plane = sample_plane(patient, x_mm, y_mm, z_mm)
    texture = cosine_series(np.asarray(patient["texture"]), x_mm, y_mm, z_mm)

    labels = scalp_labels(patient, plane, texture)
    paint_skull(labels, patient, plane)
    paint_brain(labels, patient, plane)
    if lesion != "none":
        uneven = texture / TEXTURE_SD
        inside = in_lesion(patient, x_mm, y_mm[:, None], z_mm, plane.cavity, uneven)
        labels[inside] = TISSUES[lesion].label

    bone = np.isin(labels, [TISSUES[name].label for name in ("cortical bone", "diploe")])
    return labels, np.where(bone, plane.bone.clip(*BONE_FACTOR), 1).astype(np.float32)


def scalp_labels(patient: dict, plane: AtlasPlane, texture: np.ndarray) -> np.ndarray:
    """Air around the head, then skin, fat and muscle; the skull is painted over them."""
    # A thicker skull pushes the scalp outwards, and never comes through it.
    skull = plane.skull + patient["skull_growth_mm"]
    grown = plane.head + patient["skull_growth_mm"] + patient["scalp_growth_mm"]
    depth = np.maximum(grown, skull + LEAST_SCALP_MM)

    # Muscle lies under the fat where the scalp is thick: at the temples and in the neck.
    under_skin = depth - patient["skin_mm"]
    fat_mm = patient["fat_mm"] * (1 + 0.25 * texture).clip(*FAT_FACTOR)

    labels = np.full(depth.shape, TISSUES["air"].label, np.uint8)
    labels[depth > 0] = TISSUES["skin"].label
    labels[under_skin > 0] = TISSUES["fat"].label
    labels[under_skin > fat_mm] = TISSUES["muscle"].label
    return labels


def paint_skull(labels: np.ndarray, patient: dict, plane: AtlasPlane) -> None:
    """Two tables with diploe between them where there is room, and the frontal sinuses."""
    outside = plane.skull + patient["skull_growth_mm"]
    inside = -plane.cavity
    wall = np.minimum(outside, inside)

    labels[wall > 0] = TISSUES["cortical bone"].label
    labels[wall > patient["table_mm"]] = TISSUES["diploe"].label

    in_sinus = in_frontal_sinus(patient, plane.side)
    in_front = (plane.y < 0) & (plane.z < patient["sinus_top_mm"])
    labels[in_sinus & in_front & (wall > SINUS_WALL_MM)] = TISSUES["sinus air"].label


def paint_brain(labels: np.ndarray, patient: dict, plane: AtlasPlane) -> None:
    """Grey and white matter, CSF in the sulci, over the brain and in the ventricles, the falx."""
    atrophy = patient["atrophy"]
    cavity = plane.cavity > 0
    labels[cavity] = TISSUES["grey matter"].label
    labels[cavity & (plane.white > 0.5)] = TISSUES["white matter"].label
    labels[cavity & (plane.deep_grey > 0.4)] = TISSUES["deep grey matter"].label

    # Atrophy widens what holds fluid.
    in_sulcus = plane.csf > 0.62 - 0.30 * atrophy
    over_brain = plane.cavity < patient["csf_rim_mm"] * (0.5 + atrophy)
    in_ventricle = plane.ventricle > 0.5 - 3.0 * atrophy
    labels[cavity & (in_sulcus | over_brain | in_ventricle)] = TISSUES["csf"].label

    # The falx hangs in the fissure between the hemispheres, above and around the midbrain.
    fissure = cavity & in_sulcus & (plane.side < 0.9) & ~in_ventricle
    around_callosum = (np.abs(plane.y) > FALX_FROM_MIDDLE_MM) | (plane.z > FALX_HEIGHT_MM)
    labels[fissure & around_callosum] = TISSUES["dura"].label

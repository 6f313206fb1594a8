"""Synthetic patients: paired head CT (HU) and T1-weighted MR with the truth behind both, drawn from
formulas, no data needed.

A patient is a dictionary of numbers (`draw_patient`), the anatomy is a function of it at every
point in mm (`head_labels`), and both scans are that one anatomy seen through two physics: a table
of Hounsfield units, and the spoiled gradient echo equation. Head coordinates: x to the right of the
picture, y backwards, z upwards, in mm; row 0 of a slice is the front.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..units import STORED_HU_OFFSET


class Tissue(NamedTuple):
    """One row of `TISSUES`: CT number with its SD between patients, proton density, relaxation
    times at 1.5 T.
    """

    label: int
    hu: float
    hu_sd: float
    proton_density: float
    t1_ms: float
    t2_ms: float


# label, HU, SD, PD, T1, T2
TISSUES = {
    # by definition
    "air": Tissue(0, -1000, 0, 0.0, 1, 1),
    # assumption: air with a little mucosa
    "sinus air": Tissue(1, -950, 20, 0.02, 343, 70),
    # Gach 2008 (its scalp)
    "skin": Tissue(2, 40, 8, 0.80, 343, 70),
    # BrainWeb
    "fat": Tissue(3, -95, 5, 1.0, 350, 70),
    # BrainWeb
    "muscle": Tissue(4, 50, 5, 1.0, 900, 47),
    # T2* 0.42-0.50 ms: no signal is left at the echo
    "cortical bone": Tissue(5, 1300, 150, 0.10, 250, 0.5),
    # Gach 2008; the proton density of fatty marrow
    "diploe": Tissue(6, 450, 80, 0.70, 552, 50),
    # BrainWeb
    "csf": Tissue(7, 8, 2, 1.0, 2569, 329),
    # BrainWeb
    "grey matter": Tissue(8, 38, 1.5, 0.86, 833, 83),
    # BrainWeb
    "white matter": Tissue(9, 28, 1.5, 0.77, 500, 70),
    # assumption: muscle with less water
    "dura": Tissue(10, 50, 5, 0.80, 900, 47),
    # fresh bleed: bright on CT, dark on T1
    "acute": Tissue(11, 70, 6, 0.85, 900, 40),
    # days old, methaemoglobin: still bright on CT, bright on T1
    "subacute": Tissue(12, 55, 6, 0.85, 350, 40),
    # glioma without contrast: dark on both; Gach 2008
    "tumour": Tissue(13, 25, 3, 0.95, 1011, 100),
}
"""Mean CT number and MR constants of every tissue.

Labels are the values in `SyntheticPatients.labels`.
"""

LESIONS = ("acute", "subacute", "tumour")
# BrainWeb's T1 protocol at 1.5 T
SPGR = {"tr_ms": 18.0, "te_ms": 10.0, "flip_deg": 30.0}
# the equation gives 0.07 for white matter; MR units are arbitrary
MRI_UNITS = 1000.0
FIELD_OF_VIEW_MM = 220.0
# lowest and highest slice of a volume; 0 is the widest level
VOLUME_MM = (-10.0, 50.0)


def spgr_signal(proton_density, t1_ms, t2_ms, *, tr_ms: float, te_ms: float, flip_deg: float):
    """Steady-state spoiled gradient echo, PD sin(a) (1-E1) / (1 - cos(a) E1) exp(-TE/T2), E1 =
    exp(-TR/T1); in units of PD.

    Scalars or arrays of one shape, times in ms > 0. The tables give T2 where a scanner sees T2*.
    Source: Haase et al. 1986.
    """
    e1, angle = np.exp(-tr_ms / np.asarray(t1_ms)), np.deg2rad(flip_deg)
    return (
        proton_density
        * np.sin(angle)
        * (1 - e1)
        / (1 - np.cos(angle) * e1)
        * np.exp(-te_ms / np.asarray(t2_ms))
    )


def rician_noise(signal: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """The magnitude of a complex signal with Gaussian noise of SD sigma in each channel.

    Any shape, the signal's units.

    Where there is no signal the result is Rayleigh: mean 1.2533 sigma, SD 0.655 sigma. Source:
    Gudbjartsson & Patz 1995.
    """
    real, imaginary = rng.standard_normal((2, *signal.shape), dtype=np.float32) * np.float32(sigma)
    return np.hypot(signal + real, imaginary)


def bias_field(head: np.ndarray, percent: float, coefficients) -> np.ndarray:
    """Receive field: a second-order polynomial in (x, y, z) that spans exactly [1 - percent/200, 1
    + percent/200] over the head.

    head: bool (Z, H, W); coefficients: 9 numbers for x, y, z, xx, yy, zz, xy, xz, yz. Returns
    float32 (Z, H, W), constant beyond the span outside the head. So 20 % means [0.90, 1.10].
    Source: BrainWeb's definition of intensity non-uniformity.
    """
    if not head.any():
        raise ValueError(
            "a bias field is scaled over the head, and this head mask is empty: pass the head of "
            "the MR volume"
        )
    z, y, x = np.ix_(*(np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in head.shape))
    field = sum(
        c * term
        for c, term in zip(
            coefficients, (x, y, z, x * x, y * y, z * z, x * y, x * z, y * z), strict=True
        )
    )
    field = np.broadcast_to(field, head.shape)
    low, high = field[head].min(), field[head].max()
    return (1 + percent / 100 * ((field - low) / (high - low) - 0.5).clip(-0.5, 0.5)).astype(
        np.float32
    )


def ct_noise(shape: tuple[int, ...], sd_hu: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of filtered backprojection, float32 (..., H, W) in HU.

    Power |f| exp(-2 (f/0.25)^2), f in cycles per pixel; zero at DC.

    The ramp filter gives the projections a power of f^2 and the polar sampling divides it by f.
    sd_hu is the expected SD, not that of the sample. Source: Kijewski & Judy 1987.
    """
    f = np.hypot(np.fft.fftfreq(shape[-2])[:, None], np.fft.fftfreq(shape[-1]))
    amplitude = np.sqrt(f) * np.exp(-((f / 0.25) ** 2))
    amplitude *= sd_hu / np.sqrt((amplitude**2).mean())
    white = np.fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    return np.fft.irfft2(white * amplitude[:, : white.shape[-1]], s=shape[-2:]).astype(np.float32)


# uniform between patients; adults
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
    "lesion_radius_mm": (10, 17.5),
    "lesion_angle": (-0.8, 0.8),
    "lesion_stretch": (0.8, 1.25),
    "ct_noise_hu": (3, 6),
}
# x, y, radius in mm, one side
VENTRICLE = np.array([(15, -33, 4.0), (6, -13, 4.5), (11, 10, 3.0), (25, 30, 6.0), (19, 46, 2.0)])
# thalamus, lentiform, caudate
DEEP_GREY = ((11, 5, 0, 8.5, 14, 18), (26, -5, 2, 6.5, 16, 17), (16, -20, 8, 4.5, 10, 20))
ANGLES = np.linspace(0, 2 * np.pi, 1024, endpoint=False)


def draw_patient(seed: int, index: int) -> dict:
    """Every number that makes patient `index` of `seed`.

    Plain floats and lists, JSON-able, independent of the image size.
    """
    rng = np.random.default_rng([seed, index, 0])
    p = {"seed": seed, "index": index} | {
        name: float(rng.uniform(low, high)) for name, (low, high) in RANGES.items()
    }
    p["rotation_rad"] = float(0.06 * np.clip(rng.standard_normal(), -2.5, 2.5))
    p["shift_mm"] = (2.2 * rng.standard_normal(2).clip(-2, 2)).tolist()
    # harmonics 2 .. 7
    p["outline"] = (rng.standard_normal((6, 2)) / np.arange(2, 8)[:, None]).tolist()
    p["bone_outline"] = (rng.standard_normal((6, 2)) / np.arange(2, 8)[:, None]).tolist()
    smooth = 1 / (1 + 0.3 * np.arange(3)[:, None, None] + np.hypot(*np.mgrid[:7, :7]))
    # cosine series over z, y, x
    p["warp"] = (rng.standard_normal((3, 3, 7, 7)) * smooth).tolist()
    # one number per sulcus
    p["sulcus_depth_mm"] = rng.uniform(5, 17, rng.integers(21, 27)).tolist()
    p["bias"] = rng.standard_normal(9).tolist()
    wall = p["scalp_mm"] + 1.9 * p["table_mm"] + p["diploe_mm"] + 1.5 * p["csf_rim_mm"]
    level = np.sqrt(1 - (p["level_mm"] / (p["half_height_mm"] - wall)) ** 2)
    reach = [
        (p[f"half_{axis}_mm"] - wall) * level - 0.9 * p["lesion_radius_mm"]
        for axis in ("width", "length")
    ]
    p["lesion_mm"] = [
        float(rng.choice([-1, 1]) * reach[0] * np.cos(p["lesion_angle"])),
        float(reach[1] * np.sin(p["lesion_angle"])),
    ]
    p["hu"] = {name: float(rng.normal(t.hu, t.hu_sd)) for name, t in TISSUES.items()}
    p["hu"]["cortical bone"] = float(np.clip(p["hu"]["cortical bone"], 700, 1900))
    return p


def _harmonics(pairs, z_mm: float) -> np.ndarray:
    """A smooth closed curve on `ANGLES` that turns slowly with z.

    Sum of a cos(k t) + b sin(k t), k = 2, 3 ...
    """
    t = np.arange(2, 2 + len(pairs))[:, None] * (ANGLES + z_mm / 400)
    a, b = np.asarray(pairs).T
    return a @ np.cos(t) + b @ np.sin(t)


def _layer_edges(p: dict, z_mm: float) -> np.ndarray:
    """Depth in mm under the skin at which each layer begins, (8 layers, angles).

    Skin, fat, muscle, table, diploe, table, CSF, brain.
    """
    # -pi/2 front, 0 side, pi/2 back
    around = np.arctan2(np.sin(ANGLES), np.abs(np.cos(ANGLES)))
    from_front, from_back = (
        p["half_length_mm"] * (around + np.pi / 2),
        p["half_length_mm"] * (np.pi / 2 - around),
    )
    muscle = (
        p["temporalis_mm"]
        * np.exp(-(((around + 0.3) / 0.4) ** 2))
        * np.clip((35 - z_mm) / 30, 0, 1)
    )
    sinus = (
        p["sinus_mm"]
        * np.exp(-((from_front / p["sinus_width_mm"]) ** 4))
        * np.clip((p["sinus_top_mm"] - z_mm) / 8, 0, 1)
    )
    wobble = 1 + 0.25 * _harmonics(p["bone_outline"], z_mm)
    diploe = p["diploe_mm"] * (0.45 + 0.55 * np.abs(np.sin(around))) * wobble.clip(0.4, 1.6) + sinus
    # occipital crest
    inner = 0.9 * p["table_mm"] + 3 * np.exp(-((from_back / 9) ** 2))
    csf = p["csf_rim_mm"] * (0.8 + 0.7 * p["atrophy"]) * (2 - wobble).clip(0.5, 1.5)
    thickness = np.broadcast_arrays(
        0, p["skin_mm"], p["scalp_mm"] - p["skin_mm"], muscle, p["table_mm"], diploe, inner, csf
    )
    return np.cumsum(thickness, axis=0).astype(np.float32)


def head_labels(
    p: dict, x_mm: np.ndarray, y_mm: np.ndarray, z_mm: float, lesion: str = "none"
) -> np.ndarray:
    """The tissue at every point of one axial plane.

    Uint8 (len(y_mm), len(x_mm)) of `TISSUES` labels; p from `draw_patient`.

    Nested ellipsoids seen along rays from the centre: a plane at z meets the skin in an ellipse
    scaled by sqrt(1 - (z/c)^2).
    """
    x, y = x_mm - p["shift_mm"][0], (y_mm - p["shift_mm"][1])[:, None]
    cos, sin = np.cos(p["rotation_rad"]), np.sin(p["rotation_rad"])
    x, y = (cos * x + sin * y).astype(np.float32), (cos * y - sin * x).astype(np.float32)
    a, b, c = p["half_width_mm"], p["half_length_mm"], p["half_height_mm"]
    q = np.sqrt((x / (a * (1 + p["egg"] * y / b))) ** 2 + (y / b) ** 2 + (z_mm / c) ** 2 + 1e-6)
    radius, theta = np.sqrt(x * x + y * y + z_mm**2 + 1e-3), np.arctan2(y, x)
    angle = np.rint(theta * (len(ANGLES) / (2 * np.pi))).astype(np.intp) % len(ANGLES)
    # a blunt forehead
    outline = (1 - 0.014 * np.cos(4 * ANGLES) + 0.012 * _harmonics(p["outline"], z_mm)).astype(
        np.float32
    )
    # under the skin, along the ray
    depth = radius * (outline[angle] / q - 1)
    edges = _layer_edges(p, z_mm)
    layer = sum((depth > edge[angle]).view(np.uint8) for edge in edges)

    names = (
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
    labels = np.array([TISSUES[name].label for name in names], np.uint8)[layer]
    if z_mm < p["sinus_top_mm"] - 4:
        # two frontal sinuses and their septum
        half = 0.43 * p["sinus_width_mm"]
        labels[(layer == 5) & (y < 0) & (np.abs(np.abs(x) - half) < half - 1.2)] = TISSUES[
            "sinus air"
        ].label
    brain = layer == 8
    warp = [_cosine_series(w, x_mm, y_mm, z_mm)[brain] for w in np.asarray(p["warp"])]
    labels[brain] = _brain_labels(
        p, x[brain], y[brain], z_mm, theta[brain], (depth - edges[-1][angle])[brain], warp, lesion
    )
    return labels


def _cosine_series(
    coefficients: np.ndarray, x_mm: np.ndarray, y_mm: np.ndarray, z_mm: float
) -> np.ndarray:
    """A smooth random field of SD about 1, float32 (len(y_mm), len(x_mm)), from coefficients (z, y,
    x).
    """
    along_z, along_y, along_x = (
        np.cos(np.pi * np.arange(n) * (np.atleast_1d(s)[:, None] / FIELD_OF_VIEW_MM + 0.5))
        for n, s in zip(coefficients.shape, (z_mm, y_mm, x_mm), strict=True)
    )
    return (along_y @ np.tensordot(along_z[0], coefficients, 1) @ along_x.T).astype(np.float32)


def _brain_labels(p, x, y, z, theta, depth, warp, lesion) -> np.ndarray:
    """Labels of the points inside the brain's surface (1-D arrays in mm).

    Cortex along sulci, deep grey, ventricles, falx, lesion.
    """
    in_plane = np.hypot(x, y)
    (lx, ly), stretch = p["lesion_mm"], p["lesion_stretch"]
    lesion_distance = np.sqrt(
        ((x - lx) * stretch) ** 2 + ((y - ly) / stretch) ** 2 + (z - p["level_mm"]) ** 2
    )
    in_lesion = (
        (lesion_distance < p["lesion_radius_mm"] * (1 + 0.12 * warp[2]))
        & (depth > 2)
        & (x * lx > 0)
    )
    x, y = (x + 2 * warp[0]) / p["brain_size"], (y + 2 * warp[1]) / p["brain_size"]
    side = np.abs(x)
    labels = np.full(x.shape, TISSUES["white matter"].label, np.uint8)

    deepest, count = np.asarray(p["sulcus_depth_mm"], np.float32), len(p["sulcus_depth_mm"])
    sylvian = np.exp(
        -(((np.sin(2 * np.pi * np.arange(count) / count) + 0.15) / 0.2) ** 2)
    ) * np.clip((30 - z) / 20, 0, 1)
    deepest = deepest * (1 + 0.3 * np.sin(z / 15 + 7 * deepest)) + 10 * sylvian
    turn = theta * np.float32(count / (2 * np.pi)) + 0.35 * warp[2]
    nearest = np.rint(turn)
    # distance to the sulcus's plane
    across = np.abs(turn - nearest) * (2 * np.pi / count) * in_plane
    end = np.maximum(
        depth - deepest[nearest.astype(np.intp) % count], 0.45 * in_plane.max(initial=0) - in_plane
    )
    # ... and to its end
    sulcus = np.hypot(across, end.clip(0))
    # > 0 where it bridges the midline
    callosum = 33 * np.sqrt(max(0, 1 - (z / 32) ** 2)) - np.abs(y - 2)
    fissure = np.hypot(side, callosum.clip(0))
    cortex, width = p["cortex_mm"], 0.5 + 0.7 * p["atrophy"]
    labels[np.minimum(np.minimum(depth, sulcus - width), fissure - width) < cortex] = TISSUES[
        "grey matter"
    ].label
    for cx, cy, cz, sx, sy, sz in DEEP_GREY:
        labels[((side - cx) / sx) ** 2 + ((y - cy) / sy) ** 2 + ((z - cz) / sz) ** 2 < 1] = TISSUES[
            "grey matter"
        ].label
    labels[(sulcus < width) | (fissure < width + 0.7)] = TISSUES["csf"].label

    # not into what is painted after it
    if lesion != "none":
        labels[in_lesion] = TISSUES[lesion].label
    open_ = np.sqrt(max(0, 1 - ((z - 14) / 26) ** 2)) * (0.65 + 0.75 * p["atrophy"])
    # higher up: two parallel stripes
    rise = np.clip((z - 12) / 25, 0, 1)
    chain = VENTRICLE * (1 - 0.45 * rise, 1 - 0.35 * rise, open_)
    for (ax, ay, ar), (bx, by, br) in zip(chain[:-1], chain[1:], strict=True) if open_ > 0 else ():
        along = (
            ((side - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2)
        ).clip(0, 1)
        near = np.hypot(side - ax - along * (bx - ax), y - ay - along * (by - ay)) < ar + along * (
            br - ar
        )
        # the septum keeps them apart
        labels[near & (side > 0.8)] = TISSUES["csf"].label
    if z < 10:
        # third ventricle
        labels[(side < 1 + 1.5 * p["atrophy"]) & (np.abs(y - 4) < 13)] = TISSUES["csf"].label
    # falx
    labels[(side < 0.9) & (callosum < -4)] = TISSUES["dura"].label
    return labels


@lru_cache(maxsize=8)
def _shrink(size: int) -> np.ndarray:
    """Matrix (size, 2 size).

    Gaussian blur of SD 0.5 output pixels on the fine grid, then the mean of each pair; rows sum to
    1.
    """
    fine = np.arange(2 * size)
    # 0.5 output px = 1 fine px
    blur = np.exp(-0.5 * np.subtract.outer(fine, fine) ** 2.0)
    return (blur / blur.sum(1, keepdims=True)).reshape(size, 2, 2 * size).mean(1).astype(np.float32)


def _majority(labels: np.ndarray) -> np.ndarray:
    """The commonest of each 2 x 2 block of labels (..., 2H, 2W).

    A tie goes to the higher label, so no direction is favoured.
    """
    four = np.stack([labels[..., i::2, j::2] for i in (0, 1) for j in (0, 1)])
    # votes, then label
    return ((four[:, None] == four).sum(0, dtype=np.uint8) * 32 + four).max(0) % 32


@dataclass(frozen=True, eq=False)
class SyntheticPatients:
    """Paired scans and their truth.

    Arrays are (N, H, W), or (N, Z, H, W) with the lowest slice first.

    mri = Rician noise over mri_clean * bias_field; ct_hu = ct_hu_clean + noise, not below -1024 HU.
    float32: ct_hu, ct_hu_clean (HU), mri, mri_clean (arbitrary units), bias_field (1 = none).
    uint8: labels (see `TISSUES`). bool: head (sinuses included), lesion. spacing_mm: pixel size;
    slice_spacing_mm: between slices, None for single slices; parameters: what was drawn, one dict a
    patient.
    """

    ct_hu: np.ndarray
    ct_hu_clean: np.ndarray
    mri: np.ndarray
    mri_clean: np.ndarray
    labels: np.ndarray
    head: np.ndarray
    lesion: np.ndarray
    bias_field: np.ndarray
    spacing_mm: float
    slice_spacing_mm: float | None
    parameters: tuple[dict, ...]


def render(p: dict, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise-free CT (HU), MR without bias field, and labels, each (Z, size, size), of one entry of
    `SyntheticPatients.parameters`.

    Labels are drawn at twice the resolution and the *signals* are blurred and averaged, not T1 or
    T2: a voxel's CT number is the mean attenuation and its MR signal the sum of the magnetisation
    within it, and only the signals add. (Averaging tissue fractions and weighting the signals by
    them is the same sum, with one image per tissue.) Slices are thin: no partial volume along z.
    """
    pixels = ((np.arange(2 * size) + 0.5) / (2 * size) - 0.5) * p["fov_mm"]
    fine = np.stack([head_labels(p, pixels, pixels, z, p["lesion"]) for z in p["z_mm"]])
    hu = np.array([p["hu"][name] for name in TISSUES], np.float32)
    signal = (
        np.array([spgr_signal(*t[3:], **SPGR) for t in TISSUES.values()], np.float32) * MRI_UNITS
    )
    shrink = _shrink(size)
    ct_hu, mri = (shrink @ values[fine] @ shrink.T for values in (hu, signal))
    return ct_hu, mri, _majority(fine)


def synthetic_patients(
    n: int,
    size: int = 64,
    seed: int = 0,
    *,
    slices: int = 1,
    lesion: str = "none",
    lesion_fraction: float = 0.0,
    mri_noise_percent: float = 3.0,
    bias_percent: float = 20.0,
    fov_mm: float = FIELD_OF_VIEW_MM,
    first: int = 0,
) -> SyntheticPatients:
    """Patients first .. first + n - 1 of `seed`, CT and T1-weighted MR of size x size pixels over
    fov_mm; see `SyntheticPatients`.

    A patient depends on (seed, index) only: not on n, and its anatomy not on size, slices, noise or
    lesion, so that the same head can be seen with and without its lesion. slices = 1 gives one
    axial slice at a level of its own, more give a volume from 10 mm below to 50 mm above the widest
    level. lesion: none, acute, subacute or tumour, in a lesion_fraction of the patients (to within
    about one patient in a hundred; those of a smaller fraction are among those of a larger).
    mri_noise_percent: Rician sigma relative to white matter; bias_percent: see `bias_field`. Raises
    ValueError for an argument out of range.
    """
    whole = {
        "n": (n, 1, 10**6),
        "size": (size, 32, 1024),
        "seed": (seed, 0, 2**32 - 1),
        "slices": (slices, 1, 512),
        "first": (first, 0, 10**9),
    }
    real = {
        "lesion_fraction": (lesion_fraction, 0, 1),
        "mri_noise_percent": (mri_noise_percent, 0, 100),
        "bias_percent": (bias_percent, 0, 100),
        "fov_mm": (fov_mm, 100, 1000),
    }
    for name, (value, low, high) in (whole | real).items():
        kind = (int, np.integer) if name in whole else (int, float, np.number)
        if not isinstance(value, kind) or not low <= value <= high:
            raise ValueError(
                f"synthetic_patients: {name} must be a{' whole' * (name in whole)} number from "
                f"{low} to {high}, got {value!r}"
            )
    if lesion not in ("none", *LESIONS):
        raise ValueError(
            f"synthetic_patients: no lesion kind {lesion!r}, choose one of none, "
            f"{', '.join(LESIONS)}"
        )
    if lesion == "none" and lesion_fraction > 0:
        raise ValueError(
            f"synthetic_patients: lesion_fraction {lesion_fraction} needs a lesion kind, one of "
            f"{', '.join(LESIONS)}"
        )

    lesion_phase = np.random.default_rng([seed, 0, 2]).random()
    white_matter = MRI_UNITS * spgr_signal(*TISSUES["white matter"][3:], **SPGR)
    kinds = dict(
        ct_hu="f4",
        ct_hu_clean="f4",
        mri="f4",
        mri_clean="f4",
        labels="u1",
        head=bool,
        lesion=bool,
        bias_field="f4",
    )
    out = {name: np.empty((n, slices, size, size), kind) for name, kind in kinds.items()}
    parameters = []
    for i in range(n):
        p, index = draw_patient(int(seed), int(first + i)), int(first + i)
        # golden ratio: evenly over [0, 1)
        spread = (index * (5**0.5 - 1) / 2 + lesion_phase) % 1
        p |= {
            "lesion": lesion if spread < lesion_fraction else "none",
            "fov_mm": float(fov_mm),
            "z_mm": [p["level_mm"]] if slices == 1 else np.linspace(*VOLUME_MM, slices).tolist(),
            "mri_noise_percent": float(mri_noise_percent),
            "bias_percent": float(bias_percent),
        }
        parameters.append(p)

        noise = np.random.default_rng([seed, index, 1])
        ct_hu, mri, labels = render(p, size)
        head = labels != TISSUES["air"].label
        bias = bias_field(head, bias_percent, p["bias"])
        (
            out["ct_hu_clean"][i],
            out["mri_clean"][i],
            out["labels"][i],
            out["head"][i],
            out["bias_field"][i],
        ) = ct_hu, mri, labels, head, bias
        out["lesion"][i] = np.isin(labels, [TISSUES[kind].label for kind in LESIONS])
        out["ct_hu"][i] = np.maximum(
            ct_hu + ct_noise(ct_hu.shape, p["ct_noise_hu"], noise), -STORED_HU_OFFSET
        )
        out["mri"][i] = rician_noise(mri * bias, mri_noise_percent / 100 * white_matter, noise)
    if slices == 1:
        out = {name: array[:, 0] for name, array in out.items()}
    slice_spacing_mm = None if slices == 1 else (VOLUME_MM[1] - VOLUME_MM[0]) / (slices - 1)
    return SyntheticPatients(
        **out,
        spacing_mm=fov_mm / size,
        slice_spacing_mm=slice_spacing_mm,
        parameters=tuple(parameters),
    )

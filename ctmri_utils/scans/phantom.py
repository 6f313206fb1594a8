"""Synthetic patients: paired head CT (HU) and T1-weighted MR with their truth.

A patient is a dictionary of numbers (`draw_patient`). The anatomy follows from them at every point
in mm (`head_labels`): from formulas alone (`formula`), or as a deformed copy of one head (`atlas`).
Both scans show that one anatomy through two physical models: a table of Hounsfield units, and the
signal equation of an MR sequence (`physics`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..units import STORED_HU_OFFSET
from . import atlas, formula
from .geometry import FIELD_OF_VIEW_MM
from .physics import (
    DEFAULT_CONTRAST,
    LESIONS,
    MRI_UNITS,
    TISSUES,
    bias_field,
    ct_noise,
    draw_contrast,
    rician_noise,
    tissue_signal,
)

FAMILIES = {"formula": formula, "atlas": atlas}
CONTRASTS = ("fixed", "varied")

# Lowest and highest value of what `synthetic_patients` takes.
LIMITS = {
    "n": (1, 10**6),
    "size": (32, 1024),
    "seed": (0, 2**32 - 1),
    "slices": (1, 512),
    "first": (0, 10**9),
    "lesion_fraction": (0, 1),
    "mri_noise_percent": (0, 100),
    "bias_percent": (0, 100),
    "fov_mm": (100, 1000),
}

# Uniform between patients of both families, drawn after the ranges of the family.
COMMON_RANGES = {
    "lesion_radius_mm": (10, 17.5),
    "lesion_angle": (-0.8, 0.8),
    "lesion_stretch": (0.8, 1.25),
    "ct_noise_hu": (3, 6),
}

# Lowest and highest slice of a volume. The formula's 0 is its widest level, and the atlas' 0 is the
# plane through both commissures.
VOLUME_MM = (-10.0, 50.0)

# Its multiples are spread evenly over [0, 1), counted modulo 1.
GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass(frozen=True, eq=False)
class SyntheticPatients:
    """Paired scans and their truth.

    Arrays are (N, H, W), or (N, Z, H, W) with the lowest slice first.

    Args:
        ct_hu: ct_hu_clean + noise, not below -1024 HU; float32.
        ct_hu_clean: CT without noise in HU; float32.
        mri: Rician noise over mri_clean * bias_field; float32.
        mri_clean: MR without noise and bias field, arbitrary units; float32.
        labels: see `TISSUES`; uint8.
        head: where the head is, sinuses included; bool.
        lesion: where the lesion is; bool.
        bias_field: factor on the MR signal, 1 where there is no bias; float32.
        spacing_mm: pixel size.
        slice_spacing_mm: distance between slices, None for single slices.
        parameters: what was drawn, one dict a patient.
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


def synthetic_patients(
    n: int,
    size: int = 64,
    seed: int = 0,
    *,
    anatomy: str = "formula",
    slices: int = 1,
    lesion: str = "none",
    lesion_fraction: float = 0.0,
    mri_noise_percent: float = 3.0,
    bias_percent: float = 20.0,
    mri_contrast: str = "fixed",
    fov_mm: float = FIELD_OF_VIEW_MM,
    first: int = 0,
) -> SyntheticPatients:
    """Draw and scan the patients first .. first + n - 1 of a seed.

    A patient depends on (seed, index) only, not on n. The anatomy does not depend on size, slices,
    noise or lesion, so the same head can be seen with and without its lesion.

    Args:
        n: number of patients.
        size: pixels per side.
        seed: 0 to 2**32 - 1.
        anatomy: "formula" draws heads from equations; "atlas" deforms copies of one head, which
            looks like a head and is harder to translate.
        slices: 1 gives one axial slice at a level of the patient's own; more give a volume from
            10 mm below to 50 mm above the middle level.
        lesion: "none", "acute", "subacute" or "tumour".
        lesion_fraction: share of the patients with a lesion, to within about one patient in a
            hundred. Those of a smaller fraction are among those of a larger one.
        mri_noise_percent: Rician sigma relative to white matter.
        bias_percent: span of the receive field, see `bias_field`.
        mri_contrast: "fixed" scans every patient with one protocol; "varied" draws a T1-weighted
            sequence, its times, the field strength and the gain for each patient.
        fov_mm: side of the picture.
        first: index of the first patient.

    Returns:
        The patients' scans and truth.

    Raises:
        ValueError: an argument is out of range.
        FileNotFoundError: this copy of the course has no atlas.

    Example:
        >>> from ctmri_utils import synthetic_patients
        >>> patients = synthetic_patients(2, 64, seed=2026, lesion="acute", lesion_fraction=1.0)
        >>> patients.ct_hu.shape, patients.lesion.any((1, 2)).tolist()
        ((2, 64, 64), [True, True])
    """
    check_numbers(int, n=n, size=size, seed=seed, slices=slices, first=first)
    check_numbers(float, lesion_fraction=lesion_fraction, fov_mm=fov_mm)
    check_numbers(float, mri_noise_percent=mri_noise_percent, bias_percent=bias_percent)
    check_choice("anatomy", anatomy, FAMILIES)
    check_choice("mri_contrast", mri_contrast, CONTRASTS)
    check_lesion(lesion, lesion_fraction)

    heights_mm, step_mm = np.linspace(*VOLUME_MM, slices, retstep=True)
    parameters = []
    for i in range(n):
        patient = draw_patient(anatomy, int(seed), int(first + i))
        patient["lesion"] = lesion if has_lesion(patient, lesion_fraction) else "none"
        patient["fov_mm"] = float(fov_mm)
        patient["z_mm"] = [patient["level_mm"]] if slices == 1 else heights_mm.tolist()
        patient["mri_noise_percent"] = float(mri_noise_percent)
        patient["bias_percent"] = float(bias_percent)
        patient["contrast"] = patient_contrast(patient, mri_contrast)
        parameters.append(patient)

    return SyntheticPatients(
        **scan_patients(parameters, size),
        spacing_mm=fov_mm / size,
        slice_spacing_mm=None if slices == 1 else float(step_mm),
        parameters=tuple(parameters),
    )


def draw_patient(anatomy: str, seed: int, index: int) -> dict:
    """Draw every number that makes patient `index` of `seed`.

    Args:
        anatomy: "formula" or "atlas".
        seed: 0 to 2**32 - 1.
        index: 0 or more.

    Returns:
        Plain floats and lists by name, ready for JSON. They do not depend on the image size.
    """
    family = FAMILIES[anatomy]
    rng = np.random.default_rng([seed, index, family.STREAM])
    patient = {"seed": seed, "index": index, "anatomy": anatomy}
    for name, (low, high) in (family.RANGES | COMMON_RANGES).items():
        patient[name] = float(rng.uniform(low, high))

    # How the head lies in the picture.
    patient["rotation_rad"] = float(0.06 * np.clip(rng.standard_normal(), -2.5, 2.5))
    patient["shift_mm"] = (2.2 * rng.standard_normal(2).clip(-2, 2)).tolist()
    patient |= family.draw_shape(rng)
    patient["bias"] = rng.standard_normal(9).tolist()
    patient["lesion_mm"] = family.lesion_centre_mm(patient, side=int(rng.choice([-1, 1])))

    # The patient's own CT number of each tissue.
    hu = {name: float(rng.normal(tissue.hu, tissue.hu_sd)) for name, tissue in TISSUES.items()}
    hu["cortical bone"] = float(np.clip(hu["cortical bone"], 700, 1900))
    patient["hu"] = hu
    return patient


def check_numbers(kind: type, **numbers) -> None:
    """Raise ValueError unless each value is a number of this kind within its limits."""
    kinds = (int, np.integer) if kind is int else (int, float, np.number)
    for name, value in numbers.items():
        low, high = LIMITS[name]
        if not isinstance(value, kinds) or not low <= value <= high:
            expected = "whole number" if kind is int else "number"
            raise ValueError(
                f"synthetic_patients: {name} must be a {expected} from {low} to {high}, got "
                f"{value!r}"
            )


def check_choice(name: str, value, choices) -> None:
    """Raise ValueError unless the value is one of the choices."""
    if value not in tuple(choices):
        raise ValueError(
            f"synthetic_patients: unknown {name} {value!r}, choose one of {', '.join(choices)}"
        )


def check_lesion(lesion: str, lesion_fraction: float) -> None:
    """Raise ValueError unless the kind is known, and given where patients have lesions."""
    check_choice("lesion kind", lesion, ("none", *LESIONS))
    if lesion == "none" and lesion_fraction > 0:
        raise ValueError(
            f"synthetic_patients: lesion_fraction {lesion_fraction} needs a lesion kind, one of "
            f"{', '.join(LESIONS)}"
        )


def has_lesion(patient: dict, lesion_fraction: float) -> bool:
    """Whether this patient is among the fraction with a lesion."""
    phase = np.random.default_rng([patient["seed"], 0, 2]).random()
    position = (patient["index"] * GOLDEN_RATIO + phase) % 1
    return position < lesion_fraction


def patient_contrast(patient: dict, mri_contrast: str) -> dict:
    """The MR protocol of this patient."""
    if mri_contrast == "fixed":
        return dict(DEFAULT_CONTRAST)
    return draw_contrast(np.random.default_rng([patient["seed"], patient["index"], 4]))


def scan_patients(parameters: list[dict], size: int) -> dict[str, np.ndarray]:
    """The arrays of `SyntheticPatients`, without Z if there is one slice per patient."""
    scans: dict[str, np.ndarray] = {}
    for i, patient in enumerate(parameters):
        for name, values in scan_patient(patient, size).items():
            if len(values) == 1:
                values = values[0]
            if name not in scans:
                scans[name] = np.empty((len(parameters), *values.shape), values.dtype)
            scans[name][i] = values
    return scans


def scan_patient(patient: dict, size: int) -> dict[str, np.ndarray]:
    """The arrays of `SyntheticPatients` for one patient, (Z, size, size) each."""
    ct_hu_clean, mri_clean, labels = render(patient, size)
    head = labels != TISSUES["air"].label
    bias = bias_field(head, patient["bias_percent"], patient["bias"])

    # The CT's noise is drawn before the MR's.
    rng = np.random.default_rng([patient["seed"], patient["index"], 1])
    noisy_hu = ct_hu_clean + ct_noise(ct_hu_clean.shape, patient["ct_noise_hu"], rng)
    white_matter = MRI_UNITS * tissue_signal(TISSUES["white matter"], patient["contrast"])
    sigma = patient["mri_noise_percent"] / 100 * white_matter

    return {
        "ct_hu": np.maximum(noisy_hu, -STORED_HU_OFFSET),
        "ct_hu_clean": ct_hu_clean,
        "mri": rician_noise(mri_clean * bias, sigma, rng),
        "mri_clean": mri_clean,
        "labels": labels,
        "head": head,
        "lesion": np.isin(labels, [TISSUES[kind].label for kind in LESIONS]),
        "bias_field": bias,
    }


def render(patient: dict, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Render the noise-free CT and MR of one patient.

    Labels are drawn at twice the resolution, and the *signals* are blurred and averaged, not T1 or
    T2. A voxel's CT number is the mean attenuation, and its MR signal is the sum of the
    magnetisation within it; only the signals add. Averaging tissue fractions and weighting the
    signals by them is the same sum, with one image per tissue. Slices are thin: there is no partial
    volume along z.

    Args:
        patient: an entry of `SyntheticPatients.parameters`.
        size: pixels per side.

    Returns:
        CT in HU, MR without bias field in `MRI_UNITS`, and labels, each (Z, size, size).
    """
    pixels_mm = ((np.arange(2 * size) + 0.5) / (2 * size) - 0.5) * patient["fov_mm"]
    head_labels = FAMILIES[patient["anatomy"]].head_labels
    planes = [
        head_labels(patient, pixels_mm, pixels_mm, z_mm, patient["lesion"])
        for z_mm in patient["z_mm"]
    ]
    fine = np.stack([labels for labels, _ in planes])  # (Z, 2 size, 2 size)
    density = np.stack([density for _, density in planes])

    # One value per label. Indexing by the labels turns them into images.
    tissue_hu = np.array([patient["hu"][name] for name in TISSUES])
    signals = [tissue_signal(tissue, patient["contrast"]) for tissue in TISSUES.values()]
    signals = np.array(signals)

    # In 64 bits, and rounded at the end: processors add in different orders, and in 32 bits that
    # would give each machine other patients.
    shrink = shrink_matrix(size)
    ct_hu = shrink @ (tissue_hu[fine] * density) @ shrink.T
    mri = shrink @ (signals * MRI_UNITS)[fine] @ shrink.T
    return ct_hu.astype(np.float32), mri.astype(np.float32), majority_labels(fine)


@lru_cache(maxsize=8)
def shrink_matrix(size: int) -> np.ndarray:
    """Matrix (size, 2 size) that blurs the fine grid and averages pairs; rows sum to 1."""
    # A Gaussian of SD 0.5 output pixels, which is 1 fine pixel.
    fine = np.arange(2 * size)
    blur = np.exp(-0.5 * np.subtract.outer(fine, fine) ** 2.0)
    blur = blur / blur.sum(1, keepdims=True)

    pairs = blur.reshape(size, 2, 2 * size)
    return pairs.mean(1)


def majority_labels(labels: np.ndarray) -> np.ndarray:
    """The commonest label of each 2 x 2 block, (..., 2H, 2W) -> (..., H, W).

    A tie goes to the higher label, so no direction is favoured.
    """
    corners = [labels[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
    candidates = np.stack(corners)  # (4, ..., H, W)

    votes = (candidates[:, None] == candidates).sum(0)
    has_most_votes = votes == votes.max(0)
    return np.where(has_most_votes, candidates, 0).max(0)

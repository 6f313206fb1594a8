"""What CT and MR show of a tissue, and what both scanners add: noise and the receive field."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Tissue(NamedTuple):
    """One row of `TISSUES`.

    Args:
        label: its value in a label image.
        hu: mean CT number.
        hu_sd: standard deviation of the CT number between patients, HU.
        proton_density: relative to water.
        t1_ms: longitudinal relaxation time at 1.5 T.
        t2_ms: transverse relaxation time at 1.5 T.
    """

    label: int
    hu: float
    hu_sd: float
    proton_density: float
    t1_ms: float
    t2_ms: float


# CT numbers and MR constants of every tissue. The columns are label (as in
# `SyntheticPatients.labels`), HU, SD of HU, proton density, T1 in ms and T2 in ms.
#
# The MR constants of fat, muscle, CSF, grey and white matter are BrainWeb's. Those of skin (scalp),
# diploe (with the proton density of fatty marrow) and tumour are from Gach 2008. Sinus air is
# assumed to be air with a little mucosa, and dura to be muscle with less water.
TISSUES = {
    "air": Tissue(0, -1000, 0, 0.0, 1, 1),
    "sinus air": Tissue(1, -950, 20, 0.02, 343, 70),
    "skin": Tissue(2, 40, 8, 0.80, 343, 70),
    "fat": Tissue(3, -95, 5, 1.0, 350, 70),
    "muscle": Tissue(4, 50, 5, 1.0, 900, 47),
    # T2* is 0.42 to 0.50 ms: no signal is left at the echo.
    "cortical bone": Tissue(5, 1300, 150, 0.10, 250, 0.5),
    "diploe": Tissue(6, 450, 80, 0.70, 552, 50),
    "csf": Tissue(7, 8, 2, 1.0, 2569, 329),
    "grey matter": Tissue(8, 38, 1.5, 0.86, 833, 83),
    "white matter": Tissue(9, 28, 1.5, 0.77, 500, 70),
    "dura": Tissue(10, 50, 5, 0.80, 900, 47),
    # A fresh bleed: bright on CT, dark on T1-weighted MR.
    "acute": Tissue(11, 70, 6, 0.85, 900, 40),
    # A bleed some days old (methaemoglobin): still bright on CT, now bright on T1-weighted MR.
    "subacute": Tissue(12, 55, 6, 0.85, 350, 40),
    # A glioma without contrast agent: dark on both.
    "tumour": Tissue(13, 25, 3, 0.95, 1011, 100),
    # The nuclei hold more iron than the cortex: T1 between grey and white matter (assumed).
    "deep grey matter": Tissue(14, 37, 1.5, 0.84, 700, 75),
}

LESIONS = ("acute", "subacute", "tumour")

# MR units are arbitrary. The default contrast gives 0.07 for white matter, so this makes it 70.
MRI_UNITS = 1000.0

# BrainWeb's T1-weighted protocol at 1.5 T.
SPGR = {"tr_ms": 18.0, "te_ms": 10.0, "flip_deg": 30.0}
DEFAULT_CONTRAST = {"sequence": "spoiled gradient echo", **SPGR, "t1_factor": 1.0, "gain": 1.0}

# Uniform between scanners, by sequence: T1-weighted protocols from 1.5 to 3 T.
CONTRAST_RANGES = {
    "spoiled gradient echo": {"tr_ms": (7, 25), "te_ms": (2, 10), "flip_deg": (12, 35)},
    "spin echo": {"tr_ms": (400, 700), "te_ms": (8, 20)},
    "inversion recovery": {"tr_ms": (1800, 2500), "ti_ms": (700, 1000), "te_ms": (2, 5)},
}
# T1 grows with the field: by about 1.6 from 1.5 to 3 T.
T1_FACTOR = (0.95, 1.6)
GAIN = (0.25, 4.0)


def draw_contrast(rng: np.random.Generator) -> dict:
    """Draw a scanner: its sequence with its times, the factor on every T1, and its gain.

    Returns:
        A dictionary like `DEFAULT_CONTRAST`.
    """
    sequence = str(rng.choice(list(CONTRAST_RANGES)))
    contrast: dict = {"sequence": sequence}
    for name, (low, high) in CONTRAST_RANGES[sequence].items():
        contrast[name] = float(rng.uniform(low, high))

    contrast["t1_factor"] = float(rng.uniform(*T1_FACTOR))
    contrast["gain"] = float(np.exp(rng.uniform(*np.log(GAIN))))
    return contrast


def spgr_signal(proton_density, t1_ms, t2_ms, *, tr_ms: float, te_ms: float, flip_deg: float):
    """Steady-state signal of a spoiled gradient echo.

    PD sin(a) (1 - E1) / (1 - cos(a) E1) exp(-TE/T2), where E1 = exp(-TR/T1). The tables give T2
    where a scanner sees T2*.

    Args:
        proton_density: a scalar or an array; the times below have its shape.
        t1_ms: above 0.
        t2_ms: above 0.
        tr_ms: repetition time.
        te_ms: echo time.
        flip_deg: flip angle a.

    Returns:
        The signal in units of the proton density.

    Source: Haase et al. 1986.
    """
    e1 = np.exp(-tr_ms / np.asarray(t1_ms))
    angle = np.deg2rad(flip_deg)
    return (
        proton_density
        * np.sin(angle)
        * (1 - e1)
        / (1 - np.cos(angle) * e1)
        * np.exp(-te_ms / np.asarray(t2_ms))
    )


def spin_echo_signal(proton_density, t1_ms, t2_ms, *, tr_ms: float, te_ms: float):
    """Signal of a spin echo, PD (1 - exp(-TR/T1)) exp(-TE/T2), arguments as in `spgr_signal`."""
    recovered = 1 - np.exp(-tr_ms / np.asarray(t1_ms))
    return proton_density * recovered * np.exp(-te_ms / np.asarray(t2_ms))


def inversion_recovery_signal(
    proton_density, t1_ms, t2_ms, *, tr_ms: float, ti_ms: float, te_ms: float
):
    """Magnitude after an inversion, arguments as in `spgr_signal`; ti_ms is the inversion time.

    PD |1 - 2 exp(-TI/T1) + exp(-TR/T1)| exp(-TE/T2)
    """
    t1_ms = np.asarray(t1_ms)
    recovered = np.abs(1 - 2 * np.exp(-ti_ms / t1_ms) + np.exp(-tr_ms / t1_ms))
    return proton_density * recovered * np.exp(-te_ms / np.asarray(t2_ms))


SEQUENCES = {
    "spoiled gradient echo": spgr_signal,
    "spin echo": spin_echo_signal,
    "inversion recovery": inversion_recovery_signal,
}


def tissue_signal(tissue: Tissue, contrast: dict = DEFAULT_CONTRAST) -> float:
    """MR signal of one tissue under a contrast, before `MRI_UNITS`."""
    times = dict(contrast)
    signal = SEQUENCES[times.pop("sequence")]
    t1_ms = times.pop("t1_factor") * tissue.t1_ms
    gain = times.pop("gain")
    return gain * signal(tissue.proton_density, t1_ms, tissue.t2_ms, **times)


def rician_noise(signal: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Add Rician noise: the magnitude of a complex signal with Gaussian noise in both channels.

    Where there is no signal the result is Rayleigh: mean 1.2533 sigma, SD 0.655 sigma.

    Args:
        signal: any shape and unit.
        sigma: standard deviation in each channel, in the signal's unit.
        rng: draws the noise.

    Returns:
        The noisy magnitude, same shape and unit.

    Source: Gudbjartsson & Patz 1995.
    """
    real, imaginary = rng.standard_normal((2, *signal.shape), dtype=np.float32) * np.float32(sigma)
    return np.hypot(signal + real, imaginary)


def bias_field(head: np.ndarray, percent: float, coefficients) -> np.ndarray:
    """Receive field of the coil, a second-order polynomial in (x, y, z).

    Over the head it spans exactly [1 - percent/200, 1 + percent/200], so 20 % means [0.90, 1.10].
    Outside the head it stays within that span.

    Args:
        head: bool (Z, H, W).
        percent: the span.
        coefficients: 9 numbers for x, y, z, xx, yy, zz, xy, xz, yz.

    Returns:
        float32 (Z, H, W), to be multiplied with the MR signal.

    Raises:
        ValueError: the head mask is empty.

    Source: BrainWeb's definition of intensity non-uniformity.
    """
    if not head.any():
        raise ValueError(
            "a bias field is scaled over the head, and this head mask is empty: pass the head of "
            "the MR volume"
        )

    axes = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in head.shape]
    z, y, x = np.ix_(*axes)
    terms = (x, y, z, x * x, y * y, z * z, x * y, x * z, y * z)
    field = sum(coefficient * term for coefficient, term in zip(coefficients, terms, strict=True))
    field = np.broadcast_to(field, head.shape)

    low, high = field[head].min(), field[head].max()
    centred = ((field - low) / (high - low) - 0.5).clip(-0.5, 0.5)
    return (1 + percent / 100 * centred).astype(np.float32)


def ct_noise(shape: tuple[int, ...], sd_hu: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of filtered backprojection, with power |f| exp(-2 (f/0.25)^2) and none at DC.

    f is in cycles per pixel. The ramp filter gives the projections a power of f^2, and the polar
    sampling divides it by f.

    Args:
        shape: (..., H, W).
        sd_hu: the expected standard deviation, not that of the sample.
        rng: draws the noise.

    Returns:
        float32 of this shape, in HU.

    Source: Kijewski & Judy 1987.
    """
    frequency = np.hypot(np.fft.fftfreq(shape[-2])[:, None], np.fft.fftfreq(shape[-1]))
    amplitude = np.sqrt(frequency) * np.exp(-((frequency / 0.25) ** 2))
    amplitude *= sd_hu / np.sqrt((amplitude**2).mean())

    white = np.fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    half_plane = amplitude[:, : white.shape[-1]]
    return np.fft.irfft2(white * half_plane, s=shape[-2:]).astype(np.float32)

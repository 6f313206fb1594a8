"""Mira, the synthetic patient whom the lessons meet again: a head with a fresh bleed, or without.

She is the same at every size, whatever the lessons' SEED, and no training draws her.
"""

from __future__ import annotations

from ..scans.datasets import PHANTOM_OPTIONS, default_phantom, phantom_scans
from ..scans.phantom import SyntheticPatients, synthetic_patients
from ..scans.unpaired import UnpairedScans

# In 1895 Röntgen took the first X-ray picture. Her head shows sinus, ventricles and a large bleed.
SEED = 1895


def mira(size: int, lesion: str = "acute") -> UnpairedScans:
    """Mira's slice as a data set, whose `test` holds her MR, her true CT and the truth behind both.

    Args:
        size: pixels per side.
        lesion: "acute", or "none" for the same head without a bleed; see `synthetic_patients`.

    Raises:
        ValueError: an argument is out of range.
    """
    return phantom_scans(1, 1, size, SEED, name="Mira", groups=({}, {}, phantom_options(lesion)))


def mira_volume(size: int, slices: int, lesion: str = "acute") -> SyntheticPatients:
    """Mira's head as a volume, from 10 mm below to 50 mm above its middle level.

    Args:
        size: pixels per side.
        slices: how many, from the lowest to the highest.
        lesion: as for `mira`.

    Raises:
        ValueError: an argument is out of range.
    """
    # The seed of the test patient in `phantom_scans`.
    return synthetic_patients(1, size, 3 * SEED + 2, slices=slices, **phantom_options(lesion))


def phantom_options(lesion: str) -> dict:
    """Options of `synthetic_patients` for the default phantom, with a lesion for sure or none."""
    share = 0.0 if lesion == "none" else 1.0
    return {**PHANTOM_OPTIONS[default_phantom()], "lesion": lesion, "lesion_fraction": share}

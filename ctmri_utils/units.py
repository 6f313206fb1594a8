"""Physical units <-> the network's range.

Hounsfield ranges, MR percentile scaling, display windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Scale:
    """A linear map between the physical interval [low, high] and the network's [-1, 1].

    Invertible inside it.

    Works on NumPy arrays and torch tensors of any shape. Raises ValueError if the interval is
    empty.
    """

    low: float
    high: float
    unit: str

    def __post_init__(self):
        if not self.high > self.low:
            raise ValueError(
                f"a scale needs low < high, got {self.low} and {self.high} {self.unit}: is the "
                "image constant?"
            )

    def to_network(self, physical):
        """Physical values -> [-1, 1]; what lies outside [low, high] is clipped.

        `scans.clipping_notes` counts it.
        """
        return ((physical - self.low) * (2 / (self.high - self.low)) - 1).clip(-1, 1)

    def from_network(self, network):
        """[-1, 1] -> physical values in [low, high]."""
        return (network + 1) * ((self.high - self.low) / 2) + self.low


HU = Scale(-1000.0, 1000.0, "HU")
"""CT in the network: air to cortical bone. Denser voxels saturate; `scans` counts them."""


class LinearMap:
    """CT as it comes: one channel, `HU` in [-1, 1].

    What `encode` gives the networks, `decode` turns back; torch tensors (N, C, H, W).
    """

    # of the networks for one of the data
    channels = 1

    def encode(self, ct):
        return ct

    def decode(self, ct):
        return ct


class PiecewiseMap(LinearMap):
    """Half of the networks' range for [-100, 150] HU, where all soft tissue is.

    Straight in three pieces, so exactly invertible.
    """

    # -1000, -100, 150 and 1000 HU, and where they go
    linear, stretched = (-1.0, -0.1, 0.15, 1.0), (-1.0, -0.5, 0.5, 1.0)

    def encode(self, ct):
        return self.straight_pieces(ct, self.linear, self.stretched)

    def decode(self, ct):
        return self.straight_pieces(ct, self.stretched, self.linear)

    @staticmethod
    def straight_pieces(x, before, after):
        steps = zip(before[:-1], before[1:], after[:-1], after[1:], strict=True)
        return after[0] + sum((x - a).clip(0, b - a) * ((d - c) / (b - a)) for a, b, c, d in steps)


class TwoWindowsMap(LinearMap):
    """Two channels: [-1000, 1000] HU, and [-100, 150] HU stretched to the whole range, which is
    believed where the first is inside it.
    """

    channels = 2
    # -100 and 150 HU in the linear range
    low, high = -0.1, 0.15

    def encode(self, ct):
        soft = ((ct - self.low) * (2 / (self.high - self.low)) - 1).clip(-1, 1)
        return torch.cat([ct, soft], 1)  # (N, 2 C, H, W)

    def decode(self, ct):
        wide, soft = ct.chunk(2, 1)
        soft = (soft + 1) * ((self.high - self.low) / 2) + self.low
        return torch.where((wide > self.low) & (wide < self.high), soft, wide)


CT_MAPS = {"linear": LinearMap(), "piecewise": PiecewiseMap(), "two_windows": TwoWindowsMap()}
"""How a translator may show CT to its networks; outside it all CT is linear in [-1, 1]."""

GREY = Scale(0.0, 255.0, "grey level")
"""8-bit pictures whose window is unknown: no Hounsfield unit can be recovered from them."""

AIR_HU = -1000.0
# 16-bit PNGs in data/scans hold HU + 1024
STORED_HU_OFFSET = 1024


def mri_scale(mri: np.ndarray, head: np.ndarray) -> Scale:
    """Scale of one MR volume.

    Its 0.5 and 99.5 percentiles inside the head; MR has no unit of its own.

    mri: any shape, arbitrary units; head: bool, same shape. Per volume, never per slice, so that
    neighbouring slices agree. Raises ValueError if the head is empty or constant. Source: Reinhold
    et al. 2018 (arXiv 1812.04652).
    """
    if mri.shape != head.shape or not head.any():
        raise ValueError(f"the head mask {head.shape} must cover some of the MR volume {mri.shape}")
    low, high = np.percentile(mri[head], [0.5, 99.5])
    return Scale(float(low), float(high), "MR unit")


@dataclass(frozen=True)
class Window:
    """A display window in HU: `level` is its centre, `width` its full width."""

    level: float
    width: float

    def apply(self, ct_hu):
        """HU -> grey in [0, 1]: black at and below level - width / 2, white at and above level +
        width / 2.
        """
        return ((ct_hu - self.level) / self.width + 0.5).clip(0, 1)


WINDOWS = {
    "brain": Window(40, 80),
    "subdural": Window(75, 200),
    "stroke": Window(40, 40),
    "soft tissue": Window(40, 400),
    "bone": Window(450, 2000),
    "everything": Window(0, 2000),
}
"""The clinical presets, level and width in HU; "everything" is the network's own range."""

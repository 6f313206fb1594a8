"""Scales between physical units and the network's [-1, 1], and CT maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray | Tensor

# The key of a modality in code and files, and its word on the screen.
MODALITIES = {"ct": "CT", "mri": "MR"}

AIR_HU = -1000.0

# The 16-bit PNGs in data/scans hold HU + 1024.
STORED_HU_OFFSET = 1024


def other_modality(modality: str) -> str:
    """The modality that a scan of `modality` is translated to: "ct" for "mri", "mri" for "ct"."""
    return "ct" if modality == "mri" else "mri"


@dataclass(frozen=True)
class Scale:
    """A linear map between the physical interval [low, high] and the network's [-1, 1].

    Works on NumPy arrays and torch tensors of any shape. Invertible inside the interval.

    Args:
        low: the value that becomes -1.
        high: the value that becomes 1.
        unit: of low and high.

    Raises:
        ValueError: the interval is empty.

    Example:
        >>> import numpy as np
        >>> from ctmri_utils import HU
        >>> HU.to_network(np.array([-1000.0, 50.0, 3000.0])).round(3).tolist()
        [-1.0, 0.05, 1.0]
        >>> HU.from_network(0.05)
        50.0
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

    def to_network(self, physical: Array) -> Array:
        """Scale physical values to [-1, 1] and clip what lies outside [low, high].

        `scans.notes.clipping_notes` reports how much was clipped.
        """
        return ((physical - self.low) * (2 / (self.high - self.low)) - 1).clip(-1, 1)

    def from_network(self, network: float | Array) -> float | Array:
        """Scale values in [-1, 1] back to physical values in [low, high]."""
        return (network + 1) * ((self.high - self.low) / 2) + self.low


# CT in the network: air to cortical bone. Denser voxels saturate; `scans` counts them.
HU = Scale(-1000.0, 1000.0, "HU")

# 8-bit pictures whose window is unknown: no Hounsfield unit can be recovered from them. CT and MR
# have a unit each, since to subtract one grey from the other would mean nothing.
GREY = Scale(0.0, 255.0, "grey level")
MRI_GREY = Scale(0.0, 255.0, "MR grey level")

# The MR values inside the head that become -1 and 1, see `mri_scale`.
MRI_PERCENTILES = (0.5, 99.5)


def mri_scale(mri: np.ndarray, head: np.ndarray) -> Scale:
    """Scale an MR volume by its 0.5 and 99.5 percentiles inside the head.

    MR has no unit of its own. Scale whole volumes, never single slices, so that neighbouring slices
    agree.

    Args:
        mri: any shape, arbitrary units.
        head: bool mask of the same shape.

    Returns:
        The scale of this volume.

    Raises:
        ValueError: the head is empty or constant, or the shapes differ.

    Source: Reinhold et al. 2018 (arXiv 1812.04652).
    """
    if mri.shape != head.shape or not head.any():
        raise ValueError(f"the head mask {head.shape} must cover some of the MR volume {mri.shape}")
    low, high = np.percentile(mri[head], MRI_PERCENTILES)
    return Scale(float(low), float(high), "MR unit")


class LinearMap:
    """The plain CT map: one channel, `HU` scaled to [-1, 1], unchanged.

    Every CT map turns CT in [-1, 1], (N, C, H, W), into what the networks see (`encode`) and back
    (`decode`).
    """

    # Channels that the networks see for one channel of CT.
    channels = 1

    def encode(self, ct: Tensor) -> Tensor:
        """Turn CT in [-1, 1] into the networks' input."""
        return ct

    def decode(self, ct: Tensor) -> Tensor:
        """Turn the networks' output back into CT in [-1, 1]."""
        return ct


class PiecewiseMap(LinearMap):
    """A CT map that gives soft tissue, [-100, 150] HU, half of the networks' range.

    It consists of three straight pieces, so it is exactly invertible.
    """

    # Where the pieces meet: -1000, -100, 150 and 1000 HU, before and after the map.
    linear = (-1.0, -0.1, 0.15, 1.0)
    stretched = (-1.0, -0.5, 0.5, 1.0)

    def encode(self, ct: Tensor) -> Tensor:
        """Stretch the soft tissue."""
        return self.straight_pieces(ct, self.linear, self.stretched)

    def decode(self, ct: Tensor) -> Tensor:
        """Undo the stretching."""
        return self.straight_pieces(ct, self.stretched, self.linear)

    @staticmethod
    def straight_pieces(x: Tensor, before: Sequence[float], after: Sequence[float]) -> Tensor:
        """Map x piece by piece: before[k] becomes after[k], with straight lines between."""
        total = 0
        for k in range(len(before) - 1):
            width = before[k + 1] - before[k]
            slope = (after[k + 1] - after[k]) / width
            # Both limits are floats, because the exporter to ONNX takes no mixture.
            total = total + (x - before[k]).clip(0.0, width) * slope
        return after[0] + total


class TwoWindowsMap(LinearMap):
    """A CT map with two channels: the whole range, and soft tissue stretched to [-1, 1].

    The soft-tissue channel covers [-100, 150] HU. Decoding uses it wherever the first channel lies
    inside that window.
    """

    channels = 2

    # -100 and 150 HU in the linear range.
    low = -0.1
    high = 0.15

    def encode(self, ct: Tensor) -> Tensor:
        """Add the soft-tissue channel."""
        soft = ((ct - self.low) * (2 / (self.high - self.low)) - 1).clip(-1, 1)
        return torch.cat([ct, soft], 1)  # (N, 2 C, H, W)

    def decode(self, ct: Tensor) -> Tensor:
        """Merge the two channels into one."""
        wide, soft = ct.chunk(2, 1)
        soft = (soft + 1) * ((self.high - self.low) / 2) + self.low

        in_window = (wide > self.low) & (wide < self.high)
        return torch.where(in_window, soft, wide)


# How a translator may show CT to its networks; outside of it all CT is linear in [-1, 1].
CT_MAPS = {"linear": LinearMap(), "piecewise": PiecewiseMap(), "two_windows": TwoWindowsMap()}

"""Display windows: which HU are shown from black to white."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """A display window.

    Args:
        level: its centre in HU.
        width: its full width in HU.

    Example:
        >>> import numpy as np
        >>> from ctmri_utils import WINDOWS
        >>> WINDOWS["brain"].apply(np.array([0.0, 40.0, 80.0, 1000.0])).tolist()
        [0.0, 0.5, 1.0, 1.0]
    """

    level: float
    width: float

    def apply(self, ct_hu):
        """Turn HU into grey: 0 at level - width / 2 and below, 1 at level + width / 2 and above."""
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

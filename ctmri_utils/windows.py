"""Display windows: which HU are shown from black to white."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real


@dataclass(frozen=True)
class Window:
    """A display window.

    Args:
        level: its centre in HU.
        width: its full width in HU.

    Raises:
        ValueError: a level or width that is no finite number, or a width of 0 or less.

    Example:
        >>> import numpy as np
        >>> from ctmri_utils import WINDOWS
        >>> WINDOWS["brain"].apply(np.array([0.0, 40.0, 80.0, 1000.0])).tolist()
        [0.0, 0.5, 1.0, 1.0]
    """

    level: float
    width: float

    def __post_init__(self):
        are_numbers = isinstance(self.level, Real) and isinstance(self.width, Real)
        if not are_numbers or not math.isfinite(self.level) or not 0 < self.width < math.inf:
            raise ValueError(
                f"a display window needs a level and a width above 0 in HU, got {self.level!r} and "
                f"{self.width!r}: take a window of WINDOWS, or numbers such as 40 and 80"
            )

    def apply(self, ct_hu):
        """Turn HU into grey: 0 at level - width / 2 and below, 1 at level + width / 2 and above."""
        return ((ct_hu - self.level) / self.width + 0.5).clip(0, 1)


# The clinical presets, level and width in HU; "everything" is the network's own range.
WINDOWS = {
    "brain": Window(40, 80),
    "subdural": Window(75, 200),
    "stroke": Window(40, 40),
    "soft tissue": Window(40, 400),
    "bone": Window(450, 2000),
    "everything": Window(0, 2000),
}

"""Lesson 6: the log of failures, each beside a control in which nothing is wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..runs.studies import mean_interval
from ..viewers import figures

SHOWN = "shown"
SMALL = "too small to matter"
NOT_SHOWN = "NOT shown"
TOO_FEW = "too few to say"

# The colour and the marker of each verdict.
LOOKS = {
    SHOWN: (figures.COLOURS[1], "o"),
    SMALL: (figures.COLOURS[4], "D"),
    NOT_SHOWN: (figures.COLOURS[0], "s"),
    TOO_FEW: ("grey", "x"),
}


@dataclass(frozen=True)
class Entry:
    """One failure beside its control.

    Args:
        failure: its name.
        measure: what was measured, with its unit.
        failing: (n,), one value for each patient, volume or seed.
        control: (n,), in the same order.
        sign: 1 if a higher value is worse, -1 if a lower one is.
        matters: the smallest worsening that matters, in the unit of the measure, above 0.
    """

    failure: str
    measure: str
    failing: np.ndarray
    control: np.ndarray
    sign: int
    matters: float

    @property
    def worsening(self) -> np.ndarray:
        """How much worse than its control each one is, (n,), in the unit of the measure."""
        return self.sign * (self.failing - self.control)

    @property
    def verdict(self) -> str:
        """One of the keys of `LOOKS`.

        "shown" if the mean worsening matters and its whole 95 % interval lies above 0; "too small
        to matter" if only the latter holds.
        """
        mean, low, _, n = mean_interval(self.worsening)
        if n < 2:
            return TOO_FEW
        if low <= 0:
            return NOT_SHOWN
        return SHOWN if mean >= self.matters else SMALL

    @property
    def count(self) -> str:
        """In how many the worsening matters, such as "3 of 40"."""
        defined = self.worsening[~np.isnan(self.worsening)]
        return f"{(defined >= self.matters).sum()} of {len(defined)}"


class Log:
    """The failures of the lesson, each compared with a control in which nothing is wrong."""

    def __init__(self):
        self.entries: list[Entry] = []

    def rises(self, failure: str, measure: str, failing, control, by: float) -> None:
        """Enter a failure that makes a measure higher, and print its verdict.

        Args:
            failure: its name.
            measure: what was measured, with its unit.
            failing: (n,), one value for each patient, volume or seed; NaN where there is none.
            control: (n,), in the same order, or one number for all.
            by: the smallest change that matters, in the unit of the measure.
        """
        self._enter(failure, measure, failing, control, 1, by)

    def falls(self, failure: str, measure: str, failing, control, by: float) -> None:
        """Enter a failure that makes a measure lower; arguments as in `rises`."""
        self._enter(failure, measure, failing, control, -1, by)

    def _enter(self, failure, measure, failing, control, sign, matters) -> None:
        failing = np.asarray(failing, dtype=float)
        control = np.broadcast_to(np.asarray(control, dtype=float), failing.shape)
        entry = Entry(failure, measure, failing, control, sign, matters)
        self.entries.append(entry)
        print(
            f"{failure}: {entry.verdict}\n"
            f"    {measure} {np.nanmean(failing):.2f}, control {np.nanmean(control):.2f}; "
            f"worse by {matters:g} or more in {entry.count}"
        )

    def table(self) -> pd.DataFrame:
        """The verdicts: a row for each failure."""
        rows = {}
        for entry in self.entries:
            rows[entry.failure] = [entry.verdict, entry.count, entry.measure]
        columns = ["verdict", "worse in", "measure"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns)

    def plot(self) -> Figure:
        """Every entry on one axis: how much worse than the control, in units of what matters.

        Pale dots are patients, volumes or seeds; the large marker is their mean, with its 95 %
        interval; its colour and shape tell the verdict. The axis is linear between -1 and 1, and
        logarithmic beyond.
        """
        entries = self.entries
        figure = Figure(figsize=(8, 0.6 + 0.27 * len(entries)), layout="constrained")
        axis = figure.subplots()
        handles = {}
        for row, entry in enumerate(entries):
            values = entry.worsening / entry.matters
            mean, low, high, _ = mean_interval(values)
            colour, marker = LOOKS[entry.verdict]

            rows = np.full(len(values), row)
            axis.plot(values, rows, ".", color="grey", alpha=0.35, markersize=5)
            axis.hlines(row, low, high, color=colour, linewidth=2)
            [handles[entry.verdict]] = axis.plot(mean, row, marker, color=colour, markersize=7)

        axis.axvline(0, color="black", linewidth=1)
        axis.axvline(1, color="black", linewidth=1, linestyle="--")
        axis.set_xscale("symlog", linthresh=1)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_xlabel("change for the worse, in multiples of what matters (dashed line)")
        figures.rows_from_top(axis, [entry.failure for entry in entries])
        axis.tick_params(labelsize=8)
        axis.grid(axis="y", alpha=0.3)
        axis.legend(
            handles.values(), handles.keys(), fontsize=8, loc="upper left", bbox_to_anchor=(1, 1)
        )
        return figure

"""The figures and tables of lessons 4 and 5: what they are made of."""

import numpy as np
import pytest
import torch

from ctmri_utils.evaluation.features import SMALL, kid_of
from ctmri_utils.scans import synthetic_patients
from ctmri_utils.teaching import plots_4, plots_5


def test_the_profile_begins_in_the_air_and_reaches_the_brain():
    truth = synthetic_patients(1, 64, seed=2, anatomy="atlas")
    figure = plots_4.skull_profile({"true CT": truth.ct_hu[0]}, truth.spacing_mm)
    [line] = figure.axes[0].lines
    hu = line.get_ydata()
    assert hu[0] < -900 and hu.max() > 250 and -50 < hu[-1] < 100
    assert np.diff(line.get_xdata()) == pytest.approx(truth.spacing_mm)


def test_sets_too_small_for_a_distance_have_none():
    scans = torch.rand(12, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    sets = {"enough": (scans, scans.flip(-1)), "too few": (scans, scans[:9])}
    enough, too_few = plots_4.set_distances(sets, SMALL, seed=1).itertuples()
    assert enough.mean == kid_of(*sets["enough"], SMALL, seed=1).value and enough.n == "12 and 12"
    assert np.isnan([too_few.mean, too_few.low, too_few.high, too_few.FID]).all()


def test_the_shares_of_tissues_and_of_their_errors_make_the_whole():
    truth = synthetic_patients(1, 64, seed=2)
    true_hu, head = truth.ct_hu[0], truth.head[0]
    table = plots_5.error_by_tissue(true_hu + 100 * (true_hu > 250), true_hu, head)
    assert table.sum().tolist() == pytest.approx([100, 100])
    assert table.loc["bone", "% of its error"] == pytest.approx(100)
    assert table.loc["bone", "% of the head"] == pytest.approx(100 * np.mean(true_hu[head] > 250))

"""Lesson 6: the log's verdicts, and the scores of each patient."""

import numpy as np
import pytest

from ctmri_utils.scans.phantom import synthetic_patients
from ctmri_utils.teaching import plots_6
from ctmri_utils.teaching.log_6 import NOT_SHOWN, SHOWN, SMALL, TOO_FEW

CONTROL = np.array([0.0, 0.1, 0.2, 0.1])


def verdict(failing, control=CONTROL, by=1.0, falls=False):
    log = plots_6.Log()
    (log.falls if falls else log.rises)("failure", "HU", failing, control, by=by)
    return log.entries[0].verdict


@pytest.mark.parametrize(
    ("failing", "expected"),
    [
        (CONTROL + (1.9, 2.0, 2.1, 2.0), SHOWN),
        # Certain, but too small; large, but in one patient alone; the other way round.
        (CONTROL + (0.4, 0.5, 0.6, 0.5), SMALL),
        (CONTROL + (0.0, 0.0, 0.0, 9.0), NOT_SHOWN),
        (CONTROL - (1.9, 2.0, 2.1, 2.0), NOT_SHOWN),
        (CONTROL, NOT_SHOWN),
        ([2.0, np.nan, np.nan, np.nan], TOO_FEW),
    ],
)
def test_a_verdict_needs_certainty_and_size(failing, expected):
    assert verdict(failing) == expected
    if expected != TOO_FEW:
        mirrored = 2 * CONTROL - failing
        assert verdict(mirrored, falls=True) == expected


def test_the_log_counts_those_whom_a_failure_hits(capsys):
    log = plots_6.Log()
    log.rises("failure", "HU", [2.0, 0.5, 3.0, np.nan], 0, by=1)
    assert "failure: " in capsys.readouterr().out
    assert log.table().loc["failure", "worse in"] == "2 of 3"
    assert len(log.plot().axes[0].get_yticklabels()) == 1


def test_the_true_ct_scores_best_and_a_wiped_bleed_is_lost():
    bleeds = {"lesion": "acute", "lesion_fraction": 1.0}
    truth, healthy = synthetic_patients(3, seed=1, **bleeds), synthetic_patients(3, seed=1)

    kept = plots_6.scores(truth.ct_hu_clean, truth)
    assert kept["recovery"].tolist() == pytest.approx([1.0] * 3) and kept["detected"].all()
    assert plots_6.scores(truth.ct_hu, truth)["MAE HU"].tolist() == [0.0] * 3

    wiped = plots_6.scores(healthy.ct_hu_clean, truth)
    assert (wiped["recovery"].abs() < 0.3).all() and not wiped["detected"].any()
    assert plots_6.scores(healthy.ct_hu, healthy)["recovery"].isna().all()

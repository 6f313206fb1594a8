"""Section 4.4 of lesson 04.

Every switch moves the score by what the text works out, also after a reader has changed the switch.
"""

from functools import cache

import numpy as np
import pandas as pd
import pytest
import rules

from ctmri_utils import evaluation
from ctmri_utils.evaluation import metrics
from ctmri_utils.scans.datasets import phantom_scans
from ctmri_utils.scans.phantom import synthetic_patients


@cache
def lookup():
    """What the lesson has by then, of fewer patients.

    The phantom, its truth, and the prediction that needs no training.
    """
    phantom = phantom_scans(4, 8, 64, seed=1)
    predictors = evaluation.baselines(phantom.train, synthetic_patients(12, 64, seed=900), seed=0)
    return {
        "np": np,
        "pd": pd,
        "metrics": metrics,
        "phantom": phantom,
        "truth": phantom.test.truth,
        "predictors": predictors,
        "fake_ct_hu": predictors["lookup E[CT | MR]"](phantom.test),
    }


def section(change=("", "")):
    """Runs the code of 4.4 up to the count of slices, one string replaced; returns its names."""
    cells = rules.load(rules.ROOT / "notebooks" / "04_evaluate_translations.ipynb").code
    first, last = (
        next(i for i, cell in enumerate(cells) if start in cell.source)
        for start in ("darkest, brightest = ", "counted five times")
    )
    source = "\n".join(cell.source for cell in cells[first : last + 1])
    assert change == ("", "") or source.count(change[0]) == 1
    namespace = dict(lookup())
    exec(compile(source.replace(*change), "04_evaluate_translations.ipynb", "exec"), namespace)
    return namespace


READERS = [
    ("", ""),
    ('"value_range": (-1000, 1000)', '"value_range": (-1024, 1976)'),
    ("darkest, brightest = -800,", "darkest, brightest = -600,"),
    ('"shift": 1', '"shift": -3'),
]


@pytest.mark.parametrize(
    "change", READERS, ids=["as committed", "another range", "another window", "another shift"]
)
def test_each_switch_moves_the_number_by_what_is_worked_out_by_hand(change):
    names = section(change)
    by_hand, measured = names["by_hand"], names["measured"]
    assert list(by_hand) == list(measured)
    air, psnr, eight_bit, both, shift = zip(by_hand.values(), measured.values())
    outside = ~names["head"]
    # noise, and the rim of the head
    own_error = np.abs(names["lookup_hu"] - names["true_hu"])[outside].mean() * outside.mean()
    assert (
        air[0] < air[1] == pytest.approx(air[0] + own_error, rel=0.01) and own_error < 0.15 * air[0]
    )
    # dB: what the clipping hides, and rounding
    assert psnr[0] - 1e-9 <= psnr[1] <= psnr[0] + 0.1
    assert 0 <= eight_bit[1] <= eight_bit[0] < 15
    assert both[1] == pytest.approx(both[0], rel=0.03)
    assert 0 < shift[1] <= shift[0]


def test_the_switches_do_what_their_names_say():
    names = section()
    lookup_hu, true_hu, head = names["lookup_hu"], names["true_hu"], names["head"]

    def mean(score):
        return np.mean([score(*images) for images in zip(lookup_hu, true_hu, head)])

    everywhere, off = np.ones_like(head[0]), np.roll
    expected = {
        "honest": (
            mean(metrics.mae_hu),
            mean(lambda p, t, k: metrics.psnr_db(p, t, k, (-1024, 3000))),
        ),
        "1 air counted too": (
            np.abs(lookup_hu - true_hu).mean(),
            mean(lambda p, t, k: metrics.psnr_db(p, t, everywhere, (-1024, 3000))),
        ),
        "2 narrow range": (
            mean(metrics.mae_hu),
            mean(lambda p, t, k: metrics.psnr_db(p, t, k, (-1000, 1000))),
        ),
        "4 truth one pixel off": (
            mean(lambda p, t, k: metrics.mae_hu(p, off(t, 1, 1), k)),
            mean(lambda p, t, k: metrics.psnr_db(p, off(t, 1, 1), k, (-1024, 3000))),
        ),
    }
    for name, scores in expected.items():
        assert names["scored"][name] == pytest.approx(scores, rel=1e-6), name
    assert np.abs(names["as_8_bit"] - true_hu)[
        (true_hu > -800) & (true_hu < 2000)
    ].max() == pytest.approx(2800 / 255 / 2, rel=0.02)
    assert len(np.unique(names["as_8_bit"])) <= 256 and names["as_8_bit"].min() == pytest.approx(
        -800
    )


def test_slices_counted_as_patients_shrink_the_interval(capsys):
    section()
    halves = [
        float(line.split("+-")[1].split()[0])
        for line in capsys.readouterr().out.splitlines()
        if "+-" in line
    ]
    # n - 1 of 40 and of 8; one decimal
    assert halves[0] / halves[1] == pytest.approx((39 / 7) ** 0.5, rel=0.02)
    assert (39 / 7) ** 0.5 == pytest.approx(5**0.5, rel=0.06)

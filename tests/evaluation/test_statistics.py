"""The statistics of `evaluation`, splits, intervals and comparisons, against second, literal
computations.
"""

import itertools

import numpy as np
import pytest
from scipy import stats

from ctmri_utils import evaluation as ev


def made_up(values, method="one", metric="MAE HU"):
    return [ev.Score(method, f"patient {i}", metric, float(v)) for i, v in enumerate(values)]


# ---- intervals


def test_the_interval_is_that_of_a_literal_bootstrap():
    values, rng = np.random.default_rng(1).exponential(size=9), np.random.default_rng(5)
    means = sorted(
        float(np.mean([values[k] for k in draw])) for draw in rng.integers(9, size=(400, 9))
    )
    [row] = ev.summarise(made_up(values), seed=5, resamples=400)
    assert row[:2] == ("one", "MAE HU") and row.n == 9
    # the 10th and the 390th of 400
    assert row[2:5] == pytest.approx((np.mean(values), means[9], means[389]), rel=1e-12)


def test_the_interval_agrees_with_scipys():
    values = np.random.default_rng(2).normal(100, 10, 30)
    [row] = ev.summarise(made_up(values), seed=0, resamples=20000)
    scipys = stats.bootstrap(
        (values,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    # two sets of 20,000 random draws
    assert (row.low, row.high) == pytest.approx(scipys, abs=0.02 * (row.high - row.low))


@pytest.mark.parametrize(("patients", "expected"), [(10, 0.90), (40, 0.94)])
def test_the_interval_covers_the_true_mean_about_as_often_as_it_says(patients, expected):
    rng, covered = np.random.default_rng(0), 0
    for seed in range(500):
        [row] = ev.summarise(made_up(rng.normal(7, 2, patients)), seed=seed, resamples=400)
        covered += row.low <= 7 <= row.high
    # three standard errors of a share near 0.9 of 500
    assert covered / 500 == pytest.approx(expected, abs=0.04)


def test_patients_are_resampled_alike_for_every_method():
    values = np.random.default_rng(3).normal(size=12)
    one, other = ev.summarise(made_up(values) + made_up(values + 5, "other"), seed=0)
    assert (other.low - 5, other.high - 5) == pytest.approx((one.low, one.high), rel=1e-9)
    assert ev.summarise(made_up(values), seed=0) == [one] != ev.summarise(made_up(values), seed=1)


def test_undefined_patients_are_left_out_and_counted():
    rows = ev.summarise(
        made_up([1, np.nan, 3, 5])
        + made_up([np.nan, 2, np.nan, np.nan], "two")
        + made_up([np.nan] * 4, "three"),
        seed=0,
    )
    assert [row.n for row in rows] == [3, 1, 0]
    np.testing.assert_array_equal([row.mean for row in rows], [3, 2, np.nan])
    assert 1 <= rows[0].low < rows[0].high <= 5
    assert np.isnan([rows[1].low, rows[1].high, rows[2].low, rows[2].high]).all()


def test_infinite_scores_stay_infinite():
    [row] = ev.summarise(made_up([np.inf, np.inf, np.inf]), seed=0)
    assert row[2:5] == (np.inf, np.inf, np.inf)


# ---- comparisons


def signed_rank_p(difference):
    """Two-sided exact p: how many of the 2^n choices of signs give a rank sum as far from its
    middle. No ties, no zeros.
    """
    ranks = [1 + sum(abs(other) < abs(one) for other in difference) for one in difference]
    middle = sum(ranks) / 2
    seen = abs(sum(r for r, d in zip(ranks, difference) if d > 0) - middle)
    sums = [
        sum(itertools.compress(ranks, signs))
        for signs in itertools.product((0, 1), repeat=len(ranks))
    ]
    return sum(abs(s - middle) >= seen for s in sums) / len(sums)


def holm_by_loop(p_values):
    """Step down: reject the smallest at level/k, the next at level/(k - 1) ....

    The adjusted p is the smallest level that rejects.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    for step, i in enumerate(order):
        before = adjusted[order[step - 1]] if step else 0
        adjusted[i] = min(1.0, max(before, p_values[i] * (len(p_values) - step)))
    return adjusted


def test_comparisons_agree_with_all_sign_patterns_and_the_step_down_loop():
    rng = np.random.default_rng(0)
    reference = rng.normal(100, 10, 8)
    shifts = {"worse": 9, "alike": 0.5, "better": -4}
    values = {method: reference + rng.normal(shift, 5, 8) for method, shift in shifts.items()}
    rows = [row for method, v in values.items() for row in made_up(v, method)] + made_up(
        reference, "reference"
    )
    # patients are matched by name, not place
    compared = ev.compare_methods(rows[::-1], "MAE HU", "reference")[::-1]
    assert [row.method for row in compared] == list(shifts)
    for row in compared:
        assert row.difference == pytest.approx(np.mean(values[row.method] - reference), rel=1e-12)
        assert (
            row.p == pytest.approx(signed_rank_p(values[row.method] - reference), rel=1e-12)
            and row.n == 8
        )
    assert [row.p_holm for row in compared] == pytest.approx(
        holm_by_loop([row.p for row in compared]), rel=1e-12
    )


def test_holm_agrees_with_the_step_down_loop():
    rng = np.random.default_rng(0)
    for k in (1, 2, 3, 7, 7, 7):
        p_values = (rng.random(k) ** 3).round(2)  # rounded: with ties
        assert ev.holm(p_values) == pytest.approx(holm_by_loop(p_values), rel=1e-12)
    # worked by hand
    assert ev.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert ev.holm([]) == []


def test_comparisons_leave_out_the_undefined_and_call_equal_scores_equal():
    one, two = made_up([1, 2, np.nan, np.inf]), made_up([1, np.nan, 3, np.inf], "two")
    assert ev.compare_methods(one + two, "MAE HU", "one") == [("two", 0.0, 1.0, 1.0, 2)]
    # above 50, SciPy's p would be NaN
    alike = ev.compare_methods(made_up(range(60)) + made_up(range(60), "two"), "MAE HU", "one")
    assert alike == [("two", 0.0, 1.0, 1.0, 60)]
    [row] = ev.compare_methods(made_up([1, 2, 3]) + made_up([np.inf] * 3, "two"), "MAE HU", "one")
    assert row.difference == np.inf and row.n == 3
    assert ev.compare_methods(one, "MAE HU", "one") == []


# ---- tables, files, copies


def test_split_by_patient_keeps_every_patient_on_one_side():
    patients = [f"p{i % 7}" for i in range(40)]
    train, test = ev.split_by_patient(patients, 0.3, seed=0)
    assert sorted(train + test) == list(range(40))
    sides = {patients[i] for i in train}, {patients[i] for i in test}
    assert not sides[0] & sides[1] and len(sides[1]) == 2  # 0.3 of 7
    assert ev.split_by_patient(patients, 0.3, seed=0) == (train, test)
    assert any(
        ev.split_by_patient(patients, 0.3, seed=seed) != (train, test) for seed in range(1, 5)
    )
    assert [len(side) for side in ev.split_by_patient(["a", "b"], 0.01, seed=0)] == [1, 1]
    with pytest.raises(ValueError, match="two patients or more.*got 1"):
        ev.split_by_patient(["a", "a"], 0.5, seed=0)

"""The statistics of `evaluation`, splits, intervals and comparisons, against second, literal
computations.
"""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ctmri_utils import evaluation as ev


def made_up(values, method="one", metric="MAE HU"):
    rows = [(method, f"patient {i}", metric, float(v)) for i, v in enumerate(values)]
    return pd.DataFrame(rows, columns=["method", "patient", "metric", "value"])


def the_row(table):
    """The only row of a table."""
    assert len(table) == 1
    return table.iloc[0]


def test_the_interval_is_that_of_a_literal_bootstrap():
    values, rng = np.random.default_rng(1).exponential(size=9), np.random.default_rng(5)
    means = sorted(
        float(np.mean([values[k] for k in draw])) for draw in rng.integers(9, size=(400, 9))
    )
    summaries = ev.summarise(made_up(values), seed=5, resamples=400)
    assert list(summaries.columns) == ["method", "metric", "mean", "low", "high", "n"]
    row = the_row(summaries)
    assert (row["method"], row["metric"], row["n"]) == ("one", "MAE HU", 9)
    # the 10th and the 390th of 400
    expected = (np.mean(values), means[9], means[389])
    assert (row["mean"], row["low"], row["high"]) == pytest.approx(expected, rel=1e-12)


def test_the_interval_agrees_with_scipys():
    values = np.random.default_rng(2).normal(100, 10, 30)
    row = the_row(ev.summarise(made_up(values), seed=0, resamples=20000))
    scipys = stats.bootstrap(
        (values,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    # two sets of 20,000 random draws
    assert (row.low, row.high) == pytest.approx(scipys, abs=0.02 * (row.high - row.low))


@pytest.mark.parametrize(("patients", "expected"), [(10, 0.90), (40, 0.94)])
def test_the_interval_covers_the_true_mean_about_as_often_as_it_says(patients, expected):
    rng, covered = np.random.default_rng(0), 0
    for seed in range(500):
        scores = made_up(rng.normal(7, 2, patients))
        row = the_row(ev.summarise(scores, seed=seed, resamples=400))
        covered += row.low <= 7 <= row.high
    # three standard errors of a share near 0.9 of 500
    assert covered / 500 == pytest.approx(expected, abs=0.04)


def test_patients_are_resampled_alike_for_every_method():
    values = np.random.default_rng(3).normal(size=12)
    scores = pd.concat([made_up(values), made_up(values + 5, "other")])
    one, other = ev.summarise(scores, seed=0).itertuples(index=False)
    assert (other.low - 5, other.high - 5) == pytest.approx((one.low, one.high), rel=1e-9)

    again, another_seed = (the_row(ev.summarise(made_up(values), seed=seed)) for seed in (0, 1))
    assert tuple(again) == tuple(one) != tuple(another_seed)


def test_undefined_patients_are_left_out_and_counted():
    some, one = made_up([1, np.nan, 3, 5]), made_up([np.nan, 2, np.nan, np.nan], "two")
    rows = ev.summarise(pd.concat([some, one, made_up([np.nan] * 4, "three")]), seed=0)
    assert list(rows["method"]) == ["one", "two", "three"] and list(rows["n"]) == [3, 1, 0]
    np.testing.assert_array_equal(rows["mean"], [3, 2, np.nan])
    assert 1 <= rows["low"][0] < rows["high"][0] <= 5
    assert rows.loc[1:, ["low", "high"]].isna().all(axis=None)


def test_infinite_scores_stay_infinite():
    row = the_row(ev.summarise(made_up([np.inf, np.inf, np.inf]), seed=0))
    assert list(row[["mean", "low", "high"]]) == [np.inf, np.inf, np.inf]


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
    rows = [made_up(v, method) for method, v in values.items()]
    rows.append(made_up(reference, "reference")[::-1])
    # patients are matched by name, not place
    compared = ev.compare_methods(pd.concat(rows)[::-1], "MAE HU", "reference")[::-1]
    assert list(compared.columns) == ["method", "difference", "p", "p_holm", "n"]
    assert list(compared["method"]) == list(shifts)
    for row in compared.itertuples():
        assert row.difference == pytest.approx(np.mean(values[row.method] - reference), rel=1e-12)
        assert (
            row.p == pytest.approx(signed_rank_p(values[row.method] - reference), rel=1e-12)
            and row.n == 8
        )
    assert list(compared["p_holm"]) == pytest.approx(holm_by_loop(list(compared["p"])), rel=1e-12)


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
    assert compared_with_one(one, two) == ["two", 0.0, 1.0, 1.0, 2]
    # above 50, SciPy's p would be NaN
    alike = compared_with_one(made_up(range(60)), made_up(range(60), "two"))
    assert alike == ["two", 0.0, 1.0, 1.0, 60]
    _, difference, _, _, n = compared_with_one(made_up([1, 2, 3]), made_up([np.inf] * 3, "two"))
    assert difference == np.inf and n == 3
    assert ev.compare_methods(one, "MAE HU", "one").empty


def compared_with_one(one, two):
    """The only row of the comparison, as a list."""
    return list(the_row(ev.compare_methods(pd.concat([one, two]), "MAE HU", "one")))


def test_split_by_patient_keeps_every_patient_on_one_side():
    patients = [f"p{i % 7}" for i in range(40)]
    train, test = ev.split_by_patient(patients, 0.3, seed=0)
    assert sorted(train + test) == list(range(40))
    sides = {patients[i] for i in train}, {patients[i] for i in test}
    assert not sides[0] & sides[1] and len(sides[1]) == 2  # 0.3 of 7
    assert ev.split_by_patient(patients, 0.3, seed=0) == (train, test)
    others = [ev.split_by_patient(patients, 0.3, seed=seed) for seed in range(1, 5)]
    assert any(other != (train, test) for other in others)
    assert [len(side) for side in ev.split_by_patient(["a", "b"], 0.01, seed=0)] == [1, 1]
    with pytest.raises(ValueError):
        ev.split_by_patient(["a", "a"], 0.5, seed=0)

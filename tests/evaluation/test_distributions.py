"""KID against literal sums over pairs, FID against SciPy's matrix root, and what both promise."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from ctmri_utils.evaluation.distributions import fid, kid


def features(n, d=16, shift=0.0, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


def kid_by_loops(a, b):
    """The unbiased estimate with one kernel value per pair of different images."""

    def mean_kernel(x, y, same):
        values = [
            (np.dot(u, v) / len(u) + 1) ** 3
            for i, u in enumerate(x)
            for j, v in enumerate(y)
            if not (same and i == j)
        ]
        return sum(values) / len(values)

    return mean_kernel(a, a, True) + mean_kernel(b, b, True) - 2 * mean_kernel(a, b, False)


def test_kid_agrees_with_sums_over_pairs():
    a, b = features(12, seed=1), features(17, seed=2, shift=0.4)
    assert kid(a, b, seed=0).value == pytest.approx(kid_by_loops(a, b), rel=1e-9)


def test_the_interval_agrees_with_a_literal_bootstrap():
    a, b = features(10, d=3, seed=1), features(11, d=3, seed=2, shift=0.5)
    rng = np.random.default_rng(7)
    drawn_a, drawn_b = (rng.multinomial(n, np.full(n, 1 / n), size=40) for n in (10, 11))
    estimates = []
    for rows, columns in zip(drawn_a, drawn_b, strict=True):
        i, j = np.repeat(np.arange(10), rows), np.repeat(np.arange(11), columns)
        aa, bb, ab = ((x @ y.T / 3 + 1) ** 3 for x, y in ((a[i], a[i]), (b[j], b[j]), (a[i], b[j])))
        estimates.append(aa[i[:, None] != i].mean() + bb[j[:, None] != j].mean() - 2 * ab.mean())
    assert kid(a, b, seed=7, resamples=40)[1:] == pytest.approx(
        np.percentile(estimates, [2.5, 97.5]), rel=1e-9
    )


def test_kid_of_two_halves_of_one_distribution_is_zero_within_its_interval():
    inside = 0
    for seed in range(20):
        value, low, high = kid(
            features(60, seed=2 * seed), features(60, seed=2 * seed + 1), seed=seed, resamples=300
        )
        assert low < value < high
        inside += low <= 0 <= high
    # 95 % of 20 is 19; the 20 seeds are fixed
    assert inside >= 18


def test_kid_is_unbiased_and_fid_is_not():
    halves = [(features(20, seed=2 * s), features(20, seed=2 * s + 1)) for s in range(100)]
    values = np.array([kid(a, b, seed=0, resamples=40).value for a, b in halves])
    assert abs(values.mean()) < 3 * values.std() / 10  # three standard errors of 100 values
    assert min(fid(a, b) for a, b in halves[:20]) > 5


def test_kid_separates_shifted_distributions():
    near, far = (
        kid(features(100, seed=1), features(100, seed=2, shift=shift), seed=0)
        for shift in (0.5, 1.0)
    )
    assert 0 < near.low < near.value < near.high < far.value


def test_the_interval_shrinks_with_more_images():
    widths = [
        np.diff(kid(features(n, seed=1), features(n, seed=2), seed=0)[1:])[0]
        for n in (25, 100, 400)
    ]
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_distances_repeat_with_a_seed_and_are_symmetric():
    a, b = features(30, seed=1), features(30, seed=2)
    assert kid(a, b, seed=3) == kid(a, b, seed=3)
    assert kid(a, b, seed=3)[1:] != kid(a, b, seed=4)[1:]
    assert kid(b, a, seed=3).value == pytest.approx(kid(a, b, seed=3).value, rel=1e-9)
    assert fid(b, a) == pytest.approx(fid(a, b), rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(200, 90), (30, 200)])
def test_fid_agrees_with_scipys_matrix_root(n, m):
    a, b = features(n, d=12, seed=1) * np.linspace(0.5, 2, 12), features(m, d=12, seed=2, shift=0.3)
    root = sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(
        np.cov(a.T) + np.cov(b.T) - 2 * root
    )
    assert fid(a, b) == pytest.approx(expected, rel=1e-8)


def test_fid_is_zero_for_the_same_set_and_the_squared_shift_for_a_copy():
    # fewer images than features, and more
    few, many = features(10, d=64), features(300, d=64)
    for a in (few, many):
        assert fid(a, a) == pytest.approx(0, abs=1e-9)
        assert fid(a + 0.5, a) == pytest.approx(64 * 0.25, rel=1e-9)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (features(9), features(50)),
        (features(50), features(9)),
        (features(20, d=8), features(20, d=9)),
        (features(20)[0], features(20)),
        (np.full((20, 3), np.nan), features(20, d=3)),
    ],
    ids=["few", "few others", "other length", "one vector", "NaN"],
)
def test_kid_refuses_bad_features(a, b):
    with pytest.raises(ValueError):
        kid(a, b, seed=0)


@pytest.mark.parametrize("resamples", [-1, 0, 39])
def test_an_interval_of_next_to_no_resamples_is_refused(resamples):
    with pytest.raises(ValueError):
        kid(features(20), features(20), seed=0, resamples=resamples)


def test_fid_refuses_a_single_image():
    with pytest.raises(ValueError):
        fid(features(1), features(5))

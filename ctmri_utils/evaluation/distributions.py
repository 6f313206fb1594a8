"""Distances between two unpaired sets of images, computed on feature arrays (N, d).

KID with its interval, and FID.

A number is meaningless without the name of the feature extractor next to it. Neither distance sees
whether a translation belongs to its own patient, and both count images: 300 slices of one person
say something about one person.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .metrics import numbers

# a bootstrap over fewer images has too few different resamples
FEWEST_FOR_KID = 10
# one of them then lies in each 2.5 % tail
FEWEST_RESAMPLES = 40


class Interval(NamedTuple):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


def kid(features_a, features_b, seed: int, resamples: int = 1000) -> Interval:
    """Kernel Inception Distance: the unbiased squared MMD with the kernel (x·y / d + 1)³.

    About 0, also below, for equal distributions.

    features_a (N, d), features_b (M, d): one row per image, N and M at least 10. The interval is
    the 95 % percentile bootstrap over images: each resample weights every image by how often it was
    drawn, and still leaves out the pairs of an image with itself, which would bias the estimate
    upward; it is rather too wide when the distributions are equal. Same seed, same interval.
    Source: Binkowski et al. 2018, eq. 4 (they average over subsets instead).
    """
    a, b = checked_features(features_a, features_b, fewest=FEWEST_FOR_KID)
    check_resamples(resamples)
    d = a.shape[1]
    aa, bb, ab = ((x @ y.T / d + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    np.fill_diagonal(aa, 0)
    np.fill_diagonal(bb, 0)

    rng = np.random.default_rng(seed)
    draws_a, draws_b = (
        rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)
        for n in (len(a), len(b))
    )
    # the first row is the data itself
    weights_a, weights_b = (np.vstack([np.ones(w.shape[1]), w]) for w in (draws_a, draws_b))

    def average(left, kernel, right, pairs):
        return np.einsum("ri,ri->r", left @ kernel, right) / pairs

    distinct_a, distinct_b = (
        w.sum(axis=1) ** 2 - np.square(w).sum(axis=1) for w in (weights_a, weights_b)
    )
    distances = (
        average(weights_a, aa, weights_a, distinct_a)
        + average(weights_b, bb, weights_b, distinct_b)
        - 2 * average(weights_a, ab, weights_b, len(a) * len(b))
    )
    return Interval(
        float(distances[0]), *(float(edge) for edge in np.percentile(distances[1:], [2.5, 97.5]))
    )


def fid(features_a, features_b) -> float:
    """Fréchet Inception Distance, |m_a - m_b|² + tr(S_a + S_b - 2 (S_a S_b)^½), with the mean m and
    the covariance S of each set.

    features_a (N, d), features_b (M, d), N and M at least 2. Far from 0 at small N even for equal
    distributions (64 standard normal features, 50 images in each set: about 42), by an amount that
    depends on the model, so equal N does not mend it: report `kid`. The trace of the root is the
    nuclear norm of one centred set times the other's transpose. Source: Heusel et al. 2017.
    """
    a, b = checked_features(features_a, features_b, fewest=2)
    centred = [(x - x.mean(axis=0)) / np.sqrt(len(x) - 1) for x in (a, b)]
    # covariance = factor' factor
    factors = [np.linalg.qr(x, mode="r") for x in centred]
    overlap = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    shift = a.mean(axis=0) - b.mean(axis=0)
    return float(shift @ shift + sum(np.square(x).sum() for x in centred) - 2 * overlap)


def checked_features(features_a, features_b, fewest: int) -> tuple[np.ndarray, np.ndarray]:
    """Both feature arrays as float64, or a ValueError in one sentence."""
    a, b = (
        numbers(features_a, "first set of features"),
        numbers(features_b, "second set of features"),
    )
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or a.shape[1] == 0:
        raise ValueError(
            f"features {a.shape} and {b.shape} must be (N, d) and (M, d) with the same d: use one "
            "extractor for both sets."
        )
    if min(len(a), len(b)) < fewest:
        raise ValueError(
            f"this distance needs {fewest} images or more in each set, got {len(a)} and {len(b)}: "
            "add images or leave it out."
        )
    return a, b


def check_resamples(resamples: int) -> None:
    """Raise ValueError for a bootstrap too short for a 95 % interval."""
    if resamples < FEWEST_RESAMPLES:
        raise ValueError(
            f"a 95 % bootstrap interval needs {FEWEST_RESAMPLES} resamples or more, got "
            f"{resamples}."
        )

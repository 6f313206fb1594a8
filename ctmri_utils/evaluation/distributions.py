"""Distances between two unpaired sets of images, KID and FID, from feature arrays (N, d).

A number is meaningless without the name of the feature extractor next to it. Neither distance sees
whether a translation belongs to its own patient, and both count images: 300 slices of one person
say something about one person.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .checked_inputs import check_resamples, checked_numbers

__all__ = [
    "Interval",
    "fid",
    "kid",
]

# A bootstrap over fewer images has too few different resamples.
FEWEST_FOR_KID = 10


class Interval(NamedTuple):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


def kid(features_a: ArrayLike, features_b: ArrayLike, seed: int, resamples: int = 1000) -> Interval:
    """Kernel Inception Distance: the unbiased squared MMD with the kernel (x·y / d + 1)³.

    The interval is the 95 % percentile bootstrap over images. Each resample weights every image by
    how often it was drawn, and leaves out the pairs of an image with itself, which would bias the
    estimate upward. The interval is rather too wide when the distributions are equal.

    Args:
        features_a: (N, d), one row per image, N at least 10.
        features_b: (M, d), M at least 10.
        seed: of the bootstrap. The same seed gives the same interval.
        resamples: at least 40.

    Returns:
        The distance with its interval. It is about 0, also below, for equal distributions.

    Raises:
        ValueError: too few images or resamples, or features that differ in length.

    Source: Binkowski et al. 2018, eq. 4 (they average over subsets instead).
    """
    a, b = checked_features(features_a, features_b, fewest=FEWEST_FOR_KID)
    check_resamples(resamples)

    # Similarities within and between the sets, without an image's similarity to itself.
    aa = cubic_kernel(a, a)
    bb = cubic_kernel(b, b)
    ab = cubic_kernel(a, b)
    np.fill_diagonal(aa, 0)
    np.fill_diagonal(bb, 0)

    rng = np.random.default_rng(seed)
    weights_a = bootstrap_weights(rng, len(a), resamples)
    weights_b = bootstrap_weights(rng, len(b), resamples)

    within_a = weighted_sums(weights_a, aa, weights_a) / distinct_pairs(weights_a)
    within_b = weighted_sums(weights_b, bb, weights_b) / distinct_pairs(weights_b)
    between = weighted_sums(weights_a, ab, weights_b) / (len(a) * len(b))
    distances = within_a + within_b - 2 * between

    low, high = np.percentile(distances[1:], [2.5, 97.5])
    return Interval(float(distances[0]), float(low), float(high))


def cubic_kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The similarity of every row of a with every row of b, (N, M)."""
    return (a @ b.T / a.shape[1] + 1) ** 3


def bootstrap_weights(rng: np.random.Generator, images: int, resamples: int) -> np.ndarray:
    """How often each resample drew each image, (1 + resamples, images); row 0 is the data."""
    draws = rng.multinomial(images, np.full(images, 1 / images), size=resamples)
    return np.vstack([np.ones(images), draws.astype(np.float64)])


def weighted_sums(weights_a: np.ndarray, kernel: np.ndarray, weights_b: np.ndarray) -> np.ndarray:
    """The kernel summed over all pairs, once with each row of weights."""
    return np.einsum("ri,ri->r", weights_a @ kernel, weights_b)


def distinct_pairs(weights: np.ndarray) -> np.ndarray:
    """The number of pairs of different images in each resample."""
    return weights.sum(axis=1) ** 2 - np.square(weights).sum(axis=1)


def fid(features_a: ArrayLike, features_b: ArrayLike) -> float:
    """Fréchet Inception Distance, |m_a - m_b|² + tr(S_a + S_b - 2 (S_a S_b)^½).

    m is the mean and S the covariance of a set. The trace of the root is the nuclear norm of one
    centred set times the other's transpose.

    At small N it is far from 0 even for equal distributions (64 standard normal features, 50 images
    in each set: about 42), by an amount that depends on the model, so equal N does not mend it:
    report `kid`.

    Args:
        features_a: (N, d), one row per image, N at least 2.
        features_b: (M, d), M at least 2.

    Returns:
        The distance, >= 0 but for rounding.

    Raises:
        ValueError: too few images, or features that differ in length.

    Source: Heusel et al. 2017.
    """
    a, b = checked_features(features_a, features_b, fewest=2)
    centred_a = (a - a.mean(axis=0)) / np.sqrt(len(a) - 1)
    centred_b = (b - b.mean(axis=0)) / np.sqrt(len(b) - 1)

    # The covariance is factor' factor.
    factor_a = np.linalg.qr(centred_a, mode="r")
    factor_b = np.linalg.qr(centred_b, mode="r")
    overlap = np.linalg.svd(factor_a @ factor_b.T, compute_uv=False).sum()

    shift = a.mean(axis=0) - b.mean(axis=0)
    traces = np.square(centred_a).sum() + np.square(centred_b).sum()
    return float(shift @ shift + traces - 2 * overlap)


def checked_features(
    features_a: ArrayLike, features_b: ArrayLike, fewest: int
) -> tuple[np.ndarray, np.ndarray]:
    """Both feature arrays as float64; ValueError unless they match and hold enough images."""
    a = checked_numbers(features_a, "first set of features")
    b = checked_numbers(features_b, "second set of features")

    are_matrices = a.ndim == 2 and b.ndim == 2
    if not are_matrices or not a.shape[1] == b.shape[1] > 0:
        raise ValueError(
            f"features {a.shape} and {b.shape} must be (N, d) and (M, d) with the same d: use one "
            "extractor for both sets"
        )
    if min(len(a), len(b)) < fewest:
        raise ValueError(
            f"this distance needs at least {fewest} images in each set, got {len(a)} and {len(b)}: "
            "add images or leave it out"
        )
    return a, b

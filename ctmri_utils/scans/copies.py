"""Find near-copies of a slice: a perceptual hash, and its nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.fft import dctn

# The perceptual hash: signs of 16 x 16 cosine coefficients, less the mean, of a 32 x 32 thumbnail.
THUMB = 32
FREQUENCIES = 16

# Hashes of 255 bits that differ in so few are copies or neighbours in one scan. Those of two people
# differ in 26 or more.
COPY_BITS = 12


def perceptual_hash(thumb: np.ndarray) -> np.ndarray:
    """Hash a thumbnail by which low cosine coefficients, without the mean, exceed their median.

    The hash hardly changes when a picture is resized, saved as JPEG, smoothed or made brighter. It
    changes when the head moves or turns.

    Args:
        thumb: (32, 32).

    Returns:
        (255,) bool.

    Source: Zauner 2010, "pHash", here with 16 x 16 coefficients.
    """
    coefficients = dctn(thumb.astype(np.float64), norm="ortho")
    low_frequencies = coefficients[:FREQUENCIES, :FREQUENCIES].ravel()
    without_mean = low_frequencies[1:]
    return without_mean > np.median(without_mean)


def nearest_copies(
    bits: np.ndarray, allowed: Callable[[slice], np.ndarray], block: int = 512
) -> np.ndarray:
    """Find the nearest near-copy of each slice.

    A block of rows at a time, so that 5,000 hashes take a second and memory stays small.

    Args:
        bits: one hash per slice, (N, K) bool.
        allowed: allowed(rows) -> (len(rows), N) bool says which slices may be paired.
        block: rows at a time.

    Returns:
        (N,) int: the index of the allowed slice whose hash is nearest, or -1 if all of them differ
        in more than COPY_BITS bits.
    """
    # The product of two hashes of +-1 is K - 2 x their Hamming distance.
    signs = np.where(bits, 1, -1).astype(np.float32)
    nearest = np.full(len(bits), -1)
    for start in range(0, len(bits), block):
        rows = slice(start, start + block)
        distance = (bits.shape[1] - signs[rows] @ signs.T) / 2
        distance = np.where(allowed(rows), distance, np.inf)

        best = distance.argmin(1)
        best_distance = distance[np.arange(len(best)), best]
        nearest[rows] = np.where(best_distance <= COPY_BITS, best, -1)
    return nearest

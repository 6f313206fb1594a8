"""Lossless packing of a stack's values, which viewer.mjs unpacks."""

from __future__ import annotations

import zlib

import numpy as np

# Neighbours of 16 bits differ by less than 2**0, 2**1, ... or 2**17.
GROUPS = 18


def pack(values: np.ndarray, columns: int) -> bytes:
    """Pack a stack's values into deflated bytes.

    Each value is predicted as in lossless JPEG: the median of left, above and
    left + above - corner. The residual d, modulo 2^16, becomes 2d or -2d - 1, whichever is not
    negative. It joins one of GROUPS groups by how much left, above and corner differ, because
    noise and plain air pack best apart.

    Args:
        values: (K,), int16, row by row.
        columns: how many values make a row.

    Returns:
        Deflated: where each group starts (uint32), all low bytes, all high bytes.

    Source: JPEG-LS, ITU-T T.87.
    """
    # Zeros stand before the first value and above the first row.
    padded = np.concatenate([np.zeros(columns + 1, np.int32), values])
    left = padded[columns:-1]
    above = padded[1:-columns]
    corner = padded[: -columns - 1]

    lowest = np.minimum(left, above)
    highest = np.maximum(left, above)
    predicted = np.clip(left + above - corner, lowest, highest)

    # A residual beyond 16 bits wraps, and wraps back when it is unpacked.
    residual = (values - predicted).astype(np.int16)
    code = ((residual << 1) ^ (residual >> 15)).astype("<u2")

    # The group is the number of bits that the differences of the neighbours need.
    activity = np.abs(left - corner) + np.abs(above - corner)
    group = np.frexp(activity)[1].astype(np.uint8)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(GROUPS)).astype("<u4")

    low_and_high_bytes = code[order].view(np.uint8).reshape(-1, 2).T

    # Noise has no repeated strings worth a search: run-length coding is enough.
    deflate = zlib.compressobj(strategy=zlib.Z_RLE)
    packed = deflate.compress(starts.tobytes() + low_and_high_bytes.tobytes())
    return packed + deflate.flush()

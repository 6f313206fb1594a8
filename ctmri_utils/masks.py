"""Head masks from the image itself: CT by a threshold in HU, MR by Otsu's threshold."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

CT_THRESHOLD_HU = -300

# Otsu's threshold has found a bright spot, not the head, if less than this share of the image lies
# above it, and without the spot this many times as much.
SMALL_SHARE = 0.05
LARGE_RATIO = 5

# Otsu's measure of separation: 0.74 to 0.90 in heads, 0.61 to 0.68 where there is only noise.
LEAST_SEPARATION = 0.69


def ct_head_mask(ct_hu: np.ndarray) -> np.ndarray:
    """Find the head, air cavities included, in every slice of a CT.

    Everything above -300 HU, with small gaps closed and holes filled; the largest part is kept.

    Args:
        ct_hu: (..., H, W) in HU.

    Returns:
        A bool mask of the same shape, empty where a slice has nothing above -300 HU.

    Raises:
        ValueError: the array has fewer than two dimensions.
    """
    ct_hu = np.asarray(ct_hu)
    return slice_by_slice(ct_hu > CT_THRESHOLD_HU)


def mri_head_mask(mri: np.ndarray) -> np.ndarray:
    """Find the head in every slice of an MR image.

    One Otsu threshold for all slices given, then closed and filled, and the largest part kept. The
    bright scalp encloses the dark skull, so filling recovers it. A spot so bright that Otsu's
    threshold parts it from everything else is cut off first.

    Args:
        mri: (..., H, W) in any unit.

    Returns:
        A bool mask of the same shape.

    Raises:
        ValueError: the image is constant, or has fewer than two dimensions.
    """
    mri = np.asarray(mri)
    return slice_by_slice(mri > mri_threshold(mri))


def volume_head_mask(values: np.ndarray, modality: str) -> np.ndarray:
    """Find the head in a volume, as one connected piece.

    As `ct_head_mask` and `mri_head_mask`, but only what hangs together through the slices counts: a
    table beside the head is none, also in slices beyond the head.

    Args:
        values: (Z, H, W), neighbouring slices; HU for CT.
        modality: "ct" or "mri".

    Returns:
        A bool mask of the same shape.

    Raises:
        ValueError: as `mri_head_mask`.
    """
    threshold = CT_THRESHOLD_HU if modality == "ct" else mri_threshold(values)
    foreground = values > threshold
    filled = np.stack([fill_holes(slice_) for slice_ in foreground])

    # A hollow table may be larger than the head, but contains less foreground.
    piece = largest_part(filled, foreground)

    # From the largest slice on, up and down, each slice keeps the part that continues the one
    # before: what touches the head in one slice, such as a headrest, is left out in the others.
    head = np.zeros_like(piece)
    middle = int(np.argmax(piece.sum((1, 2))))
    head[middle] = largest_part(piece[middle], foreground[middle])
    for z in range(middle + 1, len(piece)):
        head[z] = continuing_part(piece[z], head[z - 1] & foreground[z])
    for z in range(middle - 1, -1, -1):
        head[z] = continuing_part(piece[z], head[z + 1] & foreground[z])
    return head


def mri_threshold(mri: np.ndarray) -> float:
    """Otsu's threshold between background and head, after bright spots are cut off.

    Args:
        mri: any shape and unit.

    Raises:
        ValueError: the image is constant.
    """
    if mri.max() == mri.min():
        raise ValueError(
            f"the MR image is constant ({mri.max()}), so it has no head to find: is the slice "
            "blank?"
        )
    threshold = otsu = threshold_otsu(mri)
    share = first_share = np.mean(mri > otsu)

    # Bright spots are cut off one after the other, until the rest is one value or noise only.
    below = mri[mri <= otsu]
    while share < SMALL_SHARE and below.min() < below.max():
        lower = threshold_otsu(below)
        highest = np.percentile(below, 99.5)
        only_noise = separation(np.minimum(below, highest), lower) < LEAST_SEPARATION
        if lower < highest and only_noise:
            break
        threshold, share = lower, np.mean(mri > lower)
        below = below[below <= lower]

    # Otsu's first threshold stands, unless much more of a head has appeared.
    return threshold if share > LARGE_RATIO * first_share else otsu


def separation(values: np.ndarray, threshold: float) -> float:
    """The share of the variance that lies between the two classes, Otsu's measure; 0 to 1."""
    above = values > threshold
    weight = above.mean()
    if weight in (0, 1):
        return 0.0
    distance = values[above].mean() - values[~above].mean()
    return weight * (1 - weight) * distance**2 / values.var()


def slice_by_slice(foreground: np.ndarray) -> np.ndarray:
    """The head in each slice of a mask (..., H, W)."""
    if foreground.ndim < 2:
        raise ValueError(f"a head mask needs slices of shape (..., H, W), got {foreground.shape}")
    slices = foreground.reshape(-1, *foreground.shape[-2:])
    heads = np.stack([largest_part(fill_holes(slice_)) for slice_ in slices])
    return heads.reshape(foreground.shape)


def fill_holes(foreground: np.ndarray) -> np.ndarray:
    """Close one-pixel gaps in a 2-D mask and fill its holes."""
    # Closing would erode a mask that touches the border of the image.
    margin = 2
    padded = np.pad(foreground, margin)
    closed = ndimage.binary_closing(padded, np.ones((3, 3)))[margin:-margin, margin:-margin]

    # Holes are filled before the largest part is chosen: the scalp's ring encloses the whole head.
    return ndimage.binary_fill_holes(closed)


def largest_part(mask: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """The connected part of a mask that is largest, or holds most of a weight; all if it is one."""
    labels, count = ndimage.label(mask)
    if count <= 1:
        return mask
    sizes = ndimage.sum_labels(mask if weight is None else weight, labels, range(1, count + 1))
    return labels == 1 + np.argmax(sizes)


def continuing_part(mask: np.ndarray, neighbour: np.ndarray) -> np.ndarray:
    """The connected part of a mask that shares most with another mask; nothing if none does."""
    labels, count = ndimage.label(mask)
    shared = np.bincount(labels[neighbour], minlength=count + 1)
    shared[0] = 0
    best = np.argmax(shared)
    return labels == best if shared[best] else np.zeros_like(mask)

"""Head masks from the image itself: CT by a threshold in HU, MR by Otsu's threshold."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

CT_THRESHOLD_HU = -300


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
    return _slice_by_slice(ct_hu, ct_hu > CT_THRESHOLD_HU)


def mri_head_mask(mri: np.ndarray) -> np.ndarray:
    """Find the head in every slice of an MR image.

    One Otsu threshold for all slices given, then closed and filled, and the largest part kept. The
    bright scalp encloses the dark skull, so filling recovers it.

    Args:
        mri: (..., H, W) in any unit.

    Returns:
        A bool mask of the same shape.

    Raises:
        ValueError: the image is constant, or has fewer than two dimensions.
    """
    mri = np.asarray(mri)
    if mri.max() == mri.min():
        raise ValueError(
            f"the MR image is constant ({mri.max()}), so it has no head to find: is the slice "
            "blank?"
        )
    return _slice_by_slice(mri, mri > threshold_otsu(mri))


def _slice_by_slice(image: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    if image.ndim < 2:
        raise ValueError(f"a head mask needs slices of shape (..., H, W), got {image.shape}")
    slices = foreground.reshape(-1, *image.shape[-2:])
    return np.stack([_largest_filled(slice_) for slice_ in slices]).reshape(image.shape)


def _largest_filled(foreground: np.ndarray) -> np.ndarray:
    """Close one-pixel gaps in a 2-D mask, fill its holes and keep the largest connected part."""
    # Without a margin, closing would erode the mask at the image border.
    margin = 2
    padded = np.pad(foreground, margin)
    closed = ndimage.binary_closing(padded, np.ones((3, 3)))[margin:-margin, margin:-margin]

    # Fill before choosing the largest part: the scalp's ring encloses the whole head.
    filled = ndimage.binary_fill_holes(closed)

    labels, count = ndimage.label(filled)
    if count == 0:
        return filled
    sizes = ndimage.sum_labels(filled, labels, range(1, count + 1))
    return labels == 1 + np.argmax(sizes)

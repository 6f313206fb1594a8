"""Where the head is, found in the image itself: CT by a threshold in HU, MR by Otsu's."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu


def _largest_filled(foreground: np.ndarray) -> np.ndarray:
    """Bridge one-pixel gaps in one 2-D slice, fill what is enclosed and keep the largest connected
    part.
    """
    # closing would erode at the image border without it
    margin = 2
    closed = ndimage.binary_closing(np.pad(foreground, margin), np.ones((3, 3)))[
        margin:-margin, margin:-margin
    ]
    # before choosing: the scalp's ring encloses the whole head
    filled = ndimage.binary_fill_holes(closed)
    labels, count = ndimage.label(filled)
    return (
        labels == 1 + np.argmax(ndimage.sum_labels(filled, labels, range(1, count + 1)))
        if count
        else filled
    )


def _slice_by_slice(image: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    if image.ndim < 2:
        raise ValueError(f"a head mask needs slices of shape (..., H, W), got {image.shape}")
    flat = foreground.reshape(-1, *image.shape[-2:])
    return np.stack([_largest_filled(slice_) for slice_ in flat]).reshape(image.shape)


def ct_head_mask(ct_hu: np.ndarray) -> np.ndarray:
    """Bool mask of the head, air cavities included, in every slice of a CT in HU, shape (..., H,
    W).

    Everything above -300 HU, closed, filled, largest part. Empty where a slice has nothing above
    -300 HU.
    """
    ct_hu = np.asarray(ct_hu)
    return _slice_by_slice(ct_hu, ct_hu > -300)


def mri_head_mask(mri: np.ndarray) -> np.ndarray:
    """Bool mask of the head in every slice of an MR image in any unit, shape (..., H, W).

    One Otsu threshold for all slices given, then closed, filled, largest part: the bright scalp
    encloses the dark skull. Raises ValueError if the image is constant.
    """
    mri = np.asarray(mri)
    if mri.max() == mri.min():
        raise ValueError(
            f"the MR image is constant ({mri.max()}), so it has no head to find: is the slice "
            "blank?"
        )
    return _slice_by_slice(mri, mri > threshold_otsu(mri))

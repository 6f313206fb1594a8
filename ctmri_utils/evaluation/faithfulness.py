"""Measures of what MAE and SSIM miss: drift, hidden information, checkerboards and flicker.

`lesions` holds the measures of lost and invented lesions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import ndimage
from skimage.registration import phase_cross_correlation
from torch import Tensor

from .checked_inputs import (
    check_one_slice,
    checked_hu_pair,
    checked_image,
    checked_mask,
    checked_numbers,
    checked_pair,
)
from .metrics import dice

__all__ = [
    "bias_correlation",
    "checkerboard_db",
    "cycle_error",
    "honesty_ratio",
    "mask_dice",
    "noise_sensitivity",
    "return_error",
    "shift_px",
    "slice_jitter",
]

# Beyond this an image is in other units, not merely overshooting.
MOST_NETWORK_VALUE = 1.5
FIELD_BLUR_PX = 3


def shift_px(pred_hu: ArrayLike, true_hu: ArrayLike) -> np.ndarray:
    """How far the prediction lies below and to the right of the true CT, by phase correlation.

    Args:
        pred_hu: one predicted slice (H, W) in HU. Whole images are compared, so there is no mask.
        true_hu: the true slice, same shape.

    Returns:
        (rows, columns) in pixels, to a tenth of a pixel.

    Raises:
        ValueError: an image is constant, or not one slice.

    Source: Guizar-Sicairos et al. 2008 (scikit-image).
    """
    pred_hu, true_hu, _ = checked_hu_pair(pred_hu, true_hu, np.ones(np.shape(true_hu)))
    check_one_slice(true_hu)
    if np.ptp(pred_hu) == 0 or np.ptp(true_hu) == 0:
        raise ValueError(
            "a constant image has no position: phase correlation needs structure in both"
        )
    return -phase_cross_correlation(true_hu, pred_hu, upsample_factor=10)[0]


def mask_dice(mask_a: ArrayLike, mask_b: ArrayLike) -> float:
    """Dice overlap of two masks, such as the head in the input MR and in the fake CT.

    Args:
        mask_a: any shape, > 0 counts.
        mask_b: same shape.

    Returns:
        The overlap, 0 to 1.

    Raises:
        ValueError: both are empty, or the shapes differ.
    """
    mask_a = checked_mask(mask_a)
    mask_b = checked_mask(mask_b)
    if mask_a.shape != mask_b.shape or not (mask_a.any() or mask_b.any()):
        raise ValueError(
            "two masks of one shape are needed, at least one of them not empty, got "
            f"{mask_a.shape} and {mask_b.shape}"
        )
    return dice(mask_a, mask_b)


@torch.no_grad()
def return_error(
    back: Callable[[Tensor], Tensor], other: Tensor, image: Tensor, mask: Tensor
) -> float:
    """Mean |back(other) - image| over the mask: how well a generator returns the image.

    Args:
        back: the generator from the other modality to the image's.
        other: the other modality, (N, 1, H, W) in [-1, 1], true or translated.
        image: same shape and range.
        mask: (N, 1, H, W), > 0 counts.

    Returns:
        An error >= 0 in network units.

    Raises:
        ValueError: the shapes differ, the mask is empty, the images are not in [-1, 1], or `back`
            returns something that is not finite.
    """
    check_network_images("other", other)
    check_network_images("image", image)
    if isinstance(mask, Tensor):
        mask = mask.cpu()
    inside = torch.as_tensor(checked_mask(mask), device=image.device)
    if not image.shape == other.shape == inside.shape or not inside.any():
        raise ValueError(
            f"other {tuple(other.shape)}, image {tuple(image.shape)} and a mask "
            f"{tuple(inside.shape)} that is not empty must share one shape"
        )

    returned = back(other)
    if returned.shape != image.shape or not torch.isfinite(returned).all():
        raise ValueError(
            f"back returned {tuple(returned.shape)} for {tuple(image.shape)}, or values that are "
            "not finite: check the generator"
        )
    return float((returned - image)[inside].abs().double().mean())


def check_network_images(name: str, images: Tensor) -> None:
    """Raise ValueError unless the images are what a generator takes."""
    is_batch = isinstance(images, Tensor) and images.ndim == 4 and images.numel() > 0
    if not is_batch or not images.abs().max() <= MOST_NETWORK_VALUE:
        raise ValueError(
            f"{name} must be a tensor of finite images (N, 1, H, W) in [-1, 1], got "
            f"{type(images).__name__} {tuple(np.shape(images))}: use to_network"
        )


@torch.no_grad()
def cycle_error(
    translate: Callable[[Tensor], Tensor],
    back: Callable[[Tensor], Tensor],
    image: Tensor,
    mask: Tensor,
) -> float:
    """Mean |back(translate(image)) - image| over the mask.

    It needs no pairs, and does not prove that the translation is right.

    Args:
        translate: the generator from the image's modality to the other.
        back: the generator back.
        image: (N, 1, H, W) in [-1, 1].
        mask: (N, 1, H, W), > 0 counts.

    Returns:
        An error >= 0 in network units.

    Source: Zhu et al. 2017, eq. 2.
    """
    check_network_images("image", image)
    return return_error(back, translate(image), image, mask)


def honesty_ratio(
    translate: Callable[[Tensor], Tensor],
    back: Callable[[Tensor], Tensor],
    image: Tensor,
    true_other: Tensor,
    mask: Tensor,
) -> float:
    """Cycle error over the error from the true image of the other modality.

    That is |back(translate(image)) - image| / |back(true_other) - image|. A generator that returns
    the image better from the translation than from the truth reads something in it that anatomy
    does not explain.

    Args:
        translate: the generator from the image's modality to the other.
        back: the generator back.
        image: (N, 1, H, W) in [-1, 1].
        true_other: the other modality, paired with the image, same shape.
        mask: (N, 1, H, W), > 0 counts.

    Returns:
        About 1 if nothing is hidden, well below 1 if the translation carries hidden data.

    Raises:
        ValueError: `back` is perfect on the truth.

    Source: after Bashkirova et al. 2019.
    """
    from_truth = return_error(back, true_other, image, mask)
    if from_truth == 0:
        raise ValueError(
            "the way back from the true image is exact, so the honesty ratio is undefined: are "
            "image and true_other the same tensor?"
        )
    return cycle_error(translate, back, image, mask) / from_truth


def noise_sensitivity(
    back: Callable[[Tensor], Tensor],
    other: Tensor,
    image: Tensor,
    mask: Tensor,
    sigmas: Sequence[float] = (0, 0.01, 0.02, 0.05, 0.1),
    seed: int = 0,
) -> tuple[float, ...]:
    """`return_error` after noise is added to the other modality.

    Compare the curve of a translation with that of the true image: a steep one betrays hidden high
    frequencies.

    Args:
        back: the generator from the other modality to the image's.
        other: the other modality, (N, 1, H, W) in [-1, 1], true or translated.
        image: same shape and range.
        mask: (N, 1, H, W), > 0 counts.
        sigmas: standard deviations of the noise in network units. There is one noise pattern,
            drawn on the CPU and scaled.
        seed: of the noise.

    Returns:
        One error for each sigma.

    Source: after Chu et al. 2017 (arXiv 1712.02950) and Bashkirova et al. 2019.
    """
    check_network_images("other", other)
    noise = torch.randn(other.shape, generator=torch.Generator().manual_seed(seed)).to(other)

    errors = []
    for sigma in sigmas:
        noisy = (other + sigma * noise).clamp(-MOST_NETWORK_VALUE, MOST_NETWORK_VALUE)
        errors.append(return_error(back, noisy, image, mask))
    return tuple(errors)


def bias_correlation(
    mri: ArrayLike, mri_clean: ArrayLike, bias_field: ArrayLike, brain: ArrayLike
) -> float:
    """How well an MR image shows the receive field of another scan of this head.

    It is the correlation of log(mri / mri_clean) with log(bias_field). The ratio is smoothed over 3
    pixels, since a receive field is smooth. CT knows nothing of it: an MR that came back from a CT
    translation and still correlates proves that the translation carried it.

    Args:
        mri: one slice (H, W) in any positive unit.
        mri_clean: the slice without noise and without a field.
        bias_field: the true field, same shape.
        brain: mask of the same shape, > 0 counts.

    Returns:
        The correlation, -1 to 1.

    Raises:
        ValueError: a field is constant.

    Source: after Chu et al. 2017 (arXiv 1712.02950).
    """
    mri, brain = checked_image(mri, brain)
    mri_clean, _ = checked_image(mri_clean, brain)
    bias_field, _ = checked_image(bias_field, brain)
    check_one_slice(brain)

    # A generator may paint 0, or below.
    floor = 0.01 * np.median(mri_clean[brain])
    log_ratio = np.log(np.maximum(mri, floor) / np.maximum(mri_clean, floor))
    log_ratio = np.where(brain, log_ratio, 0)

    # What lies outside the brain must not bleed into the smoothed ratio.
    weight = ndimage.gaussian_filter(brain.astype(float), FIELD_BLUR_PX)
    shown_log = ndimage.gaussian_filter(log_ratio, FIELD_BLUR_PX)[brain] / weight[brain]

    true_log = np.log(bias_field[brain])
    if np.ptp(true_log) == 0 or np.ptp(shown_log) == 0:
        raise ValueError(
            "a constant field correlates with nothing: use slices with a receive field"
        )
    return float(np.corrcoef(shown_log, true_log)[0, 1])


def checkerboard_db(images: ArrayLike) -> float:
    """Share of an image's energy that has a period of 2 or 4 pixels along rows or columns, in dB.

    These are the lines that two stride-2 upsamplings leave. Compare with real images of the same
    size and zoom. The energy leaves out the mean's, and the shares are averaged over images before
    the logarithm.

    Args:
        images: (..., H, W), at least one, both multiples of 4, none constant.

    Returns:
        A level below 0 dB, -inf if all shares are 0.

    Raises:
        ValueError: the size is another, or an image is constant.

    Source: Odena et al. 2016.
    """
    images = checked_numbers(images, "stack of images")
    if images.ndim < 2 or images.shape[-1] % 4 or images.shape[-2] % 4 or images.size == 0:
        raise ValueError(
            "checkerboard energy needs images (..., H, W), at least one, with H and W multiples of "
            f"4, got {images.shape}: crop them"
        )
    if not (np.ptp(images, axis=(-2, -1)) > 0).all():
        raise ValueError("a constant image has no spectrum to compare with: leave it out")

    varying = images - images.mean(axis=(-2, -1), keepdims=True)
    energy = np.square(np.abs(np.fft.fft2(varying)))

    rows = has_short_period(images.shape[-2])
    columns = has_short_period(images.shape[-1])
    share = energy[..., rows[:, None] | columns].sum(axis=-1) / energy.sum(axis=(-2, -1))
    if not share.any():
        return float("-inf")
    return float(10 * np.log10(share.mean()))


def has_short_period(length: int) -> np.ndarray:
    """Which frequencies of an axis have a period of 2 or 4 pixels, (length,)."""
    return np.isin(np.abs(np.fft.fftfreq(length)), (0.25, 0.5))


def slice_jitter(pred: ArrayLike, true: ArrayLike, mask: ArrayLike) -> float:
    """Mean change from slice to slice over that of the truth.

    Args:
        pred: predicted volume (Z, H, W) of one patient, Z at least 2.
        true: true volume, same shape.
        mask: same shape. Only voxels whose neighbour along z is also in the mask count.

    Returns:
        1 for a volume as smooth as the patient, above 1 for one that flickers.

    Raises:
        ValueError: no two neighbours are in the mask, or the truth does not change.
    """
    pred, true, mask = checked_pair(pred, true, mask)
    neighbours = mask[1:] & mask[:-1]
    if mask.ndim != 3 or not neighbours.any():
        raise ValueError(
            "jitter compares neighbouring slices: pass a volume (Z, H, W) whose mask spans two of "
            f"them, got {mask.shape}"
        )

    pred_change = np.abs(np.diff(pred, axis=0))[neighbours].mean()
    true_change = np.abs(np.diff(true, axis=0))[neighbours].mean()
    if true_change == 0:
        raise ValueError(
            "the true volume does not change from slice to slice, so jitter is undefined: are its "
            "slices copies?"
        )
    return float(pred_change / true_change)

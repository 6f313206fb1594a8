"""What MAE and SSIM do not see.

Lost lesions, drifting anatomy, information hidden in a translation, checkerboards, flicker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from skimage.registration import phase_cross_correlation
from torch import Tensor

from .metrics import checked_image, checked_mask, checked_pair, dice, numbers, one_slice

# the fixed detector: fresh blood is 60 to 90 HU, grey matter below 45
LESION_ABOVE_HU = 55.0
LESION_BLUR_PX = 0.7
LESION_SMALLEST_PX = 6
# below it a recovery divides by noise
LEAST_CONTRAST_HU = 1.0
# beyond it an image is in other units, not merely overshooting
MOST_NETWORK_VALUE = 1.5
FIELD_BLUR_PX = 3
# keeps the blurred edge of the skull out of the brain
BRAIN_EROSION_PX = 3


class Rates(NamedTuple):
    """Share of the patients with a lesion that are called (tpr), and of those without (fpr)."""

    tpr: float
    fpr: float


def lesion_contrast_hu(ct_hu, lesion, reference) -> float:
    """Median HU of the lesion minus median HU of the reference tissue, usually white matter.

    Masks of the image's shape.
    """
    ct_hu, lesion = checked_image(ct_hu, lesion)
    _, reference = checked_image(ct_hu, reference)
    return float(np.median(ct_hu[lesion]) - np.median(ct_hu[reference]))


def lesion_contrast_recovery(pred_hu, true_hu, lesion, white_matter) -> float:
    """Contrast of the lesion to white matter in the prediction over that in the true CT.

    1 = kept, 0 = erased, < 0 = inverted.

    Raises ValueError if the true contrast is below 1 HU. Source: after Cohen et al. 2018 (arXiv
    1805.08841).
    """
    true_contrast = lesion_contrast_hu(true_hu, lesion, white_matter)
    if abs(true_contrast) < LEAST_CONTRAST_HU:
        raise ValueError(
            f"the lesion's contrast to white matter in the true CT is {true_contrast:.2g} HU, so "
            "there is none to recover: leave this patient out."
        )
    return lesion_contrast_hu(pred_hu, lesion, white_matter) / true_contrast


def detects_lesion(ct_hu, brain) -> bool:
    """Whether a fixed detector calls a bleed.

    6 connected pixels above 55 HU, after a blur of 0.7 pixels, 3 pixels inside the brain.

    ct_hu, brain: one slice (H, W), brain is everything within the skull. Sizes are in pixels of
    about 3.4 mm (a phantom at 64 x 64). Raises ValueError if nothing of the brain lies so far
    inside, since "no bleed" would then be no finding.
    """
    ct_hu, brain = checked_image(ct_hu, brain)
    one_slice(brain)
    inside = ndimage.binary_erosion(brain, iterations=BRAIN_EROSION_PX)
    if inside.sum() < LESION_SMALLEST_PX:
        raise ValueError(
            f"of the brain's {int(brain.sum())} pixels {int(inside.sum())} lie {BRAIN_EROSION_PX} "
            f"from its edge, too few for a bleed of {LESION_SMALLEST_PX}: leave this slice out."
        )
    bright = (ndimage.gaussian_filter(ct_hu, LESION_BLUR_PX) > LESION_ABOVE_HU) & inside
    blobs, count = ndimage.label(bright, np.ones((3, 3)))
    return bool(count) and int(np.bincount(blobs.ravel())[1:].max()) >= LESION_SMALLEST_PX


def detection_rates(called: Sequence[bool], present: Sequence[bool]) -> Rates:
    """True and false positive rate of a detector.

    Called[i] of `detects_lesion`, present[i] the truth, one entry per patient.
    """
    called, present = numbers(called, "list of calls") > 0, numbers(present, "list of lesions") > 0
    if called.shape != present.shape or present.all() or not present.any():
        raise ValueError(
            "detection rates need patients with and without a lesion and one call for each, got "
            f"{called.size} calls and {int(present.sum())} lesions in {present.size} patients."
        )
    return Rates(float(called[present].mean()), float(called[~present].mean()))


def shift_px(pred_hu, true_hu) -> np.ndarray:
    """How far the prediction lies below and to the right of the true CT, (rows, columns) in pixels,
    to a tenth of a pixel.

    One slice (H, W) each. Phase correlation of the whole images, so no mask. Source:
    Guizar-Sicairos et al. 2008 (scikit-image).
    """
    pred_hu, true_hu, _ = checked_pair(pred_hu, true_hu, np.ones(np.shape(true_hu)))
    one_slice(true_hu)
    if np.ptp(pred_hu) == 0 or np.ptp(true_hu) == 0:
        raise ValueError(
            "a constant image has no position: phase correlation needs structure in both."
        )
    return -phase_cross_correlation(true_hu, pred_hu, upsample_factor=10)[0]


def mask_dice(one, other) -> float:
    """Dice overlap of two masks, 0 to 1, e.g. the head in the input MR and in the fake CT.

    Raises ValueError if both are empty.
    """
    one, other = checked_mask(one), checked_mask(other)
    if one.shape != other.shape or not (one.any() or other.any()):
        raise ValueError(
            f"two masks of one shape are needed, at least one of them not empty, got {one.shape} "
            f"and {other.shape}."
        )
    return dice(one, other)


@torch.no_grad()
def return_error(F: Callable[[Tensor], Tensor], b: Tensor, a: Tensor, mask: Tensor) -> float:
    """Mean |F(b) - a| over the mask: how well F finds a again from b.

    All (N, 1, H, W), images in [-1, 1], mask > 0 counts.
    """
    check_network("b", b)
    check_network("a", a)
    inside = torch.as_tensor(
        checked_mask(mask.cpu() if isinstance(mask, Tensor) else mask), device=a.device
    )
    if not a.shape == b.shape == inside.shape or not inside.any():
        raise ValueError(
            f"b {tuple(b.shape)}, a {tuple(a.shape)} and a mask {tuple(inside.shape)} that is not "
            "empty must share one shape."
        )
    back = F(b)
    if back.shape != a.shape or not torch.isfinite(back).all():
        raise ValueError(
            f"F returned {tuple(back.shape)} for {tuple(a.shape)}, or values that are not finite: "
            "check the generator."
        )
    return float((back - a)[inside].abs().double().mean())


def check_network(name: str, images: Tensor) -> None:
    """Raise ValueError unless the images are what a generator takes."""
    if (
        not isinstance(images, Tensor)
        or images.ndim != 4
        or images.numel() == 0
        or not images.abs().max() <= MOST_NETWORK_VALUE
    ):
        raise ValueError(
            f"{name} must be a tensor of finite images (N, 1, H, W) in [-1, 1], got "
            f"{type(images).__name__} {tuple(np.shape(images))}: use to_network."
        )


@torch.no_grad()
def cycle_error(
    G: Callable[[Tensor], Tensor], F: Callable[[Tensor], Tensor], a: Tensor, mask: Tensor
) -> float:
    """Mean |F(G(a)) - a| over the mask, in network units.

    Needs no pairs, and does not prove that G(a) is right. Zhu et al. 2017, eq. 2.
    """
    check_network("a", a)
    return return_error(F, G(a), a, mask)


def honesty_ratio(
    G: Callable[[Tensor], Tensor],
    F: Callable[[Tensor], Tensor],
    a: Tensor,
    b_true: Tensor,
    mask: Tensor,
) -> float:
    """Cycle error over the error from the true other image, |F(G(a)) - a| / |F(b_true) - a|.

    1 = honest, well below 1 = hidden data.

    An F that returns a better from the translation than from the truth reads something in it that
    anatomy does not explain. b_true is paired with a. Raises ValueError if F is perfect on the
    truth. Source: after Bashkirova et al. 2019.
    """
    from_truth = return_error(F, b_true, a, mask)
    if from_truth == 0:
        raise ValueError(
            "F returns a exactly from the true image, so the honesty ratio is undefined: are a and "
            "b_true the same tensor?"
        )
    return cycle_error(G, F, a, mask) / from_truth


def noise_sensitivity(
    F: Callable[[Tensor], Tensor],
    b: Tensor,
    a: Tensor,
    mask: Tensor,
    sigmas: Sequence[float] = (0, 0.01, 0.02, 0.05, 0.1),
    seed: int = 0,
) -> tuple[float, ...]:
    """`return_error` after noise of each standard deviation, in network units, is added to b.

    Steep = hidden high frequencies.

    Compare the curve of b = G(a) with that of the true b. One noise pattern, drawn on the CPU from
    the seed and scaled. Source: after Chu et al. 2017 (arXiv 1712.02950) and Bashkirova et al.
    2019.
    """
    check_network("b", b)
    noise = torch.randn(b.shape, generator=torch.Generator().manual_seed(seed)).to(b)
    return tuple(
        return_error(F, (b + sigma * noise).clamp(-MOST_NETWORK_VALUE, MOST_NETWORK_VALUE), a, mask)
        for sigma in sigmas
    )


def bias_correlation(mri, mri_clean, bias_field, brain) -> float:
    """How well an MR image shows the receive field of another scan of this head.

    Correlation of log(mri / mri_clean) with log(bias_field).

    All one slice (H, W): an MR in any positive unit, the noise-free one without a field, the true
    field, a mask. The ratio is smoothed over 3 pixels, since a receive field is. CT knows nothing
    of it: an MR that came back from a CT translation and still correlates proves that the
    translation carried it. Raises ValueError if a field is constant. Source: after Chu et al. 2017
    (arXiv 1712.02950).
    """
    mri, brain = checked_image(mri, brain, None)
    mri_clean, bias_field = (
        checked_image(image, brain, None)[0] for image in (mri_clean, bias_field)
    )
    one_slice(brain)
    # a generator may paint 0, or below
    floor = 0.01 * np.median(mri_clean[brain])
    ratio = np.where(brain, np.log(np.maximum(mri, floor) / np.maximum(mri_clean, floor)), 0)
    weight = ndimage.gaussian_filter(brain.astype(float), FIELD_BLUR_PX)
    shown = ndimage.gaussian_filter(ratio, FIELD_BLUR_PX)[brain] / weight[brain]
    true = np.log(bias_field[brain])
    if np.ptp(true) == 0 or np.ptp(shown) == 0:
        raise ValueError(
            "a constant field correlates with nothing: use slices with a receive field."
        )
    return float(np.corrcoef(shown, true)[0, 1])


def checkerboard_db(images) -> float:
    """Spectral energy with a period of 2 or 4 pixels along rows or columns, over all energy but the
    mean's, in dB (< 0), averaged.

    images: (..., H, W), at least one, both multiples of 4, not constant. These are the lines that
    two stride-2 upsamplings leave (Odena et al. 2016); compare with real images of the same size
    and zoom. The shares are averaged over images before the logarithm; -inf if all are 0.
    """
    images = numbers(images, "stack of images")
    if images.ndim < 2 or images.shape[-1] % 4 or images.shape[-2] % 4 or images.size == 0:
        raise ValueError(
            "checkerboard energy needs images (..., H, W), at least one, with H and W multiples of "
            f"4, got {images.shape}: crop them."
        )
    varying = images - images.mean(axis=(-2, -1), keepdims=True)
    energy = np.square(np.abs(np.fft.fft2(varying)))
    if not (np.ptp(images, axis=(-2, -1)) > 0).all():
        raise ValueError("a constant image has no spectrum to compare with: leave it out.")
    rows, columns = (
        np.isin(np.abs(np.fft.fftfreq(length)), (0.25, 0.5)) for length in images.shape[-2:]
    )
    share = energy[..., rows[:, None] | columns].sum(axis=-1) / energy.sum(axis=(-2, -1))
    return float(10 * np.log10(share.mean())) if share.any() else float("-inf")


def slice_jitter(pred, true, mask) -> float:
    """Mean change from slice to slice over that of the truth.

    1 = as smooth as the patient, above 1 = flicker.

    pred, true, mask: volumes (Z, H, W) of one patient, Z at least 2; only voxels whose neighbour
    along z is also in the mask count.
    """
    pred, true, mask = checked_pair(pred, true, mask, None)
    if mask.ndim != 3 or not (neighbours := mask[1:] & mask[:-1]).any():
        raise ValueError(
            "jitter compares neighbouring slices: pass a volume (Z, H, W) whose mask spans two of "
            f"them, got {mask.shape}."
        )
    change = [np.abs(np.diff(volume, axis=0))[neighbours].mean() for volume in (pred, true)]
    if change[1] == 0:
        raise ValueError(
            "the true volume does not change from slice to slice, so jitter is undefined: are its "
            "slices copies?"
        )
    return float(change[0] / change[1])

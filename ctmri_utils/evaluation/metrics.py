"""Paired image metrics in physical units.

SynthRAD's MAE, PSNR, SSIM and MS-SSIM, and what they hide, tissue by tissue.

Everywhere: images are anything `np.asarray` takes, one slice (H, W) or one volume (Z, H, W), in HU
for CT and in the units of `value_range` for MR. The mask (same shape, > 0 counts) and the range
have no default, because a default could flatter: air outside the head alone makes an MAE 2.5 times
smaller. All functions return floats unless they say otherwise, and raise ValueError for shapes that
differ, an empty mask, values that are not finite, a range or spacing that is none, and units that
cannot be right.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage, stats
from skimage.metrics import structural_similarity

# PSNR peak 4024 HU
SYNTHRAD2023_RANGE = (-1024.0, 3000.0)
# PSNR peak 4095 HU, the evaluation container since 2025-05-12
SYNTHRAD2025_RANGE = (-1024.0, 3071.0)
AIR_BELOW_HU = -200.0
BONE_ABOVE_HU = 250.0
# pixels; uniform, with the sample covariance
SSIM_WINDOW = 7
# Wang et al. 2003, finest scale first
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# shorter axes are padded: the coarsest scale must hold one window
MS_SSIM_SMALLEST = 97
# of the range: an image mostly further out was scaled otherwise
RANGE_MARGIN = 0.1
# of the range: a truth that varies less was scaled otherwise
RANGE_USED = 0.02
# a median that no head reaches, soft tissue stored with 1024 added does
DENSE_HEAD_HU = 700.0


def mae_hu(pred_hu, true_hu, mask) -> float:
    """Mean absolute error in HU over the mask, without clipping.

    Source: SynthRAD2023 and SynthRAD2025.
    """
    pred_hu, true_hu, mask = checked_pair(pred_hu, true_hu, mask)
    return float(np.abs(pred_hu - true_hu)[mask].mean())


def bias_hu(pred_hu, true_hu, mask) -> float:
    """Mean signed error in HU over the mask: positive when the prediction is too dense."""
    pred_hu, true_hu, mask = checked_pair(pred_hu, true_hu, mask)
    return float((pred_hu - true_hu)[mask].mean())


def psnr_db(pred, true, mask, value_range) -> float:
    """Peak signal-to-noise ratio in dB over the mask.

    10 log10(width² / mean squared error), inf for a perfect prediction.

    value_range: (low, high); both images are clipped to it and its width is the peak, so state it
    next to the number. CT: `SYNTHRAD2023_RANGE` or `SYNTHRAD2025_RANGE`; MR: the range of its
    normalisation. Source: SynthRAD2023 and SynthRAD2025.
    """
    low, high = checked_range(value_range)
    pred, true, mask = checked_pair(pred, true, mask, (low, high))
    squared_error = np.square(pred.clip(low, high) - true.clip(low, high))[mask].mean()
    return (
        float(10 * np.log10((high - low) ** 2 / squared_error)) if squared_error else float("inf")
    )


def ssim(pred, true, mask, value_range) -> float:
    """Structural similarity over the mask, at most 1.

    7 x 7 windows for a slice, 7 x 7 x 7 for a volume.

    Both images are clipped to value_range and set to its low end outside the mask; K1 = 0.01, K2 =
    0.03, sample covariance; the map loses 3 pixels at every border before its mean over the mask.
    Raises ValueError if an axis is shorter than 7. Source: SynthRAD2023 metrics as of 2023-07-14
    (values published before that date ignored the mask).
    """
    pred, true, mask, width = masked_from_zero(pred, true, mask, value_range)
    if min(mask.shape) < SSIM_WINDOW:
        raise ValueError(
            f"SSIM needs {SSIM_WINDOW} pixels along every axis, got {mask.shape}: pass single "
            "slices (H, W) one by one."
        )
    _, similarity = structural_similarity(
        true, pred, win_size=SSIM_WINDOW, data_range=width, full=True
    )
    return mean_inside(similarity, mask)


def ms_ssim(pred, true, mask, value_range) -> float:
    """Multi-scale SSIM over the mask, 0 to 1, as SynthRAD2025 computes it.

    The product over five scales of L^w C^w S^w.

    Luminance counts at every scale (in Wang et al. 2003 only at the coarsest), each term is cut at
    0, short axes are padded to 97 pixels with their edge values, and the halving averages 2 pixels
    per axis with zeros beyond the border: other libraries' MS-SSIM gives other numbers. The
    challenge scores volumes; slices (H, W) get the same formula with 7 x 7 windows. Source:
    SynthRAD2025/evaluation, image_metrics.py.
    """
    pred, true, mask, width = masked_from_zero(pred, true, mask, value_range)
    missing = [max(MS_SSIM_SMALLEST - length, 0) for length in mask.shape]
    margins = [(n // 2, n - n // 2) for n in missing]
    pred, true, mask = (np.pad(array, margins, mode="edge") for array in (pred, true, mask))
    every_second = (slice(None, None, 2),) * mask.ndim

    product = 1.0
    for weight in MS_SSIM_WEIGHTS:
        similarity = ssim_terms(true, pred, width) ** weight
        product *= np.clip(mean_inside(similarity, mask), 0, 1)
        pred, true = (
            ndimage.uniform_filter(image, 2, mode="constant")[every_second]
            for image in (pred, true)
        )
        mask = mask[every_second]
    return float(product)


def ssim_terms(x: np.ndarray, y: np.ndarray, width: float) -> np.ndarray:
    """Luminance x contrast x structure at every pixel, each term cut at 0; same shape as x and y.

    Source: Wang et al. 2003, eq. 1-3.
    """

    def average(image):
        return ndimage.uniform_filter(image, SSIM_WINDOW)

    n = SSIM_WINDOW**x.ndim
    mean_x, mean_y = average(x), average(y)
    var_x, var_y = (
        np.maximum(n / (n - 1) * (average(a * a) - m * m), 0) for a, m in ((x, mean_x), (y, mean_y))
    )
    covariance = n / (n - 1) * (average(x * y) - mean_x * mean_y)
    spread = np.sqrt(var_x * var_y)
    c1, c2 = (0.01 * width) ** 2, (0.03 * width) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    contrast = (2 * spread + c2) / (var_x + var_y + c2)
    structure = (covariance + c2 / 2) / (spread + c2 / 2)
    return luminance.clip(0) * contrast.clip(0) * structure.clip(0)


def tissue_errors_hu(pred_hu, true_hu, mask) -> dict[str, float]:
    """MAE and bias in HU of air (< -200 HU), soft tissue and bone (> 250 HU), classes by the true
    CT, inside the mask.

    Keys: air_mae_hu, air_bias_hu, soft_mae_hu, soft_bias_hu, bone_mae_hu, bone_bias_hu; NaN where
    the true CT has no such tissue.
    """
    pred_hu, true_hu, mask = checked_pair(pred_hu, true_hu, mask)
    error = pred_hu - true_hu
    air, bone = true_hu < AIR_BELOW_HU, true_hu > BONE_ABOVE_HU
    scores = {}
    for tissue, voxels in {"air": air, "soft": ~air & ~bone, "bone": bone}.items():
        inside = error[voxels & mask]
        scores[f"{tissue}_mae_hu"] = float(np.abs(inside).mean()) if inside.size else float("nan")
        scores[f"{tissue}_bias_hu"] = float(inside.mean()) if inside.size else float("nan")
    return scores


def bone_dice(pred_hu, true_hu, mask) -> float:
    """Dice overlap, 0 to 1, of the voxels above 250 HU inside the mask.

    NaN where neither image has any.
    """
    pred_hu, true_hu, mask = checked_pair(pred_hu, true_hu, mask)
    return dice((pred_hu > BONE_ABOVE_HU) & mask, (true_hu > BONE_ABOVE_HU) & mask)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """2 |A and B| / (|A| + |B|) of two bool arrays of one shape; NaN if both are empty."""
    together = one.sum() + other.sum()
    return float(2 * (one & other).sum() / together) if together else float("nan")


def bone_hd95_mm(pred_hu, true_hu, mask, spacing_mm) -> float:
    """95th percentile Hausdorff distance in mm between the bone surfaces (> 250 HU inside the
    mask), the worse of both directions.

    spacing_mm: one number, or one per axis. NaN where the true CT has no bone, inf where only the
    prediction has none. Source: MONAI's HausdorffDistanceMetric(percentile=95), which SynthRAD2025
    uses; a surface is what one erosion removes.
    """
    pred_hu, true_hu, mask = checked_pair(pred_hu, true_hu, mask)
    spacing_mm = per_axis(spacing_mm, mask.ndim)
    bones = [(image > BONE_ABOVE_HU) & mask for image in (pred_hu, true_hu)]
    if not bones[1].any():
        return float("nan")
    if not bones[0].any():
        return float("inf")
    surfaces = [bone & ~ndimage.binary_erosion(bone) for bone in bones]
    to_surface = [
        ndimage.distance_transform_edt(~surface, sampling=spacing_mm) for surface in surfaces
    ]
    return float(
        max(
            np.percentile(to_surface[1][surfaces[0]], 95),
            np.percentile(to_surface[0][surfaces[1]], 95),
        )
    )


def wepl_error_mm(pred_hu, true_hu, mask, spacing_mm, rays: int = 36) -> float:
    """Mean absolute error in mm of the water-equivalent path length of `wepl_mm`, over the rays of
    every slice that meets the mask.

    A surrogate for a proton beam's range error, not a dose calculation. spacing_mm: one number, or
    one per axis.
    """
    pred_hu, true_hu, mask = checked_pair(pred_hu, true_hu, mask)
    spacing_mm = per_axis(spacing_mm, mask.ndim)[-2:]
    slices = [stack.reshape(-1, *stack.shape[-2:]) for stack in (pred_hu, true_hu, mask)]
    errors = [
        path_lengths_mm(p, m, spacing_mm, rays) - path_lengths_mm(t, m, spacing_mm, rays)
        for p, t, m in zip(*slices, strict=True)
        if m.any()
    ]
    return float(np.abs(errors).mean())


def wepl_mm(ct_hu: np.ndarray, mask: np.ndarray, spacing_mm, rays: int = 36) -> np.ndarray:
    """Water-equivalent path length in mm, (rays,), of beams that reach the mask's centre from
    equally spaced directions.

    ct_hu, mask: one slice (H, W). Relative electron density 1 + HU/1000 up to 0 HU and 1 + HU/1900
    above, none outside the mask, linearly interpolated, summed every half pixel. The fit puts
    cortical bone, 1.78, near 1480 HU.
    """
    ct_hu, mask = checked_image(ct_hu, mask)
    one_slice(mask)
    return path_lengths_mm(ct_hu, mask, per_axis(spacing_mm, 2), rays)


def path_lengths_mm(
    ct_hu: np.ndarray, mask: np.ndarray, spacing_mm: tuple[float, ...], rays: int
) -> np.ndarray:
    """`wepl_mm` of a slice that has been checked."""
    if rays < 1:
        raise ValueError(f"a path length needs 1 ray or more, got rays={rays}.")
    spacing = np.array(spacing_mm)
    density = np.where(mask, np.maximum(1 + ct_hu / np.where(ct_hu > 0, 1900, 1000), 0), 0)
    centre_mm = np.array(ndimage.center_of_mass(mask)) * spacing
    angles = np.linspace(0, 2 * np.pi, rays, endpoint=False)
    step_mm = spacing.min() / 2
    along_mm = (
        np.arange(int(np.linalg.norm(np.array(mask.shape) * spacing) / step_mm) + 1) + 0.5
    ) * step_mm
    directions = np.stack([np.sin(angles), np.cos(angles)])
    positions = (centre_mm[:, None, None] + directions[:, :, None] * along_mm) / spacing[
        :, None, None
    ]
    return ndimage.map_coordinates(density, positions, order=1).sum(axis=1) * step_mm


def nmae(pred_mri, true_mri, mask, value_range) -> float:
    """Mean absolute error of an MR image over the mask, as a share of the width of value_range.

    MR has no unit: value_range is the interval that both images were normalised to, per volume, in
    training and here alike.
    """
    low, high = checked_range(value_range)
    pred_mri, true_mri, mask = checked_pair(pred_mri, true_mri, mask, (low, high))
    return float(np.abs(pred_mri - true_mri)[mask].mean() / (high - low))


def rank_correlation(pred_mri, true_mri, mask) -> float:
    """Spearman's rank correlation over the mask, -1 to 1.

    The same for any monotone rescaling of MR. NaN if an image is constant there.
    """
    pred_mri, true_mri, mask = checked_pair(pred_mri, true_mri, mask, None)
    if np.ptp(pred_mri[mask]) == 0 or np.ptp(true_mri[mask]) == 0:
        return float("nan")
    return float(stats.spearmanr(pred_mri[mask], true_mri[mask]).statistic)


def contrast_ratios(mri, tissues: dict, reference: str) -> dict[str, float]:
    """Median MR signal of each tissue over that of the reference tissue, e.g.

    {"gm/wm": 0.75, "csf/wm": 0.34}.

    mri: raw signal or any multiple of it (zero must mean no signal, so not [-1, 1]); tissues: name
    -> bool mask of mri's shape. Raises ValueError if a mask is empty or the reference's median is
    not positive.
    """
    medians = {}
    for tissue, voxels in tissues.items():
        image, voxels = checked_image(mri, voxels, None)
        medians[tissue] = float(np.median(image[voxels]))
    if reference not in medians or medians[reference] <= 0:
        raise ValueError(
            f"the reference tissue {reference!r} needs a mask and a positive median signal, got "
            f"the medians {medians}: pass MR signal in which 0 means none."
        )
    return {
        f"{tissue}/{reference}": value / medians[reference]
        for tissue, value in medians.items()
        if tissue != reference
    }


def checked_pair(
    pred, true, mask, value_range=SYNTHRAD2023_RANGE
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three inputs of every paired metric as float64, float64 and bool arrays, or one sentence
    on what is wrong with them.

    value_range: what the images are measured in; a range that reaches down to air means HU, None
    means any unit.
    """
    pred, true, mask = numbers(pred, "prediction"), numbers(true, "truth"), checked_mask(mask)
    check_shapes(mask, prediction=pred, truth=true)
    if value_range is None:
        return pred, true, mask
    low, high = checked_range(value_range)
    check_scale("truth", true[mask], low, high)
    if low <= AIR_BELOW_HU:
        # a CT cut to a narrow window may be scored: it fails visibly
        check_hu("prediction", pred, mask, brightest=200)
        check_hu("truth", true, mask, brightest=0)
    else:
        check_scale("prediction", pred[mask], low, high)
        if 0 < np.ptp(true) < RANGE_USED * (high - low):
            raise ValueError(
                f"the truth spans {true.min():.4g} to {true.max():.4g}, next to nothing of {low:g} "
                f"to {high:g}, which makes every score perfect: pass the range of the images."
            )
    return pred, true, mask


def checked_image(image, mask, value_range=SYNTHRAD2023_RANGE) -> tuple[np.ndarray, np.ndarray]:
    """The inputs of a measure of one image, prediction or truth, as float64 and bool arrays.

    Value_range as in `checked_pair`.
    """
    image, mask = numbers(image, "image"), checked_mask(mask)
    check_shapes(mask, image=image)
    if value_range is not None:
        check_hu("image", image, mask, brightest=200)
    return image, mask


def check_shapes(mask: np.ndarray, **images: np.ndarray) -> None:
    """Raise ValueError unless the images have the mask's shape, of a slice or volume, and the mask
    is not empty.
    """
    if any(image.shape != mask.shape for image in images.values()) or mask.ndim not in (2, 3):
        shapes = ", ".join(f"{name} {image.shape}" for name, image in images.items())
        raise ValueError(
            f"{shapes} and mask {mask.shape} must share one shape, (H, W) or (Z, H, W)."
        )
    if not mask.any():
        raise ValueError(
            f"the mask {mask.shape} is empty: a metric needs pixels to average over, so leave this "
            "slice out."
        )


def numbers(values, name: str) -> np.ndarray:
    """The values as a float64 array, or one sentence if they are no real and finite numbers."""
    try:
        if np.iscomplexobj(values) or np.ma.is_masked(values):
            raise TypeError("it is complex or masked")
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        # RuntimeError: a tensor with gradients
        raise ValueError(
            f"the {name} is no array of real numbers ({error}): pass a NumPy array or a CPU tensor "
            "without gradients."
        ) from error
    if not np.isfinite(array).all():
        raise ValueError(
            f"the {name} holds {int((~np.isfinite(array)).sum())} NaN or infinite values: mend it "
            "before scoring."
        )
    return array


def checked_mask(mask) -> np.ndarray:
    """The mask as a bool array, > 0 counts.

    ValueError if it holds NaN, which is neither inside nor outside.
    """
    return numbers(mask, "mask") > 0


def checked_range(value_range) -> tuple[float, float]:
    """(low, high) as two finite numbers, low < high, or one sentence."""
    try:
        low, high = (float(edge) for edge in value_range)
    except (TypeError, ValueError):
        low = high = float("nan")
    if not -np.inf < low < high < np.inf:
        raise ValueError(
            f"value_range must be two finite numbers, low < high, got {value_range}: pass the "
            "range of the images, such as SYNTHRAD2023_RANGE for CT."
        )
    return low, high


def check_scale(name: str, inside: np.ndarray, low: float, high: float) -> None:
    """Raise ValueError if most of an image's values inside the mask lie far outside the range."""
    margin = RANGE_MARGIN * (high - low)
    outside = np.mean((inside < low - margin) | (inside > high + margin))
    if outside > 0.5:
        raise ValueError(
            f"{outside:.0%} of the {name} inside the mask lies well outside {low:g} to {high:g} "
            f"(it spans {inside.min():.4g} to {inside.max():.4g}): scale prediction and truth "
            "alike, and pass the range of the images."
        )


def check_hu(name: str, ct_hu: np.ndarray, mask: np.ndarray, brightest: float) -> None:
    """Raise ValueError if a CT that is not constant is in a network's range, or has no air and is
    too bright for HU.
    """
    low, high = ct_hu.min(), ct_hu.max()
    if -2 <= low < high <= 4:
        raise ValueError(
            f"the {name} spans {low:.4g} to {high:.4g}, which cannot be HU because air is near "
            "-1000: undo its normalisation."
        )
    if AIR_BELOW_HU < low < high and (
        low >= 0 and high > brightest or np.median(ct_hu[mask]) > DENSE_HEAD_HU
    ):
        raise ValueError(
            f"the {name} spans {low:.4g} to {high:.4g} and shows no air, so it cannot be a whole "
            "slice in HU: undo its 8-bit scaling or storage offset of 1024, or, if it is a crop in "
            "HU, score the whole slice with the crop as its mask."
        )


def one_slice(image: np.ndarray) -> None:
    """Raise ValueError for a volume."""
    if image.ndim != 2:
        raise ValueError(
            f"this measure takes one slice (H, W), got {image.shape}: call it slice by slice."
        )


def masked_from_zero(
    pred, true, mask, value_range
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Both images clipped to value_range, at its low end outside the mask, shifted so that this is
    0; the mask; the range's width.
    """
    low, high = checked_range(value_range)
    pred, true, mask = checked_pair(pred, true, mask, (low, high))
    return (
        *(np.where(mask, image.clip(low, high), low) - low for image in (pred, true)),
        mask,
        high - low,
    )


def mean_inside(similarity: np.ndarray, mask: np.ndarray) -> float:
    """Mean of a similarity map over the mask, without the half window at every border."""
    core = (slice(SSIM_WINDOW // 2, -(SSIM_WINDOW // 2)),) * mask.ndim
    if not mask[core].any():
        raise ValueError(
            f"the mask has {int(mask.sum())} pixels, none of them {SSIM_WINDOW // 2} from the "
            "border: too few for SSIM."
        )
    return float(similarity[core][mask[core]].mean())


def per_axis(spacing_mm, axes: int) -> tuple[float, ...]:
    """One pixel spacing in mm for every axis, from one number or a sequence."""
    try:
        spacing = tuple(np.broadcast_to(np.asarray(spacing_mm, dtype=np.float64), (axes,)).tolist())
    except (TypeError, ValueError):
        spacing = ()
    if not spacing or not all(0 < s < np.inf for s in spacing):
        raise ValueError(
            f"spacing_mm must be one positive number in mm or {axes} of them, got {spacing_mm}: "
            "distances cannot be scored without the pixel size."
        )
    return spacing

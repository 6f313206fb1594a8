"""Every paired metric against SynthRAD's golden values and a second implementation, written as
loops.
"""

import itertools

import numpy as np
import pytest
from helpers.golden_volume import golden_volume
from scipy.signal import fftconvolve
from scipy.spatial.distance import cdist
from skimage.metrics import peak_signal_noise_ratio

from ctmri_utils.evaluation import distances
from ctmri_utils.evaluation import metrics as m

R23, R25 = m.SYNTHRAD2023_RANGE, m.SYNTHRAD2025_RANGE

PRED, TRUE, MASK = golden_volume()


def scores_2023(*images):
    return m.mae_hu(*images), m.psnr_db(*images, R23), m.ssim(*images, R23)


# Golden values are compared to 1e-5: the official output was recorded with six decimals.


@pytest.mark.parametrize(
    ("pred", "true", "mask", "mae", "psnr", "ssim"),
    [
        (PRED, TRUE, MASK, 18.439394, 45.089355, 0.994571),
        (PRED[24], TRUE[24], MASK[24], 17.982050, 45.246638, 0.993273),
        (PRED, TRUE, np.ones_like(MASK), 7.260614, 47.896583, 0.996839),
    ],
    ids=["volume", "slice", "no mask flatters"],
)
def test_synthrad2023_golden_values(pred, true, mask, mae, psnr, ssim):
    assert scores_2023(pred, true, mask) == pytest.approx((mae, psnr, ssim), abs=1e-5, rel=0)


def test_synthrad2025_golden_values():
    scores = (
        m.mae_hu(PRED, TRUE, MASK),
        m.psnr_db(PRED, TRUE, MASK, R25),
        m.ms_ssim(PRED, TRUE, MASK, R25),
    )
    assert scores == pytest.approx((18.439394, 45.241273, 0.998820), abs=1e-5, rel=0)


def test_golden_mean_over_slices_is_another_number_than_the_volume():
    slices = [z for z in range(len(MASK)) if MASK[z].sum() > 200]
    mean = np.mean([scores_2023(PRED[z], TRUE[z], MASK[z]) for z in slices], axis=0)
    assert len(slices) == 34
    assert mean == pytest.approx((18.396146, 45.129348, 0.994730), abs=1e-5, rel=0)


def windows(image, size=7):
    """Every full window of an image as one row, and the image's pixels that they are centred on."""
    core = tuple(slice(size // 2, length - size // 2) for length in image.shape)
    rows = np.lib.stride_tricks.sliding_window_view(image, (size,) * image.ndim)
    return rows.reshape(-1, size**image.ndim), core


def terms_by_loop(x, y, width):
    """L, C and S of every full window, with NumPy's own covariance."""
    c1, c2 = (0.01 * width) ** 2, (0.03 * width) ** 2
    terms = []
    for a, b in zip(windows(x)[0], windows(y)[0], strict=True):
        (vx, vxy), (_, vy) = np.cov(a, b)
        s = np.sqrt(vx * vy)
        terms.append(
            (
                (2 * a.mean() * b.mean() + c1) / (a.mean() ** 2 + b.mean() ** 2 + c1),
                (2 * s + c2) / (vx + vy + c2),
                (vxy + c2 / 2) / (s + c2 / 2),
            )
        )
    return np.array(terms).T


def prepared(pred, true, mask, low, high):
    return [np.where(mask, np.clip(image, low, high), low) - low for image in (pred, true)]


def random_pair(shape, seed):
    rng = np.random.default_rng(seed)
    # some voxels beyond both ends
    true = rng.normal(0, 900, shape)
    return true + rng.normal(0, 300, shape), true, rng.random(shape) < 0.7


@pytest.mark.parametrize("shape", [(19, 23), (9, 11, 10)], ids=["slice", "volume"])
def test_simple_metrics_agree_with_loops_over_voxels(shape):
    pred, true, mask = random_pair(shape, seed=1)
    inside = [(p, t) for p, t, k in zip(pred.flat, true.flat, mask.flat, strict=True) if k]
    assert m.mae_hu(pred, true, mask) == pytest.approx(
        sum(abs(p - t) for p, t in inside) / len(inside), rel=1e-12
    )
    assert m.bias_hu(pred, true, mask) == pytest.approx(
        sum(p - t for p, t in inside) / len(inside), rel=1e-10
    )
    clipped = [np.clip(values, *R25) for values in zip(*inside, strict=True)]
    assert m.psnr_db(pred, true, mask, R25) == pytest.approx(
        peak_signal_noise_ratio(*clipped, data_range=4095), rel=1e-12
    )
    bone = [p - t for p, t in inside if t > 250]
    assert m.tissue_bias_hu(pred, true, mask, "bone") == pytest.approx(
        sum(bone) / len(bone), rel=1e-10
    )
    both = sum(p > 250 and t > 250 for p, t in inside)
    assert m.bone_dice(pred, true, mask) == pytest.approx(
        2 * both / (sum(p > 250 for p, _ in inside) + len(bone)), rel=1e-12
    )


@pytest.mark.parametrize("shape", [(19, 23), (9, 11, 10)], ids=["slice", "volume"])
def test_ssim_agrees_with_a_loop_over_windows(shape):
    pred, true, mask = random_pair(shape, seed=2)
    luminance, contrast, structure = terms_by_loop(*prepared(pred, true, mask, *R23), 4024)
    # C and S merge into SSIM's one term
    similarity = (luminance * contrast * structure).reshape([length - 6 for length in shape])
    core = windows(mask)[1]
    # rounding of running sums
    assert m.ssim(pred, true, mask, R23) == pytest.approx(similarity[mask[core]].mean(), abs=1e-9)


def test_ms_ssim_agrees_with_a_loop_over_windows_and_scales():
    pred, true, mask = random_pair((60, 101), seed=3)
    (pred, true), width = prepared(pred, true, mask, *R25), 4095
    pred, true, mask = (
        np.pad(image, ((18, 19), (0, 0)), mode="edge") for image in (pred, true, mask)
    )
    expected = 1.0
    for weight in (0.0448, 0.2856, 0.3001, 0.2363, 0.1333):
        luminance, contrast, structure = (
            np.maximum(term, 0) ** weight for term in terms_by_loop(true, pred, width)
        )
        expected *= (luminance * contrast * structure)[mask[windows(mask)[1]].ravel()].mean()
        pred, true = (
            fftconvolve(image, np.ones((2, 2)) / 4, mode="same")[::2, ::2] for image in (pred, true)
        )
        mask = mask[::2, ::2]
    assert 0.1 < expected < 0.99
    assert m.ms_ssim(*random_pair((60, 101), seed=3), R25) == pytest.approx(expected, abs=1e-9)


def test_hd95_agrees_with_all_distances_between_the_surfaces():
    # blocks, to have an inside
    pred, true, mask = (np.kron(image, np.ones((4, 4))) for image in random_pair((7, 8), seed=4))
    mask, surfaces = mask > 0, []
    for image in (pred, true):
        bone = np.pad((image > 250) & mask, 1)
        points = [
            (i, j)
            for i, j in np.argwhere(bone)
            if not (bone[i - 1, j] and bone[i + 1, j] and bone[i, j - 1] and bone[i, j + 1])
        ]
        surfaces.append(np.array(points) * (2.0, 0.5))
    all_distances = cdist(*surfaces)
    expected = max(
        np.percentile(all_distances.min(axis=1), 95), np.percentile(all_distances.min(axis=0), 95)
    )
    assert distances.bone_hd95_mm(pred, true, mask, (2.0, 0.5)) == pytest.approx(
        expected, rel=1e-12
    )


def test_wepl_agrees_with_a_walk_along_every_ray():
    pred, true, mask = PRED[24, ::2, ::2], TRUE[24, ::2, ::2], MASK[24, ::2, ::2]  # (32, 28)
    centre, lengths = np.argwhere(mask).mean(axis=0), []
    for image, ray in itertools.product((pred, true), range(36)):
        direction, total = np.array([np.sin(ray * np.pi / 18), np.cos(ray * np.pi / 18)]), 0.0
        for step in range(2 * 43):
            i, j = centre + direction * (step + 0.5) / 2
            corners = [
                (a, b)
                for a in (int(np.floor(i)), int(np.floor(i)) + 1)
                for b in (int(np.floor(j)), int(np.floor(j)) + 1)
            ]
            for a, b in corners:
                if 0 <= a < 32 and 0 <= b < 28 and mask[a, b]:
                    density = 1 + image[a, b] / (1900 if image[a, b] > 0 else 1000)
                    total += (1 - abs(i - a)) * (1 - abs(j - b)) * max(density, 0)
        lengths.append(total / 2 * 1.7)
    expected = np.abs(np.array(lengths[:36]) - lengths[36:]).mean()
    assert distances.wepl_error_mm(pred, true, mask, 1.7) == pytest.approx(expected, rel=1e-9)


def test_rank_correlation_agrees_with_pearson_on_ranks():
    pred, true, mask = random_pair((9, 9), seed=5)
    ranks = [np.argsort(np.argsort(image[mask])) for image in (pred, true)]
    assert m.rank_correlation(pred, true, mask) == pytest.approx(
        np.corrcoef(*ranks)[0, 1], rel=1e-12
    )

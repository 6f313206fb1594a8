"""SynthRAD's golden values, a second implementation written as loops, and the promises of every paired metric."""
import itertools

import numpy as np
import pytest
import torch
from scipy.signal import fftconvolve
from scipy.spatial.distance import cdist
from skimage.metrics import peak_signal_noise_ratio

from ctmri_utils import metrics as m

R23, R25 = m.SYNTHRAD2023_RANGE, m.SYNTHRAD2025_RANGE


def golden_volume():
    """The volume on which the challenges' own code gave the numbers below."""
    z, y, x = np.indices((48, 64, 56)).astype(np.float64)
    r2 = ((z - 23.5) / 18) ** 2 + ((y - 31.5) / 26) ** 2 + ((x - 27.5) / 22) ** 2
    mask = r2 <= 1
    true = np.where(mask, 40 + 60 * np.sin(0.35 * x) * np.cos(0.27 * y) + 20 * np.sin(0.5 * z), -1000)
    true = np.where((r2 > 0.78) & mask, 900 + 300 * np.sin(0.2 * (x + y + z)), true)
    pred = 0.97 * true + 15 + 25 * np.cos(0.41 * x + 0.23 * y - 0.31 * z)
    return np.where(r2 > 1.15, -1000, pred), true, mask


PRED, TRUE, MASK = golden_volume()


def head(size=48, noise_hu=60, seed=0):
    """A slice of skull, brain and air: prediction, truth, mask of the head."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((size, size)) - (size - 1) / 2
    r = np.hypot(y, 1.2 * x) / (0.45 * size)
    true = np.where(r < 0.8, 40, np.where(r < 1, 900, -1000)) + rng.normal(0, 20, r.shape)
    return true + rng.normal(0, noise_hu, r.shape), true, r < 1


METRICS = {                                                    # f(prediction, truth, mask), and its value for a perfect prediction
    "mae_hu": (m.mae_hu, 0), "bias_hu": (m.bias_hu, 0), "psnr_db": (lambda p, t, k: m.psnr_db(p, t, k, R23), np.inf),
    "ssim": (lambda p, t, k: m.ssim(p, t, k, R23), 1), "ms_ssim": (lambda p, t, k: m.ms_ssim(p, t, k, R25), 1),
    "soft": (lambda p, t, k: m.tissue_errors_hu(p, t, k)["soft_mae_hu"], 0), "bone_dice": (m.bone_dice, 1),
    "bone_hd95_mm": (lambda p, t, k: m.bone_hd95_mm(p, t, k, 1.7), 0), "wepl": (lambda p, t, k: m.wepl_error_mm(p, t, k, 1.7), 0),
    "nmae": (lambda p, t, k: m.nmae(p, t, k, R23), 0), "rank_correlation": (m.rank_correlation, 1),
}


# ---- golden values; 1e-5 because the official output was recorded with six decimals

@pytest.mark.parametrize(("pred", "true", "mask", "mae", "psnr", "ssim"), [
    (PRED, TRUE, MASK, 18.439394, 45.089355, 0.994571),
    (PRED[24], TRUE[24], MASK[24], 17.982050, 45.246638, 0.993273),
    (PRED, TRUE, np.ones_like(MASK), 7.260614, 47.896583, 0.996839),
], ids=["volume", "slice", "no mask flatters"])
def test_synthrad2023_golden_values(pred, true, mask, mae, psnr, ssim):
    scores = m.mae_hu(pred, true, mask), m.psnr_db(pred, true, mask, R23), m.ssim(pred, true, mask, R23)
    assert scores == pytest.approx((mae, psnr, ssim), abs=1e-5, rel=0)


def test_synthrad2025_golden_values():
    scores = m.mae_hu(PRED, TRUE, MASK), m.psnr_db(PRED, TRUE, MASK, R25), m.ms_ssim(PRED, TRUE, MASK, R25)
    assert scores == pytest.approx((18.439394, 45.241273, 0.998820), abs=1e-5, rel=0)


def test_golden_mean_over_slices_is_another_number_than_the_volume():
    slices = [z for z in range(len(MASK)) if MASK[z].sum() > 200]
    scores = [(m.mae_hu(*v), m.psnr_db(*v, R23), m.ssim(*v, R23)) for v in ((PRED[z], TRUE[z], MASK[z]) for z in slices)]
    assert len(slices) == 34
    assert np.mean(scores, axis=0) == pytest.approx((18.396146, 45.129348, 0.994730), abs=1e-5, rel=0)


# ---- a second implementation, window by window

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
        terms.append(((2 * a.mean() * b.mean() + c1) / (a.mean() ** 2 + b.mean() ** 2 + c1), (2 * s + c2) / (vx + vy + c2),
                      (vxy + c2 / 2) / (s + c2 / 2)))
    return np.array(terms).T


def prepared(pred, true, mask, low, high):
    return [np.where(mask, np.clip(image, low, high), low) - low for image in (pred, true)]


def random_pair(shape, seed):
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 900, shape)                                                                   # some voxels beyond both ends
    return true + rng.normal(0, 300, shape), true, rng.random(shape) < 0.7


@pytest.mark.parametrize("shape", [(19, 23), (9, 11, 10)], ids=["slice", "volume"])
def test_simple_metrics_agree_with_loops_over_voxels(shape):
    pred, true, mask = random_pair(shape, seed=1)
    inside = [(p, t) for p, t, k in zip(pred.flat, true.flat, mask.flat, strict=True) if k]
    assert m.mae_hu(pred, true, mask) == pytest.approx(sum(abs(p - t) for p, t in inside) / len(inside), rel=1e-12)
    assert m.bias_hu(pred, true, mask) == pytest.approx(sum(p - t for p, t in inside) / len(inside), rel=1e-10)
    clipped = [np.clip(values, *R25) for values in zip(*inside, strict=True)]
    assert m.psnr_db(pred, true, mask, R25) == pytest.approx(peak_signal_noise_ratio(*clipped, data_range=4095), rel=1e-12)
    bone = [p - t for p, t in inside if t > 250]
    assert m.tissue_errors_hu(pred, true, mask)["bone_bias_hu"] == pytest.approx(sum(bone) / len(bone), rel=1e-10)
    both = sum(p > 250 and t > 250 for p, t in inside)
    assert m.bone_dice(pred, true, mask) == pytest.approx(2 * both / (sum(p > 250 for p, _ in inside) + len(bone)), rel=1e-12)


@pytest.mark.parametrize("shape", [(19, 23), (9, 11, 10)], ids=["slice", "volume"])
def test_ssim_agrees_with_a_loop_over_windows(shape):
    pred, true, mask = random_pair(shape, seed=2)
    luminance, contrast, structure = terms_by_loop(*prepared(pred, true, mask, *R23), 4024)
    similarity = (luminance * contrast * structure).reshape([length - 6 for length in shape])          # C and S merge into SSIM's one term
    core = windows(mask)[1]
    assert m.ssim(pred, true, mask, R23) == pytest.approx(similarity[mask[core]].mean(), abs=1e-9)      # rounding of running sums


def test_ms_ssim_agrees_with_a_loop_over_windows_and_scales():
    pred, true, mask = random_pair((60, 101), seed=3)
    (pred, true), width = prepared(pred, true, mask, *R25), 4095
    pred, true, mask = (np.pad(image, ((18, 19), (0, 0)), mode="edge") for image in (pred, true, mask))
    expected = 1.0
    for weight in (0.0448, 0.2856, 0.3001, 0.2363, 0.1333):
        luminance, contrast, structure = (np.maximum(term, 0) ** weight for term in terms_by_loop(true, pred, width))
        expected *= (luminance * contrast * structure)[mask[windows(mask)[1]].ravel()].mean()
        pred, true = (fftconvolve(image, np.ones((2, 2)) / 4, mode="same")[::2, ::2] for image in (pred, true))
        mask = mask[::2, ::2]
    assert 0.1 < expected < 0.99
    assert m.ms_ssim(*random_pair((60, 101), seed=3), R25) == pytest.approx(expected, abs=1e-9)


def test_hd95_agrees_with_all_distances_between_the_surfaces():
    pred, true, mask = (np.kron(image, np.ones((4, 4))) for image in random_pair((7, 8), seed=4))    # blocks, to have an inside
    mask, surfaces = mask > 0, []
    for image in (pred, true):
        bone = np.pad((image > 250) & mask, 1)
        points = [(i, j) for i, j in np.argwhere(bone) if not (bone[i - 1, j] and bone[i + 1, j] and bone[i, j - 1] and bone[i, j + 1])]
        surfaces.append(np.array(points) * (2.0, 0.5))
    distances = cdist(*surfaces)
    expected = max(np.percentile(distances.min(axis=1), 95), np.percentile(distances.min(axis=0), 95))
    assert m.bone_hd95_mm(pred, true, mask, (2.0, 0.5)) == pytest.approx(expected, rel=1e-12)


def test_wepl_agrees_with_a_walk_along_every_ray():
    pred, true, mask = head(size=32)
    centre, lengths = np.argwhere(mask).mean(axis=0), []
    for image, ray in itertools.product((pred, true), range(36)):
        direction, total = np.array([np.sin(ray * np.pi / 18), np.cos(ray * np.pi / 18)]), 0.0
        for step in range(2 * 46):
            i, j = centre + direction * (step + 0.5) / 2
            corners = [(a, b) for a in (int(np.floor(i)), int(np.floor(i)) + 1) for b in (int(np.floor(j)), int(np.floor(j)) + 1)]
            for a, b in corners:
                if 0 <= a < 32 and 0 <= b < 32 and mask[a, b]:
                    density = 1 + image[a, b] / (1900 if image[a, b] > 0 else 1000)
                    total += (1 - abs(i - a)) * (1 - abs(j - b)) * max(density, 0)
        lengths.append(total / 2 * 1.7)
    expected = np.abs(np.array(lengths[:36]) - lengths[36:]).mean()
    assert m.wepl_error_mm(pred, true, mask, 1.7) == pytest.approx(expected, rel=1e-9)


def test_rank_correlation_agrees_with_pearson_on_ranks():
    pred, true, mask = random_pair((9, 9), seed=5)
    ranks = [np.argsort(np.argsort(image[mask])) for image in (pred, true)]
    assert m.rank_correlation(pred, true, mask) == pytest.approx(np.corrcoef(*ranks)[0, 1], rel=1e-12)


# ---- promises

@pytest.mark.parametrize("name", METRICS)
def test_what_lies_outside_the_mask_does_not_count(name):
    score, _ = METRICS[name]
    pred, true, mask = head()
    scribbled = np.where(mask, pred, np.random.default_rng(9).uniform(-1000, 1000, pred.shape))
    assert score(scribbled, true, mask) == score(pred, true, mask)


@pytest.mark.parametrize("name", METRICS)
def test_a_perfect_prediction_gets_the_best_value(name):
    score, best = METRICS[name]
    _, true, mask = head()
    assert score(true.copy(), true, mask) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("name", sorted(set(METRICS) - {"bias_hu", "soft"}))
def test_prediction_and_truth_may_change_places(name):
    score, _ = METRICS[name]
    pred, true, mask = head()
    assert score(true, pred, mask) == pytest.approx(score(pred, true, mask), rel=1e-12)


@pytest.mark.parametrize("name", sorted(set(METRICS) - {"bias_hu", "bone_hd95_mm", "bone_dice"}))
def test_a_worse_prediction_gets_a_worse_value(name):
    score, best = METRICS[name]
    near, far = score(*head(noise_hu=30)), score(*head(noise_hu=200))
    assert far < near if best >= 1 else far > near


def test_bias_has_the_sign_of_prediction_minus_truth():
    _, true, mask = head()
    assert m.bias_hu(true + 7, true, mask) == pytest.approx(7, rel=1e-9)


def test_a_wider_range_flatters_psnr_by_its_width():
    pred, true, mask = head()
    gain = m.psnr_db(pred, true, mask, R25) - m.psnr_db(pred, true, mask, R23)
    assert gain == pytest.approx(20 * np.log10(4095 / 4024), rel=1e-9)                                 # 0.15 dB: nothing is clipped here


def test_tissue_errors_follow_the_true_classes_and_say_nan_where_there_is_none():
    true = np.array([[-1000.0, -201, -200, 250, 251, 900]])
    pred = true + np.array([[10.0, 10, -20, -20, 30, 30]])
    scores = m.tissue_errors_hu(pred, true, np.ones_like(true))
    assert scores == pytest.approx({"air_mae_hu": 10, "air_bias_hu": 10, "soft_mae_hu": 20, "soft_bias_hu": -20, "bone_mae_hu": 30,
                                    "bone_bias_hu": 30}, rel=1e-12)
    no_bone = m.tissue_errors_hu(pred, true, true < 0)
    assert np.isnan(no_bone["bone_mae_hu"]) and no_bone["air_mae_hu"] == pytest.approx(10)


@pytest.mark.parametrize(("spacing_mm", "expected"), [(1.5, 3.0), ((1.5, 0.7), 1.4)], ids=["one spacing", "per axis"])
def test_hd95_of_a_shifted_bone_is_the_shift_in_mm(spacing_mm, expected):
    true = np.full((40, 40), -1000.0)
    true[10:20, 12:22] = 800
    assert m.bone_hd95_mm(np.roll(true, 2, axis=1), true, np.ones_like(true), spacing_mm) == pytest.approx(expected, rel=1e-12)


def test_hd95_sees_bone_that_was_invented_and_bone_that_was_lost():
    true = np.full((40, 40), -1000.0)
    true[10:20, 10:20] = 800
    invented = true.copy()
    invented[10:20, 34:36] = 800                               # 20 of 56 surface pixels, 15 or more pixels away
    mask = np.ones_like(true)
    assert m.bone_hd95_mm(invented, true, mask, 1) == m.bone_hd95_mm(true, invented, mask, 1) == 16


def test_ms_ssim_of_an_inverted_image_is_a_number():
    _, true, mask = head()
    assert 0 <= m.ms_ssim(-true, true, mask, R25) < 0.2        # structure is negative there, and a negative number has no root


def test_missing_bone_is_named_and_not_scored_as_perfect():
    _, true, mask = head()
    boneless = np.minimum(true, 100)
    assert m.bone_hd95_mm(boneless, true, mask, 1) == np.inf and m.bone_dice(boneless, true, mask) == 0
    assert np.isnan(m.bone_hd95_mm(true, boneless, mask, 1)) and np.isnan(m.bone_dice(boneless, boneless, mask))


def test_a_disk_of_water_is_as_long_as_its_radius():
    y, x = np.indices((129, 129)) - 64.0
    disk = np.hypot(y, x) <= 50
    lengths = m.wepl_mm(np.where(disk, 0.0, -1000), disk, spacing_mm=2.0)
    assert lengths == pytest.approx(np.full(36, 101.0), abs=1.5)                                       # pixels at the rim: 0.7 px = 1.4 mm
    assert m.wepl_mm(np.where(disk, 950.0, -1000), disk, 2.0) == pytest.approx(1.5 * lengths, rel=1e-12)
    assert m.wepl_mm(np.where(disk, -500.0, -1000), disk, 2.0) == pytest.approx(0.5 * lengths, rel=1e-12)
    assert (m.wepl_mm(np.where(disk, -1024.0, -1000), disk, 2.0) == 0).all()                           # nothing is lighter than air


def test_wepl_error_of_a_volume_is_the_mean_over_its_slices():
    slices = [head(seed=s) for s in range(3)]
    volume = [np.stack(images) for images in zip(*slices, strict=True)]
    assert m.wepl_error_mm(*volume, spacing_mm=(3, 1.7, 1.7)) == pytest.approx(np.mean([m.wepl_error_mm(*s, 1.7) for s in slices]))
    volume[2][1] = False
    assert m.wepl_error_mm(*volume, 1.7) == pytest.approx(np.mean([m.wepl_error_mm(*slices[s], 1.7) for s in (0, 2)]), rel=1e-12)


def test_rank_correlation_ignores_any_monotone_rescaling_and_needs_variation():
    rng = np.random.default_rng(0)
    true, mask = rng.random((20, 20)), np.ones((20, 20))
    assert m.rank_correlation(np.exp(5 * true), true, mask) == pytest.approx(1, rel=1e-12)
    assert m.rank_correlation(-true, true, mask) == pytest.approx(-1, rel=1e-12)
    assert np.isnan(m.rank_correlation(np.full_like(true, 0.3), true, mask))


def test_nmae_and_contrast_ratios_do_not_depend_on_the_unit_of_mr():
    mri = np.array([[3.0, 6, 6, 18, 8, 8]])                                                                # 18: a vessel in the grey matter
    tissues = {"csf": mri == 3, "gm": np.isin(mri, (6, 18)), "wm": mri == 8}
    for unit in (1, 170):
        assert m.nmae(0.9 * unit * mri, unit * mri, mri > 0, (-unit, 20 * unit)) == pytest.approx(4.9 / 6 / 21, rel=1e-12)
        assert m.contrast_ratios(unit * mri, tissues, "wm") == pytest.approx({"csf/wm": 0.375, "gm/wm": 0.75}, rel=1e-12)


def test_torch_tensors_and_whole_numbers_are_welcome():
    pred, true, mask = head()
    whole = np.round(pred).astype(np.int16)
    tensors = torch.from_numpy(whole), torch.from_numpy(true), torch.from_numpy(mask)
    assert m.mae_hu(*tensors) == m.mae_hu(whole, true, mask)
    assert m.ssim(*tensors, R23) == m.ssim(whole.astype(float), true, mask.astype(np.uint8), R23)


# ---- bad input, one sentence each

@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(("spoil", "message"), [
    (lambda p, t, k: (p[:-1], t, k), "share one shape"),
    (lambda p, t, k: (p, t, k[None]), "share one shape"),
    (lambda p, t, k: (p, t, k & False), "mask .* is empty"),
    (lambda p, t, k: (np.where(p == p.max(), np.nan, p), t, k), "prediction holds 1 NaN or infinite"),
    (lambda p, t, k: (p, np.where(t == t.max(), np.inf, t), k), "truth holds 1 NaN or infinite"),
], ids=["shape", "mask shape", "empty mask", "NaN", "infinite"])
def test_bad_input_is_refused_by_every_metric(name, spoil, message):
    with pytest.raises(ValueError, match=message):
        METRICS[name][0](*spoil(*head()))


@pytest.mark.parametrize("name", sorted(set(METRICS) - {"rank_correlation"}))
@pytest.mark.parametrize("which", [0, 1], ids=["prediction", "truth"])
@pytest.mark.parametrize("wrong", [lambda hu: (hu / 1000).clip(-1, 1), lambda hu: (hu / 2000 + 0.5).clip(0, 1),
                                   lambda hu: ((hu + 1000) / 2000 * 255).clip(0, 255), lambda hu: hu.clip(-1000) + 1024],
                         ids=["network", "unit interval", "8 bit", "stored offset"])
def test_images_that_cannot_be_hu_are_refused(name, which, wrong):
    images = list(head())
    images[which] = wrong(images[which])
    with pytest.raises(ValueError, match=f"the {('prediction', 'truth')[which]} spans .* cannot be HU"):
        METRICS[name][0](*images)


def test_predictions_that_are_wrong_but_in_hu_are_scored():
    _, true, mask = head()
    assert m.mae_hu(np.full_like(true, 40), true, mask) > 100                                           # a constant
    assert m.bone_dice(true.clip(0, 80), true, mask) == 0                                               # its own brain window


def test_the_range_must_be_the_one_the_truth_is_in():
    mri, mask = np.random.default_rng(0).random((16, 16)) * 700, np.ones((16, 16))
    for wrong in ((0, 1), (500, 0)):
        with pytest.raises(ValueError, match="pass the range"):
            m.psnr_db(mri, mri, mask, wrong)
    assert m.ssim(mri, mri, mask, (0, 700)) == 1


@pytest.mark.parametrize(("call", "message"), [
    (lambda p, t, k: m.ssim(p[:, 20:26], t[:, 20:26], k[:, 20:26], R23), "needs 7 pixels along every axis"),
    (lambda p, t, k: m.ssim(p[None], t[None], k[None], R23), "needs 7 pixels along every axis"),
    (lambda p, t, k: m.ssim(p, t, np.indices(k.shape).sum(0) == 0, R23), "too few for SSIM"),
    (lambda p, t, k: m.bone_hd95_mm(p, t, k, (1, 1, 1)), "spacing_mm must be"),
    (lambda p, t, k: m.bone_hd95_mm(p, t, k, 0), "spacing_mm must be"),
    (lambda p, t, k: m.contrast_ratios(t, {"gm": k}, "wm"), "the reference tissue 'wm' needs a mask"),
    (lambda p, t, k: m.contrast_ratios(t, {"wm": t < -900}, "wm"), "positive median signal"),
], ids=["narrow", "one slice as a volume", "mask at the border", "spacing per axis", "no spacing", "no reference", "negative reference"])
def test_metrics_that_cannot_be_computed_say_why(call, message):
    with pytest.raises(ValueError, match=message):
        call(*head())

"""What every paired metric promises, and what it refuses.

Broken images, wrong units, ranges and spacings that are none.
"""

from functools import partial

import numpy as np
import pytest
import torch

from ctmri_utils.evaluation import CT_METRICS, CtMetric, distances, metrics

RANGE_2023 = metrics.SYNTHRAD2023_RANGE
RANGE_2025 = metrics.SYNTHRAD2025_RANGE


def head(size=48, noise_hu=60, seed=0):
    """A slice of skull, brain and air: prediction, truth, mask of the head."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((size, size)) - (size - 1) / 2
    r = np.hypot(y, 1.2 * x) / (0.45 * size)
    true = np.where(r < 0.8, 40, np.where(r < 1, 900, -1000)) + rng.normal(0, 20, r.shape)
    return true + rng.normal(0, noise_hu, r.shape), true, r < 1


# The head holds no air.
METRICS = {name: metric for name, metric in CT_METRICS.items() if name != "air MAE HU"}
METRICS["NMAE"] = CtMetric(partial(metrics.nmae, value_range=RANGE_2023))
METRICS["rank correlation"] = CtMetric(metrics.rank_correlation, higher_is_better=True)

# How far surfaces lie apart, and which sign an error has, says nothing of its size.
SIZED = sorted(METRICS.keys() - {"bias HU", "HD95 mm"})
BY_TRUE_CLASS = {"soft-tissue MAE HU", "bone MAE HU"}


def score(name, pred, true, mask):
    return METRICS[name](pred, true, mask, 1.7)


def is_worse(name, one, other):
    return one < other if METRICS[name].higher_is_better else one > other


@pytest.mark.parametrize("name", METRICS)
def test_what_lies_outside_the_mask_does_not_count(name):
    pred, true, mask = head()
    scribbled = np.where(mask, pred, np.random.default_rng(9).uniform(-1000, 1000, pred.shape))
    assert score(name, scribbled, true, mask) == score(name, pred, true, mask)


@pytest.mark.parametrize("name", METRICS)
def test_a_perfect_prediction_gets_the_best_value(name):
    _, true, mask = head()
    best = np.inf if name == "PSNR dB" else int(METRICS[name].higher_is_better)
    assert score(name, true.copy(), true, mask) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("name", sorted(METRICS.keys() - BY_TRUE_CLASS - {"bias HU"}))
def test_prediction_and_truth_may_change_places(name):
    pred, true, mask = head()
    assert score(name, true, pred, mask) == pytest.approx(score(name, pred, true, mask), rel=1e-12)


@pytest.mark.parametrize("name", sorted(set(SIZED) - {"bone Dice"}))
def test_a_worse_prediction_gets_a_worse_value(name):
    near, far = score(name, *head(noise_hu=30)), score(name, *head(noise_hu=200))
    assert is_worse(name, far, near)


def test_bias_has_the_sign_of_prediction_minus_truth():
    _, true, mask = head()
    assert metrics.bias_hu(true + 7, true, mask) == pytest.approx(7, rel=1e-9)


def test_a_wider_range_flatters_psnr_by_its_width():
    pred, true, mask = head()
    # 0.15 dB: nothing is clipped here.
    narrow_db = metrics.psnr_db(pred, true, mask, RANGE_2023)
    wide_db = metrics.psnr_db(pred, true, mask, RANGE_2025)
    assert wide_db - narrow_db == pytest.approx(20 * np.log10(4095 / 4024), rel=1e-9)


def test_tissue_errors_follow_the_true_classes_and_are_nan_without():
    true = np.array([[-1000.0, -201, -200, 250, 251, 900]])
    pred = true + np.array([[10.0, 10, -20, -20, 30, 30]])
    images = pred, true, np.ones_like(true)
    for tissue, bias in {"air": 10, "soft": -20, "bone": 30}.items():
        assert metrics.tissue_mae_hu(*images, tissue) == pytest.approx(abs(bias), rel=1e-12)
        assert metrics.tissue_bias_hu(*images, tissue) == pytest.approx(bias, rel=1e-12)

    assert np.isnan(metrics.tissue_mae_hu(pred, true, true < 0, "bone"))
    assert metrics.tissue_mae_hu(pred, true, true < 0, "air") == pytest.approx(10)


@pytest.mark.parametrize(
    ("spacing_mm", "expected"), [(1.5, 3.0), ((1.5, 0.7), 1.4)], ids=["one spacing", "per axis"]
)
def test_hd95_of_a_shifted_bone_is_the_shift_in_mm(spacing_mm, expected):
    true = np.full((40, 40), -1000.0)
    true[10:20, 12:22] = 800
    shifted = np.roll(true, 2, axis=1)
    hd95_mm = distances.bone_hd95_mm(shifted, true, np.ones_like(true), spacing_mm)
    assert hd95_mm == pytest.approx(expected, rel=1e-12)


def test_hd95_sees_bone_that_was_invented_and_bone_that_was_lost():
    true = np.full((40, 40), -1000.0)
    true[10:20, 10:20] = 800
    invented = true.copy()
    # 20 of 56 surface pixels, 15 or more pixels away.
    invented[10:20, 34:36] = 800
    mask = np.ones_like(true)
    assert distances.bone_hd95_mm(invented, true, mask, 1) == 16
    assert distances.bone_hd95_mm(true, invented, mask, 1) == 16


def test_ms_ssim_of_an_inverted_image_is_a_number():
    _, true, mask = head()
    # Structure is negative there, and a negative number has no root.
    assert 0 <= metrics.ms_ssim(-true, true, mask, RANGE_2025) < 0.2


def test_missing_bone_is_named_and_not_scored_as_perfect():
    _, true, mask = head()
    boneless = np.minimum(true, 100)
    assert distances.bone_hd95_mm(boneless, true, mask, 1) == np.inf
    assert metrics.bone_dice(boneless, true, mask) == 0
    assert np.isnan(distances.bone_hd95_mm(true, boneless, mask, 1))
    assert np.isnan(metrics.bone_dice(boneless, boneless, mask))


def test_a_disk_of_water_is_as_long_as_its_radius():
    y, x = np.indices((129, 129)) - 64.0
    disk = np.hypot(y, x) <= 50

    def lengths_mm(hu):
        return distances.wepl_mm(np.where(disk, hu, -1000.0), disk, (2.0, 2.0))

    water_mm = lengths_mm(0)
    # Pixels at the rim: 0.7 px = 1.4 mm.
    assert water_mm == pytest.approx(np.full(36, 101.0), abs=1.5)
    assert lengths_mm(950) == pytest.approx(1.5 * water_mm, rel=1e-12)
    assert lengths_mm(-500) == pytest.approx(0.5 * water_mm, rel=1e-12)
    # Nothing is lighter than air.
    assert (lengths_mm(-1024) == 0).all()


def test_wepl_error_of_a_volume_is_the_mean_over_its_slices():
    slices = [head(seed=s) for s in range(3)]
    volume = [np.stack(images) for images in zip(*slices, strict=True)]
    errors_mm = [distances.wepl_error_mm(*images, 1.7) for images in slices]
    of_volume = distances.wepl_error_mm(*volume, spacing_mm=(3, 1.7, 1.7))
    assert of_volume == pytest.approx(np.mean(errors_mm))

    volume[2][1] = False
    without_middle = np.mean(errors_mm[::2])
    assert distances.wepl_error_mm(*volume, 1.7) == pytest.approx(without_middle, rel=1e-12)


def test_rank_correlation_ignores_monotone_rescaling():
    rng = np.random.default_rng(0)
    true, mask = rng.random((20, 20)), np.ones((20, 20))
    assert metrics.rank_correlation(np.exp(5 * true), true, mask) == pytest.approx(1, rel=1e-12)
    assert metrics.rank_correlation(-true, true, mask) == pytest.approx(-1, rel=1e-12)
    assert np.isnan(metrics.rank_correlation(np.full_like(true, 0.3), true, mask))


def test_nmae_does_not_depend_on_the_unit_of_mr():
    mri = np.array([[3.0, 6, 6, 18, 8, 8]])
    for unit in (1, 170):
        nmae = metrics.nmae(0.9 * unit * mri, unit * mri, mri > 0, (-unit, 20 * unit))
        assert nmae == pytest.approx(4.9 / 6 / 21, rel=1e-12)


def test_torch_tensors_and_whole_numbers_are_welcome():
    pred, true, mask = head()
    whole = np.round(pred).astype(np.int16)
    tensors = torch.from_numpy(whole), torch.from_numpy(true), torch.from_numpy(mask)
    assert metrics.mae_hu(*tensors) == metrics.mae_hu(whole, true, mask)
    arrays = whole.astype(float), true, mask.astype(np.uint8)
    assert metrics.ssim(*tensors, RANGE_2023) == metrics.ssim(*arrays, RANGE_2023)


SPOILED = {
    "shape": lambda p, t, k: (p[:-1], t, k),
    "mask shape": lambda p, t, k: (p, t, k[None]),
    "line": lambda p, t, k: (p[24], t[24], k[24]),
    "4-D": lambda p, t, k: (p[None, None], t[None, None], k[None, None]),
    "empty": lambda p, t, k: (p, t, k & False),
    "NaN": lambda p, t, k: (np.where(p == p.max(), np.nan, p), t, k),
    "infinite": lambda p, t, k: (p, np.where(t == t.max(), np.inf, t), k),
    "NaN in mask": lambda p, t, k: (p, t, np.where(t == t.max(), np.nan, k)),
    "none": lambda p, t, k: (p, t, None),
    "complex": lambda p, t, k: (p * 1j, t, k),
    "masked": lambda p, t, k: (p, np.ma.masked_less(t, -500), k),
    "ragged": lambda p, t, k: (p, [[1, 2], [3]], k),
    "grad": lambda p, t, k: (torch.from_numpy(p).requires_grad_(), t, k),
}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_bad_input_is_refused_by_every_metric(name, spoil):
    with pytest.raises(ValueError):
        score(name, *spoil(*head()))


NOT_HU = {
    "network": lambda hu: (hu / 1000).clip(-1, 1),
    "unit interval": lambda hu: (hu / 2000 + 0.5).clip(0, 1),
    "density": lambda hu: (hu + 1000).clip(0) / 1000,
    "z-score": lambda hu: (hu - hu.mean()) / hu.std(),
    "8 bit": lambda hu: ((hu + 1000) / 2000 * 255).clip(0, 255).astype(np.uint8),
    "stored offset": lambda hu: hu.clip(-1000) + 1024,
    "stored offset with noise in the air": lambda hu: hu + 1024,
}


@pytest.mark.parametrize("name", sorted(METRICS.keys() - {"rank correlation"}))
@pytest.mark.parametrize("which", ["prediction", "truth"])
@pytest.mark.parametrize("wrong", NOT_HU.values(), ids=NOT_HU)
def test_images_that_cannot_be_hu_are_refused(name, which, wrong):
    pred, true, mask = head()
    images = (wrong(pred), true) if which == "prediction" else (pred, wrong(true))
    with pytest.raises(ValueError, match=which):
        score(name, *images, mask)


def test_a_storage_offset_is_told_from_a_mask_of_bone():
    pred, true, mask = head()
    pred_small, true_small = (
        np.pad(image + 1024, 24, constant_values=24) for image in (pred, true)
    )
    with pytest.raises(ValueError):
        metrics.mae_hu(pred_small, true_small, np.pad(mask, 24))
    assert metrics.mae_hu(pred, true, true > 700) > 0


def test_half_precision_costs_half_a_hounsfield_unit_at_most():
    pred, true, mask = head()
    halved = metrics.mae_hu(pred.astype(np.float16), true.astype(np.float16), mask)
    assert halved == pytest.approx(metrics.mae_hu(pred, true, mask), abs=0.5)


def test_a_crop_without_air_is_scored_unless_it_could_be_8_bit_grey():
    # Brain only.
    pred, true, mask = (image[16:32, 16:32] for image in head())
    assert true.min() > -30
    assert metrics.mae_hu(pred, true, mask) == pytest.approx(np.abs(pred - true).mean())
    with pytest.raises(ValueError):
        metrics.mae_hu(pred, np.abs(true), mask)


WRONG_HU = {
    "zero": lambda hu: 0 * hu,
    "bone everywhere": lambda hu: 0 * hu + 1000,
    "its own brain window": lambda hu: hu.clip(0, 80),
    "a narrower one": lambda hu: hu.clip(0, 30),
}


@pytest.mark.parametrize("name", sorted(set(SIZED) - BY_TRUE_CLASS - {"rank correlation"}))
@pytest.mark.parametrize("wrong", WRONG_HU.values(), ids=WRONG_HU)
def test_predictions_that_are_wrong_but_in_hu_are_scored(name, wrong):
    pred, true, mask = head()
    good, bad = score(name, pred, true, mask), score(name, wrong(true), true, mask)
    assert is_worse(name, bad, good)


def test_path_lengths_of_a_volume_need_air_in_one_slice_only():
    pred, true, mask = (np.stack([image, image]) for image in head())
    true[1] = true[1].clip(0, 300)
    assert distances.wepl_error_mm(pred, true, mask, 1.7) > 0


RANGED = [metrics.psnr_db, metrics.ssim, metrics.ms_ssim, metrics.nmae]


@pytest.mark.parametrize("score", RANGED)
def test_the_range_must_be_the_one_the_truth_is_in(score):
    mri, mask = np.random.default_rng(0).random((16, 16)) * 700, np.ones((16, 16))
    with pytest.raises(ValueError):
        score(mri, mri, mask, (0, 1))
    # The mistake that makes an SSIM 0.99999.
    with pytest.raises(ValueError):
        score(mri / 700, mri / 700, mask, (0, 255))


def test_a_range_may_be_wider_than_the_image():
    mri, mask = np.random.default_rng(0).random((16, 16)) * 700, np.ones((16, 16))
    assert metrics.ssim(mri, mri, mask, (0, 700)) == 1
    # One tissue, a 20th of the range, and a blank slice.
    assert metrics.nmae(mri / 20 + 350, mri / 20 + 350, mask, (0, 700)) == 0
    assert metrics.nmae(0 * mri, 0 * mri, mask, (0, 700)) == 0

    # What fills the field outside the mask may be beyond it.
    outside = np.where(np.arange(16) < 4, mri, -2000)
    assert metrics.nmae(outside, outside, outside >= 0, (0, 700)) == 0


OTHER_SCALES = {
    "raw": lambda mri: 700 * mri,
    "network": lambda mri: 2 * mri - 1,
    "8 bit": lambda mri: np.uint8(255 * mri),
}


@pytest.mark.parametrize("score", RANGED)
@pytest.mark.parametrize("rescale", OTHER_SCALES.values(), ids=OTHER_SCALES)
def test_a_prediction_on_another_scale_than_the_true_mr_is_refused(score, rescale):
    # More dark than bright, as MR is.
    mri, mask = np.random.default_rng(0).random((16, 16)) ** 1.5, np.ones((16, 16))
    with pytest.raises(ValueError, match="prediction"):
        score(rescale(mri), mri, mask, (0, 1))

    # Bad, but on this scale.
    assert metrics.nmae(np.full_like(mri, 1.05), mri, mask, (0, 1)) > 0.5
    assert metrics.nmae(mri + 0.9 * (mri > 0.5), mri, mask, (0, 1)) > 0.2


ENDLESS = [(0, np.inf), (-np.inf, 0), (np.nan, 1)]
NO_RANGES = [None, 4024, (0,), (0, 1, 2), (1, 1), (1, 0), ("low", 1), *ENDLESS]


@pytest.mark.parametrize("value_range", NO_RANGES)
@pytest.mark.parametrize("score", RANGED)
def test_a_range_is_two_finite_numbers(score, value_range):
    with pytest.raises(ValueError, match="value_range"):
        score(*head(), value_range)


@pytest.mark.parametrize(
    "spacing_mm", [None, 0, -1, np.nan, np.inf, (1, 1, 1), (1, np.nan), (), "wide", [[1, 1]]]
)
@pytest.mark.parametrize("score", [distances.bone_hd95_mm, distances.wepl_error_mm])
def test_a_spacing_is_one_positive_number_or_one_per_axis(score, spacing_mm):
    with pytest.raises(ValueError, match="spacing_mm"):
        score(*head(), spacing_mm)


def is_corner(mask):
    return np.indices(mask.shape).sum(0) == 0


UNSCORABLE = {
    "narrow": lambda p, t, k: metrics.ssim(p[:, 20:26], t[:, 20:26], k[:, 20:26], RANGE_2023),
    "one slice as a volume": lambda p, t, k: metrics.ssim(p[None], t[None], k[None], RANGE_2023),
    "mask at the border": lambda p, t, k: metrics.ssim(p, t, is_corner(k), RANGE_2023),
}


@pytest.mark.parametrize("call", UNSCORABLE.values(), ids=UNSCORABLE)
def test_metrics_that_cannot_be_computed_are_refused(call):
    with pytest.raises(ValueError):
        call(*head())

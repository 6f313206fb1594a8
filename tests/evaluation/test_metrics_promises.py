"""What every paired metric promises, and what it refuses.

Broken images, wrong units, ranges and spacings that are none.
"""

import numpy as np
import pytest
import torch

from ctmri_utils.evaluation import distances
from ctmri_utils.evaluation import metrics as m

R23, R25 = m.SYNTHRAD2023_RANGE, m.SYNTHRAD2025_RANGE


def head(size=48, noise_hu=60, seed=0):
    """A slice of skull, brain and air: prediction, truth, mask of the head."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((size, size)) - (size - 1) / 2
    r = np.hypot(y, 1.2 * x) / (0.45 * size)
    true = np.where(r < 0.8, 40, np.where(r < 1, 900, -1000)) + rng.normal(0, 20, r.shape)
    return true + rng.normal(0, noise_hu, r.shape), true, r < 1


# f(prediction, truth, mask), and its value for a perfect prediction
METRICS = {
    "mae_hu": (m.mae_hu, 0),
    "bias_hu": (m.bias_hu, 0),
    "psnr_db": (lambda p, t, k: m.psnr_db(p, t, k, R23), np.inf),
    "ssim": (lambda p, t, k: m.ssim(p, t, k, R23), 1),
    "ms_ssim": (lambda p, t, k: m.ms_ssim(p, t, k, R25), 1),
    "soft": (lambda p, t, k: m.tissue_errors_hu(p, t, k)["soft_mae_hu"], 0),
    "bone_dice": (m.bone_dice, 1),
    "bone_hd95_mm": (lambda p, t, k: distances.bone_hd95_mm(p, t, k, 1.7), 0),
    "wepl": (lambda p, t, k: distances.wepl_error_mm(p, t, k, 1.7), 0),
    "nmae": (lambda p, t, k: m.nmae(p, t, k, R23), 0),
    "rank_correlation": (m.rank_correlation, 1),
}


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
    # 0.15 dB: nothing is clipped here
    assert gain == pytest.approx(20 * np.log10(4095 / 4024), rel=1e-9)


def test_tissue_errors_follow_the_true_classes_and_say_nan_where_there_is_none():
    true = np.array([[-1000.0, -201, -200, 250, 251, 900]])
    pred = true + np.array([[10.0, 10, -20, -20, 30, 30]])
    scores = m.tissue_errors_hu(pred, true, np.ones_like(true))
    assert scores == pytest.approx(
        {
            "air_mae_hu": 10,
            "air_bias_hu": 10,
            "soft_mae_hu": 20,
            "soft_bias_hu": -20,
            "bone_mae_hu": 30,
            "bone_bias_hu": 30,
        },
        rel=1e-12,
    )
    no_bone = m.tissue_errors_hu(pred, true, true < 0)
    assert np.isnan(no_bone["bone_mae_hu"]) and no_bone["air_mae_hu"] == pytest.approx(10)


@pytest.mark.parametrize(
    ("spacing_mm", "expected"), [(1.5, 3.0), ((1.5, 0.7), 1.4)], ids=["one spacing", "per axis"]
)
def test_hd95_of_a_shifted_bone_is_the_shift_in_mm(spacing_mm, expected):
    true = np.full((40, 40), -1000.0)
    true[10:20, 12:22] = 800
    assert distances.bone_hd95_mm(
        np.roll(true, 2, axis=1), true, np.ones_like(true), spacing_mm
    ) == pytest.approx(expected, rel=1e-12)


def test_hd95_sees_bone_that_was_invented_and_bone_that_was_lost():
    true = np.full((40, 40), -1000.0)
    true[10:20, 10:20] = 800
    invented = true.copy()
    # 20 of 56 surface pixels, 15 or more pixels away
    invented[10:20, 34:36] = 800
    mask = np.ones_like(true)
    assert (
        distances.bone_hd95_mm(invented, true, mask, 1)
        == distances.bone_hd95_mm(true, invented, mask, 1)
        == 16
    )


def test_ms_ssim_of_an_inverted_image_is_a_number():
    _, true, mask = head()
    # structure is negative there, and a negative number has no root
    assert 0 <= m.ms_ssim(-true, true, mask, R25) < 0.2


def test_missing_bone_is_named_and_not_scored_as_perfect():
    _, true, mask = head()
    boneless = np.minimum(true, 100)
    assert (
        distances.bone_hd95_mm(boneless, true, mask, 1) == np.inf
        and m.bone_dice(boneless, true, mask) == 0
    )
    assert np.isnan(distances.bone_hd95_mm(true, boneless, mask, 1)) and np.isnan(
        m.bone_dice(boneless, boneless, mask)
    )


def test_a_disk_of_water_is_as_long_as_its_radius():
    y, x = np.indices((129, 129)) - 64.0
    disk = np.hypot(y, x) <= 50
    lengths = distances.wepl_mm(np.where(disk, 0.0, -1000), disk, spacing_mm=2.0)
    # pixels at the rim: 0.7 px = 1.4 mm
    assert lengths == pytest.approx(np.full(36, 101.0), abs=1.5)
    assert distances.wepl_mm(np.where(disk, 950.0, -1000), disk, 2.0) == pytest.approx(
        1.5 * lengths, rel=1e-12
    )
    assert distances.wepl_mm(np.where(disk, -500.0, -1000), disk, 2.0) == pytest.approx(
        0.5 * lengths, rel=1e-12
    )
    # nothing is lighter than air
    assert (distances.wepl_mm(np.where(disk, -1024.0, -1000), disk, 2.0) == 0).all()


def test_wepl_error_of_a_volume_is_the_mean_over_its_slices():
    slices = [head(seed=s) for s in range(3)]
    volume = [np.stack(images) for images in zip(*slices, strict=True)]
    assert distances.wepl_error_mm(*volume, spacing_mm=(3, 1.7, 1.7)) == pytest.approx(
        np.mean([distances.wepl_error_mm(*s, 1.7) for s in slices])
    )
    volume[2][1] = False
    assert distances.wepl_error_mm(*volume, 1.7) == pytest.approx(
        np.mean([distances.wepl_error_mm(*slices[s], 1.7) for s in (0, 2)]), rel=1e-12
    )


def test_rank_correlation_ignores_any_monotone_rescaling_and_needs_variation():
    rng = np.random.default_rng(0)
    true, mask = rng.random((20, 20)), np.ones((20, 20))
    assert m.rank_correlation(np.exp(5 * true), true, mask) == pytest.approx(1, rel=1e-12)
    assert m.rank_correlation(-true, true, mask) == pytest.approx(-1, rel=1e-12)
    assert np.isnan(m.rank_correlation(np.full_like(true, 0.3), true, mask))


def test_nmae_and_contrast_ratios_do_not_depend_on_the_unit_of_mr():
    # 18: a vessel in the grey matter
    mri = np.array([[3.0, 6, 6, 18, 8, 8]])
    tissues = {"csf": mri == 3, "gm": np.isin(mri, (6, 18)), "wm": mri == 8}
    for unit in (1, 170):
        assert m.nmae(0.9 * unit * mri, unit * mri, mri > 0, (-unit, 20 * unit)) == pytest.approx(
            4.9 / 6 / 21, rel=1e-12
        )
        assert m.contrast_ratios(unit * mri, tissues, "wm") == pytest.approx(
            {"csf/wm": 0.375, "gm/wm": 0.75}, rel=1e-12
        )


def test_torch_tensors_and_whole_numbers_are_welcome():
    pred, true, mask = head()
    whole = np.round(pred).astype(np.int16)
    tensors = torch.from_numpy(whole), torch.from_numpy(true), torch.from_numpy(mask)
    assert m.mae_hu(*tensors) == m.mae_hu(whole, true, mask)
    assert m.ssim(*tensors, R23) == m.ssim(whole.astype(float), true, mask.astype(np.uint8), R23)


# ---- bad input, one sentence each


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p, t, k: (p[:-1], t, k), "share one shape"),
        (lambda p, t, k: (p, t, k[None]), "share one shape"),
        (lambda p, t, k: (p[24], t[24], k[24]), "share one shape"),
        (lambda p, t, k: (p[None, None], t[None, None], k[None, None]), "share one shape"),
        (lambda p, t, k: (p, t, k & False), "mask .* is empty"),
        (
            lambda p, t, k: (np.where(p == p.max(), np.nan, p), t, k),
            "prediction holds 1 NaN or infinite",
        ),
        (
            lambda p, t, k: (p, np.where(t == t.max(), np.inf, t), k),
            "truth holds 1 NaN or infinite",
        ),
        (lambda p, t, k: (p, t, np.where(t == t.max(), np.nan, k)), "mask holds 1 NaN or infinite"),
        (lambda p, t, k: (p, t, None), "mask holds 1 NaN"),
        (lambda p, t, k: (p * 1j, t, k), "prediction is not an array of real numbers .*complex"),
        (
            lambda p, t, k: (p, np.ma.masked_less(t, -500), k),
            "truth is not an array of real numbers .*masked",
        ),
        (lambda p, t, k: (p, [[1, 2], [3]], k), "truth is not an array of real numbers"),
        (
            lambda p, t, k: (torch.from_numpy(p).requires_grad_(), t, k),
            "prediction is not an array .*without gradients",
        ),
    ],
    ids=[
        "shape",
        "mask shape",
        "line",
        "4-D",
        "empty",
        "NaN",
        "infinite",
        "NaN in mask",
        "none",
        "complex",
        "masked",
        "ragged",
        "grad",
    ],
)
def test_bad_input_is_refused_by_every_metric(name, spoil, message):
    with pytest.raises(ValueError, match=message):
        METRICS[name][0](*spoil(*head()))


@pytest.mark.parametrize("name", sorted(set(METRICS) - {"rank_correlation"}))
@pytest.mark.parametrize("which", [0, 1], ids=["prediction", "truth"])
@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (lambda hu: (hu / 1000).clip(-1, 1), "cannot be HU .*undo its normalisation"),
        (lambda hu: (hu / 2000 + 0.5).clip(0, 1), "cannot be HU .*undo its normalisation"),
        (lambda hu: (hu + 1000).clip(0) / 1000, "cannot be HU .*undo its normalisation"),
        (lambda hu: (hu - hu.mean()) / hu.std(), "cannot be HU .*undo its normalisation"),
        (
            lambda hu: ((hu + 1000) / 2000 * 255).clip(0, 255).astype(np.uint8),
            "shows no air.*8-bit scaling",
        ),
        (lambda hu: hu.clip(-1000) + 1024, "shows no air.*offset of 1024"),
        (lambda hu: hu + 1024, "shows no air.*offset of 1024"),
    ],
    ids=[
        "network",
        "unit interval",
        "density",
        "z-score",
        "8 bit",
        "stored offset",
        "stored offset with noise in the air",
    ],
)
def test_images_that_cannot_be_hu_are_refused(name, which, wrong, why):
    images = list(head())
    images[which] = wrong(images[which])
    with pytest.raises(ValueError, match=f"the {('prediction', 'truth')[which]} spans .*{why}"):
        METRICS[name][0](*images)


def test_a_storage_offset_is_seen_in_a_small_head_and_a_mask_of_bone_is_no_offset():
    pred, true, mask = head()
    small = [
        np.pad(image, 24, constant_values=fill)
        for image, fill in ((pred + 1024, 24), (true + 1024, 24), (mask, False))
    ]
    with pytest.raises(ValueError, match="prediction spans .*shows no air.*offset of 1024"):
        m.mae_hu(*small)
    assert m.mae_hu(pred, true, true > 700) > 0


def test_half_precision_costs_half_a_hounsfield_unit_at_most():
    pred, true, mask = head()
    assert m.mae_hu(pred.astype(np.float16), true.astype(np.float16), mask) == pytest.approx(
        m.mae_hu(pred, true, mask), abs=0.5
    )


def test_a_crop_without_air_is_scored_or_told_what_to_do():
    # brain only
    pred, true, mask = (image[16:32, 16:32] for image in head())
    assert true.min() > -30 and m.mae_hu(pred, true, mask) == pytest.approx(
        np.abs(pred - true).mean()
    )
    with pytest.raises(
        ValueError,
        match="truth spans .* shows no air.* score the whole slice with the crop as its mask",
    ):
        # nothing below 0: 8-bit grey looks like this, too
        m.mae_hu(pred, np.abs(true), mask)


@pytest.mark.parametrize(
    "name", sorted(set(METRICS) - {"rank_correlation", "bone_hd95_mm", "bias_hu", "soft"})
)
@pytest.mark.parametrize(
    "wrong",
    [
        lambda hu: 0 * hu,
        lambda hu: 0 * hu + 1000,
        lambda hu: hu.clip(0, 80),
        lambda hu: hu.clip(0, 30),
    ],
    ids=["zero", "bone everywhere", "its own brain window", "a narrower one"],
)
def test_predictions_that_are_wrong_but_in_hu_are_scored(name, wrong):
    score, best = METRICS[name]
    pred, true, mask = head()
    good, bad = score(pred, true, mask), score(wrong(true), true, mask)
    assert bad < good if best >= 1 else bad > good


def test_path_lengths_are_scored_in_a_volume_with_a_slice_that_shows_no_air():
    pred, true, mask = (np.stack([image, image]) for image in head())
    true[1] = true[1].clip(0, 300)
    assert distances.wepl_error_mm(pred, true, mask, 1.7) > 0
    assert distances.wepl_mm(true[0].clip(0, 80), mask[0], 1.7).min() > 0


def test_the_range_must_be_the_one_the_truth_is_in():
    mri, mask = np.random.default_rng(0).random((16, 16)) * 700, np.ones((16, 16))
    for score in (m.psnr_db, m.ssim, m.ms_ssim, m.nmae):
        with pytest.raises(
            ValueError, match=r"of the truth .* lies well outside 0 to 1 \(it spans .*: scale"
        ):
            score(mri, mri, mask, (0, 1))
        with pytest.raises(ValueError, match="truth spans .* 0 to 255"):
            # the mistake that makes an SSIM 0.99999
            score(mri / 700, mri / 700, mask, (0, 255))
    assert m.ssim(mri, mri, mask, (0, 700)) == 1
    # one tissue: a 20th of the range
    assert m.nmae(mri / 20 + 350, mri / 20 + 350, mask, (0, 700)) == 0
    # a blank slice
    assert m.nmae(0 * mri, 0 * mri, mask, (0, 700)) == 0
    # what fills the field outside the mask is nobody's business
    outside = np.where(np.arange(16) < 4, mri, -2000)
    assert m.nmae(outside, outside, outside >= 0, (0, 700)) == 0


@pytest.mark.parametrize(
    "unit",
    [lambda mri: 700 * mri, lambda mri: 2 * mri - 1, lambda mri: np.uint8(255 * mri)],
    ids=["raw", "network", "8 bit"],
)
def test_a_prediction_on_another_scale_than_the_true_mr_is_refused(unit):
    # more dark than bright, as MR is
    mri, mask = np.random.default_rng(0).random((16, 16)) ** 1.5, np.ones((16, 16))
    for score in (m.psnr_db, m.ssim, m.ms_ssim, m.nmae):
        with pytest.raises(
            ValueError,
            match="of the prediction inside the mask lies well outside 0 to 1 .*scale prediction "
            "and truth",
        ):
            score(unit(mri), mri, mask, (0, 1))
    # bad, but on this scale
    assert m.nmae(np.full_like(mri, 1.05), mri, mask, (0, 1)) > 0.5
    assert m.nmae(mri + 0.9 * (mri > 0.5), mri, mask, (0, 1)) > 0.2


@pytest.mark.parametrize(
    "value_range",
    [
        None,
        4024,
        (0,),
        (0, 1, 2),
        (1, 1),
        (1, 0),
        (0, np.inf),
        (-np.inf, 0),
        (np.nan, 1),
        ("low", 1),
    ],
)
@pytest.mark.parametrize("score", [m.psnr_db, m.ssim, m.ms_ssim, m.nmae])
def test_a_range_is_two_finite_numbers(score, value_range):
    with pytest.raises(
        ValueError,
        match="value_range must be two finite numbers, low < high, got .*: pass the range",
    ):
        score(*head(), value_range)


@pytest.mark.parametrize(
    "spacing_mm", [None, 0, -1, np.nan, np.inf, (1, 1, 1), (1, np.nan), (), "wide", [[1, 1]]]
)
@pytest.mark.parametrize(
    "score",
    [
        distances.bone_hd95_mm,
        distances.wepl_error_mm,
        lambda p, t, k, mm: distances.wepl_mm(t, k, mm),
    ],
)
def test_a_spacing_is_one_positive_number_or_one_per_axis(score, spacing_mm):
    with pytest.raises(
        ValueError, match="spacing_mm must be one positive number in mm or 2 of them, got "
    ):
        score(*head(), spacing_mm)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda p, t, k: m.ssim(p[:, 20:26], t[:, 20:26], k[:, 20:26], R23),
            "needs 7 pixels along every axis",
        ),
        (lambda p, t, k: m.ssim(p[None], t[None], k[None], R23), "needs 7 pixels along every axis"),
        (lambda p, t, k: m.ssim(p, t, np.indices(k.shape).sum(0) == 0, R23), "too few for SSIM"),
        (
            lambda p, t, k: distances.wepl_mm(t[None], k[None], 1.7),
            r"takes one slice \(H, W\), got \(1, 48, 48\)",
        ),
        (lambda p, t, k: distances.wepl_error_mm(p, t, k, 1.7, rays=0), "at least 1 ray"),
        (
            lambda p, t, k: m.contrast_ratios(t, {"gm": k}, "wm"),
            "the reference tissue 'wm' needs a mask",
        ),
        (lambda p, t, k: m.contrast_ratios(t, {"wm": t < -900}, "wm"), "positive median signal"),
    ],
    ids=[
        "narrow",
        "one slice as a volume",
        "mask at the border",
        "path through a volume",
        "no ray",
        "no reference",
        "negative reference",
    ],
)
def test_metrics_that_cannot_be_computed_say_why(call, message):
    with pytest.raises(ValueError, match=message):
        call(*head())

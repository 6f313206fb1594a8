import json

import numpy as np
import pytest
from scipy import ndimage

from ctmri_utils.scans.formula import head_labels
from ctmri_utils.scans.phantom import draw_patient, majority_labels, render, synthetic_patients
from ctmri_utils.scans.physics import (
    SPGR,
    TISSUES,
    bias_field,
    ct_noise,
    rician_noise,
    spgr_signal,
)

ARRAYS = ("ct_hu", "ct_hu_clean", "mri", "mri_clean", "labels", "head", "lesion", "bias_field")


def label(name):
    return TISSUES[name].label


def pure(labels, name, margin=2):
    """Pixels at least `margin` pixels inside one tissue.

    The blur of render (SD half a pixel) reaches no other.
    """
    return ndimage.binary_erosion(labels == label(name), np.ones((1, 3, 3)), iterations=margin)


@pytest.fixture(scope="module")
def patients():
    return synthetic_patients(12, 64, seed=3, lesion="acute", lesion_fraction=0.5)


@pytest.fixture(scope="module")
def fine():
    """Few but large slices, in which even the cortical tables have pure pixels."""
    return synthetic_patients(4, 384, seed=8)


@pytest.fixture(scope="module")
def volume():
    return synthetic_patients(2, 64, seed=1, slices=16)


def test_arrays_have_the_promised_shapes_types_and_finite_values(patients, volume):
    for scans, shape in ((patients, (12, 64, 64)), (volume, (2, 16, 64, 64))):
        for name in ARRAYS:
            array = getattr(scans, name)
            dtype = {"labels": np.uint8, "head": bool, "lesion": bool}.get(name, np.float32)
            assert array.shape == shape and array.dtype == dtype and np.isfinite(array).all(), name
    assert patients.spacing_mm == 220 / 64 and patients.slice_spacing_mm is None
    assert volume.slice_spacing_mm == pytest.approx(4.0)  # 60 mm over 15 gaps
    # A head must not touch the border.
    assert not patients.head[:, [0, -1]].any() and not patients.head[:, :, [0, -1]].any()


def test_spgr_agrees_with_the_bloch_recursion():
    """Longitudinal magnetisation stepped pulse by pulse until steady.

    An independent route to the same signal.
    """
    pd, t1, t2 = 0.77, 500.0, 70.0
    mz, angle = 1.0, np.deg2rad(SPGR["flip_deg"])
    for _ in range(2000):
        transverse = mz * np.sin(angle)
        mz = 1 + (mz * np.cos(angle) - 1) * np.exp(-SPGR["tr_ms"] / t1)
    expected = pd * transverse * np.exp(-SPGR["te_ms"] / t2)
    # Rounding only.
    assert spgr_signal(pd, t1, t2, **SPGR) == pytest.approx(expected, rel=1e-12)


def test_air_and_cortical_bone_cannot_be_told_apart_by_mr_signal():
    signal = {name: spgr_signal(*t[3:], **SPGR) for name, t in TISSUES.items()}
    assert signal["air"] == 0
    assert signal["cortical bone"] < 1e-6 * signal["white matter"]
    assert signal["sinus air"] < 0.05 * signal["white matter"]


def test_background_of_the_mr_noise_is_rayleigh():
    noise = rician_noise(np.zeros((512, 512)), 2.0, np.random.default_rng(0))
    # 5 standard errors of 262 144 draws
    assert noise.mean() / 2 == pytest.approx(np.sqrt(np.pi / 2), abs=0.006)
    assert noise.std() / 2 == pytest.approx(np.sqrt(2 - np.pi / 2), abs=0.006)


def test_mr_noise_is_relative_to_white_matter(patients):
    white_matter = 1000 * spgr_signal(*TISSUES["white matter"][3:], **SPGR)
    # Beyond the blur's reach.
    outside = ~ndimage.binary_dilation(patients.head, np.ones((1, 3, 3)), iterations=3)
    background = patients.mri[outside]
    # 23 000 pixels: 5 standard errors
    assert background.mean() == pytest.approx(1.2533 * 0.03 * white_matter, rel=0.02)
    assert background.std() == pytest.approx(0.655 * 0.03 * white_matter, rel=0.03)
    loud = synthetic_patients(
        12, 64, seed=3, lesion="acute", lesion_fraction=0.5, mri_noise_percent=9
    )
    # The same draws, three times as large.
    assert loud.mri[outside].mean() == pytest.approx(3 * background.mean(), rel=1e-5)
    assert np.array_equal(loud.ct_hu, patients.ct_hu)
    still = synthetic_patients(2, 64, seed=3, mri_noise_percent=0)
    np.testing.assert_allclose(still.mri, still.mri_clean * still.bias_field, rtol=1e-6)


def test_ct_noise_has_its_sd_and_the_spectrum_of_backprojection():
    size, sd = 128, 5.0
    noise = ct_noise((200, size, size), sd, np.random.default_rng(1))
    assert noise.dtype == np.float32 and noise.std() == pytest.approx(sd, rel=0.01)
    # Each slice: 1 % standard error.
    assert noise.std((1, 2)) == pytest.approx(np.full(200, sd), rel=0.05)
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(0)
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size))
    assert power[0, 0] < 1e-8 * power.max()
    rising = (f > 0) & (f < 0.12)
    slope = np.polyfit(np.log(f[rising]), np.log(power[rising]) + 2 * (f[rising] / 0.25) ** 2, 1)[0]
    # Proportional to frequency once the roll-off is divided out.
    assert slope == pytest.approx(1, abs=0.03)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.05


def test_ct_noise_of_the_patients_is_what_their_parameters_say(patients):
    assert patients.ct_hu.min() >= -1024
    for noisy, clean, head, p in zip(
        patients.ct_hu, patients.ct_hu_clean, patients.head, patients.parameters, strict=True
    ):
        assert 3 <= p["ct_noise_hu"] <= 6
        # 1 900 correlated pixels
        assert (noisy - clean)[head].std() == pytest.approx(p["ct_noise_hu"], rel=0.1)


@pytest.mark.parametrize("percent", [20, 40])
def test_bias_field_spans_its_range_exactly_over_the_head(percent):
    for slices in (1, 4):
        scans = synthetic_patients(3, 64, seed=2, slices=slices, bias_percent=percent)
        for field, head in zip(scans.bias_field, scans.head, strict=True):
            # 20 % is [0.90, 1.10]; float32 rounding
            assert field[head].min() == pytest.approx(1 - percent / 200, abs=1e-6)
            assert field[head].max() == pytest.approx(1 + percent / 200, abs=1e-6)
            assert field.min() > 0


def test_bias_field_is_a_second_order_polynomial_or_absent():
    head = np.ones((5, 32, 32), bool)
    field = bias_field(head, 20, draw_patient("formula", 0, 0)["bias"])
    third_difference = [np.diff(field.astype(float), 3, axis=axis) for axis in range(3)]
    # float32 rounding of a quadratic
    assert max(np.abs(d).max() for d in third_difference) < 1e-6
    assert np.array_equal(
        bias_field(head, 0, draw_patient("formula", 0, 0)["bias"]), np.ones_like(field)
    )
    with pytest.raises(ValueError, match="empty"):
        bias_field(~head, 20, np.ones(9))


@pytest.mark.parametrize(
    "name", ["fat", "cortical bone", "diploe", "csf", "grey matter", "white matter"]
)
def test_pure_voxels_have_the_patients_own_hu_and_the_tables_mr_signal(fine, name):
    where = pure(fine.labels, name)
    expected = 1000 * spgr_signal(*TISSUES[name][3:], **SPGR)
    for ct_hu, mri, inside, p in zip(
        fine.ct_hu_clean, fine.mri_clean, where, fine.parameters, strict=True
    ):
        assert inside.sum() >= 20, name
        # Of the blur beyond 2 pixels = 4 SD, against the largest step, air to bone.
        tail = 0.005 * 2300
        assert abs(np.median(ct_hu[inside]) - p["hu"][name]) < tail
        # Of 72 for white matter.
        assert np.median(mri[inside]) == pytest.approx(expected, abs=0.5)


def test_drawn_hu_follow_the_table():
    drawn = [draw_patient("formula", 4, i)["hu"] for i in range(300)]
    for name, tissue in TISSUES.items():
        values = np.array([hu[name] for hu in drawn])
        # More than 4 standard errors of 300 draws.
        assert abs(values.mean() - tissue.hu) <= 0.25 * tissue.hu_sd
        assert values.std() == pytest.approx(tissue.hu_sd, rel=0.2, abs=1e-9)
    assert all(700 <= hu["cortical bone"] <= 1900 for hu in drawn)


def test_grey_to_white_contrast_is_brainwebs(fine):
    grey, white = (
        np.median(fine.mri_clean[pure(fine.labels, name)])
        for name in ("grey matter", "white matter")
    )
    assert grey / white == pytest.approx(0.75, abs=0.03)
    csf = np.median(fine.mri_clean[pure(fine.labels, "csf")])
    assert csf / white == pytest.approx(0.34, abs=0.02)


def test_every_head_holds_its_parts_in_order_from_the_skin_inwards(patients):
    for labels, head in zip(patients.labels, patients.head, strict=True):
        assert {"air", "skin", "fat", "cortical bone", "csf", "grey matter", "white matter"} <= {
            name for name, t in TISSUES.items() if t.label in labels
        }
        assert ndimage.label(head)[1] == 1 and np.array_equal(ndimage.binary_fill_holes(head), head)
        depth = ndimage.distance_transform_edt(head)
        medians = [
            np.median(depth[labels == label(name)])
            for name in ("skin", "fat", "cortical bone", "grey matter", "white matter")
        ]
        assert medians == sorted(medians)
    assert 0.35 < patients.head.mean() < 0.6


def test_front_is_row_zero_where_the_frontal_sinuses_are():
    scans = synthetic_patients(40, 64, seed=5)
    sinus = scans.labels == label("sinus air")
    # Optional: low slices of some patients.
    assert 5 <= sinus.any((1, 2)).sum() <= 25
    assert not sinus[:, 24:].any()
    # The skull is thickest behind, at the occipital crest.
    crest = scans.labels[:, 32:, 30:35] == label("cortical bone")
    side = scans.labels[:, 30:35, 32:] == label("cortical bone")
    assert crest.sum() > 1.2 * side.sum()


def test_partial_volume_averages_signals_not_labels(patients):
    """The mean of the picture is the mean of the finely drawn tissue values.

    Blur and block mean keep the total.
    """
    p = patients.parameters[0]
    pixels = ((np.arange(128) + 0.5) / 128 - 0.5) * 220
    fine, _ = head_labels(p, pixels, pixels, p["z_mm"][0], p["lesion"])
    hu = np.array([p["hu"][name] for name in TISSUES])
    assert patients.ct_hu_clean[0].mean() == pytest.approx(hu[fine].mean(), abs=0.01)
    assert len(np.unique(patients.ct_hu_clean[0])) > 10 * len(np.unique(fine))


def test_the_same_head_is_drawn_at_every_size():
    small, large = (synthetic_patients(3, size, seed=6, bias_percent=0) for size in (64, 128))
    assert [p["hu"] for p in small.parameters] == [p["hu"] for p in large.parameters]
    # From half a small pixel's blur to a large one's.
    blurred = ndimage.gaussian_filter(large.ct_hu_clean, (0, 0.87, 0.87))
    halved = blurred.reshape(3, 64, 2, 64, 2).mean((2, 4))
    # HU, measured 9: jagged edges of the finer labels
    assert np.abs(halved - small.ct_hu_clean).mean() < 15
    # Measured 124: another patient.
    assert np.abs(halved - small.ct_hu_clean[[1, 2, 0]]).mean() > 80


def test_a_larger_field_of_view_shows_the_same_head_smaller():
    wide, close = (synthetic_patients(3, 64, seed=6, fov_mm=fov) for fov in (220, 198))
    assert close.spacing_mm == pytest.approx(198 / 64)
    ratio = close.head.sum() / wide.head.sum()
    # Less what the smaller field cuts off.
    assert ratio == pytest.approx((220 / 198) ** 2, rel=0.03)


def lesions(fraction):
    """Which of 100 patients have a lesion."""
    scans = synthetic_patients(100, 32, seed=7, lesion="acute", lesion_fraction=fraction)
    return np.array([p["lesion"] == "acute" for p in scans.parameters])


def test_lesion_fraction_is_kept_and_smaller_fractions_are_subsets():
    fewer = np.zeros(100, bool)
    for fraction in (0, 0.1, 0.3, 0.5, 1):
        ill = lesions(fraction)
        # Golden-ratio sequence of 100 points.
        assert abs(ill.sum() - 100 * fraction) <= 2
        assert (ill | ~fewer).all()
        fewer = ill


def test_lesion_mask_marks_exactly_the_patients_that_have_one(patients):
    shown = patients.lesion.any((1, 2))
    assert [p["lesion"] == "acute" for p in patients.parameters] == shown.tolist()
    assert 4 <= shown.sum() <= 8


@pytest.mark.parametrize(
    "kind, brighter_ct, brighter_mri",
    [("acute", True, False), ("subacute", True, True), ("tumour", False, False)],
)
def test_a_lesion_changes_its_own_pixels_with_the_contrast_of_its_kind(
    kind, brighter_ct, brighter_mri
):
    healthy = synthetic_patients(30, 64, seed=9)
    ill = synthetic_patients(30, 64, seed=9, lesion=kind, lesion_fraction=1)
    assert ill.lesion.sum((1, 2)).min() >= 8  # pixels of 3.4 mm: about 1 cm2
    near = np.stack([ndimage.binary_dilation(m, iterations=6) for m in ill.lesion])
    for with_it, without in ((ill.ct_hu, healthy.ct_hu), (ill.mri, healthy.mri)):
        # Same head, same noise; away from the blur of specks below one pixel.
        assert np.abs(with_it - without)[~near].max() < 1e-3
        assert np.abs(with_it - without)[ill.lesion].mean() > 3
    white = pure(ill.labels, "white matter", margin=1)
    core = pure(ill.labels, kind, margin=1)
    ct_contrast = np.median(ill.ct_hu_clean[core]) - np.median(ill.ct_hu_clean[white])
    # SD 6 HU over 30 patients
    assert ct_contrast == pytest.approx(TISSUES[kind].hu - TISSUES["white matter"].hu, abs=4)
    assert (ct_contrast > 0) == brighter_ct
    mr_ratio = np.median(ill.mri_clean[core]) / np.median(ill.mri_clean[white])
    signals = [spgr_signal(*TISSUES[name][3:], **SPGR) for name in (kind, "white matter")]
    assert mr_ratio == pytest.approx(signals[0] / signals[1], rel=0.02)
    assert (mr_ratio > 1) == brighter_mri


@pytest.mark.parametrize("anatomy", ["formula", "atlas"])
def test_the_same_call_gives_the_same_bits_however_many_are_drawn(anatomy):
    options = {"anatomy": anatomy, "lesion": "acute", "lesion_fraction": 0.5}
    patients = synthetic_patients(8, 64, seed=3, **options)
    for first in (0, 1, 2, 5):
        part = synthetic_patients(3, 64, seed=3, **options, first=first)
        for name in ARRAYS:
            same = getattr(patients, name)[first : first + 3]
            assert np.array_equal(getattr(part, name), same), name
        assert part.parameters == patients.parameters[first : first + 3]


def test_different_seeds_share_no_patient():
    radii = [
        draw_patient("formula", seed, i)["half_width_mm"]
        for seed in (0, 1, 2, 2**32 - 1)
        for i in range(250)
    ]
    assert len(set(radii)) == len(radii)
    a, b = synthetic_patients(4, 32, seed=0), synthetic_patients(4, 32, seed=1)
    noise = [(s.ct_hu - s.ct_hu_clean).reshape(4, -1) for s in (a, b)]
    assert np.abs(np.corrcoef(*noise)[:4, 4:]).max() < 0.25  # 1 024 correlated pixels


@pytest.mark.parametrize("anatomy", ["formula", "atlas"])
def test_parameters_survive_json_and_rebuild_the_patient(anatomy):
    patients = synthetic_patients(2, 64, seed=3, anatomy=anatomy, lesion="acute", lesion_fraction=1)
    p = json.loads(json.dumps(patients.parameters[1]))
    rebuilt = render(p, 64)
    for values, name in zip(rebuilt, ("ct_hu_clean", "mri_clean", "labels"), strict=True):
        assert np.array_equal(values[0], getattr(patients, name)[1]), name
    bias = bias_field(patients.head[1][None], p["bias_percent"], p["bias"])
    assert np.array_equal(bias[0], patients.bias_field[1])
    assert (p["seed"], p["index"]) == (3, 1)


@pytest.mark.parametrize(
    ("anatomy", "name"),
    [("formula", "ct_hu_clean"), ("formula", "mri_clean"), ("atlas", "ct_hu_clean")],
)
def test_neighbouring_slices_are_more_alike_than_distant_ones(anatomy, name):
    slices = getattr(synthetic_patients(2, 64, seed=1, slices=16, anatomy=anatomy), name)
    apart = [np.abs(slices[:, gap:] - slices[:, :-gap]).mean() for gap in (1, 2, 4, 8)]
    assert apart == sorted(apart) and apart[0] < 0.35 * apart[3]


def test_from_the_widest_level_upwards_the_head_narrows(volume):
    area = volume.head.sum((2, 3)).astype(float)
    assert (np.diff(area[:, 3:]) < 0).all()


def test_the_skin_is_an_ellipsoid(volume):
    for area, p in zip(volume.head.sum((2, 3)), volume.parameters, strict=True):
        expected = 1 - (np.array(p["z_mm"]) / p["half_height_mm"]) ** 2
        # Outline noise turns with z, pixel count.
        np.testing.assert_allclose(area / area.max(), expected / expected.max(), atol=0.03)


def test_noise_is_independent_from_slice_to_slice(volume):
    noise = (volume.ct_hu - volume.ct_hu_clean).reshape(32, -1)
    # 4 096 correlated pixels
    assert np.abs(np.corrcoef(noise) - np.eye(32)).max() < 0.1


def test_a_lesion_in_a_volume_is_one_blob_over_a_few_slices():
    scans = synthetic_patients(2, 64, seed=1, slices=16, lesion="subacute", lesion_fraction=1)
    for mask, p in zip(scans.lesion, scans.parameters, strict=True):
        levels = np.array(p["z_mm"])[mask.any((1, 2))]
        assert len(levels) >= 3 and (np.diff(levels) < 4.1).all()
        assert np.abs(levels - p["level_mm"]).max() < 1.5 * p["lesion_radius_mm"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"n": 0},
        {"n": 2.0},
        {"size": 31},
        {"seed": -1},
        {"seed": 2**32},
        {"slices": 0},
        {"first": -1},
        {"lesion_fraction": 1.1, "lesion": "acute"},
        {"lesion_fraction": 0.5},
        {"mri_noise_percent": -1},
        {"bias_percent": float("nan")},
        {"fov_mm": "220"},
        {"lesion": "bleed"},
        {"anatomy": "ellipses"},
        {"mri_contrast": "t2"},
    ],
)
def test_bad_arguments_are_refused_by_name(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        synthetic_patients(**{"n": 1} | arguments)


def test_a_tie_of_labels_goes_to_the_higher_one():
    blocks = {5: [[5, 1], [5, 9]], 9: [[1, 9], [9, 1]], 7: [[7, 2], [3, 5]], 0: [[0, 0], [0, 13]]}
    for majority, block in blocks.items():
        assert majority_labels(np.array(block, np.uint8)).tolist() == [[majority]]

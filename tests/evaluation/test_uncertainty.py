"""Doubt is zero where a translation cannot waver, is calibrated to the error, and its two scores
agree with their definitions.
"""

from itertools import product

import numpy as np
import pytest
import torch
from scipy import ndimage

from ctmri_utils.evaluation import uncertainty as d
from ctmri_utils.runs.locations import weights_file
from ctmri_utils.runs.weights import load_translator
from ctmri_utils.scans.datasets import phantom_scans
from ctmri_utils.units import GREY, HU, Scale

RNG = np.random.default_rng(0)
# doubt with ties, errors of both signs
DOUBT, ERROR = RNG.integers(0, 9, (3, 12, 10)) / 2, 200 * RNG.standard_normal((3, 12, 10))
MASK = RNG.random(DOUBT.shape) < 0.7
IMAGES = torch.from_numpy(np.sign(RNG.standard_normal((3, 1, 16, 20)))).float()


class Made:
    """A translator with the given function for each direction."""

    def __init__(self, to_ct, to_mri=lambda images: images):
        self.functions = {"ct": to_ct, "mri": to_mri}

    def translate(self, images, to):
        return self.functions[to](images)


def steady(images):  # pixel by pixel, and deaf to noise
    return 0.5 * images.sign()


def test_every_copy_is_moved_differently_and_comes_back_to_its_place():
    # By at most two pixels, every second one mirrored.
    moves = list(product((False, True), range(-2, 3), range(-2, 3)))
    found = []
    for moved, move_back in d.moved_copies(IMAGES, 3):
        noise = move_back(moved) - IMAGES
        assert noise.abs().max() < 8 * d.NOISE and 0.5 * d.NOISE < noise.std() < 2 * d.NOISE

        for mirrored, *shift in moves:
            upright = IMAGES.flip(-1) if mirrored else IMAGES
            if torch.equal(moved.sign(), upright.roll(shift, (-2, -1))):
                found.append((mirrored, *shift))
    assert [mirrored for mirrored, *_ in found] == [False, True] * (d.MOVES // 2)
    assert len(set(found)) == d.MOVES


def test_a_translator_that_moves_with_the_image_has_no_doubt():
    assert not d.disagreement([Made(steady)], IMAGES, "ct", HU, 0).any()
    there_and_back = Made(lambda images: images + 1, lambda images: images - 1)
    assert d.cycle_residual(there_and_back, IMAGES, "ct", 0).max() < 1e-6


@pytest.mark.parametrize(
    "place",
    [
        lambda images: torch.linspace(-1, 1, images.shape[-1]).expand_as(images),
        lambda images: torch.linspace(-1, 1, images.shape[-2])[:, None].expand_as(images),
        torch.sin,
    ],
    ids=["left from right", "top from bottom", "noise"],
)
def test_what_does_not_move_with_the_image_is_doubted(place):
    assert (d.disagreement([Made(place)], IMAGES, "ct", HU, 0) > 0).all()


def test_disagreement_is_in_hounsfield_units_and_its_noise_is_the_seed_s():
    copy = [Made(lambda images: images)]
    made, again, other = (d.disagreement(copy, IMAGES, "ct", HU, seed) for seed in (0, 0, 1))
    # Of 8 draws: SD is 0.9 of it.
    assert made.shape == (3, 16, 20) and made.mean() == pytest.approx(1000 * d.NOISE, rel=0.1)
    assert np.array_equal(made, again) and not np.array_equal(made, other)


def test_models_disagree_by_the_standard_deviation_of_what_they_say():
    models = [Made(lambda images, share=share: share * images.sign()) for share in (0.1, 0.2, 0.6)]
    expected = np.std([100, 200, 600]) * np.ones((3, 16, 20))
    assert np.allclose(d.disagreement(models, IMAGES, "ct", HU, 0), expected, rtol=1e-5)


def test_a_scale_may_make_one_value_of_several_channels():
    class TwoChannels:
        def from_network(self, images):
            return 10 * images[:, :1] + images[:, 1:]

    def coloured(share):
        return Made(lambda images: torch.cat([images.sign(), share * images.sign()], 1))

    models = [coloured(0), coloured(2)]
    assert np.allclose(d.disagreement(models, IMAGES, "ct", TwoChannels(), 0), 1)


@pytest.mark.parametrize(("to", "expected"), [("ct", 0.5), ("mri", 0.25)])
def test_the_residual_is_what_the_round_trip_has_lost(to, expected):
    """Half by way of CT, a quarter by way of MR; noise is lost alike."""
    model = Made(lambda images: 0.5 * images, lambda images: images if to == "ct" else 1.5 * images)
    two = torch.cat([IMAGES, IMAGES], 1)
    assert d.cycle_residual(model, two, to, 0).shape == (3, 16, 20)
    assert np.allclose(d.cycle_residual(model, two, to, 0), expected, atol=5 * d.NOISE * expected)
    one_channel = torch.tensor([1.0, 0.0])[:, None, None]
    torn = Made(lambda images: images, lambda images: images * one_channel)
    # the mean over channels
    assert np.allclose(d.cycle_residual(torn, two, "ct", 0), 0.5, atol=0.05)


def test_nearness_falls_with_the_distance_to_bone_slice_by_slice():
    ct_hu = np.full((2, 9, 9), 40.0)
    ct_hu[0, 2, 2] = 251
    near = d.near_skull(ct_hu)
    y, x = np.indices((9, 9)) - 2
    assert np.allclose(near[0], np.exp(-np.hypot(y, x))) and not near[1].any()


def signs(seed=0, shape=(3, 40, 40)):
    rng = np.random.default_rng(seed)
    return {"one": rng.random(shape), "two": rng.gamma(2, 1, shape)}


def test_calibration_finds_a_known_relation_inside_the_mask():
    given, noise = signs(), np.random.default_rng(9).normal(0, 1, (3, 40, 40))
    error = 5 + 3 * given["one"] + 7 * given["two"] + noise
    mask = given["one"] > 0.3
    # too high or too low is an error alike
    signed = np.where(noise > 0, 1, -1) * error
    found = d.UncertaintyMap.calibrated(given, np.where(mask, signed, 1e6), mask)
    # 3 standard errors
    assert found.coefficients == pytest.approx({"constant": 5, "one": 3, "two": 7}, abs=0.25)
    assert found(given)[mask].mean() == pytest.approx(error[mask].mean(), abs=0.1)
    design = np.stack([np.ones(mask.sum()), given["one"][mask], given["two"][mask]], 1)
    expected = np.linalg.lstsq(design, error[mask], rcond=None)[0]
    assert np.allclose(list(found.coefficients.values()), expected)


def test_a_sign_that_falls_where_errors_rise_is_not_used():
    given = signs()
    error = 100 - 20 * given["one"] + 2 * given["two"]
    found = d.UncertaintyMap.calibrated(given, error, np.ones((3, 40, 40)))
    constant, one, two = found.coefficients.values()
    assert one == 0 and min(constant, two) >= 0
    assert np.allclose(found(given), constant + two * given["two"])


@pytest.mark.parametrize(
    "change",
    [
        {"mask": np.zeros((3, 40, 40))},
        {"error": np.ones((3, 40, 39))},
        {"signs": {"one": np.ones((2, 40, 40))}},
        {"error": np.full((3, 40, 40), np.nan)},
    ],
    ids=["empty mask", "other error", "other signs", "NaN"],
)
def test_what_cannot_be_calibrated_is_refused(change):
    fit = {"signs": signs(), "error": np.ones((3, 40, 40)), "mask": np.ones((3, 40, 40))}
    with pytest.raises(ValueError):
        d.UncertaintyMap.calibrated(**(fit | change))


@pytest.mark.parametrize("names", [[], ["one"], ["one", "three"]])
def test_a_map_needs_the_signs_it_was_calibrated_on(names):
    calibrated = d.UncertaintyMap({"constant": 1.0, "one": 2.0, "two": 3.0})
    with pytest.raises(ValueError):
        calibrated({name: np.ones(3) for name in names})


@pytest.mark.parametrize(
    "ask",
    [
        lambda: d.disagreement([], IMAGES, "ct", HU, 0),
        lambda: d.uncertainty_signs([], IMAGES, HU, 0),
        lambda: d.uncertainty_signs([Made(steady)], IMAGES, GREY, 0),
        lambda: d.near_skull(np.ones((9, 9))),
    ],
    ids=["no model", "no model, no signs", "no HU", "one slice"],
)
def test_what_gives_no_sign_is_refused(ask):
    with pytest.raises(ValueError):
        ask()


def test_auc_counts_the_pairs_in_the_right_order_and_ties_by_half():
    doubt, error = DOUBT[MASK], np.abs(ERROR[MASK])
    wrong, fine = doubt[error > 100], doubt[error <= 100]
    pairs = [(one > other) + 0.5 * (one == other) for one in wrong for other in fine]
    assert d.auc(DOUBT, ERROR, MASK, 100) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_auc_of_the_error_is_one_of_its_opposite_zero_and_of_noise_a_half():
    error = np.random.default_rng(1).standard_normal((4, 60, 60))
    everywhere = np.ones(error.shape)
    assert d.auc(np.abs(error), error, everywhere, 1) == 1
    assert d.auc(-np.abs(error), error, everywhere, 1) == 0
    noise = np.random.default_rng(2).standard_normal(error.shape)
    # 4 standard deviations of 14,400 pixels
    assert d.auc(noise, error, everywhere, 1) == pytest.approx(0.5, abs=0.02)
    assert d.auc(everywhere, error, everywhere, 1) == 0.5


def test_risk_does_not_depend_on_the_order_of_ties():
    doubt, error = DOUBT[MASK], np.abs(ERROR[MASK])
    shuffled = [np.random.default_rng(seed).permutation(len(doubt)) for seed in range(3000)]
    count = round(0.4 * len(doubt))
    risks = []
    for order in shuffled:
        trusted = np.argsort(doubt[order], kind="stable")[:count]
        risks.append(error[order][trusted].mean())
    assert d.risk_coverage(DOUBT, ERROR, MASK, [0.4])[0] == pytest.approx(np.mean(risks), rel=2e-3)

    unique = DOUBT + 1e-3 * np.random.default_rng(1).random(DOUBT.shape)
    trusted = np.argsort(unique[MASK])
    shares = (1e-9, 0.1, 0.5, 0.99, 1)
    counts = [max(1, round(share * len(doubt))) for share in shares]
    expected = [error[trusted[:count]].mean() for count in counts]
    assert np.allclose(d.risk_coverage(unique, ERROR, MASK, shares), expected)


def test_risk_at_full_coverage_is_the_mean_error():
    doubts = (DOUBT, np.abs(ERROR), np.ones(DOUBT.shape))
    curve, best, blind = (d.risk_coverage(doubt, ERROR, MASK) for doubt in doubts)
    assert curve[-1] == pytest.approx(np.abs(ERROR[MASK]).mean()) == best[-1]
    assert (best <= curve + 1e-9).all() and (np.diff(best) >= 0).all()
    assert np.allclose(blind, curve[-1])


@pytest.mark.parametrize(
    "score", [lambda *given: d.auc(*given, 100), d.risk_coverage], ids=["auc", "risk_coverage"]
)
@pytest.mark.parametrize(
    "given",
    [
        (DOUBT, ERROR, 0 * DOUBT),
        (DOUBT[:2], ERROR, MASK),
        (DOUBT * np.nan, ERROR, MASK),
        (DOUBT, ["a"], MASK),
    ],
    ids=["empty mask", "fewer slices", "NaN", "text"],
)
def test_maps_that_do_not_fit_are_refused(score, given):
    with pytest.raises(ValueError):
        score(*given)


@pytest.mark.parametrize("limit", [1e4, -1])
def test_a_limit_that_finds_nothing_or_everything_is_refused(limit):
    with pytest.raises(ValueError):
        d.auc(DOUBT, ERROR, MASK, limit)


@pytest.mark.parametrize("coverage", [0, 1.1, float("nan"), -0.5])
def test_a_coverage_is_a_share(coverage):
    with pytest.raises(ValueError):
        d.risk_coverage(DOUBT, ERROR, MASK, [0.5, coverage])


@pytest.fixture(scope="module")
def measured():
    """Signs, signed errors in HU, and patients.

    Of lesion-free strangers to calibrate on, of test patients, and of these with a bleed.
    """
    model = load_translator(weights_file("phantom"))

    def of(seed, lesion="none"):
        share = float(lesion != "none")
        test = phantom_scans(1, 10, 64, seed, lesion=lesion, lesion_fraction=share).test
        error = HU.from_network(model.translate(test.mri, "ct"))[:, 0].numpy() - test.truth.ct_hu
        return d.uncertainty_signs([model], test.mri, HU, 0), error, test.truth

    return of(7001), of(7002), of(7002, "acute")


def test_calibrated_uncertainty_finds_errors_better_than_its_parts(measured):
    (known, known_error, calibration), (seen, error, test), _ = measured
    combined = d.UncertaintyMap.calibrated(known, known_error, calibration.head)(seen)
    fake = test.ct_hu + error
    gradient = np.stack([ndimage.gaussian_gradient_magnitude(slice_, 1) for slice_ in fake])
    found = [d.auc(sign, error, test.head, 100) for sign in (*seen.values(), gradient)]
    assert d.auc(combined, error, test.head, 100) > max(0.85, *found)
    # of people it was not fitted on
    assert combined[test.head].mean() == pytest.approx(np.abs(error)[test.head].mean(), rel=0.15)


def test_doubt_stays_below_the_error_of_a_missed_bleed(measured):
    (known, known_error, calibration), (healthy, _, _), (bleeding, error, test) = measured
    doubt = d.UncertaintyMap.calibrated(known, known_error, calibration.head)
    maps = (doubt(healthy), doubt(bleeding), np.abs(error))
    calm, risen, true = (values[test.lesion].mean() for values in maps)
    # It rises, and not nearly enough.
    assert calm < risen < 0.75 * true


def test_a_map_of_the_other_direction_has_the_unit_of_its_scale():
    model = load_translator(weights_file("phantom"))
    ct = phantom_scans(1, 2, 64, 7002).test.ct
    maps = [d.disagreement([model], ct, "mri", Scale(0, high, "MR unit"), 0) for high in (1, 100)]
    assert maps[0].shape == (2, 64, 64)
    assert np.allclose(100 * maps[0], maps[1], rtol=1e-3, atol=1e-4)

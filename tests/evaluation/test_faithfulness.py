"""Every measure is shown a defect that was planted, and the same images without it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from torch import nn

from ctmri_utils.cyclegan.model import CycleGAN
from ctmri_utils.evaluation import faithfulness as f
from ctmri_utils.evaluation import lesions
from ctmri_utils.settings import Architecture


def head(size=64, lesion_hu=None, seed=0, noise_hu=4):
    """A slice of skull, brain and air in HU, optionally with a bleed of 3 pixels' radius.

    Its brain, white matter and lesion.
    """
    rng = np.random.default_rng(seed)
    y, x = np.indices((size, size)) - (size - 1) / 2
    r = np.hypot(y, 1.2 * x)
    brain, lesion = r < 0.36 * size, np.hypot(y - 5, x + 6) < 3
    ct_hu = np.where(brain, 30, np.where(r < 0.43 * size, 900, -1000.0))
    if lesion_hu is not None:
        ct_hu = np.where(lesion, lesion_hu, ct_hu)
    return ct_hu + rng.normal(0, noise_hu, r.shape), brain, brain & ~lesion, lesion


# ---- lesions


@pytest.mark.parametrize(
    ("kept", "recovery"),
    [(1, 1), (0.5, 0.5), (0, 0), (-1, -1)],
    ids=["kept", "half", "erased", "inverted"],
)
def test_contrast_recovery_says_how_much_of_a_lesion_is_left(kept, recovery):
    true, _, white_matter, lesion = head(lesion_hu=70, noise_hu=0)
    pred, *_ = head(lesion_hu=30 + 40 * kept, noise_hu=0)
    assert lesions.lesion_contrast_hu(true, lesion, white_matter) == 40
    assert lesions.lesion_contrast_recovery(pred, true, lesion, white_matter) == pytest.approx(
        recovery
    )
    # calibration is not contrast
    assert lesions.lesion_contrast_recovery(
        pred + 100, true, lesion, white_matter
    ) == pytest.approx(recovery)


@pytest.mark.parametrize("contrast", [-12, 1.5], ids=["dark, as an infarct", "faint"])
def test_contrast_recovery_takes_dark_and_faint_lesions(contrast):
    true, _, white_matter, lesion = head(lesion_hu=30 + contrast, noise_hu=0)
    pred, *_ = head(lesion_hu=30 + contrast / 2, noise_hu=0)
    assert lesions.lesion_contrast_recovery(pred, true, lesion, white_matter) == pytest.approx(0.5)


def test_the_detector_finds_blobs_and_stays_silent_on_healthy_brains():
    with_lesion = [head(lesion_hu=70, seed=s) for s in range(20)]
    healthy = [head(seed=100 + s) for s in range(20)]
    called = [lesions.detects_lesion(ct_hu, brain) for ct_hu, brain, *_ in with_lesion + healthy]
    assert lesions.detection_rates(called, [True] * 20 + [False] * 20) == (1, 0)


@pytest.mark.parametrize(
    ("change", "called"),
    [
        (lambda ct, r: np.where(r < 3, 70, ct), True),
        (lambda ct, r: np.where(r < 3, 60, ct), True),
        (lambda ct, r: np.where(np.eye(64, dtype=bool) & (r < 6), 110, ct), True),
        (lambda ct, r: np.where(r < 3, 50, ct), False),
        (lambda ct, r: np.where(r < 1, 90, ct), False),
        (lambda ct, r: np.where((np.arange(64) == 30) & (r < 6), 70, ct), False),
        (lambda ct, r: np.where((r > 21) & (r < 23), 300, ct), False),
        (lambda ct, r: np.where((np.indices(r.shape) % 8 == 4).all(0), 140, ct), False),
    ],
    ids=[
        "bleed",
        "old bleed",
        "joined at corners",
        "too faint",
        "too small",
        "one pixel thin",
        "at the skull",
        "scattered specks",
    ],
)
def test_what_the_detector_calls_a_bleed(change, called):
    ct_hu, brain, *_ = head(noise_hu=0)
    y, x = np.indices(ct_hu.shape) - 31.5
    assert lesions.detects_lesion(change(ct_hu, np.hypot(y, 1.2 * x)), brain) is called


def test_a_prediction_that_shows_no_air_is_looked_at_too():
    true, brain, white_matter, lesion = head(lesion_hu=70)
    window = true.clip(0, 80)
    assert lesions.detects_lesion(window, brain)
    assert lesions.lesion_contrast_recovery(window, true, lesion, white_matter) == pytest.approx(
        1, abs=0.01
    )


def test_detection_rates_count_each_group_by_itself():
    assert lesions.detection_rates([True, True, False, True], [True, True, True, False]) == (
        pytest.approx(2 / 3),
        1,
    )


# ---- drift


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-1, 5)])
def test_phase_correlation_finds_a_shift_with_its_sign(shift):
    true, *_ = head()
    pred = np.roll(true, shift, axis=(0, 1)) + np.random.default_rng(1).normal(0, 20, true.shape)
    # its resolution
    assert f.shift_px(pred, true) == pytest.approx(shift, abs=0.1)


def test_phase_correlation_finds_half_a_pixel():
    fine, *_ = head(size=128, noise_hu=0)
    true, pred = (
        image.reshape(64, 2, 64, 2).mean((1, 3)) for image in (fine, np.roll(fine, 1, axis=0))
    )
    # its resolution, and aliasing
    assert f.shift_px(pred, true) == pytest.approx((0.5, 0), abs=0.15)


def test_mask_dice_is_the_share_of_overlap():
    one = np.zeros((10, 10), bool)
    one[:, :4] = True
    assert f.mask_dice(one, one) == 1
    assert f.mask_dice(one, np.roll(one, 1, axis=1)) == pytest.approx(0.75)
    assert f.mask_dice(one, np.zeros_like(one)) == 0


# ---- cycles: a is smooth, b_true is its blur, which no F can undo


def smooth(images):
    return nnf.avg_pool2d(nnf.pad(images, (2, 2, 2, 2), mode="circular"), 5, stride=1)


def pair(n=20, size=32):
    a = smooth(torch.randn(n, 1, size, size, generator=torch.Generator().manual_seed(0))) * 1.5
    return a, smooth(a), torch.ones_like(a)


def hiding(a, amplitude=1e-3):
    """An honest-looking translation.

    The blur of a, with what the blur lost added a thousand times weaker.
    """
    return smooth(a) + amplitude * (a - smooth(a))


def revealing(b, amplitude=1e-3):
    """Undoes `hiding` in the Fourier domain.

    Divides by its transfer function, smooth + amplitude (1 - smooth).
    """
    impulse = torch.zeros_like(b[:1])
    impulse[..., 0, 0] = 1
    return torch.fft.ifft2(torch.fft.fft2(b) / torch.fft.fft2(hiding(impulse, amplitude))).real


def test_an_honest_generator_has_ratio_one():
    a, b_true, mask = pair()
    assert f.honesty_ratio(smooth, smooth, a, b_true, mask) == pytest.approx(1, abs=1e-6)


def test_a_generator_that_hides_its_input_is_found_out_by_ratio_and_by_noise():
    a, b_true, mask = (images.double() for images in pair())
    # a scan is never the exact blur
    b_true = b_true + 1e-4 * torch.randn(b_true.shape, generator=torch.Generator().manual_seed(1))
    fake = hiding(a)
    # nobody would see it
    assert (fake - smooth(a)).abs().mean() < 1e-3
    assert f.cycle_error(hiding, revealing, a, mask) < 1e-6
    assert f.honesty_ratio(hiding, revealing, a, b_true, mask) < 0.01
    hidden = f.noise_sensitivity(revealing, fake, a, mask, sigmas=(0, 0.001))
    honest = f.noise_sensitivity(smooth, b_true, a, mask, sigmas=(0, 0.001))
    assert hidden[1] - hidden[0] > 100 * abs(honest[1] - honest[0])


def test_cycle_error_counts_the_mask_only_and_every_image_once():
    a, _, mask = pair(n=19)
    wrong = torch.arange(19.0)[:, None, None, None] / 20
    mask[:, :, :16] = 0
    error = f.cycle_error(lambda a: a, lambda b: torch.where(mask > 0, b + wrong, 99), a, mask)
    assert error == pytest.approx(float(wrong.mean()), rel=1e-6)


def test_generators_are_asked_without_gradients_and_left_in_their_mode():
    G = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Tanh()).train()
    a, b, mask = pair(n=3)
    given = []

    def F(image):
        given.append((image.requires_grad, torch.is_grad_enabled()))
        return G(image)

    by_hand = (G(G(a)) - a).abs().mean().item()
    assert f.cycle_error(G, F, a, mask) == pytest.approx(by_hand, rel=1e-5)
    f.honesty_ratio(G, F, a, b, mask)
    f.noise_sensitivity(F, b, a, mask, sigmas=[0.1])
    assert G.training and given == [(False, False)] * 4


def test_a_trained_translator_is_such_a_generator():
    model = CycleGAN(Architecture(ngf=4, ndf=4, n_blocks=1, n_layers=1))
    a, _, mask = pair(n=3)
    to_ct, to_mri = (
        (lambda images: model.translate(images, "ct", batch_size=2)),
        (lambda images: model.translate(images, "mri")),
    )
    expected = (model.averaged["mri"](model.averaged["ct"](a)) - a).abs().mean().item()
    assert f.cycle_error(to_ct, to_mri, a, mask) == pytest.approx(expected, rel=1e-5)


def test_noise_is_repeatable_scaled_and_absent_at_zero():
    a, b, mask = pair()
    curve = f.noise_sensitivity(lambda part: part, b, b, mask, sigmas=(0, 0.01, 0.02))
    assert curve[0] == 0
    # mean |N(0, 1)| of 20 480 draws
    assert curve[1] == pytest.approx(0.01 * np.sqrt(2 / np.pi), rel=0.02)
    # float32
    assert curve[2] == pytest.approx(2 * curve[1], rel=1e-5)
    # mean 0
    assert (
        f.noise_sensitivity(
            lambda part: part.mean().expand_as(part), b * 0, b * 0, mask, sigmas=(0.1,)
        )[0]
        < 0.005
    )
    one, same, other = (f.noise_sensitivity(smooth, b, a, mask, seed=seed) for seed in (0, 0, 1))
    assert one == same != other
    # cut at 1.5, not refused
    assert f.noise_sensitivity(lambda part: part, mask, mask, mask, sigmas=(5,))[0] < 2.5


# ---- checkerboards


def test_a_planted_checkerboard_has_the_energy_that_was_planted():
    y, x = np.indices((64, 64))
    # variance 1, off the lines
    wave = np.sqrt(2) * np.cos(2 * np.pi * 3 * x / 64)
    for period, stripes in (
        (2, (-1.0) ** y),
        (4, np.sqrt(2) * np.cos(np.pi / 2 * x + np.pi / 4)),
        ("2 x 2", (-1.0) ** (x + y)),
    ):
        image = 500 + wave + 0.1 * stripes
        assert f.checkerboard_db(image) == pytest.approx(10 * np.log10(0.01 / 1.01), abs=1e-6), (
            period
        )
    assert f.checkerboard_db(wave) < -200
    assert f.checkerboard_db(np.stack([wave, (-1.0) ** y])) == pytest.approx(
        10 * np.log10(0.5), abs=1e-6
    )


def test_transposed_convolutions_leave_a_checkerboard_and_resize_convolutions_do_not():
    y, x = np.indices((16, 16)) - 7.5
    blob = torch.tensor(np.exp(-(y**2 + x**2) / 20), dtype=torch.float32)[None, None]
    scores = {"transposed": [], "resized": []}
    for seed in range(5):
        torch.manual_seed(seed)
        up = {
            "transposed": lambda i, o: [nn.ConvTranspose2d(i, o, 3, 2, 1, 1)],
            "resized": lambda i, o: [
                nn.Upsample(scale_factor=2),
                nn.Conv2d(i, o, 3, padding=1, padding_mode="reflect"),
            ],
        }
        for name, layers in up.items():
            net = nn.Sequential(
                *layers(1, 16),
                nn.ReLU(),
                *layers(16, 8),
                nn.ReLU(),
                nn.Conv2d(8, 1, 3, padding=1, padding_mode="reflect"),
            )
            scores[name].append(f.checkerboard_db(net(blob).detach()))
    # dB: more than twice the energy
    assert min(scores["transposed"]) > max(scores["resized"]) + 3, scores


# ---- jitter


def volume():
    z, y, x = np.indices((12, 24, 24))
    return 40 + 30 * np.sin(0.3 * z + 0.2 * y) * np.cos(0.15 * x), np.hypot(y - 11.5, x - 11.5) < 10


def test_jitter_of_a_smooth_volume_is_one_and_of_flickering_slices_more():
    true, mask = volume()
    flicker = 40 * (-1.0) ** np.arange(12)[:, None, None]
    assert f.slice_jitter(true + 100, true, mask) == pytest.approx(1, rel=1e-12)
    assert f.slice_jitter(2 * true, true, mask) == pytest.approx(2, rel=1e-12)
    assert f.slice_jitter(true + flicker, true, mask) > 5
    mask[5] = False
    # outside does not count
    assert f.slice_jitter(np.where(mask, true, flicker), true, mask) == pytest.approx(1, rel=1e-12)


# ---- bad input, one sentence each

A, B, M = pair(n=2, size=8)
CT, BRAIN, WM, LESION = head(lesion_hu=70)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lesions.lesion_contrast_hu(CT, LESION & False, WM), "mask .* is empty"),
        (
            lambda: lesions.lesion_contrast_recovery(CT, head(noise_hu=0)[0], LESION, WM),
            "contrast to white matter .* is 0 HU.*leave this patient",
        ),
        (
            lambda: lesions.lesion_contrast_recovery(
                CT, head(noise_hu=0, lesion_hu=30.5)[0], LESION, WM
            ),
            "contrast to white matter .* is 0.5 HU",
        ),
        (
            lambda: lesions.lesion_contrast_hu(CT, LESION, np.where(WM, np.nan, 0)),
            "mask holds .* NaN",
        ),
        (lambda: lesions.detects_lesion((CT / 1000).clip(-1, 1), BRAIN), "cannot be HU"),
        (
            lambda: lesions.detects_lesion(np.stack([CT, CT]), np.stack([BRAIN, BRAIN])),
            r"takes one slice \(H, W\), got \(2, 64, 64\)",
        ),
        (
            lambda: lesions.detects_lesion(CT, np.abs(np.indices(CT.shape)[0] - 30) < 3),
            "320 pixels only 0 lie.*leave this slice out",
        ),
        (
            lambda: lesions.detection_rates([True, np.nan], [True, False]),
            "list of calls holds 1 NaN",
        ),
        (lambda: f.shift_px(np.stack([CT, CT]), np.stack([CT, CT])), r"takes one slice \(H, W\)"),
        (lambda: f.mask_dice(BRAIN, np.where(BRAIN, np.nan, 0)), "mask holds .* NaN"),
        (lambda: f.cycle_error(smooth, smooth, A, M * torch.nan), "mask holds 128 NaN"),
        (lambda: f.noise_sensitivity(smooth, B, A, M, sigmas=[torch.nan]), "b must be"),
        (lambda: f.noise_sensitivity(smooth, B.numpy(), A, M), "b must be a tensor"),
        (
            lambda: f.checkerboard_db(np.zeros((0, 8, 8))),
            r"needs images \(\.\.\., H, W\), at least one",
        ),
        (lambda: f.checkerboard_db(np.full((8, 8), np.nan)), "stack of images holds 64 NaN"),
        (
            lambda: lesions.detection_rates([True, False], [True, True]),
            "patients with and without a lesion",
        ),
        (lambda: lesions.detection_rates([True], [True, False]), "one call for each"),
        (lambda: f.shift_px(np.full_like(CT, 40), CT), "constant image has no position"),
        (lambda: f.shift_px(CT[:32], CT), "share one shape"),
        (lambda: f.mask_dice(BRAIN & False, BRAIN & False), "at least one of them not empty"),
        (lambda: f.mask_dice(BRAIN, BRAIN[1:]), "two masks of one shape"),
        (
            lambda: f.cycle_error(smooth, smooth, A[0], M[0]),
            r"a must be .* \(N, 1, H, W\) in \[-1, 1\], got Tensor \(1, 8, 8\)",
        ),
        (lambda: f.cycle_error(smooth, smooth, 1000 * A, M), "a must be a tensor of finite images"),
        (
            lambda: f.cycle_error(smooth, smooth, A * torch.nan, M),
            "a must be a tensor of finite images",
        ),
        (
            lambda: f.cycle_error(smooth, smooth, A[:0], M[:0]),
            "a must be a tensor of finite images",
        ),
        (
            lambda: f.cycle_error(smooth, smooth, A[..., :0], M[..., :0]),
            "a must be a tensor of finite images",
        ),
        (
            lambda: f.cycle_error(smooth, smooth, A.numpy(), M),
            r"a must be a tensor .* got ndarray \(2, 1, 8, 8\)",
        ),
        (lambda: f.return_error(smooth, 1000 * B, A, M), "b must be a tensor of finite images"),
        (lambda: f.cycle_error(smooth, smooth, A, M * 0), "mask .* not empty"),
        (lambda: f.return_error(smooth, B[:1], A, M), "must share one shape"),
        (lambda: f.return_error(smooth, B, A, M[:, :, :4]), "must share one shape"),
        (lambda: f.honesty_ratio(smooth, lambda part: part, A, A, M), "honesty ratio is undefined"),
        (lambda: f.checkerboard_db(CT[:63]), "multiples of 4"),
        (lambda: f.checkerboard_db(CT[:, :63]), "multiples of 4"),
        (lambda: f.checkerboard_db(CT[0]), "needs images"),
        (lambda: f.checkerboard_db(np.ones((8, 8))), "constant image"),
        (lambda: f.slice_jitter(CT, CT, BRAIN), "pass a volume"),
        (lambda: f.slice_jitter(CT[None], CT[None], BRAIN[None]), "mask spans two"),
        (
            lambda: f.slice_jitter(
                np.stack([CT, -CT]), np.stack([CT, CT]), np.stack([BRAIN, BRAIN])
            ),
            "jitter is undefined",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("a", "F", "sentence"),
    [
        (torch.full((1, 1, 8, 8), torch.nan), lambda b: b, "a must be a tensor of finite"),
        (
            torch.full((1, 1, 8, 8), 900.0),
            lambda b: b,
            r"a must be a tensor of finite images \(N, 1, H, W\) in \[-1, 1\]",
        ),
        (torch.zeros(1, 1, 8, 8), lambda b: b[..., :4], "F returned"),
        (torch.zeros(1, 1, 8, 8), lambda b: b * torch.nan, "F returned.*not finite"),
    ],
)
def test_a_broken_scan_or_generator_is_refused(a, F, sentence):
    with pytest.raises(ValueError, match=sentence):
        f.return_error(F, torch.zeros(1, 1, 8, 8), a, torch.ones(1, 1, 8, 8))

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


@pytest.mark.parametrize(
    ("kept", "recovery"),
    [(1, 1), (0.5, 0.5), (0, 0), (-1, -1)],
    ids=["kept", "half", "erased", "inverted"],
)
def test_contrast_recovery_says_how_much_of_a_lesion_is_left(kept, recovery):
    true, _, white_matter, lesion = head(lesion_hu=70, noise_hu=0)
    pred, *_ = head(lesion_hu=30 + 40 * kept, noise_hu=0)
    assert lesions.lesion_contrast_hu(true, lesion, white_matter) == 40
    # Calibration is not contrast.
    for image in (pred, pred + 100):
        found = lesions.lesion_contrast_recovery(image, true, lesion, white_matter)
        assert found == pytest.approx(recovery)


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


BLEEDS = {
    "bleed": lambda ct, r: np.where(r < 3, 70, ct),
    "old bleed": lambda ct, r: np.where(r < 3, 60, ct),
    "joined at corners": lambda ct, r: np.where(np.eye(64, dtype=bool) & (r < 6), 110, ct),
}
NO_BLEEDS = {
    "too faint": lambda ct, r: np.where(r < 3, 50, ct),
    "too small": lambda ct, r: np.where(r < 1, 90, ct),
    "one pixel thin": lambda ct, r: np.where((np.arange(64) == 30) & (r < 6), 70, ct),
    "at the skull": lambda ct, r: np.where((r > 21) & (r < 23), 300, ct),
    "scattered specks": lambda ct, r: np.where((np.indices((64, 64)) % 8 == 4).all(0), 140, ct),
}


@pytest.mark.parametrize("name", BLEEDS | NO_BLEEDS)
def test_what_the_detector_calls_a_bleed(name):
    ct_hu, brain, *_ = head(noise_hu=0)
    y, x = np.indices(ct_hu.shape) - 31.5
    changed = (BLEEDS | NO_BLEEDS)[name](ct_hu, np.hypot(y, 1.2 * x))
    assert lesions.detects_lesion(changed, brain) is (name in BLEEDS)


def test_a_prediction_that_shows_no_air_is_looked_at_too():
    true, brain, white_matter, lesion = head(lesion_hu=70)
    window = true.clip(0, 80)
    assert lesions.detects_lesion(window, brain)
    recovery = lesions.lesion_contrast_recovery(window, true, lesion, white_matter)
    assert recovery == pytest.approx(1, abs=0.01)


def test_detection_rates_count_each_group_by_itself():
    rates = lesions.detection_rates([True, True, False, True], [True, True, True, False])
    assert rates == (pytest.approx(2 / 3), 1)


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


# Of the cycles below, the image is smooth and the true other one its blur, which nothing undoes.


def smooth(images):
    return nnf.avg_pool2d(nnf.pad(images, (2, 2, 2, 2), mode="circular"), 5, stride=1)


def pair(n=20, size=32):
    noise = torch.randn(n, 1, size, size, generator=torch.Generator().manual_seed(0))
    image = smooth(noise) * 1.5
    return image, smooth(image), torch.ones_like(image)


def hiding(image, amplitude=1e-3):
    """An honest-looking translation.

    The blur of the image, with what the blur lost added a thousand times weaker.
    """
    return smooth(image) + amplitude * (image - smooth(image))


def revealing(hidden, amplitude=1e-3):
    """Undoes `hiding` in the Fourier domain.

    Divides by its transfer function, smooth + amplitude (1 - smooth).
    """
    impulse = torch.zeros_like(hidden[:1])
    impulse[..., 0, 0] = 1
    return torch.fft.ifft2(torch.fft.fft2(hidden) / torch.fft.fft2(hiding(impulse, amplitude))).real


def test_an_honest_generator_has_ratio_one():
    image, true_other, mask = pair()
    assert f.honesty_ratio(smooth, smooth, image, true_other, mask) == pytest.approx(1, abs=1e-6)


def test_ratio_and_noise_reveal_a_generator_that_hides_its_input():
    image, true_other, mask = (images.double() for images in pair())
    # a scan is never the exact blur
    generator = torch.Generator().manual_seed(1)
    true_other = true_other + 1e-4 * torch.randn(true_other.shape, generator=generator)
    fake = hiding(image)
    # nobody would see it
    assert (fake - smooth(image)).abs().mean() < 1e-3
    assert f.cycle_error(hiding, revealing, image, mask) < 1e-6
    assert f.honesty_ratio(hiding, revealing, image, true_other, mask) < 0.01
    hidden = f.noise_sensitivity(revealing, fake, image, mask, sigmas=(0, 0.001))
    honest = f.noise_sensitivity(smooth, true_other, image, mask, sigmas=(0, 0.001))
    assert hidden[1] - hidden[0] > 100 * abs(honest[1] - honest[0])


def test_cycle_error_counts_the_mask_only_and_every_image_once():
    image, _, mask = pair(n=19)
    wrong = torch.arange(19.0)[:, None, None, None] / 20
    mask[:, :, :16] = 0

    def back(same):
        return torch.where(mask > 0, same + wrong, 99)

    error = f.cycle_error(lambda same: same, back, image, mask)
    assert error == pytest.approx(float(wrong.mean()), rel=1e-6)


def test_generators_are_asked_without_gradients_and_left_in_their_mode():
    translate = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Tanh()).train()
    image, true_other, mask = pair(n=3)
    given = []

    def back(image):
        given.append((image.requires_grad, torch.is_grad_enabled()))
        return translate(image)

    by_hand = (translate(translate(image)) - image).abs().mean().item()
    assert f.cycle_error(translate, back, image, mask) == pytest.approx(by_hand, rel=1e-5)
    f.honesty_ratio(translate, back, image, true_other, mask)
    f.noise_sensitivity(back, true_other, image, mask, sigmas=[0.1])
    assert translate.training and given == [(False, False)] * 4


def test_a_trained_translator_is_such_a_generator():
    model = CycleGAN(Architecture(ngf=4, ndf=4, n_blocks=1, n_layers=1))
    image, _, mask = pair(n=3)

    def to_ct(images):
        return model.translate(images, "ct", batch_size=2)

    def to_mri(images):
        return model.translate(images, "mri")

    expected = (model.averaged["mri"](model.averaged["ct"](image)) - image).abs().mean().item()
    assert f.cycle_error(to_ct, to_mri, image, mask) == pytest.approx(expected, rel=1e-5)


def test_noise_is_repeatable_scaled_and_absent_at_zero():
    image, true_other, mask = pair()
    unchanged = (lambda part: part, true_other, true_other, mask)
    curve = f.noise_sensitivity(*unchanged, sigmas=(0, 0.01, 0.02))
    assert curve[0] == 0
    # mean |N(0, 1)| of 20 480 draws
    assert curve[1] == pytest.approx(0.01 * np.sqrt(2 / np.pi), rel=0.02)
    # float32
    assert curve[2] == pytest.approx(2 * curve[1], rel=1e-5)
    # Its mean is 0.
    black = torch.zeros_like(image)
    mean = f.noise_sensitivity(
        lambda noisy: noisy.mean().expand_as(noisy), black, black, mask, sigmas=(0.1,)
    )
    assert mean[0] < 0.005
    cycle = (smooth, true_other, image, mask)
    one, again, other = (f.noise_sensitivity(*cycle, seed=seed) for seed in (0, 0, 1))
    assert one == again != other
    # cut at 1.5, not refused
    assert f.noise_sensitivity(lambda part: part, mask, mask, mask, sigmas=(5,))[0] < 2.5


def test_a_planted_checkerboard_has_the_energy_that_was_planted():
    y, x = np.indices((64, 64))
    # variance 1, off the lines
    wave = np.sqrt(2) * np.cos(2 * np.pi * 3 * x / 64)
    # Periods of 2 and 4, and squares of 2 x 2.
    of_4 = np.sqrt(2) * np.cos(np.pi / 2 * x + np.pi / 4)
    for stripes in ((-1.0) ** y, of_4, (-1.0) ** (x + y)):
        level_db = f.checkerboard_db(500 + wave + 0.1 * stripes)
        assert level_db == pytest.approx(10 * np.log10(0.01 / 1.01), abs=1e-6)

    assert f.checkerboard_db(wave) < -200
    half_db = f.checkerboard_db(np.stack([wave, (-1.0) ** y]))
    assert half_db == pytest.approx(10 * np.log10(0.5), abs=1e-6)


def test_only_transposed_convolutions_leave_a_checkerboard():
    y, x = np.indices((16, 16)) - 7.5
    blob = torch.tensor(np.exp(-(y**2 + x**2) / 20), dtype=torch.float32)[None, None]

    def transposed(inputs, outputs):
        return [nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, 1)]

    def resized(inputs, outputs):
        return [nn.Upsample(scale_factor=2), reflecting(inputs, outputs)]

    def reflecting(inputs, outputs):
        return nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect")

    levels = {transposed: [], resized: []}
    for seed in range(5):
        torch.manual_seed(seed)
        for enlarge, found in levels.items():
            relu = nn.ReLU()
            net = nn.Sequential(*enlarge(1, 16), relu, *enlarge(16, 8), relu, reflecting(8, 1))
            found.append(f.checkerboard_db(net(blob).detach()))
    # In dB: more than twice the energy.
    assert min(levels[transposed]) > max(levels[resized]) + 3, levels


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


IMAGE, OTHER, MASK = pair(n=2, size=8)
CT, BRAIN, WM, LESION = head(lesion_hu=70)
FLAT, FAINT = head(noise_hu=0)[0], head(noise_hu=0, lesion_hu=30.5)[0]
RIM = np.abs(np.indices(CT.shape)[0] - 30) < 3
CTS, BRAINS = np.stack([CT, CT]), np.stack([BRAIN, BRAIN])


def broken(b):
    return b * torch.nan


REFUSALS = {
    "no lesion": lambda: lesions.lesion_contrast_hu(CT, LESION & False, WM),
    "NaN in a mask": lambda: lesions.lesion_contrast_hu(CT, LESION, np.where(WM, np.nan, 0)),
    "no contrast": lambda: lesions.lesion_contrast_recovery(CT, FLAT, LESION, WM),
    "hardly any": lambda: lesions.lesion_contrast_recovery(CT, FAINT, LESION, WM),
    "network's range": lambda: lesions.detects_lesion((CT / 1000).clip(-1, 1), BRAIN),
    "volume": lambda: lesions.detects_lesion(CTS, BRAINS),
    "no inside": lambda: lesions.detects_lesion(CT, RIM),
    "no call": lambda: lesions.detection_rates([True, np.nan], [True, False]),
    "nobody healthy": lambda: lesions.detection_rates([True, False], [True, True]),
    "a call too few": lambda: lesions.detection_rates([True], [True, False]),
    "shift of volumes": lambda: f.shift_px(CTS, CTS),
    "shift of nothing": lambda: f.shift_px(np.full_like(CT, 40), CT),
    "shift of other sizes": lambda: f.shift_px(CT[:32], CT),
    "NaN in a mask's dice": lambda: f.mask_dice(BRAIN, np.where(BRAIN, np.nan, 0)),
    "empty masks": lambda: f.mask_dice(BRAIN & False, BRAIN & False),
    "other masks": lambda: f.mask_dice(BRAIN, BRAIN[1:]),
    "one image": lambda: f.cycle_error(smooth, smooth, IMAGE[0], MASK[0]),
    "other units": lambda: f.cycle_error(smooth, smooth, 1000 * IMAGE, MASK),
    "NaN image": lambda: f.cycle_error(smooth, smooth, IMAGE * torch.nan, MASK),
    "no image": lambda: f.cycle_error(smooth, smooth, IMAGE[:0], MASK[:0]),
    "no pixel": lambda: f.cycle_error(smooth, smooth, IMAGE[..., :0], MASK[..., :0]),
    "array": lambda: f.cycle_error(smooth, smooth, IMAGE.numpy(), MASK),
    "empty mask": lambda: f.cycle_error(smooth, smooth, IMAGE, MASK * 0),
    "NaN in the cycle's mask": lambda: f.cycle_error(smooth, smooth, IMAGE, MASK * torch.nan),
    "other units of the other": lambda: f.return_error(smooth, 1000 * OTHER, IMAGE, MASK),
    "fewer images": lambda: f.return_error(smooth, OTHER[:1], IMAGE, MASK),
    "other mask": lambda: f.return_error(smooth, OTHER, IMAGE, MASK[:, :, :4]),
    "smaller return": lambda: f.return_error(lambda part: part[..., :4], OTHER, IMAGE, MASK),
    "broken return": lambda: f.return_error(broken, OTHER, IMAGE, MASK),
    "same tensor": lambda: f.honesty_ratio(smooth, lambda part: part, IMAGE, IMAGE, MASK),
    "no sigma": lambda: f.noise_sensitivity(smooth, OTHER, IMAGE, MASK, sigmas=[torch.nan]),
    "noise on an array": lambda: f.noise_sensitivity(smooth, OTHER.numpy(), IMAGE, MASK),
    "grid of none": lambda: f.checkerboard_db(np.zeros((0, 8, 8))),
    "grid of NaN": lambda: f.checkerboard_db(np.full((8, 8), np.nan)),
    "grid of odd rows": lambda: f.checkerboard_db(CT[:63]),
    "grid of odd columns": lambda: f.checkerboard_db(CT[:, :63]),
    "grid of a line": lambda: f.checkerboard_db(CT[0]),
    "grid of a constant": lambda: f.checkerboard_db(np.ones((8, 8))),
    "jitter of a slice": lambda: f.slice_jitter(CT, CT, BRAIN),
    "jitter of one": lambda: f.slice_jitter(CT[None], CT[None], BRAIN[None]),
    "jitter of copies": lambda: f.slice_jitter(np.stack([CT, -CT]), CTS, BRAINS),
}


@pytest.mark.parametrize("call", REFUSALS.values(), ids=REFUSALS)
def test_bad_input_is_refused(call):
    with pytest.raises(ValueError):
        call()

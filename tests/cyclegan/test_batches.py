"""Training batches: every slice once a round, the same for the same seed and step, and moved."""

import numpy as np
import pytest
import torch

from ctmri_utils import files
from ctmri_utils.cyclegan import batches as module
from ctmri_utils.cyclegan.augmentation import Augmentation, seeded
from ctmri_utils.cyclegan.batches import Slices, UnpairedBatches, compact
from ctmri_utils.cyclegan.engine import Worker
from ctmri_utils.settings import Training

STILL = {"flip": False, "shift": 0.0}


def numbered(count, size=32):
    """Slices whose every pixel is their number, on the 16-bit grid."""
    return (torch.arange(count).float() / 1000)[:, None, None, None].expand(-1, 1, size, size)


def noise(count, size=32):
    return torch.rand(count, 1, size, size) * 2 - 1


def draw(ct, mri, seed=0, worker=Worker(), **training):
    return UnpairedBatches(Slices(ct, mri), Training(**training), seed, worker)


def moved(training, image, times, brighten=False):
    """One slice, (C, H, W), moved many times."""
    augmentation = Augmentation(training, image.shape[-2:])
    results = []
    for k in range(times):
        with seeded(0, k):
            result = augmentation.move(image)
            results.append(augmentation.brighten(result) if brighten else result)
    return torch.stack(results)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_slice_comes_once_a_round_whatever_the_processes(processes):
    workers = [Worker(process=k, processes=processes) for k in range(processes)]
    slices = numbered(6), numbered(10)
    parts = [draw(*slices, worker=worker, batch_size=2, **STILL) for worker in workers]
    for modality, count in ((0, 6), (1, 10)):
        seen = [
            round(float(image[0, 0, 0]) * 1000)
            for step in range(30)
            for part in parts
            for image in part(step)[modality]
        ]
        rounds = [seen[start : start + count] for start in range(0, len(seen) - count + 1, count)]
        assert len(rounds) >= 6
        assert all(sorted(order) == list(range(count)) for order in rounds)
        assert len({tuple(order) for order in rounds}) > 1  # shuffled anew each time


def test_two_processes_see_what_one_sees_with_the_double_batch():
    slices = noise(5), noise(7)
    options = {"rotation_deg": 5, "jitter": 0.1}
    whole = draw(*slices, batch_size=4, **options)
    workers = [Worker(process=k, processes=2) for k in (0, 1)]
    halves = [draw(*slices, worker=worker, batch_size=2, **options) for worker in workers]
    for step in (0, 3, 11):
        for modality in (0, 1):
            together = torch.cat([half(step)[modality] for half in halves])
            assert torch.equal(together, whole(step)[modality])


def test_batches_depend_on_seed_and_step_alone():
    slices = noise(5), noise(7)
    first, same_seed, other_seed = (draw(*slices, seed=seed) for seed in (1, 1, 2))
    expected = {step: first(step)[0] for step in (9, 2, 5)}
    torch.rand(100)
    assert all(torch.equal(same_seed(step)[0], batch) for step, batch in expected.items())
    assert not all(torch.equal(other_seed(step)[0], first(step)[0]) for step in range(5))


def test_the_modalities_are_drawn_independently():
    """Paired slices would come together every time if one order served both."""
    same = draw(numbered(100), numbered(100), **STILL)
    # 1 expected by chance, Poisson
    assert sum(torch.equal(*same(step)) for step in range(100)) < 6


def test_compact_keeps_sixteen_bits():
    images = torch.rand(70, 2, 8, 8) * 2 - 1
    stored = compact(images)
    assert stored.dtype == torch.int16
    assert stored.element_size() * 2 == images.element_size()
    # rounding, and float32
    assert (stored / module.LEVELS - images).abs().max() <= 0.5 / module.LEVELS + 1e-7


def test_large_sets_are_mapped_from_a_file(monkeypatch):
    slices = noise(5), noise(7)
    in_memory = draw(*slices, batch_size=3)
    mapped = []
    memmap = np.memmap
    monkeypatch.setattr(files, "LARGE", 1000)
    monkeypatch.setattr(
        np, "memmap", lambda *args, **kw: mapped.append(kw["shape"]) or memmap(*args, **kw)
    )
    on_disk = draw(*slices, batch_size=3)
    assert mapped == [(5, 1, 32, 32), (7, 1, 32, 32)]
    for step in range(4):
        for batch, mapped in zip(in_memory(step), on_disk(step), strict=True):
            assert torch.equal(batch, mapped)


def test_load_size_resizes_once_and_crop_cuts_out():
    ramp = torch.linspace(-1, 1, 32).expand(3, 1, 32, 32)
    batch, _ = draw(ramp, ramp, load_size=64, crop_size=48, **STILL)(0)
    assert batch.shape == (1, 1, 48, 48)
    # Rows are alike in a horizontal ramp, to 16 bits.
    torch.testing.assert_close(batch[0, 0, 0], batch[0, 0, 47], atol=1e-4, rtol=0)
    slope = (batch[0, 0, 0, 30] - batch[0, 0, 0, 10]) / 20
    # half as steep, at twice the pixels
    assert slope.item() == pytest.approx(2 / 31 / 2, rel=0.02)


def test_shifts_are_whole_pixels_and_mirroring():
    """Every one is one of the 3 x 3 shifts of the slice or of its mirror image; what moves in is
    background.
    """
    image = torch.rand(1, 32, 32) * 2 - 1
    padded = torch.nn.functional.pad(image, [1] * 4, value=-1)
    shifts = [
        padded[..., top : top + 32, left : left + 32] for top in range(3) for left in range(3)
    ]
    allowed = shifts + [shift.flip(-1) for shift in shifts]
    seen = [
        next(i for i, candidate in enumerate(allowed) if torch.equal(candidate, image_moved))
        for image_moved in moved(Training(), image, 400)
    ]
    assert set(seen) == set(range(18))
    # 400 coin tosses: one sigma is 0.025
    assert sum(i >= 9 for i in seen) / len(seen) == pytest.approx(0.5, abs=0.1)


def test_crops_come_from_everywhere_and_copy_pixels():
    image = torch.rand(2, 24, 20) * 2 - 1
    # 45 places: one is missed with a chance of 1e-4
    crops = moved(Training(crop_size=16, **STILL), image, 600)
    windows = image.unfold(1, 16, 1).unfold(2, 16, 1)  # (2, 9, 5, 16, 16)
    places = {
        next(
            (top, left)
            for top in range(9)
            for left in range(5)
            if torch.equal(windows[:, top, left], crop)
        )
        for crop in crops
    }
    assert len(places) == 45


def test_rotation_turns_within_the_angle_also_in_oblong_slices():
    """Against SciPy's rotation of the same image, in the middle where both know every pixel."""
    from scipy.ndimage import gaussian_filter, rotate

    image = gaussian_filter(np.random.default_rng(0).standard_normal((40, 64)), 3)
    image /= np.abs(image).max()
    tensor = torch.from_numpy(image).float()[None]
    turned = moved(Training(rotation_deg=30, **STILL), tensor, 40)[:, 0, 12:28, 24:40].numpy()
    angles = np.arange(-30, 30.1, 0.5)
    candidates = np.stack([rotate(image, a, reshape=False, order=1) for a in angles])
    errors = np.abs(turned[:, None] - candidates[:, 12:28, 24:40]).max((2, 3))
    # Bilinear in both; half a degree moves the corner of the middle by 0.1 pixels.
    assert errors.min(1).max() < 0.03
    rotations = angles[errors.argmin(1)]
    assert rotations.min() < -20
    assert rotations.max() > 20


def test_what_rotation_moves_in_is_background():
    turned = moved(Training(rotation_deg=45, **STILL), torch.ones(1, 32, 32), 8)
    assert turned.min().item() == pytest.approx(-1, abs=1e-6)
    assert turned[..., 16, 16].min().item() == pytest.approx(1, abs=1e-6)


def test_what_torch_draws_elsewhere_is_left_alone():
    batches = draw(numbered(3), numbered(3), rotation_deg=5, jitter=0.1)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    batches(0)
    assert torch.equal(torch.rand(3), expected)


def test_jitter_brightens_mr_alone_and_keeps_its_background():
    ct, mri = torch.full((4, 1, 32, 32), 0.25), torch.full((4, 1, 32, 32), 0.0)
    mri[..., 0] = -1
    batches = draw(ct, mri, jitter=0.3, **STILL)
    pairs = [batches(step) for step in range(20)]
    assert all(torch.allclose(new_ct, ct[:1], atol=1e-4) for new_ct, _ in pairs)
    gains = torch.stack([new_mri[0, 0, 0, 5] + 1 for _, new_mri in pairs])
    assert all(new_mri[0, 0, 0, 0] == -1 for _, new_mri in pairs)
    assert 0.7 <= gains.min() < 0.85
    assert 1.15 < gains.max() <= 1.3


def test_nothing_leaves_the_range():
    """Neither the overshoot of a bicubic resize, which would wrap around in 16 bits, nor a
    brightened white.
    """
    edges = torch.where(torch.arange(32) % 16 < 8, -1.0, 1.0).expand(2, 1, 32, 32)
    resized = compact(edges, 96) / module.LEVELS
    assert (resized - torch.nn.functional.interpolate(edges, (96, 96))).abs().mean() < 0.2
    assert moved(Training(jitter=0.5, **STILL), edges[0], 5, brighten=True).max() == 1


def test_the_modalities_are_moved_independently():
    same = noise(1)
    batches = draw(same, same)
    # 2 expected by chance, of 18 ways to move
    assert sum(torch.equal(*batches(step)) for step in range(36)) < 12


def test_paired_slices_come_together_and_move_as_one():
    images = noise(6)
    batches = draw(images, images, batch_size=2, sampling="paired", rotation_deg=10, shift=0.1)
    for step in range(6):
        assert torch.equal(*batches(step))


def test_position_matched_slices_are_of_like_height_and_vary():
    heights = [0.0, 0.3, 0.62, 2.0], [i / 50 for i in range(50)]
    slices = Slices(numbered(4), numbered(50), positions=heights)
    training = Training(batch_size=2, sampling="position", **STILL)
    batches = UnpairedBatches(slices, training, 5)
    met = {}
    for step in range(200):
        chosen = (batches.indexes(step, modality).tolist() for modality in ("ct", "mri"))
        for ct, mri in zip(*chosen, strict=True):
            met.setdefault(ct, set()).add(mri)
    # within 0.03, or the nearest
    assert met == {0: {0, 1}, 1: {14, 15, 16}, 2: {30, 31, 32}, 3: {49}}
    again = UnpairedBatches(slices, training, 5)
    assert torch.equal(again.indexes(17, "mri"), batches.indexes(17, "mri"))

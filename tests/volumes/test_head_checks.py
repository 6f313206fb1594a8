"""Where the head is: air that was filled over is put back or refused, odd heads are named."""

import numpy as np
import pytest
from scipy import ndimage

from ctmri_utils.masks import ct_head_mask, mri_head_mask, volume_head_mask
from ctmri_utils.scans.phantom import synthetic_patients
from ctmri_utils.volumes.axial_slices import axial
from ctmri_utils.volumes.head_checks import head_notes, with_air
from ctmri_utils.volumes.volume import Volume, cleaned


def stack_of(values, affine, modality="ct"):
    values, modality, notes = cleaned(values.copy(), modality)
    return axial(Volume(values, affine, modality, tuple(notes)), 64)


def dice(found, truth):
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


@pytest.fixture
def ct(head):
    """A CT in a field that is wider than the head, its affine, and its head mask."""
    values, affine, _ = head(slices=8)
    wide = np.pad(values, ((12, 12), (12, 12), (0, 0)), constant_values=-1000)
    affine = affine.copy()
    affine[:3, 3] -= affine[:3, :2] @ [12, 12]
    return wide, affine, stack_of(wide, affine).head


def test_an_ordinary_ct_is_left_as_it_is(ct):
    values, affine, _ = ct
    same, notes = with_air(values)
    assert same is values and notes == [] and stack_of(values, affine).notes == ()


def test_a_ct_clipped_to_a_window_is_refused(ct):
    values, affine, _ = ct
    for window in ((-160, 240), (-100, 300), (-450, 1050)):
        with pytest.raises(ValueError, match=rf"shows no air, with values of {window[0]} to"):
            stack_of(values.clip(*window), affine)

    # Zeros around it do not give it its air back.
    outside = ~ndimage.binary_dilation(values > -300, iterations=3)
    with pytest.raises(ValueError, match="shows no air"):
        stack_of(np.where(outside, 0, values.clip(-160, 240)), affine)


def test_bone_that_was_clipped_is_named(ct):
    values, affine, truth = ct
    stack = stack_of(values.clip(-1000, 240), affine)
    assert dice(stack.head, truth) > 0.98
    assert "is exactly 240 HU, the highest value: it was clipped to a window" in stack.notes[0]


def test_zeros_around_a_head_become_air(ct):
    values, affine, truth = ct
    outside = ~ndimage.binary_dilation(values > -300, iterations=3)
    for filled in (np.where(values < -300, 0, values), np.where(outside, 0, values)):
        stack = stack_of(filled, affine)
        assert dice(stack.head, truth) > 0.98
        [note] = stack.notes
        assert "of the voxels are exactly 0 HU from the corners on" in note


@pytest.mark.parametrize("fill", [-1000, 0, 40])
def test_a_ct_that_was_turned_and_filled_shows_its_head_only(ct, fill):
    values, affine, _ = ct
    turned = ndimage.rotate(values, 12, axes=(0, 1), reshape=False, order=1, cval=fill)
    truth = ndimage.rotate(values, 12, axes=(0, 1), reshape=False, order=1, cval=-1000)
    stack, expected = stack_of(turned, affine), stack_of(truth, affine)
    assert dice(stack.head, expected.head) > 0.99
    assert len(stack.notes) == (fill != -1000)


def test_the_rim_of_a_filling_becomes_air_and_water_inside_stays(ct):
    values, _, _ = ct
    values = values.copy()
    values[40:44, 40:44, 3] = 0
    turned = ndimage.rotate(values, 12, axes=(0, 1), reshape=False, order=1, cval=0)
    air = ndimage.rotate(values, 12, axes=(0, 1), reshape=False, order=1, cval=-1000)

    # Interpolated once more, which mixes filling and air.
    turned, air = (
        ndimage.shift(one, (0.3, 0.3, 0), order=1, mode="nearest") for one in (turned, air)
    )
    repaired, _ = with_air(turned)
    assert (repaired[~ndimage.binary_dilation(air > -700, iterations=2)] < -299).all()

    masked, _ = with_air(np.where(values < -300, 0, values))
    assert (masked[40:44, 40:44, 3] == 0).all()


def test_nan_in_a_ct_is_not_measured_and_no_head(ct):
    values, affine, truth = ct
    holes = np.where(values < -300, np.nan, values)
    stack = stack_of(holes, affine)
    assert dice(stack.head, truth) > 0.98
    cleaned_values, modality, notes = cleaned(holes.copy(), None)
    assert modality == "ct" and (cleaned_values[np.isnan(holes)] == -1024).all()
    assert "set to -1024 HU, as not measured" in " ".join(notes)


def test_a_file_between_ct_and_mr_is_not_guessed():
    values = np.linspace(-160, 240, 1000).reshape(10, 10, 10)
    with pytest.raises(ValueError, match="too low for MR and without the air of a CT"):
        cleaned(values, None)
    # MR that undershoots zero where it was interpolated, or was standardised
    for values in (np.linspace(-40, 900, 1000), np.linspace(-0.5, 3.3, 1000)):
        assert cleaned(values.reshape(10, 10, 10), None)[1] == "mri"


def test_nan_does_not_hide_a_ct_that_is_not_in_hu(head):
    values, _, _ = head()
    stored = np.where(values < -900, np.nan, values + 1024)
    with pytest.raises(ValueError, match="shows no air"):
        cleaned(stored, "ct")


# The head as one piece.


def ball_and_table(gap, thickness):
    """A ball of 84 mm as the head, and a hollow table below it that is longer and wider.

    The table is larger than the ball, and `gap` mm lie between them.
    """
    mm = [3.0 * (index - middle) for index, middle in zip(np.indices((80, 80, 40)), (40, 40, 16))]
    ball = np.sqrt(mm[0] ** 2 + mm[1] ** 2 + mm[2] ** 2) < 42
    from_middle = np.abs(mm[1] + 42 + gap + thickness / 2)
    table = (np.abs(mm[0]) < 84) & (from_middle <= thickness / 2)
    inner = (np.abs(mm[0]) < 78) & (from_middle <= thickness / 2 - 6)
    values = np.random.default_rng(0).normal(-1000, 5, ball.shape)
    values += 1150 * (table & ~inner) + 150 * inner + 1040 * ball
    return values.astype(np.float32), ball, table


@pytest.mark.parametrize(("gap", "thickness"), [(9, 24), (9, 36), (0, 24)])
def test_a_table_is_no_head_whether_they_touch_or_not(gap, thickness):
    values, ball, table = ball_and_table(gap, thickness)
    found = volume_head_mask(values.transpose(2, 1, 0), "ct").transpose(2, 1, 0)
    assert table.sum() > 1.3 * ball.sum()

    # Where they touch, or closing bridges the gap, they are one.
    far = np.abs(np.arange(40) - 16) > 8
    np.testing.assert_array_equal(found[:, :, far], ball[:, :, far])
    assert ndimage.label(found)[1] == 1
    if gap:
        np.testing.assert_array_equal(found, ball)


def test_something_large_elsewhere_is_no_head():
    values, ball, table = ball_and_table(9, 24)
    values[table] = -1000
    values[5:75, 5:75, 36:38] = 40
    found = volume_head_mask(values.transpose(2, 1, 0), "ct").transpose(2, 1, 0)
    np.testing.assert_array_equal(found, ball)


def test_volumes_and_slices_have_the_same_mask_where_there_is_only_a_head():
    for seed in range(8):
        patient = synthetic_patients(1, 64, seed, slices=10)
        ct, mri = patient.ct_hu[0], patient.mri[0]
        np.testing.assert_array_equal(volume_head_mask(ct, "ct"), ct_head_mask(ct))
        np.testing.assert_array_equal(volume_head_mask(mri, "mri"), mri_head_mask(mri))


def test_odd_heads_are_named(ct):
    _, affine, truth = ct
    spacing = (5.0, 2.0, 2.0)
    assert head_notes(truth, (12, 3.5, 3.5)) == []
    everything = np.ones((60, 128, 128), bool)
    large, border = head_notes(everything, spacing)
    assert "has 19.7 L, more than a head and neck" in large
    assert "100% of the border of the field was found to be head" in border
    small = np.zeros((60, 128, 128), bool)
    small[:, 60:70, 60:70] = True
    [note] = head_notes(small, spacing)
    assert "has 4 cm2 in its largest slice" in note

    # A body that fills the field but for a corner: named, not silently all head.
    body = np.random.default_rng(0).normal(40, 10, (80, 80, 8)).astype(np.float32)
    body[:30, :30] = -1000
    assert any("border of the field" in note for note in stack_of(body, affine).notes)

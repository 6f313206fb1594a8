"""Volumes keep their place in space: to axial slices and back from every orientation."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from ctmri_utils.evaluation.metrics import psnr_db
from ctmri_utils.machine import data_folder
from ctmri_utils.scans.slice_files import list_slices, read_slice_file
from ctmri_utils.volumes.axial_slices import axial, resample
from ctmri_utils.volumes.volume import Volume


def turned(values, affine, order, flips):
    """The same scan, stored with its axes in another order and some of them backwards."""
    values, affine = values.transpose(order), affine.copy()
    affine[:, :3] = affine[:, list(order)]
    for axis in np.flatnonzero(flips):
        values = np.flip(values, axis)
        affine[:3, 3] += affine[:3, axis] * (values.shape[axis] - 1)
        affine[:3, axis] *= -1
    return values, affine


def moved(stack, affine):
    """By how many rows and columns the head was moved to the middle of the stack."""
    # The first pixel lies here in the scan: x, y, z, 1.
    first = np.linalg.inv(affine) @ stack.affine[:, 3]
    return tuple(-np.rint(first[[1, 0]]).astype(int))


def test_every_orientation_shows_the_same_slices_and_comes_back_exactly(head):
    values, affine, spacing = head()
    upright = axial(Volume(values, affine, "ct"), 64, spacing[1])
    rows, columns = moved(upright, affine)
    # The phantom lies near the middle already.
    assert max(abs(rows), abs(columns)) < 8
    expected = np.roll(values.T, (rows, columns), (1, 2))
    middle = np.s_[:, 8:-8, 8:-8]
    np.testing.assert_allclose(upright.values[middle], expected[middle], atol=0.01)
    for order, flips in itertools.product(
        itertools.permutations(range(3)), itertools.product((0, 1), repeat=3)
    ):
        volume = Volume(*turned(values, affine, order, flips), "ct")
        stack = axial(volume, 64, spacing[1])
        # HU; positions are rounded
        np.testing.assert_allclose(stack.values, upright.values, atol=0.01)
        np.testing.assert_allclose(stack.affine, upright.affine, atol=1e-6)
        # The field moved with the head.
        inside = stack.back_onto(volume, np.ones_like(stack.values), 0) > 0.999
        assert inside.mean() > 0.85
        returned = stack.back_onto(volume, stack.values, -1000)
        np.testing.assert_allclose(returned[inside], volume.values[inside], atol=0.02)


def test_an_oblique_scan_keeps_its_own_planes(head):
    values, affine, spacing = head()
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    straight, oblique = (
        axial(Volume(values, one, "ct"), 64, spacing[1]) for one in (affine, turn @ affine)
    )
    np.testing.assert_allclose(oblique.values, straight.values, atol=0.01)
    np.testing.assert_allclose(oblique.affine, turn @ straight.affine, atol=1e-6)


def test_a_gantry_tilt_is_undone_and_done_again():
    """A straight rod along the table, scanned in slices tilted by 20 degrees.

    It wanders through the file, not through the stack.
    """
    z, y, x = 5.0, 1.0, 1.0
    shear = z * np.tan(np.deg2rad(20))
    # The axes are those of LPS, and each slice lies further back.
    affine = np.array([[-x, 0, 0, 60], [0, -y, -shear, 60], [0, 0, z, 0], [0, 0, 0, 1]])
    i, j, k = np.indices((120, 120, 15))
    back = -(affine[1, 1] * j + affine[1, 2] * k + affine[1, 3])  # mm
    values = np.where(np.hypot(affine[0, 0] * i + 60, back) < 30, 40.0, -1000).astype(np.float32)
    volume = Volume(values, affine, "ct")
    stack = axial(volume, 128, 1.0)

    def wander(slices):
        return np.ptp([ndimage.center_of_mass(slice_ + 1000)[0] for slice_ in slices])

    # The pixels have 1 mm.
    assert wander(values.transpose(2, 1, 0)) > 20 > 0.5 > wander(stack.values)
    assert stack.spacing_mm == pytest.approx((5, 1, 1))
    returned = stack.back_onto(volume, stack.values, -1000)
    assert np.mean((returned > -500) != (values > -500)) < 0.002


@pytest.mark.parametrize("spacing_mm", [1.75, 2.5, 4.0])
def test_a_round_trip_changes_nothing_but_interpolation_error(head, spacing_mm):
    values, affine, _ = head(size=128)
    values = np.where(values < -900, -1000, values)  # still air
    volume = Volume(values, affine, "ct")
    stack = axial(volume, 160, spacing_mm)
    returned = stack.back_onto(volume, stack.values, volume.background)
    error = np.abs(returned - values)
    # The filter and both interpolations reach this far, in pixels.
    reach = 2 * (2 * int(np.ceil(1.5 * spacing_mm)) + 1) + 1
    highest = ndimage.maximum_filter(values, (reach, reach, 1))
    lowest = ndimage.minimum_filter(values, (reach, reach, 1))
    # Every value is near one of the original.
    assert (returned <= highest + 0.01).all() and (returned >= lowest - 0.01).all()
    constant = highest - lowest < 1
    assert constant.any() and error[constant].max() < 1
    # Without edges hardly anything is lost.
    smooth = ndimage.gaussian_filter(values, (6, 6, 0))
    stack = axial(Volume(smooth, affine, "ct"), 160, spacing_mm)
    error = np.abs(stack.back_onto(volume, stack.values, volume.background) - smooth)
    assert error.mean() < spacing_mm**2
    assert psnr_db(smooth + error, smooth, error >= 0, (-1000, 1000)) > 35


def test_noise_is_averaged_not_picked_where_pixels_get_larger():
    noise = np.random.default_rng(0).normal(0, 100, (200, 200, 4)).astype(np.float32)
    fine, coarse = np.diag([0.5, 0.5, 1, 1]), np.diag([2.0, 2, 1, 1])
    kept = resample(noise, fine, coarse, (50, 50, 4), 0)
    # A mean of 4 x 4 pixels would have 25, picking has 100 or 67 (linear).
    assert kept[2:-2, 2:-2].std() < 25
    assert resample(np.ones_like(noise), fine, coarse, (50, 50, 4), 0) == pytest.approx(1)


def test_the_head_comes_to_the_middle_and_what_is_cut_is_said(head):
    values, affine, spacing = head()
    pushed = np.full((150, 150, 12), -1000, np.float32)
    # The head lies far off the middle of a wide field.
    pushed[80:144, 10:74] = values
    stack = axial(Volume(pushed, affine, "ct"), 64, spacing[1])
    for axes in ((0, 2), (0, 1)):
        found = np.flatnonzero(stack.head.any(axes))
        assert abs((found[0] + found[-1]) / 2 - 31.5) <= 0.5
    assert stack.notes == ()
    [note] = axial(Volume(pushed, affine, "ct"), 64, 1.0).notes
    assert "of the head lies outside the field of 64 mm" in note


def test_the_embedded_slices_as_a_volume_are_the_networks_slices_again():
    slices, _ = list_slices(data_folder() / "scans")
    affine = np.diag([-1.75, -1.75, 1.5, 1])
    for modality in ("ct", "mri"):
        # Neighbours, 1.5 mm apart.
        pixels = [read_slice_file(*entry)[1] for entry in slices["train", modality][:4]]
        values = np.stack(pixels).transpose(2, 1, 0)
        stack = axial(Volume(values, affine, modality))
        there = np.roll(values.T, moved(stack, affine), (1, 2))
        np.testing.assert_allclose(
            stack.values[:, 16:-16, 16:-16], there[:, 16:-16, 16:-16], atol=0.01
        )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v, a: (v, a, "pet"), "choose"),
        (lambda v, a: (v[None], a, "ct"), "4 dimensions"),
        (lambda v, a: (v, a * 0, "ct"), "not plausible"),
        (lambda v, a: (v, a * np.nan, "ct"), "not plausible"),
        (lambda v, a: (v, a[:, [0, 0, 2, 3]], "ct"), "not plausible"),
    ],
)
def test_what_is_no_volume_is_refused(head, change, words):
    values, affine, _ = head()
    with pytest.raises(ValueError, match=words):
        Volume(*change(values, affine))


def test_no_head_and_odd_sizes_are_refused(head):
    values, affine, _ = head()
    for modality, words in (("ct", "no head"), ("mri", "constant")):
        with pytest.raises(ValueError, match=words):
            axial(Volume(np.full_like(values, -1000), affine, modality))
    for size, spacing in ((0, None), (-32, None), (30, None), (127, None), (64, 0.0), (64, 1e9)):
        with pytest.raises(ValueError, match="not suit"):
            axial(Volume(values, affine, "ct"), size, spacing)
    with pytest.raises(ValueError, match="40000 x 40000 voxels"):
        axial(Volume(values, affine, "ct"), 40000, 1.0)

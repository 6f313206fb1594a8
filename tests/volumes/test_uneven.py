"""Series whose slices lie unevenly, and series that hold copies.

The head CT of many hospitals is thin at the base and thick above it.
"""

import re
import shutil
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from helpers.identity_translator import IdentityTranslator
from pydicom.uid import generate_uid

from ctmri_utils.units import HU
from ctmri_utils.volumes.axial_slices import axial
from ctmri_utils.volumes.dicom import read_series
from ctmri_utils.volumes.dicom_write import write_series
from ctmri_utils.volumes.input_checks import measure_head
from ctmri_utils.volumes.itk import write_itk
from ctmri_utils.volumes.network_slices import TRANSLATED_MRI
from ctmri_utils.volumes.nifti import write_nifti
from ctmri_utils.volumes.translate import (
    TranslationOptions,
    list_translations,
    translate_scans,
    translate_volume,
)
from ctmri_utils.volumes.volume import Volume

# mm: four slices of 2.5 mm, then eight of 5 to 7 mm.
THICKNESS = np.array([2.5] * 4 + [5.0] * 4 + [7.0] * 4)
HEIGHTS = np.cumsum(THICKNESS) - THICKNESS / 2


def series(folder, head, dicom_series, tilt_deg=0.0, downwards=False, modality="ct"):
    """An uneven series, and what is in it: values (I, J, K) and the position (K, 3) of each slice
    in DICOM's mm.
    """
    values, affine, _ = head(modality)
    tilt = np.deg2rad(tilt_deg)
    side = -affine[1, 1]
    affine[:3, 1] = -side * np.array([0, np.cos(tilt), np.sin(tilt)])

    # The table moves along z, so a distance along the normal is longer there.
    along = (-HEIGHTS if downwards else HEIGHTS) / np.cos(tilt)
    first = affine[:3, 3] * [-1, -1, 1]
    positions = first + along[:, None] * [0, 0, 1]
    tags = {
        "ImagePositionPatient": lambda k: positions[k].round(4).tolist(),
        "SliceThickness": lambda k: THICKNESS[k],
    }
    dicom_series(folder, values, affine, modality, **tags)
    return values, positions


def write_stack(folder, dicom_series, values, affine, places, thickness):
    """Write a series whose slices lie at these places, in DICOM's mm, and have this thickness."""
    tags = {
        "ImagePositionPatient": lambda k: places[k],
        "SliceThickness": lambda k: thickness[k],
    }
    dicom_series(folder, values, affine, **tags)


def positions_of(folder):
    """(K, 3) of the files of a series, upwards."""
    found = [pydicom.dcmread(path).ImagePositionPatient for path in folder.iterdir()]
    return np.array(sorted(found, key=lambda position: position[2]), float)


@pytest.mark.parametrize("tilt_deg", [0, 20])
@pytest.mark.parametrize("downwards", [False, True])
def test_an_uneven_series_keeps_every_slice_where_it_was(
    tmp_path, head, dicom_series, tilt_deg, downwards
):
    values, positions = series(tmp_path / "in", head, dicom_series, tilt_deg, downwards)
    if downwards:
        values, positions = values[:, :, ::-1], positions[::-1]

    volume = read_series(tmp_path / "in")
    np.testing.assert_array_equal(volume.values, values)
    corners = volume.affine[:3, 2] * volume.heights[:, None] + volume.affine[:3, 3]
    np.testing.assert_allclose(corners * [-1, -1, 1], positions, atol=1e-3)
    assert "its slices lie 2.50 to 7.00 mm apart; each stays where it was" in volume.describe()

    write_series(Volume(values, volume.affine, "ct", heights=volume.heights), tmp_path / "out")
    np.testing.assert_allclose(positions_of(tmp_path / "out"), positions, atol=1e-3)
    files = sorted((tmp_path / "out").iterdir())
    written = [float(pydicom.dcmread(files[end]).SliceThickness) for end in (0, -1)]
    np.testing.assert_allclose(written, [7, 2.5] if downwards else [2.5, 7], atol=1e-3)
    again = read_series(tmp_path / "out")
    np.testing.assert_array_equal(again.values, values)
    np.testing.assert_allclose(again.heights, volume.heights, atol=1e-4)


@pytest.mark.parametrize("tilt_deg", [0, 20])
@pytest.mark.parametrize("downwards", [False, True])
def test_each_slice_is_translated_by_itself(tmp_path, head, dicom_series, tilt_deg, downwards):
    series(tmp_path / "in", head, dicom_series, tilt_deg, downwards)
    volume = read_series(tmp_path / "in")
    side = head()[2][1]
    stack = axial(volume, 64, side)
    assert len(stack.values) == len(HEIGHTS)
    assert stack.affine[2, 0] > 0

    # A slice that is changed changes its own translation, and no other.
    model = IdentityTranslator()
    plain = translate_volume(model, volume, 64, side)
    changed = volume.values.copy()
    changed[28:36, 28:36, 5] += 300
    other = translate_volume(model, replace(volume, values=changed), 64, side)
    differs = np.abs(other.values - plain.values).max((0, 1)) > 1
    assert np.flatnonzero(differs).tolist() == [5]

    inside = stack.back_onto(volume, stack.head.astype(np.float32), 0) > 0.99
    expected = TRANSLATED_MRI.from_network(HU.to_network(volume.values))
    error = np.abs(plain.values - expected)[inside]
    assert inside.mean() > 0.25 and np.median(error) < 40  # of 4095
    np.testing.assert_array_equal(plain.heights, volume.heights)


def test_slices_from_the_top_down_are_translated_alike(tmp_path, head, dicom_series):
    series(tmp_path, head, dicom_series, tilt_deg=20)
    up = read_series(tmp_path)
    affine = up.affine.copy()
    affine[:3, 3] += affine[:3, 2] * up.heights[-1]
    affine[:3, 2] *= -1
    heights = up.heights[-1] - up.heights[::-1]
    down = Volume(up.values[:, :, ::-1], affine, "ct", heights=heights)

    side = head()[2][1]
    stacks = axial(up, 64, side), axial(down, 64, side)
    np.testing.assert_allclose(stacks[1].values, stacks[0].values, atol=0.1)
    np.testing.assert_allclose(stacks[1].heights, stacks[0].heights, atol=1e-9)
    back = [stack.back_onto(one, stack.values, -1000) for stack, one in zip(stacks, (up, down))]
    np.testing.assert_allclose(back[1][:, :, ::-1], back[0], atol=0.1)


def test_a_tilted_uneven_head_stands_upright_in_the_stack(tmp_path, dicom_series):
    """A cylinder along the table: it is in the middle of every slice, wherever that lies."""
    size, tilt = 128, np.deg2rad(20)
    affine = np.diag([-1.8, -1.8, 3.0, 1])
    affine[:3, 1] = -1.8 * np.array([0, np.cos(tilt), np.sin(tilt)])
    affine[:3, 3] = 115, 115, 0
    mm = np.einsum("ab,bij->aij", affine[:2, :2], np.indices((size, size))) + 115
    disc = np.where(np.hypot(*mm) < 80, 40, -1000).astype(np.float32)
    values = np.repeat(disc[:, :, None], len(HEIGHTS), axis=2)
    places = [[-115, -115, float(z / np.cos(tilt))] for z in HEIGHTS]
    write_stack(tmp_path, dicom_series, values, affine, places, THICKNESS)
    volume = read_series(tmp_path)
    stack = axial(volume)
    to_pixel = np.linalg.inv(stack.affine)
    for z, slice_ in enumerate(stack.values):
        # Where the table's axis, x = y = 0, meets this slice.
        height = (stack.heights[z] - to_pixel[0, 3]) / to_pixel[0, 2]
        row, column = (to_pixel @ [0, 0, height, 1])[1:3]
        weights = slice_ + 1000
        found = [(weights.sum(1 - axis) @ np.arange(128)) / weights.sum() for axis in (0, 1)]
        np.testing.assert_allclose(found, [row, column], atol=0.1)
    returned = stack.back_onto(volume, stack.values, -1000)
    assert np.mean((returned > -500) != (values > -500)) < 0.01
    assert measure_head(volume, stack).cut == 0


def test_the_command_writes_an_uneven_series_where_it_was(tmp_path, head, dicom_series, capsys):
    _, positions = series(tmp_path / "in", head, dicom_series, tilt_deg=15, modality="mri")
    options = TranslationOptions(size=64)
    scans = list_translations(tmp_path / "in", tmp_path / "out", options)
    translate_scans(scans, IdentityTranslator(), options)
    np.testing.assert_allclose(positions_of(tmp_path / "out"), positions, atol=1e-3)
    assert "note: its slices lie 2.50 to 7.00 mm apart" in capsys.readouterr().out


def test_what_cannot_hold_uneven_slices_says_so(tmp_path, head, dicom_series):
    series(tmp_path / "in", head, dicom_series)
    volume = read_series(tmp_path / "in")
    for write, name in ((write_nifti, "a.nii.gz"), (write_itk, "a.mha")):
        with pytest.raises(ValueError, match="unevenly"):
            write(volume, tmp_path / name)
        assert not (tmp_path / name).exists()
    with pytest.raises(ValueError, match="smoothing"):
        translate_volume(IdentityTranslator(), volume, 64, smooth_mm=3)

    across = Volume(volume.values, volume.affine[[2, 0, 1, 3]], "ct", heights=volume.heights)
    with pytest.raises(ValueError, match="not axial"):
        axial(across)
    with pytest.raises(ValueError, match="do not rise"):
        Volume(volume.values, volume.affine, "ct", heights=volume.heights[::-1])


# Distances and thickness in mm, and the distances between which nothing was scanned.
COMPLETE = {
    "thin below, thick above": ([2.5, 2.5, 3.75, 5, 5], [2.5] * 3 + [5] * 3, 0),
    "the larger distance first": ([2.5, 2.5, 5, 5, 5], [2.5] * 3 + [5] * 3, 1),
    "5 mm slices 7 mm apart": ([2.5, 2.5, 4.75, 7, 7], [2.5] * 3 + [5] * 3, 3),
    "one thickness, two distances": ([3, 3, 3, 3.8, 3.8], [3] * 6, 2),
    "no thickness": ([2.5, 2.5, 2.5, 3.8, 3.8], [None] * 6, 0),
    "one of another thickness": ([2.5, 2.5, 3.75], [2.5] * 3 + [5], 0),
}
INCOMPLETE = {
    "a thin one": ([2.5, 5, 2.5, 3.75, 5, 5], [2.5] * 4 + [5] * 3, "1 after slice 2; 2.50 mm"),
    "a thick one": ([2.5, 2.5, 3.75, 5, 10], [2.5] * 3 + [5] * 3, "1 after slice 5; 5.00 mm"),
    "some of each": (
        [5, 2.5, 2.5, 3.75, 5, 15, 5],
        [2.5] * 4 + [5] * 4,
        "1 after slice 1, 2 after slice 6; 2.50 or 5.00 mm",
    ),
    "twice the distance at one thickness": (
        [2.5, 2.5, 2.5, 5, 5],
        [2.5] * 6,
        "1 after slice 4, 1 after slice 5; 2.50 mm",
    ),
    "without a thickness": ([3, 6], [None] * 3, "1 after slice 2; 3.00 mm"),
}


def stack_of(folder, head, dicom_series, distances, thickness):
    """Write a series of these distances and thickness, and return the heights."""
    heights = np.concatenate([[0], np.cumsum(distances)])
    values, affine, _ = head(slices=len(heights))
    places = [[0.0, 0.0, float(height)] for height in heights]
    write_stack(folder, dicom_series, values, affine, places, thickness)
    return heights


@pytest.mark.parametrize("case", COMPLETE)
def test_a_protocol_that_changes_is_read(tmp_path, head, dicom_series, case):
    distances, thickness, apart = COMPLETE[case]
    heights = stack_of(tmp_path, head, dicom_series, distances, thickness)
    volume = read_series(tmp_path)
    found = volume.affine[2, 2] * volume.heights + volume.affine[2, 3]
    np.testing.assert_allclose(found, heights, atol=1e-6)
    said = volume.describe()
    assert (f"{apart} of its {len(distances)} distances" in said) == (apart > 0)


@pytest.mark.parametrize("case", INCOMPLETE)
def test_a_missing_slice_is_refused_whatever_the_protocol(tmp_path, head, dicom_series, case):
    distances, thickness, words = INCOMPLETE[case]
    stack_of(tmp_path, head, dicom_series, distances, thickness)
    with pytest.raises(ValueError, match=re.escape(f"slices are missing ({words} is usual)")):
        read_series(tmp_path)


def test_exact_copies_are_left_out_and_counted(tmp_path, head, dicom_series):
    values, affine, _ = head(slices=6)
    files = dicom_series(tmp_path / "cd", values, affine)
    for path in files:
        shutil.copy(path, path.with_name("copy of " + path.name))
    shutil.copy(files[0], tmp_path / "cd" / "third")

    volume = read_series(tmp_path / "cd")
    np.testing.assert_array_equal(volume.values, values)
    assert "7 exact copies of its slices (same SOPInstanceUID) were left out" in volume.notes
    assert "copies" not in read_series(files).describe()


@pytest.mark.parametrize("change", ["pixels", "uid"])
def test_what_only_looks_like_a_copy_is_refused_as_doubled(tmp_path, head, dicom_series, change):
    values, affine, _ = head(slices=4)
    first = dicom_series(tmp_path, values, affine)[0]
    image = pydicom.dcmread(first)
    if change == "pixels":
        image.PixelData = image.PixelData[::-1]
    else:
        image.SOPInstanceUID = generate_uid()
    image.save_as(tmp_path / "other")
    with pytest.raises(ValueError, match="1 slices lie where another one lies"):
        read_series(tmp_path)


def test_one_uid_for_all_slices_makes_no_copies(tmp_path, head, dicom_series):
    values, affine, _ = head(slices=4)
    values = np.repeat(values[:, :, :1], 4, axis=2)
    dicom_series(tmp_path, values, affine, SOPInstanceUID="1.2.3")
    assert read_series(tmp_path).values.shape == values.shape

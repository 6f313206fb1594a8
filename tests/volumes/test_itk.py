"""MetaImage and NRRD in and out, with SimpleITK and nibabel as each other's second opinion."""

import sys

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from helpers.hospital_files import ctmri, write_with_simple_itk

from ctmri_utils.discovery import own_label
from ctmri_utils.volumes.itk import read_itk, write_itk
from ctmri_utils.volumes.nifti import write_nifti
from ctmri_utils.volumes.scan_files import find_scans, list_scans, read_volume
from ctmri_utils.volumes.volume import Volume

ENDINGS = ("mha", "mhd", "nrrd")


def turned(angles, spacing):
    """An affine with these turns about the three axes, in radians."""
    affine = np.eye(4)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        i, j = [k for k in range(3) if k != axis]
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        affine[:3, :3] = affine[:3, :3] @ turn
    affine[:3, :3] *= spacing
    affine[:3, 3] = 12.25, -31.5, 70.125
    return affine


AFFINES = {
    "straight": turned((0, 0, 0), (0.5, 0.6, 3)),
    "flipped": turned((0, 0, 0), (-0.5, 0.6, -3)),
    "sagittal": np.array([[0, 0, 1.5, 4], [-1.0, 0, 0, 5], [0, 1, 0, 6], [0, 0, 0, 1]]),
    "oblique": turned((0.31, -0.22, 0.13), (0.5, 0.6, 3)),
    "oblique, flipped": turned((0.31, 2.9, 0.13), (-0.7, 0.6, 3)),
}


@pytest.fixture
def values():
    """(6, 7, 8) like an MR, different along every axis."""
    return np.random.default_rng(0).integers(0, 3000, (6, 7, 8)).astype(np.int16)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("ending", ENDINGS)
def test_simple_itks_files_are_read_to_the_bit(tmp_path, values, ending, name, compressed):
    path = tmp_path / f"scan.{ending}"
    write_with_simple_itk(values, AFFINES[name], path, compressed)
    volume = read_itk(path, "mri")
    np.testing.assert_array_equal(volume.values, values)
    np.testing.assert_allclose(volume.affine, AFFINES[name], atol=1e-6)
    assert volume.notes == ()


@pytest.mark.parametrize("name", AFFINES)
def test_the_same_scan_in_nifti_and_in_mha_is_one(tmp_path, values, name):
    for ending in ("nii.gz", "mha"):
        write_with_simple_itk(values, AFFINES[name], tmp_path / f"scan.{ending}")
    one, other = (read_volume(tmp_path / f"scan.{ending}", "mri") for ending in ("nii.gz", "mha"))
    np.testing.assert_array_equal(one.values, other.values)
    # NIfTI stores float32.
    np.testing.assert_allclose(one.affine, other.affine, atol=1e-5)
    np.testing.assert_allclose(nibabel.load(tmp_path / "scan.nii.gz").affine, one.affine, atol=1e-6)


@pytest.mark.parametrize("name", AFFINES)
def test_simple_itk_reads_what_nifti_files_we_write(tmp_path, values, name):
    write_nifti(Volume(values.astype(np.float32), AFFINES[name], "mri"), tmp_path / "x.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "x.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image).T, values)
    last = [length - 1 for length in values.shape]
    expected = np.diag([-1, -1, 1, 1]) @ AFFINES[name] @ [*last, 1]
    place = image.TransformIndexToPhysicalPoint(last)
    np.testing.assert_allclose(place, expected[:3], atol=1e-4)


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_written_comes_back_and_calls_itself_synthetic(tmp_path, values, ending):
    path = tmp_path / f"result.{ending}"
    written = Volume(values - np.float32(1000), AFFINES["oblique, flipped"], "ct")
    write_itk(written, path)
    for volume in (read_itk(path, "ct"), read_volume(path)):
        np.testing.assert_array_equal(volume.values, written.values)
        np.testing.assert_allclose(volume.affine, written.affine, atol=1e-6)
    assert own_label(path) and list_scans(tmp_path).scans[0].synthetic
    names = {"result.mhd", "result.zraw"} if ending == "mhd" else {path.name}
    assert {one.name for one in tmp_path.iterdir()} == names
    with pytest.raises(FileExistsError):
        write_itk(written, path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_tilted_gantry_is_kept(tmp_path, values, ending):
    sheared = AFFINES["straight"].copy()
    sheared[1, 2] = 0.8
    write_itk(Volume(values.astype(np.float32), sheared, "mri"), tmp_path / f"x.{ending}")
    volume = read_itk(tmp_path / f"x.{ending}")
    np.testing.assert_allclose(volume.affine, sheared, atol=1e-6)


def test_the_space_of_an_nrrd_file_counts(tmp_path, values):
    head = (
        "NRRD0004\ntype: short\ndimension: 3\n{}sizes: 6 7 8\nspace directions: (2,0,0) (0,3,0) "
        "(0,0,4)\nendian: little\nencoding: raw\nspace origin: (1,2,3)\n\n"
    )
    for space, signs in (
        ("space: right-anterior-superior\n", (1, 1, 1)),
        ("space: left-posterior-superior\n", (-1, -1, 1)),
    ):
        content = head.format(space).encode() + values.tobytes(order="F")
        (tmp_path / "x.nrrd").write_bytes(content)
        volume = read_itk(tmp_path / "x.nrrd", "mri")
        expected = np.diag([*signs, 1.0]) @ [[2, 0, 0, 1], [0, 3, 0, 2], [0, 0, 4, 3], [0, 0, 0, 1]]
        np.testing.assert_allclose(volume.affine, expected)
        np.testing.assert_array_equal(volume.values, values)


def test_a_file_without_orientation_says_so(tmp_path, values):
    header = "ObjectType = Image\nNDims = 3\nElementSpacing = 1 1 2\nDimSize = 6 7 8\n"
    header += "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    (tmp_path / "x.mha").write_bytes(header.encode() + values.tobytes(order="F"))
    assert "gives no orientation" in read_itk(tmp_path / "x.mha", "mri").notes[0]


def test_voxel_files_of_mhd_are_neither_scans_nor_left_out(tmp_path, values):
    write_with_simple_itk(values, np.eye(4), tmp_path / "x.mhd", compressed=False)
    write_with_simple_itk(values, np.eye(4), tmp_path / "x_seg.mha")
    listing = list_scans(tmp_path)
    assert [scan.name for scan in listing.scans] == ["x.mhd"]
    assert listing.left_out == {"mask, label map or dose": 1}


def test_masks_are_read_only_where_they_are_wanted(tmp_path):
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[2:6, 2:6, 2:6] = 1
    write_with_simple_itk(mask, np.eye(4), tmp_path / "x.mha")
    [scan] = find_scans(tmp_path)
    with pytest.raises(ValueError, match="as a mask"):
        scan.read("mri")
    np.testing.assert_array_equal(scan.read("mri", labels=True).values, mask)


def refused(path, match):
    with pytest.raises(ValueError, match=match) as error:
        read_itk(path, "mri")
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_refusals(tmp_path, values):
    path = tmp_path / "x.mha"
    colours = sitk.GetImageFromArray(np.zeros((4, 4, 4, 3), np.uint8), isVector=True)
    sitk.WriteImage(colours, str(path))
    refused(path, "colours")
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 4), np.uint8)), str(path))
    refused(path, "has 2 dimensions")
    four = sitk.GetImageFromArray(np.zeros((2, 4, 4, 4), np.uint8), isVector=False)
    sitk.WriteImage(four, str(path))
    refused(path, "has 4 dimensions")
    path.write_bytes(b"not an image")
    refused(path, "is damaged")

    write_with_simple_itk(values, np.eye(4), path, compressed=False)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"DimSize = 6 7 8", b"DimSize = 600 700 600"))
    refused(path, "more than its bytes can hold")
    path.write_bytes(whole.replace(b"DimSize = 6 7 8", b"DimSize = 6000 7000 8000"))
    refused(path, "claims 6000 x 7000 x 8000")
    path.write_bytes(whole[:-100])
    refused(path, "is damaged")

    write_with_simple_itk(values, np.eye(4), tmp_path / "y.mhd", compressed=False)
    (tmp_path / "y.raw").unlink()
    refused(tmp_path / "y.mhd", "y.raw, which is not there")
    with pytest.raises(FileNotFoundError):
        read_itk(tmp_path / "none.mha")


@pytest.mark.parametrize("ending", ["mha", "nrrd"])
def test_damage_is_a_sentence_or_harmless(tmp_path, values, damage, ending):
    path = tmp_path / f"x.{ending}"
    write_with_simple_itk(values, AFFINES["oblique"], path)
    whole, draw = path.read_bytes(), np.random.default_rng(1)
    outcomes = set()
    for _ in range(60):
        path.write_bytes(damage(whole, draw))
        try:
            read_itk(path, "mri")
            outcomes.add("read")
        except ValueError as error:
            assert "\n" not in str(error)
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_without_simple_itk_one_sentence_says_what_to_install(
    tmp_path, values, monkeypatch, capsys
):
    write_with_simple_itk(values, np.eye(4), tmp_path / "ct" / "p1.mha")
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    words = ["--ct", tmp_path / "ct", "--mri", tmp_path / "ct"]
    assert ctmri("prepare", tmp_path / "set", *words) == 1
    assert "this needs SimpleITK: pip install 'ctmri-utils[volumes]'" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()

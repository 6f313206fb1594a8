"""Volumes keep their place in space: to axial slices and back from every orientation, NIfTI in and out, hostile files refused."""
import gzip
import itertools
import sys
import tracemalloc

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from ctmri_utils.metrics import psnr_db
from ctmri_utils.settings import data_folder
from ctmri_utils.slices import read_folder
from ctmri_utils.volumes import Volume, axial, finished, read_nifti, resample, write_nifti


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
    first = np.linalg.inv(affine) @ stack.affine[:, 3]           # where its first pixel lies in the scan: x, y, z, 1
    return tuple(-np.rint(first[[1, 0]]).astype(int))


# The grid.

def test_every_orientation_shows_the_same_slices_and_comes_back_exactly(head):
    values, affine, spacing = head()
    upright = axial(Volume(values, affine, "ct"), 64, spacing[1])
    rows, columns = moved(upright, affine)
    assert max(abs(rows), abs(columns)) < 8                      # the phantom lies near the middle already
    np.testing.assert_allclose(upright.values[:, 8:-8, 8:-8], np.roll(values.T, (rows, columns), (1, 2))[:, 8:-8, 8:-8], atol=0.01)
    for order, flips in itertools.product(itertools.permutations(range(3)), itertools.product((0, 1), repeat=3)):
        volume = Volume(*turned(values, affine, order, flips), "ct")
        stack = axial(volume, 64, spacing[1])
        np.testing.assert_allclose(stack.values, upright.values, atol=0.01)                 # HU; positions are rounded
        np.testing.assert_allclose(stack.affine, upright.affine, atol=1e-6)
        inside = stack.back_onto(volume, np.ones_like(stack.values), 0) > 0.999             # of the field, which moved with the head
        assert inside.mean() > 0.85
        np.testing.assert_allclose(stack.back_onto(volume, stack.values, -1000)[inside], volume.values[inside], atol=0.02)


def test_an_oblique_scan_keeps_its_own_planes(head):
    values, affine, spacing = head()
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    straight, oblique = (axial(Volume(values, one, "ct"), 64, spacing[1]) for one in (affine, turn @ affine))
    np.testing.assert_allclose(oblique.values, straight.values, atol=0.01)
    np.testing.assert_allclose(oblique.affine, turn @ straight.affine, atol=1e-6)


def test_a_gantry_tilt_is_undone_and_done_again():
    """A straight rod along the table, scanned in slices tilted by 20 degrees: it wanders through the file, not through the stack."""
    z, y, x = 5.0, 1.0, 1.0
    shear = z * np.tan(np.deg2rad(20))
    affine = np.array([[-x, 0, 0, 60], [0, -y, -shear, 60], [0, 0, z, 0], [0, 0, 0, 1]])     # LPS-like axes, each slice further back
    i, j, k = np.indices((120, 120, 15))
    back = -(affine[1, 1] * j + affine[1, 2] * k + affine[1, 3])                             # mm
    values = np.where(np.hypot(affine[0, 0] * i + 60, back) < 30, 40.0, -1000).astype(np.float32)
    volume = Volume(values, affine, "ct")
    stack = axial(volume, 128, 1.0)

    def wander(slices):
        return np.ptp([ndimage.center_of_mass(slice_ + 1000)[0] for slice_ in slices])

    assert wander(values.transpose(2, 1, 0)) > 20 > 0.5 > wander(stack.values)              # pixels of 1 mm
    assert stack.spacing_mm == pytest.approx((5, 1, 1))
    returned = stack.back_onto(volume, stack.values, -1000)
    assert np.mean((returned > -500) != (values > -500)) < 0.002


@pytest.mark.parametrize("spacing_mm", [1.75, 2.5, 4.0])
def test_a_round_trip_changes_nothing_but_interpolation_error(head, spacing_mm):
    values, affine, _ = head(size=128)
    values = np.where(values < -900, -1000, values)              # still air
    volume = Volume(values, affine, "ct")
    stack = axial(volume, 160, spacing_mm)
    returned = stack.back_onto(volume, stack.values, volume.background)
    error = np.abs(returned - values)
    reach = 2 * (2 * int(np.ceil(1.5 * spacing_mm)) + 1) + 1     # pixels that the filter and both interpolations may look at
    highest, lowest = (kind(values, (reach, reach, 1)) for kind in (ndimage.maximum_filter, ndimage.minimum_filter))
    assert (returned <= highest + 0.01).all() and (returned >= lowest - 0.01).all()          # no value that is not nearby
    constant = highest - lowest < 1
    assert constant.any() and error[constant].max() < 1
    smooth = ndimage.gaussian_filter(values, (6, 6, 0))          # without edges hardly anything is lost
    stack = axial(Volume(smooth, affine, "ct"), 160, spacing_mm)
    error = np.abs(stack.back_onto(volume, stack.values, volume.background) - smooth)
    assert error.mean() < 1 * spacing_mm**2 and psnr_db(smooth + error, smooth, error >= 0, (-1000, 1000)) > 35


def test_noise_is_averaged_not_picked_where_pixels_get_larger():
    noise = np.random.default_rng(0).normal(0, 100, (200, 200, 4)).astype(np.float32)
    fine, coarse = np.diag([0.5, 0.5, 1, 1]), np.diag([2.0, 2, 1, 1])
    kept = resample(noise, fine, coarse, (50, 50, 4), 0)
    assert kept[2:-2, 2:-2].std() < 25                           # a mean of 4 x 4 pixels would have 25, picking has 100 or 67 (linear)
    assert resample(np.ones_like(noise), fine, coarse, (50, 50, 4), 0) == pytest.approx(1)


def test_the_head_comes_to_the_middle_and_what_is_cut_is_said(head):
    values, affine, spacing = head()
    pushed = np.full((150, 150, 12), -1000, np.float32)
    pushed[80:144, 10:74] = values                               # far off the middle, in a wide field
    stack = axial(Volume(pushed, affine, "ct"), 64, spacing[1])
    for axes in ((0, 2), (0, 1)):
        found = np.flatnonzero(stack.head.any(axes))
        assert abs((found[0] + found[-1]) / 2 - 31.5) <= 0.5
    assert stack.notes == ()
    [note] = axial(Volume(pushed, affine, "ct"), 64, 1.0).notes
    assert "of the head lies outside the field of 64 mm" in note


def test_the_embedded_slices_as_a_volume_are_the_networks_slices_again():
    files, _ = read_folder(data_folder() / "scans")
    row = [file.pixels for file in files["train", "ct"][:4]]     # neighbours, 1.5 mm apart
    values = np.stack(row).transpose(2, 1, 0)
    affine = np.diag([-1.75, -1.75, 1.5, 1])
    stack = axial(Volume(values, affine, "ct"))
    rows, columns = moved(stack, affine)
    np.testing.assert_allclose(stack.values[:, 16:-16, 16:-16], np.roll(values.T, (rows, columns), (1, 2))[:, 16:-16, 16:-16], atol=0.01)


@pytest.mark.parametrize(("change", "words"), [
    (lambda v, a: (v, a, "pet"), "choose"),
    (lambda v, a: (v[None], a, "ct"), "4 dimensions"),
    (lambda v, a: (v, a * 0, "ct"), "makes no sense"),
    (lambda v, a: (v, a * np.nan, "ct"), "makes no sense"),
    (lambda v, a: (v, a[:, [0, 0, 2, 3]], "ct"), "makes no sense"),
])
def test_what_is_no_volume_is_refused(head, change, words):
    values, affine, _ = head()
    with pytest.raises(ValueError, match=words):
        Volume(*change(values, affine))


def test_no_head_and_odd_sizes_are_refused(head):
    values, affine, _ = head()
    for modality, words in (("ct", "no head"), ("mri", "constant")):
        with pytest.raises(ValueError, match=words):
            axial(Volume(np.full_like(values, -1000), affine, modality))
    for size, spacing in ((30, None), (127, None), (64, 0.0), (64, 1e9)):
        with pytest.raises(ValueError, match="do not suit"):
            axial(Volume(values, affine, "ct"), size, spacing)


# NIfTI.

def save(path, data, affine=None, **header):
    kind = nibabel.Nifti2Image if header.pop("version", 1) == 2 else nibabel.Nifti1Image
    image = kind(data, affine)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def test_a_written_volume_is_read_back_the_same(tmp_path, head):
    values, affine, _ = head()
    volume = Volume(np.rint(values), *turned(values, affine, (2, 0, 1), (1, 0, 1))[1:], "ct", space=4)
    for name in ("ct.nii", "ct.nii.gz"):
        write_nifti(volume, tmp_path / name)
        returned = read_nifti(tmp_path / name, "ct")
        np.testing.assert_array_equal(returned.values, volume.values)
        np.testing.assert_allclose(returned.affine, volume.affine, atol=1e-5)               # the file holds float32
        assert returned.space == 4
        raw = nibabel.load(tmp_path / name)
        np.testing.assert_allclose(raw.header.get_qform(), volume.affine, atol=1e-4)
        assert raw.get_data_dtype() == np.int16
        assert raw.header["descrip"].item() == b"SYNTHETIC CT - NOT FOR CLINICAL USE"
    on_disk = np.frombuffer((tmp_path / "ct.nii").read_bytes()[112:120], "<f4")
    assert on_disk.tolist() == [1, 0]                            # scl_slope and scl_inter themselves


def test_a_sheared_affine_is_kept_in_the_sform_alone(tmp_path, head):
    values, affine, _ = head()
    affine[1, 2] = 3.0
    write_nifti(Volume(values, affine, "ct"), tmp_path / "tilted.nii")
    header = nibabel.load(tmp_path / "tilted.nii").header
    np.testing.assert_allclose(header.get_sform(), affine, atol=1e-5)
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)


@pytest.mark.parametrize("version", [1, 2])
def test_slope_and_intercept_are_applied_once(tmp_path, version):
    stored = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    path = save(tmp_path / "scaled.nii", stored, np.eye(4), version=version)
    raw = bytearray(path.read_bytes())
    if version == 1:
        raw[112:120] = np.array([2.5, -1024], "<f4").tobytes()
    else:
        raw[176:192] = np.array([2.5, -1024], "<f8").tobytes()
    path.write_bytes(raw)
    np.testing.assert_array_equal(read_nifti(path).values, stored * 2.5 - 1024)


def test_axes_are_read_as_simpleitk_writes_them(tmp_path):
    """Origin (10, 20, -30) and spacing (0.5, 0.6, 3) in LPS arrive as diag(-0.5, -0.6, 3) and (-10, -20, -30) in RAS+."""
    affine = np.diag([-0.5, -0.6, 3, 1])
    affine[:3, 3] = -10, -20, -30
    volume = read_nifti(save(tmp_path / "sitk.nii", np.arange(24, dtype=np.float32).reshape(2, 3, 4), affine), "mri")
    np.testing.assert_allclose(volume.affine, affine, atol=1e-6)
    assert volume.values[1, 2, 3] == 23


def test_the_modality_is_taken_from_the_values_and_said(tmp_path, head):
    for modality, name in (("ct", "CT"), ("mri", "MR")):
        values, affine, _ = head(modality)
        path = save(tmp_path / f"{modality}.nii", values, affine)
        volume = read_nifti(path)
        assert volume.modality == modality and f"taken for {name}" in volume.describe()
        assert "taken" not in read_nifti(path, modality).describe()
    with pytest.raises(ValueError, match="mri.nii: .* cannot be HU"):
        read_nifti(tmp_path / "mri.nii", "ct")
    with pytest.raises(ValueError, match="ct.nii: .* like those of a CT"):
        read_nifti(tmp_path / "ct.nii", "mri")


def test_what_was_not_measured_becomes_background_and_is_counted(tmp_path, head):
    values, affine, _ = head()
    values = values.copy()
    values[0, 0, :3] = np.nan, np.inf, 1e30
    values[1] = -3024                                            # outside a scanner's circle
    volume = read_nifti(save(tmp_path / "x.nii", values, affine), "ct")
    assert volume.values.min() == -1024 == volume.values[0, 0, 0] == volume.values[0, 0, 1] == volume.values[0, 0, 2]
    assert "3 voxels are no finite numbers" in volume.describe() and "1.6% of the voxels are below -1024 HU" in volume.describe()


def test_one_volume_in_four_dimensions_is_read_several_are_refused(tmp_path):
    data = np.random.default_rng(0).integers(0, 99, (4, 5, 6)).astype(np.int16)
    assert read_nifti(save(tmp_path / "one.nii", data[..., None], np.eye(4))).values.shape == (4, 5, 6)
    assert read_nifti(save(tmp_path / "flat.nii", data[..., 0], np.eye(4))).values.shape == (4, 5, 1)
    with pytest.raises(ValueError, match=r"two.nii: it has 4 dimensions \(4 x 5 x 6 x 2\), and a volume has 3: save its time points"):
        read_nifti(save(tmp_path / "two.nii", np.stack([data, data], -1), np.eye(4)))


def test_no_orientation_is_said_and_odd_lengths_and_colours_are_refused(tmp_path):
    data = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    path = save(tmp_path / "lost.nii", data, None)
    assert "gives no orientation" in read_nifti(path).describe()
    with pytest.raises(ValueError, match="in microns: save it in millimetres"):
        read_nifti(save(tmp_path / "small.nii", data, np.eye(4), xyzt_units=3))
    with pytest.raises(ValueError, match="colours or complex"):
        read_nifti(save(tmp_path / "complex.nii", data.astype(np.complex64), np.eye(4)))
    colour = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(ValueError, match="colours or complex"):
        read_nifti(save(tmp_path / "colour.nii", colour, np.eye(4)))


def test_missing_cut_off_and_other_files_are_named(tmp_path, head):
    values, affine, _ = head()
    with pytest.raises(FileNotFoundError, match="nowhere.nii cannot be opened"):
        read_nifti(tmp_path / "nowhere.nii")
    path = save(tmp_path / "whole.nii.gz", values, affine)
    whole = path.read_bytes()
    for name, content, words in (("cut.nii.gz", whole[:-900], "damaged"), ("cut.nii", gzip.decompress(whole)[:-9], "it ends after"),
                                 ("empty.nii", b"", "does not begin like"), ("text.nii.gz", b"no gzip", "damaged"),
                                 ("text.nii", b"x" * 999, "does not begin like")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.* {words}"):
            read_nifti(tmp_path / name)


def test_what_a_header_claims_costs_no_memory(tmp_path):
    """A kilobyte that claims 30000 cubed voxels, a header of gigabytes, or a gzip bomb: refused without reading or making them."""
    path = save(tmp_path / "x.nii", np.zeros((4, 4, 4), np.int16), np.eye(4))
    small, bomb = bytearray(path.read_bytes()), gzip.compress(bytes(2**20), 9)
    huge, far = small.copy(), small.copy()
    huge[40:48] = np.array([3, 30000, 30000, 30000], "<i2").tobytes()
    far[108:112] = np.array([3e9], "<f4").tobytes()
    tracemalloc.start()                                          # it sees NumPy's arrays too
    for content, words in ((huge, "30000 x 30000 x 30000 voxels"), (far, "longer than 64 MB")):
        for name, packed in (("x.nii", bytes(content)), ("x.nii.gz", gzip.compress(bytes(content)) + 2000 * bomb)):    # unpacks to 2 GB
            (tmp_path / name).write_bytes(packed)
            with pytest.raises(ValueError, match=words):
                read_nifti(tmp_path / name)
    assert tracemalloc.get_traced_memory()[1] < 50e6             # bytes
    tracemalloc.stop()


def test_no_name_of_a_header_reaches_the_output(tmp_path, head, secrets):
    values, affine, _ = head()
    image = nibabel.Nifti1Image(np.rint(values).astype(np.int16), affine)
    image.header["descrip"], image.header["db_name"] = "Mustermann^Erika", "MRN-4711"
    image.header["aux_file"], image.header["intent_name"] = "19620229", "Erika"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Mustermann, Sankt Elsewhere"))
    nibabel.save(image, tmp_path / "in.nii")
    volume = read_nifti(tmp_path / "in.nii")
    write_nifti(volume, tmp_path / "out.nii")
    assert b"Mustermann" in (tmp_path / "in.nii").read_bytes()
    for secret in secrets:
        assert secret.encode() not in (tmp_path / "out.nii").read_bytes() and secret not in volume.describe()


def test_what_16_bits_cannot_hold_is_refused(tmp_path, head):
    values, affine, _ = head("mri")
    for changed in (values / values.max(), values * 1e4):
        with pytest.raises(ValueError, match="do not survive rounding"):
            write_nifti(Volume(changed, affine, "mri"), tmp_path / "x.nii")
    with pytest.raises(ValueError, match="must end in"):
        write_nifti(Volume(values, affine, "mri"), tmp_path / "x.img")
    assert not any(tmp_path.iterdir())


def test_an_output_appears_whole_or_not_at_all_and_never_replaces_anything(tmp_path):
    with pytest.raises(KeyboardInterrupt), finished(tmp_path / "new" / "folder") as temporary:
        temporary.mkdir()
        (temporary / "half").write_text("half")
        raise KeyboardInterrupt
    assert not any((tmp_path / "new").iterdir())
    (tmp_path / "empty").mkdir()
    with finished(tmp_path / "empty") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "empty").read_text() == "whole"
    with pytest.raises(FileExistsError, match="exists already"), finished(tmp_path / "empty") as temporary:
        raise AssertionError
    assert (tmp_path / "empty").read_text() == "whole"


def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ModuleNotFoundError, match=r"this needs nibabel: pip install 'ctmri-utils\[course\]'"):
        read_nifti("x.nii")


# Hostile bytes.

def test_random_damage_to_nifti_files_only_ever_gives_a_sentence(tmp_path, head, damage):
    values, affine, _ = head(size=32, slices=6)
    draw = np.random.default_rng(0)
    whole = {name: save(tmp_path / name, values.astype(kind), affine, version=version).read_bytes()
             for name, kind, version in (("a.nii", np.int16, 1), ("b.nii.gz", np.float32, 1), ("c.nii", np.float64, 2))}
    refused = 0
    tracemalloc.start()
    for name, content in whole.items():
        for _ in range(100):
            (tmp_path / name).write_bytes(damage(content, draw))
            try:
                volume = read_nifti(tmp_path / name)
            except ValueError as error:
                assert name in str(error) and "\n" not in str(error)
                refused += 1
                continue
            assert np.isfinite(volume.values).all()
            try:
                assert np.isfinite(axial(volume, 32, 8).values).all()
            except ValueError as error:
                assert "\n" not in str(error)
    assert 100 < refused < 300                                   # some damage hits the voxels only, and makes another image
    assert tracemalloc.get_traced_memory()[1] < 200e6            # bytes; the whole image has 24 kB
    tracemalloc.stop()

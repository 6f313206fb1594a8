"""NIfTI in and out: numbers, place and space kept, names left behind, hostile files refused."""

import gzip
import logging
import sys
import tracemalloc

import nibabel
import numpy as np
import pytest

from ctmri_utils.volumes.axial_slices import axial
from ctmri_utils.volumes.nifti import read_nifti, write_nifti
from ctmri_utils.volumes.volume import Volume, atomic_create


def save(path, data, affine=None, version=1, **header):
    image = (nibabel.Nifti2Image if version == 2 else nibabel.Nifti1Image)(data, affine)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def patched(path, *edits):
    """The file with numbers at some of its bytes replaced: (place, NumPy type, values)."""
    content = bytearray(path.read_bytes())
    for place, kind, numbers in edits:
        raw = np.array(numbers, kind).tobytes()
        content[place : place + len(raw)] = raw
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz"])
def test_a_written_volume_is_read_back_the_same(tmp_path, head, name):
    affine = np.array([[0, 2, 0, 5], [0, 0, -3, 6], [1, 0, 0, 7], [0, 0, 0, 1.0]])
    volume = Volume(head()[0], affine, "ct", space=4)
    write_nifti(volume, tmp_path / name)
    returned = read_nifti(tmp_path / name, "ct")
    np.testing.assert_array_equal(returned.values, volume.values)
    # The file holds float32.
    np.testing.assert_allclose(returned.affine, volume.affine, atol=1e-5)
    assert returned.space == 4

    raw = nibabel.load(tmp_path / name)
    np.testing.assert_allclose(raw.header.get_qform(), volume.affine, atol=1e-4)
    assert raw.get_data_dtype() == np.int16
    assert raw.header["descrip"].item() == b"SYNTHETIC CT - NOT FOR CLINICAL USE"
    # These are scl_slope and scl_inter themselves.
    with nibabel.openers.Opener(tmp_path / name) as file:
        assert np.frombuffer(file.read(120)[112:], "<f4").tolist() == [1, 0]


def test_a_sheared_affine_is_kept_in_the_sform_alone(tmp_path, head):
    values, affine, _ = head()
    affine[1, 2] = 3.0
    write_nifti(Volume(values, affine, "ct"), tmp_path / "tilted.nii")
    header = nibabel.load(tmp_path / "tilted.nii").header
    np.testing.assert_allclose(header.get_sform(), affine, atol=1e-5)
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)


@pytest.mark.parametrize(("version", "place", "kind"), [(1, 112, "<f4"), (2, 176, "<f8")])
def test_slope_and_intercept_are_applied_once(tmp_path, version, place, kind):
    stored = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    path = save(tmp_path / "scaled.nii", stored, np.eye(4), version)
    patched(path, (place, kind, [2.5, -1024]))
    np.testing.assert_array_equal(read_nifti(path).values, stored * 2.5 - 1024)


@pytest.mark.parametrize(("modality", "name"), [("ct", "CT"), ("mri", "MR")])
def test_the_modality_is_taken_from_the_values_and_said(tmp_path, head, modality, name):
    values, affine, _ = head(modality)
    path = save(tmp_path / "scan.nii", values, affine)
    volume = read_nifti(path)
    assert volume.modality == modality and f"taken for {name}" in volume.describe()
    assert "taken" not in read_nifti(path, modality).describe()
    with pytest.raises(ValueError, match="scan.nii"):
        read_nifti(path, "mri" if modality == "ct" else "ct")


def test_what_was_not_measured_becomes_background_and_is_counted(tmp_path, head):
    values, affine, _ = head()
    values = values.copy()
    values[0, 0, :3] = np.nan, np.inf, 1e30
    values[1] = -3024  # outside a scanner's circle
    volume = read_nifti(save(tmp_path / "x.nii", values, affine), "ct")
    assert volume.values.min() == -1024 and (volume.values[0, 0, :3] == -1024).all()
    assert "3 voxels are not finite numbers" in volume.describe()
    assert "1.6% of the voxels are below -1024 HU" in volume.describe()


def test_one_volume_in_four_dimensions_is_read_several_are_refused(tmp_path):
    data = np.random.default_rng(0).integers(0, 99, (4, 5, 6)).astype(np.int16)
    one = read_nifti(save(tmp_path / "one.nii", data[..., None], np.eye(4)))
    flat = read_nifti(save(tmp_path / "flat.nii", data[..., 0], np.eye(4)))
    assert (one.values.shape, flat.values.shape) == ((4, 5, 6), (4, 5, 1))
    with pytest.raises(ValueError, match="4 dimensions"):
        read_nifti(save(tmp_path / "two.nii", np.stack([data, data], -1), np.eye(4)))


def test_no_orientation_is_said_and_odd_lengths_and_colours_are_refused(tmp_path):
    data = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    path = save(tmp_path / "lost.nii", data, None)
    assert "gives no orientation" in read_nifti(path).describe()
    with pytest.raises(ValueError, match="microns"):
        read_nifti(save(tmp_path / "small.nii", data, np.eye(4), xyzt_units=3))
    colour = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    for voxels in (data.astype(np.complex64), colour):
        with pytest.raises(ValueError, match="colours or complex"):
            read_nifti(save(tmp_path / "x.nii", voxels, np.eye(4)))


def test_missing_cut_off_and_other_files_are_named(tmp_path, head):
    with pytest.raises(FileNotFoundError, match="nowhere.nii"):
        read_nifti(tmp_path / "nowhere.nii")
    values, affine, _ = head()
    whole = save(tmp_path / "whole.nii.gz", values, affine).read_bytes()
    for name, content in (
        ("cut.nii.gz", whole[:-900]),
        ("cut.nii", gzip.decompress(whole)[:-9]),
        ("empty.nii", b""),
        ("text.nii.gz", b"no gzip"),
        ("broken.nii.gz", b"\x1f\x8b broken"),
        ("text.nii", b"x" * 999),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            read_nifti(tmp_path / name)


def test_packing_is_seen_by_the_content_not_by_the_name(tmp_path, head):
    values, affine, _ = head()
    raw = save(tmp_path / "x.nii", values.astype(np.int16), affine).read_bytes()
    for name, content in (("plain.nii.gz", raw), ("packed.nii", gzip.compress(raw))):
        (tmp_path / name).write_bytes(content)
        np.testing.assert_array_equal(read_nifti(tmp_path / name, "ct").values, values)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid", "git-lfs"),
        (b"<html>Sign in to continue</html>", "web page"),
        (b"<!DOCTYPE html>", "web page"),
    ],
)
def test_what_was_not_fetched_is_called_so(tmp_path, content, words):
    (tmp_path / "x.nii.gz").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_nifti(tmp_path / "x.nii.gz")


@pytest.mark.parametrize("excess", [1e-7, 1e-6, 1e-5, 1e-3])
def test_a_quaternion_that_is_too_long_by_rounding_is_half_a_turn(tmp_path, head, excess):
    values, _, _ = head(slices=3)
    half_turn = np.diag([-3.0, -3, 6, 1])
    path = save(tmp_path / "x.nii", values.astype(np.int16), half_turn)
    long = [0, 0, (1 + excess) ** 0.5]
    patched(path, (252, "<i2", [1, 0]), (256, "<f4", long))
    np.testing.assert_allclose(read_nifti(path, "ct").affine[:3, :3], half_turn[:3, :3], atol=0.01)


def test_a_quaternion_that_is_far_too_long_is_refused(tmp_path, head):
    path = save(tmp_path / "x.nii", head(slices=3)[0].astype(np.int16), np.diag([3.0, 3, 6, 1]))
    for codes, sform in (([1, 0], []), ([1, 1], [0] * 12)):
        patched(path, (252, "<i2", codes), (256, "<f4", [0, 0, 1.5]), (280, "<f4", sform))
        with pytest.raises(ValueError, match="qform"):
            read_nifti(path, "ct")


@pytest.mark.parametrize("dim", [[0], [-1], [99], [3, -4, -4, 4]])
def test_dimensions_that_cannot_be_are_refused(tmp_path, dim):
    path = save(tmp_path / "x.nii", np.zeros((4, 4, 4), np.int16), np.eye(4))
    with pytest.raises(ValueError, match="x.nii"):
        read_nifti(patched(path, (40, "<i2", dim)))


def test_an_sform_of_zeros_leaves_the_place_to_a_good_qform(tmp_path, head):
    values, affine, _ = head()
    path = save(tmp_path / "x.nii", values.astype(np.int16), affine)
    patched(path, (252, "<i2", [1, 1]), (280, "<f4", [0] * 12))
    volume = read_nifti(path, "ct")
    np.testing.assert_allclose(volume.affine, affine, atol=1e-3)
    assert "its sform is not plausible, so its position is taken from its qform" in volume.notes
    with pytest.raises(ValueError, match="not plausible"):
        read_nifti(patched(path, (252, "<i2", [0, 1])), "ct")


def test_an_offset_inside_the_header_is_read_behind_it_and_said(tmp_path, head):
    values, affine, _ = head()
    path = save(tmp_path / "x.nii", values.astype(np.int16), affine)
    for offset in (0, 348):
        volume = read_nifti(patched(path, (108, "<f4", [offset])), "ct")
        np.testing.assert_array_equal(volume.values, values)
        assert "its voxels were read from byte 352 on" in volume.describe()
    with pytest.raises(ValueError, match="vox_offset"):
        read_nifti(patched(path, (348, "u1", [1])), "ct")


def test_an_intercept_that_is_no_number_is_refused(tmp_path, head):
    path = save(tmp_path / "x.nii", head()[0].astype(np.int16), np.eye(4))
    with pytest.raises(ValueError, match="its scl_inter"):
        read_nifti(patched(path, (112, "<f4", [1, np.nan])), "ct")


def test_what_a_header_claims_costs_no_memory(tmp_path):
    """A kilobyte that claims 30000 cubed voxels, a header of gigabytes, or a gzip bomb.

    Refused without reading or making them.
    """
    whole = save(tmp_path / "whole.nii", np.zeros((4, 4, 4), np.int16), np.eye(4)).read_bytes()
    bomb = gzip.compress(bytes(2**20), 9)
    path = tmp_path / "x.nii"
    tracemalloc.start()  # it sees NumPy's arrays too
    for claim, words in (
        ((40, "<i2", [3, 30000, 30000, 30000]), "30000 x 30000 x 30000 voxels"),
        ((108, "<f4", [3e9]), "longer than 64 MB"),
    ):
        path.write_bytes(whole)
        content = patched(path, claim).read_bytes()
        # Unpacks to 2 GB.
        for claimed in (content, gzip.compress(content) + 2000 * bomb):
            path.write_bytes(claimed)
            with pytest.raises(ValueError, match=words):
                read_nifti(path)
    assert tracemalloc.get_traced_memory()[1] < 50e6  # bytes
    tracemalloc.stop()


def test_no_name_of_a_header_reaches_the_output(tmp_path, head, secrets):
    values, affine, _ = head()
    image = nibabel.Nifti1Image(np.rint(values).astype(np.int16), affine)
    image.header["descrip"], image.header["db_name"] = "Mustermann^Erika", "MRN-4711"
    image.header["aux_file"], image.header["intent_name"] = "19620229", "Erika"
    image.header.extensions.append(
        nibabel.nifti1.Nifti1Extension("comment", b"Mustermann, Sankt Elsewhere")
    )
    nibabel.save(image, tmp_path / "in.nii")
    volume = read_nifti(tmp_path / "in.nii")
    write_nifti(volume, tmp_path / "out.nii")
    assert b"Mustermann" in (tmp_path / "in.nii").read_bytes()
    for secret in secrets:
        assert secret.encode() not in (tmp_path / "out.nii").read_bytes()
        assert secret not in volume.describe()


def test_what_16_bits_cannot_hold_is_refused(tmp_path, head):
    values, affine, _ = head("mri")
    for changed in (values / values.max(), values * 1e4):
        with pytest.raises(ValueError, match="rounding"):
            write_nifti(Volume(changed, affine, "mri"), tmp_path / "x.nii")
    with pytest.raises(ValueError, match="must end in"):
        write_nifti(Volume(values, affine, "mri"), tmp_path / "x.img")
    assert not any(tmp_path.iterdir())


def test_an_output_appears_whole_or_not_at_all_and_never_replaces_anything(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_create(tmp_path / "new" / "folder") as temporary:
        temporary.mkdir()
        (temporary / "half").write_text("half")
        raise KeyboardInterrupt
    assert not any((tmp_path / "new").iterdir())
    (tmp_path / "empty").mkdir()
    with atomic_create(tmp_path / "empty") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "empty").read_text() == "whole"
    with pytest.raises(FileExistsError), atomic_create(tmp_path / "empty"):
        raise AssertionError
    assert (tmp_path / "empty").read_text() == "whole"


def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ModuleNotFoundError, match=r"nibabel.*ctmri-utils\[course\]"):
        read_nifti("x.nii")


def test_random_damage_to_nifti_files_only_ever_gives_a_sentence(
    tmp_path, head, damage, caplog, recwarn, capfd
):
    values, affine, _ = head(size=32, slices=6)
    draw = np.random.default_rng(0)
    whole = {
        name: save(tmp_path / name, values.astype(kind), affine, version=version).read_bytes()
        for name, kind, version in (
            ("a.nii", np.int16, 1),
            ("b.nii.gz", np.float32, 1),
            ("c.nii", np.float64, 2),
        )
    }
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
    assert not caplog.records and not recwarn.list and not "".join(capfd.readouterr())
    # nibabel may log and warn again.
    assert logging.getLogger("nibabel.global").isEnabledFor(logging.WARNING)
    # Damage that hits only the voxels makes another image.
    assert 100 < refused < 300
    assert tracemalloc.get_traced_memory()[1] < 200e6  # bytes; the whole image has 24 kB
    tracemalloc.stop()

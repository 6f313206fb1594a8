"""The error to expect of a translation: calibrated on phantoms, written beside it, and no scan."""

import nibabel
import numpy as np
import pydicom
import pytest
from helpers.hospital_files import ctmri, write_scan, write_with_simple_itk
from helpers.identity_translator import IdentityTranslator

from ctmri_utils.discovery import ERROR_MAP, EXPECTED_ERROR, own_label
from ctmri_utils.machine import data_folder
from ctmri_utils.runs.weights import load_translator
from ctmri_utils.volumes import error_maps
from ctmri_utils.volumes.error_maps import calibrate, expected_error
from ctmri_utils.volumes.itk import read_itk
from ctmri_utils.volumes.scan_files import list_scans
from ctmri_utils.volumes.translate import translate_volume

LABEL = EXPECTED_ERROR.format("CT")


@pytest.fixture(scope="module")
def shipped():
    model = load_translator(data_folder() / "weights" / "phantom.safetensors")
    return model, calibrate(model, "ct", patients=6)


@pytest.fixture
def few_patients(monkeypatch):
    monkeypatch.setattr(error_maps.calibrate, "__defaults__", (None, None, 1, iter))


def test_the_calibration_holds_on_new_patients_of_both_families(shipped):
    _, calibration = shipped
    assert set(calibration.held_out) == {"formula", "atlas"}
    for family, found in calibration.held_out.items():
        assert 0.7 < found.expected / found.true < 1.4, family
        assert 0.8 < found.below_twice < 1, family


def test_a_map_has_the_grid_of_its_scan_and_large_values_at_errors(shipped, head_volume):
    model, calibration = shipped
    volume = head_volume("mri", slices=5, seed=11)
    errors = expected_error(model, volume, calibration)

    assert errors.values.shape == volume.values.shape and errors.values.min() == 0
    np.testing.assert_array_equal(errors.affine, volume.affine)
    assert errors.error_map and errors.modality == "ct" and errors.label == LABEL

    truth = head_volume("ct", slices=5, seed=11)
    true = np.abs(translate_volume(model, volume).values - truth.values)
    inside = errors.values > 0
    worst = errors.values > np.quantile(errors.values[inside], 0.9)
    assert true[worst].mean() > 3 * true[inside & ~worst].mean()


def test_a_steady_translator_has_the_same_expected_error_everywhere(head_volume):
    model = IdentityTranslator()
    calibration = calibrate(model, "ct", 32, patients=2)
    errors = expected_error(model, head_volume("mri", slices=3), calibration, 32)

    # Moved copies come back as they were, but for their noise.
    inside = errors.values[errors.values > errors.values.max() / 2]
    assert inside.std() < 0.2 * inside.mean()

    with pytest.raises(ValueError, match="calibration"):
        expected_error(model, head_volume("ct", slices=3), calibration, 32)


@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.mha", "ct"])
def test_the_command_writes_the_map_beside_the_translation_in_its_format(
    tmp_path, head_volume, dicom_series, weights, few_patients, capsys, name
):
    volume = head_volume("mri", slices=3)
    source = tmp_path / "mr.nii.gz"
    if name == "ct":
        source = tmp_path / "mr"
        dicom_series(source, volume.values, volume.affine, "mri")
    else:
        write_scan(volume, source)
    target = tmp_path / "out" / name
    options = ["--weights", weights, "--size", 32, "--uncertainty"]
    assert ctmri("translate", source, target, *options) == 0
    said = capsys.readouterr().out
    assert "calibrated on phantoms: fitted on 2 synthetic patients" in said
    assert "the expected error, " in said

    path = target.with_name(name.replace("ct", "ct_uncertainty"))
    assert sorted(target.parent.iterdir()) == sorted([target, path])
    text, errors = what_it_says(path)
    assert LABEL in text and "calibrated on phantoms" in text
    assert errors.min() == 0 and errors.max() > 10

    # It is never taken for a scan, whatever is asked for.
    listing = list_scans(tmp_path / "out")
    assert len(listing.scans) == 1 and listing.left_out[ERROR_MAP] == (3 if name == "ct" else 1)
    assert ctmri("translate", path, tmp_path / "again", *options, "--round-trip") == 1
    assert "map of expected errors" in capsys.readouterr().err

    # And never overwritten.
    target.rename(tmp_path / "moved away")
    assert ctmri("translate", source, target, *options) == 1
    assert "_uncertainty" in capsys.readouterr().err
    assert not target.exists()


def test_each_direction_is_calibrated_once(tmp_path, head_volume, weights, few_patients, capsys):
    for name in ("p1", "p2"):
        write_scan(head_volume("mri", slices=3), tmp_path / "in" / f"{name}.nii")
    options = ["--weights", weights, "--size", 32, "--to", "ct", "--uncertainty"]
    assert ctmri("translate", tmp_path / "in", tmp_path / "out", *options) == 0
    assert capsys.readouterr().out.count("calibrated on phantoms") == 1
    assert len(list((tmp_path / "out").iterdir())) == 4


@pytest.mark.parametrize("name", ["P1_Uncertainty.nii.gz", "p1_uncertainty.mha"])
def test_a_map_that_lost_its_label_is_known_by_its_name(tmp_path, head, name):
    values, affine, _ = head("mri", slices=3)
    write_with_simple_itk(values, affine, tmp_path / name)
    write_with_simple_itk(values, affine, tmp_path / f"uncertainty_{name[-8:]}")
    assert own_label(tmp_path / name) == ""
    listing = list_scans(tmp_path)
    assert [scan.name for scan in listing.scans] == [f"uncertainty_{name[-8:]}"]
    assert listing.left_out[ERROR_MAP] == 1


def what_it_says(path):
    """The texts in a map's header, and its values."""
    if path.is_dir():
        first = pydicom.dcmread(path / "0001.dcm")
        assert first.SeriesDescription == LABEL
        return f"{first.SeriesDescription} {first.ImageComments}", first.pixel_array
    if path.suffix == ".mha":
        return path.read_bytes()[:2000].decode("latin-1"), read_itk(path, "mri").values
    image = nibabel.load(path)
    assert own_label(path) == LABEL
    return image.header["descrip"].item().decode(), image.get_fdata()


def test_smoothing_is_refused_because_nothing_is_calibrated_for_it(tmp_path, weights, capsys):
    options = ["--weights", weights, "--uncertainty", "--smooth-mm", 2]
    assert ctmri("translate", "in.nii", tmp_path / "out.nii", *options) == 1
    assert "leave --smooth-mm or --uncertainty out" in capsys.readouterr().err

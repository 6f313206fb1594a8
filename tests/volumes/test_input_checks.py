"""Scans that the networks cannot know are refused or named, on the screen and in the result."""

from dataclasses import replace

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from hospital_files import ctmri, write_scan
from test_translate import Mirror

from ctmri_utils.cyclegan.model import Translator
from ctmri_utils.runs import Contract, load_translator, save_weights
from ctmri_utils.scans.phantom import render, synthetic_patients
from ctmri_utils.scans.physics import TISSUES
from ctmri_utils.settings import Architecture
from ctmri_utils.units import GREY
from ctmri_utils.volumes.axial_slices import axial
from ctmri_utils.volumes.dicom_write import write_series
from ctmri_utils.volumes.input_checks import check_input, look_at
from ctmri_utils.volumes.itk import write_itk
from ctmri_utils.volumes.nifti import read_nifti, write_nifti
from ctmri_utils.volumes.translate import translate_volume
from ctmri_utils.volumes.volume import Volume

SIZE, SLICES = 64, 9
T2 = {"sequence": "spin echo", "tr_ms": 4000, "te_ms": 100, "t1_factor": 1.0, "gain": 5.0}
IN_THE_SKULL = ["csf", "grey matter", "white matter", "deep grey matter"]


@pytest.fixture(scope="module", params=["formula", "atlas"])
def patient(request):
    return synthetic_patients(1, SIZE, 3, anatomy=request.param, slices=SLICES)


def volume_of(patient, values, modality):
    """A volume (x, y, z) of an upright head from slices (z, y, x)."""
    spacing = (-patient.spacing_mm, -patient.spacing_mm, patient.slice_spacing_mm, 1.0)
    return Volume(values.transpose(2, 1, 0).astype(np.float32), np.diag(spacing), modality)


def names(volume):
    return [warning.split(":")[0] for warning in check_input(volume, axial(volume, SIZE))]


def test_whole_heads_pass_without_a_word(patient):
    assert names(volume_of(patient, patient.ct_hu[0], "ct")) == []
    assert names(volume_of(patient, patient.mri[0], "mri")) == []


def test_wide_ventricles_are_no_other_contrast():
    patient = synthetic_patients(1, SIZE, 2027, slices=SLICES)
    assert patient.parameters[0]["atrophy"] > 0.95
    assert names(volume_of(patient, patient.mri[0], "mri")) == []


def test_a_brain_without_skull_is_named(patient):
    brain = np.isin(patient.labels[0], [TISSUES[name].label for name in IN_THE_SKULL])
    assert names(volume_of(patient, np.where(brain, patient.mri[0], 0), "mri")) == ["no skull"]
    ct_hu = np.where(brain, patient.ct_hu[0], -1000)
    assert names(volume_of(patient, ct_hu, "ct")) == ["no skull"]


def test_another_contrast_is_named(patient):
    t2 = render(patient.parameters[0] | {"contrast": T2}, SIZE)[1]
    assert "contrast" in names(volume_of(patient, t2, "mri"))


def test_a_head_that_reaches_the_border_of_the_scan_is_named(patient):
    volume = volume_of(patient, patient.ct_hu[0], "ct")
    shorter = replace(volume, values=volume.values[:, 20:])
    assert names(shorter) == ["cut off"]


def test_a_head_of_another_size_is_named(patient):
    volume = volume_of(patient, patient.ct_hu[0], "ct")
    half = replace(volume, affine=volume.affine @ np.diag([0.5, 0.5, 0.5, 1]))
    assert "size" in names(half)


def test_a_ct_without_its_offset_is_no_mr(patient):
    stored = volume_of(patient, patient.ct_hu[0] + 1024, "mri")
    with pytest.raises(ValueError, match="almost uniform"):
        names(stored)


def test_an_mr_on_a_scale_like_hu_is_no_ct(patient):
    mri = patient.mri[0]
    rescaled = volume_of(patient, mri / np.percentile(mri, 99.5) * 2000 - 1000, "ct")
    with pytest.raises(ValueError, match="brain lies at"):
        names(rescaled)


def test_a_head_that_lies_across_or_upside_down_is_refused(patient):
    volume = volume_of(patient, patient.ct_hu[0], "ct")
    across = replace(volume, values=np.ascontiguousarray(volume.values.transpose(1, 0, 2)))
    with pytest.raises(ValueError, match="times as wide as long"):
        names(across)

    # The vertex is in the scan once the upper slices shrink to it.
    values = volume.values.copy()
    values[:, :, -2:] = -1000
    values[22:42, 22:42, -2:] = volume.values[22:42, 22:42, -2:]
    with_vertex = replace(volume, values=values)
    assert names(with_vertex) == []
    with pytest.raises(ValueError, match="upside down"):
        names(replace(with_vertex, values=values[:, :, ::-1]))


def test_what_a_look_measures_does_not_depend_on_the_orientation_on_disk(patient):
    volume = volume_of(patient, patient.mri[0], "mri")
    affine = volume.affine[:, [2, 0, 1, 3]]
    turned = replace(volume, values=volume.values.transpose(2, 0, 1), affine=affine)
    looks = [look_at(one, axial(one, SIZE)) for one in (volume, turned)]
    np.testing.assert_allclose(*looks, rtol=1e-3, atol=1e-3)


# In the result, and on the screen.


@pytest.fixture
def odd(head):
    """A CT that reaches the border of its scan."""
    values, affine, _ = head(slices=3)
    return Volume(values[:, 20:], affine, "ct")


def test_warnings_stand_in_the_header_of_every_format(odd, tmp_path):
    result = translate_volume(Mirror(), odd, 64)
    [warning] = result.warnings
    assert warning.startswith("cut off: 100% of the slices")

    write_nifti(result, tmp_path / "a.nii")
    header = nibabel.load(tmp_path / "a.nii").header
    assert header["descrip"].item() == b"SYNTHETIC MR - NOT FOR CLINICAL USE; input: cut off"
    assert [part.get_content() for part in header.extensions] == [warning.encode()]

    write_itk(result, tmp_path / "a.nrrd")
    assert warning.encode() in (tmp_path / "a.nrrd").read_bytes()
    write_series(result, tmp_path / "series")
    first = pydicom.dcmread(tmp_path / "series" / "0001.dcm")
    assert warning in first.ImageComments and warning not in first.SeriesDescription


def test_all_names_fit_into_the_79_characters_of_nifti(odd, tmp_path):
    result = translate_volume(Mirror(), odd, 64)
    every = ("no skull: a", "contrast: b", "cut off: c", "size: d")
    write_nifti(replace(result, warnings=every), tmp_path / "a.nii")
    text = nibabel.load(tmp_path / "a.nii").header["descrip"].item().decode()
    assert text.endswith("; input: no skull, contrast, cut off, size")


def test_translations_are_translated_back_however_odd_they_are(head):
    class Grey(Mirror):
        def translate(self, images, to):
            return images * 0 + torch.rand_like(images) / 50

    values, affine, _ = head(slices=3)
    translated = translate_volume(Grey(), Volume(values, affine, "ct"), 64)
    assert translated.synthetic
    assert translate_volume(Mirror(), translated, 64).warnings == ()


def weights_with(tmp_path, **contract):
    model = Translator(Architecture(ngf=4, ndf=4, n_blocks=1, n_layers=1))
    path = tmp_path / "weights.safetensors"
    model.contract = Contract(**{"size": 32, "pixel_mm": 7.0, "data": "noise"} | contract)
    save_weights(model, path)
    return path


def translate(source, output, weights, *words):
    return ctmri("translate", source, output, "--weights", weights, *words)


def test_nobody_types_the_size_of_weights_that_say_it(odd, tmp_path, capsys):
    write_scan(odd, tmp_path / "ct.nii")
    weights = weights_with(tmp_path)
    assert translate(tmp_path / "ct.nii", tmp_path / "out.nii", weights) == 0
    by_hand = translate_volume(load_translator(weights), read_nifti(tmp_path / "ct.nii"), 32, 7.0)
    made = read_nifti(tmp_path / "out.nii", "mri")
    np.testing.assert_array_equal(made.values, np.rint(by_hand.values))
    said = capsys.readouterr().out
    assert "The networks know slices of 32 x 32 pixels of 7 mm" in said
    assert said.count("warning: cut off") == 1


IN_GREY_LEVELS = {"ct_low": GREY.low, "ct_high": GREY.high, "ct_unit": GREY.unit}


@pytest.mark.parametrize(
    ("contract", "words", "sentence"),
    [
        ({}, ["--size", 64], "size 64 contradicts these weights"),
        ({}, ["--spacing-mm", 3], "pixels of 3 mm contradict these weights"),
        ({"makes": ["ct"]}, [], "these weights make CT, not MR"),
        (IN_GREY_LEVELS, [], "know CT in grey levels"),
    ],
)
def test_what_contradicts_the_contract_is_refused(odd, tmp_path, capsys, contract, words, sentence):
    write_scan(odd, tmp_path / "ct.nii")
    weights = weights_with(tmp_path, **contract)
    assert translate(tmp_path / "ct.nii", tmp_path / "out.nii", weights, *words) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out.nii").exists()


def test_the_size_that_is_assumed_for_weights_without_a_contract_is_said(odd):
    [note] = translate_volume(Mirror(), odd).notes
    assert "128 x 128 pixels were assumed" in note
    assert translate_volume(Mirror(), odd, 64).notes == ()

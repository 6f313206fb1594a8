"""Filled-over air is put back, and scans that the networks cannot know are refused or named."""

from dataclasses import replace

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from helpers.hospital_files import ctmri, write_scan
from helpers.identity_translator import IdentityTranslator
from scipy import ndimage

from ctmri_utils.cyclegan.model import Translator
from ctmri_utils.masks import ct_head_mask, mri_head_mask, volume_head_mask
from ctmri_utils.runs import Contract, load_translator, save_weights
from ctmri_utils.scans.phantom import render, synthetic_patients
from ctmri_utils.scans.physics import TISSUES
from ctmri_utils.settings import Architecture
from ctmri_utils.units import GREY
from ctmri_utils.volumes.axial_slices import axial
from ctmri_utils.volumes.dicom_write import write_series
from ctmri_utils.volumes.input_checks import check_input, head_notes, measure_head, with_air
from ctmri_utils.volumes.itk import write_itk
from ctmri_utils.volumes.nifti import read_nifti, write_nifti
from ctmri_utils.volumes.translate import translate_volume
from ctmri_utils.volumes.volume import Volume, cleaned

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
    looks = [measure_head(one, axial(one, SIZE)) for one in (volume, turned)]
    np.testing.assert_allclose(*looks, rtol=1e-3, atol=1e-3)


# In the result, and on the screen.


@pytest.fixture
def odd(head):
    """A CT that reaches the border of its scan."""
    values, affine, _ = head(slices=3)
    return Volume(values[:, 20:], affine, "ct")


def test_warnings_stand_in_the_header_of_every_format(odd, tmp_path):
    result = translate_volume(IdentityTranslator(), odd, 64)
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
    result = translate_volume(IdentityTranslator(), odd, 64)
    every = ("no skull: a", "contrast: b", "cut off: c", "size: d")
    write_nifti(replace(result, warnings=every), tmp_path / "a.nii")
    text = nibabel.load(tmp_path / "a.nii").header["descrip"].item().decode()
    assert text.endswith("; input: no skull, contrast, cut off, size")


def test_translations_are_translated_back_however_odd_they_are(head):
    class Grey(IdentityTranslator):
        def translate(self, images, to):
            return images * 0 + torch.rand_like(images) / 50

    values, affine, _ = head(slices=3)
    translated = translate_volume(Grey(), Volume(values, affine, "ct"), 64)
    assert translated.synthetic
    assert translate_volume(IdentityTranslator(), translated, 64).warnings == ()


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
    [note] = translate_volume(IdentityTranslator(), odd).notes
    assert "128 x 128 pixels were assumed" in note
    assert translate_volume(IdentityTranslator(), odd, 64).notes == ()


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

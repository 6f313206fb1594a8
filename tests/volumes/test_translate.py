"""Volumes through a network and back onto their own grid, from the command line too.

One bad scan costs the others nothing.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.hospital_files import ctmri, write_scan
from helpers.identity_translator import IdentityTranslator
from helpers.published_networks import Resnet, drawn, with_grey_pictures
from scipy import ndimage

from ctmri_utils.cyclegan.model import CycleGAN
from ctmri_utils.evaluation.faithfulness import slice_jitter
from ctmri_utils.runs.weights import load_translator, save_weights
from ctmri_utils.settings import Architecture, Objective
from ctmri_utils.units import HU, mri_scale
from ctmri_utils.volumes import network_slices, scan_files
from ctmri_utils.volumes.axial_slices import axial
from ctmri_utils.volumes.network_slices import TRANSLATED_MRI
from ctmri_utils.volumes.nifti import read_nifti
from ctmri_utils.volumes.scan_files import find_scans, read_volume
from ctmri_utils.volumes.translate import (
    TranslationOptions,
    list_translations,
    translate_scans,
    translate_volume,
)
from ctmri_utils.volumes.volume import Volume


def test_an_identity_translator_changes_a_volume_by_interpolation_only(head):
    values, affine, spacing = head()
    volume = Volume(values, affine, "ct")
    # The slices get the volume's own pixel size.
    result = translate_volume(IdentityTranslator(), volume, 64, spacing[1])
    assert result.modality == "mri" and result.values.shape == values.shape
    np.testing.assert_array_equal(result.affine, affine)

    inside = inside_head(volume, spacing[1]) > 0.99
    assert 0.3 < inside.mean() < 0.7
    expected = TRANSLATED_MRI.from_network(HU.to_network(values))
    # The tolerance is in MR units, of which there are 4095.
    np.testing.assert_allclose(result.values[inside], expected[inside], atol=0.5)
    np.testing.assert_allclose(result.values[far_from(inside)], 0, atol=0.5)


def inside_head(volume, pixel_mm):
    """How much of each voxel is head, (I, J, K)."""
    stack = axial(volume, 64, pixel_mm)
    return stack.back_onto(volume, stack.head.astype(np.float32), 0)


def far_from(mask):
    return ~ndimage.binary_dilation(mask, np.ones((5, 5, 1)))


def test_mr_is_scaled_by_its_own_head_and_becomes_hu(head):
    values, affine, spacing = head("mri")
    volume = Volume(values, affine, "mri")
    model = IdentityTranslator()
    result = translate_volume(model, volume, 64, spacing[1])
    assert result.modality == "ct" and result.values.min() >= -1000 and result.values.max() <= 1000

    [(images, to)] = model.calls
    assert to == "ct" and images.shape == (12, 1, 64, 64) and images.dtype == torch.float32
    stack = axial(volume, 64, spacing[1])
    scaled = mri_scale(stack.values, stack.head).to_network(stack.values)
    np.testing.assert_allclose(images[:, 0].numpy()[stack.head], scaled[stack.head], atol=1e-5)
    # What is outside of the head, the network never sees.
    assert (images[:, 0].numpy()[~stack.head_and_rim] == -1).all()


def test_the_table_below_the_head_is_gone(head):
    values, affine, spacing = head()
    with_table = values.copy()
    with_table[10:54, 62:64] = 300
    models = IdentityTranslator(), IdentityTranslator()
    plain, tabled = (
        translate_volume(model, Volume(one, affine, "ct"), 64, spacing[1])
        for model, one in zip(models, (values, with_table))
    )
    np.testing.assert_allclose(plain.values, tabled.values, atol=1e-3)
    torch.testing.assert_close(*(model.calls[0][0] for model in models))


def test_what_a_network_paints_outside_the_head_is_not_believed(head):
    class White(IdentityTranslator):
        def translate(self, images, to):
            return torch.ones_like(images)

    values, affine, spacing = head("mri")
    volume = Volume(values, affine, "mri")
    result = translate_volume(White(), volume, 64, spacing[1])
    inside = inside_head(volume, spacing[1]) > 0.01
    assert (result.values[inside] > 999).mean() > 0.99
    assert (result.values[far_from(inside)] == -1000).all()


def test_the_grid_of_any_orientation_is_kept_and_nothing_moves(head):
    values, affine, spacing = head()
    plain = translate_volume(
        IdentityTranslator(), Volume(values, affine, "ct"), 64, spacing[1]
    ).values
    first = affine @ [63, 0, 0, 1]
    their_affine = np.column_stack([affine[:, 2], -affine[:, 0], affine[:, 1], first])
    other = Volume(values.transpose(2, 0, 1)[:, ::-1], their_affine, "ct")
    turned = translate_volume(IdentityTranslator(), other, 64, spacing[1])
    np.testing.assert_allclose(turned.values, plain.transpose(2, 0, 1)[:, ::-1], atol=0.05)
    np.testing.assert_array_equal(turned.affine, other.affine)


def test_batches_are_sized_to_memory_and_change_nothing(head_volume, monkeypatch, weights):
    model, volume = load_translator(weights), head_volume()
    loops, results = [], []

    def counted(steps):
        loops.append(len(steps))
        return steps

    for budget in (2**29, 2 * 20 * 4 * 64**2, 1):
        monkeypatch.setattr(network_slices, "BATCH_BYTES", budget)
        results.append(translate_volume(model, volume, 64, progress=counted).values)
    assert loops == [1, 6, 12]
    # Of 4095: instance norm sees each slice alone.
    np.testing.assert_allclose(results[0], results[1], atol=0.01)
    np.testing.assert_allclose(results[0], results[2], atol=0.01)


def test_smoothing_across_slices_takes_jitter_away(head):
    class Flicker(IdentityTranslator):
        def translate(self, images, to):
            flicker = 0.2 * (torch.arange(len(images)) % 2 - 0.5)
            return (images + flicker[:, None, None, None]).clamp(-1, 1)

    values, affine, spacing = head(slices=16)
    volume = Volume(values, affine, "ct")
    inside = inside_head(volume, spacing[1]).T > 0.99
    jitter = []
    for smooth_mm in (0, spacing[0], 2 * spacing[0]):
        result = translate_volume(Flicker(), volume, 64, spacing[1], smooth_mm)
        jitter.append(slice_jitter(result.values.T, values.T, inside))
    assert jitter[0] > jitter[1] > jitter[2] and jitter[2] < 0.7 * jitter[0]

    for impossible in (-1.0, float("nan"), 1e12):
        with pytest.raises(ValueError, match="smoothing"):
            translate_volume(Flicker(), volume, 64, spacing[1], impossible)


# Many scans, and the command line.


def translate(source, output, weights, *words):
    return ctmri("translate", source, output, "--weights", weights, *words)


# With (1, 3), two of three channels would be dropped in silence.
@pytest.mark.parametrize("channels", [(3, 3), (1, 3)])
def test_weights_for_colour_are_refused_in_a_sentence(tmp_path, head_volume, capsys, channels):
    write_scan(head_volume(slices=3), tmp_path / "ct.nii")
    ct, mri = channels
    architecture = Architecture(ngf=4, ndf=4, n_blocks=1, ct_channels=ct, mri_channels=mri)
    weights = tmp_path / "colour.safetensors"
    save_weights(CycleGAN(architecture, Objective(identity=0)), weights)
    assert translate(tmp_path, tmp_path / "out", weights) == 1
    assert "for slices of 3 channels" in capsys.readouterr().err


def test_scans_are_found_and_series_get_no_name_of_a_folder(tmp_path, head_volume, dicom_series):
    volume = head_volume(slices=3)
    for folder in ("b Mustermann Erika/CT", "a MRN-4711"):
        dicom_series(tmp_path / folder, volume.values, volume.affine)
    write_scan(volume, tmp_path / "nifti" / "head.nii.gz")
    for name in (".hidden.nii", "notes.txt"):
        (tmp_path / name).write_text("")

    found = [(scan.name, len(scan.files)) for scan in find_scans(tmp_path)]
    assert found == [("nifti/head.nii.gz", 1), ("series-001", 3), ("series-002", 3)]
    [one] = find_scans(tmp_path / "nifti" / "head.nii.gz")
    assert one.name == "head.nii.gz"
    for nothing in ("nowhere", "notes.txt"):
        with pytest.raises(FileNotFoundError):
            find_scans(tmp_path / nothing)


def test_read_volume_reads_one_scan_of_either_kind_and_no_other(
    tmp_path, head_volume, dicom_series
):
    expected = head_volume(slices=3)
    dicom_series(tmp_path / "series", expected.values, expected.affine)
    write_scan(expected, tmp_path / "head.nii.gz")

    for path in (tmp_path / "series", tmp_path / "head.nii.gz"):
        volume = read_volume(path, "ct")
        np.testing.assert_array_equal(volume.values, expected.values)
        np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-5)
    assert read_volume(next((tmp_path / "series").iterdir())).values.shape == (64, 64, 1)

    with pytest.raises(ValueError, match="2 scans"):
        read_volume(tmp_path)
    with pytest.raises(ValueError, match="series of CT"):
        read_volume(tmp_path / "series", "mri")
    with pytest.raises(FileNotFoundError):
        read_volume(tmp_path / "nowhere")


def test_the_command_translates_files_and_series_and_back_they_are_read(
    tmp_path, head_volume, dicom_series, weights, capsys, secrets
):
    ct = head_volume(slices=6)
    series, file = tmp_path / "in" / "Mustermann Erika", tmp_path / "in" / "head.nii.gz"
    dicom_series(series, ct.values, ct.affine)
    write_scan(head_volume("mri", slices=6), file)
    for source, output, made in (
        (tmp_path / "in", "all", {"head.nii.gz": "ct", "series-001": "mri"}),
        (series, "series", {"": "mri"}),
        (series, "series.nii.gz", {"": "mri"}),
        (file, "one.nii", {"": "ct"}),
        (file, "folder", {"head.nii.gz": "ct"}),
    ):
        assert translate(source, tmp_path / "out" / output, weights, "--size", 64) == 0
        for name, modality in made.items():
            result = read_volume(tmp_path / "out" / output / name)
            assert result.modality == modality and result.values.shape == ct.values.shape
            np.testing.assert_allclose(result.affine, ct.affine, atol=1e-4)
            assert result.values.std() > 10
    said = "".join(capsys.readouterr())
    assert "MR made from CT, 64 x 64 x 6 voxels" in said and "CT made from MR" in said

    # The screen tells whose a series is, by its place; nothing that is written does.
    assert f"series-001, from {series}" in said and "and 5 more: MR made" in said
    for secret in secrets:
        assert secret not in said.replace("Mustermann Erika", "")
        for path in (tmp_path / "out").rglob("*"):
            assert secret not in str(path)
            assert path.is_dir() or secret.encode() not in path.read_bytes()


def test_a_bad_scan_is_said_and_the_others_are_made(tmp_path, head_volume, weights, capsys):
    for name in ("a.nii", "c.nii"):
        write_scan(head_volume(slices=3), tmp_path / "in" / name)
    (tmp_path / "in" / "b.nii").write_bytes((tmp_path / "in" / "a.nii").read_bytes()[:5000])
    assert translate(tmp_path / "in", tmp_path / "out", weights, "--size", 32) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.nii", "c.nii"]
    said = capsys.readouterr().err
    assert "scan 2 of 3 is left out" in said and "b.nii: it ends after 5000" in said
    assert "1 of 3 scans were not translated" in said


@pytest.mark.parametrize("channels", [1, 3])
def test_a_reference_network_translates_where_it_is_said_what_it_makes(
    tmp_path, head_volume, channels, capsys
):
    published = with_grey_pictures(drawn(Resnet(channels, channels, padding="replicate")))
    weights = tmp_path / "latest_net_G_B.pth"
    torch.save(published.state_dict(), weights)
    source, output = tmp_path / "mr.nii", tmp_path / "out.nii"
    write_scan(head_volume("mri", slices=3), source)

    words = ["--size", 64, "--padding", "replicate"]
    assert translate(source, output, weights, *words) == 1
    assert "--to mri or --to ct" in capsys.readouterr().err
    assert translate(source, output, weights, *words, "--to", "ct") == 0
    assert "does not say which grey levels its network knows" in capsys.readouterr().out

    class Published(IdentityTranslator):
        @torch.no_grad()
        def translate(self, images, to):
            return published(images.expand(-1, channels, -1, -1))[:, :1]

    expected = translate_volume(Published(), read_volume(source, "mri"), 64)
    assert expected.values.std() > 10
    # 1e-5 of the network's range, and half a HU for the rounding of the file.
    np.testing.assert_allclose(read_volume(output, "ct").values, expected.values, atol=0.52)


def test_nothing_is_ever_overwritten(tmp_path, head_volume, weights, capsys):
    path = tmp_path / "ct.nii"
    write_scan(head_volume(slices=3), path)
    before = path.read_bytes()
    assert translate(path, path, weights) == 1
    assert "exists already" in capsys.readouterr().err
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ct.nii", "out", "missing.pt"], "missing.pt is neither a file nor a run"),
        (["nowhere", "out", "tiny.safetensors"], "nowhere does not exist"),
        (["ct.nii", "out", "tiny.safetensors", "--to", "ct"], "like those of a CT"),
        (["series", "out", "tiny.safetensors", "--to", "ct"], "it is a series of CT, not of MR"),
        (["ct.nii", "out", "tiny.safetensors", "--size", 30], "does not suit the networks"),
    ],
)
def test_wrong_arguments_get_one_sentence_and_leave_nothing(
    tmp_path, head_volume, dicom_series, weights, capsys, monkeypatch, arguments, words
):
    volume = head_volume(slices=3)
    write_scan(volume, tmp_path / "ct.nii")
    dicom_series(tmp_path / "series", volume.values, volume.affine)
    (tmp_path / "tiny.safetensors").symlink_to(weights)
    before = set(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    assert translate(*arguments) == 1
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said
    assert set(tmp_path.iterdir()) == before


def test_damaged_files_never_write_outside_the_output(tmp_path, head, dicom_series, damage):
    values, affine, _ = head(size=32, slices=3)
    whole = [path.read_bytes() for path in dicom_series(tmp_path / "whole", values, affine)]
    options, draw = TranslationOptions(size=32, spacing_mm=7), np.random.default_rng(0)
    for k in range(20):
        place = tmp_path / "in" / str(k)
        place.mkdir(parents=True)
        for j, content in enumerate(whole):
            (place / f"{j}.dcm").write_bytes(damage(content, draw) if j == k % 3 else content)
        before = elsewhere(tmp_path)
        try:
            scans = list_translations(place, tmp_path / "out" / str(k), options)
            translate_scans(scans, IdentityTranslator(), options)
        except (ValueError, FileNotFoundError) as error:
            assert "scans were not translated" in str(error) or "holds no scan" in str(error)
        assert elsewhere(tmp_path) == before
        assert not list(tmp_path.glob("out/**/.partial*"))


def elsewhere(folder):
    return {path for path in folder.rglob("*") if "out" not in path.relative_to(folder).parts}


def test_a_file_that_may_not_be_opened_costs_the_others_nothing(
    tmp_path, head_volume, weights, capsys, monkeypatch
):
    for name in "abc":
        write_scan(head_volume(slices=3), tmp_path / "in" / f"{name}.nii")

    # Root may open everything, so permissions cannot show it.
    def locked(path, modality=None, **options):
        if path.name == "b.nii":
            raise PermissionError(f"{path} cannot be opened")
        return read_nifti(path, modality, **options)

    monkeypatch.setattr(scan_files, "read_nifti", locked)
    assert translate(tmp_path / "in", tmp_path / "out", weights, "--size", 32) == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.nii", "c.nii"]
    assert "scan 2 of 3 is left out" in capsys.readouterr().err


def test_translations_are_translated_again_only_on_request(tmp_path, head_volume, weights, capsys):
    source, made, back = tmp_path / "in", tmp_path / "in/out/mr.nii", tmp_path / "back.nii"
    write_scan(head_volume("mri", slices=3), source / "mr.nii")
    assert translate(source, source / "out", weights, "--size", 32) == 0

    # The output lies inside the input, so the second call meets the first one's result.
    assert translate(source, tmp_path / "again", weights, "--size", 32) == 0
    assert "1 file was left out: 1 x translation made by this" in capsys.readouterr().out
    assert made.is_file()
    assert [path.name for path in (tmp_path / "again").iterdir()] == ["mr.nii"]

    assert translate(made, back, weights, "--size", 32) == 1
    assert "only `translate --round-trip` takes translations" in capsys.readouterr().err
    assert translate(made, back, weights, "--size", 32, "--round-trip") == 0
    assert read_nifti(back).modality == "mri"


def test_what_is_left_out_of_a_folder_is_said(tmp_path, head_volume, weights, capsys):
    for name in ("p1/ct.nii", "p1/mask.nii"):
        write_scan(head_volume(slices=3), tmp_path / "in" / name)
    write_scan(head_volume("mri", slices=3), tmp_path / "in" / "p1" / "mr.nii")
    (tmp_path / "in" / "p2.mnc").write_bytes(b"x")
    words = ["--to", "mri", "--size", 32]
    assert translate(tmp_path / "in", tmp_path / "out.nii", weights, *words) == 0
    kinds = "1 x .mnc, 1 x file named as another modality, 1 x mask, label map or dose"
    assert f"note: 3 files were left out: {kinds}" in capsys.readouterr().out


def test_a_ct_clipped_to_a_window_is_not_taken_for_mr(tmp_path, head_volume, weights, capsys):
    volume = head_volume(slices=3)
    window, output = tmp_path / "window.nii", tmp_path / "out.nii"
    write_scan(replace(volume, values=volume.values.clip(-160, 240)), window)
    for more, words in (([], "too low for MR"), (["--to", "mri"], "it shows no air")):
        assert translate(window, output, weights, "--size", 32, *more) == 1
        assert words in capsys.readouterr().err
    assert not output.exists()

"""Volumes through a network and back onto their own grid, from the command line too.

One bad scan costs the others nothing.
"""

import numpy as np
import pydicom
import pytest
import torch
from hospital_files import write_scan
from published_networks import Resnet, drawn, with_grey_pictures
from scipy import ndimage

from ctmri_utils.__main__ import main
from ctmri_utils.cyclegan.model import CycleGAN
from ctmri_utils.evaluation.faithfulness import slice_jitter
from ctmri_utils.runs.weights import load_translator, save_weights
from ctmri_utils.settings import Architecture, Objective
from ctmri_utils.units import HU, mri_scale
from ctmri_utils.volumes import scan_files, translate, translation_files
from ctmri_utils.volumes.axial_slices import axial
from ctmri_utils.volumes.dicom import read_series
from ctmri_utils.volumes.nifti import read_nifti
from ctmri_utils.volumes.scan_files import find_scans, read_volume
from ctmri_utils.volumes.translate import TRANSLATED_MRI, translate_volume
from ctmri_utils.volumes.translation_files import translate_scans
from ctmri_utils.volumes.volume import Volume


class Mirror(torch.nn.Module):
    """A translator that changes nothing, and notes what it was given."""

    def __init__(self):
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.zeros(8, 1, 7, 7)), []

    def translate(self, images, to):
        self.seen.append((images.clone(), to))
        return images


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    model = CycleGAN(Architecture(ngf=4, ndf=4, n_blocks=1, n_layers=1))
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(model, path)
    return path


# One volume.


def test_without_a_network_only_interpolation_and_the_networks_range_change_a_volume(head):
    values, affine, spacing = head()
    volume = Volume(values, affine, "ct")
    # pixels of its own size
    result = translate_volume(Mirror(), volume, 64, spacing[1])
    assert result.modality == "mri" and result.values.shape == values.shape
    np.testing.assert_array_equal(result.affine, affine)
    stack = axial(volume, 64, spacing[1])
    inside = stack.back_onto(volume, stack.head.astype(np.float32), 0) > 0.99
    assert 0.3 < inside.mean() < 0.7
    expected = TRANSLATED_MRI.from_network(HU.to_network(values))
    # of 4095
    np.testing.assert_allclose(result.values[inside], expected[inside], atol=0.5)
    np.testing.assert_allclose(
        result.values[~ndimage.binary_dilation(inside, np.ones((5, 5, 1)))], 0, atol=0.5
    )


def test_mr_is_scaled_by_its_own_head_and_becomes_hu(head):
    values, affine, spacing = head("mri")
    volume = Volume(values, affine, "mri")
    stack = axial(volume, 64, spacing[1])
    model = Mirror()
    result = translate_volume(model, volume, 64, spacing[1])
    [(images, to)] = model.seen
    assert to == "ct" and images.shape == (12, 1, 64, 64) and images.dtype == torch.float32
    scaled = mri_scale(stack.values, stack.head).to_network(stack.values)
    np.testing.assert_allclose(images[:, 0].numpy()[stack.head], scaled[stack.head], atol=1e-5)
    rim = ndimage.binary_dilation(stack.head, np.ones((1, 3, 3)))
    # what is outside of the head, the network never sees
    assert (images[:, 0].numpy()[~rim] == -1).all()
    assert result.modality == "ct" and result.values.min() >= -1000 and result.values.max() <= 1000


def test_the_table_below_the_head_is_gone(head):
    values, affine, spacing = head()
    with_table = values.copy()
    with_table[10:54, 62:64] = 300
    models = Mirror(), Mirror()
    plain, tabled = (
        translate_volume(model, Volume(one, affine, "ct"), 64, spacing[1])
        for model, one in zip(models, (values, with_table))
    )
    np.testing.assert_allclose(plain.values, tabled.values, atol=1e-3)
    torch.testing.assert_close(*(model.seen[0][0] for model in models))


def test_what_a_network_paints_outside_the_head_is_not_believed(head):
    class White(Mirror):
        def translate(self, images, to):
            return torch.ones_like(images)

    values, affine, spacing = head("mri")
    result = translate_volume(White(), Volume(values, affine, "mri"), 64, spacing[1])
    stack = axial(Volume(values, affine, "mri"), 64, spacing[1])
    inside = stack.back_onto(Volume(values, affine, "mri"), stack.head.astype(np.float32), 0) > 0.01
    assert (result.values[inside] > 999).mean() > 0.99
    assert (result.values[~ndimage.binary_dilation(inside, np.ones((5, 5, 1)))] == -1000).all()


def test_the_grid_of_any_orientation_is_kept_and_nothing_moves(head):
    values, affine, spacing = head()
    plain = translate_volume(Mirror(), Volume(values, affine, "ct"), 64, spacing[1]).values
    their_affine = np.column_stack(
        [affine[:, 2], -affine[:, 0], affine[:, 1], affine @ [63, 0, 0, 1]]
    )
    other = Volume(values.transpose(2, 0, 1)[:, ::-1], their_affine, "ct")
    turned = translate_volume(Mirror(), other, 64, spacing[1])
    np.testing.assert_allclose(turned.values, plain.transpose(2, 0, 1)[:, ::-1], atol=0.05)
    np.testing.assert_array_equal(turned.affine, other.affine)


def test_batches_are_sized_to_memory_and_change_nothing(head, monkeypatch, weights):
    model = load_translator(weights)
    values, affine, _ = head()
    volume, results = Volume(values, affine, "ct"), []
    for budget, batches in ((2**29, 1), (2 * 20 * 4 * 64**2, 6), (1, 12)):
        monkeypatch.setattr(translate, "BATCH_BYTES", budget)
        loops = []
        results.append(
            translate_volume(
                model, volume, 64, progress=lambda steps, loops=loops: loops.append(steps) or steps
            ).values
        )
        assert [len(steps) for steps in loops] == [batches]
    # of 4095: instance norm sees each slice alone
    np.testing.assert_allclose(results[0], results[1], atol=0.01)
    np.testing.assert_allclose(results[0], results[2], atol=0.01)


def test_smoothing_across_slices_takes_jitter_away(head):
    class Flicker(Mirror):
        def translate(self, images, to):
            return (
                images + 0.2 * (torch.arange(len(images)) % 2 - 0.5)[:, None, None, None]
            ).clamp(-1, 1)

    values, affine, spacing = head(slices=16)
    volume = Volume(values, affine, "ct")
    stack = axial(volume, 64, spacing[1])
    inside = stack.back_onto(volume, stack.head.astype(np.float32), 0).T > 0.99
    jitter = [
        slice_jitter(
            translate_volume(Flicker(), volume, 64, spacing[1], smooth_mm=smooth).values.T,
            values.T,
            inside,
        )
        for smooth in (0, spacing[0], 2 * spacing[0])
    ]
    assert jitter[0] > jitter[1] > jitter[2] and jitter[2] < 0.7 * jitter[0]
    for impossible in (-1.0, float("nan"), 1e12):
        with pytest.raises(ValueError, match="smoothing by "):
            translate_volume(Flicker(), volume, 64, spacing[1], smooth_mm=impossible)


# Many scans, and the command line.


def test_weights_for_colour_are_refused_in_a_sentence(tmp_path, capsys):
    # with (1, 3), two of three channels would be dropped in silence
    for a, b in ((3, 3), (1, 3)):
        save_weights(
            CycleGAN(
                Architecture(ngf=4, ndf=4, n_blocks=1, ct_channels=a, mri_channels=b),
                Objective(identity=0),
            ),
            tmp_path / "colour.safetensors",
        )
        assert (
            main(
                [
                    "translate",
                    str(tmp_path),
                    str(tmp_path / "out"),
                    "--weights",
                    str(tmp_path / "colour.safetensors"),
                ]
            )
            == 1
        )
        assert "for slices of 3 channels" in capsys.readouterr().err


def test_scans_are_found_and_series_get_no_name_of_a_folder(tmp_path, head, dicom_series):
    values, affine, _ = head(slices=3)
    dicom_series(tmp_path / "b Mustermann Erika" / "CT", values, affine)
    dicom_series(tmp_path / "a MRN-4711", values, affine)
    (tmp_path / "nifti").mkdir()
    write_scan(Volume(values, affine, "ct"), tmp_path / "nifti" / "head.nii.gz")
    (tmp_path / ".hidden.nii").write_text("")
    (tmp_path / "notes.txt").write_text("")
    found = [(scan.name, len(scan.files)) for scan in find_scans(tmp_path)]
    assert found == [("nifti/head.nii.gz", 1), ("series-001", 3), ("series-002", 3)]
    [one] = find_scans(tmp_path / "nifti" / "head.nii.gz")
    assert one.name == "head.nii.gz"
    for nothing in ("nowhere", "notes.txt"):
        with pytest.raises(FileNotFoundError, match=nothing):
            find_scans(tmp_path / nothing)


def test_read_volume_reads_one_scan_of_either_kind(tmp_path, head, dicom_series):
    values, affine, _ = head(slices=3)
    dicom_series(tmp_path / "series", values, affine)
    write_scan(Volume(values, affine, "ct"), tmp_path / "head.nii.gz")

    for path in (tmp_path / "series", tmp_path / "head.nii.gz"):
        volume = read_volume(path, "ct")
        np.testing.assert_array_equal(volume.values, np.rint(values))
        np.testing.assert_allclose(volume.affine, affine, atol=1e-5)
    assert read_volume(next((tmp_path / "series").iterdir())).values.shape == (64, 64, 1)


def test_read_volume_refuses_several_scans_none_and_another_modality(tmp_path, head, dicom_series):
    values, affine, _ = head(slices=3)
    dicom_series(tmp_path / "series", values, affine)
    write_scan(Volume(values, affine, "ct"), tmp_path / "head.nii")

    with pytest.raises(ValueError, match="holds 2 scans: give the file or folder of one"):
        read_volume(tmp_path)
    with pytest.raises(ValueError, match="it is a series of CT, not of MR"):
        read_volume(tmp_path / "series", "mri")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        read_volume(tmp_path / "nowhere")


def test_the_command_translates_files_and_series_and_back_they_are_read(
    tmp_path, head, dicom_series, weights, capsys, secrets
):
    values, affine, _ = head(slices=6)
    dicom_series(tmp_path / "in" / "Mustermann Erika", values, affine)
    write_scan(Volume(head("mri", slices=6)[0], affine, "mri"), tmp_path / "in" / "head.nii.gz")
    options = ["--weights", str(weights), "--size", "64"]
    for source, output, made in (
        (tmp_path / "in", "all", {"head.nii.gz": "ct", "series-001": "mri"}),
        (tmp_path / "in" / "Mustermann Erika", "series", {"": "mri"}),
        (tmp_path / "in" / "Mustermann Erika", "series.nii.gz", {"": "mri"}),
        (tmp_path / "in" / "head.nii.gz", "one.nii", {"": "ct"}),
        (tmp_path / "in" / "head.nii.gz", "folder", {"head.nii.gz": "ct"}),
    ):
        assert main(["translate", str(source), str(tmp_path / "out" / output), *options]) == 0
        for name, modality in made.items():
            path = tmp_path / "out" / output / name
            result = read_series(path) if path.is_dir() else read_nifti(path)
            assert result.modality == modality and result.values.shape == values.shape
            np.testing.assert_allclose(result.affine, affine, atol=1e-4)
            assert result.values.std() > 10
    said = "".join(capsys.readouterr())
    assert "MR made from CT, 64 x 64 x 6 voxels" in said and "CT made from MR" in said
    for path in (tmp_path / "out").rglob("*"):
        assert not any(
            secret in str(path) or (path.is_file() and secret.encode() in path.read_bytes())
            for secret in secrets
        )

    # The screen tells whose a series is, by its place; nothing that is written does.
    folder = str(tmp_path / "in" / "Mustermann Erika")
    assert f"series-001, from {folder}" in said and "and 5 more: MR made" in said
    assert not any(secret in said.replace("Mustermann Erika", "") for secret in secrets)
    first = pydicom.dcmread(tmp_path / "out" / "series" / "0001.dcm")
    assert (
        list(first.ImageType[:2]) == ["DERIVED", "SECONDARY"]
        and "NOT FOR CLINICAL USE" in first.SeriesDescription
    )


def test_a_bad_scan_is_said_and_the_others_are_made(tmp_path, head, weights, capsys):
    values, affine, _ = head(slices=3)
    (tmp_path / "in").mkdir()
    for name in ("a.nii", "c.nii"):
        write_scan(Volume(values, affine, "ct"), tmp_path / "in" / name)
    (tmp_path / "in" / "b.nii").write_bytes((tmp_path / "in" / "a.nii").read_bytes()[:5000])
    assert (
        main(
            [
                "translate",
                str(tmp_path / "in"),
                str(tmp_path / "out"),
                "--weights",
                str(weights),
                "--size",
                "32",
            ]
        )
        == 1
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.nii", "c.nii"]
    said = capsys.readouterr().err
    assert (
        "scan 2 of 3 is left out" in said
        and "b.nii: it ends after 5000" in said
        and "1 of 3 scans were not translated" in said
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_a_reference_network_translates_where_it_is_said_what_it_makes(
    tmp_path, head, channels, capsys
):
    published = with_grey_pictures(drawn(Resnet(channels, channels, padding="replicate")))
    torch.save(published.state_dict(), tmp_path / "latest_net_G_B.pth")
    values, affine, _ = head("mri", slices=3)
    write_scan(Volume(values, affine, "mri"), tmp_path / "mr.nii")
    words = ["translate", str(tmp_path / "mr.nii"), str(tmp_path / "out.nii"), "--size", "64"]
    words += ["--weights", str(tmp_path / "latest_net_G_B.pth"), "--padding", "replicate"]

    assert main(words) == 1 and "--to mri or --to ct" in capsys.readouterr().err
    assert main([*words, "--to", "ct"]) == 0
    assert "does not say which grey levels its network knows" in capsys.readouterr().out

    class Published(Mirror):
        @torch.no_grad()
        def translate(self, images, to):
            return published(images.expand(-1, channels, -1, -1))[:, :1]

    volume = read_volume(tmp_path / "mr.nii", "mri")
    expected = translate_volume(Published(), volume, 64)
    found = read_volume(tmp_path / "out.nii", "ct")
    assert expected.values.std() > 10
    # 1e-5 of the network's range, and half a HU for the rounding of the file
    np.testing.assert_allclose(found.values, expected.values, atol=0.52)


def test_nothing_is_ever_overwritten(tmp_path, head, weights, capsys):
    values, affine, _ = head(slices=3)
    path = tmp_path / "ct.nii"
    write_scan(Volume(values, affine, "ct"), path)
    before = path.read_bytes()
    assert main(["translate", str(path), str(path), "--weights", str(weights)]) == 1
    assert "exists already: choose another output, or move it away" in capsys.readouterr().err
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_two_outputs_of_one_name_are_refused_before_any_work(tmp_path, head, monkeypatch):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_scan(Volume(*head("mri", slices=3)[:2], "mri"), tmp_path / "in" / name)
    same = tmp_path / "out" / "a.nii.gz"
    monkeypatch.setattr(translation_files, "_targets", lambda scans, output: [same, same])
    with pytest.raises(ValueError, match="would be written 2 times"):
        translate_scans(tmp_path / "in", tmp_path / "out", Mirror())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{ct}", "{out}", "--weights", "missing.pt"], "missing.pt does not exist"),
        (["nowhere", "{out}"], "nowhere does not exist: give a NIfTI, .mha or DICOM file"),
        (["{ct}", "{out}", "--to", "ct"], "like those of a CT"),
        (["{series}", "{out}", "--to", "ct"], "it is a series of CT, not of MR"),
        (["{ct}", "{out}", "--size", "30"], "does not suit the networks"),
    ],
)
def test_wrong_arguments_get_one_sentence_and_leave_nothing(
    tmp_path, head, dicom_series, weights, capsys, arguments, words
):
    values, affine, _ = head(slices=3)
    write_scan(Volume(values, affine, "ct"), tmp_path / "ct.nii")
    dicom_series(tmp_path / "series", values, affine)
    names = {name: str(tmp_path / name) for name in ("series", "out")} | {
        "ct": str(tmp_path / "ct.nii")
    }
    arguments = [part.format(**names) for part in arguments]
    arguments += [] if "--weights" in arguments else ["--weights", str(weights)]
    assert main(["translate", *arguments]) == 1
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct.nii", "series"]


def test_damaged_files_never_write_outside_the_output(tmp_path, head, dicom_series, damage, capsys):
    values, affine, _ = head(size=32, slices=3)
    [*whole] = [path.read_bytes() for path in dicom_series(tmp_path / "whole", values, affine)]
    draw = np.random.default_rng(0)
    for k in range(20):
        place = tmp_path / "in" / str(k)
        place.mkdir(parents=True)
        for j, content in enumerate(whole):
            (place / f"{j}.dcm").write_bytes(damage(content, draw) if j == k % 3 else content)
        before = {
            path for path in tmp_path.rglob("*") if "out" not in path.relative_to(tmp_path).parts
        }
        try:
            translate_scans(place, tmp_path / "out" / str(k), Mirror(), size=32, spacing_mm=7)
        except ValueError as error:
            assert "scans were not translated" in str(error)
        except FileNotFoundError as error:
            assert "holds no scan" in str(error)
        assert {
            path for path in tmp_path.rglob("*") if "out" not in path.relative_to(tmp_path).parts
        } == before
        assert (
            not list((tmp_path / "out").rglob(".partial*")) if (tmp_path / "out").exists() else True
        )


def test_a_file_that_may_not_be_opened_costs_the_others_nothing(
    tmp_path, head, weights, capsys, monkeypatch
):
    values, affine, _ = head(slices=3)
    for name in "abc":
        write_scan(Volume(values, affine, "ct"), tmp_path / "in" / f"{name}.nii")

    # root may open everything, so permissions cannot show it
    def locked(path, modality=None, **options):
        if path.name == "b.nii":
            raise PermissionError(
                f"{path} cannot be opened (Permission denied): check the path, its permissions and "
                "the disk"
            )
        return read_nifti(path, modality, **options)

    monkeypatch.setattr(scan_files, "read_nifti", locked)
    assert (
        main(
            [
                "translate",
                str(tmp_path / "in"),
                str(tmp_path / "out"),
                "--weights",
                str(weights),
                "--size",
                "32",
            ]
        )
        == 1
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.nii", "c.nii"]
    assert "scan 2 of 3 is left out" in capsys.readouterr().err


def test_translations_are_translated_again_only_on_request(tmp_path, head, weights, capsys):
    write_scan(Volume(head("mri", slices=3)[0], head()[1], "mri"), tmp_path / "in" / "mr.nii")
    options = ["--weights", str(weights), "--size", "32"]
    assert main(["translate", str(tmp_path / "in"), str(tmp_path / "in" / "out"), *options]) == 0

    # The output lies inside the input, so the second call meets the first one's result.
    assert main(["translate", str(tmp_path / "in"), str(tmp_path / "again"), *options]) == 0
    assert "1 file was left out: 1 x translation made by this" in capsys.readouterr().out
    made = tmp_path / "in" / "out" / "mr.nii"
    assert made.is_file() and (tmp_path / "again").is_dir()
    assert not (tmp_path / "again" / "out").exists()

    assert main(["translate", str(made), str(tmp_path / "back.nii"), *options]) == 1
    assert "only `translate --round-trip` takes translations" in capsys.readouterr().err
    words = [str(made), str(tmp_path / "back.nii"), *options, "--round-trip"]
    assert main(["translate", *words]) == 0
    assert read_nifti(tmp_path / "back.nii").modality == "mri"


def test_what_is_left_out_of_a_folder_is_said(tmp_path, head, weights, capsys):
    values, affine, _ = head(slices=3)
    for name in ("p1/ct.nii", "p1/mask.nii"):
        write_scan(Volume(values, affine, "ct"), tmp_path / "in" / name)
    write_scan(Volume(head("mri", slices=3)[0], affine, "mri"), tmp_path / "in" / "p1" / "mr.nii")
    (tmp_path / "in" / "p2.mnc").write_bytes(b"x")
    words = [str(tmp_path / "in"), str(tmp_path / "out.nii"), "--to", "mri", "--size", "32"]
    assert main(["translate", *words, "--weights", str(weights)]) == 0
    said = capsys.readouterr().out
    kinds = "1 x .mnc, 1 x file named as another modality, 1 x mask, label map or dose"
    assert f"note: 3 files were left out: {kinds}" in said


def test_a_ct_clipped_to_a_window_is_not_taken_for_mr(tmp_path, head, weights, capsys):
    values, affine, _ = head(slices=3)
    write_scan(Volume(values.clip(-160, 240), affine, "ct"), tmp_path / "window.nii")
    for more, words in (([], "too low for MR"), (["--to", "mri"], "it shows no air")):
        arguments = [str(tmp_path / "window.nii"), str(tmp_path / "out.nii"), *more]
        assert main(["translate", *arguments, "--weights", str(weights), "--size", "32"]) == 1
        assert words in capsys.readouterr().err
    assert not (tmp_path / "out.nii").exists()

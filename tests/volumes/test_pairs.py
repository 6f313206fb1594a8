"""Pairs in a folder of volumes: found, checked, and made into slices that lie upon each other."""

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from helpers.hospital_files import ctmri, write_pairs
from PIL import Image

from ctmri_utils.scans.folders import folder_scans
from ctmri_utils.volumes.pairs import axial_pair, find_pairs, read_pair
from ctmri_utils.volumes.prepare import Preparation, prepare_pairs

SYNTHRAD2023 = "Task1/brain/1BA{:03d}/{}.nii.gz"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthrad")
    write_pairs(root, SYNTHRAD2023)
    return root


def read_first(root):
    pairs, _ = find_pairs(root)
    return read_pair(pairs[0])


def names(root, *patterns):
    pairs, _ = find_pairs(root, *patterns)
    return [
        (pair.name, pair.ct.name, pair.mri.name, pair.mask and pair.mask.name) for pair in pairs
    ]


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (SYNTHRAD2023, ("Task1/brain/1BA001", "ct.nii.gz", "mr.nii.gz", "mask.nii.gz")),
        ("Task1/HN/1HNA{:03d}/{}.mha", ("Task1/HN/1HNA001", "ct.mha", "mr.mha", "mask.mha")),
        ("flat/p{}_{}.nrrd", ("flat/p1", "p1_ct.nrrd", "p1_mr.nrrd", "p1_mask.nrrd")),
    ],
)
def test_layouts_are_known(tmp_path, place, expected):
    write_pairs(tmp_path, place, people=2, slices=2)
    found = names(tmp_path)
    assert len(found) == 2
    assert found[0][0] == expected[0]
    assert [path.rpartition("/")[2] for path in found[0][1:]] == list(expected[1:])


@pytest.mark.parametrize("channels", [("0000", "0001"), ("0001", "0000")])
def test_of_two_channels_the_values_tell_the_ct(tmp_path, channels):
    write_pairs(tmp_path, "imagesTr/head_{:03d}_{}.nii.gz", people=1, slices=4, with_mask=False)
    for name, channel in zip(("ct", "mr"), channels):
        path = tmp_path / f"imagesTr/head_001_{name}.nii.gz"
        path.rename(tmp_path / f"imagesTr/head_001_{channel}.nii.gz")
    [pair], notes = find_pairs(tmp_path)
    volumes = read_pair(pair)
    assert pair.name == "imagesTr/head_001" and notes == []
    assert volumes.ct.values.min() < -900 and volumes.mri.values.min() >= 0
    assert (volumes.ct.modality, volumes.mri.modality) == ("ct", "mri")


def test_two_patterns_name_the_files_and_their_stars_the_pair(tmp_path):
    write_pairs(tmp_path, "{}/x-{}-reg.nii.gz", people=2, slices=2)
    with pytest.raises(FileNotFoundError):
        find_pairs(tmp_path)
    found = names(tmp_path, "*/x-ct-reg.nii.gz", "*/x-mr-reg.nii.gz")
    assert [name for name, *_ in found] == ["1", "2"] and found[1][1] == "2/x-ct-reg.nii.gz"
    with pytest.raises(ValueError, match="two patterns"):
        find_pairs(tmp_path, "*/x-ct-reg.nii.gz")


def test_what_makes_no_pair_is_said(tmp_path, tree):
    write_pairs(tmp_path, SYNTHRAD2023, people=3, slices=2)
    (tmp_path / SYNTHRAD2023.format(2, "mr")).unlink()
    second = tmp_path / SYNTHRAD2023.format(3, "mr")
    second.with_name("t1.nii.gz").write_bytes(second.read_bytes())
    for name in ("overview.xlsx", "ct_.nii.gz", "__.nii.gz"):
        (tmp_path / "Task1/brain" / name).write_bytes(b"x")
    pairs, notes = find_pairs(tmp_path)
    assert [pair.name for pair in pairs] == ["Task1/brain/1BA001"]
    assert "1BA003: it has 1 CT, 2 MR and 1 mask files" in notes[0]
    alone = [f"Task1/brain/{name}.nii.gz" for name in ("1BA002/ct", "1BA002/mask", "ct_")]
    assert notes[1] == f"no partner was found for 3 volumes: {', '.join(alone)}"
    assert notes[2] == "2 files were left out: 1 x .nii.gz, 1 x .xlsx"


def test_slices_of_a_pair_lie_upon_each_other_and_hold_the_very_values(tmp_path, tree):
    notes = prepare_pairs(tmp_path / "set", tree, options=Preparation(64, 0.3))
    assert notes[0].startswith("3 people found: by folder")
    [in_test] = [note for note in notes if note.startswith("in the test: Task1/brain/1BA00")]
    assert in_test.count("1BA") == 1

    scans = folder_scans(tmp_path / "set", 64)
    assert scans.train.paired and scans.test.paired
    assert scans.train.ct_patients == scans.train.mri_patients

    assert "1BA" not in (tmp_path / "set" / "manifest.csv").read_text(encoding="utf-8")
    table = pd.read_csv(tmp_path / "set" / "manifest.csv")
    assert set(table["patient"]) == {"person-001", "person-002", "person-003"}
    # The CT's pixels are those of the CT on the MR's slices, cut to the mask.
    pair = find_pairs(tree)[0][1]
    ct, mri, _ = axial_pair(read_pair(pair), 64)
    for row in table[table["file"].str.contains("/ct_002")].itertuples():
        z = int(row.file[-8:-4])
        stored = np.asarray(Image.open(tmp_path / "set" / row.file)) - 1024.0
        inside = ct.head[z]
        np.testing.assert_allclose(stored[inside], ct.values[z][inside], atol=0.5)
        assert row.pair == f"002-{z:04d}"
    assert ct.affine is mri.affine


def moved(path, shift_mm=(0, 0, 0), spacing=None):
    """Write a file again, elsewhere in space or on another grid."""
    image = sitk.ReadImage(str(path))
    image.SetOrigin([one + by for one, by in zip(image.GetOrigin(), shift_mm)])
    if spacing:
        size = [round(n * s / t) for n, s, t in zip(image.GetSize(), image.GetSpacing(), spacing)]
        place = image.GetOrigin(), spacing, image.GetDirection()
        image = sitk.Resample(image, size, sitk.Transform(), sitk.sitkLinear, *place)
    sitk.WriteImage(image, str(path))


def test_another_grid_is_resampled_with_a_note(tmp_path, tree):
    write_pairs(tmp_path, SYNTHRAD2023, people=1)
    straight = axial_pair(read_first(tree), 64)
    moved(tmp_path / SYNTHRAD2023.format(1, "ct"), spacing=(2.5, 2.5, 8.57142857))
    ct, _, notes = axial_pair(read_first(tmp_path), 64)
    assert any("different grids" in note for note in notes)
    assert not any("different grids" in note for note in straight[2])
    inside = straight[0].head & ct.head
    assert inside.sum() > 0.97 * straight[0].head.sum()
    assert np.abs(ct.values - straight[0].values)[inside].mean() < 60


def test_a_pair_that_is_not_registered_is_named_or_refused(tmp_path):
    write_pairs(tmp_path, SYNTHRAD2023, people=3, with_mask=False)
    moved(tmp_path / SYNTHRAD2023.format(2, "ct"), (-12, 0, 0))
    moved(tmp_path / SYNTHRAD2023.format(3, "ct"), (70, 0, 0))
    straight, shifted, elsewhere = map(read_pair, find_pairs(tmp_path)[0])
    assert not any("middle" in note for note in axial_pair(straight, 64)[2])
    *_, notes = axial_pair(shifted, 64)
    assert "CT's middle lies 12 mm from the MR's (+12 to the right" in " ".join(notes)
    with pytest.raises(ValueError, match="not registered"):
        axial_pair(elsewhere, 64)


@pytest.mark.parametrize("with_mask", [True, False])
@pytest.mark.parametrize(
    ("shift_mm", "expected"),
    [
        ((30, 0, 0), "overlap by 0.7"),
        ((0, 200, 0), "outside the CT"),
        ((0, 0, 50), "outside the CT"),
    ],
)
def test_a_ct_that_was_moved_is_refused_with_a_mask_and_without(
    tmp_path, shift_mm, expected, with_mask
):
    write_pairs(tmp_path, SYNTHRAD2023, people=1, with_mask=with_mask)
    moved(tmp_path / SYNTHRAD2023.format(1, "ct"), shift_mm)
    with pytest.raises(ValueError, match=expected):
        axial_pair(read_first(tmp_path), 64)


def test_a_ct_cut_close_to_the_head_hides_no_shift(tmp_path):
    write_pairs(tmp_path, SYNTHRAD2023, people=1)
    path = tmp_path / SYNTHRAD2023.format(1, "ct")
    image = sitk.ReadImage(str(path))
    columns = np.flatnonzero((sitk.GetArrayFromImage(image) > -300).any((0, 1)))
    sitk.WriteImage(image[int(columns[0]) - 1 : int(columns[-1]) + 2], str(path))
    moved(path, (30, 0, 0))
    with pytest.raises(ValueError, match="overlap by 0.7"):
        axial_pair(read_first(tmp_path), 64)


def test_a_ct_that_ends_lower_than_the_mr_is_no_shift(tmp_path):
    write_pairs(tmp_path, SYNTHRAD2023, people=1)
    path = tmp_path / SYNTHRAD2023.format(1, "ct")
    sitk.WriteImage(sitk.ReadImage(str(path))[:, :, :-3], str(path))
    ct, mri, notes = axial_pair(read_first(tmp_path), 64)
    assert any("of the head in the MR lies outside" in note for note in notes)
    assert not any("(Dice)" in note for note in notes)
    assert mri.head[:-3].any((1, 2)).all() and not mri.head[-3:].any()


def test_a_mask_of_elsewhere_is_refused(tmp_path):
    write_pairs(tmp_path, SYNTHRAD2023, people=1)
    moved(tmp_path / SYNTHRAD2023.format(1, "mask"), (1000, 0, 0))
    with pytest.raises(ValueError, match="mask leaves nothing"):
        axial_pair(read_first(tmp_path), 64)


def test_a_swapped_pair_is_refused(tmp_path, capsys):
    write_pairs(tmp_path / "in", SYNTHRAD2023, people=3, slices=4)
    ct, mr = (tmp_path / "in" / SYNTHRAD2023.format(2, name) for name in ("ct", "mr"))
    ct.rename(ct.with_name("x"))
    mr.rename(ct)
    ct.with_name("x").rename(mr)
    assert ctmri("prepare", tmp_path / "set", "--pairs", tmp_path / "in", "--size", 32) == 0
    said = capsys.readouterr().out
    assert "note: left out: Task1/brain/1BA002: its CT and its MR look swapped" in said
    assert "2 people found" in said


def test_outside_of_the_mask_both_are_background(tmp_path):
    write_pairs(tmp_path, SYNTHRAD2023, people=1)
    path = tmp_path / SYNTHRAD2023.format(1, "mask")
    image = sitk.ReadImage(str(path))
    values = sitk.GetArrayFromImage(image)
    values[:, :, :32] = 0
    half = sitk.GetImageFromArray(values)
    half.CopyInformation(image)
    sitk.WriteImage(half, str(path))
    ct, mri, _ = axial_pair(read_first(tmp_path), 64)
    for stack in (ct, mri):
        columns = np.flatnonzero(stack.head.any((0, 1)))
        assert columns.min() >= 31 and columns.max() > 50
    sitk.WriteImage(half * 0, str(path))
    with pytest.raises(ValueError, match="the mask is empty"):
        read_first(tmp_path)


def test_nothing_to_prepare_gets_one_sentence(tmp_path, capsys):
    assert ctmri("prepare", tmp_path / "set", "--ct", tmp_path) == 2
    assert "give --ct and --mri, or --pairs" in capsys.readouterr().err


def test_what_a_mask_cuts_away_is_said(tmp_path):
    write_pairs(tmp_path, SYNTHRAD2023, people=1)
    path = tmp_path / SYNTHRAD2023.format(1, "mask")
    mask = sitk.ReadImage(str(path))
    sitk.WriteImage(mask[: mask.GetWidth() // 2], str(path))
    *_, notes = axial_pair(read_first(tmp_path), 64)
    assert any("mask and MR have different grids" in note for note in notes)
    [cut] = [note for note in notes if "of the head in the MR lies outside" in note]
    assert 40 < int(cut.partition("%")[0]) < 60

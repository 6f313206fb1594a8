"""Files and manifests that could mislead a network.

Each gets one sentence that says what, where and what to do.
"""

import hashlib
import shutil
import unicodedata

import numpy as np
import pandas as pd
import pytest
from helpers.png_bytes import COLOUR, png_bytes
from PIL import Image

from ctmri_utils.scans.checks import check_folder
from ctmri_utils.scans.datasets import load_scans
from ctmri_utils.scans.folders import folder_scans
from ctmri_utils.scans.slice_files import list_slices, read_slice_file
from ctmri_utils.scans.slices import (
    FOLDERS,
    GREY_AS_COLOUR,
    NEAR_GREY,
    UPRIGHT,
    BadSlice,
    image_folder,
    read_slice,
)
from ctmri_utils.settings import PROFILES
from ctmri_utils.units import HU


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (32, 32), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """One 8-bit slice in each of the four places."""
    for i, name in enumerate(FOLDERS.values()):
        (tmp_path / name).mkdir()
        Image.fromarray(picture(i)).save(tmp_path / name / "x.png")
    return tmp_path


def table(**entries):
    """Rows that fit the folder; `entries` change trainA/x.png."""
    rows = [
        {
            "file": f"{name}/x.png",
            "patient": "p",
            "unit": "HU" if name.endswith("A") else "MR unit",
            "gain": "8",
            "offset": "-1024",
            "spacing_mm": "",
            "split": side,
            "sha256": "",
        }
        for (side, _), name in FOLDERS.items()
    ]
    rows[0].update(entries)
    return rows


def write(folder, rows, encoding="utf-8", delimiter=","):
    listing = folder / "manifest.csv"
    pd.DataFrame(rows).to_csv(listing, index=False, encoding=encoding, sep=delimiter)


def refusal(folder, error=ValueError):
    with pytest.raises(error) as caught:
        folder_scans(folder, 32)
    return str(caught.value)


BAD_ENTRIES = {
    "gain": ("abc", "", "1,0", "nan", "inf", "0"),
    "offset": ("abc", "", "nan"),
    "spacing_mm": ("abc", "0", "-1", "nan"),
    "z_mm": ("high", "inf"),
    "unit": ("hu", "Hounsfield", "MR unit", ""),
    "split": ("test",),
    "patient": (" ",),
    "sha256": ("0" * 64,),
}


@pytest.mark.parametrize(
    ("column", "entry"),
    [(column, entry) for column, entries in BAD_ENTRIES.items() for entry in entries],
)
def test_a_bad_entry_is_named_with_its_row(folder, column, entry):
    write(folder, table(**{column: entry}))
    sentence = refusal(folder)
    assert f"{folder / 'manifest.csv'}, row trainA/x.png: " in sentence and column in sentence


def test_a_fitting_manifest_is_read_with_and_without_a_byte_order_mark(folder):
    digest = hashlib.sha256((folder / "trainA" / "x.png").read_bytes()).hexdigest()
    for encoding in ("utf-8", "utf-8-sig"):
        write(folder, table(sha256=digest, spacing_mm=""), encoding)
        file, pixels = read_slice_file(*list_slices(folder)[0]["train", "ct"][0])
        assert file.digest == digest and file.row.unit == "HU"
        np.testing.assert_array_equal(pixels, picture(0) * 8.0 - 1024)


def test_mr_has_no_hounsfield_units(folder):
    rows = table()
    rows[1]["unit"] = "HU"
    write(folder, rows)
    assert "row trainB/x.png: unit 'HU'" in refusal(folder)


def test_train_and_test_share_one_unit(folder):
    write(folder, table(unit="grey level"))
    assert "mix the units HU, grey level" in refusal(folder)


def test_grey_levels_are_8_bit(folder):
    Image.fromarray(picture(0).astype(np.uint16) * 9).save(folder / "trainA" / "x.png")
    write(folder, table(unit="grey level"))
    assert "row trainA/x.png: the image is 16-bit" in refusal(folder)


@pytest.mark.parametrize("name", ["trainA/x.png", "trainA/gone.png", "else/x.png"])
def test_rows_and_files_match_one_to_one(folder, name):
    write(folder, [*table(), {**table()[0], "file": name}])
    assert f"row {name}: " in refusal(folder)


def test_rows_shorter_or_longer_than_the_header_are_named(folder):
    for row in ("trainA/x.png,p,HU,1", "trainA/x.png,p,HU,1,0,7"):
        (folder / "manifest.csv").write_text(f"file,patient,unit,gain,offset\n{row}\n")
        assert "row trainA/x.png: it does not have 5 entries" in refusal(folder)


def test_other_encodings_and_separators_are_named(folder):
    write(folder, table(patient="Müller"), "latin-1")
    assert "UTF-8" in refusal(folder)
    write(folder, table(), delimiter=";")
    assert "semicolons" in refusal(folder)


def deep_colour():
    """A 16-bit RGB PNG, grey in all channels, so that only its depth can give it away."""
    rows = np.repeat(picture(0).astype(">u2")[..., None] * 257, 3, -1)
    return png_bytes(32, 32, b"".join(b"\0" + row.tobytes() for row in rows), 16, COLOUR)


def test_pages_transparency_and_deep_colour_are_refused(tmp_path):
    first, second = (Image.fromarray(picture(i)) for i in range(2))
    first.save(tmp_path / "pages.tif", save_all=True, append_images=[second])
    alpha = np.full((32, 32), 255, np.uint8)
    Image.fromarray(np.dstack([picture(0)] * 3 + [alpha])).save(tmp_path / "opaque.png")
    alpha[3, 3] = 254
    Image.fromarray(np.dstack([picture(0)] * 3 + [alpha])).save(tmp_path / "glass.png")
    first.save(tmp_path / "key.png", transparency=int(picture(0)[0, 0]))
    (tmp_path / "deep.png").write_bytes(deep_colour())
    for name in ("pages.tif", "glass.png", "key.png", "deep.png"):
        with pytest.raises(BadSlice, match=name):
            read_slice(tmp_path / name)
    pixels, conversion = read_slice(tmp_path / "opaque.png")
    assert np.array_equal(pixels, picture(0)) and conversion == GREY_AS_COLOUR


def test_masks_and_label_maps_are_no_slices(tmp_path):
    labels = np.kron(np.arange(16, dtype=np.uint8).reshape(4, 4), np.ones((8, 8), np.uint8))
    one_bit = picture(0) > 99
    for mask in (one_bit, np.uint8(255) * one_bit, labels):
        Image.fromarray(mask).save(tmp_path / "x.png")
        with pytest.raises(BadSlice) as caught:
            read_slice(tmp_path / "x.png")
        assert caught.value.kind == "mask"

    # As many values in no pieces are a dark picture.
    Image.fromarray(picture(0) // 16).save(tmp_path / "x.png")
    read_slice(tmp_path / "x.png")


def test_pictures_named_as_masks_are_left_out(folder):
    for name in ("trainA/x_seg.png", "testB/masks/x.png", "testB/p1-label.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture(9)).save(folder / name)
    scans = folder_scans(folder, 32)
    assert scans.notes == ("3 files were left out: 3 x mask, label map or dose",)


@pytest.mark.parametrize("name", FOLDERS.values())
def test_nothing_there_and_nothing_in_it_are_two_things(folder, name):
    (folder / name / "x.png").unlink()
    assert f"{name} holds no images, {name} is empty" in refusal(folder, FileNotFoundError)
    (folder / name / "x.bmp").write_bytes(b"x")
    assert "found: 1 x .bmp" in refusal(folder, FileNotFoundError)
    shutil.rmtree(folder / name)
    assert refusal(folder, FileNotFoundError).startswith(f"there is no {name} here (found: test")


def test_a_nested_set_is_read_everywhere_and_its_place_is_said(folder, tmp_path_factory):
    unpacked = tmp_path_factory.mktemp("unpacked")
    for place in ("b/Dataset/images", "__MACOSX/images", "c"):
        shutil.copytree(folder, unpacked / place)
    scans = folder_scans(unpacked, 32)
    assert scans.notes == ("the slices were found in c; not read: b/Dataset/images",)
    shutil.rmtree(unpacked / "c")
    assert folder_scans(unpacked, 32).notes == ("the slices were found in b/Dataset/images",)
    assert scans.name == unpacked.name
    assert check_folder(unpacked).folder == unpacked / "b" / "Dataset" / "images"
    assert load_scans(unpacked, PROFILES["ci"], seed=0).train.ct_names == ("x",)


def test_other_spellings_of_the_folders_are_shown(tmp_path):
    for name in FOLDERS.values():
        (tmp_path / name.capitalize()).mkdir()
        Image.fromarray(picture(0)).save(tmp_path / name.capitalize() / "x.png")
    assert "found: Testa, Testb, Traina, Trainb, 4 x .png" in refusal(tmp_path, FileNotFoundError)


def test_linked_folders_of_people_are_read(folder, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    Image.fromarray(picture(7)).save(store / "y.png")
    (folder / "trainA" / "p1").symlink_to(store)
    (folder / "trainA" / "p1" / "up").symlink_to(folder / "trainA")
    assert len(folder_scans(folder, 32).train.ct) == 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright_as_their_exif_data_say(tmp_path, orientation):
    upright = np.kron(picture(0)[:8, :6], np.ones((8, 8), np.uint8))
    undo = {
        2: np.fliplr,
        3: lambda x: np.rot90(x, 2),
        4: np.flipud,
        5: lambda x: x.T,
        6: np.rot90,
        7: lambda x: np.rot90(x, 2).T,
        8: lambda x: np.rot90(x, -1),
    }
    stored = undo.get(orientation, np.asarray)(upright)
    tags = Image.Exif()
    tags[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "x.png", exif=tags)
    pixels, conversion = read_slice(tmp_path / "x.png")
    np.testing.assert_array_equal(pixels, upright)
    assert conversion == ("" if orientation == 1 else UPRIGHT)


def test_near_grey_is_grey_and_colour_is_not(tmp_path):
    grey = picture(0).clip(0, 250)
    channels = np.repeat(grey[..., None], 3, -1)
    for spread in (1, 3):
        channels[::7, :, 2] = grey[::7] + spread
        Image.fromarray(channels).save(tmp_path / "x.png")
        pixels, conversion = read_slice(tmp_path / "x.png")
        assert np.array_equal(pixels, grey) and conversion == NEAR_GREY

    channels[::7, :, 2] = grey[::7] + 4
    Image.fromarray(channels).save(tmp_path / "x.png")
    with pytest.raises(BadSlice) as caught:
        read_slice(tmp_path / "x.png")
    assert caught.value.kind == "colour"


@pytest.mark.parametrize("spelled", ["{}", "./{}", "back", " {} "])
def test_a_manifest_may_spell_a_path_as_its_system_does(folder, spelled):
    rows = table()
    for row in rows:
        name = row["file"]
        row["file"] = name.replace("/", "\\") if spelled == "back" else spelled.format(name)
    write(folder, rows)
    assert folder_scans(folder, 32).ct_scale is HU


def test_accents_in_one_piece_or_two_name_the_same_file(folder):
    for on_disk, listed in (("NFD", "NFC"), ("NFC", "NFD")):
        name = unicodedata.normalize(on_disk, "schädel.png")
        [path] = (folder / "trainA").iterdir()
        path.rename(folder / "trainA" / name)
        write(folder, table(file=f"trainA/{unicodedata.normalize(listed, 'schädel.png')}"))
        assert folder_scans(folder, 32).ct_scale is HU
        assert len(check_folder(folder).findings[-1].files) == 2


def test_empty_rows_of_a_spreadsheet_are_no_rows(folder):
    write(folder, table())
    with (folder / "manifest.csv").open("a", encoding="utf-8") as lines:
        lines.write(",,,,,,,\n\n , ,,,,,,\n")
    assert folder_scans(folder, 32).ct_scale is HU


def test_people_are_told_by_folders_where_no_manifest_says_it(folder):
    people = {"trainA": "Pat_01", "testA": "pat1", "trainB": "p2", "testB": "p3"}
    for name, person in people.items():
        (folder / name / person).mkdir()
        (folder / name / "x.png").rename(folder / name / person / "x.png")
    report = check_folder(folder)
    [finding] = [one for one in report.findings if one.kind == "patients, train and test"]
    assert finding.files == ("testA/pat1/x.png",) and finding.summary == "pat-1"
    assert not any("cannot be checked" in note for note in report.notes)


def test_other_endings_are_counted_and_hidden_files_ignored(folder):
    (folder / "testA" / ".cache").mkdir()
    others = "trainA/a.dcm trainA/b.BMP testB/c.nii.gz testB/d.bmp"
    hidden = "trainB/._x.png testA/.DS_Store testA/.cache/x.png"
    for name in f"{others} {hidden}".split():
        (folder / name).write_bytes(b"no image")
    scans = folder_scans(folder, 32)
    assert scans.notes == ("4 files were left out: 2 x .bmp, 1 x .dcm, 1 x .nii.gz",)
    assert scans.train.mri_names == ("x",)


def test_a_file_that_may_not_be_read_is_not_called_damaged(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", refuse)
    assert "x.png cannot be opened (Permission denied)" in refusal(folder, PermissionError)


def test_the_four_folders_are_found_at_any_depth_but_not_where_hidden(tmp_path):
    def make(place):
        for name in FOLDERS.values():
            (tmp_path / place / name).mkdir(parents=True)
        return tmp_path / place

    make(".unfinished/files/Dataset")
    # Not all four.
    (tmp_path / "Another" / "trainA").mkdir(parents=True)
    with pytest.raises(FileNotFoundError):
        image_folder(tmp_path)
    images = make("Dataset/images")
    assert image_folder(tmp_path) == image_folder(images) == images
    # So that the others are missed by name.
    assert image_folder(tmp_path / "Another") == tmp_path / "Another"

    with pytest.raises(FileNotFoundError, match="not a folder"):
        image_folder(tmp_path / "missing")

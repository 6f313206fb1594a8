"""Files and manifests that could mislead a network.

Each gets one sentence that says what, where and what to do.
"""

import csv
import hashlib
import shutil
import struct
import unicodedata
import zlib

import numpy as np
import pytest
from PIL import Image

from ctmri_utils.scans.checks import check_folder
from ctmri_utils.scans.datasets import load_scans
from ctmri_utils.scans.folders import folder_scans, read_folder
from ctmri_utils.scans.slices import FOLDERS, image_folder, read_slice
from ctmri_utils.settings import PROFILES


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
    with (folder / "manifest.csv").open("w", newline="", encoding=encoding) as lines:
        writer = csv.DictWriter(lines, rows[0].keys(), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def refusal(folder, error=ValueError):
    with pytest.raises(error) as caught:
        read_folder(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("column", "entry", "sentence"),
    [
        *[
            ("gain", entry, f"gain {entry!r} is not a number other than zero: correct it")
            for entry in ("abc", "", "1,0", "nan", "inf", "0")
        ],
        *[
            ("offset", entry, f"offset {entry!r} is not a number: correct it")
            for entry in ("abc", "", "nan")
        ],
        *[
            ("spacing_mm", entry, f"spacing_mm {entry!r} is not a number above zero: correct it")
            for entry in ("abc", "0", "-1", "nan")
        ],
        *[
            ("unit", entry, f'unit {entry!r} is unknown for CT: write "HU", or "grey level"')
            for entry in ("hu", "Hounsfield", "MR unit", "")
        ],
        ("split", "test", "split 'test' contradicts the folder, for 'train'"),
        ("patient", " ", "the patient is empty"),
        ("sha256", "0" * 64, "the sha256"),
    ],
)
def test_a_bad_entry_is_named_with_its_row(folder, column, entry, sentence):
    write(folder, table(**{column: entry}))
    assert f"{folder / 'manifest.csv'}, row trainA/x.png: {sentence}" in refusal(folder)


def test_a_fitting_manifest_is_read_with_and_without_a_byte_order_mark(folder):
    digest = hashlib.sha256((folder / "trainA" / "x.png").read_bytes()).hexdigest()
    for encoding in ("utf-8", "utf-8-sig"):
        write(folder, table(sha256=digest, spacing_mm=""), encoding)
        file = read_folder(folder)[0]["train", "ct"][0]
        assert file.digest == digest and file.unit == "HU"
        np.testing.assert_array_equal(file.pixels, picture(0) * 8.0 - 1024)


def test_mr_has_no_hounsfield_units(folder):
    rows = table()
    rows[1]["unit"] = "HU"
    write(folder, rows)
    assert "row trainB/x.png: unit 'HU' does not suit MR" in refusal(folder)


def test_train_and_test_share_one_unit(folder):
    write(folder, table(unit="grey level"))
    assert "mix the units HU, grey level" in refusal(folder)


def test_grey_levels_are_8_bit(folder):
    Image.fromarray(picture(0).astype(np.uint16) * 9).save(folder / "trainA" / "x.png")
    write(folder, table(unit="grey level"))
    assert 'row trainA/x.png: unit "grey level" means 0 to 255, but the file is 16-bit' in refusal(
        folder
    )


def test_rows_and_files_match_one_to_one(folder):
    write(folder, [*table(), table()[0]])
    assert "row trainA/x.png: the file is listed twice" in refusal(folder)
    write(folder, [*table(), {**table()[0], "file": "trainA/gone.png"}])
    assert "row trainA/gone.png: there is no such image" in refusal(folder)
    write(folder, [*table(), {**table()[0], "file": "else/x.png"}])
    assert "row else/x.png: the file lies in none of trainA" in refusal(folder)


def test_rows_shorter_or_longer_than_the_header_are_named(folder):
    for row in ("trainA/x.png,p,HU,1", "trainA/x.png,p,HU,1,0,7"):
        (folder / "manifest.csv").write_text(
            f"file,patient,unit,gain,offset\n{row}\n", encoding="utf-8"
        )
        assert "row trainA/x.png: it does not have 5 entries like the header" in refusal(folder)


def test_other_encodings_and_separators_are_named(folder):
    write(folder, table(patient="Müller"), "latin-1")
    assert "manifest.csv is not CSV text in UTF-8" in refusal(folder)
    write(folder, table(), delimiter=";")
    assert "semicolons" in refusal(folder)


def deep_colour(path):
    """A 16-bit RGB PNG, which Pillow cannot write.

    Grey in all three channels, so that only its depth can give it away.
    """
    rows = np.repeat(picture(0).astype(">u2")[..., None] * 257, 3, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(raw)),
        (b"IEND", b""),
    )
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in parts
        )
    )


def test_pages_transparency_and_deep_colour_are_refused(tmp_path):
    first, second = (Image.fromarray(picture(i)) for i in range(2))
    first.save(tmp_path / "pages.tif", save_all=True, append_images=[second])
    alpha = np.full((32, 32), 255, np.uint8)
    Image.fromarray(np.dstack([picture(0)] * 3 + [alpha])).save(tmp_path / "opaque.png")
    alpha[3, 3] = 254
    Image.fromarray(np.dstack([picture(0)] * 3 + [alpha])).save(tmp_path / "glass.png")
    first.save(tmp_path / "key.png", transparency=int(picture(0)[0, 0]))
    deep_colour(tmp_path / "deep.png")
    for name, sentence in (
        ("pages.tif", "holds 2 pages"),
        ("glass.png", "has transparent pixels"),
        ("key.png", "has transparent pixels"),
        ("deep.png", "holds 16-bit colour"),
    ):
        with pytest.raises(ValueError, match=f"{name} {sentence}"):
            read_slice(tmp_path / name)
    pixels, conversion = read_slice(tmp_path / "opaque.png")
    assert np.array_equal(pixels, picture(0)) and conversion.startswith("grey stored as colour")


def test_masks_and_label_maps_are_no_slices(folder):
    labels = np.kron(np.arange(16, dtype=np.uint8).reshape(4, 4), np.ones((8, 8), np.uint8))
    for name, mask in (
        ("1-bit", Image.fromarray(picture(0) > 99)),
        ("scaled", Image.fromarray(np.where(picture(0) > 99, 255, 0).astype(np.uint8))),
        ("labels", Image.fromarray(labels)),
    ):
        mask.save(folder / "trainA" / "x.png")
        assert "different values in large pieces: it is a mask or label map" in refusal(folder), (
            name
        )

    # As many values in no pieces are a dark picture.
    Image.fromarray(picture(0) // 16).save(folder / "trainA" / "x.png")
    read_folder(folder)


def test_pictures_named_as_masks_are_left_out(folder):
    for name in ("trainA/x_seg.png", "testB/masks/x.png", "testB/p1-label.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture(9)).save(folder / name)
    scans = folder_scans(folder, 32)
    assert scans.notes == ("3 file(s) were ignored (3 x mask, label map or dose)",)


def test_nothing_there_and_nothing_in_it_are_two_things(folder):
    for path in (folder / "trainA").iterdir():
        path.unlink()
    sentence = refusal(folder, FileNotFoundError)
    assert "trainA holds no images, trainA is empty (looked for .png" in sentence
    (folder / "trainA" / "x.bmp").write_bytes(b"x")
    assert "tif .tiff; found: 1 x .bmp): put the CT slices" in refusal(folder, FileNotFoundError)
    shutil.rmtree(folder / "trainA")
    sentence = refusal(folder, FileNotFoundError)
    assert sentence.startswith("there is no trainA here (found: testA, testB, trainB), so ")


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
    with pytest.raises(FileNotFoundError, match=r"found: Testa, Testb, Traina, Trainb, 4 x \.png"):
        folder_scans(tmp_path, 32)


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
    assert ("turned upright" in conversion) == (orientation != 1)


def test_near_grey_is_grey_and_colour_is_not(tmp_path):
    grey = picture(0).clip(0, 250)
    for spread, words in ((1, "differ by rounding"), (3, "differ by rounding"), (4, None)):
        channels = np.repeat(grey[..., None], 3, -1)
        channels[::7, :, 2] += spread
        Image.fromarray(channels).save(tmp_path / "x.png")
        if words is None:
            with pytest.raises(ValueError, match="is a colour picture"):
                read_slice(tmp_path / "x.png")
        else:
            pixels, conversion = read_slice(tmp_path / "x.png")
            np.testing.assert_array_equal(pixels, grey)
            assert words in conversion


@pytest.mark.parametrize("spelled", ["{}", "./{}", "back", " {} "])
def test_a_manifest_may_spell_a_path_as_its_system_does(folder, spelled):
    rows = table()
    for row in rows:
        name = row["file"]
        row["file"] = name.replace("/", "\\") if spelled == "back" else spelled.format(name)
    write(folder, rows)
    assert read_folder(folder)[0]["train", "ct"][0].unit == "HU"


def test_accents_in_one_piece_or_two_name_the_same_file(folder):
    for on_disk, listed in (("NFD", "NFC"), ("NFC", "NFD")):
        name = unicodedata.normalize(on_disk, "schädel.png")
        (folder / "trainA").joinpath(next((folder / "trainA").iterdir())).rename(
            folder / "trainA" / name
        )
        write(folder, table(file=f"trainA/{unicodedata.normalize(listed, 'schädel.png')}"))
        assert read_folder(folder)[0]["train", "ct"][0].unit == "HU"
        assert len(check_folder(folder).findings[-1].files) == 2


def test_empty_rows_of_a_spreadsheet_are_no_rows(folder):
    write(folder, table())
    with (folder / "manifest.csv").open("a", encoding="utf-8") as lines:
        lines.write(",,,,,,,\n\n , ,,,,,,\n")
    assert read_folder(folder)[0]["train", "ct"][0].unit == "HU"


def test_people_are_told_by_folders_where_no_manifest_says_it(folder):
    for name, person in (
        ("trainA", "Pat_01"),
        ("testA", "pat1"),
        ("trainB", "p2"),
        ("testB", "p3"),
    ):
        (folder / name / person).mkdir()
        (folder / name / "x.png").rename(folder / name / person / "x.png")
    report = check_folder(folder)
    [finding] = [one for one in report.findings if one.kind == "patients, train and test"]
    assert finding.files == ("testA/pat1/x.png",) and finding.seen == "pat-1"
    assert not any("cannot be checked" in note for note in report.notes)


def test_other_endings_are_counted_and_hidden_files_ignored(folder):
    for name in (
        "trainA/a.dcm",
        "trainA/b.BMP",
        "testB/c.nii.gz",
        "testB/d.bmp",
        "trainB/._x.png",
        "testA/.DS_Store",
    ):
        (folder / name).write_bytes(b"no image")
    (folder / "testA" / ".cache").mkdir()
    (folder / "testA" / ".cache" / "x.png").write_bytes(b"no image")
    scans = folder_scans(folder, 32)
    assert scans.notes == ("4 file(s) were ignored (2 x .bmp, 1 x .dcm, 1 x .nii.gz)",)
    assert scans.train.mri_names == ("x",)


def test_a_file_that_may_not_be_read_is_not_called_damaged(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", refuse)
    sentence = refusal(folder, PermissionError)
    assert (
        "x.png cannot be opened (Permission denied): check its permissions" in sentence
        and "damaged" not in sentence
    )


def test_the_four_folders_are_found_at_any_depth_but_not_where_hidden(tmp_path):
    def make(*place):
        for name in FOLDERS.values():
            tmp_path.joinpath(*place, name).mkdir(parents=True)
        return tmp_path.joinpath(*place)

    with pytest.raises(
        FileNotFoundError, match="holds no trainA, trainB, testA, testB, at any depth"
    ):
        image_folder(tmp_path)
    make(".unfinished", "files", "Dataset")
    (tmp_path / "Another" / "trainA").mkdir(parents=True)  # not all four
    with pytest.raises(FileNotFoundError, match="at any depth"):
        image_folder(tmp_path)
    assert (
        make("Dataset", "images")
        == image_folder(tmp_path)
        == image_folder(tmp_path / "Dataset" / "images")
    )
    # so that the others are missed by name
    assert image_folder(tmp_path / "Another") == tmp_path / "Another"

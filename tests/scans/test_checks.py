"""Every problem is found where it is and nowhere else, nothing is touched, and hostile pictures are
only named.
"""

import contextlib
import os
import re
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from helpers.png_bytes import png_bytes
from PIL import Image, ImageEnhance
from scipy.ndimage import gaussian_filter

from ctmri_utils.__main__ import main
from ctmri_utils.machine import data_folder
from ctmri_utils.scans.checks import check_folder
from ctmri_utils.scans.findings import (
    COPY_BITS,
    FREQUENCIES,
    THUMB,
    nearest_copies,
    perceptual_hash,
)
from ctmri_utils.scans.phantom import synthetic_patients
from ctmri_utils.scans.slices import FOLDERS, BadSlice, read_slice
from ctmri_utils.viewers.figures import offenders
from ctmri_utils.windows import WINDOWS

# Each folder has this many slices, each of another patient.
COUNT = 3


@pytest.fixture(scope="module")
def people():
    return synthetic_patients(8 * COUNT, 128, 2026)


def as_8bit(ct_hu, window="brain", white=254):
    return np.rint(white * WINDOWS[window].apply(ct_hu)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path, people):
    """Grey 8-bit PNGs with nothing wrong: below 255, one size, other people everywhere."""
    for place, name in enumerate(FOLDERS.values()):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(COUNT):
            person = place * COUNT + i
            image = people.mri[person].clip(0, 254).astype(np.uint8)
            if name.endswith("A"):
                image = as_8bit(people.ct_hu[person])
            Image.fromarray(image).save(tmp_path / "set" / name / f"slice{i}.png")
    return tmp_path / "set"


def found(folder):
    return {finding.kind: finding.files for finding in check_folder(folder).findings}


def change(path, act, target=None):
    """Load a picture, change it, and save it there or elsewhere."""
    with Image.open(path) as image:
        image.load()
    act(image).save(target or path)


def test_a_clean_folder_gets_a_table_and_no_finding(folder, capsys):
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    assert main(["check", str(folder.parent), "--strict"]) == 0  # found one level down
    printed = capsys.readouterr().out
    assert [line.split()[:5] for line in printed.splitlines()[1:5]] == [
        [name, "3", "PNG", "L", "128x128"] for name in FOLDERS.values()
    ]
    for words in ("slice#.png", "no problems found", "no manifest.csv"):
        assert words in printed
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


def test_the_findings_in_the_embedded_scans():
    report = check_folder(data_folder() / "scans")
    assert [finding.kind for finding in report.findings] == [
        "near-duplicate, train and test",
        "near-duplicate",
        "patients, train and test",
    ]
    # All of them are neighbours, two or three slices apart.
    for finding in report.findings[:2]:
        for pair in finding.summary.split("; and")[0].split("; "):
            one, other = (int(re.search(r"_z(\d+)", name)[1]) for name in pair.split(" ~ "))
            # In tenths of a millimetre; 15 is the next slice.
            assert abs(one - other) <= 75
    assert report.findings[2].summary == "cranium" and len(report.findings[2].files) == 12
    assert not report.notes


def overlay(image):
    image = image.convert("RGB")
    image.paste((255, 0, 0), (5, 5, 30, 9))
    return image


def test_a_set_of_which_nothing_can_be_read_is_reported(folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"cut")
    assert list(found(folder)) == ["unreadable"]
    assert "none" in str(check_folder(folder))


def as_jpeg(folder):
    for path in [*(folder / "trainB").iterdir(), *(folder / "testB").iterdir()]:
        change(path, lambda image: image, path.with_suffix(".jpg"))
        path.unlink()


def called_png(folder):
    path = folder / "trainB/slice0.png"
    change(path, lambda image: image, path.with_suffix(".jpg"))
    path.with_suffix(".jpg").replace(path)


# What is done to the folder, and the files of each kind that must be found.
DAMAGE = {
    "cut off": (
        lambda f: os.truncate(f / "trainB/slice1.png", 900),
        {"unreadable": ("trainB/slice1.png",)},
    ),
    "no picture": (
        lambda f: (f / "testA/slice0.png").write_text("hello"),
        {"unreadable": ("testA/slice0.png",)},
    ),
    "two pages": (
        lambda f: Image.new("L", (99, 99)).save(
            f / "testA/more.tif", save_all=True, append_images=[Image.new("L", (9, 9))]
        ),
        {"unreadable": ("testA/more.tif",)},
    ),
    "blank": (
        lambda f: Image.new("L", (128, 128), 7).save(f / "trainA/slice2.png"),
        {"blank": ("trainA/slice2.png",)},
    ),
    "an overlay": (
        lambda f: change(f / "testB/slice0.png", overlay),
        {"colour": ("testB/slice0.png",)},
    ),
    "grey as colour is no colour": (
        lambda f: change(f / "testB/slice0.png", lambda image: image.convert("RGB")),
        {},
    ),
    "a copy": (
        lambda f: shutil.copy(f / "trainA/slice1.png", f / "trainA/again.png"),
        {"duplicate": ("trainA/again.png", "trainA/slice1.png")},
    ),
    "a copy in test": (
        lambda f: shutil.copy(f / "trainB/slice1.png", f / "testB/slice9.png"),
        {"duplicate, train and test": ("trainB/slice1.png", "testB/slice9.png")},
    ),
    "a copy in another format": (
        lambda f: change(f / "trainB/slice1.png", lambda image: image, f / "testB/slice9.tif"),
        {"duplicate, train and test": ("trainB/slice1.png", "testB/slice9.tif")},
    ),
    "CT among the MR": (
        lambda f: shutil.copy(f / "trainA/slice1.png", f / "trainB/slice9.png"),
        {"duplicate, CT and MR": ("trainA/slice1.png", "trainB/slice9.png")},
    ),
    "CT among the MR of the other side": (
        lambda f: shutil.copy(f / "trainA/slice1.png", f / "testB/slice9.png"),
        {
            "duplicate, CT and MR": ("trainA/slice1.png", "testB/slice9.png"),
            "duplicate, train and test": ("trainA/slice1.png", "testB/slice9.png"),
        },
    ),
    "a small one": (
        lambda f: change(f / "trainA/slice1.png", lambda image: image.reduce(2)),
        {"mixed sizes": ("trainA/slice1.png",)},
    ),
    "JPEG for MR": (
        as_jpeg,
        {
            "JPEG on one side": tuple(
                f"{place}/slice{i}.jpg" for place in ("trainB", "testB") for i in range(COUNT)
            )
        },
    ),
    "JPEG called png": (called_png, {"JPEG on one side": ("trainB/slice0.png",)}),
    "named the other way": (
        lambda f: (f / "trainA/slice0.png").rename(f / "trainA/mri0.png"),
        {"swapped?": ("trainA/mri0.png",)},
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_problem_is_found_where_it_is_and_nowhere_else(folder, case):
    damage, expected = DAMAGE[case]
    damage(folder)
    assert found(folder) == expected


@pytest.mark.parametrize(("share", "seen"), [(0.005, False), (0.02, True)])
def test_saturation_is_a_share_of_the_picture_at_255(folder, share, seen):
    def brighten(image):
        pixels = np.array(image)
        pixels.flat[np.argsort(pixels, axis=None)[-round(share * pixels.size) :]] = 255
        return Image.fromarray(pixels)

    change(folder / "trainA" / "slice1.png", brighten)
    assert found(folder) == ({"saturated": ("trainA/slice1.png",)} if seen else {})


def noisy(image):
    noise = np.random.default_rng(0).normal(0, 4, image.size[::-1])
    return Image.fromarray((np.array(image) + noise).clip(0, 254).astype(np.uint8))


COPIES = {
    "as JPEG": lambda image: image,
    "twice as large": lambda image: image.resize((256, 256), Image.Resampling.BICUBIC),
    "smaller": lambda image: image.resize((96, 96), Image.Resampling.BOX),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    "noisier": noisy,
    "smoother": lambda image: Image.fromarray(gaussian_filter(np.array(image), 0.7)),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("target", ["testA", "trainA", "testB", "trainB"])
def test_a_copy_saved_again_is_a_near_duplicate(folder, how, target):
    source = f"train{target[-1]}/slice1.png"
    again = f"{target}/again.{'jpg' if how == 'as JPEG' else 'png'}"
    change(folder / source, COPIES[how], folder / again)
    kind = "near-duplicate, train and test" if target.startswith("test") else "near-duplicate"
    seen = found(folder)
    assert set(seen.pop(kind)) == {source, again}
    assert not [kind for kind in seen if "duplicate" in kind]


def test_a_person_in_train_and_test_is_found_by_the_manifest(folder):
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))

    def write(patients):
        table = pd.DataFrame({"file": names, "unit": "grey level", "gain": 1, "offset": 0})
        table["patient"] = [patients.get(name, "unknown") for name in names]
        table.to_csv(folder / "manifest.csv", index=False)

    write({})
    assert found(folder) == {} and not check_folder(folder).notes
    write({"trainA/slice0.png": "ann", "testB/slice2.png": "ann", "trainB/slice1.png": "bob"})
    assert found(folder) == {"patients, train and test": ("testB/slice2.png",)}
    write({"trainA/slice0.png": "ann", "trainB/slice2.png": "ann"})
    assert found(folder) == {}


@pytest.mark.parametrize("window", ["stroke", "brain", "soft tissue", "bone", "everything"])
def test_swapped_folders_are_seen_in_every_window(folder, people, window):
    for place, name in enumerate(("trainA", "testA")):
        for i in range(COUNT):
            image = as_8bit(people.ct_hu[(4 + place) * COUNT + i], window)
            Image.fromarray(image).save(folder / name / f"slice{i}.png")
    assert "swapped?" not in found(folder)
    for side in ("train", "test"):
        (folder / f"{side}A").rename(folder / "other")
        (folder / f"{side}B").rename(folder / f"{side}A")
        (folder / "other").rename(folder / f"{side}B")
    assert "swapped?" in found(folder)


def brute_force(bits, allowed):
    nearest = []
    for i, one in enumerate(bits):
        distances = [(int((one ^ other).sum()), j) for j, other in enumerate(bits) if allowed[i, j]]
        best = min(distances, default=(COPY_BITS + 1, -1))
        nearest.append(best[1] if best[0] <= COPY_BITS else -1)
    return nearest


@pytest.mark.parametrize("block", [1, 7, 512])
def test_nearest_copies_agree_with_counting_bits_pair_by_pair(block):
    rng = np.random.default_rng(0)
    bits = np.repeat(rng.random((12, 255)) < 0.5, 4, axis=0)
    bits ^= rng.random(bits.shape) < rng.choice([0, 0.01, 0.02, 0.04], (len(bits), 1))
    allowed = (rng.random((len(bits), len(bits))) < 0.7) & ~np.eye(len(bits), dtype=bool)
    expected = brute_force(bits, allowed)
    assert 5 < sum(j >= 0 for j in expected) < len(bits)
    np.testing.assert_array_equal(nearest_copies(bits, lambda rows: allowed[rows], block), expected)


def test_the_hash_ignores_contrast_and_brightness():
    thumb = np.random.default_rng(1).random((THUMB, THUMB)).cumsum(0).cumsum(1)
    # DCT-II, by its formula
    wave = np.cos(
        np.pi * (2 * np.arange(THUMB) + 1)[None] * np.arange(FREQUENCIES)[:, None] / (2 * THUMB)
    )
    wave *= np.sqrt(2 / THUMB) * np.where(np.arange(FREQUENCIES) == 0, np.sqrt(0.5), 1)[:, None]
    coefficients = (wave @ thumb @ wave.T).ravel()[1:]
    np.testing.assert_array_equal(perceptual_hash(thumb), coefficients > np.median(coefficients))
    np.testing.assert_array_equal(perceptual_hash(3 * thumb + 40), perceptual_hash(thumb))
    assert perceptual_hash(thumb).shape == (255,)


def test_a_missing_or_empty_folder_and_a_bad_manifest_are_said(folder, capsys):
    for path in (folder / "testB").iterdir():
        path.unlink()
    assert main(["check", str(folder)]) == 1 and "testB" in capsys.readouterr().err
    nowhere = str(folder / "nowhere")
    assert main(["check", nowhere]) == 1 and nowhere in capsys.readouterr().err
    (folder / "manifest.csv").write_text("file;patient\n")
    assert main(["check", str(folder)]) == 1 and "manifest.csv" in capsys.readouterr().err


def test_the_command_draws_the_offenders_and_strict_ends_with_1(
    folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path / "build"))
    (folder / "trainB" / "slice1.png").write_bytes(b"cut")
    shutil.copy(folder / "trainA" / "slice1.png", folder / "testA" / "again.png")
    (folder / "trainA" / "notes.txt").write_text("x")
    assert main(["check", str(folder)]) == 0 and main(["check", str(folder), "--strict"]) == 1
    printed = capsys.readouterr().out
    assert "trainA/slice1.png = testA/again.png" in printed and "1 x .txt" in printed
    with Image.open(tmp_path / "build" / "check-set.png") as picture:
        assert picture.width > 300 and picture.height > 200
    monkeypatch.setitem(sys.modules, "ctmri_utils.viewers.figures", None)
    assert main(["check", str(folder), "--strict"]) == 1
    assert "no picture: " in capsys.readouterr().out


def test_the_picture_has_a_row_per_finding_and_marks_saturation(folder):
    (folder / "trainA" / "cut.png").write_bytes(b"cut")
    Image.new("L", (5000, 5000)).save(folder / "trainA" / "huge.png")
    change(
        folder / "testB" / "slice1.png",
        lambda image: image.point(lambda grey: 255 if grey > 90 else grey),
    )
    axes = offenders(check_folder(folder)).axes
    labels = [axis.get_ylabel() for axis in axes if axis.get_ylabel()]
    assert labels == ["unreadable\n(2)", "saturated\n(1)"]
    titles = [axis.get_title() for axis in axes]
    assert titles == ["trainA/cut.png", "trainA/huge.png", "testB/slice1.png", ""]

    cut, huge, marked = (np.asarray(axis.images[0].get_array()) for axis in axes[:3])
    assert cut.shape == huge.shape == (16, 16, 3)
    orange = np.isclose(marked, (0.84, 0.37, 0)).all(2)
    with Image.open(folder / "testB" / "slice1.png") as image:
        np.testing.assert_array_equal(orange, np.array(image) == 255)


def test_a_clean_folder_has_no_picture(folder):
    with pytest.raises(ValueError, match="has no offenders to draw"):
        offenders(check_folder(folder))


# Pillow warns of what may be a bomb, and refuses more
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("width", "height"),
    [(5000, 5000), (13000, 13000), (60000, 60000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1)],
)
def test_a_header_that_claims_too_much_is_not_believed(folder, width, height):
    (folder / "trainA" / "huge.png").write_bytes(png_bytes(width, height, bytes(10_000_000)))
    assert found(folder) == {"unreadable": ("trainA/huge.png",)}
    with pytest.raises(ValueError, match=r"huge\.png cannot be read"):
        read_slice(folder / "trainA" / "huge.png")


# Pillow says on stderr and in warnings what it stumbles over
@pytest.mark.filterwarnings("ignore")
def test_corrupted_pictures_are_named_and_never_stop_the_check(folder):
    rng = np.random.default_rng(2026)
    endings = {"png": {}, "jpg": {}, "tif": {"compression": "tiff_lzw"}, "tiff": {}}
    with Image.open(folder / "trainA" / "slice0.png") as image:
        image = image.resize((40, 40))
    for i in range(600):
        ending = list(endings)[i % 4]
        path = folder / "trainA" / f"broken{i}.{ending}"
        image.save(path, **endings[ending])
        data = bytearray(path.read_bytes())
        for _ in range(rng.integers(1, 6)):
            end = min(len(data), 200) if rng.random() < 0.6 else len(data)
            data[rng.integers(end)] = rng.integers(256)
        path.write_bytes(data[: rng.integers(len(data))] if rng.random() < 0.1 else data)
        with contextlib.suppress(BadSlice):
            read_slice(path)
    report = check_folder(folder)
    assert 100 < len(found(folder)["unreadable"]) < 600
    assert all("\n" not in finding.summary + finding.advice for finding in report.findings)


def test_a_name_that_is_no_utf8_is_shown_with_a_question_mark(folder, capsys):
    odd = os.fsencode(folder / "trainA") + b"/caf\xe9.png"
    os.rename(folder / "trainA" / "slice0.png", odd)
    Image.new("L", (128, 128), 7).save(odd, format="PNG")
    assert main(["check", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "blank: trainA/caf?.png" in printed and "shows the first of each" in printed
    printed.encode("utf-8")

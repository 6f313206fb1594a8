"""The embedded scans: files as listed, physics plausible, head alone in the picture, anterior up,
no neighbour in both splits.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import importlib.util
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from ctmri_utils.units import STORED_HU_OFFSET

DATA = Path(__file__).parents[2] / "data"
SCANS = DATA / "scans"
MODALITIES = ("ct", "mri")
SPACING_MM, SLICE_MM = 1.75, 1.5


def manifest(modality=None):
    with open(SCANS / "manifest.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if modality in (None, row["modality"])]
    return sorted(rows, key=lambda row: (row["modality"], float(row["z_mm"])))


@functools.cache
def stack(modality):
    """(N, 128, 128) in HU or MR units, lowest slice first."""
    return np.stack(
        [
            np.asarray(Image.open(SCANS / row["file"]), dtype=float) * float(row["gain"])
            + float(row["offset"])
            for row in manifest(modality)
        ]
    )


@functools.cache
def heads(modality):
    above = stack(modality) > {"ct": -300, "mri": 15}[modality]
    return np.stack([ndimage.binary_fill_holes(picture) for picture in above])


@pytest.fixture(scope="module")
def builder():
    spec = importlib.util.spec_from_file_location("build_scans", DATA / "build_scans.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_scans"] = module
    spec.loader.exec_module(module)
    return module


# ---- files
def test_every_listed_file_is_there_unchanged_and_no_other():
    listed = {row["file"]: row["sha256"] for row in manifest()}
    found = {
        path.relative_to(SCANS).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in SCANS.glob("*/*.png")
    }
    assert found == listed
    others = {
        path.relative_to(SCANS).parts[0]
        for path in SCANS.rglob("*")
        if path.is_file() and path.suffix != ".png"
    }
    assert others == {"manifest.csv", "licences"}


def test_the_manifest_agrees_with_the_folders():
    letter = {"ct": "A", "mri": "B"}
    for row in manifest():
        folder = row["split"] + letter[row["modality"]]
        name = f"{folder}/{row['modality']}_z{round(float(row['z_mm']) * 10):04d}.png"
        assert row["file"] == name
        assert (row["patient"], row["unit"]) == {
            "ct": ("cranium", "HU"),
            "mri": ("colin27", "MR unit"),
        }[row["modality"]]
        assert float(row["spacing_mm"]) == SPACING_MM
        gain, offset = {"ct": (1, -STORED_HU_OFFSET), "mri": (0.01, 0)}[row["modality"]]
        assert (float(row["gain"]), float(row["offset"])) == (gain, offset)


def test_slices_are_16_bit_128_by_128_and_carry_no_other_information():
    for row in manifest():
        raw = (SCANS / row["file"]).read_bytes()
        # width, height, bit depth, grey
        assert struct.unpack(">IIBB", raw[16:26]) == (128, 128, 16, 0)
        kinds, at = set(), 8
        while at < len(raw):
            (length,), kind = struct.unpack(">I", raw[at : at + 4]), raw[at + 4 : at + 8]
            kinds.add(kind)
            at += length + 12
        # no text, no date, no name
        assert kinds == {b"IHDR", b"IDAT", b"IEND"}


def test_the_whole_set_is_small():
    assert sum(path.stat().st_size for path in SCANS.rglob("*") if path.is_file()) < 4_000_000


def test_the_licences_travel_with_the_slices():
    text = {path.name: path.read_text(encoding="utf-8") for path in (SCANS / "licences").iterdir()}
    assert (
        "GNU GENERAL PUBLIC LICENSE" in text["GPL-2.txt"]
        and "Version 2, June 1991" in text["GPL-2.txt"]
    )
    assert "Copyright (C) 1993-2009 Louis Collins" in text["colin27-notice.txt"]
    assert "version 2 of the License" in text["invesalius-examples.copyright.txt"]
    assert "Chris Rorden" in text["mricron-data.copyright.txt"]


# ---- physics
def test_ct_values_are_hounsfield_units():
    ct_hu, head = stack("ct"), heads("ct")
    assert ct_hu.min() >= -1024 and ct_hu.max() <= 3071  # 12-bit scanner range
    for picture, mask in zip(ct_hu, head, strict=True):
        # 30 mm below the skin: brain and ventricles only
        brain = ndimage.binary_erosion(mask, iterations=17)
        # here 21 to 27; fluid alone is 0 to 10, blood is 50 and more
        assert 20 <= np.median(picture[brain]) <= 50
        # noise and tissues, no bone
        assert picture[brain].std() < 40
        # the skull; at least 620 pixels here
        assert (picture > 700).sum() > 300


def test_ct_ventricles_are_water():
    # lateral ventricles, about 15 mm above the AC
    row = next(row for row in manifest("ct") if row["z_mm"] == "27.0")
    picture = stack("ct")[manifest("ct").index(row)]
    fluid = np.median(picture[58:64, 60:68])
    assert -10 <= fluid <= 15


def test_mr_values_are_the_source_range():
    mri, head = stack("mri"), heads("mri")
    # uint8 source, linear interpolation cannot overshoot
    assert mri.min() == 0 and mri.max() <= 254
    # two decimals kept; tolerance: float rounding
    assert np.allclose(mri * 100, np.rint(mri * 100), atol=1e-6)
    # and used: the values are not rounded to integers
    assert (mri != np.rint(mri)).mean() > 0.2
    for picture, mask in zip(mri, head, strict=True):
        # brain in a T1-weighted picture of this source
        assert 60 < np.median(picture[mask]) < 130


# ---- the head and nothing else
@pytest.mark.parametrize(("modality", "air"), [("ct", -1000.0), ("mri", 0.0)])
def test_outside_the_head_there_is_only_air(modality, air):
    for picture, mask in zip(stack(modality), heads(modality), strict=True):
        # one head; no table, no headrest, no ear
        assert ndimage.label(mask)[1] == 1
        # 2 pixels, 3.5 mm: partial volume of the skin
        near = ndimage.binary_dilation(mask, np.ones((5, 5)))
        assert (picture[~near] == air).all()


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_head_is_whole_and_centred(modality):
    head = heads(modality)
    for axis in (1, 2):
        reach = np.flatnonzero(head.any((0, 3 - axis)))
        # at least 5 mm of air on every side
        assert reach[0] >= 3 and reach[-1] <= 124
        assert abs(reach[0] + reach[-1] - 127) <= 2  # centred to a pixel


@pytest.mark.parametrize("modality", MODALITIES)
def test_no_slice_is_empty_and_neighbours_resemble_each_other(modality):
    area_cm2 = heads(modality).sum((1, 2)) * (SPACING_MM / 10) ** 2
    # a fist at the top, a big head at the bottom
    assert area_cm2.min() > 70 and area_cm2.max() < 320
    # it narrows upward, always above the orbits
    assert (np.diff(area_cm2) < 2).all()


@pytest.mark.parametrize("modality", MODALITIES)
def test_nothing_of_the_orbits_is_left(modality):
    """Orbits would put air or fat behind the forehead, left and right of the midline.

    Only the frontal sinus in the middle may.
    """
    picture, mask = stack(modality)[0], heads(modality)[0]
    inside = ndimage.binary_erosion(mask, iterations=6)  # 10 mm below the skin
    # 35 mm to each side of the midline: sinus and its walls
    inside[:, 44:84] = False
    inside[36:] = False  # the frontal third
    if modality == "ct":
        # orbital fat is -100 HU
        assert (picture[inside] > -60).all()
    else:
        # orbital fat is 140 and more in this T1
        assert (picture[inside] < 130).all()


# ---- orientation
@pytest.mark.parametrize("modality", MODALITIES)
def test_anterior_is_up_by_the_shape_of_the_skull(modality):
    """Above the ventricles a head is an egg: the forehead is narrower than the parietal bones."""
    head = heads(modality)
    for mask in head[len(head) // 2 :]:
        width = mask.sum(1)[mask.any(1)]
        quarter = len(width) // 4
        # 0.78 to 0.94 here; upside down above 1.06
        assert width[:quarter].mean() < 0.97 * width[-quarter:].mean()


@pytest.mark.parametrize(("modality", "dark"), [("ct", -300), ("mri", 12)])
def test_anterior_is_up_by_the_frontal_sinus(modality, dark):
    picture, mask = stack(modality)[0], heads(modality)[0]
    holes, _ = ndimage.label(ndimage.binary_erosion(mask, iterations=3) & (picture < dark))
    sizes = np.bincount(holes.ravel())[1:]
    row, column = ndimage.center_of_mass(holes == 1 + sizes.argmax())
    # largest cavity: in front, near the midline
    assert row < 25 and 44 < column < 84


def test_the_ct_shows_its_skull_defect_on_the_left_of_the_picture():
    """Documented in data/README.md.

    Guards the CT against being mirrored; a whole skull is nearly symmetric.
    """
    bone = stack("ct")[:12] > 300
    assert bone[:, :45, :60].sum() < 0.8 * bone[:, :45, 68:].sum()


def test_both_modalities_show_the_same_section():
    """Heads of equal relative height overlap better than with one of them upside down."""
    ct, mri = heads("ct"), heads("mri")
    ct, mri = (
        stack_[np.linspace(0, len(stack_) - 1, 20).round().astype(int)] for stack_ in (ct, mri)
    )

    def dice(a, b):
        return 2 * (a & b).sum() / (a.sum() + b.sum())

    assert dice(ct, mri) > 0.85
    assert dice(ct, mri) > dice(ct[:, ::-1], mri)


# ---- splits
@pytest.mark.parametrize("modality", MODALITIES)
def test_no_test_slice_has_a_training_neighbour(modality):
    height = {
        split: np.array([float(row["z_mm"]) for row in manifest(modality) if row["split"] == split])
        for split in ("train", "test")
    }
    assert len(height["test"]) == 12 and len(height["train"]) > 30
    assert np.abs(height["train"][:, None] - height["test"]).min() >= 2 * SLICE_MM


def test_the_test_bands_lie_at_the_same_relative_heights():
    relative = {}
    for modality in MODALITIES:
        z_mm = np.array([float(row["z_mm"]) for row in manifest(modality)])
        test = np.array([row["split"] == "test" for row in manifest(modality)])
        relative[modality] = z_mm[test] / z_mm.max()
    # one slice is 0.017 to 0.019 of the stack
    assert np.abs(relative["ct"] - relative["mri"]).max() < 0.02


@pytest.mark.parametrize("modality", MODALITIES)
def test_heights_follow_one_grid(modality):
    z_mm = np.array([float(row["z_mm"]) for row in manifest(modality)])
    steps = np.unique(np.diff(z_mm))
    # double where a guard slice was left out
    assert set(steps) == {SLICE_MM, 2 * SLICE_MM} and z_mm[0] == 0


# ---- the script that made them
def marked_head(builder, turn_deg=(0.0, 0.0, 0.0), **changes):
    """A ball of 60 mm radius, sampled at 2 mm, with a bright spot 30 mm right and 40 mm in front of
    its centre, at mid height.
    """
    z, y, x = np.meshgrid(*[np.arange(0.0, 150, 2)] * 3, indexing="ij")
    voxels = np.where((z - 75) ** 2 + (y - 70) ** 2 + (x - 80) ** 2 < 60**2, 100.0, 0.0)
    voxels[(z - 75) ** 2 + (y - 110) ** 2 + (x - 50) ** 2 < 6**2] = 200.0
    settings = {
        "modality": "mri",
        "patient": "ball",
        "folder": "B",
        "voxels": voxels,
        "spacing_mm": (2.0, 2.0, 2.0),
        "ac_mm": (75.0, 75.0, 75.0),
        "turn_deg": turn_deg,
        "bottom_mm": -21.0,
        "top_mm": 21.0,
        "background": 0.0,
        "gain": 0.01,
        "offset": 0.0,
        "unit": "MR unit",
    }
    return builder.Source(**settings | changes)


def test_the_builder_puts_anterior_up_right_on_the_left_and_the_head_in_the_middle(builder):
    heights, slices = builder.cut(marked_head(builder))
    assert heights[0] == 0 and heights[-1] == 42 and slices.shape == (29, 128, 128)
    spot = np.array(ndimage.center_of_mass(slices > 150))
    expected = [14, 63.5 - 40 / SPACING_MM, 63.5 - 30 / SPACING_MM]
    # half a pixel of sampling
    assert np.abs(spot - expected).max() < 0.6


def test_the_builder_turns_the_way_it_says(builder):
    """A pitch of -20 degrees lowers the front of the head in the picture stack.

    The spot in front sinks by 40 sin 20 mm or so.
    """
    centre = {"ac_mm": (75.0, 70.0, 80.0)}
    level, turned = (
        ndimage.center_of_mass(builder.cut(marked_head(builder, turn, **centre))[1] > 150)
        for turn in ((0.0, 0.0, 0.0), (-20.0, 0.0, 0.0))
    )
    assert (level[0] - turned[0]) * SLICE_MM == pytest.approx(40 * np.sin(np.deg2rad(20)), abs=1.5)


def test_the_builder_removes_a_headrest_and_keeps_the_skin(builder):
    source = marked_head(builder)
    voxels = np.where(source.voxels > 0, 40.0, -1000.0)
    # a board 4 mm behind the head ...
    voxels[:, 1:3, :] = 300.0
    # ... and foam that touches it
    voxels[:, 3:6, 30:50] = -900.0
    _, slices = builder.cut(marked_head(builder, modality="ct", voxels=voxels, background=-1000.0))
    middle = slices[14]
    assert (middle[105:] == -1000).all() and middle.max() <= 40
    assert (middle > -300).sum() * SPACING_MM**2 == pytest.approx(np.pi * 60**2, rel=0.03)


def test_the_builder_writes_the_same_bytes_twice(builder, tmp_path):
    for name in ("one", "two"):
        builder.build([marked_head(builder)], tmp_path / name)
    one, two = (
        {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file()
        }
        for root in (tmp_path / "one", tmp_path / "two")
    )
    # slices, less guards, plus the manifest
    assert one == two and len(one) == 29 - 8 + 1


def test_the_builder_says_in_one_sentence_what_it_lacks(builder, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert builder.main(["--out", str(tmp_path / "scans")]) == 1
    assert "apt-get is not on this machine" in capsys.readouterr().err
    assert (
        builder.main(
            [
                "--cranium",
                str(tmp_path / "no.inv3"),
                "--colin",
                "no.nii.gz",
                "--out",
                str(tmp_path / "scans"),
            ]
        )
        == 1
    )
    assert "no.inv3" in capsys.readouterr().err

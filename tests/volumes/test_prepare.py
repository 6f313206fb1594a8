"""Volumes become a data set that the lessons can read.

Right numbers, people on one side of the split only, and no names.
"""

import os

import numpy as np
import pandas as pd
import pytest
from helpers.hospital_files import ctmri, write_scan
from PIL import Image

from ctmri_utils.scans.folders import folder_scans
from ctmri_utils.scans.slice_files import list_slices, read_slice_file
from ctmri_utils.volumes.axial_slices import axial
from ctmri_utils.volumes.nifti import read_nifti, write_nifti
from ctmri_utils.volumes.prepare import Preparation, prepare_slices, split_patients
from ctmri_utils.volumes.volume import Volume

SMALL = Preparation(size=64)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory, head, dicom_series):
    """CT series of three people, one of them scanned twice, and MR files of three, one of whom also
    had a CT.
    """
    root = tmp_path_factory.mktemp("hospital")
    for k, person in enumerate(("Mustermann^Erika", "Doe^Jane", "Doe^Jane", "Smith^Adam")):
        values, affine, _ = head(slices=6, seed=10 + k)
        tags = {"PatientName": person, "PatientID": person[:3]}
        dicom_series(root / "ct" / f"study{k}", values, affine, **tags)
    heads(root / "mri", [f"sub-0{k}/T1w.nii.gz" for k in (1, 2, 3)], head, "mri", first_seed=20)
    return root


def heads(folder, names, head, modality="ct", first_seed=0):
    for k, name in enumerate(names):
        values, affine, _ = head(modality, slices=6, seed=first_seed + k)
        write_scan(Volume(values, affine, modality), folder / name)


def manifest(folder):
    """A row for each slice; "scan" is such as ct_001."""
    table = pd.read_csv(folder / "manifest.csv")
    return table.assign(scan=table["file"].str.extract(r"/(\w+)_\d{4}\.png")[0])


def test_the_folder_is_read_by_the_lessons_and_holds_the_very_values(tmp_path, hospital):
    words = ["--ct", hospital / "ct", "--mri", hospital / "mri", "--size", 64]
    assert ctmri("prepare", tmp_path / "set", *words) == 0
    scans = folder_scans(tmp_path / "set", 64)
    assert scans.ct_scale.unit == "HU" and scans.spacing_mm == pytest.approx(3.5)
    slices, left_out = list_slices(tmp_path / "set")
    assert not left_out
    stack = axial(read_nifti(hospital / "mri" / "sub-02" / "T1w.nii.gz", "mri"), 64)
    low, high = np.percentile(stack.values[stack.head], [0.5, 99.5])
    step = 1000 * np.ptp(stack.values) / (high - low) / 65535
    # Scan 6 is the second MR.
    found = [
        read_slice_file(path, row)
        for side in ("train", "test")
        for path, row in slices[side, "mri"]
        if path.stem.startswith("mri_006_")
    ]
    assert len(found) == 6
    for file, pixels in found:
        z = int(file.path.stem[-4:])
        inside = stack.head[z]
        # 0 and 1000 in the file.
        expected = (stack.values[z][inside] - low) / (high - low) * 1000
        np.testing.assert_allclose(pixels[inside], expected, atol=step)

    for row in manifest(tmp_path / "set").itertuples():
        stored = np.asarray(Image.open(tmp_path / "set" / row.file))
        assert stored.dtype == np.uint16 and stored.shape == (64, 64)
        if row.modality == "ct":
            assert (row.gain, row.offset, row.unit) == (1, -1024, "HU")
            assert stored[0, 0] == 24  # air, -1000 HU


def test_people_stay_on_one_side_and_have_no_names(tmp_path, hospital, secrets):
    prepare_slices(tmp_path / "set", hospital / "ct", hospital / "mri", SMALL)
    table = manifest(tmp_path / "set")
    assert set(table["patient"]) == {f"person-00{k}" for k in range(1, 7)}
    assert (table.groupby("patient")["split"].nunique() == 1).all()
    assert len(table[["split", "modality"]].drop_duplicates()) == 4
    # Jane Doe's two are hers.
    scanned = table[table["modality"] == "ct"].groupby("patient")["scan"].nunique()
    assert sorted(scanned) == [1, 1, 2]

    for path in (tmp_path / "set").rglob("*"):
        for secret in (*secrets, "Doe", "Jane", "Smith", "sub-0", "study"):
            assert secret not in path.name
            assert path.is_dir() or secret.encode() not in path.read_bytes()


def test_a_person_with_both_scans_is_on_one_side_whatever_the_seed():
    people = {"ct": {("a",), ("b",), ("c",), ("d",)}, "mri": {("c",), ("d",), ("e",)}}
    drawn = [split_patients(people, 0.25, seed) for seed in range(50)]
    for test in drawn:
        for names in people.values():
            assert names & test and names - test
    # It is drawn, not the first in the alphabet.
    assert len({frozenset(test) for test in drawn}) > 3
    assert drawn[0] == split_patients(people, 0.25, 0)

    both, others = {(str(k),) for k in range(10)}, {(f"m{k}",) for k in range(10)}
    for seed in range(10):
        test = split_patients({"ct": both, "mri": both | others}, 0.4, seed)
        # Four CTs, and as many more as make eight MRs.
        assert len(test) == 8 and len(test & both) >= 4
    many = {(str(k),) for k in range(100)}
    assert len(split_patients({"ct": many, "mri": others}, 0.2, 0)) == 22


def test_a_dicom_id_and_a_nifti_name_can_be_the_same_person(tmp_path, head, dicom_series):
    for k in range(3):
        values, affine, _ = head(slices=6, seed=k)
        dicom_series(tmp_path / "ct" / f"study{k}", values, affine, PatientID=f"sub-{k}")
    heads(tmp_path / "mri", [f"sub-{k}.nii.gz" for k in range(3)], head, "mri")
    prepare_slices(tmp_path / "set", tmp_path / "ct", tmp_path / "mri", SMALL)
    table = manifest(tmp_path / "set")
    assert table["patient"].nunique() == 3
    assert (table.groupby("patient")["split"].nunique() == 1).all()


def test_a_persons_scans_of_other_gain_look_alike_to_the_network(tmp_path, head, hospital):
    for person in ("a", "b"):
        values, affine, _ = head("mri", slices=6, seed=ord(person))
        for name, gain in (("first", 1), ("second", 8)):
            volume = Volume(values * gain, affine, "mri")
            write_scan(volume, tmp_path / "mri" / person / f"{name}.nii")
    prepare_slices(tmp_path / "set", hospital / "ct", tmp_path / "mri", SMALL)
    train = folder_scans(tmp_path / "set", 64).train
    first, second = train.mri[:6], train.mri[6:]
    # Of 2: the files hold whole numbers.
    np.testing.assert_allclose(first, second, atol=0.02)
    assert first.max() == 1


def test_nobody_is_drawn_for_the_test_who_cannot_be_read(tmp_path, head, dicom_series):
    # One folder for both modalities, as --ct and as --mri.
    both = tmp_path / "all"
    for k in range(6):
        modality = "mri" if k < 4 else "ct"
        values, affine, _ = head(modality, slices=6, seed=k)
        dicom_series(both / str(k), values, affine, modality, PatientID=f"{k}")
    for seed in range(4):
        notes = prepare_slices(tmp_path / f"set{seed}", both, both, Preparation(64, seed=seed))
        assert sum("left out" in note for note in notes) == 6
        assert manifest(tmp_path / f"set{seed}")["patient"].nunique() == 6


@pytest.mark.parametrize("share", [-2, 0, 1, float("nan")])
def test_a_test_share_must_be_one(share):
    with pytest.raises(ValueError, match="test share"):
        Preparation(64, share)


def test_too_few_people_are_refused_and_nothing_is_left_behind(tmp_path, hospital):
    with pytest.raises(ValueError, match="1 person with mri"):
        prepare_slices(tmp_path / "set", hospital / "ct", hospital / "mri" / "sub-01")
    assert not any(tmp_path.iterdir())


def test_a_bad_scan_is_left_out_with_a_note(tmp_path, hospital, head):
    heads(tmp_path / "mri", ["0.nii", "1.nii", "2.nii"], head, "mri", first_seed=20)
    heads(tmp_path / "mri", ["4.nii"], head)
    (tmp_path / "mri" / "3.nii").write_bytes(b"damaged")
    notes = prepare_slices(tmp_path / "set", hospital / "ct", tmp_path / "mri", SMALL)
    assert sum("3.nii: it does not begin like" in note for note in notes) == 1
    assert sum("4.nii: its values reach down to" in note for note in notes) == 1
    assert manifest(tmp_path / "set").groupby("modality")["scan"].nunique()["mri"] == 3
    with pytest.raises(FileExistsError):
        prepare_slices(tmp_path / "set", hospital / "ct", tmp_path / "mri", SMALL)


def test_slices_above_the_head_are_left_out(tmp_path, head):
    for modality in ("ct", "mri"):
        for k in range(2):
            values, affine, _ = head(modality, slices=6, seed=k)
            values = np.concatenate([values, np.full_like(values[:, :, :3], values.min())], axis=2)
            write_scan(Volume(values, affine, modality), tmp_path / modality / f"{k}.nii")
    prepare_slices(tmp_path / "set", tmp_path / "ct", tmp_path / "mri", SMALL)
    table = manifest(tmp_path / "set")
    assert len(table) == 4 * 6
    assert sorted(set(table["z_mm"])) == [0, 12, 24, 36, 48, 60]


# What is taken, of whom, and what is said.


def test_a_synthrad_tree_needs_no_manual_step(tmp_path, head):
    tree = tmp_path / "Task1" / "brain"
    people = [f"1BA00{k}" for k in range(1, 5)]
    for name, modality in (("ct", "ct"), ("mask", "ct"), ("mr", "mri")):
        heads(tree, [f"{person}/{name}.nii.gz" for person in people], head, modality)
    (tree / "overview").mkdir()
    (tree / "overview" / "1BA001_train.png").write_bytes(b"x")

    notes = prepare_slices(tmp_path / "set", tmp_path, tmp_path, SMALL)
    assert notes[0] == "4 people found: by folder; --person REGEX to change"
    left_out = "1 x .png, 4 x file named as another modality, 4 x mask, label map or dose"
    assert [note.endswith(left_out) for note in notes] == [False, True, True]
    patients = manifest(tmp_path / "set").groupby("scan")["patient"].first()
    assert len(patients) == 8 and patients.nunique() == 4
    for k in range(1, 5):
        assert patients[f"ct_{k:03d}"] == patients[f"mri_{k + 4:03d}"]


def test_translations_of_this_package_are_never_prepared(tmp_path, hospital, head):
    for k in range(3):
        values, affine, _ = head(slices=6, seed=k)
        write_nifti(Volume(values, affine, "ct"), tmp_path / "made" / f"p{k}.nii.gz")
    with pytest.raises(FileNotFoundError, match="3 x translation"):
        prepare_slices(tmp_path / "set", tmp_path / "made", hospital / "mri", SMALL)
    heads(tmp_path / "made", ["q1.nii", "q2.nii"], head)
    notes = prepare_slices(tmp_path / "set", tmp_path / "made", hospital / "mri", SMALL)
    assert any("3 x translation made by this package" in note for note in notes)
    assert manifest(tmp_path / "set").groupby("modality")["scan"].nunique()["ct"] == 2


def test_a_label_map_of_any_name_is_left_out(tmp_path, hospital, head):
    heads(tmp_path / "mri", ["p1.nii", "p2.nii"], head, "mri")
    values, affine, _ = head(slices=6)
    labels = np.digitize(values, [-300, 20, 32, 600]).astype(np.float32)
    write_scan(Volume(labels * 100, affine, "mri"), tmp_path / "mri" / "tissues.nii")
    notes = prepare_slices(tmp_path / "set", hospital / "ct", tmp_path / "mri", SMALL)
    assert any("tissues.nii: it holds a few whole numbers" in note for note in notes)
    assert "mri_007" not in set(manifest(tmp_path / "set")["scan"])


def test_the_person_option_decides_and_the_command_has_it(tmp_path, hospital, head, capsys):
    heads(tmp_path / "ct", ["x1_a.nii", "x1_b.nii", "x2_a.nii", "x3_a.nii"], head)
    words = ["--ct", tmp_path / "ct", "--mri", hospital / "mri", "--size", 64, "--person"]
    assert ctmri("prepare", tmp_path / "set2", *words, r"x\d|sub-\d+") == 0
    assert "note: 6 people found: by --person" in capsys.readouterr().out
    assert ctmri("prepare", tmp_path / "set3", *words, "z") == 1
    assert "--person z matches nothing in x1_a.nii" in capsys.readouterr().err


def test_anonymous_series_are_told_by_their_folders(tmp_path, head, dicom_series):
    nobody = {"PatientID": "ANONYMOUS", "PatientName": "X^ANONYMOUS", "PatientBirthDate": ""}
    for k in range(6):
        modality = "ct" if k < 3 else "mri"
        values, affine, _ = head(modality, slices=6, seed=k)
        dicom_series(tmp_path / modality / f"case{k}", values, affine, modality, **nobody)
    notes = prepare_slices(tmp_path / "set", tmp_path / "ct", tmp_path / "mri", SMALL)
    assert notes[0].startswith("6 people found: by folder")


def test_a_copy_of_a_scan_under_another_name_stays_on_its_side_and_is_said(tmp_path, head):
    heads(tmp_path / "ct", [f"p{k}.nii" for k in range(8)], head)
    heads(tmp_path / "ct", [f"z{k}.nii" for k in range(4)], head)
    heads(tmp_path / "mri", [f"q{k}.nii" for k in range(4)], head, "mri")
    for seed in range(6):
        output, options = tmp_path / f"set{seed}", Preparation(64, 0.4, seed)
        notes = prepare_slices(output, tmp_path / "ct", tmp_path / "mri", options)
        assert "scan 9 has the same values as scan 1: is it a copy?" in notes
        side = manifest(output).groupby("scan")["split"].first()
        for k in range(1, 5):
            assert side[f"ct_{k:03d}"] == side[f"ct_{k + 8:03d}"]


def test_a_scan_without_slices_or_air_is_named(tmp_path, hospital, head):
    heads(tmp_path / "ct", ["p1.nii", "p2.nii"], head)
    values, affine, _ = head(slices=6)
    write_scan(Volume(values.clip(-160, 240), affine, "ct"), tmp_path / "ct" / "window.nii")
    speck = np.full_like(values, -1000)
    speck[30:33, 30:33] = 40
    write_scan(Volume(speck, affine, "ct"), tmp_path / "ct" / "speck.nii")
    notes = " | ".join(prepare_slices(tmp_path / "set", tmp_path / "ct", hospital / "mri", SMALL))
    assert "window.nii: it shows no air, with values of -160 to 240 HU" in notes
    assert "speck.nii: no slice shows at least 5% head, the largest 0." in notes


def test_folders_of_links_are_prepared(tmp_path, hospital, head):
    heads(tmp_path / "store", [f"p{k}/scan.nii" for k in range(3)], head)
    (tmp_path / "ct").mkdir()
    for k in range(3):
        (tmp_path / "ct" / f"person{k}").symlink_to(tmp_path / "store" / f"p{k}")
    notes = prepare_slices(tmp_path / "set", tmp_path / "ct", hospital / "mri", SMALL)
    assert notes[0].startswith("6 people found")


def test_names_that_are_no_utf8_stop_nothing(tmp_path, hospital, head, capsys):
    heads(tmp_path / "ct", ["p1.nii", "p2.nii"], head)
    odd = os.fsencode(tmp_path / "ct") + b"/caf\xe9.nii"
    os.rename(tmp_path / "ct" / "p2.nii", odd)
    with open(os.fsencode(tmp_path / "ct") + b"/broken\xe9.nii", "wb") as file:
        file.write(b"x")
    words = ["--ct", tmp_path / "ct", "--mri", hospital / "mri", "--size", 64]
    assert ctmri("prepare", tmp_path / "set", *words) == 0
    assert "broken?.nii: it does not begin like" in capsys.readouterr().out

"""Which files are scans: links, hidden files, DICOM without its mark, masks and translations."""

import gzip
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
from helpers.hospital_files import write_scan

from ctmri_utils.discovery import (
    BROKEN_LINK,
    LABELS,
    LOCKED,
    OTHER_DICOM,
    OTHER_MODALITY,
    TRANSLATED,
    begins_like_a_data_set,
    ending,
    is_dicom,
    is_named_as_labels,
    left_out_notes,
    list_files,
    looks_like_labels,
    named_modality,
    printable,
    stem,
)
from ctmri_utils.machine import data_folder
from ctmri_utils.scans.phantom import synthetic_patients
from ctmri_utils.scans.slice_files import list_slices, read_slice_file
from ctmri_utils.volumes.nifti import write_nifti
from ctmri_utils.volumes.scan_files import find_scans, list_scans, read_volume
from ctmri_utils.volumes.volume import Volume

AFFINE = np.diag([3.0, 3.0, 6.0, 1.0])


def touch(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def volume(seed=0):
    values = np.random.default_rng(seed).integers(0, 900, (6, 7, 8)).astype(np.float32)
    return Volume(values, AFFINE, "mri")


def names(listing, folder):
    return [path.relative_to(folder).as_posix() for path in listing.files]


def test_links_are_followed_and_a_file_that_is_reached_twice_counts_once(tmp_path):
    store, scans = tmp_path / "store", tmp_path / "scans"
    for k in range(3):
        touch(store / f"p{k}" / "mr.nii")
    touch(scans / "own" / "mr.nii")
    for k in range(3):
        os.symlink(store / f"p{k}", scans / f"p{k}")
    os.symlink(store / "p0" / "mr.nii", scans / "again.nii")
    os.symlink(scans / "own", scans / "a link to own")

    # Circles: to itself, to a folder above, and two folders to each other.
    os.symlink(scans, scans / "own" / "up")
    os.symlink(scans / "loop", scans / "loop")
    os.symlink(scans, store / "p1" / "back")

    listing = list_files(scans)
    assert names(listing, scans) == ["own/mr.nii", "p0/mr.nii", "p1/mr.nii", "p2/mr.nii"]
    assert listing.left_out == {BROKEN_LINK: 1}


def test_files_of_the_operating_system_are_skipped_and_not_counted(tmp_path):
    hidden = ".hidden.nii ._a.nii .DS_Store Thumbs.db desktop.ini __MACOSX/a.nii .git/b.nii"
    for name in ["a.nii", *hidden.split()]:
        touch(tmp_path / name)
    listing = list_files(tmp_path)
    assert names(listing, tmp_path) == ["a.nii"] and not listing.left_out

    # A folder that is itself hidden may be named.
    assert names(list_files(tmp_path / ".git"), tmp_path) == [".git/b.nii"]


def test_what_is_left_out_is_counted_by_ending(tmp_path):
    write_scan(volume(), tmp_path / "p1.nii.gz")
    for name in ("a.mnc", "b.mnc", "c.nii.bz2", "d.tar.gz", "IM1", "1.2.840.113", "notes.TXT"):
        touch(tmp_path / name)
    os.symlink(tmp_path / "not fetched", tmp_path / "p2.nii.gz")
    listing = list_scans(tmp_path)
    assert [scan.name for scan in listing.scans] == ["p1.nii.gz"]
    by_ending = {".mnc": 2, ".nii.bz2": 1, ".tar.gz": 1, "no ending": 2, ".txt": 1}
    assert listing.left_out == by_ending | {BROKEN_LINK: 1}
    [note] = left_out_notes(listing.left_out)
    assert note.startswith("8 files were left out: ") and "2 x .mnc" in note
    assert left_out_notes({}) == []


def test_a_file_that_may_not_be_opened_stops_no_folder(tmp_path, monkeypatch):
    write_scan(volume(), tmp_path / "p1.nii")
    locked = touch(tmp_path / "notes.txt")

    # Root may open everything, so permissions cannot show it.
    def refuse(path):
        if path == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return is_dicom(path)

    monkeypatch.setattr("ctmri_utils.volumes.scan_files.discovery.is_dicom", refuse)
    listing = list_scans(tmp_path)
    assert [scan.name for scan in listing.scans] == ["p1.nii"] and listing.left_out == {LOCKED: 1}


def test_a_folder_that_may_not_be_opened_is_counted(tmp_path, monkeypatch):
    touch(tmp_path / "open" / "a.nii")
    (tmp_path / "locked").mkdir()

    def refuse(folder, original=os.listdir):
        if os.path.basename(folder) == "locked":
            raise PermissionError(13, "Permission denied", str(folder))
        return original(folder)

    monkeypatch.setattr(os, "listdir", refuse)
    listing = list_files(tmp_path)
    assert names(listing, tmp_path) == ["open/a.nii"] and listing.left_out == {LOCKED: 1}


def test_dicom_is_known_by_its_content_with_and_without_the_mark(tmp_path):
    for start, expected in (
        (bytes(128) + b"DICM", True),
        (b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100" + bytes(200), True),
        (b"\x08\x00\x00\x00\x04\x00\x00\x00" + bytes(200), True),
        (b"\x02\x00\x00\x00UL\x04\x00" + bytes(200), True),
        (b"\x00\x08\x00\x05CS\x00\x0aISO_IR 100" + bytes(200), True),
        (b"\x08\x00\x05\x00CS", False),
        (b"\x08\x00\x05\x00\xff\xff\xff\xff" + bytes(200), False),
        (b"", False),
        (b"plain text " * 30, False),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), False),
        (bytes(300), False),
    ):
        assert is_dicom(touch(tmp_path / "x", start)) == expected, start[:12]
    assert not is_dicom(tmp_path)


def test_this_packages_own_files_do_not_begin_like_dicom():
    paths = [path for path in data_folder().rglob("*") if path.is_file()]
    assert len(paths) > 50
    assert not any(begins_like_a_data_set(path.read_bytes()[:132]) for path in paths)


def test_names_of_masks_and_modalities_are_read_word_by_word():
    for name in ("p1_seg.nii.gz", "mask.nii", "T1-Label2.nii", "RTDOSE_1.nii", "aparc+aseg.nii"):
        assert is_named_as_labels((name,)), name
    for name in ("segall.nii", "T1_masked.nii.gz", "Maskell_A.nii", "Dosev.nii", "labeled.nii"):
        assert not is_named_as_labels((name,)), name
    assert is_named_as_labels(("labelsTr", "p1.nii")) and is_named_as_labels(("Masks", "p1.nii"))
    assert not is_named_as_labels(("before seg", "p1.nii"))

    assert named_modality("ct.nii.gz") == "ct"
    assert named_modality("p1_T1w.nii") == named_modality("p1-FLAIR.nii") == "mri"
    assert named_modality("cbct.nii.gz") == "other"
    for name in ("ct_registered_to_mr.nii", "p1.nii", "Ctirad.nii"):
        assert named_modality(name) == "", name


def test_endings_are_cut_by_type_only():
    assert stem("1.3.6.1.4.nii.gz") == "1.3.6.1.4" and stem("a.b.NII") == "a.b"
    assert stem("1.2.840.113") == "1.2.840.113"
    for name, kind in (("a.nii.gz", ".nii.gz"), ("a.MHA", ".mha"), ("v1.2.txt", ".txt")):
        assert ending(Path(name)) == kind
    for name in ("x", ".a", "1.2.840.7"):
        assert ending(Path(name)) == "no ending"
    assert printable(os.fsdecode(b"caf\xe9.nii")) == "caf?.nii" and printable("é ü") == "é ü"


def test_label_maps_are_known_by_their_values_and_scans_are_not():
    patient = synthetic_patients(1, 64, 3, slices=8)
    ct, mri = np.rint(patient.ct_hu[0]), np.rint(patient.mri[0])
    assert not looks_like_labels(ct) and not looks_like_labels(mri)
    eight_bits = np.rint(mri / mri.max() * 255)
    assert not looks_like_labels(eight_bits)
    slices, _ = list_slices(data_folder() / "scans")
    for modality in ("ct", "mri"):
        pixels = np.stack([read_slice_file(*entry)[1] for entry in slices["train", modality]])
        assert not looks_like_labels(np.rint(pixels))
    # Few grey levels on a dark background, and few values that are not whole, are none either.
    assert not looks_like_labels(np.rint(np.pad(pixels, ((0, 0), (64, 64), (64, 64))) / 4))

    mask = (ct > -300).astype(np.float32)
    tissues = np.digitize(ct, [-300, 20, 32, 600])
    # As many labels as TotalSegmentator has, each in one piece.
    many = np.kron(np.arange(120).reshape(4, 5, 6), np.ones((6, 6, 6)))
    for labels in (mask, mask * 255, mask / 3, tissues, many):
        assert looks_like_labels(labels)
    assert not looks_like_labels(many / 7)


def test_masks_are_left_out_by_name_and_refused_by_value(tmp_path):
    for name in ("p1/ct.nii.gz", "p1/mask.nii.gz", "p1/organs.nii.gz"):
        (tmp_path / "p1").mkdir(exist_ok=True)
        values = np.arange(336).reshape(6, 7, 8) % 3 if "ct" not in name else volume().values
        nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), AFFINE), tmp_path / name)
    listing = list_scans(tmp_path)
    assert [scan.name for scan in listing.scans] == ["p1/ct.nii.gz", "p1/organs.nii.gz"]
    assert listing.left_out == {LABELS: 1}
    with pytest.raises(ValueError, match="organs.nii.gz: .* mask or label map"):
        listing.scans[1].read()

    # Who names a file can read it.
    assert read_volume(tmp_path / "p1" / "mask.nii.gz").values.max() == 2


def test_files_named_as_another_modality_are_left_out_where_others_are_not(tmp_path):
    for name in ("p1/ct.nii", "p1/mr.nii", "p1/cbct.nii", "p2/scan.nii"):
        write_scan(volume(), tmp_path / name)
    listing = list_scans(tmp_path)
    for modality, expected, others in (("ct", "p1/ct.nii", 2), ("mri", "p1/mr.nii", 2)):
        scans, notes = listing.select(modality, round_trip=False)
        assert [scan.name for scan in scans] == [expected, "p2/scan.nii"]
        assert notes == [f"{others} files were left out: {others} x {OTHER_MODALITY}"]
    assert len(listing.select(None, round_trip=False)[0]) == 4

    # If all are named so, the values decide.
    only = list_scans(tmp_path / "p1" / "mr.nii")
    assert len(only.select("ct", round_trip=False)[0]) == 1


@pytest.mark.parametrize("name", ["mr.nii", "mr.nii.gz"])
def test_translations_of_this_package_are_known_and_need_a_round_trip(tmp_path, name):
    write_scan(volume(), tmp_path / "real.nii")
    write_nifti(volume(1), tmp_path / "made" / name)
    assert [scan.synthetic for scan in list_scans(tmp_path).scans] == [False, True]
    scans, notes = list_scans(tmp_path).select(None, round_trip=False)
    assert [scan.name for scan in scans] == ["real.nii"]
    assert notes == [f"1 file was left out: 1 x {TRANSLATED}"]
    assert len(find_scans(tmp_path)) == 2
    with pytest.raises(FileNotFoundError, match=TRANSLATED):
        find_scans(tmp_path / "made", round_trip=False)


def test_a_damaged_packed_file_is_no_translation(tmp_path):
    touch(tmp_path / "x.nii.gz", gzip.compress(b"x" * 999)[:30])
    [scan] = list_scans(tmp_path).scans
    assert not scan.synthetic


def test_other_dicom_objects_are_counted(tmp_path):
    # An overview of a CD, from pydicom's own test files.
    import pydicom.data

    source = Path(pydicom.data.__file__).parent / "test_files" / "dicomdirtests"
    listing = list_scans(source / "DICOMDIR")
    assert not listing.scans and listing.left_out == {OTHER_DICOM: 1}

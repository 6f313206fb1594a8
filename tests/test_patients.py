"""Who is a person: no person on two sides of a split, whatever the files are called."""

import numpy as np
import pytest

from ctmri_utils.patients import Evidence, find_patients, is_anonymous
from ctmri_utils.volumes.prepare import split_patients


def people_of(*paths, pattern=None):
    """The person of each path, numbered in the order of their first appearance."""
    found = find_patients([Evidence(tuple(path.split("/"))) for path in paths], pattern).labels
    numbers = {person: k for k, person in enumerate(dict.fromkeys(found))}
    return [numbers[person] for person in found]


def dicom(folder, patient_id="", name="", birth="", source="ct", study=""):
    parts = tuple(folder.split("/")) if folder else ()
    return Evidence(parts, False, source, patient_id, (name, birth), study)


@pytest.mark.parametrize(
    "paths",
    [
        # Modality.
        ["patient1_CT.nii.gz", "patient1_MR.nii.gz", "Patient_01-T1w.nii"],
        ["p1/ct.nii.gz", "p1/mr.nii.gz", "p1/anat/p1_t2_flair.nii"],
        ["ct7.nii", "mr7.nii"],
        ["CT/7/a.nii", "MR/7/b.nii"],
        # Sessions, echoes, channels, dates.
        ["pat1_scan1.nii", "pat1_scan2.nii", "pat1_pre.nii", "pat1_post.nii"],
        ["sub-01_ses-1_T1w.nii.gz", "sub-01_ses-2_T1w.nii.gz", "raw/sub-01/anat/x.nii"],
        ["la_007_0000.nii.gz", "la_007_0001.nii.gz", "la_007.nii.gz"],
        ["p3_e1.nii", "p3_e2.nii", "p3_echo-2.nii", "p3_run-1_T2w.nii"],
        ["p4_2020-01-31.nii", "p4_20210228_CT.nii", "p4_31.12.2022.nii"],
        ["p5.nii", "p5 (2).nii", "p5_copy.nii"],
        ["p6_CT_seen_on_monday.nii", "p6_MR_quiet9.nii"],
        # Data sets.
        ["IXI002-Guys-0828-T1.nii.gz", "IXI002-Guys-0828-T2.nii.gz", "IXI002_CT.nii.gz"],
        ["OAS1_0001_MR1_mpr-1_anon.nii", "OAS1_0001_MR2_mpr-1_anon.nii"],
        ["BraTS-GLI-00005-000/x-t1n.nii", "BraTS-GLI-00005-100/x-t1n.nii"],
        ["ADNI_002_S_0413_MR_S13893_I10.nii", "ADNI_002_S_0413_MR_S14_I11.nii"],
        ["BraTS20_Training_001/BraTS20_Training_001_t1.nii", "BraTS20_Training_001_ct.nii"],
        # A folder a person, whatever lies in it.
        ["anna/first.nii", "anna/second.nii"],
        ["P-1/2020/CT.nii", "p1/x/y/z.nii"],
        ["2020/anna/CT.nii", "MRI_2021/anna/MR.nii"],
        ["visit1/patient3/ct.nii", "hospitals/2021-03-04/patient_03/x/t1.nii"],
        # Nothing is known.
        ["scan1.nii", "scan2.nii"],
        ["20200131.nii", "20210131.nii"],
    ],
)
def test_one_person(paths):
    assert set(people_of(*paths)) == {0}


@pytest.mark.parametrize(
    "paths",
    [
        ["1.3.6.1.4.1.14519.5.2.1.1.nii.gz", "1.3.6.1.4.1.14519.5.2.1.2.nii.gz"],
        ["1.2.840.113619.20200101.1.nii", "1.2.840.113619.20210101.1.nii"],
        [
            "Task1/brain/1BA001/ct.nii.gz",
            "Task1/brain/1BA002/ct.nii.gz",
            "Task1/pelvis/1PA001/ct.nii",
        ],
        ["siteA/ct_1.nii", "siteA/ct_2.nii", "siteB/ct_1.nii", "siteB/ct_2.nii"],
        ["train/case1/ct.nii", "train/case2/ct.nii", "val/case3/ct.nii"],
        ["munich/case1.nii", "munich/case2.nii"],
        ["case_0001.nii", "case_0002.nii"],
        ["sub-1.nii", "sub-11.nii", "sub-011A.nii"],
        ["ct0.nii", "ct1.nii", "ct2.nii"],
        ["0.nii", "1.nii", "10.nii"],
        ["Müller.nii", "Meier.nii"],
        ["imagesTr/BRATS_001_0000.nii.gz", "imagesTr/BRATS_002_0000.nii.gz"],
    ],
)
def test_several_people(paths):
    assert people_of(*paths) == list(range(len(paths)))


def test_a_scan_without_a_site_may_be_anyone_so_called():
    assert people_of("siteA/ct_1.nii", "siteB/ct_1.nii", "mr_1.nii") == [0, 0, 0]


def test_accents_in_one_piece_or_two_are_the_same():
    assert people_of("M\u00fcller_CT.nii", "Mu\u0308ller_MR.nii") == [0, 0]


def test_a_pattern_decides_and_must_find_somebody():
    paths = ["a/x12_y1.nii", "b/x12_y2.nii", "b/x13_y2.nii"]
    assert people_of(*paths, pattern=r"x(\d+)") == [0, 0, 1]
    assert people_of(*paths, pattern="^[ab]") == [0, 1, 1]
    for pattern in ("z", "("):
        with pytest.raises(ValueError, match="--person"):
            people_of(*paths, pattern=pattern)


def test_an_id_counts_unless_anonymisers_write_it():
    for text in ("", " ", "ANONYMOUS", "anon", "Anonymized^Patient", "0000", "unknown", "No Name"):
        assert is_anonymous(text), text
    for text in ("ANON001", "P1", "MRN-4711", "12", "Doe^Jane", "Patel"):
        assert not is_anonymous(text), text


def test_ids_tell_people_and_equal_or_anonymous_ones_do_not():
    by_id = [dicom("a", "7"), dicom("b", "8"), dicom("c", "7")]
    assert (
        len(set(find_patients(by_id).labels)) == 2
        and find_patients(by_id).found_by[0] == "PatientID"
    )

    for patient_id in ("ANONYMOUS", "", "P1"):
        scans = [dicom(f"case{k}/CT", patient_id) for k in range(3)]
        people = find_patients(scans)
        assert len(set(people.labels)) == 3 and people.found_by[0].startswith("folder")

    # One modality's ids may be equal, and the other's not.
    mixed = [dicom("a", "1"), dicom("b", "1"), dicom("x", "5", source="mri")]
    assert len(set(find_patients(mixed).labels)) == 3


def test_one_id_with_name_and_birth_date_is_one_person():
    scans = [dicom(f"case{k}", "4711", "Doe^Jane", "19620229") for k in range(3)]
    assert len(set(find_patients(scans).labels)) == 1

    # Without an id, the name with the birth date counts.
    scans = [dicom(f"case{k}", "", "Doe^Jane", str(1960 + k // 2)) for k in range(4)]
    assert len(set(find_patients(scans).labels)) == 2


def test_a_study_links_and_a_folder_links_what_has_no_id():
    scans = [dicom("a", study="1.2"), dicom("b", study="1.2"), dicom("c", study="1.3")]
    assert len(set(find_patients(scans).labels)) == 2

    scans = [dicom("pat1/CT", "4711"), dicom("pat2/CT", "4712"), Evidence(("pat1_MR.nii",))]
    assert len(set(find_patients(scans).labels)) == 2


def test_the_sentence_says_how_many_and_how():
    people = find_patients([Evidence((f"p{k}", "ct.nii")) for k in range(12)])
    assert people.sentence(range(12)) == "12 people found: by folder; --person REGEX to change"
    assert people.sentence([3]).startswith("1 person found")
    people = find_patients([dicom("a", "7"), dicom("b", "8"), Evidence(("p1.nii",))])
    assert people.sentence(range(3)).startswith("3 people found: 2 by PatientID, 1 by file name")


NAMES = (
    lambda n: f"patient{n}",
    lambda n: f"Pat_{n:03d}",
    lambda n: f"sub-{n:02d}",
    lambda n: f"1BA{n:03d}",
    lambda n: f"case-{n:04d}",
    lambda n: f"IXI{n:03d}-Guys-{800 + n:04d}",
    lambda n: f"1.2.840.113619.2.{n + 7}.4",
    lambda n: ("anna", "bert", "carl", "dora", "emil", "frida", "gustav")[n],
)
ENDS = {
    "ct": ("_CT", "-ct", "_ct_bone", "_CT_2020-01-31", "_scan2_CT"),
    "mri": ("_MR", "_T1w", "-t2", "_T1_post", "_ses-2_T1w", "_FLAIR", "_run-1_T2w", "_MR (2)"),
}
ABOVE = ("", "Task1/brain/", "train/", "imagesTr/", "siteA/", "data/nifti/")


def layout(draw):
    """Paths with the person, 0 to 6, and the modality of each, in a layout that is drawn."""
    name = NAMES[draw.integers(len(NAMES))]
    above = ABOVE[draw.integers(len(ABOVE))]
    folders = draw.integers(3)
    scans = []
    for person in range(7):
        for modality, ends in ENDS.items():
            for end in draw.choice(ends, draw.integers(1, 3), replace=False):
                by_folder = name(person) if folders else ""
                is_uid = "." in name(person)
                file = f"{name(person)}{end}" if folders < 2 and not is_uid else end.strip("_-")
                if is_uid and not folders:
                    file = name(person)
                parts = [*above.split("/")[:-1], by_folder, f"{file}.nii.gz"]
                scans.append((tuple(part for part in parts if part), person, modality))
    order = draw.permutation(len(scans))
    return [scans[k] for k in order]


@pytest.mark.parametrize("seed", range(200))
def test_no_person_is_ever_on_two_sides(seed):
    draw = np.random.default_rng(seed)
    scans = layout(draw)
    found = find_patients([Evidence(parts, source=modality) for parts, _, modality in scans]).labels

    # The rule sees through this layout: seven people, neither more nor fewer.
    assert len({(label, person) for label, (_, person, _) in zip(found, scans, strict=True)}) == 7
    assert len(set(found)) == 7

    by_modality = {"ct": set(), "mri": set()}
    for label, (_, _, modality) in zip(found, scans, strict=True):
        by_modality[modality].add(label)
    test = split_patients(by_modality, 0.3, seed)
    sides = {}
    for label, (_, person, _) in zip(found, scans, strict=True):
        sides.setdefault(person, set()).add(label in test)
    assert all(len(side) == 1 for side in sides.values())


@pytest.mark.parametrize("seed", range(50))
def test_no_person_is_on_two_sides_whatever_dicom_says(seed):
    """Ids may be missing, anonymous or equal for some scans of a person."""
    draw = np.random.default_rng(seed)
    ids = ["{n}", "MRN-{n}", "", "ANON", "SAME"][draw.integers(5)]
    scans = []
    for person in range(6):
        for modality in ("ct", "mri"):
            for k in range(draw.integers(1, 3)):
                folder = f"case{person}/{('CT', 'MR')[modality == 'mri']}/series{k}"
                scans.append((dicom(folder, ids.format(n=person), source=modality), person))
    found = find_patients([scan for scan, _ in scans]).labels
    assert len({(label, person) for label, (_, person) in zip(found, scans, strict=True)}) == 6
    assert len(set(found)) == 6

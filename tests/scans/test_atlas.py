"""The anatomical phantom: deformed copies of one head."""

import numpy as np
import pytest
from scipy import ndimage

from ctmri_utils.scans import atlas
from ctmri_utils.scans.datasets import load_scans
from ctmri_utils.scans.phantom import draw_patient, synthetic_patients
from ctmri_utils.scans.physics import DEFAULT_CONTRAST, MRI_UNITS, TISSUES, tissue_signal
from ctmri_utils.settings import PROFILES

BONE = [TISSUES[name].label for name in ("cortical bone", "diploe", "sinus air")]
INSIDE = ("csf", "grey matter", "white matter", "deep grey matter", "dura")
BRAIN = [TISSUES[name].label for name in INSIDE]


def label(name):
    return TISSUES[name].label


@pytest.fixture(scope="module")
def patients():
    return synthetic_patients(24, 96, seed=3, anatomy="atlas")


def test_the_warp_is_one_to_one():
    """Every Jacobian determinant of patient to atlas is positive, on a 3 mm grid of the head.

    By differences, not by the derivatives that the code bounds.
    """
    pixels = np.arange(-99, 100, 3.0)
    for i in range(6):
        patient = draw_patient("atlas", 11, i)
        planes = [atlas.to_atlas(patient, pixels, pixels, z) for z in np.arange(-12, 55, 3.0)]
        places = np.stack([np.stack(plane) for plane in planes], axis=1)  # (3, Z, Y, X)

        # Rows: x, y, z of the atlas; columns: z, y, x of the patient.
        jacobian = np.stack([np.stack(np.gradient(axis, 3.0)) for axis in places])
        determinant = np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1)))
        assert (np.sign(determinant) == np.sign(determinant.flat[0])).all()
        assert 0.5 < np.abs(determinant).min() and np.abs(determinant).max() < 2


def test_the_skull_is_a_closed_shell_around_one_brain(patients):
    for labels in patients.labels:
        bone = np.isin(labels, BONE)
        brain = np.isin(labels, BRAIN)
        filled = ndimage.binary_fill_holes(bone)
        # Nothing of the brain lies outside what the bone encloses.
        assert not (brain & ~filled).any()
        assert ndimage.label(bone, np.ones((3, 3)))[1] == 1
        assert ndimage.label(brain, np.ones((3, 3)))[1] == 1


def test_the_head_is_one_piece_without_holes_and_wears_skin_everywhere(patients):
    for labels, head in zip(patients.labels, patients.head, strict=True):
        assert ndimage.label(head)[1] == 1
        assert np.array_equal(ndimage.binary_fill_holes(head), head)
        assert not (head[[0, -1]].any() or head[:, [0, -1]].any())
        # No bone touches the air.
        outside = ndimage.binary_dilation(~head)
        assert not (outside & np.isin(labels, BONE)).any()


def test_volumes_of_the_tissues_are_those_of_heads():
    """Within the widest published ranges of adults, for the part of the head that is drawn."""
    scans = synthetic_patients(3, 64, seed=4, anatomy="atlas", slices=16)
    voxel_ml = scans.spacing_mm**2 * scans.slice_spacing_mm / 1000
    for labels in scans.labels:
        ml = {name: (labels == label(name)).sum() * voxel_ml for name in TISSUES}
        cavity = sum(ml[name] for name in INSIDE)
        # 60 of the 140 mm between the foramen and the vertex, and the widest ones.
        assert 550 < cavity < 1150
        assert 0.25 < ml["white matter"] / cavity < 0.55
        assert 0.02 < ml["csf"] / cavity < 0.35
        bone = ml["cortical bone"] + ml["diploe"] + ml["sinus air"]
        assert 0.12 < bone / cavity < 0.55


def test_hu_follow_the_table(patients):
    """Deep white matter has its HU; bone varies about the table's with the atlas' density."""
    found = 0
    for ct_hu, labels, p in zip(
        patients.ct_hu_clean, patients.labels, patients.parameters, strict=True
    ):
        white = labels == label("white matter")
        # Three pixels are six SDs of the blur.
        pure = ndimage.binary_erosion(white, np.ones((3, 3)), iterations=3)
        if pure.any():
            found += 1
            assert np.median(ct_hu[pure]) == pytest.approx(p["hu"]["white matter"], abs=0.5)
    assert found > 5

    bone = np.isin(patients.labels, BONE[:2])
    # The real CT's skull: median 835, 99 % below 1447.
    assert 500 < np.median(patients.ct_hu_clean[bone]) < 1000
    assert 1200 < np.percentile(patients.ct_hu_clean[bone], 99) < 2100


def test_contrast_of_grey_and_white_matter_is_the_tables(patients):
    grey, white = (
        np.median(patients.mri_clean[patients.labels == label(name)])
        for name in ("grey matter", "white matter")
    )
    signals = [tissue_signal(TISSUES[name]) for name in ("grey matter", "white matter")]
    # Partial volume with CSF darkens the cortex.
    assert grey / white == pytest.approx(signals[0] / signals[1], abs=0.06)


def test_no_two_patients_are_alike(patients):
    shapes = patients.labels.reshape(len(patients.labels), -1)
    differing = [(one != other).mean() for i, one in enumerate(shapes) for other in shapes[i + 1 :]]
    assert min(differing) > 0.05


def test_a_thicker_skull_and_wider_ventricles_come_out_as_drawn():
    base = draw_patient("atlas", 2, 0)
    pixels = np.arange(-100, 101, 1.5)

    def count(name, z_mm=8.0, **changes):
        labels, _ = atlas.head_labels(base | changes, pixels, pixels, z_mm)
        return (labels == label(name)).sum()

    for name in ("cortical bone", "diploe"):
        thin, thick = (count(name, skull_growth_mm=mm, table_mm=1.5) for mm in (-0.8, 2.0))
        assert thick >= thin
    assert count("csf", atrophy=1.0) > 1.5 * count("csf", atrophy=0.0)
    # High in the head there are no ventricles, and without a rim only sulci are left.
    no_rim = {"z_mm": 45.0, "csf_rim_mm": 0.0}
    assert count("csf", atrophy=1.0, **no_rim) > 1.3 * count("csf", atrophy=0.0, **no_rim)
    assert count("muscle", fat_mm=2.5) > count("muscle", fat_mm=6.5)


def test_a_lesion_lies_in_the_brain_on_its_side():
    options = {"seed": 6, "anatomy": "atlas", "lesion": "acute"}
    scans = synthetic_patients(8, 64, lesion_fraction=1, **options)
    without = synthetic_patients(8, 64, seed=6, anatomy="atlas")
    for i in range(8):
        assert scans.lesion[i].sum() > 20
        # The majority of a pixel on the brain's edge may be bone in one and lesion in the other.
        assert np.isin(without.labels[i][scans.lesion[i]], BRAIN).mean() > 0.95
        changed = scans.labels[i] != without.labels[i]
        assert (changed & ~scans.lesion[i]).sum() <= 0.05 * scans.lesion[i].sum()
        columns = np.flatnonzero(scans.lesion[i].any(0)) - 31.5
        assert (np.sign(columns) == np.sign(scans.parameters[i]["lesion_mm"][0])).mean() > 0.9


def test_varied_contrast_changes_the_mr_and_nothing_else(patients):
    varied = synthetic_patients(24, 96, seed=3, anatomy="atlas", mri_contrast="varied")
    assert np.array_equal(varied.ct_hu, patients.ct_hu)
    assert np.array_equal(varied.labels, patients.labels)
    sequences = {p["contrast"]["sequence"] for p in varied.parameters}
    assert sequences == {"spoiled gradient echo", "spin echo", "inversion recovery"}

    white = patients.labels == label("white matter")
    for i, p in enumerate(varied.parameters):
        expected = MRI_UNITS * tissue_signal(TISSUES["white matter"], p["contrast"])
        core = ndimage.binary_erosion(white[i], iterations=2)
        if core.any():
            assert np.median(varied.mri_clean[i][core]) == pytest.approx(expected, rel=0.05)
    assert patients.parameters[0]["contrast"] == DEFAULT_CONTRAST


@pytest.mark.parametrize(
    "times, grey_to_white, csf_to_white",
    [
        ({"sequence": "spin echo", "tr_ms": 500, "te_ms": 15}, 0.82, 0.43),
        ({"sequence": "inversion recovery", "tr_ms": 2300, "ti_ms": 900, "te_ms": 0}, 0.63, 0.0),
    ],
)
def test_contrasts_are_those_of_the_tables(times, grey_to_white, csf_to_white):
    """Ratios of BrainWeb's tissues, computed elsewhere to two digits."""
    contrast = times | {"t1_factor": 1.0, "gain": 1.0}
    grey, white, csf = (
        tissue_signal(TISSUES[name], contrast) for name in ("grey matter", "white matter", "csf")
    )
    assert grey / white == pytest.approx(grey_to_white, abs=0.02)
    assert csf / white == pytest.approx(csf_to_white, abs=0.02)


def test_field_strength_and_gain_scale_t1_and_signal():
    tissue = TISSUES["white matter"]
    slower = tissue._replace(t1_ms=1.5 * tissue.t1_ms)
    at_high_field = DEFAULT_CONTRAST | {"t1_factor": 1.5, "gain": 2.0}
    assert tissue_signal(tissue, at_high_field) == pytest.approx(2 * tissue_signal(slower))


def test_the_formula_phantom_has_varied_contrast_too():
    fixed = synthetic_patients(2, 32, seed=3)
    varied = synthetic_patients(2, 32, seed=3, mri_contrast="varied")
    assert np.array_equal(fixed.ct_hu, varied.ct_hu)
    assert not np.allclose(fixed.mri, varied.mri)


def test_the_atlas_is_a_data_set_of_its_own():
    scans = load_scans("atlas", PROFILES["ci"], 1)
    assert scans.name == "atlas" and scans.test.paired
    assert scans.train.ct_names[0].startswith("atlas-")


def test_a_course_without_the_atlas_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(atlas, "data_folder", lambda: tmp_path)
    atlas.load_head.cache_clear()
    with pytest.raises(FileNotFoundError, match='anatomy="formula"'):
        synthetic_patients(1, 32, anatomy="atlas")
    atlas.load_head.cache_clear()
    synthetic_patients(1, 32)


def test_every_lesion_that_was_asked_for_is_there():
    """About as large as its ellipse; the brain's surface cuts some of it off."""
    ill = synthetic_patients(40, 64, seed=5, anatomy="atlas", lesion="acute", lesion_fraction=1.0)
    for lesion, p in zip(ill.lesion, ill.parameters, strict=True):
        ellipse_mm2 = np.pi * p["lesion_radius_mm"] ** 2
        assert 0.4 < lesion.sum() * ill.spacing_mm**2 / ellipse_mm2 < 1.4

"""DICOM series: sorted, scaled once, put in place; traps refused in one sentence.

No name in anything that is written.
"""

import traceback
import tracemalloc
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
from pydicom.pixels import get_decoder
from pydicom.uid import JPEGLSLossless
from scipy import ndimage

from ctmri_utils.discovery import OTHER_DICOM, is_dicom
from ctmri_utils.machine import data_folder
from ctmri_utils.scans.slice_files import list_slices, read_slice_file
from ctmri_utils.volumes import dicom, dicom_files
from ctmri_utils.volumes.axial_slices import axial
from ctmri_utils.volumes.dicom import list_series, read_series
from ctmri_utils.volumes.dicom_write import write_series
from ctmri_utils.volumes.scan_files import find_scans, list_scans
from ctmri_utils.volumes.volume import Volume

REAL = Path(pydicom.data.__file__).parent / "test_files"  # pydicom's own, from real scanners


def refusal(source) -> str:
    with pytest.raises(ValueError) as caught:
        read_series(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_real_ct_slice_is_in_hu_and_in_place():
    volume = read_series(REAL / "CT_small.dcm")
    raw = pydicom.dcmread(REAL / "CT_small.dcm")
    stored = np.frombuffer(raw.PixelData, "<i2").reshape(128, 128)
    # The slope 1 and the intercept -1024 are applied once.
    np.testing.assert_array_equal(volume.values[:, :, 0], stored.T - 1024)
    left, back, up = -158.135803, -179.035797, -75.699997
    np.testing.assert_allclose(
        volume.affine,
        [[-0.661468, 0, 0, -left], [0, -0.661468, 0, -back], [0, 0, 5, up], [0, 0, 0, 1]],
        atol=1e-6,
    )
    assert volume.modality == "ct" and volume.notes == ()


@pytest.mark.parametrize(
    "how",
    ["RLE", "bigendian", "expb", "implicit", "jp2klossless", "jpeg_ls_lossless", "padded"],
)
def test_a_real_mr_slice_is_the_same_however_it_is_stored(how):
    plain, other = read_series(REAL / "MR_small.dcm"), read_series(REAL / f"MR_small_{how}.dcm")
    assert (plain.values.min(), plain.values.max(), plain.modality) == (127, 2145, "mri")
    np.testing.assert_array_equal(other.values, plain.values)
    np.testing.assert_array_equal(other.affine, plain.affine)


NOT_READ = {
    "MR_truncated.dcm": "cannot be decoded (Explicit VR Little Endian, ValueError): copy it again",
    "rtdose.dcm": "neither CT nor MR",
    "examples_rgb_color.dcm": "neither CT nor MR",
    "rtplan.dcm": "neither CT nor MR",
    "no_meta.dcm": "the mark DICM",
    "image_dfl.dcm": "deflated as a whole",
    "zipMR.gz": "the mark DICM",
    "dicomdirtests/77654033/CT2": "missing (161 after slice 1; 1.25 mm is usual)",
    # Localizers.
    "dicomdirtests/98892001/CT2N": "holds 0 CT or MR series (no slices)",
    "dicomdirtests/98892003/MR700": "differ in ImageOrientationPatient, as in a localizer",
    "dicomdirtests/98892003/MR2": "holds 3 CT or MR series (1, 3, 3 slices): pass",
    "dicomdirtests/77654033/CR1": "holds 0 CT or MR series (no slices)",
}


@pytest.mark.parametrize("name", NOT_READ)
def test_what_real_files_hold_that_cannot_be_used_is_said(name):
    said = refusal(REAL / name)
    assert NOT_READ[name] in said and Path(name).name in said


def test_a_missing_plug_in_is_named_by_its_extra(monkeypatch):
    decoder = type(get_decoder(JPEGLSLossless))
    monkeypatch.setattr(decoder, "is_available", property(lambda self: False))
    said = refusal(REAL / "MR_small_jpeg_ls_lossless.dcm")
    assert "compressed (JPEG-LS Lossless Image Compression), and the plug-in" in said
    assert "pip install 'ctmri-utils[volumes]'" in said


def test_a_real_series_is_read_whole():
    volume = read_series(REAL / "dicomdirtests" / "98892001" / "CT5N")
    assert volume.values.shape == (16, 16, 5)
    assert np.linalg.norm(volume.affine[:3, 2]) == pytest.approx(2.5)
    series, _ = list_series(files_below(REAL / "dicomdirtests" / "98892003"))
    assert sorted(map(len, series)) == [1, 1, 1, 1, 3, 3, 7]


def files_below(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_series_is_sorted_by_position_whatever_its_names_and_numbers_say(
    tmp_path, head, dicom_series
):
    values, affine, _ = head(slices=9)
    dicom_series(tmp_path, values, affine)
    (tmp_path / "README.txt").write_text("not DICOM")
    volume = read_series(tmp_path)
    np.testing.assert_array_equal(volume.values, values)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-9)
    assert volume.modality == "ct" and volume.notes == ()


def test_series_of_any_order_and_plane_have_the_same_geometry(tmp_path, head, dicom_series):
    values, affine, spacing = head(slices=9)
    upright = axial(Volume(values, affine, "ct"), 64, spacing[1])
    down = affine.copy()
    down[:, 2], down[:, 3] = -affine[:, 2], affine @ [0, 0, 8, 1]
    dicom_series(tmp_path / "down", values[:, :, ::-1], down)
    dicom_series(tmp_path / "sagittal", values.transpose(1, 2, 0), affine[:, [1, 2, 0, 3]])
    for name in ("down", "sagittal"):
        stack = axial(read_series(tmp_path / name), 64, spacing[1])
        np.testing.assert_allclose(stack.values, upright.values, atol=0.01)
        np.testing.assert_allclose(stack.affine, upright.affine, atol=1e-6)


def test_each_slice_has_its_own_rescale(tmp_path, head, dicom_series):
    values, affine, _ = head("mri", slices=4)
    rescale = {"RescaleSlope": lambda k: 1 + k, "RescaleIntercept": lambda k: -k}
    dicom_series(tmp_path, values, affine, "mri", **rescale)
    expected = values * [1, 2, 3, 4] - [0, 1, 2, 3]
    np.testing.assert_array_equal(read_series(tmp_path).values, expected)


def test_a_full_size_series_with_a_tilted_gantry_is_put_where_it_was(tmp_path, dicom_series):
    """512 x 512 x 40 at 20 degrees.

    A straight cylinder along the table stays straight, and comes back onto the tilted grid.
    """
    size, slices, tilt = 512, 40, np.deg2rad(20)
    affine = np.diag([-0.45, -0.45, 3.0, 1])
    # Columns lean, the table does not.
    affine[:3, 1] = -0.45 * np.array([0, np.cos(tilt), np.sin(tilt)])
    affine[:3, 3] = 115, 115, 0
    mm = np.tensordot(affine[:2, :3], np.indices((size, size, slices)), axes=1) + 115
    values = np.where(np.hypot(*mm) < 80, 40, -1000).astype(np.float32)
    files = dicom_series(tmp_path, values, affine)
    volume = read_series(tmp_path)
    np.testing.assert_array_equal(volume.values, values)
    [note] = volume.notes
    assert "tilted by 20.0 degrees" in note
    incomplete = files[:7] + files[8:30] + files[32:]
    missing = "slices are missing (1 after slice 7, 2 after slice 29; 2.82 mm is usual)"
    assert missing in refusal(incomplete)

    stack = axial(volume)
    to_pixel = np.linalg.inv(stack.affine)
    for z, slice_ in enumerate(stack.values):
        # Where the table's axis, x = y = 0, meets this leaning slice; in pixels.
        height = (z - to_pixel[0, 3]) / to_pixel[0, 2]
        expected = (to_pixel @ [0, 0, height, 1])[1:3]
        np.testing.assert_allclose(ndimage.center_of_mass(slice_ + 1000), expected, atol=0.1)
    returned = stack.back_onto(volume, stack.values, -1000)
    assert np.mean((returned > -500) != (values > -500)) < 0.01


def test_the_embedded_ct_as_a_series_has_the_gaps_of_its_split(tmp_path, dicom_series):
    found, _ = list_slices(data_folder() / "scans")
    slices = sorted(found["train", "ct"] + found["test", "ct"], key=lambda entry: entry[0].stem)
    heights = [int(path.stem[-4:]) / 10 for path, _ in slices]
    values = np.stack([read_slice_file(*entry)[1].T for entry in slices], axis=2)
    affine = np.diag([-1.75, -1.75, 1.5, 1])
    positions = {"ImagePositionPatient": lambda k: [0, 0, heights[k]]}
    files = dicom_series(tmp_path, values, affine, **positions)
    assert "slices are missing (1 after slice 6, 1 after slice 9," in refusal(tmp_path)
    np.testing.assert_array_equal(read_series(files[:6]).values, values[:, :, :6])


GAPS = {
    "missing (1 after slice 3; 3.00 mm": [0, 3, 6, 12, 15, 18],
    "missing (2 after slice 1, 1 after slice 5; 3.00 mm": [0, 9, 12, 15, 18, 24],
    "1 slices lie where another one lies": [0, 3, 6, 6, 9, 12],
}


@pytest.mark.parametrize("words", GAPS)
def test_gaps_and_doubles_are_refused(tmp_path, head, dicom_series, words):
    values, affine, _ = head(slices=6)
    positions = {"ImagePositionPatient": lambda k: [0.0, 0.0, GAPS[words][k]]}
    dicom_series(tmp_path, values, affine, **positions)
    assert words in refusal(tmp_path)


def test_positions_rounded_to_a_tenth_of_a_millimetre_are_even_enough(tmp_path, head, dicom_series):
    values, affine, _ = head(slices=12)
    positions = {"ImagePositionPatient": lambda k: [0.0, 0.0, round(0.625 * k, 1)]}
    dicom_series(tmp_path, values, affine, **positions)
    assert np.linalg.norm(read_series(tmp_path).affine[:3, 2]) == pytest.approx(0.625, abs=0.01)


BAD_TAGS = {
    "other modality": ({"Modality": "PT"}, "neither CT nor MR"),
    "colour": ({"PhotometricInterpretation": "RGB"}, "colour"),
    "frames": ({"NumberOfFrames": 2}, "several frames"),
    "two series": ({"SeriesInstanceUID": lambda k: f"1.2.{k % 2}"}, "holds 2 CT or MR series"),
    "two people": ({"PatientID": lambda k: f"Mustermann-{k % 2}"}, "differ in PatientID"),
    "two sizes": ({"Rows": lambda k: 64 + k}, "differ in Rows"),
    "two pixel sizes": ({"PixelSpacing": lambda k: [1 + k, 1]}, "differ in PixelSpacing"),
    "no pixel size": ({"PixelSpacing": None}, "PixelSpacing is missing"),
    "no position": ({"ImagePositionPatient": None}, "ImagePositionPatient is missing"),
    "no direction": ({"ImageOrientationPatient": None}, "ImageOrientationPatient is missing"),
    "turned": (
        {"ImageOrientationPatient": lambda k: [1, 0, 0, 0, 1, 0] if k else [0, 1, 0, 0, 0, -1]},
        "as in a localizer",
    ),
    "skew": (
        {"ImageOrientationPatient": [1, 0, 0, 0.6, 0.8, 0]},
        "two perpendicular directions",
    ),
    "beside": (
        {"ImagePositionPatient": lambda k: [9.0 * (k == 2), 0, 3 * k]},
        "do not lie on one line",
    ),
    "enormous": ({"Rows": 65535, "Columns": 65535}, "65535 x 65535 pixels"),
    "sizes that do not fit": ({"Rows": 1000}, "cannot be decoded"),
    "no HU": ({"RescaleIntercept": 0}, "cannot be"),
    "zero pixels": ({"PixelSpacing": [0, 0]}, "not plausible"),
}


@pytest.mark.parametrize("case", BAD_TAGS)
def test_what_would_mislead_is_refused_and_names_no_patient(
    tmp_path, head, dicom_series, secrets, case
):
    tags, words = BAD_TAGS[case]
    values, affine, _ = head(slices=4)
    files = dicom_series(tmp_path, values, affine, **tags)
    said = refusal(tmp_path if case == "two series" else files)
    assert words in said and str(tmp_path) in said
    assert not any(secret in said for secret in secrets)


def test_people_whose_series_have_no_uid_are_not_stacked_into_one_head(
    tmp_path, head, dicom_series
):
    values, affine, _ = head(slices=4)
    between = affine.copy()
    # Together they would be a series, evenly spaced.
    between[:3, 3] += affine[:3, 2] / 2
    files = dicom_series(tmp_path / "a", values, affine, SeriesInstanceUID=None)
    files += dicom_series(tmp_path / "b", values, between, SeriesInstanceUID=None)
    series, _ = list_series(files)
    assert [len(of_one) for of_one in series] == [4, 4]


# Padding of -976 HU, stored as it is, or as 64560 where the pixels are unsigned.
PADDING = {
    "signed": (1, {"PixelPaddingValue": -976}),
    "mixed": (0, {"PixelPaddingValue": -976}),
    "range": (1, {"PixelPaddingValue": -980, "PixelPaddingRangeLimit": -970}),
}


@pytest.mark.parametrize("case", PADDING)
def test_padding_becomes_air_also_where_its_sign_was_lost(tmp_path, head, dicom_series, case):
    is_signed, tags = PADDING[case]
    values, affine, _ = head(slices=3)
    framed = values.copy()
    framed[:5] = -2000
    stored = (framed + 1024).astype(np.int16)
    pixels = {"PixelData": lambda k: stored[:, :, k].T.tobytes(), "PixelRepresentation": is_signed}
    add_tags(dicom_series(tmp_path, framed, affine, **pixels), "SS", tags)
    volume = read_series(tmp_path)
    assert (volume.values[:5] == -1024).all()
    np.testing.assert_array_equal(volume.values[5:], values[5:])
    assert volume.notes == ("7.8% of the voxels are padding, and became background",)


def add_tags(files, kind, tags):
    for path in files:
        file = pydicom.dcmread(path)
        for keyword, value in tags.items():
            file.add_new(keyword, kind, value)
        file.save_as(path)


def test_an_empty_limit_of_padding_is_no_limit(tmp_path, head, dicom_series):
    values, affine, _ = head(slices=3)
    framed = values.copy()
    framed[:5] = -1024
    tags = {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": None}
    add_tags(dicom_series(tmp_path, framed, affine), "US", tags)
    assert (read_series(tmp_path).values[:5] == -1024).all()


@pytest.mark.parametrize("modality", ["ct", "mri"])
def test_a_negative_is_turned_over_for_mr_and_kept_for_hu(tmp_path, head, dicom_series, modality):
    values, affine, _ = head(modality, slices=3)
    is_mri = modality == "mri"
    stored = values.max() - values if is_mri else values
    dicom_series(tmp_path, stored, affine, modality, PhotometricInterpretation="MONOCHROME1")
    volume = read_series(tmp_path)
    np.testing.assert_array_equal(volume.values, values - values.min() if is_mri else values)
    assert ("MONOCHROME1" in volume.describe()) == is_mri


def test_localizers_pictures_of_a_screen_and_other_objects_are_no_scans(
    tmp_path, head, dicom_series
):
    values, affine, _ = head(slices=3)
    files = dicom_series(tmp_path / "ct", values, affine)
    one = values[:, :, :1]
    scout = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    dicom_series(tmp_path / "scout", one, affine, ImageType=scout)
    dicom_series(tmp_path / "pet", one, affine, Modality="PT")
    place = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    capture = dict.fromkeys(place) | {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}
    dicom_series(tmp_path / "dose", one, affine, **capture)

    listing = list_scans(tmp_path)
    assert [sorted(scan.files) for scan in listing.scans] == [sorted(files)]
    assert listing.left_out == {OTHER_DICOM: 3}
    assert read_series(tmp_path).values.shape == values.shape


def without_mark(path, encoding):
    """Write a file again as old archives did: only the data set, without preamble or mark."""
    dataset = pydicom.dcmread(path)
    how = dict(zip(("implicit_vr", "little_endian"), encoding))
    pydicom.dcmwrite(path, pydicom.Dataset(dataset), enforce_file_format=False, **how)
    assert path.read_bytes()[128:132] != b"DICM"


@pytest.mark.parametrize("encoding", [(True, True), (False, True)])
@pytest.mark.parametrize("count", [4, 9])
def test_files_without_the_mark_are_slices_like_others(
    tmp_path, head, dicom_series, encoding, count
):
    values, affine, _ = head(slices=9)
    for path in dicom_series(tmp_path, values, affine)[:count]:
        without_mark(path, encoding)
    [scan] = find_scans(tmp_path)
    volume = scan.read()
    np.testing.assert_array_equal(volume.values, values)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-9)


def test_real_files_without_the_mark_are_read_or_left_out():
    for name in ("ExplVR_LitEndNoMeta.dcm", "ExplVR_BigEndNoMeta.dcm", "rtstruct.dcm"):
        assert is_dicom(REAL / name)
        # None of them is a CT or MR image.
        assert list_scans(REAL / name).left_out == {OTHER_DICOM: 1}


def test_a_series_that_this_package_made_is_known(tmp_path, head, dicom_series):
    values, affine, _ = head(slices=3)
    dicom_series(tmp_path / "real", values, affine, ImageType=["DERIVED", "SECONDARY", "MPR"])
    write_series(Volume(values, affine, "ct"), tmp_path / "made")
    assert sorted(scan.synthetic for scan in find_scans(tmp_path)) == [False, True]

    # A PACS may drop two of the three places that say so.
    for path in (tmp_path / "made").iterdir():
        file = pydicom.dcmread(path)
        del file.SeriesDescription, file.ImageComments
        file.save_as(path)
    assert len(find_scans(tmp_path, round_trip=False)) == 1


def test_slices_with_room_between_them_are_said(tmp_path, head, dicom_series):
    values, affine, spacing = head(slices=5)
    dicom_series(tmp_path, values, affine, SliceThickness=5)
    assert f"slices of 5 mm lie {spacing[0]:.2f} mm apart" in read_series(tmp_path).describe()


def test_files_that_would_fill_the_memory_are_not_read(tmp_path, head, dicom_series, monkeypatch):
    values, affine, _ = head(slices=3)
    files = dicom_series(tmp_path, values, affine)
    monkeypatch.setattr(dicom, "MOST_SERIES_BYTES", sum(path.stat().st_size for path in files) - 1)
    assert "3 files have more than" in refusal(files)
    monkeypatch.setattr(dicom_files, "MOST_FILE_BYTES", files[0].stat().st_size - 1)
    assert "not a single slice" in refusal(files[:1])


@pytest.mark.parametrize(("modality", "name"), [("ct", "CT"), ("mri", "MR")])
def test_a_written_series_is_read_back_the_same_and_is_marked(tmp_path, head, modality, name):
    values, affine, _ = head(modality, slices=5)
    affine[:3, 2] += 0, 0.4, 0  # a tilt
    write_series(Volume(values, affine, modality), tmp_path / "made")
    returned = read_series(tmp_path / "made")
    np.testing.assert_array_equal(returned.values, values)
    np.testing.assert_allclose(returned.affine, affine, atol=1e-6)
    assert returned.modality == modality

    paths = sorted((tmp_path / "made").iterdir())
    assert [path.name for path in paths] == [f"000{k}.dcm" for k in range(1, 6)]
    files = [pydicom.dcmread(path) for path in paths]
    assert [file.InstanceNumber for file in files] == [1, 2, 3, 4, 5]
    assert len({file.SOPInstanceUID for file in files}) == 5
    assert len({file.SeriesInstanceUID for file in files}) == 1
    for file in files:
        assert list(file.ImageType[:2]) == ["DERIVED", "SECONDARY"] and file.Modality == name
        assert file.SeriesDescription == f"SYNTHETIC {name} - NOT FOR CLINICAL USE"
        assert file.ImageComments == file.SeriesDescription
        assert file.PatientName == "SYNTHETIC^NOT FOR CLINICAL USE"
        assert file.PatientIdentityRemoved == "YES"
        assert file.file_meta.MediaStorageSOPInstanceUID == file.SOPInstanceUID
    with pytest.raises(FileExistsError):
        write_series(returned, tmp_path / "made")


def test_every_uid_is_new_and_no_tag_comes_from_the_source(tmp_path, head, dicom_series, secrets):
    values, affine, _ = head(slices=3)
    dicom_series(tmp_path / "in", values, affine)
    write_series(read_series(tmp_path / "in"), tmp_path / "out")
    sources = [pydicom.dcmread(path) for path in (tmp_path / "in").iterdir()]
    hidden = {*secrets}.union(*map(uids_of, sources))
    assert len(hidden) == len(secrets) + 6
    for path in (tmp_path / "out").iterdir():
        assert len(uids_of(pydicom.dcmread(path))) == 4
        content = path.read_bytes()
        assert not any(text.encode() in content for text in hidden)


def uids_of(file):
    """Those of the study, of the series, of its place, and of the file."""
    kinds = ("Study", "Series", "SOP")
    return {str(file[f"{kind}InstanceUID"].value) for kind in kinds} | {file.FrameOfReferenceUID}


@pytest.mark.parametrize("where", ["pydicom.dcmread", "pydicom.pixels.apply_modality_lut"])
def test_pydicoms_own_words_are_not_passed_on(tmp_path, head, dicom_series, monkeypatch, where):
    def fail(*_, **__):
        raise ValueError("Invalid value for VR PN: Mustermann^Erika")

    values, affine, _ = head(slices=3)
    files = dicom_series(tmp_path, values, affine)
    monkeypatch.setattr(where, fail)
    with pytest.raises(ValueError) as caught:
        read_series(files)
    assert "Mustermann" not in "".join(traceback.format_exception(caught.value))


def test_what_dicom_cannot_hold_is_refused(tmp_path, head):
    values, affine, _ = head(slices=3)
    affine[:3, 1] += 1, 0, 0
    with pytest.raises(ValueError, match="not perpendicular"):
        write_series(Volume(values, affine, "ct"), tmp_path / "x")
    assert not any(tmp_path.iterdir())


DAMAGED = [f"MR_small{how}.dcm" for how in ("", "_RLE", "_implicit", "_jp2klossless")]
DAMAGED += ["CT_small.dcm", "MR_small_jpeg_ls_lossless.dcm", "J2K_pixelrep_mismatch.dcm"]


@pytest.mark.parametrize("name", DAMAGED)
def test_random_damage_to_real_files_only_ever_gives_a_sentence(
    tmp_path, damage, caplog, recwarn, capfd, name
):
    whole, draw = (REAL / name).read_bytes(), np.random.default_rng(0)
    path, refused = tmp_path / "x.dcm", 0
    tracemalloc.start()
    for _ in range(100):
        path.write_bytes(damage(whole, draw))
        list_series([path])
        try:
            volume = read_series(path)
        except ValueError as error:
            assert "x.dcm" in str(error) and "\n" not in str(error)
            refused += 1
            continue
        assert np.isfinite(volume.values).all() and volume.values.size <= 2**24
    assert refused > 5
    # The words of pydicom may quote a name.
    assert not caplog.records and not recwarn.list and not "".join(capfd.readouterr())
    assert tracemalloc.get_traced_memory()[1] < 100e6  # bytes
    tracemalloc.stop()


def test_damage_in_a_series_is_not_overlooked(tmp_path, head, dicom_series):
    values, affine, _ = head(slices=6)
    files = dicom_series(tmp_path, values, affine)
    files[2].write_bytes(files[2].read_bytes()[:1500])
    assert "cannot be decoded" in refusal(tmp_path)
    files[2].write_bytes(files[2].read_bytes()[:300])
    # Nothing says any longer what it was.
    assert "slices are missing (1 after slice" in refusal(tmp_path)

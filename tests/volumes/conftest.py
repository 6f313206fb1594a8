"""Scans as a hospital would send them.

Heads with a place in space, NIfTI files and DICOM series, each with a patient's name inside.
"""

from functools import cache

import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from ctmri_utils.scans.phantom import synthetic_patients

SECRETS = ("Mustermann", "Erika", "MRN-4711", "19620229", "ACC-0815", "Sankt Elsewhere")


def upright(spacing_zyx, shape):
    """(4, 4), index (x, y, z) of an axial stack (z upward, front first, right first) -> mm RAS+,
    the middle at the origin.
    """
    z, y, x = spacing_zyx
    affine = np.diag([-x, -y, z, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    return affine


@cache
def phantom_head(size, slices, seed):
    return synthetic_patients(1, size, seed, slices=slices)


@pytest.fixture(scope="session")
def head():
    """A function: (whole numbers (I, J, K), affine, spacing (z, y, x)) of a synthetic head."""

    def make(modality="ct", size=64, slices=12, seed=3):
        patient = phantom_head(size, slices, seed)
        values = (patient.ct_hu if modality == "ct" else patient.mri * 5)[0].transpose(2, 1, 0)
        spacing = (patient.slice_spacing_mm, patient.spacing_mm, patient.spacing_mm)
        return np.rint(values).astype(np.float32), upright(spacing, values.shape), spacing

    return make


def write_dicom(folder, values, affine, modality="ct", series=None, study=None, names=None, **tags):
    """Write (I, J, K) as a series full of personal data.

    `tags` replace tags, a function of k, or None to leave one out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1, 1]) @ affine[:3]
    sides = np.linalg.norm(lps[:, :3], axis=0)
    series, study, frame = series or generate_uid(), study or generate_uid(), generate_uid()
    intercept = -1024 if modality == "ct" else 0
    written = []
    for k in range(values.shape[2]):
        image = pydicom.Dataset()
        image.file_meta = pydicom.dataset.FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.SOPClassUID, image.SOPInstanceUID = (
            CTImageStorage if modality == "ct" else MRImageStorage,
            generate_uid(),
        )
        image.file_meta.MediaStorageSOPClassUID, image.file_meta.MediaStorageSOPInstanceUID = (
            image.SOPClassUID,
            image.SOPInstanceUID,
        )
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = (
            study,
            series,
            frame,
        )
        image.PatientName, image.PatientID, image.PatientBirthDate = (
            "Mustermann^Erika",
            "MRN-4711",
            "19620229",
        )
        image.AccessionNumber, image.InstitutionName = "ACC-0815", "Sankt Elsewhere"
        image.SeriesDescription, image.ImageComments = "Head of Mustermann", "call Erika"
        image.add_new((0x0009, 0x0010), "LO", "ACME")
        image.add_new((0x0009, 0x1001), "LO", "private Mustermann")
        image.Modality, image.ImageType = (
            {"ct": "CT", "mri": "MR"}[modality],
            ["ORIGINAL", "PRIMARY", "AXIAL"],
        )
        # wrong on purpose: positions count, not numbers
        image.InstanceNumber = values.shape[2] - k
        image.ImageOrientationPatient = [
            float(number) for number in (lps[:, :2] / sides[:2]).T.ravel()
        ]
        image.ImagePositionPatient = [float(number) for number in lps[:, 2] * k + lps[:, 3]]
        image.PixelSpacing = [float(sides[1]), float(sides[0])]
        image.SliceThickness = float(sides[2])
        image.Rows, image.Columns = values.shape[1], values.shape[0]
        image.SamplesPerPixel, image.PhotometricInterpretation, image.PixelRepresentation = (
            1,
            "MONOCHROME2",
            0,
        )
        image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
        if modality == "ct":
            image.RescaleIntercept, image.RescaleSlope = intercept, 1
        image.PixelData = (
            np.rint(values[:, :, k].T - intercept).clip(0, 65535).astype("<u2").tobytes()
        )
        for keyword, value in tags.items():
            value = value(k) if callable(value) else value
            if value is None:
                del image[keyword]
            else:
                setattr(image, keyword, value)
        # in no useful order
        path = folder / (names[k] if names else f"IM{(7 * k + 3) % 1000:04d}")
        image.save_as(path, enforce_file_format=True)
        written.append(path)
    return written


@pytest.fixture(scope="session")
def dicom_series():
    return write_dicom


@pytest.fixture(scope="session")
def secrets():
    return SECRETS


def damaged(whole: bytes, draw: np.random.Generator) -> bytes:
    """A copy with one of six kinds of damage, more often near its beginning, where lengths and
    sizes are.
    """
    raw = bytearray(whole)
    where = int(
        draw.integers(len(raw)) if draw.random() < 0.3 else draw.integers(min(len(raw), 400))
    )
    length = int(draw.integers(1, 9))
    kind = draw.integers(6)
    if kind == 0:
        raw[where : where + length] = draw.bytes(length)
    elif kind == 1:
        raw[where : where + 4] = draw.choice(
            [b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0\0\0\0"]
        )
    elif kind == 2:
        del raw[where:]
    elif kind == 3:
        del raw[where : where + length]
    elif kind == 4:
        raw[where:where] = draw.bytes(length)
    else:
        for position in draw.integers(min(len(raw), 400), size=8):
            raw[position] ^= 1 << draw.integers(8)
    return bytes(raw)


@pytest.fixture(scope="session")
def damage():
    return damaged

"""Scans as a hospital would send them.

Heads with a place in space, NIfTI files and DICOM series, each with a patient's name inside.
"""

from functools import cache

import numpy as np
import pydicom
import pytest
import torch
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from ctmri_utils.cyclegan.model import CycleGAN
from ctmri_utils.runs.weights import save_weights
from ctmri_utils.scans.phantom import synthetic_patients
from ctmri_utils.settings import Architecture
from ctmri_utils.volumes.volume import Volume

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


@pytest.fixture(scope="session")
def head_volume(head):
    """A function: the `Volume` of a synthetic head."""

    def make(modality="ct", **options):
        values, affine, _ = head(modality, **options)
        return Volume(values, affine, modality)

    return make


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A file of weights in both directions, of the smallest networks that there are."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(CycleGAN(Architecture(ngf=4, ndf=4, n_blocks=1, n_layers=1)), path)
    return path


def write_dicom(folder, values, affine, modality="ct", **tags):
    """Write (I, J, K) as a series full of personal data, in files of no useful order.

    `tags` replace tags, a function of k, or None to leave one out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1, 1]) @ affine[:3]
    sides = np.linalg.norm(lps[:, :3], axis=0)
    intercept = -1024 if modality == "ct" else 0
    stored = np.rint(values - intercept).clip(0, 65535).astype("<u2")
    tags = {
        "SOPClassUID": CTImageStorage if modality == "ct" else MRImageStorage,
        "SOPInstanceUID": lambda k: generate_uid(),
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "FrameOfReferenceUID": generate_uid(),
        "PatientName": "Mustermann^Erika",
        "PatientID": "MRN-4711",
        "PatientBirthDate": "19620229",
        "AccessionNumber": "ACC-0815",
        "InstitutionName": "Sankt Elsewhere",
        "SeriesDescription": "Head of Mustermann",
        "ImageComments": "call Erika",
        "Modality": {"ct": "CT", "mri": "MR"}[modality],
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        # Wrong on purpose: positions count, not numbers.
        "InstanceNumber": lambda k: values.shape[2] - k,
        "ImageOrientationPatient": (lps[:, :2] / sides[:2]).T.ravel().tolist(),
        "ImagePositionPatient": lambda k: (lps[:, 2] * k + lps[:, 3]).tolist(),
        "PixelSpacing": [float(sides[1]), float(sides[0])],
        "SliceThickness": float(sides[2]),
        "Rows": values.shape[1],
        "Columns": values.shape[0],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelRepresentation": 0,
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "RescaleIntercept": intercept if modality == "ct" else None,
        "RescaleSlope": 1 if modality == "ct" else None,
        "PixelData": lambda k: stored[:, :, k].T.tobytes(),
    } | tags

    written = []
    for k in range(values.shape[2]):
        image = pydicom.Dataset()
        image.file_meta = pydicom.dataset.FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.add_new((0x0009, 0x0010), "LO", "ACME")
        image.add_new((0x0009, 0x1001), "LO", "private Mustermann")
        for keyword, value in tags.items():
            value = value(k) if callable(value) else value
            if value is not None:
                setattr(image, keyword, value)
        path = folder / f"IM{(7 * k + 3) % 1000:04d}"
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

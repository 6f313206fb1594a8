"""Synthetic volumes as DICOM series; no tag comes from a source, so no name can come along."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..machine import import_optional
from ..units import MODALITIES
from .volume import LPS_TO_RAS, Volume, as_int16, atomic_create, voxel_sides_mm

if TYPE_CHECKING:
    from pydicom import Dataset

SHARED_TAGS = {
    "PatientName": "SYNTHETIC^NOT FOR CLINICAL USE",
    "PatientID": "SYNTHETIC",
    "PatientIdentityRemoved": "YES",
    "DeidentificationMethod": "written anew: only pixels and geometry come from the source",
    "Manufacturer": "ctmri-utils",
    "SeriesNumber": 1,
    # The standard wants these tags, but allows them to be empty.
    "PatientBirthDate": "",
    "PatientSex": "",
    "StudyDate": "",
    "StudyTime": "",
    "StudyID": "",
    "AccessionNumber": "",
    "ReferringPhysicianName": "",
    "PositionReferenceIndicator": "",
    # The pixels are signed 16-bit whole numbers in the volume's own unit.
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "PixelRepresentation": 1,
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "RescaleIntercept": 0,
    "RescaleSlope": 1,
}
CT_TAGS = {
    "ImageType": ["DERIVED", "SECONDARY", "AXIAL"],
    "WindowCenter": 40,
    "WindowWidth": 400,
    "RescaleType": "HU",
    "KVP": None,
    "AcquisitionNumber": None,
}
MRI_TAGS = {
    "ImageType": ["DERIVED", "SECONDARY", "OTHER"],
    "WindowCenter": 2048,
    "WindowWidth": 4096,
    "ScanningSequence": "RM",
    "SequenceVariant": "NONE",
    "ScanOptions": "",
    "MRAcquisitionType": "",
    "EchoTime": None,
    "RepetitionTime": None,
    "EchoTrainLength": None,
}


def write_series(volume: Volume, folder: Path) -> None:
    """Write a synthetic volume as a series of its own, one file a slice: 0001.dcm, 0002.dcm ...

    Every tag is made here, none is copied: new UIDs, DERIVED\\SECONDARY, "SYNTHETIC ... NOT FOR
    CLINICAL USE" as the description and the patient's name. Values are int16, HU for CT. Slices
    that lie unevenly are written where they lie.

    Args:
        volume: what to write.
        folder: a new one.

    Raises:
        ValueError: as `as_int16`, or rows and columns are not at a right angle.
        FileExistsError: the folder is not empty.
    """
    import_optional("pydicom")
    stored = as_int16(volume)
    affine = LPS_TO_RAS @ volume.affine[:3]
    series_tags = SHARED_TAGS | modality_tags(volume) | grid_tags(affine, stored.shape)
    heights = np.arange(stored.shape[2]) if volume.heights is None else volume.heights
    steps = nearest_steps(heights)

    with atomic_create(folder) as temporary:
        temporary.mkdir()
        for k in range(stored.shape[2]):
            slice_tags = {
                "InstanceNumber": k + 1,
                "ImagePositionPatient": decimal_strings(affine[:, 2] * heights[k] + affine[:, 3]),
                **depth_tags(affine, steps[k]),
                "PixelData": np.ascontiguousarray(stored[:, :, k].T).astype("<i2").tobytes(),
            }
            image = slice_dataset(series_tags | slice_tags)
            image.save_as(temporary / f"{k + 1:04d}.dcm", enforce_file_format=True)


def modality_tags(volume: Volume) -> dict:
    """What a series of this modality says of itself, its warnings too, with new UIDs."""
    from pydicom.uid import CTImageStorage, MRImageStorage, generate_uid

    modality = volume.modality
    label = volume.label
    origin = (
        "Translated by a neural network from another modality; findings may be invented or lost."
    )
    if volume.error_map:
        origin = "How far translations of moved copies disagree, as an error to expect."
    common = {
        "Modality": MODALITIES[modality],
        "SeriesDescription": label,
        "ImageComments": "; ".join([label, *volume.warnings]),
        "DerivationDescription": f"{origin} {label}",
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "FrameOfReferenceUID": generate_uid(),
    }
    if modality == "ct":
        return common | CT_TAGS | {"SOPClassUID": CTImageStorage}
    return common | MRI_TAGS | {"SOPClassUID": MRImageStorage}


def grid_tags(affine: np.ndarray, shape: tuple[int, int, int]) -> dict:
    """Size and orientation of the slices, from an affine (3, 4) in DICOM's directions."""
    sides = voxel_sides_mm(affine)
    directions = affine[:, :2] / sides[:2]
    if abs(directions[:, 0] @ directions[:, 1]) > 1e-3:
        raise ValueError(
            "rows and columns are not perpendicular, which DICOM cannot hold: write NIfTI instead"
        )

    return {
        "Rows": shape[1],
        "Columns": shape[0],
        "ImageOrientationPatient": decimal_strings(directions.T.ravel()),
        "PixelSpacing": decimal_strings([sides[1], sides[0]]),
    }


def nearest_steps(heights: np.ndarray) -> np.ndarray:
    """The distance of each slice to the nearer of its neighbours; 1 for a single slice."""
    distances = np.diff(heights)
    if not distances.size:
        return np.ones(1)
    below = np.concatenate([distances[:1], distances])
    above = np.concatenate([distances, distances[-1:]])
    return np.minimum(below, above)


def depth_tags(affine: np.ndarray, step: float) -> dict:
    """Thickness and distance of a slice whose neighbour is so many steps of the affine away."""
    normal = np.cross(*affine[:, :2].T)
    normal /= np.linalg.norm(normal)
    [slice_distance] = decimal_strings([abs(normal @ affine[:, 2]) * step])
    return {"SliceThickness": slice_distance, "SpacingBetweenSlices": slice_distance}


def slice_dataset(tags: dict) -> Dataset:
    """A slice with these tags and a UID of its own."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    image = Dataset()
    for keyword, value in tags.items():
        setattr(image, keyword, value)
    image.SOPInstanceUID = generate_uid()

    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return image


def decimal_strings(values: Iterable[float]) -> list:
    """Numbers as DICOM's decimal strings of at most 16 characters."""
    from pydicom.valuerep import DSfloat

    return [DSfloat(float(value), auto_format=True) for value in values]

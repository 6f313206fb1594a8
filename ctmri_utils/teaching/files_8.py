"""Files of lesson 8: the embedded CT as a hospital exports it, slice by slice."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from ..machine import data_folder
from ..scans.slices import read_slice
from ..units import STORED_HU_OFFSET


def empty_folder(path: Path) -> Path:
    """Make the folder, without what an earlier run of the lesson left in it."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def embedded_ct() -> tuple[np.ndarray, np.ndarray]:
    """The slices of the course's one CT, without those left out between training and test.

    Returns:
        The slices in HU, (N, 128, 128), and their heights in mm, (N,), from the lowest up.
    """
    folder = data_folder() / "scans"
    table = pd.read_csv(folder / "manifest.csv")
    table = table[table["modality"] == "ct"].sort_values("z_mm")
    stored = [read_slice(folder / name)[0] for name in table["file"]]
    return np.stack(stored) - float(STORED_HU_OFFSET), table["z_mm"].to_numpy()


def fill_gaps(
    slices_hu: np.ndarray, heights_mm: np.ndarray, step_mm: float
) -> tuple[np.ndarray, np.ndarray]:
    """A stack without gaps: a missing slice becomes the mean of its neighbours.

    Args:
        slices_hu: (N, H, W), from the lowest up.
        heights_mm: (N,).
        step_mm: distance of the slices without gaps.

    Returns:
        The slices in whole HU, (M, H, W), and their heights in mm, (M,).
    """
    whole_mm = np.arange(heights_mm[0], heights_mm[-1] + step_mm / 2, step_mm)

    # Slices that exist have themselves as both neighbours.
    below = np.searchsorted(heights_mm, whole_mm + step_mm / 10) - 1
    above = np.searchsorted(heights_mm, whole_mm - step_mm / 10)
    return np.rint((slices_hu[below] + slices_hu[above]) / 2), whole_mm


def write_ct_slice(path: Path, slice_hu: np.ndarray, tags: dict) -> None:
    """Write one slice as a DICOM file.

    Args:
        path: a new file.
        slice_hu: (H, W), whole HU from -1024 to 64511.
        tags: its place, its names and how to rescale it, by keyword; the rest is added here.
    """
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.SOPClassUID, file.SOPInstanceUID = CTImageStorage, generate_uid()
    file.Modality = "CT"
    for keyword, value in tags.items():
        setattr(file, keyword, value)

    # Stored numbers are 16-bit and unsigned.
    file.Rows, file.Columns = slice_hu.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 16, 15
    file.PixelRepresentation = 0
    stored = (slice_hu - tags["RescaleIntercept"]) / tags["RescaleSlope"]
    file.PixelData = stored.astype("<u2").tobytes()
    file.save_as(path, enforce_file_format=True)

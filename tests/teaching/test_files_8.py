"""The CT that lesson 8 exports: complete after its gaps are filled, and read back as written."""

import numpy as np
from pydicom.uid import generate_uid

from ctmri_utils.teaching.files_8 import embedded_ct, fill_gaps, write_ct_slice
from ctmri_utils.volumes import read_series


def test_a_gap_becomes_the_mean_of_its_neighbours():
    slices_hu = np.array([0.0, 10.0, 30.0])[:, None, None] * np.ones((1, 2, 2))
    filled, heights_mm = fill_gaps(slices_hu, np.array([0.0, 1.5, 4.5]), 1.5)
    assert heights_mm.tolist() == [0, 1.5, 3, 4.5]
    assert filled[:, 0, 0].tolist() == [0, 10, 20, 30]


def test_the_exported_series_is_read_back_in_its_place(tmp_path):
    slices_hu, heights_mm = embedded_ct()
    assert (np.diff(heights_mm) > 0).all() and slices_hu.min() >= -1024

    series = generate_uid()
    # The last file is the lowest slice.
    for k in range(5):
        tags = {
            "SeriesInstanceUID": series,
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "ImagePositionPatient": [0, 0, heights_mm[k]],
            "PixelSpacing": [1.75, 1.75],
            "RescaleSlope": 1,
            "RescaleIntercept": -1024,
        }
        write_ct_slice(tmp_path / f"IM{9 - k}", slices_hu[k], tags)
    volume = read_series(tmp_path)
    assert np.array_equal(volume.values.T, slices_hu[:5])
    assert np.allclose(np.diag(volume.affine), [-1.75, -1.75, 1.5, 1])

"""Whole scans: NIfTI and DICOM in and out, prepared for training, translated."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["dicom", "prepare", "translate", "volume"],
    submod_attrs={
        "dicom": ["read_series", "write_series"],
        "prepare": ["prepare_slices"],
        "translate": ["find_scans", "read_volume", "translate_volume"],
        "volume": ["Volume", "axial", "read_nifti", "write_nifti"],
    },
)

"""Whole scans: NIfTI, MetaImage, NRRD and DICOM in and out, prepared, translated, scored."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "axial_slices": ["axial"],
        "dicom": ["read_series"],
        "dicom_write": ["write_series"],
        "error_maps": ["calibrate", "expected_error"],
        "itk": ["read_itk", "write_itk"],
        "nifti": ["read_nifti", "write_nifti"],
        "prepare": ["Preparation", "prepare_slices"],
        "scan_files": ["find_scans", "list_scans", "read_volume"],
        "translate": ["translate_volume"],
        "translation_page": ["write_translation_page"],
        "volume": ["Volume"],
    },
)

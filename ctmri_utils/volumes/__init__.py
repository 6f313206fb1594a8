"""Whole scans: NIfTI, MetaImage, NRRD and DICOM in and out, prepared, translated, scored."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "axial_slices",
        "commands",
        "dicom",
        "dicom_files",
        "dicom_geometry",
        "dicom_write",
        "error_maps",
        "evaluate",
        "evaluation_baselines",
        "evaluation_files",
        "head_checks",
        "input_checks",
        "itk",
        "nifti",
        "packages",
        "pairs",
        "prepare",
        "scan_files",
        "translate",
        "translation_files",
        "translation_page",
        "volume",
    ],
    submod_attrs={
        "axial_slices": ["axial"],
        "dicom": ["read_series"],
        "dicom_write": ["write_series"],
        "error_maps": ["calibrate", "expected_error"],
        "itk": ["read_itk", "write_itk"],
        "nifti": ["read_nifti", "write_nifti"],
        "prepare": ["prepare_slices"],
        "scan_files": ["find_scans", "list_scans", "read_volume"],
        "translate": ["translate_volume"],
        "translation_page": ["write_translation_page"],
        "volume": ["Volume"],
    },
)

"""Whole scans: NIfTI, MetaImage, NRRD and DICOM in and out, prepared, translated, scored."""

from ..lazy_names import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    submod_attrs={
        "axial_slices": ["axial"],
        "dicom": ["read_series"],
        "dicom_write": ["write_series"],
        "error_maps": ["calibrate", "expected_error"],
        "evaluation_files": ["EvaluationOptions", "evaluate_files", "evaluate_pairs"],
        "itk": ["read_itk", "write_itk"],
        "nifti": ["read_nifti", "write_nifti"],
        "prepare": ["Preparation", "prepare_slices"],
        "scan_files": ["find_scans", "list_scans", "read_volume", "write_volume"],
        "translate": ["TranslationOptions", "translate_files", "translate_volume"],
        "translation_page": ["write_translation_page"],
        "volume": ["Volume"],
    },
)

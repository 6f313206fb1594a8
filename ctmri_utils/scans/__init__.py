"""Everything that becomes `UnpairedScans`: embedded slices, phantom, Kaggle, any folder."""

from ..lazy_names import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    submodules=["kaggle", "phantom", "physics"],
    submod_attrs={
        "checks": ["Report", "check_folder"],
        "datasets": ["PHANTOM_OPTIONS", "load_scans", "default_phantom", "phantom_scans"],
        "folders": ["folder_scans"],
        "kaggle": ["download"],
        "phantom": ["SyntheticPatients", "synthetic_patients"],
        "physics": ["TISSUES"],
        "unpaired": ["Split", "Truth", "UnpairedScans"],
    },
)

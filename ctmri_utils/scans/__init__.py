"""Everything that becomes `UnpairedScans`: embedded slices, phantom, Kaggle, any folder."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["kaggle", "phantom", "physics"],
    submod_attrs={
        "checks": ["Report", "check_folder"],
        "datasets": ["SYNTHETIC", "load_scans", "phantom_dataset", "phantom_scans"],
        "folders": ["folder_scans"],
        "kaggle": ["download"],
        "phantom": ["SyntheticPatients", "synthetic_patients"],
        "physics": ["TISSUES"],
        "unpaired": ["Split", "Truth", "UnpairedScans"],
    },
)

"""Everything that becomes `UnpairedScans`: embedded slices, phantom, Kaggle, any folder."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["archives", "checks", "datasets", "kaggle", "phantom", "slices"],
    submod_attrs={
        "checks": ["check"],
        "datasets": ["Split", "UnpairedScans", "load_scans", "phantom_scans"],
        "kaggle": ["download"],
        "phantom": ["SyntheticPatients", "TISSUES", "synthetic_patients"],
    },
)

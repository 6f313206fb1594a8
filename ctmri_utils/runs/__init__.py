"""Trainings and what comes of them: train, weights, export, studies, pages."""

from ..lazy_names import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    submodules=["studies", "study_measures"],
    submod_attrs={
        "contract": ["Contract", "contract_for", "settings_for_scans", "sized_for"],
        "locations": ["checkpoint_file", "run_folder", "weights_file"],
        "page": ["run_page"],
        "reference": ["load_reference"],
        "start": ["start_from"],
        "weights": ["load_translator", "save_weights", "trained_translator"],
    },
)

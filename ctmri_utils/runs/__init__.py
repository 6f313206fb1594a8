"""Trainings and what comes of them: train, weights, export, studies, pages."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["studies"],
    submod_attrs={
        "contract": ["Contract", "contract_for", "settings_for_scans", "sized_for"],
        "page": ["run_page"],
        "reference": ["load_reference"],
        "start": ["start_from"],
        "weights": [
            "load_translator",
            "save_weights",
            "trained_translator",
            "weights_file",
        ],
    },
)

"""Trainings and what comes of them: train, weights, export, studies, pages."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "check",
        "commands",
        "export",
        "page",
        "recognise",
        "reference",
        "start",
        "studies",
        "study_measures",
        "study_statistics",
        "train",
        "weights",
    ],
    submod_attrs={
        "page": ["run_page"],
        "reference": ["load_reference"],
        "start": ["start_from"],
        "weights": [
            "load_translator",
            "load_weights",
            "save_weights",
            "trained_translator",
            "weights_file",
        ],
    },
)

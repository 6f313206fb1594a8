"""What a reader sees: figures, the progress of training, interactive viewers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["figures"],
    submod_attrs={
        "diagrams": ["diagram"],
        "playground_page": ["playground"],
        "progress": ["LiveProgress", "Progress"],
        "viewer": [
            "MARKS",
            "Viewer",
            "browse",
            "compare",
            "error_explorer",
            "training_strip",
            "window_level",
        ],
    },
)

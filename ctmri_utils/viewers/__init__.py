"""What a reader sees: figures, the progress of training, interactive viewers."""

from ..lazy_names import attach

__getattr__, __dir__, __all__ = attach(
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

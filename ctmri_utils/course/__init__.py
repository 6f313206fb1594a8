"""The lessons run by papermill, their site, and the classroom with nbgrader."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "classroom": ["grade", "release"],
        "lessons": ["run_course"],
        "site": ["build_site"],
    },
)

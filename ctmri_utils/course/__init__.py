"""The lessons run by papermill, their site, and the classroom with nbgrader."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "checking",
        "classroom",
        "commands",
        "gradebook",
        "lessons",
        "mending",
        "patient",
        "roster",
        "sandbox",
        "site",
        "submissions",
    ],
    submod_attrs={
        "checking": ["check_answer"],
        "classroom": ["grade", "release"],
        "lessons": ["run_course"],
        "patient": ["mira", "mira_volume"],
        "site": ["build_site"],
    },
)

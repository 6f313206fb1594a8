"""The classroom: assignments are released as zips, and what comes back is graded by nbgrader."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["learning_systems", "mending", "roster", "sandbox", "submissions"],
    submod_attrs={"grading": ["grade"], "releasing": ["release"]},
)

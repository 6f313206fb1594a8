"""The course as a site: a book of executed lessons, the pages around them, and the reference."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["build", "notebook_pages", "pages", "reference"],
    submod_attrs={"build": ["build_site", "check_sphinx"]},
)

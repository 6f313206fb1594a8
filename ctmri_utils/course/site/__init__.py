"""The course as a site: a book of executed lessons, the pages around them, and the reference."""

from ...lazy_names import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    submodules=["api_reference", "build", "notebook_pages", "sources"],
    submod_attrs={"build": ["build_site", "check_sphinx"]},
)

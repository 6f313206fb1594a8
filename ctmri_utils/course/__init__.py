"""The lessons run by papermill, their site, and the classroom with nbgrader.

The site: `build` fills a folder of sources and runs Sphinx on it with `sphinx_parts`. The sources
are listed in `sources`; lessons come from `notebook_pages`, and the reference from `api_reference`.
"""

from ..lazy_names import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    submod_attrs={
        "classroom": ["grade", "release"],
        "lessons": ["run_course"],
        "site": ["build_site"],
    },
)

"""The course as a site: Sphinx makes a book of the executed lessons and of the pages around them.

The site opens from a folder, without a server or a network. Nothing is executed while it is made.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from ..files import remove
from ..machine import CHECKOUT, build_folder
from .lessons import find_lessons, import_from_extra
from .pages import EXTRA, HOME, write_sources
from .template import repository

FOLDER = Path(__file__).parent
LOOKS = ("site.css", "site.js")

# Python names of Sphinx's settings: https://www.sphinx-doc.org/en/master/usage/configuration.html
SETTINGS = {
    "project": "CT and MR with CycleGAN",
    "html_title": "CT and MR with CycleGAN",
    "html_short_title": "Course",
    "author": "the ctmri-utils authors",
    "copyright": "",
    "root_doc": HOME,
    "language": "en",
    "extensions": [
        "myst_nb",
        "sphinx.ext.autodoc",
        "sphinx.ext.napoleon",
        "ctmri_utils.course.sphinx_parts",
    ],
    # Formulas are MathML, made now, so that no script and no font has to be loaded.
    "html_math_renderer": "mathml",
    "myst_enable_extensions": ["dollarmath", "deflist"],
    "myst_heading_anchors": 4,
    "nb_execution_mode": "off",
    "nb_ipywidgets_js": {},
    "nb_merge_streams": True,
    "nb_code_prompt_show": "Show the set-up",
    "nb_code_prompt_hide": "Hide the set-up",
    # A word in single backticks of a docstring is code.
    "default_role": "code",
    "autodoc_member_order": "bysource",
    "autodoc_typehints": "none",
    "autodoc_preserve_defaults": True,
    "napoleon_use_rtype": False,
    "add_module_names": False,
    "toc_object_entries_show_parents": "hide",
    "html_theme": "sphinx_book_theme",
    "html_static_path": [str(FOLDER / name) for name in LOOKS],
    "html_css_files": ["site.css"],
    "html_js_files": [("site.js", {"defer": "defer"})],
    "html_search_scorer": str(FOLDER / "search.js"),
    "html_context": {"default_mode": "auto"},
    "html_copy_source": False,
    "html_domain_indices": False,
    "html_use_index": False,
    "html_show_sphinx": False,
}


def build_site(build: Path | None = None, notebooks: Path | None = None) -> Path:
    """Make build/site from the lessons that `run_course` has executed.

    A lesson that was not executed is shown without its results, and says so.

    Args:
        build: where the executed copies lie; by default `build_folder()`.
        notebooks: the folder of the lessons; by default that of the checkout. Quiz, glossary and
            the cards of data and networks are taken from around it.

    Returns:
        The site's first page.

    Raises:
        FileNotFoundError: there are no lessons.
        ModuleNotFoundError: the extra `site` is not installed.
    """
    check_sphinx()
    build = Path(build or build_folder()).resolve()
    notebooks = Path(notebooks or (CHECKOUT or Path.cwd()) / "notebooks").resolve()
    lessons = find_lessons(notebooks)

    site = build / "site"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source")
        write_sources(source, lessons, build)
        made = Path(folder, "made", "site")
        run_sphinx(source, made, Path(folder, "doctrees"))
        remove(site)
        shutil.copytree(made, site)

    missing = [lesson.stem for lesson in lessons if not (build / lesson.name).is_file()]
    if missing:
        print(f"Without results, because not run in {build}: {', '.join(missing)}")
    return site / f"{HOME}.html"


def check_sphinx() -> None:
    """Raise ModuleNotFoundError unless the packages of the extra `site` are installed."""
    for name in ("sphinx", "myst_nb", "sphinx_book_theme", "latex2mathml"):
        import_from_extra(name, "site", "making the site")


def run_sphinx(source: Path, site: Path, doctrees: Path) -> None:
    """Make HTML of a folder of sources; Sphinx's warnings go to stderr."""
    application = import_from_extra("sphinx.application", "site", "making the site")
    address = repository()
    theme_options = {
        "repository_url": address,
        "use_repository_button": True,
        "use_download_button": False,
        "home_page_in_toc": True,
        "navbar_persistent": [],
        "show_navbar_depth": 2,
        "show_toc_level": 2,
        "logo": {"text": SETTINGS["project"]},
    }
    sphinx = application.Sphinx(
        source,
        None,
        site,
        doctrees,
        "html",
        {
            **SETTINGS,
            "html_theme_options": theme_options,
            "html_extra_path": [str(source / EXTRA)],
        },
        status=None,
        warning=sys.stderr,
        freshenv=True,
    )
    sphinx.build(force_all=True)

"""The course as a site: Sphinx makes a book of the executed lessons and of the pages around them.

The site opens from a folder, without a server or a network. Nothing is executed while it is made.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

from ...files import remove
from ...machine import CHECKOUT, build_folder, import_optional
from ..addresses import repository
from ..lessons.run import find_lessons
from .sources import EXTRA, HOME, write_sources

FOLDER = Path(__file__).parent


def build_site(build: Path | None = None) -> Path:
    """Make build/site from the lessons that `run_course` has executed.

    A lesson that was not executed is shown without its results, and says so.

    Args:
        build: where the executed copies lie; by default `build_folder()`. The lessons, and the
            pages around them, are those of the checkout.

    Returns:
        The site's first page.

    Raises:
        FileNotFoundError: there are no lessons.
        ModuleNotFoundError: the extra `site` is not installed.
    """
    check_sphinx()
    build = Path(build or build_folder()).resolve()
    lessons = find_lessons((CHECKOUT or Path.cwd()) / "notebooks")

    site = build / "site"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source")
        write_sources(source, lessons, build)
        new_site = Path(folder, "made", "site")
        run_sphinx(source, new_site, Path(folder, "doctrees"))
        remove(site)
        shutil.copytree(new_site, site)

    missing = [lesson.stem for lesson in lessons if not (build / lesson.name).is_file()]
    if missing:
        print(f"Without results, because not run in {build}: {', '.join(missing)}")
    return site / f"{HOME}.html"


def check_sphinx() -> None:
    """Raise ModuleNotFoundError unless the packages of the extra `site` are installed."""
    for name in ("sphinx", "myst_nb", "sphinx_book_theme", "latex2mathml"):
        import_optional(name, "site")


def run_sphinx(source: Path, site: Path, doctrees: Path) -> None:
    """Make HTML of a folder of sources; Sphinx's warnings go to stderr."""
    from sphinx.application import Sphinx

    settings = tomllib.loads((FOLDER / "sphinx.toml").read_text(encoding="utf-8"))
    settings["html_theme_options"]["repository_url"] = repository()
    settings["html_static_path"] = [str(FOLDER / "site.css"), str(FOLDER / "site.js")]
    settings["html_search_scorer"] = str(FOLDER / "search.js")
    settings["html_extra_path"] = [str(source / EXTRA)]

    warnings = sys.stderr
    sphinx = Sphinx(source, None, site, doctrees, "html", settings, None, warnings, freshenv=True)
    sphinx.build(force_all=True)

"""What the site is made of: lessons, quiz, glossary, cards and reference, as Sphinx reads them.

The folder of sources has the layout of the repository, so that links between pages hold.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat

from ...volumes.translation_page import write_translation_page
from ..addresses import open_links, repository
from .api_reference import write_reference
from .notebook_pages import fold_set_up, mark_sections, read_lesson, without_kernel

HOME = "index"

# The folder that is copied to the site as it is.
EXTRA = "extra"

QUIZ = "notebooks/QUIZ.md"
GLOSSARY = "notebooks/GLOSSARY.md"
GUIDE = "notebooks/assignments/README.md"

# The pages about the package: for its users, and for those who change it.
GUIDES = ("docs/your_scans.md", "docs/training.md", "docs/performance.md")
PROJECT = ("CONTRIBUTING.md", "CHANGELOG.md")

# The page that translates a reader's scan, the weights in it, and the page that leads to it.
TRANSLATOR = "_static/translate.html"
TRANSLATOR_WEIGHTS = "data/weights/heads.safetensors"
TRANSLATOR_PAGE = "translate.md"

# Blocks of code, and what is replaced in the text between them.
FENCED = re.compile(r"(^ *```.*?^ *```)", flags=re.M | re.S)
RELATIVE_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)(?=[)#])")
BADGE = re.compile(
    r"\[!\[Open In Colab\]\([^)]*\)\]\([^)]*/notebooks/(\w+)\.ipynb\)"
    r"( \[!\[Open in Kaggle\]\([^)]*\)\]\([^)]*\))?"
)
TERM_ROW = re.compile(r"^\| (.+?) \| (.+?) \| \[(\d+)\.(\d+)\]\(.+?\) \|$", flags=re.M)

HOME_WITHOUT_README = "# Lessons\n\nFor teaching, not for clinical use.\n"
TREE = "```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{pages}\n```\n"


def write_sources(source: Path, lessons: list[Path], build: Path) -> None:
    """Fill a folder with all that the site is made of.

    Args:
        source: an empty folder.
        lessons: the notebooks; their executed copies are taken where they exist.
        build: the folder in which the lessons ran.
    """
    root = lessons[0].parent.parent
    sections = {
        "Lessons": [f"notebooks/{lesson.name}" for lesson in lessons],
        "Try it": write_translator(root, source),
        "Check yourself": existing_pages(root, QUIZ, GLOSSARY),
        "Teaching": existing_pages(root, GUIDE),
        "Data and networks": cards(root),
        "The package": [
            *existing_pages(root, *GUIDES),
            *write_reference(source),
            *existing_pages(root, *PROJECT),
        ],
    }
    pages = {page for section in sections.values() for page in section}

    for lesson in lessons:
        write_lesson(lesson, build, source, pages)
    for page in pages:
        if page.endswith(".md") and (root / page).is_file():
            text = (root / page).read_text(encoding="utf-8")
            if page == GLOSSARY:
                text = glossary(text)
            write(source / page, site_links(text, root, page, source, pages))
    write_home(root, source, sections, pages)


def existing_pages(root: Path, *pages: str) -> list[str]:
    """Those of the pages that exist below a folder."""
    return [page for page in pages if (root / page).is_file()]


def cards(root: Path) -> list[str]:
    """The cards of data and networks below a folder, which begin with a title."""
    pages = []
    for path in root.glob("data/**/*.md"):
        page = path.relative_to(root)
        if page.parts[1] != "kaggle" and path.read_text(encoding="utf-8").startswith("# "):
            pages.append(page)

    # The card of a folder comes before the cards of files in it.
    pages.sort(key=lambda page: (page.parent, page.name != "README.md", page.name))
    return [page.as_posix() for page in pages]


def write_translator(root: Path, source: Path) -> list[str]:
    """Write the page that translates a reader's scan, if there are weights for it.

    Returns:
        The page that leads to it; none without weights.
    """
    weights = root / TRANSLATOR_WEIGHTS
    if not weights.is_file():
        return []
    page = source / EXTRA / TRANSLATOR
    page.parent.mkdir(parents=True)
    write_translation_page(weights, page)
    shutil.copy(Path(__file__).with_name(TRANSLATOR_PAGE), source)
    return [TRANSLATOR_PAGE]


def write(path: Path, text: str) -> None:
    """Write a text file, and the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_lesson(lesson: Path, build: Path, source: Path, pages: set[str]) -> None:
    """Write a lesson as the site shows it, and its pictures beside it."""
    notebook = read_lesson(lesson, build)
    figures = f"figures/{lesson.stem}"
    without_kernel(notebook, source / EXTRA / figures, f"../{figures}")
    fold_set_up(notebook)
    mark_sections(notebook)

    page = f"notebooks/{lesson.name}"
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = site_links(cell.source, lesson.parent.parent, page, source, pages)
    write(source / page, nbformat.writes(notebook))


def site_links(text: str, root: Path, page: str, source: Path, pages: set[str]) -> str:
    """Make links of a page lead somewhere.

    Badges become links without pictures. Pictures are copied to the sources. What is no page of the
    site is linked in the repository.

    Args:
        text: of the page.
        root: of the repository.
        page: its path in the repository, and so in the sources.
        source: the folder of the sources.
        pages: all pages of the site.
    """

    def badge_links(badge: re.Match) -> str:
        colab, kaggle = open_links(f"blob/main/notebooks/{badge[1]}.ipynb", repository())
        links = f"[Colab]({colab}) · [Kaggle]({kaggle})"

        # In the README's table, the column is called "open" already.
        line_start = badge.string.rfind("\n", 0, badge.start()) + 1
        in_table = badge.string.startswith("|", line_start)
        return links if in_table else f"Open in {links}"

    def resolved_link(link: re.Match) -> str:
        target = (root / page).parent.joinpath(link[1]).resolve()
        if not target.is_relative_to(root) or not target.exists():
            return link[1]

        path = target.relative_to(root).as_posix()
        if path in pages:
            return link[1]
        if target.suffix == ".png":
            copy = source / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(target, copy)
            return link[1]
        return f"{repository()}/blob/main/{path}"

    # Every second part is a block of code.
    parts = FENCED.split(text)
    for k in range(0, len(parts), 2):
        parts[k] = RELATIVE_LINK.sub(resolved_link, BADGE.sub(badge_links, parts[k]))
    return "".join(parts)


def glossary(text: str) -> str:
    """The table of terms as Sphinx's glossary, whose terms can be linked and found."""
    before = text[: text.index("| term |")]
    terms = [
        f"{term}\n  {meaning} ([{lesson}.{number}](#section-{lesson}-{number}))\n"
        for term, meaning, lesson, number in TERM_ROW.findall(text)
    ]
    return before + "```{glossary}\n" + "\n".join(terms) + "```\n"


def write_home(root: Path, source: Path, sections: dict[str, list[str]], pages: set[str]) -> None:
    """Write the first page: the README, and the contents of the site."""
    text = HOME_WITHOUT_README
    if (root / "README.md").is_file():
        text = (root / "README.md").read_text(encoding="utf-8")
        text = site_links(text, root, "README.md", source, pages)

    trees = [
        TREE.format(caption=caption, pages="\n".join(contents))
        for caption, contents in sections.items()
        if contents
    ]
    write(source / f"{HOME}.md", "\n".join([text, *trees]))

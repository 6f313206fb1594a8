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
from .notebook_pages import fold_set_up, mark_sections, read_lesson, without_kernel
from .reference import write_reference

HOME = "index"

# Copied to the site as it is.
EXTRA = "extra"

QUIZ = "notebooks/QUIZ.md"
GLOSSARY = "notebooks/GLOSSARY.md"
GUIDE = "notebooks/assignments/README.md"

# About the package: for its users, and for those who change it.
GUIDES = ("docs/your_scans.md", "docs/training.md", "docs/performance.md")
PROJECT = ("CONTRIBUTING.md", "CHANGELOG.md")

# The page that translates a reader's scan, the weights in it, and the page that leads to it.
OWN_SCAN = "translate.md"
OWN_SCAN_WEIGHTS = "data/weights/heads.safetensors"
OWN_SCAN_FILE = "_static/translate.html"

# In text that is not code.
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
        "Try it": write_own_scan(root, source),
        "Check yourself": present(root, QUIZ, GLOSSARY),
        "Teaching": present(root, GUIDE),
        "Data and networks": cards(root),
        "The package": present(root, *GUIDES) + write_reference(source) + present(root, *PROJECT),
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


def present(root: Path, *pages: str) -> list[str]:
    """Those of the pages that exist below a folder."""
    return [page for page in pages if (root / page).is_file()]


def cards(root: Path) -> list[str]:
    """The cards of data and networks below a folder, which begin with a title."""
    found = []
    for path in root.glob("data/**/*.md"):
        card = path.relative_to(root)
        if card.parts[1] != "kaggle" and path.read_text(encoding="utf-8").startswith("# "):
            found.append(card)

    # What is said of a folder comes before what is said of a file in it.
    found.sort(key=lambda card: (card.parent, card.name != "README.md", card.name))
    return [card.as_posix() for card in found]


def write_own_scan(root: Path, source: Path) -> list[str]:
    """Write the page that translates a reader's scan, if there are weights for it."""
    weights = root / OWN_SCAN_WEIGHTS
    if not weights.is_file():
        return []
    page = source / EXTRA / OWN_SCAN_FILE
    page.parent.mkdir(parents=True)
    write_translation_page(weights, page)
    shutil.copy(Path(__file__).with_name(OWN_SCAN), source)
    return [OWN_SCAN]


def write(path: Path, text: str) -> None:
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
    """

    def places(badge: re.Match) -> str:
        colab, kaggle = open_links(f"blob/main/notebooks/{badge[1]}.ipynb", repository())
        links = f"[Colab]({colab}) · [Kaggle]({kaggle})"

        # The column of a table is called "open" already.
        line_start = badge.string.rfind("\n", 0, badge.start()) + 1
        in_table = badge.string.startswith("|", line_start)
        return links if in_table else f"Open in {links}"

    def lead(link: re.Match) -> str:
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

    parts = FENCED.split(text)
    parts[::2] = [RELATIVE_LINK.sub(lead, BADGE.sub(places, part)) for part in parts[::2]]
    return "".join(parts)


def glossary(text: str) -> str:
    """The table of terms as Sphinx's glossary, whose terms can be linked and found."""
    before = text[: text.index("| term |")]
    terms = [
        f"{term}\n  {meaning} ([{lesson}.{number}](#section-{lesson}-{number}))\n"
        for term, meaning, lesson, number in TERM_ROW.findall(text)
    ]
    return before + "```{glossary}\n" + "\n".join(terms) + "```\n"


def write_home(root: Path, source: Path, sections: dict, pages: set[str]) -> None:
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

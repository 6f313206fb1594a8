"""The parts of the site, one by one; tests/browser/test_site.py looks at the whole."""

import ast
import html
import inspect
import io
import re
import sys
from base64 import b64encode
from types import SimpleNamespace

import nbformat
import nbformat.v4 as nb
import numpy as np
import pytest
from docutils import nodes
from PIL import Image

from ctmri_utils.__main__ import main
from ctmri_utils.course import lessons
from ctmri_utils.course import site as course_site
from ctmri_utils.course.addresses import repository
from ctmri_utils.course.lessons.records import write_record
from ctmri_utils.course.site import api_reference, notebook_pages, sources, sphinx_parts
from ctmri_utils.machine import CHECKOUT, hardware
from ctmri_utils.viewers.viewer import compare

ROOT = CHECKOUT
BADGE = (
    "[![Open In Colab](https://c/badge.svg)](https://c/blob/main/notebooks/01_a.ipynb) "
    "[![Open in Kaggle](https://k/badge.svg)](https://k/blob/main/notebooks/01_a.ipynb)"
)


@pytest.fixture
def linked(tmp_path):
    """The text of notebooks/page.md after `site_links`, in a small repository."""
    for path in ("notebooks/QUIZ.md", "data/p.png", "LICENSE", "data/scans/x.csv"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"")

    def links(text):
        known = {"notebooks/QUIZ.md"}
        return sources.site_links(text, tmp_path, "notebooks/page.md", tmp_path / "source", known)

    return links


def test_a_badge_becomes_links_without_a_picture(linked):
    text = linked(BADGE)
    assert text.startswith("Open in [Colab]")
    assert linked(f"| one |\n| {BADGE} |").startswith("| one |\n| [Colab]")
    place = "blob/main/notebooks/01_a.ipynb"
    owner = repository().removeprefix("https://github.com/")
    assert "badge.svg" not in text
    assert f"(https://colab.research.google.com/github/{owner}/{place})" in text
    assert f"(https://www.kaggle.com/kernels/welcome?src={repository()}/{place})" in text


def test_links_to_pages_stay_and_others_lead_to_the_repository(linked, tmp_path):
    assert linked("[q](QUIZ.md#one) [w](https://w) [h](#here)") == (
        "[q](QUIZ.md#one) [w](https://w) [h](#here)"
    )
    assert linked("[l](../LICENSE)") == f"[l]({repository()}/blob/main/LICENSE)"
    assert linked("[s](../data/scans)") == f"[s]({repository()}/blob/main/data/scans)"

    assert linked("![p](../data/p.png)") == "![p](../data/p.png)"
    assert (tmp_path / "source" / "data" / "p.png").is_file()


def test_code_is_left_alone(linked):
    code = "```python\nnames[0](../LICENSE)\n```\n"
    assert linked(code) == code


def test_the_glossary_s_rows_all_become_terms():
    text = (ROOT / "notebooks" / "GLOSSARY.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| .* \| \[(\d)\.(\d+)\]", text, flags=re.M)
    made = sources.glossary(text)
    assert re.findall(r"^(\S.*)\n  .* \(\[\d\.\d+\]\(#section-(\d)-(\d+)\)\)$", made, re.M) == rows
    assert "|" not in made


@pytest.mark.parametrize(
    "own, shown",
    [({}, "of the cell"), ({"alt": 'a "red" & green'}, "a &quot;red&quot; &amp; green")],
)
def test_a_picture_is_described_by_itself_or_by_its_cell(tmp_path, own, shown):
    buffer = io.BytesIO()
    Image.new("L", (30, 20)).save(buffer, "PNG")
    png = b64encode(buffer.getvalue()).decode()
    output = nb.new_output("display_data", {"image/png": png}, metadata={"image/png": own})
    cell = nb.new_code_cell(outputs=[output], metadata={"alt": "of the cell"})

    notebook_pages.without_kernel(nb.new_notebook(cells=[cell]), tmp_path, "figures")
    page = output.data["text/html"]
    assert f'alt="{shown}"' in page and 'width="30" height="20"' in page
    assert (tmp_path / "01.png").read_bytes() == buffer.getvalue()


def test_a_lesson_says_what_its_run_took_and_where(tmp_path):
    lesson = tmp_path / "01_tiny.ipynb"
    texts = ("# Tiny", "### Exercise 1: look (5 min)", "### Exercise 2: think (10 min, no code)")
    nbformat.write(nb.new_notebook(cells=list(map(nb.new_markdown_cell, texts))), lesson)
    copy = tmp_path / "build" / lesson.name
    copy.parent.mkdir()
    copy.write_bytes(lesson.read_bytes())
    assert notebook_pages.read_lesson(lesson, copy.parent).cells[1].source == ""

    write_record(copy, "state", "ci", 2.4, 1.26)
    note = notebook_pages.read_lesson(lesson, copy.parent).cells[1].source
    assert "in 2 min with `PROFILE=ci`" in note
    assert f"{hardware()}, 1.3 GB" in note and "about 15 min" in note

    copy.unlink()
    assert "was not run" in notebook_pages.read_lesson(lesson, copy.parent).cells[1].source


def test_a_widget_is_shown_as_it_was_last():
    widgets = {
        "box": {"state": {"children": ["IPY_MODEL_text", "IPY_MODEL_bar", "IPY_MODEL_slider"]}},
        "text": {"state": {"_model_name": "HTMLModel", "value": "6/6"}},
        "bar": {"state": {"_model_name": "FloatProgressModel", "value": 6, "max": 6}},
        "slider": {
            "state": {"_model_name": "IntSliderModel", "description": "<level>", "value": 40}
        },
    }
    shown = notebook_pages.widget_html("box", widgets, "<one>")
    assert "6/6" in shown and '<progress aria-label="progress" value="6" max="6">' in shown
    assert "&lt;level&gt; 40" in shown
    assert notebook_pages.widget_html("lost", {}, "") == "<span> </span>"


def test_live_viewers_become_pages_and_interact_becomes_a_picture():
    made = compare(np.zeros((4, 4)), np.zeros((4, 4)), alt="nothing at all")
    picture = {"data": {"image/png": "AAAA"}}
    buffers = [{"data": b64encode(made.data).decode(), "path": ["data"], "encoding": "base64"}]
    widgets = {
        "box": {"state": {"children": ["IPY_MODEL_output", "IPY_MODEL_viewer"]}},
        "output": {"state": {"_model_name": "OutputModel", "outputs": [picture, {}]}},
        "viewer": {"state": {"spec": made.spec}, "buffers": buffers},
    }
    shown = notebook_pages.widget_html("box", widgets, "<one>")
    assert '<img alt="&lt;one&gt;" src="data:image/png;base64,AAAA">' in shown
    assert made.section() in html.unescape(shown)


def test_cells_that_begin_with_imports_are_folded():
    cells = [nb.new_code_cell(source) for source in ("import os\nprint(1)", "figure = 1")]
    cells[0].metadata.tags = ["parameters"]
    notebook_pages.fold_set_up(nb.new_notebook(cells=[nb.new_markdown_cell("from here"), *cells]))
    assert [cell.metadata.get("tags", []) for cell in cells] == [["parameters", "hide-input"], []]


def test_sections_get_names_to_link_to():
    cell = SimpleNamespace(cell_type="markdown", source="text\n\n## 3.12 What\n\n### 3.1 no\n")
    notebook_pages.mark_sections(SimpleNamespace(cells=[cell]))
    assert cell.source == "text\n\n(section-3-12)=\n## 3.12 What\n\n### 3.1 no\n"


def words(text, terms):
    """A text with its links in brackets."""
    paragraph = nodes.paragraph("", text)
    pattern = re.compile(rf"\b({'|'.join(terms)})\b", flags=re.I)
    sphinx_parts.link_terms_of(paragraph[0], pattern, dict.fromkeys(terms, "x"), "GLOSSARY.html")
    marked = [
        f"[{node.astext()}]" if isinstance(node, nodes.reference) else node.astext()
        for node in paragraph
    ]
    return "".join(marked)


def test_a_word_is_linked_once_and_only_as_it_is_written():
    assert words("Drift, then drift.", ["drift"]) == "[Drift], then drift."
    assert words("Cut off by CUT", ["CUT"]) == "Cut off by [CUT]"
    assert words("drifting", ["drift"]) == "drifting"


def lesson_names(lesson):
    """What a lesson imports from the package, and takes out of the rooms that it imports."""
    cells = nbformat.read(lesson, as_version=4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    nodes = list(ast.walk(ast.parse(re.sub(r"^( *)[%!].*", r"\1pass", code, flags=re.M))))

    names = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "ctmri_utils":
            room = node.module.removeprefix("ctmri_utils").lstrip(".")
            names |= {f"{room}.{alias.name}".lstrip(".") for alias in node.names}

    rooms = names & set(api_reference.ROOMS)
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in rooms:
                names.add(f"{node.value.id}.{node.attr}")

    # Rooms are pages, and the plots and files of a lesson are its own.
    return {name for name in names - rooms if not re.match(r"teaching\.\w+_\d", name)}


def documented(name, entries):
    """Whether the reference has an entry for a name, or for the public module that it stands in."""
    if {name, name.split(".")[-1]} & entries:
        return True
    modules = [one for one in map(api_reference.resolve, entries) if inspect.ismodule(one)]
    public = {module.__name__: module for module in modules}
    module = public.get(getattr(api_reference.resolve(name), "__module__", None))
    return module is not None and name.split(".")[-1] in getattr(module, "__all__", dir(module))


@pytest.mark.parametrize(
    "lesson", lessons.find_lessons(ROOT / "notebooks"), ids=lambda one: one.stem
)
def test_the_reference_has_what_a_lesson_imports(lesson):
    entries = {name for names in api_reference.entries().values() for name in names}
    names = lesson_names(lesson)
    assert len(names) > 10

    # Of a room's modules only what is public is documented.
    used = {
        name
        for name in names
        if "." not in name or not inspect.ismodule(api_reference.resolve(name))
    }
    assert [name for name in sorted(used) if not documented(name, entries)] == []


def test_what_stands_in_no_public_module_has_no_entry():
    entries = {name for names in api_reference.entries().values() for name in names}
    assert documented("evaluation.ms_ssim", entries)
    assert not documented("files.atomic_write", entries)


def test_the_helpers_of_an_offered_module_have_no_entry():
    entries = {name for names in api_reference.entries().values() for name in names}
    assert documented("evaluation.metrics.nmae", entries)
    assert not documented("evaluation.metrics.halved", entries)


def test_a_reader_is_told_what_a_name_is():
    assert api_reference.directive("X", {"brain": 1}, [])[-1].strip().endswith("the keys 'brain'.")
    assert api_reference.directive("len", len, [])[0] == ".. autofunction:: ctmri_utils.len"
    assert api_reference.directive("io", io, ["f"])[::2] == [
        ".. automodule:: io",
        "   :exclude-members: f",
    ]


def test_a_folder_of_lessons_alone_has_a_first_page(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "write_reference", lambda source: [])
    lesson = tmp_path / "notebooks" / "01_tiny.ipynb"
    lesson.parent.mkdir()
    nbformat.write(nb.new_notebook(cells=[nb.new_markdown_cell("# Tiny")]), lesson)

    sources.write_sources(tmp_path / "source", [lesson], tmp_path / "build")
    home = (tmp_path / "source" / "index.md").read_text(encoding="utf-8")
    assert home.startswith("# Lessons") and "notebooks/01_tiny.ipynb" in home
    assert "Check yourself" not in home
    written = nbformat.read(tmp_path / "source" / "notebooks" / "01_tiny.ipynb", as_version=4)
    assert "was not run" in written.cells[1].source


def test_course_ends_with_the_site_and_site_makes_it_alone(tmp_path, monkeypatch, capsys):
    done = []
    monkeypatch.setattr(lessons, "run_course", lambda *_, **__: done.append("lessons") or [])
    monkeypatch.setattr(
        course_site, "build_site", lambda build: done.append("site") or build / "index.html"
    )
    assert main(["course", "--build", str(tmp_path)]) == 0
    assert done == ["lessons", "site"]
    assert f"Open {tmp_path / 'index.html'} in a browser" in capsys.readouterr().out

    assert main(["site", "--build", str(tmp_path)]) == 0
    assert done == ["lessons", "site", "site"]


def test_without_the_extra_the_course_does_not_start(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "myst_nb", None)
    monkeypatch.setattr(lessons, "run_course", lambda *_: pytest.fail("it started"))
    assert main(["course"]) == 1
    assert capsys.readouterr().err.strip() == (
        "ctmri course: this needs myst_nb: pip install 'ctmri-utils[site]'"
    )

"""The site in a real browser: from a folder, without a network, on wide screens and on phones."""

import base64
import contextlib
import html.parser
import io
import itertools
import re
from pathlib import Path
from urllib.parse import unquote, urlparse

import nbformat
import nbformat.v4 as nb
import numpy as np
import pytest
from axe_playwright_python.base import AXE_SCRIPT
from helpers.lab import check_it_is_live
from PIL import Image
from playwright.sync_api import expect

from ctmri_utils.course.site import build_site
from ctmri_utils.course.site import sources as site_sources
from ctmri_utils.viewers.viewer import compare

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
LESSONS = sorted(path.stem for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
RUN = LESSONS[0]
ALT = 'a "grey" square & more'
VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"

# Sphinx's extensions use what Sphinx will drop.
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")

# Faults that shut somebody out. Code is looked at on the first page only: it has a thousand spans.
FAULTS = """skip => axe.run({ exclude: skip }, { resultTypes: ["violations"], iframes: false })
  .then(async found => {
    // The other theme has other colours and the same text.
    const root = document.documentElement;
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    const colours = await axe.run({ exclude: skip },
      { runOnly: ["color-contrast"], resultTypes: ["violations"], iframes: false });
    return [...found.violations, ...colours.violations];
  })
  .then(violations => violations
    .filter(one => ["serious", "critical"].includes(one.impact))
    .map(one => one.id + " " + one.nodes[0].html))"""
TOO_WIDE = "document.documentElement.scrollWidth - innerWidth"


def outputs():
    """What lessons leave: a picture, a wide table, a long line, a progress bar, a viewer."""
    picture = io.BytesIO()
    Image.new("L", (1200, 300), 90).save(picture, "PNG")
    png = base64.b64encode(picture.getvalue()).decode()
    cells = "".join(f"<td>-1000.{i:02d} [-1, 1]</td>" for i in range(20))
    table = f'<table class="dataframe"><tr><th>MAE</th>{cells}</tr></table>'
    scans = np.random.default_rng(0).integers(-1000, 1500, (2, 24, 24))
    viewer = compare(scans, scans, alt="two scans")._repr_html_()
    return [
        nb.new_output("display_data", {"image/png": png}, metadata={"image/png": {"alt": ALT}}),
        nb.new_output("display_data", {"text/html": table}),
        nb.new_output("stream", text="long " * 60),
        nb.new_output("display_data", {"text/plain": "17% 1/6", VIEW: {"model_id": "bar"}}),
        nb.new_output("display_data", {"text/html": viewer}),
    ]


BAR = {
    "bar": {"state": {"children": ["IPY_MODEL_text"]}},
    "text": {"state": {"_model_name": "HTMLModel", "value": "6/6 steps"}},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site of all pages; of the lessons, the first one has results."""
    build = tmp_path_factory.mktemp("build")
    notebook = nbformat.read(NOTEBOOKS / f"{RUN}.ipynb", as_version=4)
    first_code = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first_code.outputs = outputs()
    notebook.metadata["widgets"] = {STATE: {"state": BAR}}
    nbformat.write(notebook, build / f"{RUN}.ipynb")

    # The page itself is looked at by test_translation_page.py.
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stderr(io.StringIO()) as warnings,
    ):
        patch.setattr(site_sources, "write_translation_page", lambda weights, page: page.touch())
        home = build_site(build)
    assert warnings.getvalue() == ""
    assert home == build / "site" / "index.html"
    return home.parent


@pytest.fixture
def phone(new_tab):
    tab = new_tab()
    tab.set_viewport_size({"width": 390, "height": 844})
    return tab


def pages(site):
    return [page for page in sorted(site.rglob("*.html")) if "_static" not in page.parts]


def address(site, page):
    return (site / page).as_uri()


class Links(html.parser.HTMLParser):
    """Collects the addresses that a page asks for or leads to, and the places in it."""

    def __init__(self, page):
        super().__init__()
        self.addresses, self.places = [], set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.places.add(attributes.get("id"))
        found = attributes.get("src") or (attributes.get("href") if tag != "base" else None)
        if found:
            self.addresses.append((tag, found))


def test_every_link_leads_somewhere_and_nothing_is_loaded_from_outside(site):
    links = {page: Links(page) for page in pages(site)}
    broken = []
    for page, found in links.items():
        for tag, link in found.addresses:
            parts = urlparse(link)
            if parts.scheme:
                if tag != "a" and parts.scheme != "data":
                    broken.append(link)
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            places = links[target].places if target in links else {unquote(parts.fragment)}
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in places):
                broken.append(f"{page.relative_to(site)}: {link}")
    assert broken == []


def test_every_page_is_there_and_reached_from_the_navigation(site):
    contents = Links(site / "index.html").addresses
    linked = {link for tag, link in contents if tag == "a"}
    expected = {page.relative_to(site).as_posix() for page in pages(site)}
    assert expected - linked == {"index.html", "search.html"}
    lessons = {f"notebooks/{name}.html" for name in LESSONS}
    assert lessons | {"notebooks/QUIZ.html", "notebooks/GLOSSARY.html"} < expected
    assert {"notebooks/assignments/README.html", "data/weights/README.html"} < expected
    assert "translate.html" in expected


@pytest.mark.timeout(1200)
def test_every_page_is_for_everybody_on_a_wide_screen_and_on_a_phone(site, new_tab):
    tab = new_tab()
    dark = new_tab(color_scheme="dark")
    dark.set_viewport_size({"width": 390, "height": 844})
    faults = {}
    for number, page in enumerate(pages(site)):
        light = number % 2 == 0
        # Half of the pages each: the same rules on both, and the colours of both everywhere.
        shown = tab if light else dark
        shown.goto(page.as_uri())
        shown.evaluate(AXE_SCRIPT)
        found = shown.evaluate(FAULTS, [] if page.name == "index.html" else [[".highlight"]])
        if not light and shown.evaluate(TOO_WIDE) > 0:
            found.append("wider than a phone")
        if found:
            faults[page.relative_to(site).as_posix()] = found
    assert faults == {}


def test_search_finds_a_word_of_a_lesson_and_of_the_reference(site, new_tab):
    tab = new_tab()
    for word, page in (("steganography", LESSONS[2]), ("trained_translator", "reference/runs")):
        tab.goto(address(site, "index.html"))
        tab.keyboard.press("Control+K")
        tab.keyboard.type(word)
        tab.keyboard.press("Enter")
        tab.locator(f"#search-results a[href*='{page}']").first.click()
        tab.wait_for_url(f"**/{page}.html*")
        assert word in tab.locator("main").inner_text()


def test_search_ranks_exact_names_then_lessons_then_the_rest(site, new_tab):
    tab = new_tab()
    found = tab.locator("#search-results li a:first-child")
    firsts = {}
    for words in ("loss", "metric", "MAE", "field of view", "browse"):
        tab.goto(f"{address(site, 'search.html')}?q={words}")
        expect(found.first).to_be_visible()
        firsts[words] = found.first.get_attribute("href").partition("#")[0]
    assert firsts.pop("field of view") == "notebooks/GLOSSARY.html"
    assert firsts.pop("browse") == "reference/viewers.html"

    # Modules and titles of other pages hold these words, too.
    assert all(re.match(r"notebooks/\d\d_", page) for page in firsts.values()), firsts


def test_previous_and_next_walk_through_the_lessons(site):
    for before, after in itertools.pairwise(LESSONS):
        following = (site / "notebooks" / f"{before}.html").read_text(encoding="utf-8")
        previous = (site / "notebooks" / f"{after}.html").read_text(encoding="utf-8")
        assert re.search(rf'class="right-next"\s+href="{after}.html"', following)
        assert re.search(rf'class="left-prev"\s+href="{before}.html"', previous)


@pytest.mark.parametrize("name", LESSONS)
def test_each_folded_solution_is_closed_and_holds_its_text(site, new_tab, name):
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    source = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    solutions = re.findall(r"</summary>(.*?)</details>", source, flags=re.S)

    tab = new_tab()
    tab.goto(address(site, f"notebooks/{name}.html"))
    folded = tab.locator("article details:not(.hide)")
    assert folded.count() == len(solutions) > 0
    for place, solution in enumerate(solutions):
        details = folded.nth(place)
        words = re.findall(r"[A-Za-z]{4,}", re.sub(r"```\w+|\$.*?\$", "", solution))
        assert details.locator("> :not(summary)").first.is_hidden()
        shown = details.evaluate("details => details.textContent")
        assert [word for word in words if word not in shown] == []


def test_what_lessons_leave_is_shown_without_a_kernel(site, phone):
    phone.goto(address(site, f"notebooks/{RUN}.html"))
    picture = phone.locator(".cell_output img")
    assert picture.get_attribute("alt") == ALT
    assert picture.evaluate("image => image.complete && image.naturalWidth") == 1200
    # A wide picture scrolls, it does not shrink to nothing.
    assert picture.bounding_box()["width"] > 500
    assert "6/6 steps" in phone.locator(".cell_output").first.inner_text()

    # Numbers are not broken, and long lines wrap.
    cell = phone.locator("table.dataframe td").first.bounding_box()
    assert cell["height"] < 40
    line = phone.locator(".cell_output pre", has_text="long long").first
    assert line.evaluate("pre => pre.scrollWidth <= pre.clientWidth && pre.clientHeight > 40")

    # As high as the viewer: nothing is cut off, and nothing is blank.
    check_it_is_live(phone.locator(".cell_output iframe"), ready_ms=20_000)
    frame = phone.frames[1]
    frame.evaluate(AXE_SCRIPT)
    assert frame.evaluate(FAULTS, []) == []


def test_code_can_be_hidden_and_stays_so_in_the_next_lesson(site, new_tab):
    tab = new_tab()
    lessons = sorted((site / "notebooks").glob("0*.html"))
    tab.goto(lessons[0].as_uri())
    code = tab.locator(".cell_input pre").last
    assert code.is_visible()
    tab.get_by_role("button", name="Hide the code").press("Enter")
    assert code.is_hidden()

    tab.goto(lessons[1].as_uri())
    assert tab.locator(".cell_input pre").last.is_hidden()
    tab.get_by_role("button", name="Show the code").click()
    assert tab.locator(".cell_input pre").last.is_visible()


def test_a_word_of_the_glossary_leads_to_its_meaning(site, new_tab):
    tab = new_tab()
    tab.goto(address(site, f"notebooks/{LESSONS[2]}.html"))
    tab.locator("a.term", has_text="image pool").first.click()
    meaning = tab.locator("dt:target + dd, dt:has(:target) + dd")
    assert "earlier translations" in meaning.inner_text()
    meaning.locator("a").click()
    assert f"{LESSONS[2]}.html" in tab.url
    assert tab.locator(":target h2, h2:target").first.inner_text().startswith("3.5")


def test_formulas_are_drawn_without_a_script(site, new_tab):
    tab = new_tab(java_script_enabled=False)
    tab.goto(address(site, f"notebooks/{LESSONS[3]}.html"))
    assert tab.locator("math").count() > 5
    assert tab.locator("math mfrac").first.bounding_box()["height"] > 20


def test_the_quiz_is_answered_by_keyboard(site, new_tab):
    tab = new_tab()
    tab.goto(address(site, "notebooks/QUIZ.html"))
    source = (NOTEBOOKS / "QUIZ.md").read_text(encoding="utf-8")
    rights = re.findall(r"\*\*([abc])\)\*\*", source)
    forms = tab.locator("form.quiz")
    assert forms.count() == len(rights) == source.count("<details>")

    for place in (0, len(rights) - 1):
        form, right = forms.nth(place), rights[place]
        group = form.get_by_role("group")
        assert len(tab.locator(f"#{group.get_attribute('aria-labelledby')}").inner_text()) > 20
        assert group.get_by_role("radio").count() == 3
        reply = form.get_by_role("status")
        assert reply.inner_text() == ""

        # Nothing chosen, so nothing is answered.
        form.get_by_role("button").focus()
        tab.keyboard.press("Enter")
        assert reply.inner_text() == ""

        form.get_by_role("radio").first.focus()
        tab.keyboard.press("Space")
        for letter in "abc":
            tab.keyboard.press("Enter")
            said = reply.inner_text()
            assert said.startswith("Right." if letter == right else f"Not {letter}).")
            assert f"{right})" in said
            tab.keyboard.press("ArrowDown")


def test_without_scripts_the_quiz_folds_its_answers(site, new_tab):
    tab = new_tab(java_script_enabled=False)
    tab.goto(address(site, "notebooks/QUIZ.html"))
    details = tab.locator("article details:not(.hide)").first
    assert details.locator("p").is_hidden()
    details.locator("summary").click()
    assert details.locator("p").is_visible()


def test_the_reference_has_every_public_name(site):
    stub = (ROOT / "ctmri_utils" / "__init__.pyi").read_text(encoding="utf-8")
    public = set(re.findall(r"^from \.\w\S* import (\w+)", stub, flags=re.M)) - {"main"}
    text = "".join(page.read_text(encoding="utf-8") for page in (site / "reference").glob("*"))
    described = re.findall(r'id="(?:module-)?ctmri_utils\.(?:\w+\.)*(\w+)"', text)
    assert public - set(described) == set()

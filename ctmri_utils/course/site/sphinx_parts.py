"""What the site adds to Sphinx: formulas as MathML, and words of the glossary as links."""

from __future__ import annotations

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

LESSON = re.compile(r"notebooks/(\d\d)_")
GLOSSARY = "notebooks/GLOSSARY"

# The most letters in a cell of a table that is kept on one line.
SHORT = 24

# Text in these nodes gets no links.
UNLINKED = (nodes.reference, nodes.title, nodes.literal, nodes.raw, nodes.literal_block)


def inline_formula(writer, node: nodes.math) -> None:
    """A formula in a line of text."""
    writer.body.append(convert(node.astext()))
    raise nodes.SkipNode


def block_formula(writer, node: nodes.math_block) -> None:
    """A formula between two paragraphs; a wide one scrolls, by the keyboard too."""
    formula = convert(node.astext(), display="block")
    writer.body.append(f'<div class="formula" tabindex="0">{formula}</div>')
    raise nodes.SkipNode


def link_terms(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Link each word of the glossary where a lesson uses it first, from its own lesson on."""
    lesson = LESSON.match(page)
    if not lesson or GLOSSARY not in app.env.all_docs:
        return

    address = app.builder.get_relative_uri(page, GLOSSARY)
    terms = glossary_terms(app.env.get_doctree(GLOSSARY), int(lesson[1]))
    longest_first = sorted(terms, key=len, reverse=True)
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, longest_first))})\b", flags=re.I)
    for text in list(doctree.findall(nodes.Text)):
        if not inside(text, UNLINKED):
            link_terms_of(text, pattern, terms, address)


def glossary_terms(doctree: nodes.document, lesson: int) -> dict[str, str]:
    """{term: its anchor} of the words that a lesson or an earlier one explains."""
    terms = {}
    for item in doctree.findall(nodes.definition_list_item):
        explained = re.search(r"\((\d+)\.\d+\)$", item.astext())
        term = item[0]
        if explained and int(explained[1]) <= lesson:
            terms[term.astext()] = term["ids"][0]
    return terms


def link_terms_of(text: nodes.Text, pattern: re.Pattern, terms: dict, address: str) -> None:
    """Replace a text by itself with links, and remove from `terms` what was linked."""
    parts: list[nodes.Node] = []
    end = 0
    for match in pattern.finditer(text):
        # "Cut off" is not CUT, but a sentence may begin with "Drift".
        word = match[0] if match[0] in terms else match[0][0].lower() + match[0][1:]
        anchor = terms.pop(word, None)
        if anchor is None:
            continue
        parts.append(nodes.Text(text[end : match.start()]))
        link = nodes.reference("", match[0], refuri=f"{address}#{anchor}", classes=["term"])
        parts.append(link)
        end = match.end()
    if parts:
        text.parent.replace(text, [*parts, nodes.Text(text[end:])])


def keep_short_cells_whole(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Mark the short cells of tables, such as numbers with their units, which are not wrapped."""
    for cell in doctree.findall(nodes.entry):
        if len(cell.astext()) <= SHORT:
            cell["classes"].append("short")


def inside(node: nodes.Node, kinds: tuple) -> bool:
    """Whether a node lies in one of the kinds."""
    while node.parent is not None:
        node = node.parent
        if isinstance(node, kinds):
            return True
    return False


def keep_bars(app: Sphinx, what: str, name: str, obj, options, lines: list[str]) -> None:
    """Escape bars: in a docstring |x| is an absolute value, not a substitution."""
    lines[:] = [line.replace("|", r"\|") for line in lines]


def setup(app: Sphinx) -> dict:
    """What Sphinx calls."""
    app.add_html_math_renderer("mathml", (inline_formula, None), (block_formula, None))
    app.connect("autodoc-process-docstring", keep_bars)
    app.connect("doctree-resolved", link_terms)
    app.connect("doctree-resolved", keep_short_cells_whole)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

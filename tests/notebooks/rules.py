"""The rules of the lessons: functions from a notebook to its breaches of one rule.

python tests/notebooks/rules.py notebooks/03_*.ipynb     list every breach
"""

from __future__ import annotations

import ast
import re
import statistics
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nbformat
from hosts import HERE
from hosts import ROOT as ROOT
from IPython.core.inputtransformer2 import TransformerManager

import ctmri_utils

LESSONS = (
    "01_meet_the_scans",
    "02_build_the_networks",
    "03_train_a_cyclegan",
    "04_evaluate_translations",
    "05_compare_real_and_translated",
    "06_how_it_fails",
    "07_better_than_cyclegan",
    "08_translate_a_volume",
)
DISCLAIMER = "not for clinical use"
ALT_LETTERS = 20
IMPORTS = 8
VISIBLE_LINES = 12


@dataclass
class Lesson:
    """A notebook with the views that the rules share."""

    name: str
    notebook: nbformat.NotebookNode

    @property
    def cells(self):
        return self.notebook.cells

    @property
    def number(self) -> str:
        return str(int(self.name[:2]))

    @cached_property
    def code(self):
        return [cell for cell in self.cells if cell.cell_type == "code"]

    @cached_property
    def trees(self) -> list[ast.Module]:
        """One syntax tree a code cell; %magics and !commands become calls of get_ipython()."""
        return [ast.parse(TransformerManager().transform_cell(cell.source)) for cell in self.code]

    @cached_property
    def sections(self) -> list[tuple[int, str, str]]:
        """(level, title, text below it) of every heading, in order.

        Headings in fenced code are not headings.
        """
        sections = []
        for cell in self.cells:
            if cell.cell_type != "markdown":
                continue
            fenced = False
            for line in cell.source.splitlines():
                if line.lstrip().startswith("```"):
                    fenced = not fenced
                heading = None if fenced else re.match(r"(#{1,6}) +(.*)", line)
                if heading:
                    sections.append([len(heading[1]), heading[2].strip(), ""])
                elif sections:
                    sections[-1][2] += line + "\n"
        return [tuple(section) for section in sections]

    def tagged(self, tag: str):
        return [cell for cell in self.cells if tag in cell.metadata.get("tags", [])]


def load(path: Path) -> Lesson:
    return Lesson(path.stem, nbformat.read(path, as_version=4))


def statements(tree: ast.Module) -> int:
    """Statements of a cell, those inside others too: lines would count the formatter's layout."""
    return sum(isinstance(node, ast.stmt) for node in ast.walk(tree))


def prose_words(markdown: str) -> int:
    """Words a reader reads: no fenced code, formulas, HTML tags, pictures or addresses."""
    for hidden in (
        r"```.*?```",
        r"\$\$.*?\$\$",
        r"\$[^$\n]*\$",
        r"!\[[^\]]*\]\([^)]*\)",
        r"\]\([^)]*\)",
        r"<[^>]*>",
        r"https?://\S+",
    ):
        markdown = re.sub(hidden, " ", markdown, flags=re.S)
    return len(re.findall(r"[^\W\d_][\w'’-]*", markdown))


def bullets(text: str) -> int:
    return len(re.findall(r"^[-*] ", text, flags=re.M))


def budget(lesson: Lesson):
    if not 25 <= len(lesson.cells) <= 80:
        yield f"{len(lesson.cells)} cells: keep to 25-80"
    sizes = sorted(map(statements, lesson.trees)) or [0]
    median, p90 = statistics.median(sizes), sizes[int(0.9 * (len(sizes) - 1))]
    if median > 8 or p90 > 20 or sizes[-1] > 40:
        yield (
            f"code cells have {median} statements (median), {p90} (90th percentile), "
            f"{sizes[-1]} (longest): keep to 8, 20, 40"
        )


def lines(lesson: Lesson):
    for cell, tree in zip(lesson.code[1:], lesson.trees[1:]):
        imported = set()
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                imported.update(range(node.lineno, node.end_lineno + 1))
        visible = [
            line
            for number, line in enumerate(cell.source.splitlines(), 1)
            if line.strip() and number not in imported
        ]
        if len(visible) > VISIBLE_LINES:
            yield (
                f"{len(visible)} lines in the cell `{visible[0].strip()}`: keep to "
                f"{VISIBLE_LINES}, imports and blank lines not counted"
            )


def prose(lesson: Lesson):
    markdown = (cell.source for cell in lesson.cells if cell.cell_type == "markdown")
    n_words = sum(map(prose_words, markdown))
    n_statements = sum(map(statements, lesson.trees)) or 1
    ratio = n_words / n_statements
    if not 4 <= ratio <= 16:
        yield f"{n_words} words to {n_statements} statements, {ratio:.1f} each: keep to 4-16"


def head(lesson: Lesson):
    first = lesson.cells[0]
    badges = HERE.badges(lesson.name)
    if first.cell_type != "markdown" or badges not in first.source:
        yield f"the first cell must hold the badges {badges}"
    titles = [title for level, title, _ in lesson.sections if level == 1]
    if len(titles) != 1 or not re.search(r"^# ", first.source, flags=re.M):
        yield f"{len(titles)} H1 headings: exactly one, in the first cell"
    if not any(DISCLAIMER in cell.source.lower() for cell in lesson.cells[:3]):
        yield f"none of the first three cells says {DISCLAIMER!r}"


def headings(lesson: Lesson):
    titles = [title for level, title, _ in lesson.sections if level == 2]
    for position, title in enumerate(titles, 1):
        if not title.startswith(f"{lesson.number}.{position} "):
            yield f"H2 {title!r}: number it {lesson.number}.{position}"
    if not titles or not titles[-1].endswith("What you learned"):
        yield "the last H2 must be 'What you learned'"


def goals(lesson: Lesson):
    beginning = [
        cell.source.partition("**Goals**")
        for cell in lesson.cells[:3]
        if cell.cell_type == "markdown"
    ]
    promised = sum(bullets(after) for _, mark, after in beginning if mark)
    kept = sum(
        bullets(text)
        for level, title, text in lesson.sections
        if level == 2 and title.endswith("What you learned")
    )
    if not promised or promised != kept:
        yield (
            f"{promised} bullets below **Goals** (in the first three cells) and {kept} below 'What "
            "you learned': the same list twice"
        )


def exercises(lesson: Lesson):
    headings = [(title, text) for level, title, text in lesson.sections if level == 3]
    exercises = [(title, text) for title, text in headings if title.startswith("Exercise ")]
    if not 3 <= len(exercises) <= 5:
        yield f"{len(exercises)} headings '### Exercise k': keep to 3-5"
    for position, (title, text) in enumerate(exercises, 1):
        if not re.match(rf"Exercise {position}\b", title):
            yield f"### {title}: number it {position}"
        if not re.search(r"<details>\s*<summary>.+?</summary>.+?</details>", text, flags=re.S):
            yield (
                f"### {title}: no solution in <details><summary>...</summary>...</details> before "
                "the next heading"
            )

    learned = False
    for level, title, _ in lesson.sections:
        learned = learned or (level == 2 and title.endswith("What you learned"))
        if learned and level <= 3 and title.startswith("Exercise "):
            yield f"### {title}: it belongs before 'What you learned'"


def install_cell(lesson: Lesson):
    setup = HERE.setup_cell()
    if not lesson.code or lesson.code[0].source.strip() != setup:
        yield f"the first code cell must be exactly:\n{setup}"


def parameters(lesson: Lesson):
    cells = lesson.tagged("parameters")
    if len(cells) != 1 or cells[0].cell_type != "code":
        yield f"{len(cells)} cells tagged 'parameters': exactly one, of code"
        return
    values = {}
    for statement in ast.parse(cells[0].source).body:
        try:
            # A statement that is no assignment has no targets.
            values[statement.targets[0].id] = ast.literal_eval(statement.value)
        except (AttributeError, ValueError):
            yield (
                f"`{ast.unparse(statement)}` in the parameters cell: only NAME = literal, derive "
                "the rest in the next cell"
            )
    missing = {"DATASET", "PROFILE", "SEED"} - set(values)
    if missing:
        yield f"the parameters cell lacks {', '.join(sorted(missing))}"
    elif values["PROFILE"] != "laptop":
        yield (
            f"PROFILE = {values['PROFILE']!r} was left in the parameters cell: commit it as "
            "'laptop'"
        )


def imports(lesson: Lesson):
    statements = [
        node
        for tree in lesson.trees[1:]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    external = [node for node in statements if "ctmri_utils" not in ast.unparse(node).split()[1]]
    if len(external) > IMPORTS:
        yield f"{len(external)} import statements of other packages: keep to {IMPORTS}"
    for node in statements:
        modules = [alias.name for alias in node.names]
        names = []
        if isinstance(node, ast.ImportFrom):
            modules, names = [node.module or ""], modules
        for module in modules:
            if module.startswith("ctmri_utils.") and not (names and module.count(".") == 1):
                yield f"`{ast.unparse(node)}`: import a module from its room"
            elif module.startswith("ctmri_utils.") and set(names) & set(ctmri_utils.__all__):
                yield f"`{ast.unparse(node)}`: import from the top, `from ctmri_utils import ...`"


def forbidden_code(lesson: Lesson):
    for position, (cell, tree) in enumerate(zip(lesson.code, lesson.trees)):
        sheltered, continued = in_catch_warnings(tree), continued_texts(tree)
        for node in ast.walk(tree):
            fault = None
            if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
                fault = "star import"
            elif isinstance(node, ast.ExceptHandler) and node.type is None:
                fault = "bare except"
            elif isinstance(node, ast.Call):
                fault = forbidden_call(node, first=position == 0, sheltered=node in sheltered)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                fault = forbidden_text(node.value, begins=node not in continued)
            if fault:
                yield f"{fault} in the cell `{cell.source.strip().splitlines()[0]}`"


def in_catch_warnings(tree: ast.Module) -> set[ast.AST]:
    """The nodes inside `with warnings.catch_warnings()`."""
    nodes = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.With) and "catch_warnings" in ast.unparse(node.items[0]):
            nodes.update(ast.walk(node))
    return nodes


def continued_texts(tree: ast.Module) -> set[ast.AST]:
    """The parts of f-strings behind the first part, which begin no path."""
    parts = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts.update(node.values[1:])
    return parts


def forbidden_call(node: ast.Call, first: bool, sheltered: bool) -> str | None:
    name = ast.unparse(node.func)
    magic = node.args[0].value if name.endswith("run_line_magic") else ""
    if name.startswith("get_ipython().") and name.endswith(("system", "getoutput")):
        return "shell command with !"
    if magic == "cd" or magic == "pip" and not first:
        return f"%{magic}"
    if name.endswith(("filterwarnings", "simplefilter")) and not sheltered:
        return "global warning filter"
    return "plt.show()" if name == "plt.show" else None


def forbidden_text(text: str, begins: bool) -> str | None:
    if begins and re.match(r"/[A-Za-z]|[A-Za-z]:[\\/]|~/", text):
        return f"absolute path {text!r}"
    if re.search(r"(^|/)\.\.(/|$)", text):
        return f"path upwards {text!r}"
    return f"fixed device {text!r}" if re.match(r"cuda:\d", text) else None


def figures(lesson: Lesson):
    for cell, tree in zip(lesson.code, lesson.trees):
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        shows = any(ast.unparse(call.func).split(".")[-1] == "show" for call in calls)
        if shows and len(cell.metadata.get("alt", "")) < ALT_LETTERS:
            yield (
                f"the cell `{cell.source.strip().splitlines()[0]}` shows a figure: say what is "
                f'seen, in {ALT_LETTERS} letters or more, in its metadata, as "alt"'
            )


def pictures(lesson: Lesson):
    for cell in lesson.cells:
        if cell.cell_type == "markdown":
            for picture in re.findall(r"!\[\s*\]\([^)]*\)", cell.source):
                yield f"{picture} has no alt text"
            for tag in re.findall(r"<img\b[^>]*>", cell.source):
                if not re.search(r"""\balt=["'][^"']*\w""", tag):
                    yield f"{tag} has no alt text"


def reproducible(lesson: Lesson):
    marked = [cell for cell in lesson.tagged("nbval-check-output") if cell.cell_type == "code"]
    if len(marked) < 5:
        yield f"{len(marked)} code cells tagged nbval-check-output: at least five"
    for tag in (
        "nbval-skip",
        "nbval-ignore-output",
        "nbval-raises-exception",
        "raises-exception",
        "skip-execution",
    ):
        if lesson.tagged(tag):
            yield f"tag {tag}: every cell of a lesson runs without an exception and is looked at"


def stripped(lesson: Lesson):
    if (
        any(cell.outputs or cell.execution_count for cell in lesson.code)
        or "widgets" in lesson.notebook.metadata
    ):
        yield "outputs, execution counts or widget states are stored: run nbstripout"
    kernel = lesson.notebook.metadata.get("kernelspec", {})
    if (kernel.get("name"), kernel.get("language")) != ("python3", "python"):
        yield f"kernelspec {dict(kernel)}: name it 'python3', of language 'python'"


RULES = (
    budget,
    lines,
    prose,
    head,
    headings,
    goals,
    exercises,
    install_cell,
    parameters,
    imports,
    forbidden_code,
    figures,
    pictures,
    reproducible,
    stripped,
)


def breaches(lesson: Lesson) -> list[str]:
    return [
        f"{lesson.name}: {rule.__name__}: {breach}" for rule in RULES for breach in rule(lesson)
    ]


if __name__ == "__main__":
    all_breaches = []
    for name in sys.argv[1:]:
        all_breaches += breaches(load(Path(name)))
    print("\n".join(all_breaches) or "no breach")
    sys.exit(bool(all_breaches))

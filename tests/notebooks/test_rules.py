"""The lessons keep the rules, and each rule bites on a small lesson that breaks it."""

import subprocess
import sys

import nbformat.v4 as nb
import pytest
import rules
from hosts import HERE

NOTEBOOKS = rules.ROOT / "notebooks"


def test_the_lessons_are_here():
    assert sorted(path.stem for path in NOTEBOOKS.glob("[0-9]*.ipynb")) == list(rules.LESSONS)


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", rules.LESSONS)
def test_lesson_keeps(name, rule):
    assert list(rule(rules.load(NOTEBOOKS / f"{name}.ipynb"))) == []


def lesson():
    """A lesson that keeps every rule; the tests below break one at a time."""

    def md(text):
        return nb.new_markdown_cell(text)

    def code(text, *tags):
        return nb.new_code_cell(text, metadata={"tags": list(tags)} if tags else {})

    def described(text, alt):
        return nb.new_code_cell(text, metadata={"alt": alt})

    solution = "<details><summary>Solution</summary>\n\n```python\n# level 40\n```\n</details>"
    cells = [
        md(
            f"{HERE.badges('07_tiny')}\n# A tiny lesson\nFor teaching, not for clinical use.\n\n"
            "**Goals**\n\n- count\n- look"
        ),
        code(HERE.setup_cell()),
        code('DATASET = "scans"  # or a folder\nPROFILE = "laptop"\nSEED = 0', "parameters"),
        md("## 7.1 Count\n" + "Counting goes on and on until all slices are counted. " * 5),
        *[code(f"print({number})", "nbval-check-output") for number in range(5)],
        described("figures.show(figures.montage(scans))", "a slice of the embedded CT scan"),
        *[md("A word.") for _ in range(14)],
        *[
            md(f"### Exercise {number} (5 min)\nTry the next window.\n{solution}")
            for number in (1, 2, 3)
        ],
        md("## 7.2 What you learned\n- counted\n- looked"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return rules.Lesson("07_tiny", nb.new_notebook(cells=cells, metadata={"kernelspec": kernel}))


def add_code(text, *tags):
    return lambda cells: cells.insert(-1, nb.new_code_cell(text, metadata={"tags": list(tags)}))


def add_text(text):
    return lambda cells: cells.insert(-1, nb.new_markdown_cell(text))


def swap(old, new):
    def change(cells):
        assert any(old in cell.source for cell in cells)
        for cell in cells:
            cell.source = cell.source.replace(old, new)

    return change


def untag(cells):
    cells[4].metadata.tags = []


def keep_output(cells):
    cells[4].outputs = [nb.new_output("stream", text="0\n")]


def two_parameter_cells(cells):
    cells[4].metadata.tags.append("parameters")


def exercise_at_the_end(cells):
    cells.append(cells.pop(-2))


BREAKS = [
    ("budget", lambda cells: cells.__delitem__(slice(10, 14))),
    ("budget", lambda cells: cells.extend(nb.new_markdown_cell("More.") for _ in range(60))),
    ("budget", add_code("pass\n" * 41)),
    ("budget", lambda cells: [add_code("pass\n" * 9)(cells) for _ in range(9)]),
    ("budget", lambda cells: [add_code("pass\n" * 21)(cells) for _ in range(2)]),
    ("prose", add_code("pass\n" * 20)),
    ("prose", add_text("word " * 300)),
    ("head", swap("notebooks/07_tiny", "notebooks/08_tiny")),
    ("head", add_text("# A second title")),
    ("head", swap("kernels/welcome", "code")),
    ("head", swap("# A tiny lesson", "A tiny lesson")),
    ("head", swap("not for clinical use", "enjoy")),
    ("headings", swap("## 7.1 Count", "## 6.1 Count")),
    ("headings", swap("## 7.2 What", "## 7.3 What")),
    ("headings", lambda cells: cells.append(nb.new_markdown_cell("## 7.3 More"))),
    ("goals", swap("\n- looked", "")),
    ("goals", swap("**Goals**", "Goals")),
    ("exercises", swap("### Exercise 3", "### Task 3")),
    ("exercises", swap("### Exercise 2", "### Exercise 4")),
    ("exercises", swap("</details>", "")),
    ("exercises", exercise_at_the_end),
    ("install_cell", swap("[course]", "")),
    ("install_cell", swap(' or "KAGGLE_KERNEL_RUN_TYPE" in os.environ', "")),
    ("install_cell", swap(HERE.address, "https://github.com/someone/else")),
    ("parameters", two_parameter_cells),
    ("parameters", swap("SEED = 0", "SEED = 2 * 3 * len(PROFILE)")),
    ("parameters", swap("\nSEED = 0", "")),
    ("parameters", swap('PROFILE = "laptop"', 'PROFILE = "ci"')),
    ("forbidden_code", add_code("!ls")),
    ("forbidden_code", add_code("files = !ls")),
    ("forbidden_code", add_code("%pip install torch")),
    ("forbidden_code", add_code("%cd data")),
    ("forbidden_code", add_code("from math import *")),
    ("forbidden_code", add_code("try:\n    pass\nexcept:\n    pass")),
    ("forbidden_code", add_code('import warnings\n\nwarnings.filterwarnings("ignore")')),
    ("forbidden_code", add_code('folder = "/content/scans"')),
    ("forbidden_code", add_code('folder = f"/content/{SEED}"')),
    ("forbidden_code", add_code('folder = "C:\\\\scans"')),
    ("forbidden_code", add_code('folder = "~/scans"')),
    ("forbidden_code", add_code('folder = "../data"')),
    ("forbidden_code", add_code('model.to("cuda:0")')),
    ("forbidden_code", add_code("plt.show()")),
    ("figures", add_code("figures.show(figures.montage(scans))")),
    ("figures", lambda cells: cells[9].metadata.update(alt="a slice")),
    ("lines", add_code("print(\n1,\n2,\n3,\n4,\n5,\n6,\n7,\n8,\n9,\n10,\n11,\n12)")),
    ("imports", add_code("from ctmri_utils.scans import load_scans")),
    ("imports", add_code("import ctmri_utils.units")),
    ("imports", add_code("from ctmri_utils.scans.physics import spgr_signal")),
    ("imports", add_code("import math\n" * 9)),
    ("pictures", add_text("![](slice.png)")),
    ("pictures", add_text('<img src="slice.png" alt="">')),
    ("reproducible", untag),
    ("reproducible", add_code("1 / 0", "raises-exception")),
    ("stripped", keep_output),
]


def test_the_tiny_lesson_keeps_every_rule():
    assert rules.breaches(lesson()) == []


def test_every_rule_is_broken_below():
    assert {name for name, _ in BREAKS} == {rule.__name__ for rule in rules.RULES}


@pytest.mark.parametrize(
    ("name", "change"),
    BREAKS,
    ids=[f"{name}-{position}" for position, (name, _) in enumerate(BREAKS)],
)
def test_rule_bites(name, change):
    broken = lesson()
    change(broken.cells)
    rule = next(rule for rule in rules.RULES if rule.__name__ == name)
    assert list(rule(broken)), f"{name} did not see it"


def test_the_kernel_must_be_the_reader_s_own():
    foreign = lesson()
    foreign.notebook.metadata.kernelspec.name = "ctmri"
    assert list(rules.stripped(foreign))


@pytest.mark.parametrize(
    "allowed",
    [
        'print(f"{SEED}/{SEED} done, about ~5 min, 3:/4, in {PROFILE}/runs")',
        'import warnings\n\nwith warnings.catch_warnings():\n    warnings.simplefilter("ignore")',
        "from ctmri_utils.teaching import plots_3 as plots",
        "from numpy import (\n    " + ",\n    ".join("abcdefghijklmn") + ",\n)",
    ],
)
def test_rules_let_honest_code_pass(allowed):
    kept = lesson()
    add_code(allowed)(kept.cells)
    assert [
        breach
        for rule in (rules.forbidden_code, rules.imports, rules.lines)
        for breach in rule(kept)
    ] == []


def test_a_heading_in_a_code_fence_is_not_a_heading():
    fenced = lesson()
    add_text("```\n# not a title\n## 9.9 nor a section\n```")(fenced.cells)
    assert rules.breaches(fenced) == []


def test_prose_counts_what_is_read():
    assert (
        rules.prose_words(
            "Two words. ```x = 1```\n$a b c$ ![alt text](a/b.png) [three more words](http://a.b/c) "
            "<img alt='no'> 42"
        )
        == 5
    )


def test_breaches_are_listed_on_the_command_line(tmp_path):
    broken = lesson()
    add_code("!ls")(broken.cells)
    path = tmp_path / "07_tiny.ipynb"
    rules.nbformat.write(broken.notebook, path)
    listing = subprocess.run(
        [sys.executable, rules.__file__, str(path)], capture_output=True, text=True
    )
    assert listing.returncode == 1
    assert (
        listing.stdout.strip() == "07_tiny: forbidden_code: shell command with ! in the cell `!ls`"
    )

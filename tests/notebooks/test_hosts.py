"""Badges, set-up cells and addresses follow the one setting, and the set-up cell knows its host."""

import re
import shutil
import sys
import types
from pathlib import Path

import hosts
import pytest
import rules
from hosts import HERE, PAGES, ROOT, Home
from IPython.core.inputtransformer2 import TransformerManager
from IPython.core.magics import OSMagics

from ctmri_utils.runs.locations import run_folder

FORK = "https://github.com/some-one/their.fork"
FILES = ("pyproject.toml", "CITATION.cff", *PAGES)


@pytest.fixture
def copy(tmp_path):
    """What names the address, in a folder of its own."""
    notebooks = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("notebooks/[0-9]*.ipynb")]
    sources = (ROOT / "notebooks/assignments/source").rglob("*.ipynb")
    notebooks += [path.relative_to(ROOT).as_posix() for path in sources]
    for name in [*notebooks, *FILES]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def texts(root):
    paths = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def set_version(root, version):
    path = root / "pyproject.toml"
    text = path.read_text(encoding="utf-8").replace(f'"{HERE.version}"', f'"{version}"')
    path.write_text(text, encoding="utf-8")


def test_all_addresses_are_right(copy):
    assert hosts.mend(copy) == []


def test_the_readme_has_the_badges_of_every_lesson():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(HERE.badges(name) in readme for name in rules.LESSONS)
    assert readme.count("Open In Colab") == readme.count("Open in Kaggle") == len(rules.LESSONS)


def test_one_command_moves_a_fork_and_it_moves_back(copy):
    before = texts(copy)
    hosts.move(FORK, copy)
    hosts.mend(copy)

    moved = texts(copy)
    assert [name for name, text in moved.items() if HERE.address in text] == []
    assert moved["README.md"].count(FORK) == before["README.md"].count(HERE.address)
    fork = Home(FORK, HERE.version)
    assert fork.site in moved["README.md"]
    assert [name for name, text in moved.items() if HERE.site in text] == []
    lesson = rules.load(copy / "notebooks" / "03_train_a_cyclegan.ipynb")
    assert fork.badges(lesson.name) in lesson.cells[0].source
    assert lesson.code[0].source == fork.setup_cell()
    assert f'repository-code: "{FORK}"' in moved["CITATION.cff"]

    hosts.move(HERE.address, copy)
    hosts.mend(copy)
    assert texts(copy) == before


def test_a_release_points_to_its_tag_and_main_to_main(copy):
    before = texts(copy)
    set_version(copy, "3.2.1")
    hosts.mend(copy)

    tagged = texts(copy)
    assert not [name for name in tagged if "blob/main/notebooks/0" in tagged[name]]
    lesson = rules.load(copy / "notebooks" / "01_meet_the_scans.ipynb")
    assert "/blob/v3.2.1/notebooks/01_meet_the_scans.ipynb" in lesson.cells[0].source
    assert lesson.code[0].source.endswith(f'@ git+{HERE.address}@v3.2.1"')
    assert 'version: "3.2.1"' in tagged["CITATION.cff"]

    text = (copy / "pyproject.toml").read_text(encoding="utf-8").replace("3.2.1", HERE.version)
    (copy / "pyproject.toml").write_text(text, encoding="utf-8")
    hosts.mend(copy)
    assert texts(copy) == before


def test_a_badge_of_another_lesson_is_mended(copy):
    path = copy / "notebooks" / "03_train_a_cyclegan.ipynb"
    right = path.read_text(encoding="utf-8")
    wrong = right.replace("notebooks/03_train_a_cyclegan.ipynb", "notebooks/01_old.ipynb")
    path.write_text(wrong, encoding="utf-8")
    assert hosts.mend(copy) == [path] and path.read_text(encoding="utf-8") == right


@pytest.mark.parametrize("address", ["fork", "https://gitlab.com/a/b", "https://github.com/a"])
def test_what_is_no_repository_is_refused(address, copy):
    with pytest.raises(ValueError, match="is no repository: write https://github.com/NAME/"):
        hosts.move(address, copy)


@pytest.mark.parametrize(
    ("module", "variable", "installs"),
    [
        (None, None, False),
        ("google.colab", None, True),
        (None, "KAGGLE_KERNEL_RUN_TYPE", True),
        (None, "KAGGLE_USERNAME", False),
    ],
)
def test_the_setup_cell_installs_on_colab_and_kaggle_alone(module, variable, installs, monkeypatch):
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    if module:
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    if variable:
        monkeypatch.setenv(variable, "Batch")

    magics = []
    shell = types.SimpleNamespace(run_line_magic=lambda *words: magics.append(words))
    cell = TransformerManager().transform_cell(HERE.setup_cell())
    exec(compile(cell, "cell", "exec"), {"get_ipython": lambda: shell})
    pip = ("pip", f'install -q "ctmri-utils[course] @ git+{HERE.installed_from}"')
    assert [(name, line) for name, line, *_ in magics] == ([pip] if installs else [])


def test_the_documented_cell_keeps_runs_on_drive(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    [cell] = re.findall(r"```python\n(from google\.colab import drive\n.+?)```", page, flags=re.S)
    colab = types.ModuleType("google.colab")
    mounted = []
    colab.drive = types.SimpleNamespace(mount=mounted.append)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setenv("CTMRI_BUILD", "")

    code = TransformerManager().transform_cell(cell.replace("/content/drive", str(tmp_path)))
    set_variable = OSMagics(shell=None).set_env
    shell = types.SimpleNamespace(run_line_magic=lambda name, line, **_: set_variable(line))
    exec(compile(code, "cell", "exec"), {"get_ipython": lambda: shell})
    assert mounted == [str(tmp_path)]
    assert run_folder("scans", "gpu", 1) == tmp_path / "MyDrive" / "ctmri" / "runs" / "scans-gpu-1"


def test_the_pages_with_an_address_exist():
    assert all(Path(ROOT / page).is_file() for page in PAGES)

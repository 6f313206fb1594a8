"""Imports go one way, and the public face loads only what is used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ctmri_utils

PACKAGE = Path(ctmri_utils.__file__).parent
PUBLIC = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
ROOMS = ("cyclegan", "scans", "evaluation", "viewers", "runs", "volumes", "teaching", "course")

# Each level may import from those before it, and from its own room; rooms of one level never meet.
LEVELS = [
    {"options", "files", "units", "windows", "masks"},
    {"settings", "lazy_names"},
    {"machine", "command_line"},
    {"seeds"},
    {"issue_report"},
    {"discovery"},
    {"patients"},
    {"cyclegan", "scans"},
    {"evaluation"},
    {"viewers"},
    {"runs"},
    {"volumes"},
    {"teaching"},
    {"course"},
    {"__main__"},
]


def level(room):
    return next(rank for rank, rooms in enumerate(LEVELS) if room in rooms)


def module_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports(source, module):
    """The modules below the package that a module's source imports, wherever in it."""
    modules = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = module.split(".")[: -node.level]
            parts = base + ([node.module] if node.module else [])
            # `from .. import machine` names the module itself.
            names = [parts] if parts else [[alias.name] for alias in node.names]
            modules += [".".join(name) for name in names]
        elif isinstance(node, ast.ImportFrom) and node.module == "ctmri_utils":
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ctmri_utils."):
            modules.append(node.module.removeprefix("ctmri_utils."))
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            modules += [
                n.removeprefix("ctmri_utils.") for n in names if n.startswith("ctmri_utils.")
            ]
    return modules


def breaches(source, module):
    room = module.split(".")[0]
    lines = []
    for imported in imports(source, module):
        source_room = imported.split(".")[0]
        if source_room != room and level(source_room) >= level(room):
            lines.append(f"{module} imports {imported}")
    return lines


def test_no_import_goes_up():
    modules = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    assert len(modules) > 120
    assert [
        breach
        for path in modules
        for breach in breaches(path.read_text(encoding="utf-8"), module_of(path))
    ] == []


@pytest.mark.parametrize(
    ("module", "source", "allowed"),
    [
        ("cyclegan.model", "from ..scans import Split", False),
        ("scans.slices", "def late():\n    from ..viewers import figures", False),
        ("evaluation.scores", "import ctmri_utils.runs.train", False),
        ("runs.train", "from ctmri_utils.course.lessons import run_course", False),
        ("files", "from ctmri_utils import machine", False),
        ("evaluation.scores", "from ..cyclegan import Translator", True),
        ("machine", "from . import files", True),
    ],
)
def test_the_rule_bites(module, source, allowed):
    assert (breaches(source, module) == []) == allowed


def test_a_file_of_the_package_has_at_most_400_lines():
    paths = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.mjs")]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert {module_of(path): n for path, n in lengths.items() if n > 400} == {}


def test_every_public_name_exists():
    names = [alias.asname for node in PUBLIC.body for alias in node.names]
    assert sorted(names) == sorted(ctmri_utils.__all__) and len(names) > 30
    assert all(getattr(ctmri_utils, name) is not None for name in names)


@pytest.mark.parametrize("module", [ctmri_utils, ctmri_utils.evaluation])
def test_an_unknown_name_is_suggested_a_known_one(module):
    wrong = "mae_hv"
    with pytest.raises(AttributeError, match=f"{module.__name__} has no {wrong}: did .* mae_hu"):
        getattr(module, wrong)


@pytest.mark.parametrize("room", ROOMS)
def test_every_name_of_a_room_exists(room):
    offered = getattr(ctmri_utils, room)
    assert offered.__doc__ and all(getattr(offered, name) is not None for name in offered.__all__)


def test_importing_the_package_loads_neither_torch_nor_numpy():
    """Quick is tested by what is not loaded; seconds would depend on the machine."""
    code = "import sys, ctmri_utils; print({'torch', 'numpy', 'scipy'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"

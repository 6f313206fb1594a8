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
    {"settings", "files", "units", "windows", "masks"},
    {"machine", "command_line"},
    {"seeds"},
    {"issue_report"},
    {"discovery"},
    {"people"},
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
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = module.split(".")[: -node.level]
            parts = base + ([node.module] if node.module else [])
            # `from .. import machine` names the module itself.
            names = [parts] if parts else [[alias.name] for alias in node.names]
            found += [".".join(name) for name in names]
        elif isinstance(node, ast.ImportFrom) and node.module == "ctmri_utils":
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ctmri_utils."):
            found.append(node.module.removeprefix("ctmri_utils."))
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found += [n.removeprefix("ctmri_utils.") for n in names if n.startswith("ctmri_utils.")]
    return found


def breaches(source, module):
    room = module.split(".")[0]
    wrong = []
    for other in imports(source, module):
        other_room = other.split(".")[0]
        if other_room != room and level(other_room) >= level(room):
            wrong.append(f"{module} imports {other}")
    return wrong


def test_no_import_goes_up():
    modules = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    assert len(modules) > 40
    assert [
        breach
        for path in modules
        for breach in breaches(path.read_text(encoding="utf-8"), module_of(path))
    ] == []


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("cyclegan.model", "from ..scans import Split", True),
        ("scans.slices", "from ..cyclegan.model import CycleGAN", True),
        ("scans.slices", "def late():\n    from ..viewers import figures", True),
        ("files", "from .machine import report", True),
        ("evaluation.scores", "import ctmri_utils.runs.train", True),
        ("runs.train", "from ctmri_utils.course.lessons import run_course", True),
        (
            "evaluation.scores",
            "from ..cyclegan import Translator\nfrom .metrics import ssim",
            False,
        ),
        ("machine", "from . import files", False),
        ("files", "from ctmri_utils import machine", True),
    ],
)
def test_the_rule_bites(module, source, wrong):
    assert bool(breaches(source, module)) == wrong


def test_every_public_name_is_there():
    names = [alias.asname for node in PUBLIC.body for alias in node.names]
    assert sorted(names) == sorted(ctmri_utils.__all__) and len(names) > 30
    assert all(getattr(ctmri_utils, name) is not None for name in names)


@pytest.mark.parametrize("room", ROOMS)
def test_every_name_of_a_room_is_there(room):
    offered = getattr(ctmri_utils, room)
    assert offered.__doc__ and all(getattr(offered, name) is not None for name in offered.__all__)


def test_importing_the_package_loads_neither_torch_nor_numpy():
    """Quick is tested by what is not loaded; seconds would depend on the machine."""
    code = "import sys, ctmri_utils; print({'torch', 'numpy', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

"""pyproject.toml, constraints.txt and environment.yml agree, and the package installs and imports
with what they list.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import torch
import torchvision
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
# What the lessons need.
LESSON_EXTRAS = {"course", "site"}
CORE = [
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "pandas",
    "scikit-image",
    "pillow",
    "safetensors",
    "lazy_loader",
    "filelock",
    "tyro",
]
HEAVY = [
    "nibabel",
    "pydicom",
    "kaggle",
    "matplotlib",
    "ipywidgets",
    "anywidget",
    "accelerate",
    "papermill",
    "nbconvert",
    "sphinx",
    "IPython",
    "tqdm",
    "onnx",
    "onnxscript",
    "nbgrader",
]
# torch itself pins its CUDA packages.
LEFT_TO_TORCH = re.compile(r"nvidia-|cuda-|triton$")


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def constraints():
    lines = [
        line.split("#")[0].strip()
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    ]
    return dict(line.split("==") for line in lines if line)


def direct_dependencies():
    return [Requirement(line) for line in [*PROJECT["dependencies"], *sum(EXTRAS.values(), [])]]


def test_core_is_small_and_has_no_upper_bounds():
    core = [Requirement(line) for line in PROJECT["dependencies"]]
    assert [requirement.name for requirement in core] == CORE
    limits = [limit for requirement in core for limit in requirement.specifier]
    assert [limit for limit in limits if limit.operator not in (">=", ">", "!=")] == []


def test_no_dependency_is_listed_twice():
    names = [canonical(requirement.name) for requirement in direct_dependencies()]
    conda = [canonical(re.split(r"[<>=]", line)[0]) for line in conda_packages()]
    assert sorted(names + conda) == sorted(set(names + conda))


def conda_environment():
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]


def conda_packages():
    return [line for line in conda_environment() if isinstance(line, str)]


def test_conda_users_get_the_same_environment():
    [python] = [line for line in conda_packages() if line.startswith("python")]
    assert (
        SpecifierSet(python.removeprefix("python"))
        == SpecifierSet(PROJECT["requires-python"])
        == SpecifierSet(">=3.11")
    )
    assert "pip" in conda_packages()
    [pip] = [line["pip"] for line in conda_environment() if isinstance(line, dict)]
    limits, package = pip
    assert limits.split() == ["-c", "constraints.txt"] and (ROOT / limits.split()[1]).is_file()
    flag, target = package.split()
    assert flag == "-e" and target.startswith(".[")
    assert set(target[2:-1].split(",")) == LESSON_EXTRAS


def make(*words):
    """What `make` would run, if nothing were up to date."""
    variables = ("AGAIN", "CPU", "DATASET", "PROFILE", "SEED", "MAKEFLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in variables}
    command = ["make", "--no-print-directory", "-n", "-W", "pyproject.toml", *words]
    run = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return run.stdout.splitlines()


@pytest.mark.parametrize(
    ("targets", "extras"),
    [
        (("install", "course", "site", "lab"), LESSON_EXTRAS),
        (("teach", "assignments", "grade"), LESSON_EXTRAS | {"classroom"}),
        (("develop", "test"), set(EXTRAS)),
    ],
)
def test_make_installs_what_is_needed_and_no_more(targets, extras):
    for target in targets:
        [line] = [line for line in make(target) if " pip install " in line]
        command = shlex.split(line)
        assert set(command[-1].removeprefix(".[").removesuffix("]").split(",")) == extras
        assert command[command.index("-c") + 1] == "constraints.txt"
        assert "download.pytorch.org" not in line
    assert "--extra-index-url https://download.pytorch.org/whl/cpu" in "".join(
        make("install", "CPU=1")
    )


def test_the_lessons_import_only_what_make_course_installs():
    declared = [*PROJECT["dependencies"], *EXTRAS["course"]]
    declared = {canonical(Requirement(line).name) for line in declared}
    distributions = metadata.packages_distributions()
    for path in sorted((ROOT / "notebooks").glob("0*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        for name in set(re.findall(r"^ *(?:from|import) (\w+)", code, flags=re.M)):
            if name not in sys.stdlib_module_names | {"ctmri_utils"}:
                assert {canonical(package) for package in distributions[name]} & declared, (
                    path.name,
                    name,
                )


def test_make_course_hands_on_what_it_is_given():
    def command(*words):
        return shlex.split(make("course", *words)[-1])[1:]

    start = ["-m", "ctmri_utils", "course", "--profile"]
    dataset_and_seed = ["-p", "DATASET", "my scans", "-p", "SEED", "1"]
    assert command() == [*start, "laptop"]
    assert command("DATASET=my scans", "PROFILE=ci", "SEED=1") == [*start, "ci", *dataset_and_seed]
    assert command("AGAIN=1") == [*start, "laptop", "--again"]


def requirements_of(package, extra):
    """What an installed package requires on Linux, macOS or Windows; [] if it is not installed."""
    here = default_environment()
    systems = [
        here,
        {**here, "sys_platform": "win32", "platform_system": "Windows", "os_name": "nt"},
        {**here, "sys_platform": "darwin", "platform_system": "Darwin"},
    ]
    try:
        requirements = map(Requirement, metadata.requires(package) or [])
    except metadata.PackageNotFoundError:
        # It is needed on another system only.
        return []
    return [
        requirement
        for requirement in requirements
        if not requirement.marker
        or any(requirement.marker.evaluate({**system, "extra": extra}) for system in systems)
    ]


def test_constraints_pin_the_whole_environment():
    """Everything that our requirements bring, on Linux, macOS and Windows, has one exact pin.

    Nothing else has.
    """
    queue, visited = direct_dependencies(), set()
    while queue:
        requirement = queue.pop()
        for extra in ("", *requirement.extras):
            if (canonical(requirement.name), extra) not in visited:
                visited.add((canonical(requirement.name), extra))
                queue += requirements_of(requirement.name, extra)
    needed = {name for name, _ in visited if not LEFT_TO_TORCH.match(name)}
    pinned = {canonical(name) for name in constraints()}
    assert needed - pinned == set()
    # Newer Pythons need a few packages less.
    if sys.version_info[:2] == (3, 11):
        assert pinned - needed == set()


@pytest.mark.parametrize("requirement", direct_dependencies(), ids=str)
def test_tested_version_is_the_pinned_one(requirement):
    pin = constraints()[canonical(requirement.name)]
    # torch without CUDA is "2.15.0+cpu".
    assert metadata.version(requirement.name).split("+")[0] == pin
    assert requirement.specifier.contains(pin)


def test_torch_and_torchvision_are_a_matching_pair():
    pins = constraints()
    wanted = [
        Requirement(line)
        for line in metadata.requires("torchvision")
        if Requirement(line).name == "torch"
    ]
    assert wanted and all(requirement.specifier.contains(pins["torch"]) for requirement in wanted)
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
    # A compiled operator is missing if the builds do not match.
    kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)
    assert kept.tolist() == [0, 2]


def modules():
    names = {path.stem for path in (ROOT / "ctmri_utils").glob("*.py")}
    names -= {"__init__", "__main__"}
    return ["ctmri_utils", *(f"ctmri_utils.{name}" for name in sorted(names))]


def run_python(program, folder=ROOT):
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=folder
    )


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_modules_beside_the_rooms_import_with_the_core_alone():
    block = f"import sys, importlib\nfor name in {HEAVY}: sys.modules[name] = None\n"
    run = run_python(block + f"for name in {modules()}: importlib.import_module(name)")
    assert run.returncode == 0, run.stderr


def test_import_brings_nothing_heavy_beyond_torch():
    program = (
        "import sys, torch\nbefore = set(sys.modules)\nimport ctmri_utils\n"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    run = run_python(program)
    assert run.returncode == 0, run.stderr
    brought = set(run.stdout.split())
    assert "ctmri_utils" in brought
    assert not brought & {*HEAVY, "torchvision", "scipy", "pandas", "skimage", "PIL"}


def test_a_wheel_carries_the_embedded_scans_and_weights(tmp_path):
    """Colab installs without a clone: scans and weights must come along, be found and be read."""
    source = tmp_path / "source"
    for name in ("ctmri_utils", "data"):
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("kaggle", "__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    target = tmp_path / "site"
    options = "-q --no-deps --no-build-isolation --no-index --target".split()
    install = [*pip, "install", *options, str(target), str(source)]
    subprocess.run(install, check=True, capture_output=True, text=True)
    for folder, name in {
        "scans": "manifest.csv",
        "weights": "ctmri-small-v1.safetensors",
        "studies": "remedies.csv",
    }.items():
        files = files_below(ROOT / "data" / folder)
        assert name in files
        assert files_below(target / "ctmri_utils" / "data" / folder) == files

    code = files_below(target / "ctmri_utils")
    assert {"__init__.pyi", "viewers/viewer.mjs", "viewers/viewer.css", "runs/studies.toml"} <= code
    assert {"viewers/playground.html", "volumes/browser/page.html"} <= code
    assert {"course/site/sphinx.toml", "course/site/translate.md", "course/lessons/run.py"} <= code
    assert "data/runtime/ort-wasm-simd-threaded.wasm.gz" in code
    jupyterlab = target / "share" / "jupyter" / "lab" / "settings" / "overrides.d"
    assert files_below(jupyterlab) == {"ctmri-utils.json"}

    location = run_python(
        f"import sys; sys.path.insert(0, {str(target)!r})\n"
        "from ctmri_utils.machine import data_folder; print(data_folder())",
        tmp_path,
    )
    assert Path(location.stdout.strip()) == target / "ctmri_utils" / "data", location.stderr
    extracted = run_python(
        f"import sys, torch; sys.path.insert(0, {str(target)!r})\n"
        "from ctmri_utils.evaluation import features as f; "
        "print(f.__file__, *f.features(-torch.ones(1, 1, 32, 32), f.SMALL).shape)",
        tmp_path,
    )
    assert extracted.stdout.split() == [
        str(target / "ctmri_utils/evaluation/features.py"),
        "1",
        "128",
    ], extracted.stderr

"""The assignments as an nbgrader course, and all that nbgrader is asked for through its API."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ...machine import CHECKOUT, ONE_THREAD, import_optional
from ..kernels import kernel_environment

if TYPE_CHECKING:
    from nbgrader.apps import NbGraderAPI


def open_course(root: Path | None = None) -> NbGraderAPI:
    """Open the course with the settings of notebooks/assignments/nbgrader_config.py.

    Args:
        root: where the gradebook and the folders release, submitted, autograded and feedback live;
            by default the course folder itself.

    Raises:
        FileNotFoundError: this is no checkout.
        ModuleNotFoundError: the extras are not installed.
    """
    if CHECKOUT is None:
        raise FileNotFoundError(
            "the assignments are not part of the installed package: run this from a clone of the "
            "repository"
        )
    apps = import_optional("nbgrader.apps", "course,classroom")
    from traitlets.config.loader import PyFileConfigLoader

    course = CHECKOUT / "notebooks" / "assignments"
    config = PyFileConfigLoader("nbgrader_config.py", str(course)).load_config()
    if root:
        config.CourseDirectory.root = str(Path(root).resolve())
        config.CourseDirectory.source_directory = str(course / "source")
    config.NbGrader.log_level = "CRITICAL"
    return apps.NbGraderAPI(config=config)


def generate(api: NbGraderAPI) -> dict[str, Path]:
    """Generate every student version, and enter it in the gradebook; {assignment: notebook}.

    Raises:
        ValueError: a source is not in order; with nbgrader's reason.
    """
    notebooks = {}
    for name in sorted(api.get_source_assignments()):
        with nbgrader_environment():
            result = api.generate_assignment(name, force=True, create=True)
        if not result["success"]:
            raise ValueError(f"{name} cannot be released: {first_error(result)}")
        notebooks[name] = step_folder(api, "release", ".", name) / f"{name}.ipynb"
    return notebooks


@contextmanager
def nbgrader_environment() -> Iterator[None]:
    """The environment of nbgrader and its kernels.

    They find the programs and the package of this Python, use one thread, and get a build folder
    that is thrown away.
    """
    from sqlalchemy.exc import SAWarning

    # The path is for nbgrader, which calls the program alembic.
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    with (
        tempfile.TemporaryDirectory() as scratch,
        kernel_environment(Path(scratch), PATH=programs, **ONE_THREAD),
        # nbgrader's own database causes these, and they are harmless.
        warnings.catch_warnings(action="ignore", category=SAWarning),
    ):
        yield


def step_folder(api: NbGraderAPI, step: str, student: str, name: str) -> Path:
    """Where nbgrader keeps one assignment in one of its steps, such as "submitted"."""
    directory = getattr(api.coursedir, f"{step}_directory")
    return Path(api.coursedir.format_path(directory, student, name))


def first_error(result: dict) -> str:
    """The first exception of nbgrader's log; the later ones only say that there was one."""
    log = result.get("log", "") + result["error"]
    match = re.search(r"^ *[\w.]*?(\w*(?:Error|Exception)\b.*)$", log, flags=re.M)
    return match[1] if match else log.strip().rpartition("\n")[2]

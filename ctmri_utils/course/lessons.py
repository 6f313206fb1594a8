"""Run the lessons in order, as a reader would."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..machine import CHECKOUT, PACKAGE, build_folder, environment_variables
from ..scans.datasets import NAMED
from ..settings import settings_for


class LessonFailed(ChildProcessError):
    """A lesson stopped; the message names the lesson, the cell and the file to read."""


@dataclass(frozen=True)
class ExecutedLesson:
    """One lesson that ran: its executed copy, and what it cost."""

    notebook: Path
    minutes: float
    peak_gb: float


def run_course(
    profile: str = "laptop",
    build: Path | None = None,
    lessons: list[int] | None = None,
    parameters: dict | None = None,
    notebooks: Path | None = None,
) -> list[ExecutedLesson]:
    """Execute the lessons in order, and keep the executed copies.

    Leaves build/NN_name.ipynb, of which `build_site` makes pages. Runs and checkpoints land in
    build/runs. Wrong arguments are refused before the first lesson starts.

    Args:
        profile: the lessons' PROFILE.
        build: by default `build_folder()`.
        lessons: their numbers; by default all.
        parameters: further papermill parameters, given to every lesson.
        notebooks: the folder of the lessons; by default that of the checkout.

    Raises:
        ValueError: an unknown profile, lesson or parameter.
        FileNotFoundError: there are no lessons.
        ModuleNotFoundError: the extra `course` is not installed.
        LessonFailed: a cell failed; the copy so far is kept.
    """
    settings_for(profile)
    build = Path(build or build_folder()).resolve()
    notebooks = Path(notebooks or (CHECKOUT or Path.cwd()) / "notebooks").resolve()
    parameters = {"PROFILE": profile, **(parameters or {})}
    files = find_lessons(notebooks, lessons)
    for file in files:
        check_parameters(file, parameters)

    build.mkdir(parents=True, exist_ok=True)
    executed = []
    for file in files:
        print(f"{file.stem} ...", flush=True)
        lesson = run_lesson(file, build, parameters)
        executed.append(lesson)
        cost = f"{lesson.minutes:.1f} min, at most {lesson.peak_gb:.1f} GB"
        print(f"{file.stem}: {cost}", flush=True)
    return executed


def find_lessons(notebooks: Path, numbers: list[int] | None = None) -> list[Path]:
    """The files NN_name.ipynb of a folder in order, or only those with the given numbers.

    Raises:
        FileNotFoundError: there are no lessons.
        ValueError: there is no lesson of some number.
    """
    files = sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))
    known = [int(file.name[:2]) for file in files]
    if not files:
        raise FileNotFoundError(
            f"{notebooks} holds no lessons (looked for NN_name.ipynb): run this from a clone of "
            "the repository"
        )
    if not numbers:
        return files

    for number in numbers:
        if number not in known:
            raise ValueError(
                f"there is no lesson {number} in {notebooks}: choose from "
                f"{', '.join(map(str, known))}"
            )
    return [file for number, file in zip(known, files) if number in numbers]


def check_parameters(lesson: Path, parameters: dict) -> None:
    """Raise ValueError unless the lesson has one `parameters` cell that knows every name.

    Papermill itself would only log it.
    """
    papermill = import_from_extra("papermill")
    cells = papermill.iorw.load_notebook_node(str(lesson)).cells
    tagged = sum("parameters" in cell.metadata.get("tags", []) for cell in cells)
    if tagged != 1:
        raise ValueError(f"{lesson.name} has {tagged} cells tagged 'parameters': tag exactly one")

    known = papermill.inspect_notebook(str(lesson))
    for name in parameters:
        if name not in known:
            raise ValueError(
                f"{lesson.name} has no parameter {name!r}: it knows {', '.join(sorted(known))}"
            )


def run_lesson(lesson: Path, build: Path, parameters: dict) -> ExecutedLesson:
    """Execute one lesson with this very Python as its kernel; see `run_course`."""
    papermill = import_from_extra("papermill")
    nbclient = import_from_extra("nbclient")
    target = build / lesson.name
    started = time.perf_counter()
    try:
        with kernel_environment(build), peak_memory_gb() as memory_gb:
            papermill.execute_notebook(
                str(lesson),
                str(target),
                parameters,
                kernel_name="python3",
                cwd=str(build),
                progress_bar=sys.stderr.isatty(),
                start_timeout=180,
                # Without this, the kernel reports on TCP and on its own shutdown.
                extra_arguments=["--IPKernelApp.log_level=50"],
            )
    except papermill.PapermillExecutionError as error:
        raise LessonFailed(failed_cell(lesson, target, error)) from error
    except nbclient.exceptions.DeadKernelError as error:
        raise LessonFailed(
            f"{lesson.stem} stopped because its kernel died, most often for want of memory "
            f"({target} shows all that ran)"
        ) from error

    minutes = (time.perf_counter() - started) / 60
    return ExecutedLesson(target, minutes, max(memory_gb))


def failed_cell(lesson: Path, target: Path, error) -> str:
    """One sentence on the cell that papermill says has failed."""
    first_line = error.source.strip().splitlines()[0]
    lines = error.evalue.strip().splitlines()
    message = lines[0] if lines else ""
    return (
        f"{lesson.stem} stopped in cell [{error.exec_count}] `{first_line}` with {error.ename}: "
        f"{message} ({target} shows all that ran)"
    )


def kernel_environment(build: Path, **more: str) -> AbstractContextManager[None]:
    """A context in which kernels find the build folder, this package, and the variables in `more`.

    Jupyter then takes the kernel of this Python environment, not one that the user installed
    elsewhere.
    """
    path = str(PACKAGE.parent)
    if os.environ.get("PYTHONPATH"):
        path = path + os.pathsep + os.environ["PYTHONPATH"]
    return environment_variables(
        CTMRI_BUILD=str(build),
        JUPYTER_PREFER_ENV_PATH="1",
        PYDEVD_DISABLE_FILE_VALIDATION="1",
        PYTHONPATH=path,
        **more,
    )


@contextmanager
def peak_memory_gb(every_s: float = 0.2) -> Iterator[list[float]]:
    """Sample the memory of all processes below this one until the block ends.

    Args:
        every_s: seconds between two samples.

    Yields:
        A list that fills with samples of their resident memory, in GB.
    """
    psutil = import_from_extra("psutil")
    this_process = psutil.Process()
    finished = threading.Event()
    samples = [0.0]

    def sample():
        while not finished.wait(every_s):
            total = 0
            for child in this_process.children(recursive=True):
                try:
                    total += child.memory_info().rss
                except psutil.Error:
                    # The child has ended in the meantime.
                    continue
            samples.append(total / 1e9)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        finished.set()
        thread.join()


def import_from_extra(name: str, extra: str = "course", purpose: str = "running the lessons"):
    """Import a package of an extra, or say how to get it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{purpose} needs {error.name}: pip install 'ctmri-utils[{extra}]'"
        ) from error


def dataset_parameter(dataset: str) -> str:
    """The lessons' DATASET: a name, or a folder's full path, as they run in the build folder."""
    if dataset in NAMED:
        return dataset
    if Path(dataset).is_dir():
        return str(Path(dataset).resolve())
    raise ValueError(
        f"DATASET={dataset!r} is neither {', '.join(NAMED)} nor a folder in {Path.cwd()}: "
        "choose one of these"
    )

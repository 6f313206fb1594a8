"""Run the lessons in order, as a reader would, and leave pages to look at."""

from __future__ import annotations

import copy
import html
import importlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..machine import CHECKOUT, PACKAGE, build_folder, environment_variables, report
from ..scans.datasets import NAMED
from ..settings import settings_for

WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class LessonFailed(ChildProcessError):
    """A lesson stopped; the message names the lesson, the cell and the file to read."""


@dataclass(frozen=True)
class ExecutedLesson:
    """One lesson that ran: its executed copy, its page, and what it cost."""

    notebook: Path
    page: Path
    title: str
    minutes: float
    peak_gb: float


def run_course(
    profile: str = "laptop",
    build: Path | None = None,
    lessons: list[int] | None = None,
    parameters: dict | None = None,
    notebooks: Path | None = None,
) -> list[ExecutedLesson]:
    """Execute the lessons in order, and render a page of each.

    Leaves build/NN_name.ipynb (executed), build/NN_name.html and build/index.html. Runs and
    checkpoints land in build/runs. Wrong arguments are refused before the first lesson starts.

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

    write_index(executed, build / "index.html", profile)
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
            notebook = papermill.execute_notebook(
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
    page = target.with_suffix(".html")
    write_lesson_page(notebook, page, images_from=lesson.parent)
    title = title_of(notebook) or lesson.stem
    return ExecutedLesson(target, page, title, minutes, max(memory_gb))


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


def write_lesson_page(notebook, page: Path, images_from: Path) -> None:
    """Render an executed notebook as one HTML file with its pictures and their alt texts inside.

    Viewers are put in as pages of their own, which need neither kernel nor network, instead of as
    widgets, which need both.

    Args:
        notebook: as papermill returns it; it is not changed.
        page: the file to write.
        images_from: the folder to which the notebook's links to pictures are relative.
    """
    notebook = copy.deepcopy(notebook)
    remove_viewer_widgets(notebook)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "text/html" in output.get("data", {}):
                output.data.pop(WIDGET_VIEW, None)
            add_alt_text(output)

    exporter = import_from_extra("nbconvert").HTMLExporter(embed_images=True)
    metadata = {"name": page.stem, "path": str(images_from)}
    body, _ = exporter.from_notebook_node(notebook, resources={"metadata": metadata})
    page.write_text(body, encoding="utf-8")


def remove_viewer_widgets(notebook) -> None:
    """Remove the states of our viewers from the metadata of a notebook."""
    states = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    for key, state in list(states.items()):
        if state["model_module"] == "anywidget":
            del states[key]


def add_alt_text(output) -> None:
    """Make an HTML image of a PNG with an alt text, which nbconvert's own template leaves out."""
    alt = output.get("metadata", {}).get("image/png", {}).get("alt")
    if alt and "image/png" in output.get("data", {}):
        png = output.data["image/png"].replace("\n", "")
        output.data = {
            "text/html": f'<img style="max-width: 100%" alt="{html.escape(alt)}" '
            f'src="data:image/png;base64,{png}">'
        }


def title_of(notebook) -> str | None:
    """The first H1 of a notebook, without its mark."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                if line.startswith("# "):
                    return line[2:].strip()
    return None


INDEX_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>CT &lt;-&gt; MR with CycleGAN</title>
<style>
  body {{ font: 1rem/1.5 sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }}
  th, td {{ text-align: left; padding: .3rem 1rem .3rem 0 }}
</style>
<h1>CT &lt;-&gt; MR with CycleGAN</h1>
<p>Profile {profile}, run {when} on {machine}. For teaching, not for clinical use.</p>
<table><tr><th>Lesson</th><th>Time</th><th>Peak memory</th></tr>
{rows}
</table></html>
"""
INDEX_ROW = (
    '<tr><td><a href="{page}">{title}</a></td><td>{minutes:.1f} min</td>'
    "<td>{peak_gb:.1f} GB</td></tr>"
)


def write_index(executed: list[ExecutedLesson], index: Path, profile: str) -> None:
    """One page that links the lessons just run, with what they cost on this machine."""
    rows = []
    for lesson in executed:
        row = INDEX_ROW.format(
            page=lesson.page.name,
            title=html.escape(lesson.title),
            minutes=lesson.minutes,
            peak_gb=lesson.peak_gb,
        )
        rows.append(row)

    page = INDEX_PAGE.format(
        profile=html.escape(profile),
        when=time.strftime("%Y-%m-%d %H:%M"),
        machine=html.escape(report()),
        rows="\n".join(rows),
    )
    index.write_text(page, encoding="utf-8")


def import_from_extra(name: str):
    """Import a package of the `course` extra, or say how to get it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"running the lessons needs {error.name}: pip install 'ctmri-utils[course]'"
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

"""Run the lessons in order, as a reader would, and leave pages to look at."""

from __future__ import annotations

import copy
import html
import os
import sys
import threading
import time
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..machine import CHECKOUT, PACKAGE, build_folder, environment_variables, report
from ..scans.datasets import NAMED
from ..settings import literal, settings_for


class LessonFailed(RuntimeError):
    """A lesson stopped; the message names the lesson, the cell and the file to read."""


@dataclass(frozen=True)
class Executed:
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
) -> list[Executed]:
    """Execute the lessons (all, or those numbered in `lessons`) with PROFILE=`profile`, in order,
    into `build`.

    Leaves build/NN_name.ipynb (executed), build/NN_name.html and build/index.html; runs and
    checkpoints land in build/runs. `parameters` are further papermill parameters, given to every
    lesson. Everything that can be known to be wrong is said before the first lesson starts:
    ValueError for an unknown profile, lesson or parameter, FileNotFoundError if there are no
    lessons, ModuleNotFoundError if the extra is missing. Raises LessonFailed, the executed copy so
    far being kept, if a cell fails.
    """
    settings_for(profile)
    build = Path(build or build_folder()).resolve()
    parameters = {"PROFILE": profile, **(parameters or {})}
    chosen = find_lessons(
        Path(notebooks or (CHECKOUT or Path.cwd()) / "notebooks").resolve(), lessons
    )
    for lesson in chosen:
        check_parameters(lesson, parameters)

    build.mkdir(parents=True, exist_ok=True)
    executed = []
    for lesson in chosen:
        print(f"{lesson.stem} ...", flush=True)
        executed.append(run_lesson(lesson, build, parameters))
        print(
            f"{lesson.stem}: {executed[-1].minutes:.1f} min, at most {executed[-1].peak_gb:.1f} GB",
            flush=True,
        )
    write_index(executed, build / "index.html", profile)
    return executed


def find_lessons(notebooks: Path, numbers: list[int] | None = None) -> list[Path]:
    """The files NN_name.ipynb of a folder in order, or only those with the given numbers."""
    found = [(int(path.name[:2]), path) for path in sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))]
    if not found:
        raise FileNotFoundError(
            f"{notebooks} holds no lessons (looked for NN_name.ipynb): run this from a clone of "
            "the repository"
        )
    for number in numbers or []:
        if number not in dict(found):
            raise ValueError(
                f"there is no lesson {number} in {notebooks}: choose from "
                f"{', '.join(str(known) for known, _ in found)}"
            )
    return [path for number, path in found if not numbers or number in numbers]


def check_parameters(lesson: Path, parameters: dict) -> None:
    """Raise ValueError unless the lesson has one `parameters` cell that knows every name.

    Papermill itself would only log it.
    """
    papermill = course_extra("papermill")
    tagged = sum(
        "parameters" in cell.metadata.get("tags", [])
        for cell in papermill.iorw.load_notebook_node(str(lesson)).cells
    )
    if tagged != 1:
        raise ValueError(f"{lesson.name} has {tagged} cells tagged 'parameters': tag exactly one")
    known = papermill.inspect_notebook(str(lesson))
    for name in parameters:
        if name not in known:
            raise ValueError(
                f"{lesson.name} has no parameter {name!r}: it knows {', '.join(sorted(known))}"
            )


def run_lesson(lesson: Path, build: Path, parameters: dict) -> Executed:
    """Execute one lesson with this very Python as its kernel; see `run_course`."""
    papermill, nbclient = course_extra("papermill"), course_extra("nbclient")
    target, started = build / lesson.name, time.perf_counter()
    try:
        with kernels_see(build), peak_memory_gb() as peak:
            notebook = papermill.execute_notebook(
                str(lesson),
                str(target),
                parameters,
                kernel_name="python3",
                cwd=str(build),
                progress_bar=sys.stderr.isatty(),
                # no word of TCP and of its own shutdown
                start_timeout=180,
                extra_arguments=["--IPKernelApp.log_level=50"],
            )
    except papermill.PapermillExecutionError as error:
        first, why = (
            error.source.strip().splitlines()[0],
            (error.evalue.strip().splitlines() or [""])[0],
        )
        raise LessonFailed(
            f"{lesson.stem} stopped in cell [{error.exec_count}] `{first}` with {error.ename}: "
            f"{why} ({target} shows all that ran)"
        ) from error
    except nbclient.exceptions.DeadKernelError as error:
        raise LessonFailed(
            f"{lesson.stem} stopped because its kernel died, most often for want of memory "
            f"({target} shows all that ran)"
        ) from error
    minutes = (time.perf_counter() - started) / 60
    page = target.with_suffix(".html")
    write_page(notebook, page, images_from=lesson.parent)
    return Executed(target, page, title_of(notebook) or lesson.stem, minutes, max(peak))


def kernels_see(build: Path, **more: str) -> AbstractContextManager[None]:
    """A context in which kernels find the build folder, this package, and the variables in `more`.

    Jupyter then takes the kernel of this Python environment, not one that the user installed
    elsewhere.
    """
    path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    return environment_variables(
        CTMRI_BUILD=str(build),
        JUPYTER_PREFER_ENV_PATH="1",
        PYDEVD_DISABLE_FILE_VALIDATION="1",
        PYTHONPATH=path,
        **more,
    )


@contextmanager
def peak_memory_gb(every_s: float = 0.2):
    """Yield a list that is filled with the resident memory, in GB, of all processes below this one,
    sampled until the block ends.
    """
    psutil = course_extra("psutil")
    this, over, samples = psutil.Process(), threading.Event(), [0.0]

    def sample():
        while not over.wait(every_s):
            total = 0
            for child in this.children(recursive=True):
                try:
                    total += child.memory_info().rss
                except psutil.Error:
                    # it ended in the meantime
                    continue
            samples.append(total / 1e9)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def write_page(notebook, page: Path, images_from: Path) -> None:
    """Render an executed notebook as one HTML file with its pictures inside, each with the alt text
    of its metadata, if it has one.

    Viewers are put in as pages of their own, which need neither kernel nor network, instead of as
    widgets, which need both.
    """
    notebook = copy.deepcopy(notebook)
    widgets = (
        notebook.metadata.get("widgets", {})
        .get("application/vnd.jupyter.widget-state+json", {})
        .get("state", {})
    )
    for viewer in [key for key, widget in widgets.items() if widget["model_module"] == "anywidget"]:
        del widgets[viewer]
    for output in (output for cell in notebook.cells for output in cell.get("outputs", [])):
        if "text/html" in output.get("data", {}):
            output.data.pop("application/vnd.jupyter.widget-view+json", None)
        alt = output.get("metadata", {}).get("image/png", {}).get("alt")
        # nbconvert's own template leaves the alt text out
        if alt and "image/png" in output.get("data", {}):
            png = output.data["image/png"].replace("\n", "")
            output.data = {
                "text/html": f'<img style="max-width: 100%" alt="{html.escape(alt)}" '
                f'src="data:image/png;base64,{png}">'
            }
    exporter = course_extra("nbconvert").HTMLExporter(embed_images=True)
    body, _ = exporter.from_notebook_node(
        notebook, resources={"metadata": {"name": page.stem, "path": str(images_from)}}
    )
    page.write_text(body, encoding="utf-8")


def title_of(notebook) -> str | None:
    """The first H1 of a notebook, without its mark."""
    lines = (
        line
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
    )
    return next((line[2:].strip() for line in lines if line.startswith("# ")), None)


INDEX = """<!doctype html>
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
ROW = (
    '<tr><td><a href="{page}">{title}</a></td><td>{minutes:.1f} min</td><td>{peak_gb:.1f} '
    "GB</td></tr>"
)


def write_index(executed: list[Executed], index: Path, profile: str) -> None:
    """One page that links the lessons just run, with what they cost on this machine."""
    rows = "\n".join(
        ROW.format(
            page=lesson.page.name,
            title=html.escape(lesson.title),
            minutes=lesson.minutes,
            peak_gb=lesson.peak_gb,
        )
        for lesson in executed
    )
    page = INDEX.format(
        profile=html.escape(profile),
        when=time.strftime("%Y-%m-%d %H:%M"),
        machine=html.escape(report()),
        rows=rows,
    )
    index.write_text(page, encoding="utf-8")


def course_extra(name: str):
    """Import a package of the `course` extra, or say how to get it."""
    try:
        return __import__(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"running the lessons needs {error.name}: pip install 'ctmri-utils[course]'"
        ) from error


def add_command(commands) -> None:
    """Add `course` to the sub-commands of `python -m ctmri_utils`."""
    parser = commands.add_parser("course", help="run the lessons and render their pages")
    parser.add_argument("--profile", default="laptop", help="ci, laptop (default) or gpu")
    parser.add_argument(
        "--build",
        type=Path,
        help="folder for executed copies, pages and runs (default: $CTMRI_BUILD, else build/)",
    )
    parser.add_argument(
        "--lessons", type=int, nargs="+", metavar="N", help="only these lessons (default: all)"
    )
    parser.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a further parameter for every lesson, such as -p SEED 1",
    )
    parser.set_defaults(run=command)


def command(options) -> None:
    """`python -m ctmri_utils course`."""
    parameters = {name: literal(value) for name, value in options.parameter}
    # the lessons run in the build folder: a path means this one
    if "DATASET" in parameters:
        dataset = parameters["DATASET"] = str(parameters["DATASET"])
        if dataset not in NAMED and Path(dataset).is_dir():
            parameters["DATASET"] = str(Path(dataset).resolve())
        elif dataset not in NAMED:
            raise ValueError(
                f"DATASET={dataset!r} is neither {', '.join(NAMED)} nor a folder in {Path.cwd()}: "
                "choose one of these"
            )
    executed = run_course(options.profile, options.build, options.lessons, parameters)
    minutes = sum(lesson.minutes for lesson in executed)
    print(
        f"{len(executed)} lessons in {minutes:.1f} min. Open "
        f"{executed[0].page.parent / 'index.html'} in a browser, or read and change the lessons "
        "with `make lab`."
    )

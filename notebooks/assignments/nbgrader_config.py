"""nbgrader's settings for this course.

They are read by `make assignments`, `make grade`, the `nbgrader` command and its
JupyterLab extension.
"""

import sys
import time
from pathlib import Path

from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbclient.util import run_sync
from nbconvert.preprocessors import ClearMetadataPreprocessor
from nbformat.v4 import new_output
from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    Execute,
    IgnorePattern,
    LimitOutput,
    SaveAutoGrades,
)
from traitlets import Int

CELL_SECONDS = 60
NOTEBOOK_SECONDS = 240
MEMORY_GB = 4


def kernel_lost_output(message):
    """The output of a cell that has no kernel."""
    traceback = [f"KernelLost: {message}"]
    return new_output("error", ename="KernelLost", evalue=message, traceback=traceback)


class ExecuteToTheEnd(Execute):
    """Executes a submission whatever it does.

    A cell that takes too long, or kills its kernel, loses points and nothing else.
    nbgrader's own class stops with an error if the kernel dies or cannot be
    interrupted, and then gives no grade at all.
    """

    notebook_seconds = Int(
        NOTEBOOK_SECONDS, help="Time for all cells of a notebook together"
    ).tag(config=True)

    def preprocess(self, nb, resources, km=None):
        self.kernel_error = None
        self.deadline = time.monotonic() + self.notebook_seconds
        self.timeout_func = self.seconds_for
        return super().preprocess(nb, resources, km)

    def seconds_for(self, cell):
        """The time for a cell: its own limit, or what the notebook has left."""
        seconds_left = int(self.deadline - time.monotonic())
        return max(1, min(self.timeout, seconds_left))

    async def async_execute_cell(self, cell, cell_index, **options):
        if self.kernel_error is None:
            try:
                return await super().async_execute_cell(cell, cell_index, **options)
            except DeadKernelError:
                self.kernel_error = "the kernel died in this cell"
            except CellTimeoutError:
                self.kernel_error = "this cell could not be stopped"

        # A cell without an error would earn full marks.
        if cell.cell_type == "code":
            cell.outputs = [kernel_lost_output(self.kernel_error)]
            self.kernel_error = "not run, because an earlier cell lost the kernel"
        return cell

    execute_cell = run_sync(async_execute_cell)


c = get_config()  # noqa: F821, given by traitlets
c.CourseDirectory.course_id = "ctmri"
c.CourseDirectory.root = str(Path(__file__).resolve().parent)

# nbgrader's own list, but for the first step.
c.Autograde.autograde_preprocessors = [
    ExecuteToTheEnd,
    IgnorePattern,
    ClearMetadataPreprocessor,
    LimitOutput,
    SaveAutoGrades,
    AssignLatePenalties,
    CheckCellMetadata,
]
c.ExecuteToTheEnd.timeout = CELL_SECONDS
c.ExecuteToTheEnd.extra_arguments = ["--IPKernelApp.log_level=50"]

# Other systems do not keep the limit, or have none.
if sys.platform == "linux":
    most_bytes = MEMORY_GB << 30
    set_limit = (
        "import resource; "
        f"resource.setrlimit(resource.RLIMIT_DATA, ({most_bytes}, {most_bytes})); "
        "del resource"
    )
    c.ExecuteToTheEnd.extra_arguments += [f"--IPKernelApp.exec_lines={set_limit}"]

# nbgrader counts any text on stderr as a failed test, even a warning.
c.IgnorePattern.enabled = True
c.IgnorePattern.pattern = "Warning"

"""nbgrader's settings for this course.

Read by `make assignments`, `make grade`, the `nbgrader` command and its JupyterLab
extension.
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

CELL_SECONDS, NOTEBOOK_SECONDS, MEMORY_GB = 60, 240, 4


class ExecuteToTheEnd(Execute):
    """Executes a submission whatever it does.

    A cell that takes too long, or kills its kernel, loses points and nothing else.

    nbgrader's own stops with an error if the kernel dies or cannot be interrupted, and
    then has no grade at all.
    """

    notebook_seconds = Int(
        NOTEBOOK_SECONDS, help="Time for all cells of a notebook together"
    ).tag(config=True)

    def preprocess(self, nb, resources, km=None):
        self.lost, self.deadline = None, time.monotonic() + self.notebook_seconds
        self.timeout_func = lambda cell: max(
            1, min(self.timeout, int(self.deadline - time.monotonic()))
        )
        return super().preprocess(nb, resources, km)

    async def async_execute_cell(self, cell, cell_index, **options):
        if not self.lost:
            try:
                return await super().async_execute_cell(cell, cell_index, **options)
            except DeadKernelError:
                self.lost = "the kernel died in this cell"
            except CellTimeoutError:
                self.lost = "this cell could not be stopped"
        # a cell without an error would earn full marks
        if cell.cell_type == "code":
            cell.outputs = [
                new_output(
                    "error",
                    ename="KernelLost",
                    evalue=self.lost,
                    traceback=[f"KernelLost: {self.lost}"],
                )
            ]
            self.lost = "not run, because an earlier cell lost the kernel"
        return cell

    execute_cell = run_sync(async_execute_cell)


c = get_config()  # noqa: F821, given by traitlets
c.CourseDirectory.course_id = "ctmri"
c.CourseDirectory.root = str(Path(__file__).resolve().parent)

# nbgrader's list, with our first step
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
# elsewhere the limit is not kept, or there is none
if sys.platform == "linux":
    most = MEMORY_GB << 30
    limit = (
        "import resource; "
        f"resource.setrlimit(resource.RLIMIT_DATA, ({most}, {most})); "
        "del resource"
    )
    c.ExecuteToTheEnd.extra_arguments += [f"--IPKernelApp.exec_lines={limit}"]

# nbgrader counts any text on stderr as a failed test, even a warning.
c.IgnorePattern.enabled = True
c.IgnorePattern.pattern = "Warning"

"""How nbgrader executes a submission: in a sandbox, to the end, whatever the submission does."""

from __future__ import annotations

import time

from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbclient.util import run_sync
from nbformat.v4 import new_output
from nbgrader.preprocessors import Execute
from traitlets import Bool, Int

from .notebook_files import grade_id
from .sandbox import working_sandbox
from .sandbox_kernel import SandboxedKernelManager

CUT = "[more output was cut off here]\n"


class ExecuteToTheEnd(Execute):
    """Executes a submission whatever it does.

    A cell that takes too long, or kills its kernel, loses points and nothing else. nbgrader's own
    class stops with an error if the kernel dies or cannot be interrupted, and then gives no grade
    at all.
    """

    notebook_seconds = Int(240, help="Time for all cells of a notebook together").tag(config=True)
    output_mb = Int(20, help="Output of a notebook that is kept; five times as much ends it").tag(
        config=True
    )
    unsafe = Bool(False, help="Execute with all rights of this account, without a sandbox").tag(
        config=True
    )

    def preprocess(self, nb, resources, km=None):
        if self.unsafe:
            self.kernel_manager_class = AsyncKernelManager
        else:
            working_sandbox()
            self.kernel_manager_class = SandboxedKernelManager
            self.shutdown_kernel = "immediate"

        self.kernel_error = None
        self.output_bytes = 0
        self.deadline = time.monotonic() + self.notebook_seconds
        self.timeout_func = self.seconds_for
        return super().preprocess(nb, resources, km)

    def seconds_for(self, cell):
        """The time for a cell: its own limit, or what the notebook has left."""
        seconds_left = int(self.deadline - time.monotonic())
        return max(1, min(self.timeout, seconds_left))

    async def async_execute_cell(self, cell, cell_index, **options):
        # The checks that students run themselves cost time, and earn nothing.
        if grade_id(cell).startswith("check_"):
            return cell

        if self.kernel_error is None:
            try:
                return await super().async_execute_cell(cell, cell_index, **options)
            except DeadKernelError:
                self.kernel_error = self.kill_reason() or "the kernel died in this cell"
            except CellTimeoutError:
                self.kernel_error = "this cell could not be stopped"
            except Exception as error:
                # A kernel that is under attack may send anything at all.
                self.kernel_error = (
                    f"the kernel sent an unreadable message ({type(error).__name__})"
                )

        # A cell without an error would earn full marks.
        if cell.cell_type == "code":
            lost = {"ename": "KernelLost", "evalue": self.kernel_error}
            traceback = [f"KernelLost: {self.kernel_error}"]
            cell.outputs = [new_output("error", traceback=traceback, **lost)]
            self.kernel_error = "not run, because an earlier cell lost the kernel"
        return cell

    execute_cell = run_sync(async_execute_cell)

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] == "status":
            return super().process_message(msg, cell, cell_index)

        bytes_before = self.output_bytes
        self.output_bytes += len(str(msg["content"]))
        limit = self.output_mb << 20
        if self.output_bytes <= limit:
            return super().process_message(msg, cell, cell_index)

        if bytes_before <= limit:
            cell.outputs.append(new_output("stream", name="stdout", text=CUT))
        if self.output_bytes > 5 * limit and not self.unsafe and self.km.watch:
            self.km.watch.kill(f"it printed more than {5 * self.output_mb} MB")
        return None

    def kill_reason(self) -> str | None:
        """Why the sandbox was ended from outside; None if it was not."""
        watch = getattr(self.km, "watch", None)
        return f"stopped, because {watch.reason}" if watch and watch.reason else None

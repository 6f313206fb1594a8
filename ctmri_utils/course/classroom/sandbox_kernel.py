"""A Jupyter kernel in the sandbox, watched from outside and not believed without limits."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import zmq.asyncio
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager
from traitlets import Instance

from ..kernels import memory_of_children
from .sandbox import Limits, environment, sandboxed, shared_folder, working_sandbox

# A larger message ends the connection, and so many wait at most: together they fit into memory.
MESSAGE_MB = 50
WAITING_MESSAGES = 20

# All processes of a notebook together may take so many times the memory of one, and must leave so
# much of the machine's.
MEMORY_FACTOR = 1.125
LEAST_FREE_GB = 0.3

# How much may lie in the folder of the sockets.
SHARED_FILES = 50
SHARED_MB = 20


def limited_context() -> zmq.asyncio.Context:
    """A ZMQ context whose sockets take only so much."""
    context = zmq.asyncio.Context()
    context.setsockopt(zmq.MAXMSGSIZE, MESSAGE_MB << 20)
    context.setsockopt(zmq.RCVHWM, WAITING_MESSAGES)
    return context


class LimitedClient(AsyncKernelClient):
    """A client that no message of the kernel can flood."""

    def _context_default(self):
        self._created_context = True
        return limited_context()


class SandboxedKernelManager(AsyncKernelManager):
    """Starts its kernel in a sandbox of its own, and kills all of it in the end."""

    limits = Instance(Limits, ()).tag(config=True)

    def __init__(self, **options):
        super().__init__(**options)
        self.sandbox_folder = tempfile.TemporaryDirectory(prefix="ctmri-")
        self.shared = shared_folder(Path(self.sandbox_folder.name))
        self.shared.mkdir()
        self.watch = None

        # Sockets are files, as the sandbox has no network.
        self.transport = "ipc"
        self.ip = str(self.shared / "kernel")
        self.connection_file = str(self.shared / "kernel.json")
        self.client_factory = LimitedClient

    def format_kernel_cmd(self, extra_arguments=None):
        command = super().format_kernel_cmd(extra_arguments)
        folder = Path(self.sandbox_folder.name)
        return sandboxed(working_sandbox(), command, folder, self.limits)

    async def _async_launch_kernel(self, kernel_cmd, **options):
        # A signal would end bubblewrap, and not reach the kernel.
        self.kernel_spec.interrupt_mode = "message"
        options["env"] = environment()
        options["cwd"] = "/"

        # What the kernel itself prints would reach the teacher's terminal.
        options["stdout"] = options["stderr"] = subprocess.DEVNULL
        await super()._async_launch_kernel(kernel_cmd, **options)
        self.watch = Watch(self.provisioner.process.pid, self.shared, self.limits)
        self.watch.start()

    async def _async_cleanup_resources(self, restart=False):
        if self.watch:
            self.watch.finished.set()
        await super()._async_cleanup_resources(restart)
        self.sandbox_folder.cleanup()

    cleanup_resources = _async_cleanup_resources


class Watch(threading.Thread):
    """Kills a sandbox whose processes together take too much.

    The system's own limits hold for each process alone.
    """

    def __init__(self, process: int, shared: Path, limits: Limits):
        super().__init__(daemon=True)
        self.process = process
        self.shared = shared
        self.memory_gb = MEMORY_FACTOR * limits.memory_gb
        self.finished = threading.Event()
        self.reason = None

    def run(self):
        while not self.finished.wait(0.3):
            excess = self.excess()
            if excess:
                self.kill(excess)
                return

    def kill(self, reason: str) -> None:
        """Kill the sandbox, whose processes all die with its first one."""
        self.reason = reason
        # It may have ended by itself.
        with suppress(ProcessLookupError):
            os.killpg(self.process, signal.SIGKILL)

    def excess(self) -> str | None:
        """What the sandbox takes too much of; None as long as all is well."""
        if memory_of_children(self.process) > self.memory_gb:
            return f"its processes together took more than {self.memory_gb:.1f} GB of memory"
        if psutil.virtual_memory().available < LEAST_FREE_GB * 1e9:
            return "the machine ran out of memory"
        if not self.shared_folder_is_small():
            return "it filled the folder of its sockets"
        return None

    def shared_folder_is_small(self) -> bool:
        """Whether the folder that is no memory folder holds little but sockets."""
        total = 0
        try:
            entries = list(itertools.islice(os.scandir(self.shared), SHARED_FILES + 1))
            for entry in entries:
                total += entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError:
            # Files vanish while they are counted.
            return True
        folders = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        return len(entries) <= SHARED_FILES and total < SHARED_MB << 20 and not folders

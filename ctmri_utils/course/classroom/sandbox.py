"""A sandbox for one notebook: no network, no files but its own, and limits on what it uses.

The notebook's kernel runs inside, and nbgrader outside. They talk over sockets in a folder that
both can see, so the hidden tests and the other submissions never enter the sandbox as files.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...machine import ONE_THREAD, PACKAGE, data_folder

CONFINE = Path(__file__).with_name("confine.py")

# The folders in memory, and their sizes in MB.
MEMORY_FOLDERS = {"/tmp": 512, "/dev/shm": 128}

# Where a notebook runs, and as whom if root grades.
WORK_FOLDER = "/tmp/work"
NOBODY = 65534

# What programs need of /etc; none of it is secret.
SYSTEM_FILES = (
    "/etc/alternatives",
    "/etc/fonts",
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/ssl/certs",
)
SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")

# The variables that are passed on.
PASSED_ON = ("LANG", "LC_ALL", "LC_CTYPE", "TZ", "PYTHONPATH", *ONE_THREAD)


@dataclass(frozen=True)
class Limits:
    """What one notebook may use at most.

    Args:
        memory_gb: of each process; all of them together may take an eighth more.
        processes: with their threads.
        file_mb: of each file.
        processor_seconds: of each process, on top of the limits of time.
    """

    memory_gb: float = 4
    processes: int = 100
    file_mb: int = 100
    processor_seconds: int = 300


class NoSandboxError(ValueError):
    """This machine can make no sandbox, so nothing is executed."""


@cache
def working_sandbox() -> str:
    """The first of `bwrap` and `unshare` that works here, and really confines.

    Raises:
        NoSandboxError: neither of them does.
    """
    reasons = []
    for tool in ("bwrap", "unshare"):
        reason = reason_it_fails(tool)
        if reason is None:
            return tool
        reasons.append(f"{tool} {reason}")
    raise NoSandboxError(
        f"this machine has no sandbox for the students' code ({'; '.join(reasons)}): install "
        "bubblewrap (Debian, Ubuntu: apt install bubblewrap), grade in a container as the guide "
        "of the assignments shows, or add --unsafe to run the code with all your rights"
    )


def reason_it_fails(tool: str) -> str | None:
    """None if this tool makes a sandbox here, else the reason why it does not."""
    if sys.platform != "linux":
        return "needs Linux"
    if shutil.which(tool) is None:
        return "is not installed"

    with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile() as outside:
        probe = [sys.executable, "-c", PROBE, outside.name, sys.prefix]
        command = sandboxed(tool, probe, Path(folder), Limits())
        try:
            run = subprocess.run(command, env=environment(), capture_output=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"cannot start ({type(error).__name__})"
    if run.returncode == 0:
        return None
    lines = run.stderr.decode(errors="replace").strip().splitlines()
    return f"fails ({lines[-1] if lines else f'status {run.returncode}'})"


# Run inside: it ends without an error only where the sandbox confines.
PROBE = """
import os, socket, sys
import zmq
assert not os.path.exists(sys.argv[1]), "sees files outside"
assert not os.access(sys.argv[2], os.W_OK), "may write outside"
assert [name for _, name in socket.if_nameindex()] == ["lo"], "has a network"
assert len([name for name in os.listdir("/proc") if name.isdigit()]) < 5, "sees other processes"
open("own", "w").close()
"""


def sandboxed(tool: str, command: list[str], folder: Path, limits: Limits) -> list[str]:
    """The command line that runs a command in a sandbox.

    Args:
        tool: "bwrap" or "unshare".
        command: the program and its arguments; the program's path is absolute.
        folder: a folder for this sandbox alone. The command may write into `shared_folder`
            of it, which both sides see.
        limits: on what the command may use.

    Returns:
        What to start, with the variables of `environment` and no others.
    """
    plan = plan_for(command, folder, limits)
    if plan["user"] is not None:
        for path in (shared_folder(folder), *shared_folder(folder).iterdir()):
            os.chown(path, plan["user"], plan["user"])

    if tool == "bwrap":
        # Bubblewrap builds the file system itself.
        start = bubblewrap(plan)
        plan["root"] = None
    else:
        start = unshare(plan)
    return [*start, sys.executable, "-I", "-S", str(CONFINE), json.dumps(plan)]


def plan_for(command: list[str], folder: Path, limits: Limits) -> dict:
    """What `confine.py` is to do, as JSON can hold it."""
    root = folder / "root"
    root.mkdir()
    shared_folder(folder).mkdir(exist_ok=True)

    # The system does not count root's processes, so root's work is done by nobody.
    user = NOBODY if os.geteuid() == 0 else None
    running = processes_of(os.geteuid() if user is None else user)
    paths, links = visible_files()
    return {
        "root": str(root),
        "shared": str(shared_folder(folder)),
        "folder": WORK_FOLDER,
        "read_only": paths,
        "links": links,
        "memory_folders": MEMORY_FOLDERS,
        "user": user,
        "limits": {
            "RLIMIT_DATA": int(limits.memory_gb * 2**30),
            "RLIMIT_CPU": limits.processor_seconds,
            "RLIMIT_NPROC": running + limits.processes,
            "RLIMIT_FSIZE": limits.file_mb << 20,
            "RLIMIT_NOFILE": 1024,
            "RLIMIT_CORE": 0,
        },
        "command": command,
        "environment": environment(),
    }


def shared_folder(folder: Path) -> Path:
    """The part of a sandbox's folder that is seen, and may be written to, from both sides."""
    return folder / "shared"


def visible_files() -> tuple[list[str], dict[str, str]]:
    """What the sandbox may read: programs, Python and this package, and nothing of anybody's.

    Returns:
        The files and folders to show, and the links to make, {link: target}.
    """
    libraries = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    candidates = [
        *SYSTEM_FOLDERS,
        *SYSTEM_FILES,
        sys.prefix,
        sys.base_prefix,
        *libraries,
        str(PACKAGE),
        str(PACKAGE.parent / "pyproject.toml"),
        str(data_folder()),
    ]

    paths = []
    links = {}
    for path in candidates:
        if path in SYSTEM_FOLDERS and os.path.islink(path):
            links[path] = os.readlink(path)
        elif os.path.exists(path):
            paths.append(path)
    return without_nested(paths), links


def without_nested(paths: list[str]) -> list[str]:
    """The paths that lie in no other one of the list."""
    outer = []
    for path in sorted(set(paths)):
        if not any(path.startswith(f"{parent}/") for parent in outer):
            outer.append(path)
    return outer


def processes_of(user: int) -> int:
    """How many processes and threads a user runs at the moment."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid == user:
                total += len(os.listdir(process / "task"))
        except OSError:
            # The process has ended in the meantime.
            continue
    return total


def environment() -> dict[str, str]:
    """The variables inside: none that could hold a secret."""
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": WORK_FOLDER,
        "CTMRI_BUILD": f"{WORK_FOLDER}/build",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        **passed_on,
    }


def bubblewrap(plan: dict) -> list[str]:
    """The beginning of a command line that does the plan's file system with bubblewrap."""
    if plan["user"] is None:
        options = ["--unshare-all"]
    else:
        options = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
        for right in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
            options += ["--cap-add", right]

    options += ["--die-with-parent", "--proc", "/proc", "--dev", "/dev"]
    for path, megabytes in plan["memory_folders"].items():
        options += ["--perms", "1777", "--size", str(megabytes << 20), "--tmpfs", path]
    for path, target in plan["links"].items():
        options += ["--symlink", target, path]
    for path in ancestors([*plan["read_only"], plan["shared"]]):
        # Bubblewrap would make them for its own user only.
        options += ["--perms", "0755", "--dir", path]
    for path in plan["read_only"]:
        options += ["--ro-bind", path, path]
    options += ["--bind", plan["shared"], plan["shared"]]
    options += ["--remount-ro", "/dev", "--remount-ro", "/"]
    return [shutil.which("bwrap"), *options, "--"]


def ancestors(paths: list[str]) -> list[str]:
    """All folders above some paths but for the root and those in memory, the outer ones first."""
    folders = set()
    for path in paths:
        folders.update(map(str, Path(path).parents))
    return sorted(folders - {"/", *MEMORY_FOLDERS})


def unshare(plan: dict) -> list[str]:
    """The beginning of a command line that gives `confine.py` the namespaces it needs."""
    options = ["--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
    if plan["user"] is None:
        options += ["--user", "--map-root-user"]
    return [shutil.which("unshare"), *options, "--"]

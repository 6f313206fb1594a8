"""Confine this process, then become another program: the inside of the grading sandbox.

`sandbox.py` starts this file as a script, in new namespaces. It uses the standard library alone,
and none of the package, so that it starts at once.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import signal
import sys

# Numbers of Linux's system calls and flags, from its headers.
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
MOUNT_SETATTR = 442
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
READ_ONLY, NO_SETUID = 0x1, 0x2
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_RECURSIVE = 0x2, 0x4, 0x8, 0x1000, 0x4000
DETACH = 2
SET_DEATH_SIGNAL, DROP_FROM_BOUNDING_SET, SET_NO_NEW_PRIVILEGES = 1, 24, 38

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}

# Parts of /proc through which root could change the machine.
KERNEL_SETTINGS = ("sys", "sysrq-trigger", "irq", "bus")

libc = ctypes.CDLL(None, use_errno=True)


def main(plan: dict) -> None:
    """Follow the plan that `sandbox.plan_for` made; never returns."""
    if plan["root"]:
        build_root(plan)
    limit_resources(plan["limits"])
    drop_privileges(plan["user"])

    os.makedirs(plan["folder"], exist_ok=True)
    os.chdir(plan["folder"])
    os.execve(plan["command"][0], plan["command"], plan["environment"])


def build_root(plan: dict) -> None:
    """Make a new root with only the planned files in it, and move there."""
    root = plan["root"]
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=16m,mode=755")

    for path, megabytes in plan["memory_folders"].items():
        os.makedirs(root + path, exist_ok=True)
        size = f"size={megabytes}m,nr_inodes=20000,mode=1777"
        mount("tmpfs", root + path, "tmpfs", MS_NOSUID | MS_NODEV, size)
    for path, target in plan["links"].items():
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.symlink(target, root + path)
    for path in plan["read_only"]:
        bind(path, root + path)
        make_read_only(root + path)
    bind(plan["shared"], root + plan["shared"])

    build_devices(root)
    build_processes(root)
    enter(root)


def build_devices(root: str) -> None:
    """The harmless devices of /dev."""
    for name in DEVICES:
        bind(f"/dev/{name}", f"{root}/dev/{name}")
    for name, target in DEVICE_LINKS.items():
        os.symlink(target, f"{root}/dev/{name}")

    os.makedirs(f"{root}/dev/pts")
    options = "newinstance,ptmxmode=0666,mode=620"
    mount("devpts", f"{root}/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, options)


def build_processes(root: str) -> None:
    """A /proc that shows only the sandbox, and through which nothing can be set."""
    os.makedirs(f"{root}/proc")
    mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "")
    for name in KERNEL_SETTINGS:
        path = f"{root}/proc/{name}"
        if os.path.exists(path):
            mount(path, path, None, MS_BIND | MS_RECURSIVE, None)
            make_read_only(path)


def enter(root: str) -> None:
    """Make `root` the root, let go of the old one, and forbid changes of the new one."""
    os.chdir(root)
    check(libc.syscall(PIVOT_ROOT[platform.machine()], b".", b"."), "pivot_root")
    check(libc.umount2(b".", DETACH), "umount")
    os.chdir("/")
    make_read_only("/", recursive=False)


def bind(source: str, target: str) -> None:
    """Show a file or folder in another place, too."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        open(target, "a").close()
    mount(source, target, None, MS_BIND | MS_RECURSIVE, None)


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None) -> None:
    """The system's mount."""
    arguments = [part.encode() if part is not None else None for part in (source, target, kind)]
    data = options.encode() if options is not None else None
    check(libc.mount(*arguments, ctypes.c_ulong(flags), data), f"mount {target}")


def make_read_only(path: str, recursive: bool = True) -> None:
    """Forbid writing, and programs with another user's rights, in a mounted place."""
    attributes = (ctypes.c_uint64 * 4)(READ_ONLY | NO_SETUID, 0, 0, 0)
    flags = AT_RECURSIVE if recursive else 0
    size = ctypes.sizeof(attributes)
    result = libc.syscall(MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, attributes, size)
    check(result, f"mount_setattr {path}")


def check(result: int, call: str) -> None:
    """Raise OSError if a call of the system has failed."""
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{call}: {os.strerror(error)}")


def limit_resources(limits: dict[str, int]) -> None:
    """Set limits that the program cannot raise again."""
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, name), (value, value))


def drop_privileges(user: int | None) -> None:
    """Give up every right for good, and become another user if one is named."""
    capability = 0
    while libc.prctl(DROP_FROM_BOUNDING_SET, capability, 0, 0, 0) == 0:
        capability += 1

    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)

    check(libc.prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "no_new_privs")

    # A change of user cancels the order to die with the parent, so it is given again.
    check(libc.prctl(SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0), "pdeathsig")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

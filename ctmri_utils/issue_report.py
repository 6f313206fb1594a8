"""What an issue report needs to say of the machine and the installation: `ctmri report`."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

NAME = "ctmri-utils"


def report_text() -> str:
    """Versions, devices, threads, folders and the revision of the code, a line each."""
    lines = [
        f"{NAME}: {installed(NAME)}",
        f"Python: {platform.python_version()}, {sys.executable}",
        f"platform: {platform.platform()}",
    ]
    lines += [f"{name}: {installed(name)}" for name in packages()]
    try:
        lines += machine_lines()
    except (ImportError, OSError) as error:
        # The report is needed most where torch does not load.
        lines.append(f"machine: {error}")
    return "\n".join(lines) + "\n"


def packages() -> list[str]:
    """The packages that this one requires, those of its extras too; none if it is not installed."""
    try:
        requirements = requires(NAME)
    except PackageNotFoundError:
        return []
    names = {re.match(r"[\w.-]+", requirement)[0] for requirement in requirements}
    return sorted(names, key=str.lower)


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def machine_lines() -> list[str]:
    """Device, threads, folders and revision.

    Raises:
        ImportError, OSError: torch does not load, or there is no place for the build folder.
    """
    # Imported here because it needs torch, without which the rest can still be reported.
    from .machine import CHECKOUT, build_folder, data_folder, report

    lines = [
        f"machine: {report()}",
        f"threads: CTMRI_THREADS {os.environ.get('CTMRI_THREADS', 'not set')}, "
        f"{os.cpu_count()} cores",
        f"checkout: {CHECKOUT or 'none, the package was installed'}",
        f"data: {data_folder()}",
        f"build: {build_folder()}",
    ]
    if CHECKOUT:
        lines.append(f"git revision: {revision(CHECKOUT)}")
    return lines


def revision(checkout: Path) -> str:
    """The commit of the code, and whether it was changed since; "unknown" without git."""
    commit = git(checkout, "rev-parse", "HEAD")
    changed = " with changes" if git(checkout, "status", "--porcelain") else ""
    return f"{commit or 'unknown'}{changed}"


def git(checkout: Path, *words: str) -> str:
    """What git says in the checkout; "" where there is no git."""
    command = ["git", "-C", str(checkout), *words]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return result.stdout.strip()

"""What the kernels of lessons and of submissions find, and the memory that they take."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from ..machine import PACKAGE, environment_variables, import_optional


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


def memory_of_children(process: int) -> float:
    """The resident memory of all processes below a process, in GB."""
    psutil = import_optional("psutil")
    total = 0
    try:
        children = psutil.Process(process).children(recursive=True)
    except psutil.Error:
        return 0.0
    for child in children:
        # A child may have ended in the meantime.
        with suppress(psutil.Error):
            total += child.memory_info().rss
    return total / 1e9

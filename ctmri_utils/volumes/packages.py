"""Optional packages: imported when they are used, and kept quiet about what they read."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module


def import_optional(name: str, extra: str = "course"):
    """Import a package that a plain installation lacks, or say which extra brings it."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"this needs {name.partition('.')[0]}: pip install 'ctmri-utils[{extra}]'"
        ) from error


@contextmanager
def quiet_readers() -> Iterator[None]:
    """Inside the block, pydicom and nibabel neither warn nor log.

    Their messages quote what they read, and that can be a patient's name.
    """
    loggers = [logging.getLogger(name) for name in ("pydicom", "nibabel.global")]
    levels = [logger.level for logger in loggers]

    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

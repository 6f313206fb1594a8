"""Optional packages: pydicom and nibabel kept quiet, and tqdm's bar."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from ..machine import import_optional


def progress_bar(unit: str, title: str | None = None) -> Callable[[Iterable], Iterable]:
    """A function that shows a bar while a loop runs, in a terminal or a notebook."""
    return partial(import_optional("tqdm.auto").tqdm, unit=unit, disable=None, desc=title)


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

"""The strips of a training in a folder: one picture of its translations for some of its steps."""

from __future__ import annotations

import re
from pathlib import Path


def strip_files(folder: Path) -> dict[int, Path]:
    """{step: file} of the strips in a folder, in the order of their steps."""
    strips = {}
    for file in sorted(folder.glob("step-*.png")):
        step = re.fullmatch(r"step-(\d+)", file.stem)
        if step:
            strips[int(step[1])] = file
    return strips


def save_strip(folder: Path, step: int, strip: bytes) -> None:
    """Write a strip, a PNG, as step-000100.png; the folder is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"step-{step:06d}.png").write_bytes(strip)


def remove_strips(folder: Path, first_step: int) -> None:
    """Remove the strips of a step and of all later ones, which an earlier run has left."""
    for step, file in strip_files(folder).items():
        if step >= first_step:
            file.unlink()

"""`ctmri check`: what could spoil training on a folder of slices, with a picture of it."""

from __future__ import annotations

from pathlib import Path

from ..machine import build_folder
from ..scans.checks import Report, check_folder


def print_check(folder: Path) -> bool:
    """Print both tables, and draw the offenders; whether anything was found."""
    report = check_folder(folder)
    print(report)
    if report.findings:
        print()
        print(draw_offenders(report, folder.resolve().name))
    return bool(report.findings)


def draw_offenders(report: Report, name: str) -> str:
    """Draw the offenders into the build folder; a sentence on where, or why not."""
    try:
        # Imported here because figures are slow to import, and a clean folder needs none.
        from ..viewers.figures import offenders, png
    except ImportError as error:
        return f"no picture: {error}"

    picture = build_folder() / f"check-{name}.png"
    picture.write_bytes(png(offenders(report)))
    return f"{picture} shows the first of each."

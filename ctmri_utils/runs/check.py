"""`ctmri check`: what could spoil a training on a folder of slices, with a picture of it."""

from __future__ import annotations

from pathlib import Path

from ..machine import build_folder
from ..scans.checks import Report, check
from ..scans.slices import image_folder


def add_command(commands) -> None:
    """Add `check` to the sub-commands of `python -m ctmri_utils`."""
    parser = commands.add_parser(
        "check", help="say what could spoil a training on a folder of slices"
    )
    parser.add_argument(
        "folder",
        type=Path,
        help="a folder with trainA, trainB, testA and testB in it, at any depth",
    )
    parser.add_argument(
        "--strict", action="store_true", help="end with status 1 if anything was found"
    )
    parser.set_defaults(run=command)


def command(options) -> int:
    """`python -m ctmri_utils check`: both tables, and a picture of the offenders.

    Returns:
        1 if strict and anything was found, else 0.
    """
    report = check(image_folder(options.folder))
    print(report)
    if report.findings:
        print()
        print(_picture(report, options.folder.resolve().name))
    return int(options.strict and bool(report.findings))


def _picture(report: Report, name: str) -> str:
    """Draw the offenders into the build folder; a sentence on where, or why not."""
    try:
        # Imported here, because only the command draws.
        from ..viewers.figures import offenders, png
    except ImportError as error:
        return f"no picture: {error}"

    picture = build_folder() / f"check-{name}.png"
    picture.write_bytes(png(offenders(report)))
    return f"{picture} shows the first of each."

"""`python -m ctmri_utils COMMAND`; each command's module adds itself to the list."""

from __future__ import annotations

import argparse
import sys

import torch

from .course import classroom, lessons
from .runs import check, export, page, studies, train
from .scans import kaggle
from .volumes import prepare, translate

COMMANDS = (lessons, kaggle, check, prepare, train, studies, translate, export, page, classroom)


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns its status, 0 if it has none.

    1 after one sentence for what the user can put right; 130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser(
        prog="python -m ctmri_utils", description="CT <-> MR translation with CycleGAN, a course"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add_command(commands)
    options = parser.parse_args(arguments)
    try:
        return options.run(options) or 0
    except OSError as error:
        # with a file's name: the system's own, not yet a sentence
        said = (
            f"{error.filename} cannot be used ({error.strerror}): check the path, its permissions "
            "and the disk"
        )
        print(f"{options.command}: {said if error.filename else error}", file=sys.stderr)
        return 1
    except (ValueError, FloatingPointError, ModuleNotFoundError, lessons.LessonFailed) as error:
        print(f"{options.command}: {error}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not isinstance(
            error, MemoryError | torch.OutOfMemoryError
        ) and "DefaultCPUAllocator" not in str(error):
            raise
        print(
            f"{options.command}: memory ran out: choose smaller images, batches or networks, or "
            "fewer slices",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        resumes = options.command in ("train", "study")
        print(
            f"{options.command}: interrupted" + "; the same command goes on with it" * resumes,
            file=sys.stderr,
        )
        return 130


if __name__ == "__main__":
    sys.exit(main())

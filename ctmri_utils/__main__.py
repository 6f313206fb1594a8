"""`python -m ctmri_utils COMMAND`; each command's module adds itself to the list."""
from __future__ import annotations

import argparse
import sys

from . import course, interchange, page, train

COMMANDS = (course, train, interchange, page)


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns 0; 1 after one sentence on stderr for what the user can put right; 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m ctmri_utils", description="CT <-> MR translation with CycleGAN, a course")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add_command(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError, FloatingPointError, ModuleNotFoundError, course.LessonFailed) as error:
        print(f"{options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{options.command}: interrupted; the same command goes on with a training", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

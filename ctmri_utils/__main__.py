"""`ctmri COMMAND`, or `python -m ctmri_utils COMMAND`.

A command is a function in the `commands` of its room: its parameters are the flags, its docstring
is the help, and what it needs is imported when it runs.
"""

from __future__ import annotations

import os
import sys

from tyro.conf import DisallowNone, FlagCreatePairsOff, PositionalMetavarFromFieldName
from tyro.extras import subcommand_cli_from_dict

from .command_line import reference_hint, unwrapped
from .course import commands as course
from .runs import commands as runs
from .scans import commands as scans
from .settings import suggestion
from .volumes import commands as volumes


def report() -> None:
    """Print what an issue report needs: versions, devices, threads and folders."""
    from .issue_report import report_text

    print(report_text(), end="")


COMMANDS = {
    "course": course.course,
    "site": course.site,
    "download": scans.download,
    "check": runs.check,
    "prepare": volumes.prepare,
    "train": runs.train,
    "study": runs.study,
    "translate": volumes.translate,
    "evaluate": volumes.evaluate,
    "export": runs.export,
    "page": volumes.page,
    "assignments": course.assignments,
    "grade": course.grade,
    "report": report,
}
for function in COMMANDS.values():
    function.__doc__ = unwrapped(function.__doc__)


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns its status, 0 if it has none.

    1 after one sentence for what the user can put right; 2, or SystemExit(2), after a mistake in
    the command itself; 130 after Ctrl-C.
    """
    words = sys.argv[1:] if arguments is None else arguments
    command = words[0] if words else ""
    if command == "--version":
        # Imported here because it is slow.
        import ctmri_utils

        print(f"ctmri-utils {ctmri_utils.__version__}")
        return 0
    if command and not command.startswith("-") and command not in COMMANDS:
        return explain("ctmri", f"{command} is not a command: {suggestion(command, COMMANDS)}", 2)
    hint = reference_hint(words) if command == "train" else None
    if hint:
        return explain(command, hint, 2)

    try:
        return run(words)
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has seen enough. What is still in the buffer
        # must not be written at exit.
        sys.stdout = open(os.devnull, "w")
        return 0
    except OSError as error:
        if not error.filename:
            return explain(command, error)
        # The system's own words are not yet a sentence.
        return explain(
            command,
            f"{error.filename} cannot be used ({error.strerror}): check the path, its permissions "
            "and the disk",
        )
    except (ValueError, FloatingPointError, ModuleNotFoundError) as error:
        return explain(command, error)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return explain(
            command,
            "memory ran out: choose smaller images, batches or networks, or fewer slices",
        )
    except KeyboardInterrupt:
        if command in ("course", "train", "study"):
            return explain(command, "interrupted; the same command resumes it", 130)
        return explain(command, "interrupted", 130)


def run(words: list[str]) -> int:
    """Read the words of the command line, and call the command; its status, 0 if it has none."""
    status = subcommand_cli_from_dict(
        COMMANDS,
        prog="ctmri",
        description="CT <-> MR translation with CycleGAN, a course. ctmri --version prints the "
        "version, ctmri COMMAND --help the options of a command.",
        args=words,
        config=(DisallowNone, FlagCreatePairsOff, PositionalMetavarFromFieldName),
    )
    return status or 0


def explain(command: str, sentence: str | Exception, status: int = 1) -> int:
    print(f"{command}: {sentence}", file=sys.stderr)
    return status


def out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Whether memory ran out.

    On a GPU torch has a type for that; its allocator on the CPU raises a plain RuntimeError, which
    only its text tells from others.
    """
    if isinstance(error, MemoryError):
        return True

    torch = sys.modules.get("torch")
    if torch is None:
        return False
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


if __name__ == "__main__":
    sys.exit(main())

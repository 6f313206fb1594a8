"""`ctmri COMMAND`, or `python -m ctmri_utils COMMAND`.

A command is a function in the `commands` of its room: its parameters are the arguments and flags,
its docstring is the help, and what it needs is imported when it runs.
"""

from __future__ import annotations

import os
import sys
import textwrap

import tyro
from tyro.conf import DisallowNone, FlagCreatePairsOff, PositionalMetavarFromFieldName

from .command_line import UsageError, check_words, unwrapped
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
    "page": runs.page,
    "translator": volumes.translator,
    "assignments": course.assignments,
    "grade": course.grade,
    "report": report,
}
for function in COMMANDS.values():
    function.__doc__ = unwrapped(function.__doc__)

RESUMED = ("course", "train", "study")

# Each says in one sentence what the user can put right.
EXPECTED = (OSError, ValueError, FloatingPointError, ModuleNotFoundError)


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns its status, 0 if it has none.

    1 after one sentence for what the user can put right; 2 after a mistake in the command itself;
    130 after Ctrl-C. SystemExit(0) after the help of a command.
    """
    words = sys.argv[1:] if arguments is None else arguments
    command = words[0] if words else ""
    try:
        return run(command, words[1:])
    except UsageError as error:
        if command in COMMANDS:
            return explain(command, f"{error} (see `ctmri {command} --help`)", 2)
        return explain("ctmri", f"{error} (see `ctmri --help`)", 2)
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has seen enough. What is still in the buffer
        # must not be written at exit.
        sys.stdout = open(os.devnull, "w")
        return 0
    except KeyboardInterrupt:
        advice = "; the same command resumes it" if command in RESUMED else ""
        return explain(command, f"interrupted{advice}", 130)
    except Exception as error:
        if out_of_memory(error):
            sentence = "memory ran out: choose smaller images, batches or networks, or fewer slices"
        elif isinstance(error, EXPECTED):
            sentence = in_one_sentence(error)
        else:
            raise
        return explain(command, sentence)


def run(command: str, words: list[str]) -> int:
    """Print what is wanted, or call the command with the words after it; its status."""
    if command in ("-h", "--help"):
        print(help_text())
        return 0
    if command == "--version":
        # Imported here because it is slow.
        import ctmri_utils

        print(f"ctmri-utils {ctmri_utils.__version__}")
        return 0
    if command not in COMMANDS:
        wrong = f"{command} is not a command" if command else "no command is given"
        raise UsageError(f"{wrong}: {suggestion(command, COMMANDS)}")

    function = COMMANDS[command]
    if "-h" not in words and "--help" not in words:
        check_words(function, words)
    status = tyro.cli(
        function,
        prog=f"ctmri {command}",
        args=words,
        config=(DisallowNone, FlagCreatePairsOff, PositionalMetavarFromFieldName),
    )
    return status or 0


def help_text() -> str:
    """The commands, each with the first line of its help, in 80 columns."""
    lines = ["usage: ctmri COMMAND ...", "", "CT <-> MR translation with CycleGAN, a course.", ""]
    for name, function in COMMANDS.items():
        summary = function.__doc__.splitlines()[0]
        lines += textwrap.wrap(f"  {name:<13}{summary}", 80, subsequent_indent=" " * 15)
    lines += ["", "ctmri COMMAND --help lists its options, ctmri --version prints the version."]
    return "\n".join(lines)


def in_one_sentence(error: Exception) -> str:
    """What an error says; the system's own words are not yet a sentence."""
    if isinstance(error, OSError) and error.filename:
        return (
            f"{error.filename} cannot be used ({error.strerror}): check the path, its permissions "
            "and the disk"
        )
    return str(error)


def explain(command: str, sentence: str, status: int = 1) -> int:
    print(f"{command}: {sentence}", file=sys.stderr)
    return status


def out_of_memory(error: Exception) -> bool:
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

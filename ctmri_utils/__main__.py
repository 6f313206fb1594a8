"""`ctmri COMMAND`, or `python -m ctmri_utils COMMAND`.

A command is a function in the `commands` of its room: its parameters are the arguments and flags,
its docstring is the help, and what it needs is imported when it runs.
"""

from __future__ import annotations

import os
import sys

import tyro
from tyro.conf import DisallowNone, FlagCreatePairsOff, PositionalMetavarFromFieldName

from .command_line import UsageError, check_words, unwrapped
from .course import commands as course
from .options import suggestion
from .runs import commands as runs
from .scans import commands as scans
from .volumes import commands as volumes


def report() -> None:
    """Print versions, devices and folders, for an issue report."""
    from .issue_report import report_text

    print(report_text(), end="")


SECTIONS = {
    "course": {"course": course.course, "site": course.site},
    "scans and training": {
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
    },
    "teaching": {"assignments": course.assignments, "grade": course.grade},
    "help": {"report": report},
}

COMMANDS = {name: function for section in SECTIONS.values() for name, function in section.items()}

RESUMED = ("course", "train", "study")

# Each of these errors says in one sentence what the user can put right.
EXPECTED = (OSError, ValueError, FloatingPointError, ModuleNotFoundError)

# The status of all other errors is 1.
STATUS = {UsageError: 2, KeyboardInterrupt: 130}


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns its status, 0 if it has none.

    1 after one sentence for what the user can put right; 2 after a mistake in the command itself;
    130 after Ctrl-C. SystemExit(0) after the help of a command.
    """
    words = sys.argv[1:] if arguments is None else arguments
    command = words[0] if words else ""
    try:
        return run(command, words[1:])
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has seen enough. What is still in the buffer
        # must not be written at exit.
        sys.stdout = open(os.devnull, "w")
        return 0
    except (Exception, KeyboardInterrupt) as error:
        sentence = in_one_sentence(error, command)
        if not sentence:
            raise
        print(f"{program_of(command)}: {sentence}", file=sys.stderr)
        return STATUS.get(type(error), 1)


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
        mistake = f"{command} is not a command" if command else "no command is given"
        raise UsageError(f"{mistake}: {suggestion(command, COMMANDS)}")

    function = COMMANDS[command]
    function.__doc__ = unwrapped(function.__doc__)
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
    """The commands, each with the first line of its help."""
    lines = ["usage: ctmri COMMAND ...", "", "CT <-> MR translation with CycleGAN, a course."]
    for title, commands in SECTIONS.items():
        lines += ["", f"{title}:"]
        for name, function in commands.items():
            summary = function.__doc__.splitlines()[0]
            lines.append(f"  {name:<13}{summary}")
    lines += ["", "ctmri COMMAND --help lists its options, ctmri --version prints the version."]
    return "\n".join(lines)


def program_of(command: str) -> str:
    """What to call the program in an error."""
    return f"ctmri {command}" if command in COMMANDS else "ctmri"


def in_one_sentence(error: BaseException, command: str) -> str:
    """What an error says to the user; "" for an error of the program."""
    if isinstance(error, KeyboardInterrupt):
        advice = "; the same command resumes it" if command in RESUMED else ""
        return f"interrupted{advice}"
    if out_of_memory(error):
        return "memory ran out: choose smaller images, batches or networks, or fewer slices"
    if isinstance(error, UsageError):
        return f"{error} (see `{program_of(command)} --help`)"
    if isinstance(error, OSError) and error.filename:
        # The system's own words are not yet a sentence.
        return (
            f"{error.filename} cannot be used ({error.strerror}): check the path, its permissions "
            "and the disk"
        )
    return str(error) if isinstance(error, EXPECTED) else ""


def out_of_memory(error: BaseException) -> bool:
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

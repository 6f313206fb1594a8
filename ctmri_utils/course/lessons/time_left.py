"""What `ctmri course` says while a lesson runs: the time left for its training and the course."""

from __future__ import annotations

import json
import shutil
import sys
import time
import tomllib
from pathlib import Path

from .records import Record

TABLE = Path(__file__).with_name("minutes.toml")


class TimeLeft:
    """The time that the lessons still take.

    A lesson is expected to take what it took last time in this profile, or else what the table
    says; and as much more or less as those that have run since. A profile that nobody has
    measured has no estimate.

    Args:
        profile: the lessons' PROFILE.
        lessons: the names of those to run, in order.
        records: what they left last time.
    """

    def __init__(self, profile: str, lessons: list[str], records: dict[str, Record | None]):
        table = tomllib.loads(TABLE.read_text(encoding="utf-8")).get(profile, {})
        self.waiting: dict[str, float | None] = {}
        for lesson in lessons:
            record = records.get(lesson)
            known = record is not None and record.profile == profile
            self.waiting[lesson] = record.minutes if known else table.get(lesson[:2])
        self.taken = 0.0
        self.expected = 0.0

    def finish(self, lesson: str, minutes: float) -> None:
        """Note how long a lesson took, by which the rest is estimated."""
        expected = self.waiting.pop(lesson)
        if expected is not None:
            self.taken += minutes
            self.expected += expected

    def minutes(self, elapsed: float = 0.0, training: float = 0.0) -> float | None:
        """Minutes until all lessons are finished; None if nobody knows.

        Args:
            elapsed: minutes since the next lesson began.
            training: minutes that its training still takes, at least.
        """
        if None in self.waiting.values():
            return None
        pace = self.taken / self.expected if self.expected else 1.0
        expected = [pace * minutes for minutes in self.waiting.values()]
        if not expected:
            return 0.0
        return max(expected[0] - elapsed, training) + sum(expected[1:])


def training_left(progress: Path) -> tuple[str, float]:
    """How far the training is that a lesson is busy with.

    Args:
        progress: the file that `viewers.progress.Progress` writes.

    Returns:
        Words for it, and the minutes left; "" and 0 if none is running.
    """
    try:
        report = json.loads(progress.read_text(encoding="utf-8"))
        seconds = report["seconds_left"] - (time.time() - progress.stat().st_mtime)
    except (OSError, ValueError, LookupError):
        return "", 0.0
    if report["step"] == report["steps"]:
        return "", 0.0
    minutes = max(0.0, seconds) / 60
    return f"; training {report['step']} of {report['steps']} steps, {span(minutes)} left", minutes


def span(minutes: float) -> str:
    """A time in whole minutes, or in seconds if it is short."""
    return f"{minutes:.0f} min" if minutes >= 1.5 else f"{max(1, 60 * minutes):.0f} s"


def estimate(minutes: float | None, words: str) -> str:
    """Words with an estimated time in front of them; "" if there is no estimate."""
    return "" if minutes is None else f"; about {span(minutes)} {words}"


def rewrite(line: str) -> None:
    """Show a line in a terminal in place of the last one; elsewhere nothing."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        print(f"\r{line[:width]:{width}}", end="\r", flush=True)

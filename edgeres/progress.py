"""What a person sees while work goes on: a progress bar in a terminal, plain lines elsewhere.

Everything goes to stderr, so that stdout carries results alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeres import terminal

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_PLAIN_EVERY_S = 15.0


class Progress:
    """Reports steps as they start, advance and finish (`pipeline.Reporter`)."""

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self.terminal = sys.stderr.isatty()
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._spoken = 0.0
        self._step = ""
        self._first: tuple[int, float] | None = None

    def started(self, step: str, note: str) -> None:
        """A step begins."""
        self._step, self._spoken, self._first = step, time.monotonic(), None
        if self.quiet:
            return
        if not self.terminal:
            terminal.say(f"  {step} ...")
            return
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("  {task.description}", markup=False), BarColumn(24), TimeElapsedColumn(),
            TextColumn("eta"), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(file=terminal.raw()), transient=True,
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        self._bar.start()
        self._task = self._bar.add_task(terminal.escaped(step), total=None, note="")

    def tick(self, done: int, total: int, note: str) -> None:
        """Progress within the step."""
        if total and self._first is None:
            self._first = done, time.monotonic()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total,
                             note=terminal.escaped(note))  # fmt: skip
        elif not self.quiet and time.monotonic() - self._spoken > _PLAIN_EVERY_S:
            self._spoken = time.monotonic()
            share = f"{done / total:.0%} " if total else ""
            terminal.say(f"  {self._step}: {share}{note}{self._left(done, total)}")

    def _left(self, done: int, total: int) -> str:
        """How long the step goes on, by how it went since its first tick, which may have been late
        in it: interrupted work goes on where it was."""
        if self._first is None or done <= self._first[0] or done >= total:
            return ""
        seconds = (total - done) * (time.monotonic() - self._first[1]) / (done - self._first[0])
        if seconds < 90:
            return f", {seconds:.0f} s left"
        hours, minutes = divmod(round(seconds / 60), 60)
        return f", {hours} h {minutes} min left" if hours else f", {minutes} min left"

    def finished(
        self, step: str, cached: bool, seconds: float, summary: str, notes: Sequence[str] = ()
    ) -> None:
        """A step's artifact is there; what was chosen, left out or assumed, a line each."""
        self.close()
        if not self.quiet:
            how = "cached" if cached else f"{seconds:.1f} s"
            terminal.say(f"  {step:<22} {how:>8}  {summary}")
            for note in notes:
                terminal.say(f"    note: {note}")

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

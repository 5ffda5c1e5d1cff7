"""What a person sees while work goes on: a progress bar in a terminal, plain lines elsewhere.

Everything goes to stderr, so that stdout carries results alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from edgeres import terminal

_PLAIN_EVERY_S = 15.0


class Progress:
    """Reports steps as they start, advance and finish (`pipeline.Reporter`)."""

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self.terminal = sys.stderr.isatty()
        self._bar: Any = None
        self._task: Any = None
        self._spoken = 0.0
        self._step = ""

    def started(self, step: str, note: str) -> None:
        """A step begins."""
        self._step, self._spoken = step, time.monotonic()
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
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total,
                             note=terminal.escaped(note))  # fmt: skip
        elif not self.quiet and time.monotonic() - self._spoken > _PLAIN_EVERY_S:
            self._spoken = time.monotonic()
            share = f"{done / total:.0%} " if total else ""
            terminal.say(f"  {self._step}: {share}{note}")

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

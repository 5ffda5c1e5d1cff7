"""The command line in this process, for tests of what commands do rather than of how they start.

Each start of Python costs seconds of imports, which such tests would pay dozens of times.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from edgeres.__main__ import main


def edgeres(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `edgeres` with arguments in a folder; its exit code and words, as a process's."""
    line, code = ["edgeres", *map(str, arguments)], 0
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        stack.enter_context(warnings.catch_warnings())
        said, complained = (
            stack.enter_context(_taken(patch, *stream)) for stream in (("stdout", 1), ("stderr", 2))
        )
        patch.chdir(cwd)
        patch.setattr("sys.argv", line)
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return subprocess.CompletedProcess(line, code, said(), complained())


@contextmanager
def _taken(patch: pytest.MonkeyPatch, name: str, number: int) -> Iterator[Callable[[], str]]:
    """Put a file in the place of a stream and of its descriptor; yields what reads it."""
    kept = os.dup(number)
    with (
        tempfile.TemporaryFile() as file,
        open(number, "w", encoding="utf-8", closefd=False) as stream,
    ):

        def read() -> str:
            stream.flush()
            file.seek(0)
            return file.read().decode()

        os.dup2(file.fileno(), number)
        patch.setattr(f"sys.{name}", stream)
        try:
            yield read
        finally:
            stream.flush()
            os.dup2(kept, number)
            os.close(kept)

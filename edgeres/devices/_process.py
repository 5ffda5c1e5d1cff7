"""One child process. In: a command line and a time limit. Out: what it printed, and nothing left.

What it prints is counted while it is read. Without another stdin it gets a pipe that stays open for
as long as it shall run. Of ssh, a script on the other side reads that pipe in the background, and
its end means "stop". That end also comes when this process is killed or the connection is cut,
which no message could announce.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

_MOST_BYTES = 256 << 20  # a day of samples is less
_LAST_WORDS_S = 5.0


class Process:
    """A running program, in a session and a process group of its own.

    Attributes:
        stdout, stderr: what it has printed until now.
    """

    def __init__(
        self,
        argv: Sequence[str],
        stdin: IO[bytes] | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start it. Without `stdin` it gets the pipe that `end` closes.

        Raises:
            OSError: there is no such program.
        """
        self.stdout, self.stderr = bytearray(), bytearray()
        reading, writing = (None, None) if stdin else os.pipe()
        self._lifeline: int | None = writing
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=stdin or reading,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env=env,
                start_new_session=True,  # the terminal's Ctrl-C is ours to answer
            )
        except BaseException:
            self._let_go()
            raise
        finally:
            if reading is not None:
                os.close(reading)
        assert self._process.stdout and self._process.stderr
        self._open: dict[IO[bytes], bytearray] = {
            self._process.stdout: self.stdout,
            self._process.stderr: self.stderr,
        }

    def read(self, timeout_s: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Collect what it prints until `enough`, or until both streams have ended.

        Raises:
            TimeoutError: neither came in time.
            OverflowError: it prints without end.
        """
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            for stream in self._open:
                selector.register(stream, selectors.EVENT_READ, stream)
            while self._open and not enough():
                left = deadline - time.monotonic()
                ready = selector.select(left) if left > 0 else []
                if not ready:
                    raise TimeoutError
                for key, _ in ready:
                    block = os.read(key.fd, 1 << 16)
                    self._open[key.data] += block
                    if len(self._open[key.data]) > _MOST_BYTES:
                        raise OverflowError
                    if not block:
                        selector.unregister(key.data)
                        del self._open[key.data]
                        key.data.close()

    def returncode(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.poll()

    def wait(self, timeout_s: float) -> int:
        """Its exit status, a negative signal number where one ended it.

        Raises:
            TimeoutError: it runs on.
        """
        try:
            return self._process.wait(max(timeout_s, 0))
        except subprocess.TimeoutExpired as error:
            raise TimeoutError from error

    def kill(self) -> None:
        """Kill it with everything that it started and that stayed in its group."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self, timeout_s: float = _LAST_WORDS_S) -> None:
        """Tell the other side to stop, hear its last words, leave no process. Safe to repeat."""
        self._let_go()
        with suppress(TimeoutError, OverflowError):
            self.read(timeout_s)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(0 if self._open else _LAST_WORDS_S)
        self._process.kill()
        self._process.wait()
        for stream in self._open:
            stream.close()
        self._open = {}

    def _let_go(self) -> None:
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None

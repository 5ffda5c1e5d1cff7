"""Everything that people read on a terminal goes through here, and nothing else writes to one.

Names in model files, class folders and what a board says are other people's text. It is shown with
backslash escapes for all that isn't printable: it moves no cursor, turns no reading direction, and
starts no line of its own that could pass for one of ours.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TextIO

from edgeres.errors import StorageError

_SPACES = "\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}"  # between a number and its unit
_hushed = False
_CLOSED = "is closed; give it a file or a terminal"


def escaped(text: str) -> str:
    """Text as one line that is safe to show: no control, format or separator characters."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _SPACES else ascii(c)[1:-1] for c in text)


def cleaned(value: object) -> object:
    """A JSON-ready value with each text in it escaped, keys too."""
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, dict):
        return {cleaned(key): cleaned(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [cleaned(item) for item in value]
    return value


def out(text: str) -> None:
    """Print a result to stdout; its line ends are ours, what else isn't printable is escaped.

    Raises:
        StorageError: stdout can't be written to. A reader that has gone away is none.
    """
    _shown(sys.stdout).write(f"{text}\n")


def say(line: str) -> None:
    """Print one line to stderr, where it can be shown."""
    _shown(sys.stderr, must=False).write(f"{escaped(line)}\n")


def remark(line: str) -> None:
    """Print one line to stderr that is neither a result nor an error: what was chosen, left out or
    assumed. A command that was asked to be quiet doesn't."""
    if not _hushed:
        say(line)


def hush(quiet: bool) -> None:
    """Leave remarks out, or not, as long as a command works."""
    global _hushed
    _hushed = quiet


def complain(message: str) -> None:
    """Print an error to stderr. Each of its lines says whose it is."""
    for line in message.split("\n"):
        say(f"edgeres: {line}")


def ask(words: str, default: str) -> str:
    """An answer from the terminal; Enter gives the default.

    Raises:
        KeyboardInterrupt: there is nobody to answer.
    """
    stream = _shown(sys.stdout)
    stream.write(f"{escaped(words)} [{escaped(default)}]: ")
    answer = sys.stdin.readline() if sys.stdin else ""
    if not answer:
        stream.write("\n")
        raise KeyboardInterrupt
    return answer.strip() or default


def raw() -> TextIO:
    """stderr for a progress bar, which moves the cursor; what it shows is escaped before."""
    return sys.stderr._raw if isinstance(sys.stderr, _Shown) else sys.stderr


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """While a command works: streams that exist, take any character, and escape what isn't ours."""
    before = sys.stdin, sys.stdout, sys.stderr
    stdin, stdout, stderr = (
        _opened(number, stream) for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr))
    )
    sys.stdin = stdin
    sys.stdout = _Shown(stdout, fault="" if sys.stdout else _CLOSED)  # type: ignore[assignment]
    sys.stderr = _Shown(stderr, must=False)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


def _opened(number: int, stream: TextIO | None) -> TextIO:
    """A standard stream, or nothing in the place of one that is closed.

    Its number is taken, too: the next file that is opened would get it, and a library's words.
    """
    while True:
        try:
            os.fstat(number)
            break
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if stream is None:
        return open(os.devnull, "r" if number == 0 else "w", encoding="utf-8")  # noqa: PTH123
    return stream


def _shown(stream: TextIO | None, must: bool = True) -> _Shown:
    if isinstance(stream, _Shown):
        return stream
    return _Shown(stream or io.StringIO(), must, "" if stream or not must else _CLOSED)


class _Shown:
    """A text stream for people, in place of sys.stdout or sys.stderr."""

    def __init__(self, raw: TextIO, must: bool = True, fault: str = "") -> None:
        self._raw, self._must, self._fault = raw, must, fault

    def __getattr__(self, name: str) -> object:
        if name == "buffer":  # the way around that typer takes where it finds one
            raise AttributeError(name)
        return getattr(self._raw, name)

    def write(self, text: str) -> int:
        """Write text, and send it off at a line's end."""
        if text == "":
            return 0
        with self._failures():
            self._send("\n".join(map(escaped, text.split("\n"))))
            if "\n" in text:
                self._raw.flush()
        return len(text)

    def _send(self, text: str) -> None:
        buffer = getattr(self._raw, "buffer", None)
        if buffer is None:
            self._raw.write(text)
            return
        self._raw.flush()
        left = memoryview(text.encode(self._raw.encoding or "utf-8", "backslashreplace"))
        while left:  # without a buffer (`python -u`) a part may be written, and no error told
            left = left[buffer.write(left) :]

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Send off what was written."""
        with self._failures():
            self._raw.flush()

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Go on quietly without a reader; a disk that refuses a result is an error, each time."""
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: closed meanwhile
            with contextlib.suppress(OSError, ValueError):
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, self._raw.fileno())  # what is still to be sent goes there
                os.close(nothing)
            if self._must and not isinstance(error, BrokenPipeError):
                reason = getattr(error, "strerror", None) or error
                self._fault = f"can't be written ({reason}); the result was not printed whole"
        if self._fault:
            raise StorageError(f"standard output {self._fault}")

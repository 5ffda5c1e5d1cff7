"""ctrl-C stays ctrl-C, whatever a library makes of it.

Python raises KeyboardInterrupt wherever the program happens to be: inside a library's clean-up it
can come out as that library's own error, or as a failed conversion.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def noticed() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether ctrl-C was pressed since.

    It listens in the main thread alone, and where nothing else does (`nohup` ignores ctrl-C).
    """
    came = threading.Event()
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield came.is_set
        return

    def press(number: int, frame: FrameType | None) -> None:
        came.set()
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, press)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)

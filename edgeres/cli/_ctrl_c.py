"""ctrl-C stays ctrl-C, whatever a library makes of it.

Python raises KeyboardInterrupt wherever the program happens to be: inside a library's clean-up it
can come out as that library's own error, or as a failed conversion. Inside PyTorch's imports, which
call Python from C++, it aborts the process: there it waits for their end.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_AGAIN_S = 0.1


@contextmanager
def noticed() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether ctrl-C was pressed since.

    It listens in the main thread alone, and where nothing else does (`nohup` ignores ctrl-C).
    """
    came, waits, own = threading.Event(), threading.Event(), threading.Event()
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield came.is_set
        return

    def again() -> None:
        if not came.is_set():
            own.set()
            os.kill(os.getpid(), signal.SIGINT)

    def press(number: int, frame: FrameType | None) -> None:
        second = waits.is_set() and not own.is_set()  # somebody who doesn't want to wait
        own.clear()
        if _importing() and not second:
            waits.set()
            timer = threading.Timer(_AGAIN_S, again)
            timer.daemon = True
            timer.start()
            return
        came.set()
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, press)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _importing() -> bool:
    """Whether a module of PyTorch's packages is being imported."""
    loaded = [module for name, module in list(sys.modules.items()) if name.startswith("torch")]
    specs = [getattr(module, "__spec__", None) for module in loaded]
    return any(getattr(spec, "_initializing", False) for spec in specs)

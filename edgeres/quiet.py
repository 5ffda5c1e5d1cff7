"""Converters that print: keep their chatter off the terminal, and quote it when they fail.

And those that import, if they find it, what isn't used here.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from edgeres.errors import EdgeresError

# Set in a process whose output is kept already, so that a crash or a hang can quote it.
contained = False


class ConversionFailed(EdgeresError):
    """A converter gave up on a network."""


@contextmanager
def quiet(doing: str) -> Iterator[None]:
    """Silence Python and C++ output while a converter works.

    Raises:
        ConversionFailed: the converter raised; the message ends with the last thing it said.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    before = logging.root.manager.disable
    with tempfile.TemporaryFile() as said, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        kept = os.dup(1), os.dup(2)
        if not contained:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        try:
            yield
        except (EdgeresError, OSError, KeyboardInterrupt, MemoryError):
            raise
        except Exception as error:  # converters raise whatever they like
            if "can't start new thread" in str(error):
                raise ConversionFailed(
                    f"{doing} failed: a thread can't be started; end other programs or raise the "
                    f"limit (`ulimit -u`), and repeat"
                ) from error
            last = str(error).strip().splitlines() or [type(error).__name__]
            raise ConversionFailed(f"{doing} failed: {last[-1][:300]}") from error
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
            os.close(kept[0])
            os.close(kept[1])
            logging.disable(before)


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """Import something as if these weren't installed; one that is loaded already stays."""
    barred = {*packages} - sys.modules.keys()
    for name in barred:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in barred:
            del sys.modules[name]

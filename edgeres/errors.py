"""Every error a person can meet, one class per kind, each with its exit code.

    EdgeresError
    ├── GateFailed         1   a verification, an accuracy gate or a budget was not met
    ├── BadInput           2   a recipe, argument, data set or model file is wrong
    │   └── StorageError   2   the run folder can't be read or written
    ├── DeviceError        3   a device could not be used
    └── MissingComponent   4   an optional package is not installed; the message names the extra

A message is one sentence: what is wrong, where, and the mend. The command line prints it as it is,
without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MOST_LISTED = 30  # names in a message


class EdgeresError(Exception):
    """Base of all expected errors; `exit_code` is what the command line returns."""

    exit_code = 1


class GateFailed(EdgeresError):
    """A file or model was measured and did not meet its gate."""

    exit_code = 1


class BadInput(EdgeresError):
    """The user's recipe, argument, data set or model file can't be used."""

    exit_code = 2


class StorageError(BadInput):
    """The run folder or store can't be read or written (permissions, full disk)."""


class DeviceError(EdgeresError):
    """A device could not be reached, or did not do what it was asked."""

    exit_code = 3


class MissingComponent(EdgeresError):
    """An optional package is needed; the message names the extra to install."""

    exit_code = 4


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for the closest of `known`, or an empty string."""
    match = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f" (did you mean '{match[0]}'?)" if match else ""


def unknown(kind: str, name: str, known: Iterable[str]) -> BadInput:
    """Return the error for a name that is not one of `known`, with its nearest match."""
    known = sorted(known)
    more = f" and {len(known) - _MOST_LISTED:,} more" if len(known) > _MOST_LISTED else ""
    listed = f"known: {', '.join(known[:_MOST_LISTED])}{more}" if known else "there is none yet"
    return BadInput(f"unknown {kind} '{name}'{nearest(name, known)}; {listed}")

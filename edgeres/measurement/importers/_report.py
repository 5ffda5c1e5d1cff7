"""What importers share: a bounded read, and the report of what they found."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeres.disk import read_bounded
from edgeres.errors import BadInput
from edgeres.measurement import verdict
from edgeres.measurement.runners import Session

UNKNOWN_STATE = "imported: the state of the device is not known"
_LARGEST = 64 << 20


@dataclass(frozen=True)
class Imported:
    """What a file told.

    Attributes:
        session: its figures; without samples and median where it tells neither.
        loads_ns, firsts_ns: loading the file, and the first inference, of each process.
    """

    session: Session
    loads_ns: Sequence[int] = ()
    firsts_ns: Sequence[int] = ()
    memory: Mapping[str, Any] | None = None
    notes: Sequence[str] = field(default=())


def content(path: Path) -> bytes:
    """A file of at most 64 MiB.

    Raises:
        BadInput: it can't be read, or is larger.
    """
    return read_bounded(path, _LARGEST, "result")


def read(path: Path, source: str, parse: Callable[[bytes], Imported | None]) -> dict[str, Any]:
    """The report of a file that one tool wrote.

    Raises:
        BadInput: it can't be read, is too large, or isn't of that tool.
    """
    found = parse(content(path))
    if found is None:
        raise BadInput(f"{path}: not a result of {source}")
    return report(path, source, found)


def report(path: Path, source: str, found: Imported) -> dict[str, Any]:
    """Every field of a measured report; None or empty where the file doesn't tell."""
    session = found.session
    told = bool(session.samples_ns) or session.median_ns is not None
    return {
        "target": path.stem, "file_sha256": None, "size_bytes": None,
        "latency": verdict.latency([session]) if told else None,
        "cold": {"load_ns": list(found.loads_ns), "first_ns": list(found.firsts_ns)},
        "state_before": {}, "state_after": {},
        "runtime": dict(session.runtime), "build": dict(session.build),
        "notes": [*session.notes, *found.notes],
        "valid": False, "reasons": [UNKNOWN_STATE, *session.unsteady],
        "emulated": None, "measured_at": None, "device": None, "preset": None, "threads": None,
        "settings": None, "memory": found.memory, "energy": None,
        "accuracy": None, "source": source,
    }  # fmt: skip


def memory(peak_bytes: int | None, definition: str) -> dict[str, Any] | None:
    """A peak that nothing is to be subtracted from."""
    if not peak_bytes:
        return None
    return {"peak_rss_bytes": peak_bytes, "baseline_rss_bytes": None, "definition": definition}


def loads(data: bytes) -> Any:
    """JSON, None if it is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def scaled(value: Any, factor: float) -> int | None:
    """A time or a size as a whole number of ns or bytes; None if it is no positive number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        whole = float(value) * factor
    except OverflowError:
        return None
    return round(whole) if math.isfinite(whole) and 0 < whole < 1e18 else None


def all_scaled(values: Any, factor: float) -> list[int]:
    """The usable ones of a list of times."""
    found = (scaled(value, factor) for value in values) if isinstance(values, list) else ()
    return [value for value in found if value is not None]

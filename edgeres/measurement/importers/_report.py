"""What importers share: a bounded read, and the reports of what they found."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.disk import read_bounded
from edgeres.measurement import verdict
from edgeres.measurement.runners import Session

if TYPE_CHECKING:
    from edgeres.records import Memory, Report

UNKNOWN_STATE = "imported: the state of the device is not known"
_LARGEST = 64 << 20


@dataclass(frozen=True)
class Imported:
    """What a file told of one process.

    Attributes:
        session: its figures; without samples and median where it tells neither.
        loads_ns, firsts_ns: loading the file, and the first inference, of further processes.
        memory_bytes: the peak of resident memory.
        batch: images in a query; None if it isn't told.
        subject: what was measured and how; of one subject, each process is a session.
    """

    session: Session
    loads_ns: Sequence[int] = ()
    firsts_ns: Sequence[int] = ()
    memory_bytes: int | None = None
    notes: Sequence[str] = ()
    batch: int | None = None
    subject: str = ""


def content(path: Path) -> bytes:
    """A file of at most 64 MiB.

    Raises:
        BadInput: it can't be read, or is larger.
    """
    return read_bounded(path, _LARGEST, "result")


def reports(path: Path, source: str, found: Sequence[Imported]) -> list[Report]:
    """A report for each subject; several are numbered in the file's order."""
    subjects: dict[tuple[object, int | None], list[Imported]] = {}
    for number, one in enumerate(found):
        subjects.setdefault((one.subject or number, one.batch), []).append(one)
    several = len(subjects) > 1
    return [
        _report(f"{path.stem}#{number}" if several else path.stem, source, members,
                [f"measured: {members[0].subject[:200] or 'not told'}"] if several else [])
        for number, members in enumerate(subjects.values(), 1)
    ]  # fmt: skip


def _report(target: str, source: str, found: Sequence[Imported], notes: Sequence[str]) -> Report:
    """Every field of a measured report; None or empty where the file doesn't tell."""
    sessions, batch = [one.session for one in found], found[0].batch
    told = [s for s in sessions if s.samples_ns or s.median_ns is not None]
    peak = max((one.memory_bytes or 0 for one in found), default=0)
    said = dict.fromkeys(note for one in found for note in (*one.session.notes, *one.notes))
    assumed = [] if batch else ["it doesn't tell the batch: a query is taken as one image"]
    alone = ["one session: no interval"] if len(told) == 1 else []
    return {
        "target": target, "file_sha256": None, "size_bytes": None,
        "latency": verdict.latency(told, batch) if told else None,
        "cold": {"load_ns": _each(found, "load"), "first_ns": _each(found, "first")},
        "state_before": {}, "state_after": {},
        "runtime": dict(sessions[0].runtime), "build": dict(sessions[0].build),
        "notes": [*notes, *said, *assumed, *alone],
        "valid": False,
        "reasons": [UNKNOWN_STATE, *dict.fromkeys(r for s in sessions for r in s.unsteady)],
        "emulated": None, "measured_at": None, "device": None, "preset": None, "threads": None,
        "settings": None, "memory": _memory(source, peak), "energy": None,
        "accuracy": None, "source": source,
    }  # fmt: skip


def _each(found: Sequence[Imported], name: str) -> list[int]:
    """Every process's load or first inference."""
    own = (getattr(one.session, f"{name}_ns") for one in found)
    others = (ns for one in found for ns in getattr(one, f"{name}s_ns"))
    return [ns for ns in (*own, *others) if ns is not None]


def _memory(source: str, peak_bytes: int) -> Memory | None:
    """A peak that nothing is to be subtracted from."""
    if not peak_bytes:
        return None
    return {"peak_rss_bytes": peak_bytes, "baseline_rss_bytes": None,
            "definition": f"{source}'s peak of resident memory"}  # fmt: skip


def loads(data: bytes) -> object:
    """JSON, None if it is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def scaled(value: object, factor: float) -> int | None:
    """A time or a size as a whole number of ns or bytes; None if it is no positive number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        whole = float(value) * factor
    except OverflowError:
        return None
    return round(whole) if math.isfinite(whole) and 0 < whole < 1e18 else None


def all_scaled(values: object, factor: float) -> list[int]:
    """The usable ones of a list of times."""
    found = (scaled(value, factor) for value in values) if isinstance(values, list) else ()
    return [value for value in found if value is not None]

"""How a run stands: its events in, one word out. And the words that a person kept about it.

Both files are read as anybody's: bounded, no link followed, lines that aren't ours passed over.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from edgeres.disk import storage_errors, write_whole

NOTE = "note.txt"
_EVENTS = "events.jsonl"
_LAST = 1 << 20  # bytes of events that are looked at
_LONGEST_NOTE = 2000


@dataclass(frozen=True)
class State:
    """How a run stands.

    Attributes:
        word: "done", "failed" (a gate wasn't met) or "unfinished" (a step has begun, not ended; or
            nothing has begun).
        step: which step that is about; "" if it is none.
        at: when it was last worked at, ISO 8601 in UTC.
    """

    word: str
    step: str
    at: str

    @property
    def whole(self) -> bool:
        """Whether nothing failed and nothing is missing."""
        return self.word == "done"

    def __str__(self) -> str:
        return f"{self.word} ({self.step})" if self.step else self.word


def of(run: Path) -> State:
    """The state of a run's folder, by the last event of each step."""
    last: dict[str, str] = {}
    at = ""
    for line in _end(run / _EVENTS, _LAST).splitlines():
        try:
            event = json.loads(line)
            step, what, time = (str(event[key])[:100] for key in ("step", "event", "time"))
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        last[step], at = what, time
    at = at or datetime.fromtimestamp(run.stat().st_mtime, timezone.utc).isoformat()
    for word, event in (("failed", "gate failed"), ("unfinished", "started")):
        for step, what in last.items():
            if what == event:
                return State(word, step, at)
    return State("done" if last or _holds_something(run / "artifacts") else "unfinished", "", at)


def note(run: Path) -> str:
    """What a person noted of a run; "" if nothing."""
    return _end(run / NOTE, 4 * _LONGEST_NOTE).strip()[:_LONGEST_NOTE]


def write_note(run: Path, text: str) -> None:
    """Keep a note; an empty one takes the old one away."""
    with storage_errors(run):
        if text:
            write_whole(run / NOTE, text[:_LONGEST_NOTE])
        else:
            (run / NOTE).unlink(missing_ok=True)


def _holds_something(folder: Path) -> bool:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return any(entries)
    return False


def _end(path: Path, most: int) -> str:
    """The last bytes of a file as text; "" if there is none."""
    if path.is_symlink() or not path.is_file():
        return ""
    with storage_errors(path), path.open("rb") as file:
        file.seek(max(path.stat().st_size - most, 0))
        return file.read(most).decode("utf-8", "replace")

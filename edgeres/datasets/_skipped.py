"""Training pictures that couldn't be used, and were replaced: named once, and kept for the report.

They stand in a file of the stage's work folder, a line each, so that a training that was killed,
and one that is spread over processes, count all of them.
"""

from __future__ import annotations

import json
from pathlib import Path

from edgeres import procs, terminal
from edgeres.disk import append_line, read_bounded, storage_errors

_FILE = "skipped.jsonl"
_MOST_BYTES, _MOST_NAMED = 64 << 20, 5


class Skipped:
    """Those of one training.

    Args:
        folder: where they are kept; None: nowhere.
    """

    def __init__(self, folder: Path | None):
        self._file = folder and folder / _FILE
        self._known = dict(_lines(self._file)) if self._file else {}

    def add(self, name: str, why: str) -> None:
        """Name one, unless it is known."""
        name, why = terminal.escaped(name), terminal.escaped(why)
        if name in self._known:
            return
        self._known[name] = why
        if procs.first():
            terminal.remark(f"note: {name}: {why}; the next one of its class is taken in its place")
        if self._file:
            with storage_errors(self._file):
                append_line(self._file, json.dumps([name, why]).encode())


def notes(work: Path) -> list[str]:
    """What is to be said of a stage's work folder, in one line, if there is anything."""
    found = {name: why for file in sorted(work.rglob(_FILE)) for name, why in _lines(file)}
    if not found:
        return []
    named = "; ".join(f"{name}: {why}" for name, why in list(found.items())[:_MOST_NAMED])
    more = f"; and {len(found) - _MOST_NAMED:,} more" if len(found) > _MOST_NAMED else ""
    were = "training picture was" if len(found) == 1 else "training pictures were"
    return [f"{len(found):,} {were} replaced by the next of the class: {named}{more}"]


def _lines(file: Path) -> list[tuple[str, str]]:
    """Name and reason of each; a killed process's last line may be none."""
    found = []
    for line in read_bounded(file, _MOST_BYTES, "list").splitlines() if file.exists() else ():
        try:
            name, why = json.loads(line)
        except ValueError:
            continue
        found.append((str(name), str(why)))
    return found

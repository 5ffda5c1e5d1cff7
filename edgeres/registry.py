"""The registry: which run is `stable`, which is `canary`, how it came to that, what was bundled.

A folder of numbered JSON files beside the runs, one per promotion or rollback, and one per bundle
below `bundles/`. They are only ever added, each in one step, so that a crash leaves either the old
state or the new one; what a channel points to is what its last entry says.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from edgeres import door
from edgeres.disk import storage_errors
from edgeres.errors import BadInput, GateFailed
from edgeres.shape import one_of, some, text, truth, wrong

CHANNELS = ("stable", "canary")
_ENTRY = {
    "number": some, "channel": one_of(*CHANNELS), "action": one_of("promote", "rollback"),
    "run": door.is_plain, "artifacts": {"*": text}, "passed": truth, "findings": [text],
    "reason": text, "at": text,
}  # fmt: skip
_FOLDER = "registry"


@dataclass(frozen=True)
class Entry:
    """One step of a channel.

    Attributes:
        run: the run's name; artifacts: its steps and the digests of their contents.
        passed: whether its gates were met; findings: those that were not.
        reason: why it was promoted all the same, or rolled back.
    """

    number: int
    channel: str
    action: str
    run: str
    artifacts: Mapping[str, str]
    passed: bool
    findings: tuple[str, ...]
    reason: str
    at: str


def history(runs: Path, channel: str | None = None) -> list[Entry]:
    """Every entry, the oldest first.

    Raises:
        BadInput: no such channel, or an entry can't be read.
    """
    _checked(channel or CHANNELS[0])
    found = [_read(path) for path in sorted(_entries(runs / _FOLDER).values())]
    return [e for e in found if channel in (None, e.channel)]


def current(runs: Path, channel: str) -> Entry | None:
    """What a channel points to; None before its first promotion."""
    entries = history(runs, channel)
    return entries[-1] if entries else None


def channels_of(runs: Path, run: str) -> list[str]:
    """The channels that point to a run."""
    entries = {channel: current(runs, channel) for channel in CHANNELS}
    return [channel for channel, entry in entries.items() if entry and entry.run == run]


def promote(
    runs: Path, channel: str, run: str, artifacts: Mapping[str, str],
    findings: tuple[str, ...], reason: str,
) -> Entry:  # fmt: skip
    """Point a channel to a run.

    Raises:
        GateFailed: its gates fail and no reason is given.
        BadInput: no such channel.
    """
    _checked(channel)
    if findings and not reason:
        raise GateFailed(f"{run} isn't promoted: {'; '.join(findings)}; with --reason WHY it is, "
                         "and the reason is kept")  # fmt: skip
    return _append(runs, channel, "promote", run, artifacts, findings, reason)


def before(runs: Path, channel: str) -> Entry:
    """The promotion that a rollback goes back to: the one before the present one.

    Raises:
        BadInput: no such channel, or nothing to go back to.
    """
    kept: list[Entry] = []
    for entry in history(runs, channel):
        if entry.action == "promote":
            kept.append(entry)
        elif kept:
            kept.pop()
    if len(kept) < 2:
        raise BadInput(f"{channel}: there is no earlier run to go back to")
    return kept[-2]


def rollback(runs: Path, channel: str, reason: str) -> Entry:
    """Point a channel to the run before the present one; again: to the one before that.

    Raises:
        BadInput: no such channel, or nothing to go back to.
    """
    to = before(runs, channel)
    return _append(runs, channel, "rollback", to.run, to.artifacts, to.findings, reason)


def bundle_number(runs: Path, run: str, contents: str) -> tuple[int, int]:
    """A bundle's serial, and when it was made, in seconds since 1970.

    The same contents have the numbers that they got the first time. A serial is larger than every
    one before, and at least the time, so that it grows from one folder of runs to the next, too.

    Args:
        contents: hash of all that is in it.

    Raises:
        BadInput: SOURCE_DATE_EPOCH, which stands for now if it is set, is no time; or an entry
            can't be read.
    """
    folder, now = runs / _FOLDER / "bundles", _now()
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            known = [_read_bundle(path) for path in folder.glob("[0-9]*.json")]
            for serial, created, before in known:
                if before == contents:
                    return serial, created
            serial = max(now, *(serial + 1 for serial, _, _ in known), 1)
            entry = {"serial": serial, "created": now, "run": run, "contents": contents}
            if _placed(folder / f"{serial:012}.json", json.dumps(entry, indent=1)):
                return serial, now


def _now() -> int:
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is None:
        return int(time.time())
    if not (given.isascii() and given.isdigit() and len(given) <= 11):
        raise BadInput(f"SOURCE_DATE_EPOCH: {given[:40]!r} is no number of seconds since 1970")
    return int(given)


def _read_bundle(path: Path) -> tuple[int, int, str]:
    try:
        entry = door.read_json(path)
        serial, created, contents = entry["serial"], entry["created"], entry["contents"]
        if not (type(serial) is type(created) is int and 0 <= created < 10**11 > serial > 0):
            raise ValueError
        return serial, created, contents
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{path}: not an entry of the registry ({type(error).__name__})") from error


def _append(
    runs: Path, channel: str, action: str, run: str, artifacts: Mapping[str, str],
    findings: tuple[str, ...], reason: str,
) -> Entry:  # fmt: skip
    folder = runs / _FOLDER
    at = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            number = max(_entries(folder), default=0) + 1
            entry = Entry(number, channel, action, run, dict(artifacts), not findings, findings,
                          reason, at)  # fmt: skip
            if _placed(folder / f"{number:06}.json", json.dumps(asdict(entry), indent=1)):
                return entry


def _placed(path: Path, text: str) -> bool:
    """Write a file whole or not at all; False if another process took its name meanwhile."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        try:
            os.link(file.name, path)  # unlike a rename, never replaces what is there
        except FileExistsError:
            return False
    return True


def _entries(folder: Path) -> dict[int, Path]:
    """Number -> file of each entry."""
    found = folder.glob("[0-9]*.json")
    return {int(p.stem): p for p in found if p.stem.isascii() and p.stem.isdigit()}


def _read(path: Path) -> Entry:
    fields = door.read_json(path)
    if misfit := wrong(_ENTRY, fields):
        raise BadInput(f"{path}: not an entry of the registry ({misfit})")
    known = {name: fields[name] for name in _ENTRY}
    return Entry(**{**known, "findings": tuple(fields["findings"])})


def _checked(channel: str) -> None:
    if channel not in CHANNELS:
        raise BadInput(f"there is no channel '{channel}', only {' and '.join(CHANNELS)}")

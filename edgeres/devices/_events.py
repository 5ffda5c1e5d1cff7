"""Talking to the runner. In: a device and the runner's arguments. Out: the events it printed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.errors import DeviceError

if TYPE_CHECKING:
    from edgeres.devices import Completed, Device

RUNNER = Path(__file__).with_name("_runner.py")
_STATE_TIMEOUT_S = 120.0
_IDENTITY = ("cpu_model", "cores", "machine", "system", "emulated")


def run_runner(
    device: Device, arguments: Sequence[str], timeout_s: float
) -> dict[str, dict[str, object]]:
    """Run `_runner.py` on a device in a fresh process and return its events by name.

    Raises:
        DeviceError: it failed, or did not finish in `timeout_s`; with what it said last.
    """
    remote = device.push(RUNNER)
    done = device.run([*device.python(), remote, *arguments], timeout_s)
    events = {}
    for line in done.stdout.splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue  # a runtime may print lines of its own
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            events[event["event"]] = event
    if done.returncode != 0 or "done" not in events:
        raise DeviceError(f"device '{device.name}': {_last_words(done, events)}")
    return events


def probe(device: Device, emulated: bool) -> dict[str, object]:
    """The device's state as the runner reports it; `emulated` is what the profile says."""
    events = run_runner(device, ["--mode", "state"], _STATE_TIMEOUT_S)
    state = {key: value for key, value in events.get("state", {}).items() if key != "event"}
    if missing := [key for key in (*_IDENTITY, "release", "runtimes") if key not in state]:
        raise DeviceError(f"device '{device.name}': its state lacks {missing[0]}")
    state["emulated"] = bool(state["emulated"]) or emulated
    return state


def identity(state: Mapping[str, object]) -> str:
    """A stable id of the machine and its runtimes, from a probed state; not of time or load."""
    parts = [state[key] for key in _IDENTITY]
    parts += [str(state["release"]).split(".")[0], state["runtimes"]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _last_words(done: Completed, events: Mapping[str, Mapping[str, object]]) -> str:
    """Why the runner failed, in its own words if it had any."""
    if "error" in events:
        return last_line(str(events["error"].get("message")))
    if done.returncode < 0:
        how = f"the runner was ended by signal {-done.returncode}"
    else:
        how = f"the runner ended with exit status {done.returncode}"
    said = last_line(done.stderr) or last_line(done.stdout)
    return f"{how}; it last said: {said}" if said else how


def last_line(text: str) -> str:
    """The last line that is not blank, shortened, and harmless to a terminal."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "".join(c if c.isprintable() else " " for c in lines[-1][:300]) if lines else ""

"""Devices: the machines a model file is measured on.

In: a profile (YAML: how to reach a device). Out: an open Device that can take files, run a program,
give files back and describe itself. A module in this folder is one kind of transport, with
`connect(profile) -> Device` and `SETTINGS`, what a profile may set. What runs files over there is
in `edgeres.measurement.runners`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from edgeres import errors, runtimes
from edgeres.devices._events import RUNNER, identity, probe, run_runner
from edgeres.devices._profiles import (
    ESTIMATE,
    WHERE,
    DeviceProfile,
    Setting,
    allow_programs,
    folder,
    load,
    names,
    own_folder,
    profiles,
)

__all__ = [
    "ESTIMATE",
    "RUNNER",
    "Completed",
    "Device",
    "DeviceProfile",
    "Meter",
    "Setting",
    "allow_programs",
    "folder",
    "identity",
    "identity_of",
    "kinds",
    "load",
    "measured_with",
    "names",
    "open_device",
    "own_folder",
    "probe",
    "profiles",
    "require_running",
    "run_runner",
]


@dataclass(frozen=True)
class Completed:
    """A program that ran to its end. A negative `returncode` is the signal that ended it."""

    returncode: int
    stdout: str
    stderr: str


class Meter(Protocol):
    """Reads a device's power while its `with` block lasts."""

    def __enter__(self) -> Meter: ...

    def __exit__(self, *error: object) -> None: ...

    def watts(self) -> list[dict[str, float]]:
        """The readings so far: `total` and each rail, in watts."""
        ...


class Device(Protocol):
    """An open connection to one device; leaving its `with` block closes it."""

    @property
    def profile(self) -> DeviceProfile:
        """What it was opened with."""
        ...

    @property
    def name(self) -> str:
        """The profile's name."""
        ...

    @property
    def address(self) -> str:
        """Which machine this is, whatever the profile's name: two profiles may mean one phone."""
        ...

    def push(self, local: Path) -> str:
        """Copy a file over unless the same content is there; returns its path on the device."""
        ...

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the device."""
        ...

    def run(self, argv: Sequence[str], timeout_s: float) -> Completed:
        """Run a program to its end; DeviceError if that takes longer than `timeout_s` seconds."""
        ...

    def python(self) -> tuple[str, ...]:
        """The start of a command line: a Python on the device that has the runtimes."""
        ...

    def probe(self) -> dict[str, Any]:
        """What the device is and how it is doing now (JSON-ready; None where unreadable)."""
        ...

    def identity(self) -> str:
        """A stable id of machine and runtimes, for caching."""
        ...

    def steady(self) -> AbstractContextManager[dict[str, Any]]:
        """Set the power mode and clocks that the profile asks for, and restore them afterwards.

        Yields what was set (JSON-ready). What was there comes back even if this process is killed.
        """
        ...

    def meter(self) -> Meter | None:
        """A reader of the device's power; None where it can't be read."""
        ...

    def close(self) -> None:
        """Remove what was left on the device. Safe to call twice."""
        ...

    def __enter__(self) -> Device: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def kinds() -> list[str]:
    """The kinds of device: one module of this folder each."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def require_running(profile: DeviceProfile) -> None:
    """Refuse an estimate, on which nothing can be run.

    Raises:
        BadInput: it is one.
    """
    if profile.kind == ESTIMATE:
        raise errors.BadInput(f"device '{profile.name}' is an estimate and runs nothing: it is for "
                              "prune and search, and for verify --on")  # fmt: skip


def open_device(profile: DeviceProfile) -> Device:
    """Connect to the device of a profile.

    Raises:
        BadInput: the profile's kind is unknown or its settings are wrong.
        DeviceError: the device can't be reached.
    """
    require_running(profile)
    if profile.kind not in kinds():
        raise errors.unknown("device kind", profile.kind, kinds())
    module = importlib.import_module(f"{__name__}.{profile.kind}")
    device: Device = module.connect(profile)
    return device


def measured_with(profile: DeviceProfile) -> dict[str, Any]:
    """What of a profile decides a measurement (JSON-ready): all but its words about the device, and
    the address, at which the same machine may be found anew."""
    known = asdict(profile)
    del known["description"]
    known["settings"].pop(WHERE.get(profile.kind), None)
    return known


def identity_of(name: str) -> str | None:
    """The identity of a device that can be reached; None of one that is away."""
    profile = load(name)
    if profile.kind == ESTIMATE:
        return runtimes.identity(profile.name)
    try:
        with open_device(profile) as device:
            return device.identity()
    except errors.DeviceError:
        return None

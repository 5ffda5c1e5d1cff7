"""Devices: the machines a model file is measured on.

In: a profile (YAML: how to reach a device). Out: an open Device that can take files, run a program,
give files back and describe itself. A kind of device is a module, found by its name
(edgeres.plugins): `connect(profile) -> Device` and `SETTINGS`, what a profile may set. What runs
files over there is in `edgeres.measurement.runners`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from edgeres import errors, runtimes
from edgeres.devices._base import Base, settings
from edgeres.devices._events import RUNNER, identity, probe, run_runner
from edgeres.devices._profiles import (
    ESTIMATE,
    DeviceProfile,
    Setting,
    allow_programs,
    folder,
    load,
    names,
    own_folder,
    profiles,
)
from edgeres.plugins import Plugins

__all__ = [
    "ESTIMATE",
    "RUNNER",
    "Base",
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
    "settings",
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

    def probe(self) -> dict[str, object]:
        """What the device is and how it is doing now (JSON-ready; None where unreadable)."""
        ...

    def identity(self) -> str:
        """A stable id of machine and runtimes, for caching."""
        ...

    def steady(self) -> AbstractContextManager[dict[str, object]]:
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


class Kind(Protocol):
    """What the module of a kind of device provides (PEP 544: a module fits, `self` is ignored).

    Optional: `WHERE`, the setting that says which machine it is; `discover() -> list`, rows of what
    can be reached now.
    """

    SETTINGS: Mapping[str, Setting]

    def connect(self, profile: DeviceProfile) -> Device:
        """Open the device of a profile.

        Raises:
            BadInput: a setting is unknown, or of another type.
            DeviceError: it can't be reached.
        """
        ...


PLUGINS = Plugins("device kind", __name__, Kind)


def kinds() -> list[str]:
    """The kinds of device."""
    return sorted(PLUGINS.names())


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
        MissingComponent: the kind is a package's, and can't be used.
    """
    require_running(profile)
    device: Device = PLUGINS.load(profile.kind).connect(profile)
    return device


def measured_with(profile: DeviceProfile) -> dict[str, object]:
    """What of a profile decides a measurement (JSON-ready): all but its words about the device, and
    the address, at which the same machine may be found anew."""
    known = asdict(profile)
    del known["description"]
    if profile.kind != ESTIMATE:
        known["settings"].pop(getattr(PLUGINS.find(profile.kind), "WHERE", None), None)
        if plugin := PLUGINS.provenance(profile.kind):
            known["plugin"] = plugin
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

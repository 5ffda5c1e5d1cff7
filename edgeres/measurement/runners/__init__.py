"""Runners: the programs that run a model file on a device.

In: an open device, a file and its inputs. Out: what one fresh process there measured, or the
outputs it gave. A module in this folder is one program, with `SUFFIXES` and
`load(device, work) -> Loaded`. A device's profile lists the runners it is to be used with.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from edgeres import errors
from edgeres.devices import Device, DeviceProfile

if TYPE_CHECKING:
    import numpy as np

    from edgeres.records import Memory
    from edgeres.types import TensorSpec

STARTUP_S = 120.0
"""What a process may take to start, load a file and answer once, in seconds."""


@dataclass(frozen=True)
class Preset:
    """How long a session measures: until both minima are met, or the cap is reached.

    Attributes:
        sessions: how many processes measure each file.
    """

    min_queries: int
    min_seconds: float
    max_seconds: float
    max_warmup_seconds: float = 8.0
    sessions: int = 6  # the fewest whose range is a 95 % interval of their median


@dataclass(frozen=True)
class Work:
    """A file to be run on a device.

    Attributes:
        inputs: encoded samples (N, ...) in the file's own type and layout.
        input, output: what the file takes and gives.
        folder: a scratch folder on this machine, empty, for this file alone.
    """

    path: Path
    inputs: np.ndarray
    input: TensorSpec
    output: TensorSpec
    threads: int
    folder: Path


@dataclass(frozen=True)
class Session:
    """What one fresh process measured.

    Attributes:
        samples_ns: each query's latency; empty where the program keeps them to itself.
        median_ns, p90_ns, p95_ns, p99_ns, min_ns, max_ns, n: the program's own, only where there
            are no samples.
        load_ns, first_ns: loading the file, and the first inference; None if unknown.
        settled: whether the warm-up ended because latency was stable; None if it isn't watched.
        runtime: name, version, and the accelerator that really computed.
        notes: what the program said that bears on the result.
        unsteady: its own doubts about the result, in sentences.
    """

    runtime: Mapping[str, object]
    samples_ns: Sequence[int] = ()
    n: int = 0
    median_ns: float | None = None
    p90_ns: float | None = None
    p95_ns: float | None = None
    p99_ns: float | None = None
    min_ns: float | None = None
    max_ns: float | None = None
    load_ns: int | None = None
    first_ns: int | None = None
    settled: bool | None = None
    notes: Sequence[str] = ()
    unsteady: Sequence[str] = ()
    build: Mapping[str, object] = field(default_factory=dict)


class Loaded(Protocol):
    """A file that is on the device, ready to be run."""

    def session(self, preset: Preset) -> Session:
        """Measure latency in a fresh process."""
        ...

    def memory(self) -> Memory | None:
        """Peak memory of a process of its own, in bytes, with its definition; None if unknown."""
        ...

    def outputs(self, inputs: np.ndarray) -> np.ndarray | None:
        """Encoded inputs (N, ...) -> raw outputs (N, C); None where the program can't give them."""
        ...


class Runner(Protocol):
    """What a module in this folder provides (PEP 544: a module fits, `self` is ignored)."""

    SUFFIXES: tuple[str, ...]

    def missing(self, device: Device, state: Mapping[str, object]) -> list[str]:
        """What the device lacks to run such files, each with the command that mends it."""
        ...

    def load(self, device: Device, work: Work) -> Loaded:
        """Bring a file to the device.

        Raises:
            DeviceError: it can't be brought there, or the program is missing; says the mend.
        """
        ...


def names() -> list[str]:
    """The runners there are: one module of this folder each."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def load(name: str) -> Runner:
    """A runner by its name.

    Raises:
        BadInput: there is no such runner.
    """
    if name not in names():
        raise errors.unknown("runner", name, names())
    runner: object = importlib.import_module(f"{__name__}.{name}")
    return cast(Runner, runner)


def of(profile: DeviceProfile, path: Path) -> Runner | None:
    """The first of the profile's runners that runs such a file; None if there is none.

    Raises:
        BadInput: the profile names a runner that doesn't exist.
    """
    fitting = (r for r in map(load, profile.runners) if path.name.endswith(tuple(r.SUFFIXES)))
    return next(fitting, None)

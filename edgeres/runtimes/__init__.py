"""Runtimes: what runs or compiles a file elsewhere, asked on this machine.

A module in this folder is one runtime (or a family of them, `NAMES`), found by its file name. Its
`ask` runs in a process of its own, in an environment of its own (`_environment`); `_asking` starts
it. This file says which runtimes there are, and whether they can be asked here.
"""

from __future__ import annotations

import importlib
import pkgutil
import platform
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast

from edgeres.disk import file_sha256
from edgeres.errors import MissingComponent, unknown
from edgeres.runtimes import _environment


class Module(Protocol):
    """What a module in this folder provides.

    It is loaded in the runtime's environment, too, where edgeres isn't: nothing of edgeres is
    imported, and what the runtime brings only inside functions.

    Optional: `ACCEPT = True`, its licence has to be accepted before it is installed; `GLIBC`, the
    lowest version of the C library; `missing() -> str | None`, what else this machine lacks;
    `COMPILED`, names that only compile, and how; `ESTIMATES = True`, it says a latency. A file of
    its name in `locks` lists its packages; without one it is asked in edgeres' own environment.
    What it is known to compute wrongly is a row in `_faults`.
    """

    SUMMARY: str
    NAMES: Mapping[str, str]  # what a person calls it -> the option that `ask` gets
    TAKES: tuple[str, ...]  # targets
    HOW: str  # whether it computes, simulates or estimates
    LICENCE: str
    LIMITS: Mapping[str, float]  # gates: agreement, worst_codes; of names that give answers

    def ask(self, question: Any) -> dict[str, Any]:
        """What it says of a file (`_child.Question`).

        Returns:
            version, device, taken (operators; None: all that aren't refused), refused (a sentence
            for each), memory_bytes (kind -> bytes), cycles, latency_ns (an estimate), outputs (raw,
            one row per image), or error.
        """
        ...


def modules() -> tuple[str, ...]:
    """The runtimes, by module name."""
    return tuple(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def module(name: str) -> Module:
    """A runtime's module by its own name."""
    return cast("Module", importlib.import_module(f"edgeres.runtimes.{name}"))


@cache
def names() -> dict[str, str]:
    """What a person may ask -> the module that answers."""
    return {name: m for m in modules() for name in module(m).NAMES}


def load(name: str) -> Module:
    """The module of a runtime such as `tflm`.

    Raises:
        BadInput: no such runtime.
    """
    if name not in names():
        raise unknown("runtime", name, names())
    return module(names()[name])


def missing(name: str) -> str | None:
    """Why a runtime can't be asked here, and the mend; None if it can.

    Raises:
        BadInput: no such runtime.
    """
    found, own = load(name), names()[name]
    if _environment.lock(own) is not None:
        if unfit := unfitting(own):
            return unfit
        if not _environment.installed(own):
            return f"it isn't installed: edgeres runtimes install {name}"
    lacks = getattr(found, "missing", None)
    return cast("str | None", lacks()) if lacks else None


def installed(name: str) -> bool:
    """Whether a runtime's packages are there, or could not be on this machine."""
    own = names()[name]
    own_packages = _environment.lock(own) is not None and unfitting(own) is None
    return not own_packages or _environment.installed(own)


def sisters(name: str) -> list[str]:
    """The other runtimes that have the same environment."""
    return [other for other, own in names().items() if own == names()[name] and other != name]


def unfitting(own: str) -> str | None:
    """Why a module's packages can't be had on this machine; None if they can."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "its packages are for Linux on x86-64"
    wanted = getattr(module(own), "GLIBC", (0, 0))
    said = platform.libc_ver()[1].split(".")
    have = tuple(int(part) for part in said[:2] if part.isdigit())
    if have and have < wanted:
        return (f"it needs glibc {'.'.join(map(str, wanted))} or newer; this system has "
                f"{'.'.join(said)}")  # fmt: skip
    return None


def require(name: str) -> None:
    """Make sure that a runtime can be asked.

    Raises:
        BadInput: no such runtime.
        MissingComponent: it can't be asked here; names the mend.
    """
    if why := missing(name):
        raise MissingComponent(f"runtime '{name}' can't be asked: {why}")


def answers(name: str) -> bool:
    """Whether a runtime gives answers; one that doesn't only compiles."""
    return name not in getattr(load(name), "COMPILED", {})


def estimates() -> list[str]:
    """The runtimes that estimate how long a file takes on what they compile it for."""
    return [name for name in names() if getattr(load(name), "ESTIMATES", False)]


def how(name: str) -> str:
    """Whether a runtime computes, simulates or only compiles."""
    module = load(name)
    return cast("str", getattr(module, "COMPILED", {}).get(name, module.HOW))


def identity(name: str) -> str:
    """What a runtime's answers depend on beside the file: its module and its packages.

    Raises:
        BadInput: no such runtime.
    """
    load(name)
    own = names()[name]
    return f"{file_sha256(source(own))[:12]} {_environment.digest(own)}"


def source(own: str) -> Path:
    """The file of a module, which its environment's interpreter loads."""
    return Path(__file__).with_name(f"{own}.py")


def install(name: str, accept: bool, say: Callable[[str], None]) -> None:
    """Make a runtime's environment, with the packages that its lock file pins by hash.

    Args:
        accept: a licence that has to be accepted is.
        say: gets a line for people.

    Raises:
        BadInput: no such runtime.
        MissingComponent: it can't be had on this machine, its licence isn't accepted, or the
            packages can't be installed (the sentence says why).
    """
    found, own = load(name), names()[name]
    if _environment.lock(own) is None:
        require(name)
        say(f"{name}: nothing to install, it comes with edgeres")
        return
    if unfit := unfitting(own):
        raise MissingComponent(f"runtime '{name}' can't be installed: {unfit}")
    if _environment.installed(own):
        say(f"{name}: installed already")
        return
    if getattr(found, "ACCEPT", False) and not accept:
        raise MissingComponent(
            f"runtime '{name}' has a licence of its own: {found.LICENCE}; read it, and install "
            f"with --accept-licence: edgeres runtimes install {name} --accept-licence"
        )
    say(f"{name}: licence {found.LICENCE}")
    _environment.make(name, own)
    say(f"{name}: installed in {_environment.place(own)}")


def remove(name: str) -> bool:
    """Delete a runtime's environment; whether there was one.

    Raises:
        BadInput: no such runtime.
    """
    load(name)
    return _environment.remove(names()[name])

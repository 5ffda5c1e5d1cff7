"""Runtimes: what runs or compiles a file elsewhere, asked on this machine.

A module is one runtime (or a family of them, `NAMES`), edgeres' own or a package's
(edgeres.plugins). Its `ask` runs in a process of its own, in an environment of its own
(`_environment`); `_asking` starts it. This file says which runtimes there are, and whether they can
be asked here.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from edgeres.disk import file_sha256
from edgeres.errors import MissingComponent
from edgeres.plugins import Installed, Plugins
from edgeres.runtimes import _environment

if TYPE_CHECKING:
    from edgeres.runtimes._child import Question


class Module(Protocol):
    """What a runtime's module provides.

    It is loaded in the runtime's environment, too, where edgeres isn't: nothing of edgeres is
    imported, and what the runtime brings only inside functions.

    Optional: `ACCEPT = True`, its licence has to be accepted before it is installed; `GLIBC`, the
    lowest version of the C library; `missing() -> str | None`, what else this machine lacks;
    `COMPILED`, names that only compile, and how; `ESTIMATES = True`, it says a latency. A file of
    its name in the folder `locks` beside it lists its packages; without one it is asked in edgeres'
    own environment.
    What it is known to compute wrongly is a row in `_faults`.
    """

    SUMMARY: str
    NAMES: Mapping[str, str]  # what a person calls it -> the option that `ask` gets
    TAKES: tuple[str, ...]  # targets
    HOW: str  # whether it computes, simulates or estimates
    LICENCE: str
    LIMITS: Mapping[str, float]  # gates: agreement, worst_codes; of names that give answers

    def ask(self, question: Question) -> dict[str, object]:
        """What it says of a file (`_child.Question`).

        Returns:
            version, device, taken (operators; None: all that aren't refused), refused (a sentence
            for each), memory_bytes (kind -> bytes), cycles, latency_ns (an estimate), outputs (raw,
            one row per image), or error.
        """
        ...


PLUGINS = Plugins("runtime", __name__, Module)


def modules() -> tuple[str, ...]:
    """The runtimes of edgeres, by module name."""
    return PLUGINS.own


def module(own: str) -> Module:
    """A runtime's module by its own name."""
    return cast("Module", PLUGINS.load(own))


@cache
def _own_names() -> dict[str, str]:
    return {name: m for m in modules() for name in module(m).NAMES}


def names() -> dict[str, str]:
    """What a person may ask -> the module that answers."""
    others = {name: p.name for p, found in PLUGINS.usable() for name in found.NAMES}
    return _own_names() | {name: own for name, own in others.items() if name not in _own_names()}


def module_name(name: str) -> str:
    """The module that answers for a runtime such as `tflm`.

    Raises:
        BadInput: no such runtime, or two packages have it.
        MissingComponent: it is a package's, and can't be used.
    """
    if name in _own_names():
        return _own_names()[name]
    found: list[Installed] = [p for p, module in PLUGINS.usable() if name in module.NAMES]
    if len(found) > 1:
        raise PLUGINS.twice(name, found)
    if not found:
        PLUGINS.find(name)  # says why, if it is a package's that can't be used
        raise PLUGINS.unknown(name, tuple(names()))
    return found[0].name


def load(name: str) -> Module:
    """The module of a runtime such as `tflm`; raises as `module_name`."""
    return module(module_name(name))


def missing(name: str) -> str | None:
    """Why a runtime can't be asked here, and the mend; None if it can.

    Raises:
        BadInput: no such runtime.
    """
    found, own = load(name), module_name(name)
    if _environment.lock(own) is not None:
        if unfit := unfitting(own):
            return unfit
        if not _environment.installed(own):
            return f"it isn't installed: edgeres runtimes install {name}"
    lacks = getattr(found, "missing", None)
    return cast("str | None", lacks()) if lacks else None


def installed(name: str) -> bool:
    """Whether a runtime's packages are there, or could not be on this machine."""
    own = module_name(name)
    own_packages = _environment.lock(own) is not None and unfitting(own) is None
    return not own_packages or _environment.installed(own)


def sisters(name: str) -> list[str]:
    """The other runtimes that have the same environment."""
    return [other for other in load(name).NAMES if other != name]


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
    return [name for name, own in names().items() if getattr(module(own), "ESTIMATES", False)]


def is_estimate(name: str) -> bool:
    """Whether a name is one of `estimates`; of edgeres' own, without a look at packages."""
    own = _own_names().get(name)
    return getattr(module(own), "ESTIMATES", False) if own else name in estimates()


def how(name: str) -> str:
    """Whether a runtime computes, simulates or only compiles."""
    module = load(name)
    return cast("str", getattr(module, "COMPILED", {}).get(name, module.HOW))


def identity(name: str) -> str:
    """What a runtime's answers depend on beside the file: its module and its packages.

    Raises:
        BadInput: no such runtime.
    """
    own = module_name(name)
    return f"{file_sha256(source(own))[:12]} {_environment.digest(own)}"


def source(own: str) -> Path:
    """The file of a module, which its environment's interpreter loads."""
    return Path(str(PLUGINS.load(own).__file__))


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
    found, own = load(name), module_name(name)
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
    return _environment.remove(module_name(name))

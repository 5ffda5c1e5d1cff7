"""Plugins: modules of one kind, edgeres' own or an installed package's, found by their name.

edgeres' own are the files in the kind's folder. A package's are entry points, in a group that is
called as that folder:

    [project.entry-points."edgeres.targets"]
    npz = "acme.npz"

An installed package is code that its user trusts. Packages are looked at only where a name isn't
edgeres' own, or for a list; never in the working folder. A plugin that can't be used stops only who
asks for it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from edgeres.errors import BadInput, EdgeresError, MissingComponent, unknown

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_KINDS: Mapping[str, type] = {"str": str, "int": int, "bool": bool, "tuple": tuple,
                              "Mapping": Mapping, "None": type(None)}  # fmt: skip


@dataclass(frozen=True)
class Installed:
    """A plugin of a package, as that package's notes have it; nothing of it is loaded.

    Attributes:
        value: where it is, `package.module`.
    """

    name: str
    value: str
    package: str
    version: str

    @property
    def origin(self) -> str:
        """`acme-edge 1.0`."""
        return f"{self.package} {self.version}"


class Plugins:
    """The plugins of one kind. `-` and `_` in names are the same.

    Args:
        kind: as people call one.
        folder: the package of edgeres with its own ones, `edgeres.targets`; the group's name, too.
        protocol: what a module has to have: its attributes and functions.
        unfit: why a package's module can't be one all the same; None if it can.
    """

    def __init__(
        self, kind: str, folder: str, protocol: type,
        unfit: Callable[[ModuleType], str | None] = lambda module: None,
    ):  # fmt: skip
        self.kind, self.folder, self.protocol, self.unfit = kind, folder, protocol, unfit

    @functools.cached_property
    def own(self) -> tuple[str, ...]:
        """Names of edgeres' own."""
        below = [str(Path(__file__).parents[1].joinpath(*self.folder.split(".")))]
        return tuple(m.name for m in pkgutil.iter_modules(below) if not m.name.startswith("_"))

    def installed(self) -> tuple[Installed, ...]:
        """Those of packages, whether they can be used or not."""
        return _installed(_path()).get(self.folder, ())

    def names(self) -> tuple[str, ...]:
        """Every name that somebody may ask for; nothing of a package is loaded."""
        others = dict.fromkeys(p.name for p in self.installed() if not self._has(p.name))
        return (*self.own, *sorted(others))

    def find(self, name: str) -> Any | None:
        """The module of this name; None if there is none.

        Raises:
            BadInput: two packages have one of this name.
            MissingComponent: it can't be used; says why.
        """
        if (own := self._has(name)) is not None:
            return importlib.import_module(f"{self.folder}.{own}")
        plugin = self.of_package(name)
        return self._loaded(plugin) if plugin else None

    def load(self, name: str) -> Any:
        """The module of this name; raises as `find`, and BadInput where there is none."""
        found = self.find(name)
        if found is None:
            raise self.unknown(name, self.names())
        return found

    def of_package(self, name: str) -> Installed | None:
        """Which package's plugin a name stands for; None: edgeres' own, or nobody's.

        Raises:
            BadInput: two packages have one of this name.
        """
        if self._has(name) is not None:
            return None
        found = [p for p in self.installed() if _key(p.name) == _key(name)]
        if len(found) > 1:
            raise self.twice(name, found)
        return found[0] if found else None

    def usable(self) -> Iterator[tuple[Installed, ModuleType]]:
        """The plugins of packages that can be used, loaded."""
        for plugin in self.installed():
            if self.trouble(plugin) is None:
                yield plugin, self._loaded(plugin)

    def trouble(self, plugin: Installed) -> str | None:
        """Why a package's plugin can't be used, a sentence; None if it can."""
        try:
            if self._has(plugin.name) is not None:
                raise self._broken(plugin, "edgeres has its own of this name, which is used")
            self.of_package(plugin.name)
            self._loaded(plugin)
        except EdgeresError as error:
            return str(error)
        return None

    def troubles(self) -> list[str]:
        """Why plugins of packages can't be used, a sentence each."""
        return [why for plugin in self.installed() if (why := self.trouble(plugin))]

    def unknown(self, name: str, known: tuple[str, ...]) -> BadInput:
        """The error for a name that isn't one of `known`; what can't be used may have had it."""
        return BadInput("; ".join([str(unknown(self.kind, name, known)), *self.troubles()]))

    def twice(self, name: str, found: list[Installed]) -> BadInput:
        """The error for a name that several packages give."""
        packages = " and ".join(sorted({p.origin for p in found}))
        return BadInput(f"{self.kind} '{name}' is in {packages}: uninstall one of them")

    def provenance(self, name: str) -> dict[str, str] | None:
        """Whose plugin it is, for a record: kind, name, package, version, and a hash of its code.

        None of edgeres' own, or nobody's.
        """
        plugin = self.of_package(name)
        if plugin is None:
            return None
        return {"kind": self.kind, "name": plugin.name, "package": plugin.package,
                "version": plugin.version, "code": _code(self._loaded(plugin))}  # fmt: skip

    def _has(self, name: str) -> str | None:
        """edgeres' own of this name, as its file is called."""
        return next((own for own in self.own if _key(own) == _key(name)), None)

    def _loaded(self, plugin: Installed) -> ModuleType:
        try:
            if not _NAME.fullmatch(plugin.name):
                raise self._broken(plugin, "its name may have letters, digits, '-' and '_' only")
            module = _imported(plugin.value)
        except EdgeresError:
            raise
        except (Exception, SystemExit) as error:  # it may do anything
            said = (str(error).splitlines() or [""])[0][:200]
            raise self._broken(plugin, f"importing {plugin.value[:80]} fails "
                               f"({type(error).__name__}: {said})") from error  # fmt: skip
        if lacking := _lacking(module, self.protocol):
            raise self._broken(plugin, f"{plugin.value} lacks {', '.join(lacking)}")
        if unfit := self.unfit(module):
            raise self._broken(plugin, unfit)
        return module

    def _broken(self, plugin: Installed, why: str) -> MissingComponent:
        from edgeres import __version__

        return MissingComponent(
            f"{plugin.origin}: its {self.kind} '{plugin.name}' can't be used: {why}; install a "
            f"version of {plugin.package} for edgeres {__version__}, or uninstall it"
        )


def packages(records: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """`acme-edge 1.0` -> `dataset stripes, target npz`: whose plugins took part, by records."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        whose = f"{record['package']} {record['version']}"
        found.setdefault(whose, {})[f"{record['kind']} {record['name']}"] = None
    return {whose: ", ".join(plugins) for whose, plugins in sorted(found.items())}


def _key(name: str) -> str:
    return name.replace("-", "_")


def _path() -> tuple[str, ...]:
    """Where packages are: not in the working folder, which Python puts first for `-m` and `-c`."""
    first, *others = sys.path or [""]
    try:
        here = not first or Path(first) == Path.cwd()
    except OSError:  # it was removed
        here = False
    return tuple(others if here else sys.path)


@functools.lru_cache(maxsize=4)
def _installed(path: tuple[str, ...]) -> Mapping[str, tuple[Installed, ...]]:
    """Group -> its plugins, of each package the one that Python finds first."""
    found: dict[str, list[Installed]] = {}
    seen = set()
    for package in importlib.metadata.distributions(path=list(path)):
        try:
            points = [p for p in package.entry_points if p.group.startswith("edgeres.")]
            name = package.metadata["Name"] if points else ""
        except Exception:  # its notes are damaged: whatever it is, it offers nothing
            continue
        key = re.sub(r"[-_.]+", "-", name or "").lower()
        if points and key not in seen:
            seen.add(key)
            for point in points:
                known = Installed(point.name, point.value, name, package.version)
                found.setdefault(point.group, []).append(known)
    return {group: tuple(plugins) for group, plugins in found.items()}


def _imported(name: str) -> ModuleType:
    """A module by its name, with what it imports itself; never from the working folder."""
    if not all(part.isidentifier() for part in name.split(".")):
        raise ImportError("it names no module")
    with _without_working_folder():
        return importlib.import_module(name)


@contextlib.contextmanager
def _without_working_folder() -> Iterator[None]:
    kept = sys.path[:]
    sys.path[:] = _path()
    try:
        yield
    finally:
        sys.path[:] = kept


def _lacking(module: ModuleType, protocol: type) -> list[str]:
    """What a module lacks of a protocol, or has in another form."""
    found = []
    for name, kind in vars(protocol).get("__annotations__", {}).items():
        kinds = tuple(_KINDS[k.partition("[")[0].strip()] for k in str(kind).split(" | "))
        if not hasattr(module, name):
            found.append(name)
        elif not isinstance(getattr(module, name), kinds):
            found.append(f"{name} as {kind}")
    functions = [n for n, f in vars(protocol).items() if callable(f) and not n.startswith("_")]
    return found + [f"{name}()" for name in functions if not callable(getattr(module, name, None))]


def _code(module: ModuleType) -> str:
    """A hash of the Python files in a module's package, or of its own, if it is in none."""
    inside = getattr(sys.modules.get(module.__package__ or ""), "__path__", None)
    files = [p for folder in inside for p in Path(folder).rglob("*.py")] if inside else \
        [Path(str(module.__file__))]  # fmt: skip
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:12]

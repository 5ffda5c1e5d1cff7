"""Device profiles. In: a YAML file, or the name of one. Out: a checked DeviceProfile.

A profile is data: it may come with somebody's recipe. What in it would start a program, or change
how ssh connects, is taken only from the user's own folder of profiles and from the shipped ones,
unless the user allows it (`allow_programs`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from edgeres import documents, errors, runtimes
from edgeres.disk import config_folder

_KIND = documents.Kind("device profile", 64 << 10, "it needs name, kind and description")
_TYPES: dict[str, type] = {
    "name": str,
    "kind": str,
    "description": str,
    "threads": int,
    "emulated": bool,
    "accelerator": str,
    "runners": tuple,
    "tools": dict,
    "settings": dict,
}
_WHAT = {str: "text", int: "a whole number", bool: "true or false", tuple: "a list such as [a, b]",
         dict: "a mapping"}  # fmt: skip
ESTIMATE = "estimate"
"""The kind of a device that nobody has: a runtime that estimates stands for it."""
_REQUIRED = ("name", "kind", "description")
_allowed = False


class Setting(NamedTuple):
    """What a kind's SETTINGS say of one.

    Attributes:
        type: str, int or bool.
        starts_programs: it names a program, here or on the device, or decides whom or how ssh
            trusts; so it counts only in a profile of the user's own.
    """

    type: type
    starts_programs: bool


@dataclass(frozen=True)
class DeviceProfile:
    """How to reach one device, and what a benchmark there uses.

    Attributes:
        name: what reports call it.
        kind: what talks to it, a module of edgeres.devices or a package's, e.g. "ssh".
        description: one line for lists.
        threads: CPU threads a model may use.
        emulated: the processor is simulated, so its times mean nothing.
        accelerator: what is asked to compute: "cpu", "gpu", an execution provider of onnxruntime.
        runners: modules of edgeres.measurement.runners, the preferred ones first.
        tools: program -> its path, on the device or here, as its runner says.
        settings: what only this kind needs; the kind's module checks it.
    """

    name: str
    kind: str
    description: str
    threads: int = 1
    emulated: bool = False
    accelerator: str = "cpu"
    runners: tuple[str, ...] = ("python",)
    tools: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)


def folder() -> Path:
    """Where the shipped profiles are: in the wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "_device_profiles"
    return packaged if packaged.is_dir() else package.parent / "devices"


def own_folder() -> Path | None:
    """Where the user's own profiles are, below `disk.config_folder`; None without a home folder."""
    config = config_folder()
    return config / "devices" if config is not None else None


def _trusted_folders() -> list[Path]:
    """The shipped profiles' and the user's own; of a user without a home only the first."""
    own = own_folder()
    return [folder()] if own is None else [folder(), own]


def allow_programs(allow: bool) -> None:
    """Whether every profile may start programs, in this process: the user trusts them all."""
    global _allowed
    _allowed = allow


def names() -> list[str]:
    """The names of the shipped profiles and of the user's own."""
    return sorted(_known())


def profiles() -> list[DeviceProfile]:
    """Every profile that has a name, in their order."""
    return [load(name) for name in names()]


def load(name_or_path: str | Path) -> DeviceProfile:
    """A profile by its name (the user's own before a shipped one), or by its .yaml file's path.

    `NAME@WHERE` is the same profile at another place: another host, another phone's serial.

    Raises:
        BadInput: no such device, the file is not a valid profile, its kind has no places, or it
            would start programs and is not one of the user's own.
        MissingComponent: it is a runtime that estimates, and that isn't installed; or its kind is
            a package's, and can't be used.
    """
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")):
        return _trusted(Path(text))
    name, at, where = text.partition("@")
    known = _known()
    if name not in known:
        if runtimes.is_estimate(text):
            runtimes.require(text)
            return DeviceProfile(text, ESTIMATE, runtimes.how(text), runners=())
        raise errors.unknown("device", name, [*known, *runtimes.estimates()])
    profile = _trusted(known[name])
    return _elsewhere(profile, where) if at else profile


def _known() -> dict[str, Path]:
    """Name -> its file."""
    return {path.stem: path for place in _trusted_folders() for path in place.glob("*.yaml")}


def _trusted(path: Path) -> DeviceProfile:
    """Read a profile, and refuse what somebody else's may not do."""
    profile = _parse(path)
    starting = [f"settings.{key}" for key in profile.settings if key in _starting(profile.kind)]
    starting += ["tools"] if profile.tools else []
    trusted = [place.resolve() for place in _trusted_folders()]
    if starting and not _allowed and path.parent.resolve() not in trusted:
        own = own_folder()
        move = f"move it to {own} or " if own is not None else ""
        raise errors.BadInput(
            f"{path}: {', '.join(starting)} can start programs, and this profile is not one of "
            f"your own; if you trust it, {move}give --allow-device-programs"
        )
    return profile


def _starting(kind: str) -> set[str]:
    """The settings of a kind that start programs. An unknown kind can't be opened at all."""
    from edgeres import devices

    module = devices.PLUGINS.find(kind)
    known: Mapping[str, Setting] = module.SETTINGS if module else {}
    return {key for key, setting in known.items() if setting.starts_programs}


def _elsewhere(profile: DeviceProfile, where: str) -> DeviceProfile:
    from edgeres import devices

    key = getattr(devices.PLUGINS.find(profile.kind), "WHERE", None)
    if key is None:
        raise errors.BadInput(f"device '{profile.name}' is of kind {profile.kind}, which has no "
                              f"other place; leave out @{where}")  # fmt: skip
    # The name goes into reports and files; who logs in there is nobody's business.
    place = re.sub(r"[^A-Za-z0-9._-]", "_", where.rpartition("@")[2])[:40]
    return replace(profile, name=f"{profile.name}-{place}",
                   settings={**profile.settings, key: where})  # fmt: skip


def _parse(path: Path) -> DeviceProfile:
    """Read one file with strict keys and types."""
    data = documents.values(path, _KIND)
    for key, value in data.items():
        if key not in _TYPES:
            known = ", ".join(_TYPES)
            near = errors.nearest(key[:80], _TYPES)
            raise errors.BadInput(f"{path}: unknown key '{key[:80]}'{near}; known: {known}")
        if type(value) is not _TYPES[key]:
            raise errors.BadInput(f"{path}: {key} must be {_WHAT[_TYPES[key]]}")
    for key in _REQUIRED:
        if key not in data:
            raise errors.BadInput(f"{path}: the key '{key}' is missing")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", data["name"]):
        raise errors.BadInput(f"{path}: name must be letters, digits, '.', '_' and '-'")
    if not 1 <= data.get("threads", 1) <= 1024:
        raise errors.BadInput(f"{path}: threads must be between 1 and 1024")
    texts = [*data.get("runners", ()), *data.get("tools", {}), *data.get("tools", {}).values()]
    if not all(isinstance(text, str) and text for text in texts):
        raise errors.BadInput(f"{path}: runners and tools are names and paths, as text")
    return DeviceProfile(**data)

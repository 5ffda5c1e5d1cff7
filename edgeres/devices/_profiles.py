"""Device profiles. In: a YAML file or the name of a shipped one. Out: a checked DeviceProfile."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeres import errors

_MAX_BYTES = 64 * 1024
_TYPES: dict[str, type] = {
    "name": str,
    "kind": str,
    "description": str,
    "threads": int,
    "emulated": bool,
    "accelerator": str,
    "runners": list,
    "tools": dict,
    "settings": dict,
}
WHERE = {"ssh": "host", "jetson": "host", "adb": "serial"}
"""Kind -> the setting that says which machine it is."""
_REQUIRED = ("name", "kind", "description")


@dataclass(frozen=True)
class DeviceProfile:
    """How to reach one device, and what a benchmark there uses.

    Attributes:
        name: what reports call it.
        kind: the module of edgeres.devices that talks to it, e.g. "ssh".
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
    settings: Mapping[str, Any] = field(default_factory=dict)


def folder() -> Path:
    """Where the shipped profiles are: in the wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "_device_profiles"
    return packaged if packaged.is_dir() else package.parent / "devices"


def names() -> list[str]:
    """The names of the shipped profiles."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def profiles() -> list[DeviceProfile]:
    """Every shipped profile, by name."""
    return [load(name) for name in names()]


def load(name_or_path: str | Path) -> DeviceProfile:
    """A shipped profile by its name, or any profile by the path of its .yaml file.

    `NAME@WHERE` is the same profile at another place: another host, another phone's serial.

    Raises:
        BadInput: no such device, the file is not a valid profile, or its kind has no places.
    """
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")):
        return _parse(Path(text))
    name, at, where = text.partition("@")
    if name not in names():
        raise errors.unknown("device", name, names())
    profile = _parse(folder() / f"{name}.yaml")
    return _elsewhere(profile, where) if at else profile


def _elsewhere(profile: DeviceProfile, where: str) -> DeviceProfile:
    key = WHERE.get(profile.kind)
    if key is None:
        raise errors.BadInput(f"device '{profile.name}' is of kind {profile.kind}, which has no "
                              f"other place; leave out @{where}")  # fmt: skip
    # The name goes into reports and files; who logs in there is nobody's business.
    place = re.sub(r"[^A-Za-z0-9._-]", "_", where.rpartition("@")[2])[:40]
    return replace(profile, name=f"{profile.name}-{place}",
                   settings={**profile.settings, key: where})  # fmt: skip


def _parse(path: Path) -> DeviceProfile:
    """Read one file with strict keys and types."""
    data = _read(path)
    if not isinstance(data, dict):
        raise errors.BadInput(f"{path}: a device profile is a mapping of {', '.join(_TYPES)}")
    for key, value in data.items():
        if key not in _TYPES:
            known = ", ".join(_TYPES)
            near = errors.nearest(str(key)[:80], _TYPES)
            raise errors.BadInput(f"{path}: unknown key '{str(key)[:80]}'{near}; known: {known}")
        if type(value) is not _TYPES[key]:
            raise errors.BadInput(f"{path}: {key} must be of type {_TYPES[key].__name__}")
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
    if "runners" in data:
        data["runners"] = tuple(data["runners"])
    return DeviceProfile(**data)


def _read(path: Path) -> Any:
    """The YAML value in a file of at most 64 KiB."""
    import yaml

    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        if len(raw) > _MAX_BYTES:
            raise errors.BadInput(f"{path}: a device profile may have at most {_MAX_BYTES} bytes")
        return yaml.safe_load(raw.decode("utf-8"))
    except OSError as error:
        raise errors.BadInput(f"{path}: can't be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else f"{path}"
        problem = getattr(error, "problem", None) or type(error).__name__
        raise errors.BadInput(f"{where}: not valid YAML: {problem}") from error

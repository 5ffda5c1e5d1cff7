"""Artifacts: immutable folders, each with a description of what it is and what made it.

The key of an artifact covers everything that made it (see `artifact_key`), so finding one in the
store (edgeres.store) is the same as having made it again.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from edgeres.errors import BadInput

SCHEMA = 1
_KEY_DIGITS = 20


@dataclass(frozen=True)
class Artifact:
    """One finished result of a stage.

    Attributes:
        digest: hash of the contents; equal digests mean equal files.
        parents: role -> {"stage", "key", "digest"} of what it was made from.
        section: the stage's resolved recipe section.
        facts: what the stage found out (accuracy, sizes, verdicts): see docs/architecture.md.
    """

    stage: str
    key: str
    digest: str
    path: Path
    parents: Mapping[str, Mapping[str, str]]
    section: Mapping[str, Any]
    facts: Mapping[str, Any]
    libraries: Mapping[str, str]
    seconds: float

    def file(self, name: str) -> Path:
        """Path of one of its files."""
        return self.path / name

    def read_json(self, name: str) -> Any:
        """The contents of one of its JSON files."""
        return json.loads(self.file(name).read_text("utf-8"))


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """Installed versions as major.minor (a patch release doesn't redo work)."""
    versions = {}
    for name in names:
        try:
            versions[name] = ".".join(metadata.version(name).split(".")[:2])
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions


def artifact_key(
    stage: str,
    version: int,
    section: Mapping[str, Any],
    libraries: Mapping[str, str],
    seed: int,
    parents: Mapping[str, str],
) -> str:
    """Hash of everything that decides a stage's result.

    Args:
        version: of the stage's code; raised when its results change.
        section: resolved settings, with paths replaced by hashes of what they point to.
        parents: role -> digest (contents, not keys) of each input artifact.
    """
    document = {
        "record": "edgeres-artifact", "schema": SCHEMA, "stage": stage, "version": version,
        "section": section, "libraries": libraries, "seed": seed, "parents": parents,
    }  # fmt: skip
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_DIGITS]


def load(path: Path) -> Artifact:
    """Read an artifact directory anywhere.

    Raises:
        BadInput: it isn't one, or was written by a newer edgeres.
    """
    if not (path / "artifact.json").is_file():
        raise BadInput(f"{path}: not an artifact (it has no artifact.json)")
    return read(path)[0]


def read(path: Path) -> tuple[Artifact, dict[str, int]]:
    """An artifact that is there, and the size of each of its files in bytes.

    Raises:
        BadInput: its description is damaged, or another version's.
    """
    try:
        d = json.loads((path / "artifact.json").read_text("utf-8"))
        if d["schema"] != SCHEMA:
            raise BadInput(
                f"{path}: artifact schema {d['schema']!s:.20} needs another edgeres version; "
                f"make it anew (`edgeres run` with its recipe), or use that version"
            )
        if not all(isinstance(d[k], dict) for k in ("parents", "section", "facts", "libraries")):
            raise TypeError
        artifact = Artifact(d["stage"], d["key"], d["digest"], path, d["parents"], d["section"],
                            d["facts"], d["libraries"], d["seconds"])  # fmt: skip
        return artifact, {name: f["size_bytes"] for name, f in d["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(f"{path}/artifact.json is damaged; remove the folder and repeat") from error


def made_with() -> dict[str, Any]:
    """What isn't in the key, but may show in the last digits of a sum."""
    torch: Any = sys.modules.get("torch")  # where it wasn't needed, it didn't matter either
    return {
        "python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads() if torch else None,
        "instructions": torch.backends.cpu.get_cpu_capability() if torch else None,
    }  # fmt: skip

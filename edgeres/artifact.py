"""Artifacts: immutable folders, each with a description of what it is and what made it.

The key of an artifact covers everything that made it (see `artifact_key`), so finding one in the
store (edgeres.store) is the same as having made it again.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres import door
from edgeres.disk import contents_digest
from edgeres.errors import BadInput, StorageError
from edgeres.shape import anything, wrong

if TYPE_CHECKING:
    import numpy as np

    from edgeres.records import Facts
    from edgeres.shape import Shape

SCHEMA = 1
DESCRIPTION = "artifact.json"
_KEY_DIGITS = 20
_UNSEALED, _SEAL = '"checksum": ""\n}', '"checksum": "%s"\n}'


@dataclass(frozen=True)
class Listed:
    """What `artifact.json` says of one file."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Artifact:
    """One finished result of a stage. `file`, `read` and `folder` are the only ways to its files.

    Attributes:
        digest: hash of the contents; equal digests mean equal files.
        path: its folder, for messages; what is in it goes through the door.
        parents: role -> {"stage", "key", "digest"} of what it was made from.
        section: the stage's resolved recipe section.
        facts: what the stage found out (accuracy, sizes, verdicts): see docs/architecture.md.
        plugins: those of packages that took part, as `Plugins.provenance` has them.
        files: its files by name; None for a file of the user's own, of which nothing is written.
    """

    stage: str
    key: str
    digest: str
    path: Path
    parents: Mapping[str, Mapping[str, str]]
    section: Facts
    facts: Facts
    libraries: Mapping[str, str]
    seconds: float
    files: Mapping[str, Listed] | None = None
    plugins: tuple[Mapping[str, str], ...] = ()

    def file(self, name: str, again: bool = False) -> Path:
        """Path of one of its files, or of a directory package (`x.mlpackage`), checked.

        Args:
            again: hash what was hashed before, too.

        Raises:
            StorageError: it isn't listed, is a link, or has other contents than it was made with.
        """
        if self.files is None:
            return self.path / name
        inside = {n: f for n, f in self.files.items() if n == name or n.startswith(f"{name}/")}
        if not inside:
            raise StorageError(f"{self.path}: has no file {name[:80]!r}; remove the folder and "
                               "run again")  # fmt: skip
        path = door.reached(self.path, name)
        if name not in inside:
            self._hold(path, {n.removeprefix(f"{name}/") for n in inside})
        for part, listed in inside.items():
            here = door.reached(self.path, part)
            if not door.has(here, listed.sha256, listed.size_bytes, again):
                raise self._changed(part)
        return path

    def folder(self, again: bool = False) -> Path:
        """Path of its folder, all that is in it checked.

        Args:
            again: as `file` takes it.

        Raises:
            StorageError: a file isn't what it was made as, or there is one more.
        """
        if self.files is not None:
            self._hold(self.path, {*self.files, DESCRIPTION})
            for name in self.files:
                self.file(name, again)
        return self.path

    def has(self, name: str) -> bool:
        """Whether it has a file of this name."""
        return (self.path / name).exists() if self.files is None else name in self.files

    def read(self, name: str, most_bytes: int = door.MOST_DOCUMENT) -> bytes:
        """The contents of one of its files; raises like `file`, and where it is larger."""
        if self.files is None:
            return door.read(self.path / name, most_bytes)
        listed = self.files.get(name)
        content = door.read(door.reached(self.path, name), most_bytes)
        if listed is None or hashlib.sha256(content).hexdigest() != listed.sha256:
            raise self._changed(name)
        return content

    def read_json(
        self, name: str, form: Shape = anything, most_bytes: int = door.MOST_DOCUMENT
    ) -> Any:
        """The value in one of its JSON files; raises like `read`, and where it isn't of a shape.

        Args:
            form: see edgeres.shape.
        """
        found = door.parsed(self.read(name, most_bytes), self.path / name)
        if misfit := wrong(form, found):
            raise StorageError(f"{self.path / name}: is damaged ({misfit}); remove the folder and "
                               "run again")  # fmt: skip
        return found

    def read_lines(self, name: str, form: Shape) -> list[Any]:
        """The values in one of its files of JSON lines; raises like `read_json`."""
        found = [door.parsed(line, self.path / name) for line in self.read(name).splitlines()]
        if misfit := wrong([form], found):
            raise StorageError(f"{self.path / name}: is damaged ({misfit}); remove the folder and "
                               "run again")  # fmt: skip
        return found

    def read_array(
        self, name: str, most: int | None = None, width: int | None = None
    ) -> np.ndarray:
        """One of its tables of numbers (`.npy`): float (N, M), at least 1x1.

        Args:
            most: rows that it may have; width: columns that it has.

        Raises:
            StorageError: like `file`, and where it holds something else.
        """
        import numpy as np

        path = self.file(name)
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
            rows, columns = found.shape
            if found.dtype.kind != "f" or not 1 <= rows <= (most or rows) or not columns:
                raise ValueError(f"{found.dtype}, {found.shape}")
            if width is not None and columns != width:
                raise ValueError(f"{columns} columns where there are {width}")
            return np.array(found)
        except MemoryError:
            raise
        except Exception as error:  # a header is parsed as Python, and may raise what that raises
            raise StorageError(f"{path}: is damaged (no table of numbers: {error!r:.100}); remove "
                               "the folder and run again") from error  # fmt: skip

    def _hold(self, folder: Path, listed: set[str]) -> None:
        """Raise StorageError unless a folder holds these files and no others."""
        there = door.entries(folder)
        if more := there - listed:
            raise StorageError(f"{folder}: holds {min(more)[:80]!r}, which isn't one of its files; "
                               "remove it")  # fmt: skip
        if less := listed - there:
            raise self._changed((folder / min(less)).relative_to(self.path).as_posix())

    def _changed(self, name: str) -> StorageError:
        return StorageError(f"{self.path}: file {name} was changed or removed after it was made; "
                            "remove the folder and run again")  # fmt: skip


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
    section: Mapping[str, object],
    libraries: Mapping[str, str],
    seed: int,
    parents: Mapping[str, str],
    plugins: Sequence[Mapping[str, str]] = (),
) -> str:
    """Hash of everything that decides a stage's result.

    Args:
        version: of the stage's code; raised when its results change.
        section: resolved settings, with paths replaced by hashes of what they point to.
        parents: role -> digest (contents, not keys) of each input artifact.
        plugins: those of packages that take part; without any, the key is as if there were none.
    """
    document = {
        "record": "edgeres-artifact", "schema": SCHEMA, "stage": stage, "version": version,
        "section": section, "libraries": libraries, "seed": seed, "parents": parents,
        **({"plugins": list(plugins)} if plugins else {}),
    }  # fmt: skip
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_DIGITS]


def described(document: Mapping[str, object]) -> str:
    """The text of `artifact.json`; its `checksum` covers every other byte of it."""
    text = json.dumps({**document, "checksum": ""}, indent=1)
    return text[: -len(_UNSEALED)] + _SEAL % _checksum(text)


def load(path: Path) -> Artifact:
    """Read an artifact directory anywhere.

    Raises:
        BadInput: it isn't one, or is damaged, or was written by a newer edgeres.
    """
    if not (path / DESCRIPTION).is_file():
        raise BadInput(f"{path}: not an artifact (it has no {DESCRIPTION})")
    where = path / DESCRIPTION
    raw = door.read(where)
    document = door.parsed(raw, where)
    schema = document.get("schema") if isinstance(document, dict) else None
    if isinstance(schema, int) and schema != SCHEMA:
        raise BadInput(
            f"{path}: artifact schema {schema!s:.20} needs another edgeres version; "
            f"make it anew (`edgeres run` with its recipe), or use that version"
        )
    return _checked(document, raw, path)


def _checked(document: Any, raw: bytes, path: Path) -> Artifact:
    """An artifact of a description that may hold anything.

    Raises:
        StorageError: it isn't as `Store.commit` wrote it.
    """
    from edgeres import facts

    if wrong := facts.wrong_description(document) or _unsealed(document, raw):
        raise StorageError(
            f"{path / DESCRIPTION} is damaged ({wrong}); remove the folder and repeat"
        )
    d = document
    files = {name: Listed(f["sha256"], f["size_bytes"]) for name, f in d["files"].items()}
    return Artifact(d["stage"], d["key"], d["digest"], path, d["parents"], d["section"],
                    d["facts"], d["libraries"], float(d["seconds"]), files,
                    tuple(d.get("plugins", ())))  # fmt: skip


def _unsealed(d: Facts, raw: bytes) -> str | None:
    """What shows that a description was changed.

    What was written before there was a checksum has none.
    """
    if contents_digest({name: f["sha256"] for name, f in d["files"].items()}) != d["digest"]:
        return "its digest isn't that of its files"
    if "checksum" not in d:
        return None
    seal = (_SEAL % d["checksum"]).encode()
    unsealed = raw.removesuffix(seal) + _UNSEALED.encode()
    if not raw.endswith(seal) or _checksum(unsealed.decode("utf-8")) != d["checksum"]:
        return "its checksum is another one"
    return None


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def made_with() -> dict[str, object]:
    """What isn't in the key, but may show in the last digits of a sum."""
    torch = sys.modules.get("torch")  # where it wasn't needed, it didn't matter either
    return {
        "python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads() if torch else None,
        "instructions": torch.backends.cpu.get_cpu_capability() if torch else None,
    }  # fmt: skip

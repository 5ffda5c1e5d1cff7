"""Artifacts and their store: immutable, content-addressed folders, there whole or not at all.

A stage writes into a staging folder; `Store.commit` hashes what was written, adds `artifact.json`
last, syncs and renames the folder into place. The key of an artifact covers everything that made it
(see `artifact_key`), so finding one in the store is the same as having made it again.

    store/artifacts/<stage>-<key>/   the artifacts
    store/work/<stage>-<key>/        checkpoints of unfinished work, for resuming
    store/tmp/                       staging; what a killed process left here is swept at start
    store/locks/                     one lock per key; the system frees a dead owner's

Whether an owner is dead is asked of its lock, never of its process id: ids are used again, and mean
nothing between two containers that share a store.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from edgeres.disk import contents_digest, file_sha256, storage_errors, sync
from edgeres.errors import BadInput, StorageError

SCHEMA = 1
_KEY_DIGITS = 20
_PATIENCE_S = 0.5


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


class Store:
    """The artifacts below one folder."""

    def __init__(self, root: Path):
        self.root = root
        self.artifacts, self.tmp = root / "artifacts", root / "tmp"
        self._work, self._locks = root / "work", root / "locks"

    def open(self) -> Store:
        """Create the folders and remove the staging folders of processes that are gone.

        Raises:
            StorageError: it can't be written.
        """
        with storage_errors(self.root):
            for folder in (self.artifacts, self.tmp, self._work, self._locks):
                folder.mkdir(parents=True, exist_ok=True)
            tag = self.root / "CACHEDIR.TAG"
            if not tag.exists():
                tag.write_text("Signature: 8a477f597d28d172789f06886806bc55\n# edgeres store\n")
            self._sweep()
        return self

    def find(self, stage: str, key: str) -> Artifact | None:
        """The artifact with this key, if it is there and its files are all present and whole."""
        path = self.artifacts / f"{stage}-{key}"
        if not (path / "artifact.json").exists():
            return None
        artifact, hashes = _read(path)
        damaged = [n for n, size in hashes.items() if not _has_size(path / n, size)]
        if damaged:
            raise StorageError(
                f"{path}: file {damaged[0]} was changed or removed after it was made; "
                f"remove the folder and run again"
            )
        return artifact

    def work(self, stage: str, key: str) -> Path:
        """The folder for checkpoints of unfinished work; kept until the artifact is committed."""
        path = self._work / f"{stage}-{key}"
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        return path

    @contextmanager
    def lock(
        self, stage: str, key: str, waiting: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """Let one process make this artifact at a time.

        Args:
            waiting: called every now and then while another process has it; may raise to give up.
        """
        from filelock import Timeout

        lock = self._lock(f"{stage}-{key}")
        while True:
            try:
                with storage_errors(self._locks):
                    lock.acquire(timeout=_PATIENCE_S)
                break
            except Timeout:
                waiting()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def in_use(self, alone: bool = False) -> Iterator[None]:
        """Be one of those who use the store, or the only one.

        Raises:
            StorageError: `alone`, and somebody else uses it.
        """
        import fcntl

        how = fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH
        path = self._locks / "store.lock"
        with storage_errors(path), path.open("a") as file:
            try:
                fcntl.flock(file, how)
            except BlockingIOError as error:
                raise StorageError(
                    f"{self.root}: a run is at work here; repeat this when it has ended"
                ) from error
            yield

    @contextmanager
    def staging(self, stage: str, key: str) -> Iterator[Path]:
        """A fresh folder to write into; removed unless `commit` moved it."""
        path = self.tmp / f"{stage}-{key}-{os.getpid()}"
        with storage_errors(path):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def commit(
        self,
        staged: Path,
        stage: str,
        key: str,
        *,
        parents: Mapping[str, Artifact],
        section: Mapping[str, Any],
        facts: Mapping[str, Any],
        libraries: Mapping[str, str],
        seconds: float,
        varies: Iterable[str] = (),
    ) -> Artifact:
        """Move a finished staging folder into the store, whole, and drop its work folder.

        Args:
            varies: what of the description is another one the next time, though nothing changed.
        """
        files = {p.relative_to(staged).as_posix(): p for p in sorted(staged.rglob("*"))
                 if p.is_file()}  # fmt: skip
        hashes = {name: file_sha256(path) for name, path in files.items()}
        document = {
            "schema": SCHEMA, "stage": stage, "key": key, "digest": contents_digest(hashes),
            "parents": {r: {"stage": p.stage, "key": p.key, "digest": p.digest}
                        for r, p in parents.items()},
            "section": section, "facts": facts, "libraries": libraries,
            "seconds": round(seconds, 3), "made_with": _made_with(),
            "varies": ["seconds", "made_with", *varies],
            "files": {n: {"sha256": h, "size_bytes": files[n].stat().st_size}
                      for n, h in hashes.items()},
        }  # fmt: skip
        path = self.artifacts / f"{stage}-{key}"
        with storage_errors(path):
            for file in files.values():
                sync(file)
            (staged / "artifact.json").write_text(json.dumps(document, indent=1), "utf-8")
            sync(staged / "artifact.json")
            sync(staged)
            if path.exists():  # a damaged leftover without artifact.json
                shutil.rmtree(path)
            staged.rename(path)
            sync(self.artifacts)
            shutil.rmtree(self._work / f"{stage}-{key}", ignore_errors=True)
        return _read(path)[0]

    def all(self) -> list[Artifact]:
        """Every artifact in the store, oldest first."""
        if not self.artifacts.is_dir():
            return []
        found = [p for p in self.artifacts.iterdir() if (p / "artifact.json").exists()]
        return [_read(p)[0] for p in sorted(found, key=lambda p: p.stat().st_mtime)]

    def parent(self, artifact: Artifact, role: str) -> Artifact | None:
        """An input of an artifact, if the store still has it."""
        known = artifact.parents.get(role)
        return self.find(known["stage"], known["key"]) if known else None

    def remove(self, artifact: Artifact) -> None:
        """Take an artifact out of the store, in one step as well."""
        leaving = self.tmp / f"{artifact.path.name}-{os.getpid()}"
        with storage_errors(artifact.path), self.lock(artifact.stage, artifact.key):
            artifact.path.rename(leaving)
            shutil.rmtree(leaving)

    def sweep_work(self) -> None:
        """Remove checkpoints of unfinished work."""
        shutil.rmtree(self._work, ignore_errors=True)

    def _lock(self, name: str) -> Any:
        from filelock import FileLock

        return FileLock(self._locks / f"{name}.lock")

    def _sweep(self) -> None:
        """Remove staging folders whose key nobody holds: who stages has the lock."""
        from filelock import Timeout

        for leftover in self.tmp.iterdir():
            lock = self._lock(leftover.name.rpartition("-")[0])
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            shutil.rmtree(leftover, ignore_errors=True)
            lock.release()


def load(path: Path) -> Artifact:
    """Read an artifact directory anywhere.

    Raises:
        BadInput: it isn't one, or was written by a newer edgeres.
    """
    if not (path / "artifact.json").is_file():
        raise BadInput(f"{path}: not an artifact (it has no artifact.json)")
    return _read(path)[0]


def _read(path: Path) -> tuple[Artifact, dict[str, int]]:
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


def _made_with() -> dict[str, Any]:
    """What isn't in the key, but may show in the last digits of a sum."""
    torch: Any = sys.modules.get("torch")  # where it wasn't needed, it didn't matter either
    return {
        "python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads() if torch else None,
        "instructions": torch.backends.cpu.get_cpu_capability() if torch else None,
    }  # fmt: skip


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size

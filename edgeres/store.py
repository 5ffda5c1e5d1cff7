"""The store of artifacts: content-addressed folders, there whole or not at all.

A stage writes into a staging folder; `Store.commit` hashes what was written, adds `artifact.json`
last, syncs and renames the folder into place.

    store/artifacts/<stage>-<key>/   the artifacts
    store/work/<stage>-<key>/        checkpoints of unfinished work, for resuming
    store/tmp/                       staging; what a killed process left here is swept at start
    store/hashes/                    what files of data sets hash to, while nobody wrote to them
    store/users/                     the folders of runs that use it, beside the one it lies in
    store/locks/                     one lock per key; a dead owner's is free (`locks`)

Whether an owner is dead is asked of its lock, never of its process id: ids are used again, and mean
nothing between two containers that share a store.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgeres import door, locks
from edgeres.artifact import DESCRIPTION, SCHEMA, Artifact, described, load, made_with
from edgeres.disk import (
    contents_digest,
    copy_whole,
    file_sha256,
    storage_errors,
    sync,
    write_whole,
)
from edgeres.errors import BadInput, StorageError


class Store:
    """The artifacts below one folder."""

    def __init__(self, root: Path):
        self.root = root
        self.artifacts, self.tmp = root / "artifacts", root / "tmp"
        self._work, self._locks, self._users = root / "work", root / "locks", root / "users"
        self.hashes = root / "hashes"

    def open(self) -> Store:
        """Create the folders and remove the staging folders of processes that are gone.

        Raises:
            StorageError: it can't be written.
        """
        with storage_errors(self.root):
            for folder in (self.artifacts, self.tmp, self._work, self._locks):
                folder.mkdir(parents=True, exist_ok=True)
            locks.prepare(self._locks)
            tag = self.root / "CACHEDIR.TAG"
            if not tag.exists():
                write_whole(tag, "Signature: 8a477f597d28d172789f06886806bc55\n# edgeres store\n")
            self._sweep()
        return self

    def find(self, stage: str, key: str) -> Artifact | None:
        """The artifact with this key, if it is there.

        Raises:
            StorageError: it is there, but damaged: a file isn't what it was made as, or there is
                one more, or it is another artifact than its folder's name says.
        """
        path = self.artifacts / f"{stage}-{key}"
        if not (path / DESCRIPTION).exists():
            return None
        artifact = load(path)
        if (artifact.stage, artifact.key) != (stage, key):
            raise StorageError(f"{path}: holds another artifact, {artifact.stage}-{artifact.key}; "
                               "remove the folder and run again")  # fmt: skip
        artifact.folder()
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
        with contextlib.ExitStack() as stack:
            with storage_errors(self._locks):
                stack.enter_context(locks.exclusive(self._locks, f"{stage}-{key}", waiting))
            yield

    @contextmanager
    def in_use(self, alone: bool = False) -> Iterator[None]:
        """Be one of those who use the store, or the only one.

        Raises:
            StorageError: `alone`, and somebody else uses it.
        """
        with contextlib.ExitStack() as stack:
            try:
                with storage_errors(self._locks):
                    stack.enter_context(locks.shared(self._locks, "store", alone))
            except locks.Taken as error:
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
        section: Mapping[str, object],
        facts: Mapping[str, object],
        libraries: Mapping[str, str],
        seconds: float,
        varies: Iterable[str] = (),
        plugins: Sequence[Mapping[str, str]] = (),
    ) -> Artifact:
        """Move a finished staging folder into the store, whole, and drop its work folder.

        Args:
            varies: what of the description is another one the next time, though nothing changed.
            plugins: those of packages that took part, as `Plugins.provenance` has them.
        """
        files = {name: staged / name for name in sorted(door.entries(staged))}
        hashes = {name: file_sha256(path) for name, path in files.items()}
        document = {
            "schema": SCHEMA, "stage": stage, "key": key, "digest": contents_digest(hashes),
            "parents": {r: {"stage": p.stage, "key": p.key, "digest": p.digest}
                        for r, p in parents.items()},
            "section": section, "facts": facts, "libraries": libraries,
            **({"plugins": list(plugins)} if plugins else {}),
            "seconds": round(seconds, 3), "made_with": made_with(),
            "varies": ["seconds", "made_with", "checksum", *varies],
            "files": {n: {"sha256": h, "size_bytes": files[n].stat().st_size}
                      for n, h in hashes.items()},
        }  # fmt: skip
        path = self.artifacts / f"{stage}-{key}"
        with storage_errors(path):
            for file in files.values():
                sync(file)
            write_whole(staged / DESCRIPTION, described(document))
            sync(staged)
            if (
                not path.is_symlink() and (path / DESCRIPTION).is_file()
            ):  # made elsewhere, while this one's lease was lost
                return load(path)
            if path.is_symlink():
                path.unlink()
            elif path.exists():  # a damaged leftover without artifact.json
                shutil.rmtree(path)
            staged.rename(path)
            sync(self.artifacts)
            shutil.rmtree(self._work / f"{stage}-{key}", ignore_errors=True)
        return load(path)

    def bring(self, artifact: Artifact) -> Artifact:
        """An artifact of any store, in this one: copied if it isn't there.

        Raises:
            StorageError: it is damaged, or this store has another one of its key.
        """
        path = self.artifacts / f"{artifact.stage}-{artifact.key}"
        if artifact.path.resolve() == path.resolve():
            return artifact
        with self.lock(artifact.stage, artifact.key), storage_errors(path):
            here = self.find(artifact.stage, artifact.key)
            if here is not None and here.digest != artifact.digest:
                raise StorageError(
                    f"{path}: the same settings gave another {artifact.stage} here than "
                    f"{artifact.path}; use the folder of runs that this one is in: --runs"
                )
            if here is not None:
                return here
            with self.staging(artifact.stage, artifact.key) as staged:
                copy_whole(artifact.folder(), whole := staged / path.name)
                for file in door.entries(whole):
                    sync(whole / file)
                sync(whole)
                whole.rename(path)
                sync(self.artifacts)
        return load(path)

    def remember(self, runs: Path) -> None:
        """Note that runs of a folder use this store; of the one it lies in, that is known."""
        folder, own = runs.resolve(), self.root.resolve()
        if folder == own.parent or (folder / own.name).resolve() != own:
            return
        record = self._users / hashlib.sha256(str(folder).encode()).hexdigest()[:20]
        with storage_errors(record):
            self._users.mkdir(exist_ok=True)
            write_whole(record, str(folder))

    def users(self, runs: Path) -> list[Path]:
        """Every folder whose runs use this store, `runs` among them.

        Raises:
            StorageError: one of them isn't there, so that nobody knows what its runs need.
        """
        found = {runs.resolve(), self.root.resolve().parent}
        for record in sorted(self._users.glob("*")) if self._users.is_dir() else ():
            folder = Path(os.fsdecode(door.read(record)))
            if not folder.is_dir():
                raise StorageError(f"{folder}: has runs that use {self.root}, and can't be read; "
                                   f"bring it back, or remove {record} if it is gone")  # fmt: skip
            if (folder / self.root.name).resolve() == self.root.resolve():
                found.add(folder)
        return sorted(found)

    def names(self) -> list[str]:
        """The folder names of every artifact in the store, oldest first, damaged ones too."""
        if not self.artifacts.is_dir():
            return []
        found = [p for p in self.artifacts.iterdir() if (p / DESCRIPTION).exists()]
        return [p.name for p in sorted(found, key=lambda p: p.stat().st_mtime)]

    def parents(self, name: str) -> list[str]:
        """Folder names of what an artifact was made from, by its own; none if it is damaged."""
        try:
            known = load(self.artifacts / name).parents.values()
        except BadInput:
            return []
        return [f"{parent['stage']}-{parent['key']}" for parent in known]

    def parent(self, artifact: Artifact, role: str) -> Artifact | None:
        """An input of an artifact, if the store still has it."""
        known = artifact.parents.get(role)
        return self.find(known["stage"], known["key"]) if known else None

    def remove(self, name: str) -> None:
        """Take the artifact of a folder name out of the store, in one step as well."""
        path, leaving = self.artifacts / name, self.tmp / f"{name}-{os.getpid()}"
        stage, _, key = name.rpartition("-")
        with self.lock(stage, key), storage_errors(path):
            path.rename(leaving)
            shutil.rmtree(leaving)

    def sweep_work(self) -> None:
        """Remove checkpoints of unfinished work."""
        shutil.rmtree(self._work, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove staging folders whose key nobody holds: who stages has the lock."""
        for leftover in self.tmp.iterdir():
            name = leftover.name.rpartition("-")[0]
            with contextlib.suppress(locks.Taken), locks.exclusive(self._locks, name):
                shutil.rmtree(leftover, ignore_errors=True)

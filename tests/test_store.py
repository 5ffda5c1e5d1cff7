"""The store: whole or not at all, never changed silently, swept after a crash."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from edgeres.artifact import Artifact, load
from edgeres.disk import contents_digest, file_sha256, storage_errors
from edgeres.errors import BadInput, StorageError
from edgeres.store import Store


def make(store: Store, stage: str, key: str, content: str, **parents: Artifact) -> Artifact:
    with store.staging(stage, key) as staged:
        (staged / "sub").mkdir()
        (staged / "sub" / "file.txt").write_text(content)
        return store.commit(
            staged, stage, key, parents=parents, section={"a": 1}, facts={"n": 2},
            libraries={"torch": "2.13"}, seconds=0.5,
        )  # fmt: skip


@pytest.fixture(params=["flock", "leases"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Store:
    if request.param == "leases":
        (tmp_path / "store" / "locks").mkdir(parents=True)
        (tmp_path / "store" / "locks" / "leases").write_text("1")
    return Store(tmp_path / "store").open()


def test_commit_then_find(store: Store) -> None:
    parent = make(store, "first", "k0", "x")
    made = make(store, "second", "k1", "hello", data=parent)
    found = store.find("second", "k1")
    assert found == made
    assert found is not None
    assert found.file("sub/file.txt").read_text() == "hello"
    assert found.parents["data"]["digest"] == parent.digest
    assert store.parent(found, "data") == parent
    assert list(store.tmp.iterdir()) == []
    assert load(found.path) == found


def test_equal_contents_have_equal_digests_whatever_the_key(store: Store) -> None:
    assert make(store, "a", "k1", "same").digest == make(store, "b", "k2", "same").digest
    assert make(store, "a", "k3", "other").digest != make(store, "a", "k4", "same").digest


def test_a_failed_stage_leaves_nothing(store: Store) -> None:
    def fail() -> None:
        with store.staging("a", "k") as staged:
            (staged / "half").write_text("x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(store.tmp.iterdir()) == []
    assert store.find("a", "k") is None


def test_leftovers_of_dead_processes_are_swept_and_living_ones_kept(store: Store) -> None:
    dead = store.tmp / f"a-k-{os.getpid()}"  # its id lives on, in another process
    dead.mkdir()
    with store.lock("b", "k"), store.staging("b", "k") as alive:
        Store(store.root).open()
        assert not dead.exists()
        assert alive.exists()


def test_cleaning_waits_for_no_run_and_takes_nothing_from_one(store: Store) -> None:
    made = make(store, "a", "k", "hello")
    at_work = pytest.raises(StorageError, match="a run is at work here")
    with store.in_use(), store.in_use(), at_work, store.in_use(alone=True):
        pass
    with store.in_use(alone=True):
        store.remove(made.path.name)
    assert store.find("a", "k") is None
    assert list(store.tmp.iterdir()) == []


def test_a_damaged_artifact_is_named_not_used(store: Store) -> None:
    made = make(store, "a", "k", "hello")
    file = made.file("sub/file.txt")
    file.write_text("HELLO")  # as large as before
    with pytest.raises(StorageError, match=r"sub/file\.txt was changed or removed"):
        store.find("a", "k")
    with pytest.raises(StorageError, match=r"sub/file\.txt was changed or removed"):
        made.file("sub/file.txt")
    file.unlink()
    with pytest.raises(StorageError, match="changed or removed"):
        store.find("a", "k")


def test_an_unreadable_or_newer_description_is_refused(store: Store) -> None:
    made = make(store, "a", "k", "hello")
    document = json.loads((made.path / "artifact.json").read_text())
    (made.path / "artifact.json").write_text(json.dumps({**document, "schema": 99}))
    with pytest.raises(BadInput, match="another edgeres version"):
        store.find("a", "k")
    (made.path / "artifact.json").write_text("{")
    with pytest.raises(BadInput, match="damaged"):
        store.find("a", "k")
    with pytest.raises(BadInput, match="not an artifact"):
        load(store.root)


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOSPC, "no space left"), (errno.EROFS, "read-only"), (errno.EACCES, "permission"),
     (errno.ENOTDIR, "can't be a folder")],
)  # fmt: skip
def test_storage_failures_are_one_sentence(number: int, says: str) -> None:
    with pytest.raises(StorageError, match=says), storage_errors(Path("/runs")):
        raise OSError(number, os.strerror(number))
    with pytest.raises(ValueError, match="x"), storage_errors(Path("/runs")):
        raise ValueError("x")


def test_a_packages_hash_covers_names_and_contents(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "Data").mkdir(parents=True)
        (tmp_path / name / "Data" / "x").write_text("1")
    assert file_sha256(tmp_path / "a") == file_sha256(tmp_path / "b")
    (tmp_path / "b" / "Data" / "x").rename(tmp_path / "b" / "Data" / "y")
    assert file_sha256(tmp_path / "a") != file_sha256(tmp_path / "b")
    assert contents_digest({"a": "1", "b": "2"}) == contents_digest({"b": "2", "a": "1"})

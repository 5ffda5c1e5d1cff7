"""The stored run of version 1, as the present version would have written it, to tamper with."""

from __future__ import annotations

import hashlib
import json
import os
import random
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeres.artifact import DESCRIPTION, described
from edgeres.disk import contents_digest

FIXTURE = Path(__file__).parent / "fixtures" / "run-v1.tar.xz"


def unpacked(below: Path) -> Path:
    """The run's folder below a fresh one, each description sealed with its checksum."""
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(below, filter="data")
    for path in below.glob(f"runs/store/artifacts/*/{DESCRIPTION}"):
        path.write_text(described(json.loads(path.read_text())))
    (lock,) = below.glob("runs/*/recipe.lock.yaml")
    _gated(lock.parent)
    return lock.parent


def _gated(run: Path) -> None:
    """Give its certificates the gates that later versions ask, as met."""
    from edgeres.verification.gates import required

    folder = artifact_of(run, "verify")
    document = json.loads((folder / "verify.json").read_text())
    for row in document["files"]:
        known = [g["name"] for g in row["gates"]]
        for name, (comparison, limit) in required(row["target"]).items():
            if not any(n == name or n.startswith(f"{name} ") for n in known):
                met = limit or 0
                gate = {"name": name, "measured": met, "comparison": comparison, "limit": met}
                row["gates"].append({**gate, "unit": "", "passed": True})
    (folder / "verify.json").write_text(json.dumps(document, indent=1))
    forged(folder, lambda d: None)
    digest = json.loads((folder / DESCRIPTION).read_text())["digest"]
    forged(artifact_of(run, "report"), lambda d: d["parents"]["verify"].update(digest=digest))


def artifact_of(run: Path, step: str) -> Path:
    """The folder of a step's artifact."""
    return (run / "artifacts" / step).resolve()


def forged(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a description and seal it again, as somebody would who means it: hashes of the files
    that are there, their digest, a right checksum."""
    path = folder / DESCRIPTION
    document = json.loads(plain_bytes(path))
    document.pop("checksum", None)
    change(document)
    for name, listed in document["files"].items():
        data = plain_bytes(folder / name)
        listed |= {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    document["digest"] = contents_digest({n: f["sha256"] for n, f in document["files"].items()})
    path.write_text(described(document))


def plain_bytes(path: Path) -> bytes:
    """A plain file's contents; ValueError for a pipe or a device, which would be read for ever."""
    if not path.is_file():
        raise ValueError(f"{path} is not a plain file")
    return path.read_bytes()


def files_of(run: Path) -> list[Path]:
    """Every file that speaks for a run: its recipe, and its artifacts' files but empty ones."""
    folders = [path.resolve() for path in sorted((run / "artifacts").iterdir())]
    found = [p for folder in folders for p in sorted(folder.rglob("*"))
             if p.is_file() and p.stat().st_size]  # fmt: skip
    return [run / "recipe.lock.yaml", *found]


@contextmanager
def flipped(path: Path, rng: random.Random) -> Iterator[str]:
    """A file with one byte changed; yields what was changed."""
    good = path.read_bytes()
    at = rng.randrange(len(good))
    bad = rng.choice([good[at] ^ 1 << rng.randrange(8), (good[at] + rng.randrange(1, 256)) % 256])
    try:
        _put(path, good[:at] + bytes([bad]) + good[at + 1 :])
        yield f"{path}: byte {at}, {good[at]} -> {bad}"
    finally:
        _put(path, good)


def _put(path: Path, data: bytes) -> None:
    """Write into the file that is there: same name, inode and size."""
    with os.fdopen(os.open(path, os.O_WRONLY), "wb") as file:
        file.write(data)

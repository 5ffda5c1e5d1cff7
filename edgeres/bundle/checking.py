"""Checking a bundle: an archive or folder from anywhere in, what is wrong with it out.

Nothing in a bundle is run but its model, in the runtime that is installed here.
"""

from __future__ import annotations

import json
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from edgeres import targets
from edgeres.bundle import BASELINE, MANIFEST, SIGNATURE, signing
from edgeres.disk import file_sha256
from edgeres.errors import BadInput
from edgeres.targets._conversion import examine

_MAX_BYTES = 4 * 1024**3
_MAX_FILES = 10_000
_MAX_JSON = 16 * 1024**2


def is_bundle(path: Path) -> bool:
    """Whether a path looks like a bundle."""
    return (path / MANIFEST).is_file() or (path.is_file() and path.suffix == ".zip")


def check(path: Path, public_key: Path | None = None) -> dict[str, Any]:
    """What is wrong with a bundle.

    Returns:
        `findings` (sentences; none if all is well), `signature` ("none", "unchecked", "good" or
        "bad"), `golden` (worst difference, tolerance, who ran it; None if it wasn't run).

    Raises:
        BadInput: not a bundle, or a hostile one; a key that isn't one.
        MissingComponent: a key is given and cryptography is not installed.
    """
    with _folder(path) as folder:
        content = _bytes(folder / MANIFEST, path)
        manifest = _json(content, f"{path}: {MANIFEST}")
        findings = list(_changes(folder, manifest, path))
        signature = _signature(folder, content, public_key, path)
        if public_key is not None and signature != "good":
            findings.append(f"its signature is {'missing' if signature == 'none' else 'bad'}")
        golden = None
        if not findings:  # a changed model isn't loaded
            golden, more = _golden(folder, path)
            findings += more
    return {"bundle": str(path), "for": manifest.get("for"), "target": manifest.get("target"),
            "passed": not findings, "findings": findings, "signature": signature,
            "golden": golden}  # fmt: skip


def baseline(path: Path) -> dict[str, Any]:
    """What a bundle says of its test set.

    Raises:
        BadInput: not a bundle, a changed one, or one without a baseline.
    """
    with _folder(path) as folder:
        manifest = _json(_bytes(folder / MANIFEST, path), f"{path}: {MANIFEST}")
        changes = list(_changes(folder, manifest, path))
        if changes:
            raise BadInput(f"{path}: {changes[0]}; get the bundle anew")
        return _json(_bytes(folder / BASELINE, path), f"{path}: {BASELINE}")


def _changes(folder: Path, manifest: dict[str, Any], path: Path) -> Iterator[str]:
    sums = manifest.get("sha256")
    if not isinstance(sums, dict) or not sums:
        raise BadInput(f"{path}: its {MANIFEST} names no files")
    there = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if not p.is_dir()}
    for name, expected in sums.items():
        file = there.get(name)
        if file is None or file.is_symlink():
            yield f"{name} is missing"
        elif file_sha256(file) != expected:
            yield f"{name} was changed"
    for name in sorted(set(there) - set(sums) - {MANIFEST, SIGNATURE}):
        yield f"{name} was added"


def _signature(folder: Path, manifest: bytes, key: Path | None, path: Path) -> str:
    file = folder / SIGNATURE
    if not file.is_file():
        return "none"
    if key is None:
        return "unchecked"
    return "good" if signing.verified(manifest, _bytes(file, path), key) else "bad"


def _golden(folder: Path, path: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """Run the model on the golden inputs; what came of it, and what is wrong."""
    import numpy as np

    golden = _json(_bytes(folder / "golden" / "golden.json", path), f"{path}: golden.json")
    try:
        inputs, expected = (
            np.load(folder / "golden" / f"{name}.npy", allow_pickle=False)
            for name in ("inputs", "outputs")
        )
        tolerance, model = float(golden["tolerance"]), folder / PurePosixPath(golden["model"])
        if not model.resolve().is_relative_to(folder.resolve()):
            raise BadInput(f"{path}: its golden test names a model outside the bundle")
        _, target = targets.of_file(model)
        examine(model)  # first where a crash does no harm
        session = target.session(model)
        if session is None:
            return None, []
        outputs = np.concatenate([session.run(sample[None]) for sample in inputs])
        worst = float(np.abs(outputs.astype(np.float64) - expected).max())
        same = bool((outputs.argmax(1) == expected.argmax(1)).all())
    except BadInput:
        raise
    except Exception as error:  # numpy parses a header as Python source, and says so
        raise BadInput(f"{path}: its golden test can't be read ({type(error).__name__})") from error
    found = {"worst": worst, "tolerance": tolerance, "same_classes": same, "samples": len(inputs),
             "run_by": getattr(session, "stand_in", "its runtime")}  # fmt: skip
    wrong = [] if worst <= tolerance and same else [
        f"golden test: worst difference {worst:g}, allowed {tolerance:g}, "
        f"classes {'same' if same else 'differ'}"
    ]  # fmt: skip
    return found, wrong


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory() as scratch:
        try:
            with zipfile.ZipFile(path) as archive:
                _extract(archive, Path(scratch), path)
        except (
            OSError,
            ValueError,
            RuntimeError,
            EOFError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise BadInput(f"{path}: not a readable .zip ({type(error).__name__})") from error
        yield Path(scratch)


def _extract(archive: zipfile.ZipFile, folder: Path, path: Path) -> None:
    """Unpack what stays inside the folder and within bounds, counted while unpacking."""
    entries = archive.infolist()
    if len(entries) > _MAX_FILES:
        raise BadInput(f"{path}: {len(entries)} files are too many for a bundle")
    left = _MAX_BYTES
    for entry in entries:
        name = PurePosixPath(entry.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in entry.filename:
            raise BadInput(f"{path}: the entry {entry.filename[:80]!r} points outside the bundle")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise BadInput(f"{path}: the entry {entry.filename[:80]!r} is a link")
        if entry.is_dir():
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as source, target.open("wb") as copy:
            while block := source.read(1 << 20):
                left -= len(block)
                if left < 0:
                    raise BadInput(f"{path}: unpacks to more than {_MAX_BYTES >> 30} GiB")
                copy.write(block)


def _bytes(file: Path, path: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(_MAX_JSON)
    except OSError as error:
        raise BadInput(f"{path}: not a bundle of edgeres (no {file.name})") from error


def _json(content: bytes, where: str) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not valid JSON") from error
    if not isinstance(document, dict):
        raise BadInput(f"{where}: not a mapping")
    return document

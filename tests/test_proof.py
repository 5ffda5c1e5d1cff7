"""Nothing recorded is believed: what was changed since is neither promoted, bundled, nor used."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import stored

from edgeres.commands import bundle, files, registry
from edgeres.errors import BadInput, EdgeresError, GateFailed, StorageError
from edgeres.runs import open_run, store_of
from edgeres.stages import _checkpoint

FLIPS = 40


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return stored.unpacked(tmp_path)


def promote(run: Path, reason: str = "") -> dict[str, Any]:
    return registry.promoted(run.name, "canary", reason, run.parent)


def bundled(run: Path, kind: str = "android") -> dict[str, Any]:
    return bundle.bundled(run.name, kind, run.parent.parent / "b.zip", None, run.parent)


def refuses(run: Path, what: str) -> None:
    """Promotion, with a reason too, and bundles."""
    for refused in (lambda: promote(run), lambda: promote(run, "a reason"), lambda: bundled(run)):
        with pytest.raises(StorageError, match=what):
            refused()


def flips(run: Path, count: int, seed: int) -> list[str]:
    """Change one byte after another; the changes that something didn't notice."""
    rng = random.Random(seed)
    store, used = store_of(run.parent), []
    known = {a.path.resolve(): a for a in open_run(run).artifacts.values()}
    for _ in range(count):
        path = rng.choice(stored.files_of(run))
        with stored.flipped(path, rng) as what:
            asked: list[Callable[[], object]] = [lambda: promote(run, "why"), lambda: bundled(run)]
            for folder, artifact in known.items():
                if path.is_relative_to(folder):  # what a later run takes out of the store
                    asked.append(lambda a=artifact: store.find(a.stage, a.key))
            for ask in asked:
                try:
                    ask()
                    used.append(what)
                except EdgeresError:
                    pass
    return used


def test_no_byte_of_a_run_can_be_changed(run: Path) -> None:
    assert promote(run)["passed"]
    assert flips(run, FLIPS, seed=1) == []
    assert promote(run)["passed"]
    assert bundled(run)["target"] == "tflite-int8"


def test_labels_that_were_overwritten_measure_nothing(run: Path) -> None:
    path = stored.artifact_of(run, "data") / "data.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match=r"data\.safetensors was changed"):
        files.verified([run.name], None, run.parent, True)
    refuses(run, r"data\.safetensors was changed")


@pytest.mark.parametrize("step", ["verify", "export-tflite-int8", "quantize"])
def test_a_file_more_or_less(step: str, run: Path) -> None:
    folder = stored.artifact_of(run, step)
    (folder / "teacher.json").write_text("{}")
    refuses(run, "isn't one of its files")
    (folder / "teacher.json").unlink()
    first = next(p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "artifact.json")
    first.rename(folder.parent / "kept")
    refuses(run, "was changed or removed")
    first.symlink_to(folder.parent / "kept")
    refuses(run, "is a link")


def test_a_file_without_a_certificate(run: Path) -> None:
    (run / "artifacts" / "verify").unlink()
    with pytest.raises(GateFailed, match="tflite-int8: was never verified"):
        promote(run)
    with pytest.raises(GateFailed, match=r"no bundle is made|verified"):
        bundled(run)
    assert promote(run, "a demo")["passed"] is False


def test_a_gate_is_judged_from_its_value(run: Path) -> None:
    folder = stored.artifact_of(run, "verify")
    document = json.loads((folder / "verify.json").read_text())
    row = next(r for r in document["files"] if r["target"] == "tflite-int8")
    gate = next(g for g in row["gates"] if g["name"] == "scales that differ from training")
    gate["measured"] = 3
    assert gate["passed"] and row["passed"]
    (folder / "verify.json").write_text(json.dumps(document))
    stored.forged(folder, lambda d: None)
    (run / "artifacts" / "report").unlink()  # it was made from the other certificate
    with pytest.raises(GateFailed, match="tflite-int8: scales that differ from training 3, needs"):
        promote(run)
    with pytest.raises(GateFailed, match="scales that differ"):
        bundled(run)
    gate["measured"] = float("nan")
    (folder / "verify.json").write_text(json.dumps(document))
    stored.forged(folder, lambda d: None)
    with pytest.raises(GateFailed, match="scales that differ from training nan"):
        promote(run)


def test_a_certificate_of_another_file(run: Path) -> None:
    """A file exchanged with all its hashes: only the certificate knows."""
    folder = stored.artifact_of(run, "export-tflite-int8")
    (file,) = folder.glob("*.tflite")
    file.write_bytes(file.read_bytes() + bytes(16))

    def renewed(document: dict[str, Any]) -> None:
        import hashlib

        document["facts"]["exported"] |= {
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "size_bytes": file.stat().st_size,
        }

    stored.forged(folder, renewed)
    refuses(run, "was made from another export than the run has")
    export = json.loads((folder / "artifact.json").read_text())
    for step in ("verify", "report"):

        def follow(document: dict[str, Any]) -> None:
            for role in ("tflite-int8", "export:tflite-int8"):
                if role in document["parents"]:
                    document["parents"][role]["digest"] = export["digest"]

        stored.forged(stored.artifact_of(run, step), follow)
    refuses(run, "is about another file than the run's tflite-int8")


def test_an_artifact_of_another_origin(run: Path) -> None:
    folder = stored.artifact_of(run, "teacher")
    (folder / "history.jsonl").write_text("")
    stored.forged(folder, lambda d: None)
    refuses(run, "was made from another teacher than the run has")
    with pytest.raises(StorageError, match="was made from another teacher"):
        files.verified([run.name], None, run.parent, True)


def test_an_artifact_under_another_name(run: Path) -> None:
    store = run.parent / "store" / "artifacts"
    other = stored.artifact_of(run, "export-onnx-int8")
    link = run / "artifacts" / "export-tflite-int8"
    link.unlink()
    link.symlink_to(other)
    refuses(run, "another artifact than its name says")
    shutil.rmtree(target := store / "export-5fc439a65635c2a7d1cf")
    shutil.copytree(other, target)
    with pytest.raises(StorageError, match="holds another artifact"):
        store_of(run.parent).find("export", "5fc439a65635c2a7d1cf")


def test_a_network_whose_name_is_a_path(run: Path, tmp_path: Path) -> None:
    folder = stored.artifact_of(run, "teacher")
    document = json.loads((folder / "spec.json").read_text())
    (folder / "spec.json").write_text(json.dumps({**document, "name": "../../out"}))
    from edgeres.models import weights

    with pytest.raises(BadInput, match="is no name of a network"):
        weights.load(folder)


def test_answers_to_other_images(run: Path) -> None:
    import numpy as np

    folder = stored.artifact_of(run, "quantize")
    for table in (np.zeros((3, 4)), np.zeros((10**4, 10)), np.zeros(5), np.array([["x"]])):
        np.save(folder / "test_logits.npy", table)
        stored.forged(folder, lambda d: None)
        found = open_run(run).artifacts
        with pytest.raises(StorageError, match="no table of numbers"):
            _checkpoint.answers(found["quantize"], found["data"])

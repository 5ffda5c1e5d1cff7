"""The commands bundle, trust and drift, and `verify` of a bundle."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres import registry, targets
from edgeres.errors import BadInput, EdgeresError
from edgeres.runs import LOCK, Run, find_run, run_folder
from edgeres.types import to_json

if TYPE_CHECKING:
    from edgeres.text.runs import Drift, PageSizes, Trusted

DEFAULT_RUNS = Path("runs")
_BASELINE = 2000  # test images: enough for thresholds, and small


def bundled(
    name: str | None, kind: str, out: Path | None, key: Path | None, runs: Path
) -> dict[str, object]:
    """Write a bundle of a run; the registry gives it its serial and its time.

    Raises:
        GateFailed: its file wasn't verified, or failed.
        StorageError: something of the run was changed since it was made.
    """
    from edgeres import bundle, proof
    from edgeres.stages import benchmark

    run = find_run(name, runs)
    proof.require_whole(run)
    images = benchmark.prepared_test_images(run.artifacts, bundle.GOLDEN)
    path = out or Path(f"{run.name.lstrip('@')}-{kind}.zip")
    numbered = partial(registry.bundle_number, runs, run.name)
    remake = partial(_remake, run, kind)
    return bundle.make(run.name, run.artifacts, kind, images, path, key, _baseline(run), numbered,
                       remake)  # fmt: skip


def _remake(run: Run, kind: str, names: Sequence[str]) -> str:
    """The commands that make a run with these files, and the bundle of that run."""
    from edgeres.recipe import load

    lock, folder = str(run.path / LOCK), run.path.parent
    plain = [name for name in names if targets.compiled(name) is None]  # nobody bundles the others
    chosen = f"export.targets=[{','.join(plain)}]"
    where = () if folder == DEFAULT_RUNS else ("--runs", str(folder))
    first = shlex.join(["edgeres", "run", lock, "--set", chosen, *where])
    with contextlib.suppress(EdgeresError):  # its name is a hash of its recipe
        made = str(run_folder(load(lock, [chosen]), folder))
        return f"{first} && {shlex.join(['edgeres', 'bundle', made, '--for', kind])}"
    return first


def page_sizes(path: Path) -> PageSizes:
    """Which libraries of an Android package don't load with memory pages of 16 KiB."""
    from edgeres.bundle import page_size

    found = page_size.check(path)
    return {"file": str(path), "passed": not any(one.problem for one in found),
            "libraries": [to_json(one) for one in found]}  # fmt: skip


def checked(path: Path, public_key: Path | None, signed: bool) -> dict[str, object]:
    """What is wrong with a bundle, how old it is, and whether a later one of it was seen before."""
    from edgeres.bundle import checking, documents, trust

    result = checking.check(path, public_key, signed)
    age = int(time.time()) - documents.seconds(result["created"])
    notes = ["it was made in the future: is this machine's clock right?"] if age < -86400 else []
    signer = result["signer"]
    if result["passed"] and signer and result["signature"] == "good":
        known = next((k for k in trust.load() if k.fingerprint == signer["fingerprint"]), None)
        if known is not None:
            line = f"{result['name']} for {result['for']}"
            try:
                latest = trust.note(known.key, line, result["serial"])
            except EdgeresError as error:
                latest = known.seen.get(line, 0)
                notes.append(f"its serial isn't kept: {error}")
            if latest > result["serial"]:
                notes.append(f"OLDER THAN ONE SEEN BEFORE: {line} had serial {latest} already")
    return {**result, "age_s": age, "notes": notes}


def trusted(path: Path | None, name: str | None, remove: str | None) -> Trusted:
    """Trust the key in a file or on a bundle, take one out, and list those that are trusted."""
    from edgeres.bundle import checking, documents, signing, trust

    added = removed = None
    if path is not None and remove is not None:
        raise BadInput("give a key to trust or --remove, not both")
    if name is not None and path is None:
        raise BadInput("--name is the name of a key: edgeres trust KEY --name NAME")
    if path is not None:
        if name is None and checking.is_bundle(path):
            raise BadInput("say whose key signed the bundle: --name NAME")
        key = checking.signer_of(path) if checking.is_bundle(path) else signing.public_key(path)
        added = trust.add(key, name or path.stem, documents.timestamp(int(time.time())))
    if remove is not None:
        removed = trust.remove(remove)
    return {
        "added": added.fingerprint if added else None,
        "removed": removed.fingerprint if removed else None,
        "keys": [{"name": k.name, "fingerprint": k.fingerprint, "added": k.added}
                 for k in trust.load()],
    }  # fmt: skip


def drifted(path: Path, log: Path) -> Drift:
    """How far a device's log is from the test set of the bundle it runs."""
    from edgeres.bundle import checking
    from edgeres.measurement import drift

    baseline = checking.baseline(path)
    if not all(drift.is_feature(baseline.get(name)) for name in drift.FEATURES):
        raise BadInput(f"{path}: what it says of its test set is no lists of numbers; make it anew")
    sizes = {len(baseline[name]) for name in drift.FEATURES}
    if len(sizes) != 1 or min(sizes) < 2 * drift.SHORTEST:
        raise BadInput(f"{path}: its test set is too small to judge drift by")
    logged = drift.read_log(log)
    found = drift.judge(baseline, logged)
    return {"drifted": any(d.drifted for d in found), "n": len(logged["top1"]),
            "features": [{"feature": d.feature, "distance": d.distance, "threshold": d.threshold,
                          "drifted": d.drifted} for d in found]}  # fmt: skip


def _baseline(run: Run) -> dict[str, list[float]]:
    from edgeres.measurement import drift
    from edgeres.stages import benchmark

    images, _ = benchmark.test_images(run.artifacts["data"])
    last = next(run.artifacts[s] for s in ("quantize", "prune", "distill", "teacher")
                if s in run.artifacts)  # fmt: skip
    logits = last.read_array("test_logits.npy")[:_BASELINE]
    return drift.features(images[:_BASELINE].numpy(), logits)

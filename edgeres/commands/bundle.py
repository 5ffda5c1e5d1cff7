"""The commands bundle and drift."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeres.errors import BadInput, GateFailed
from edgeres.runs import Run, find_run

_BASELINE = 2000  # test images: enough for thresholds, and small


def bundled(
    name: str | None, kind: str, out: Path | None, key: Path | None, runs: Path
) -> dict[str, Any]:
    """Write a bundle of a run, if the file for it was verified and nothing was changed since.

    Raises:
        GateFailed: it wasn't, or failed.
        StorageError: something of the run was changed since it was made.
    """
    from edgeres import bundle, proof, stages

    run = find_run(name, runs)
    proof.require_whole(run)
    target = next((t for t in bundle.KINDS.get(kind, ()) if f"export:{t}" in run.artifacts), None)
    if target and (missed := proof.findings(run, target)):
        raise GateFailed(f"{run.path}: isn't bundled: {'; '.join(missed)}")
    module: Any = stages.load("benchmark")
    images = module.prepared_test_images(run.artifacts, bundle.GOLDEN)
    path = out or Path(f"{run.name.lstrip('@')}-{kind}.zip")
    return bundle.make(run.name, run.artifacts, kind, images, path, key, _baseline(run))


def drifted(path: Path, log: Path) -> dict[str, Any]:
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
            "features": [{**asdict(d), "drifted": d.drifted} for d in found]}  # fmt: skip


def _baseline(run: Run) -> dict[str, Any]:
    from edgeres import stages
    from edgeres.measurement import drift

    module: Any = stages.load("benchmark")
    images, _ = module.test_images(run.artifacts["data"])
    last = next(run.artifacts[s] for s in ("quantize", "prune", "distill", "teacher")
                if s in run.artifacts)  # fmt: skip
    logits = last.read_array("test_logits.npy")[:_BASELINE]
    return drift.features(images[:_BASELINE].numpy(), logits)

"""Tracking: a finished run in, what a tracker is to be told out; one module per tracker.

`mlflow` talks to any MLflow server over its REST API, `tensorboard` writes event files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeres import door
from edgeres.artifact import Artifact
from edgeres.facts import HISTORY

TRACKERS = ("mlflow", "tensorboard")
_NETWORKS = ("teacher", "distill", "prune", "quantize")


@dataclass(frozen=True)
class Point:
    """One value of a metric at a step (an epoch; 0 for what has none)."""

    metric: str
    step: int
    value: float


@dataclass(frozen=True)
class Tracked:
    """A run as a tracker sees it.

    Attributes:
        params: settings of the recipe, `prune.macs` and so on, as text.
        points: metrics by step.
        files: path within the tracker -> file or folder here.
        models: target -> path of its exported file within the tracker.
        lineage: step -> digest of the contents of its artifact.
    """

    name: str
    params: Mapping[str, str]
    points: tuple[Point, ...]
    files: Mapping[str, Path]
    models: Mapping[str, str]
    lineage: Mapping[str, str]


def described(
    name: str, recipe: Mapping[str, object], artifacts: Mapping[str, Artifact], folder: Path
) -> Tracked:
    """Everything about a run.

    Args:
        recipe: every setting as plain values.
        folder: the run's, with its recipe and its report.
    """
    own = ("recipe.lock.yaml", "report.html", "report.json")
    files = {name: folder / name for name in own if door.is_there(folder / name)}
    models = {}
    for artifact in artifacts.values():
        if artifact.stage == "export":
            exported = artifact.facts["exported"]
            path = f"models/{exported['target']}/{exported['file']}"
            files[path], models[exported["target"]] = artifact.file(exported["file"]), path
    if "verify" in artifacts:
        files["certificate.json"] = artifacts["verify"].file("verify.json")
    return Tracked(
        name, dict(_flat("", recipe)), tuple(_points(artifacts)),
        files, models,
        {step: artifact.digest for step, artifact in artifacts.items()},
    )  # fmt: skip


def _flat(prefix: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), item)
    elif value is not None:
        yield prefix, value if isinstance(value, str) else json.dumps(value)


def _points(artifacts: Mapping[str, Artifact]) -> Iterator[Point]:
    for step, artifact in artifacts.items():
        if artifact.stage in _NETWORKS:
            yield from _trained(step, artifact)
    facts = artifacts["verify"].facts if "verify" in artifacts else {"files": ()}
    for row in facts["files"]:
        if row["test"]:
            yield Point(f"{row['target']}/test_top1", 0, row["test"]["correct"] / row["test"]["n"])
        for key in ("agreement", "worst_codes"):
            if row[key] is not None:
                yield Point(f"{row['target']}/{key}", 0, float(row[key]))
    for artifact in artifacts.values():
        if artifact.stage == "export":
            exported = artifact.facts["exported"]
            yield Point(f"{exported['target']}/size_bytes", 0, float(exported["size_bytes"]))
    reports = artifacts["benchmark"].facts["reports"] if "benchmark" in artifacts else ()
    for r in reports:
        for key in ("median_ns", "p90_ns", "p99_ns"):
            if not r["emulated"] and r["latency"].get(key):
                words = f"{r['target']}/{r['device']}/latency_{key.removesuffix('_ns')}_ms"
                yield Point(words, 0, r["latency"][key] / 1e6)


def _trained(step: str, artifact: Artifact) -> Iterator[Point]:
    rows = artifact.read_lines("history.jsonl", HISTORY) if artifact.has("history.jsonl") else ()
    for row in rows:
        for key, value in row.items():
            if key != "epoch" and isinstance(value, (int, float)):
                yield Point(f"{step}/{key}", row["epoch"], float(value))
    test = artifact.facts.get("test")
    if test:
        yield Point(f"{step}/test_top1", 0, test["correct"] / test["n"])

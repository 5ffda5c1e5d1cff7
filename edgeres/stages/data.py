"""Data: a source in, fingerprinted splits and a calibration manifest out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeres.artifact import Artifact
from edgeres.recipe import DataSection
from edgeres.stages import Context, keyed_as_is

VERSION = 2
LIBRARIES = ("numpy", "pillow", "scikit-learn")


def keyed(section: DataSection) -> dict[str, Any]:
    """The section with the source's contents in place of its path."""
    from edgeres import datasets

    name, _ = datasets.parse(section.source)
    contents = datasets.fingerprint(section.source)
    return keyed_as_is(section) | {"source": name, "contents": contents}


def run(
    section: DataSection, inputs: Mapping[str, Artifact], out: Path, context: Context
) -> dict[str, Any]:
    """Decode, split, fingerprint; draw the calibration images from the training split."""
    import numpy as np
    from safetensors.numpy import save

    from edgeres import datasets
    from edgeres.datasets import _batches

    dataset = datasets.load(
        section.source, section.size, validation=section.validation, seed=context.seed
    )
    parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    size_px = int(dataset.train.images.shape[1])
    tensors, fingerprints = {}, {}
    for name, part in parts.items():
        tensors[f"{name}_x"] = np.ascontiguousarray(part.images)
        tensors[f"{name}_y"] = np.ascontiguousarray(part.labels.astype(np.int64))
        hashed = hashlib.sha256(tensors[f"{name}_x"].tobytes())
        hashed.update(tensors[f"{name}_y"].tobytes())
        fingerprints[name] = hashed.hexdigest()
    (out / "data.safetensors").write_bytes(save(tensors))
    count = min(section.calibration, len(dataset.train.labels))
    _, manifest = _batches.calibration(
        dataset, count, context.seed, {"size_px": size_px, "values": "uint8 RGB"}
    )
    text = json.dumps(manifest, indent=1)
    (out / "calibration.json").write_text(text, "utf-8")
    return {
        "name": dataset.name, "classes": list(dataset.classes), "size_px": size_px,
        "counts": {name: len(part.labels) for name, part in parts.items()},
        "fingerprints": fingerprints,
        "calibration": {
            "count": len(manifest["samples"]), "split": "train",
            "overlap_with_test": manifest["overlap_with_test"],
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        },
    }  # fmt: skip


def summary(facts: Mapping[str, Any]) -> str:
    """`digits: 1,077 train, 120 validation, 600 test, 16 px`."""
    counts = ", ".join(f"{n:,} {name}" for name, n in facts["counts"].items())
    return f"{facts['name']}: {counts}, {len(facts['classes'])} classes, {facts['size_px']} px"

"""Data: a source in, fingerprinted splits and a calibration manifest out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeres.artifact import Artifact
from edgeres.plugins import Plugins
from edgeres.recipe import DataSection
from edgeres.stages import Context, keyed_as_is
from edgeres.types import to_json

VERSION = 4
LIBRARIES = ("numpy", "pillow", "scikit-learn")


def keyed(section: DataSection) -> dict[str, Any]:
    """The section with the source's contents in place of its path."""
    from edgeres import datasets

    name, _ = datasets.parse(section.source)
    contents = datasets.fingerprint(section.source, section.links)
    return keyed_as_is(section) | {"source": name, "contents": contents}


def plugins(section: DataSection) -> list[tuple[Plugins, str]]:
    """The data set."""
    from edgeres import datasets

    return [(datasets.PLUGINS, datasets.parse(section.source)[0])]


def run(
    section: DataSection, inputs: Mapping[str, Artifact], out: Path, context: Context
) -> dict[str, Any]:
    """Split, decode, fingerprint; draw the calibration images from the training split."""
    from edgeres import datasets
    from edgeres.datasets import _batches, _pictures, _store

    dataset = datasets.opened(
        section.source, section.size, validation=section.validation, seed=context.seed,
        resize=section.resize.rule() if section.resize else None, links=section.links,
    )  # fmt: skip
    parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    size_px = int(dataset.train.images.shape[1])
    written = _store.write(out, parts, context.tick)
    digests = written["train"].digests, written["test"].digests
    for mine, other in _pictures.same_files(dataset.train.images, dataset.test.images).items():
        digests[0][mine] = digests[1][other]
    trained = set(digests[0])
    shared = sum(digest in trained for digest in digests[1])
    _, manifest = _batches.calibration(
        dataset, section.calibration, context.seed, {"size_px": size_px, "values": "uint8 RGB"},
        digests,
    )  # fmt: skip
    text = json.dumps(manifest, indent=1)
    (out / "calibration.json").write_text(text, "utf-8")
    return {
        "name": dataset.name, "classes": list(dataset.classes), "size_px": size_px,
        "counts": {name: len(part.labels) for name, part in parts.items()},
        **({"resize": to_json(dataset.resize)} if dataset.resize else {}),
        "notes": [*dataset.notes, *_shared(shared)],
        "fingerprints": {name: part.fingerprint for name, part in written.items()},
        "calibration": {
            "count": len(manifest["samples"]), "split": "train",
            "overlap_with_test": manifest["overlap_with_test"],
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        },
    }  # fmt: skip


def _shared(count: int) -> list[str]:
    """What is to be said of images that are in the training and the test split."""
    return [f"{count:,} of the test images are training images, too"] if count else []


def summary(facts: Mapping[str, Any]) -> str:
    """`digits: 1,077 train, 120 validation, 600 test, 16 px`."""
    counts = ", ".join(f"{n:,} {name}" for name, n in facts["counts"].items())
    return f"{facts['name']}: {counts}, {len(facts['classes'])} classes, {facts['size_px']} px"

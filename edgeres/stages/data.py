"""Data: a source in, fingerprinted splits and a calibration manifest out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.artifact import Artifact
from edgeres.errors import BadInput
from edgeres.plugins import Plugins
from edgeres.recipe import DataSection
from edgeres.stages import Context, keyed_as_is
from edgeres.types import to_json

if TYPE_CHECKING:
    from edgeres.datasets import Dataset, Samples
    from edgeres.datasets._store import Written
    from edgeres.records import Facts

VERSION = 4
LIBRARIES = ("numpy", "pillow", "scikit-learn")

_MUCH_BYTES = 8e9  # decoded, of which the other way is told


def keyed(section: DataSection, hashes: Path | None = None) -> dict[str, object]:
    """The section with the source's contents in place of its path.

    What is done about a damaged picture is no part of it, so that a training which stopped at one
    goes on where it was.
    """
    from edgeres import datasets

    name, _ = datasets.parse(section.source)
    contents = datasets.fingerprint(section.source, section.links, hashes)
    document = keyed_as_is(section) | {"source": name, "contents": contents}
    del document["on_error"], document["workers"]
    if section.storage == "decoded":
        del document["storage"]
    return document


def plugins(section: DataSection) -> list[tuple[Plugins, str]]:
    """The data set."""
    from edgeres import datasets

    return [(datasets.PLUGINS, datasets.parse(section.source)[0])]


def run(
    section: DataSection, inputs: Mapping[str, Artifact], out: Path, context: Context
) -> dict[str, object]:
    """Split, decode, fingerprint; draw the calibration images from the training split."""
    from edgeres import datasets
    from edgeres.datasets import _store

    dataset = datasets.opened(
        section.source, section.size, validation=section.validation, seed=context.seed,
        resize=section.resize.rule() if section.resize else None, links=section.links,
    )  # fmt: skip
    size_px = int(dataset.train.images.shape[1])
    note: dict[str, object] = {"size_px": size_px, "values": "uint8 RGB"}
    said = list(dataset.notes)
    if section.storage == "jpeg":
        parts, written, shared, manifest, found = _listed(section, dataset, note, out, context)
        said += found
    else:
        parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
        said += (much := _much(dataset))
        for words in much:  # before the hours that it takes
            context.tick(0, len(dataset.train.labels), words)
        written = _store.write(out, parts, context.tick)
        shared, manifest = _calibrated(section, dataset, written, note, context.seed)
    text = json.dumps(manifest, indent=1)
    (out / "calibration.json").write_text(text, "utf-8")
    return {
        "name": dataset.name, "classes": list(dataset.classes), "size_px": size_px,
        "counts": {name: len(parts[name].labels) for name in ("train", "validation", "test")},
        **({"resize": to_json(dataset.resize)} if dataset.resize else {}),
        "notes": [*said, *_shared(shared)],
        "fingerprints": {name: part.fingerprint for name, part in written.items()},
        "calibration": {
            "count": len(manifest["samples"]), "split": "train",
            "overlap_with_test": manifest["overlap_with_test"],
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        },
    }  # fmt: skip


def _calibrated(
    section: DataSection, dataset: Dataset, written: Mapping[str, Written], note: dict[str, object],
    seed: int,
) -> tuple[int, Facts]:  # fmt: skip
    """How many test images are training images, and the manifest, of splits in one file."""
    from edgeres.datasets import _batches, _pictures

    digests = written["train"].digests, written["test"].digests
    for mine, other in _pictures.same_files(dataset.train.images, dataset.test.images).items():
        digests[0][mine] = digests[1][other]
    trained = set(digests[0])
    shared = sum(digest in trained for digest in digests[1])
    _, manifest = _batches.calibration(dataset, section.calibration, seed, note, digests)
    return shared, manifest


def _listed(
    section: DataSection, dataset: Dataset, note: dict[str, object], out: Path, context: Context
) -> tuple[dict[str, Samples], dict[str, Written], int, Facts, list[str]]:
    """The training split as a list of files, the others and what calibrates as pixels.

    Test images among the training images are found by their files' bytes.

    Returns:
        The splits, what was written of them, how many test images are training images, the
        manifest, and what is to be said.
    """
    from edgeres import datasets
    from edgeres.datasets import Samples, _batches, _pictures, _store
    from edgeres.datasets._listed import listed

    _, folder = datasets.parse(section.source)
    if folder is None or not isinstance(dataset.train.images, _pictures.Pictures):
        raise BadInput(f"data.storage: jpeg is for folders of pictures; the images of "
                       f"'{dataset.name}' are no files: leave it out")  # fmt: skip
    hashes, count = datasets.hashes_of(section.source, context.hashes), len(dataset.train.labels)
    files = [
        listed(part.images, folder, hashes,
               lambda i: context.tick(i, count, "listing the training pictures"))
        for part in (dataset.train, dataset.test)
    ]  # fmt: skip
    hashes.save()
    train, tested = ([row.tobytes() for row in found.sha256] for found in files)
    order = _batches.calibration_order(dataset, context.seed, train, tested)
    chosen, images, said = _pictures.first(
        dataset.train.images, order.tolist(), section.calibration, section.on_error == "skip"
    )
    parts = {
        "train": dataclasses.replace(dataset.train, images=files[0]),
        "validation": dataset.validation, "test": dataset.test,
        "calibration": Samples(images, dataset.train.labels[chosen]),
    }  # fmt: skip
    written = _store.write(out, parts, context.tick)
    digests, trained = written["calibration"].digests, set(train)
    overlap = len({train[i] for i in chosen}.intersection(tested))
    manifest = _batches.manifest(chosen, digests, overlap, context.seed, note)
    return parts, written, sum(digest in trained for digest in tested), manifest, said


def _much(dataset: Dataset) -> list[str]:
    """What is to be said where photographs take much room as pixels."""
    from edgeres.datasets import _pictures

    size = len(dataset.train.labels) * 3 * dataset.train.images.shape[1] ** 2
    if size <= _MUCH_BYTES or not isinstance(dataset.train.images, _pictures.Pictures):
        return []
    return [f"the training images take {size / 1e9:,.1f} GB as pixels; with data.storage=jpeg they "
            "stay the files that they are"]  # fmt: skip


def _shared(count: int) -> list[str]:
    """What is to be said of images that are in the training and the test split."""
    return [f"{count:,} of the test images are training images, too"] if count else []


def summary(facts: Facts) -> str:
    """`digits: 1,077 train, 120 validation, 600 test, 16 px`."""
    counts = ", ".join(f"{n:,} {name}" for name, n in facts["counts"].items())
    return f"{facts['name']}: {counts}, {len(facts['classes'])} classes, {facts['size_px']} px"

"""Reading data and writing checkpoints the same way in every stage that trains."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from edgeres.artifact import Artifact
from edgeres.errors import BadInput
from edgeres.facts import CALIBRATION, SCALES
from edgeres.stages import keyed_as_is
from edgeres.types import Accuracy, Preprocess, ScaleTable, quant_params, to_json

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from edgeres.datasets._listed import Listed
    from edgeres.datasets._photographs import Photographs
    from edgeres.models.modules import Classifier
    from edgeres.recipe.sections import NetworkSection
    from edgeres.records import Counted, Facts
    from edgeres.training.answers import Teacher
    from edgeres.training.views import Labelled

LIBRARIES = ("torch", "numpy")
SCALES_FILE = "scales.json"
_BATCH = 250


class Checkpoint(TypedDict):
    """The facts of a network (docs/architecture.md); of one that only answers some are None."""

    model: str
    parameters: int | None
    macs: int | None
    size_px: int
    classes: int
    validation: Counted
    test: Counted
    epochs: int
    source: str


def splits(data: Artifact, labels: Artifact | None = None) -> tuple[Labelled, Labelled, Labelled]:
    """Train, validation and test of a data artifact, as uint8 tensors (N, 3, H, W).

    They are the file mapped into memory: what isn't looked at isn't read. Training pictures that
    stayed files are `Photographs`.

    Args:
        labels: the teacher's stored answers; the training split carries them.
    """
    from edgeres.datasets import _store
    from edgeres.datasets._listed import Listed
    from edgeres.training.label_cache import LabelCache
    from edgeres.training.views import Labelled

    stored = _store.read(data.file(_store.FILE))
    images, classes = stored.get("train", (None, None))
    if isinstance(images, Listed):
        stored["train"] = _photographs(data, images, classes), classes
    _require_splits(data, stored)
    train, validation, test = (Labelled(*stored[s]) for s in ("train", "validation", "test"))
    if labels:
        train = dataclasses.replace(train, answers=LabelCache(labels.folder()))
    return train, validation, test


def _photographs(data: Artifact, listed: Listed, labels: Tensor) -> Photographs:
    """A training split that stayed files, below the folder that the recipe names now."""
    from edgeres import datasets
    from edgeres.datasets._photographs import Photographs
    from edgeres.types import Resize

    _, folder = datasets.parse(data.section["source"])
    if folder is None or not listed.sound():
        raise BadInput(f"{data.path}: its list of pictures is damaged; remove the folder and run "
                       "again")  # fmt: skip
    skip = data.section.get("on_error") == "skip"
    rule = Resize(**data.facts["resize"])
    return Photographs(folder, listed, labels, rule, skip, data.section.get("workers"))


def _require_splits(
    data: Artifact, stored: Mapping[str, tuple[Tensor | Photographs, Tensor]]
) -> None:
    """Raise BadInput unless there are three splits of images with labels, as the facts say."""
    size_px, classes = data.facts["size_px"], class_count(data)
    for name in ("train", "validation", "test"):
        images, labels = stored.get(name, (None, None))
        if (
            images is None or labels is None
            or images.shape[1:] != (3, size_px, size_px) or labels.ndim != 1
            or len(images) != len(labels) or str(images.dtype) != "torch.uint8"
            or str(labels.dtype) != "torch.int64"
            or (len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes)
        ):  # fmt: skip
            raise BadInput(f"{data.path}: its {name} split isn't images of {size_px} px and their "
                           "labels; remove the folder and run again")  # fmt: skip


def calibration_images(data: Artifact, train: Labelled, test: Labelled) -> Tensor:
    """The training images of the calibration manifest, uint8 (N, 3, H, W).

    Raises:
        BadInput: the manifest lists other images than those of the training split, or test images.
    """
    from edgeres.datasets import _store

    manifest = data.read_json("calibration.json", CALIBRATION)
    listed = {s["index"]: s["sha256"] for s in manifest["samples"]}
    where = data.file("calibration.json")
    if manifest["split"] != "train" or not all(0 <= i < len(train.labels) for i in listed):
        raise BadInput(f"{where}: calibration must use training images; run the data stage again")
    stored = _store.read(data.file(_store.FILE)).get("calibration")
    images = stored[0] if stored else train.images[list(listed)]
    if not set(listed.values()).isdisjoint(_hashes(test.images)):
        raise BadInput(f"{where}: test images are listed for calibration; run the data stage again")
    if len(images) != len(listed) or _hashes(images) != list(listed.values()):
        raise BadInput(f"{where}: not the images that are listed; run the data stage again")
    return images


def _hashes(images: Tensor) -> list[str]:
    """SHA-256 of each image's pixels, as the manifest has them: (H, W, 3) uint8."""
    return [hashlib.sha256(image.permute(1, 2, 0).contiguous().numpy()).hexdigest()
            for image in images]  # fmt: skip


def write(
    out: Path,
    model: Classifier,
    data: Artifact,
    *,
    history: Sequence[Mapping[str, object]],
    source: str = "trained",
    answers: nn.Module | None = None,
    device: str = "cpu",
) -> Checkpoint:
    """Write a checkpoint folder (see docs/architecture.md) and return its facts.

    Args:
        model: in evaluation mode.
        source: where its weights come from at first: "trained" here, or e.g. "checkpoint".
        answers: what to evaluate in place of `model` (its quantized graph).
        device: where to evaluate it.
    """
    import numpy as np

    from edgeres.models import weights
    from edgeres.models.modules import complexity
    from edgeres.training import placement
    from edgeres.training.inference import evaluate, in_layout
    from edgeres.training.loop import Trainee

    _, validation, test = splits(data)
    weights.save(out, model)
    lines = "".join(json.dumps(row) + "\n" for row in history)
    (out / "history.jsonl").write_text(lines, "utf-8")
    network = answers or in_layout(model, model.spec.preprocess)
    network.to(placement.device_of(device))
    trainee = Trainee(network, model.spec.preprocess, lambda training: None)
    on_validation, _ = evaluate(trainee, validation)
    on_test, logits = evaluate(trainee, test)
    network.to("cpu")
    np.save(out / "test_logits.npy", logits.numpy())
    parameters, macs = complexity(model.spec)
    return {
        "model": model.spec.name, "parameters": parameters, "macs": macs,
        "size_px": model.spec.preprocess.size_px, "classes": model.spec.classes,
        "validation": to_json(on_validation), "test": to_json(on_test),
        "epochs": len(history), "source": source,
    }  # fmt: skip


def write_answers(out: Path, teacher: Teacher, data: Artifact, *, source: str) -> Checkpoint:
    """What `write` gives of a teacher that only answers; parameters and MACs are unknown."""
    import numpy as np
    import torch

    _, validation, test = splits(data)
    (out / "history.jsonl").write_text("", "utf-8")
    answers = {name: torch.cat([teacher.answer(part) for part in split.images.split(_BATCH)])
               for name, split in (("validation", validation), ("test", test))}  # fmt: skip
    np.save(out / "test_logits.npy", answers["test"].numpy())
    on_validation, on_test = (
        Accuracy(int((answers[name].argmax(1) == split.labels).sum()), len(split.labels))
        for name, split in (("validation", validation), ("test", test))
    )
    return {
        "model": source, "parameters": None, "macs": None, "size_px": int(data.facts["size_px"]),
        "classes": class_count(data), "validation": to_json(on_validation),
        "test": to_json(on_test), "epochs": 0, "source": source,
    }  # fmt: skip


def answers(artifact: Artifact, data: Artifact, name: str = "test_logits.npy") -> np.ndarray:
    """Stored logits (N, C) float of the first test images, of all but where verification took less.

    Raises:
        StorageError: they are damaged, or of other data.
    """
    return artifact.read_array(name, data.facts["counts"]["test"], class_count(data))


def read_scales(artifact: Artifact) -> ScaleTable:
    """The scales of a quantize artifact, or of a network that came with its own."""
    table = artifact.read_json(SCALES_FILE, SCALES)
    return {name: params for name, data in table.items() if (params := quant_params(data))}


def write_scales(out: Path, scales: ScaleTable) -> None:
    """The scales that a network is quantized with."""
    (out / SCALES_FILE).write_text(json.dumps(to_json(scales), indent=1), "utf-8")


def keyed(section: NetworkSection) -> dict[str, object]:
    """The section as hashed: mean and std, however they are said; what isn't said isn't there."""
    document = keyed_as_is(section)
    del document["preprocess"]
    if section.normalization is not None:
        document["mean"], document["std"] = map(list, section.normalization)
    if section.weights is None:
        del document["weights"]
    return document


def advice(network: Classifier | Teacher, data: Artifact) -> list[str]:
    """What is to be said about the preprocessing of a network with somebody's weights."""
    import copy

    from edgeres.models.modules import Classifier
    from edgeres.teachers import _prepared
    from edgeres.training.answers import as_teacher

    train, _, _ = splits(data)
    own = copy.deepcopy(network) if isinstance(network, Classifier) else network  # it'd be frozen
    said = _prepared.advice(as_teacher(own), train.images, train.labels)
    return [] if said is None else [said]


def default_preprocess(data: Artifact) -> Preprocess:
    """Preprocessing of a network that is trained here on these data."""
    from edgeres.models.spec import default_preprocess as of_size

    return of_size(int(data.facts["size_px"]))


def fresh(section: NetworkSection, name: str, data: Artifact, seed: int) -> Classifier:
    """A network of random weights, as a section says."""
    from edgeres.models import resnet, spec
    from edgeres.teachers import _library

    preprocess = default_preprocess(data)
    if section.normalization is not None:
        preprocess = Preprocess(preprocess.size_px, *section.normalization)
    if (named := _library.parse(name)) is not None:
        for key in ("zero_init_residual", "skip_scale", "stochastic_depth"):
            if getattr(section, key):
                raise BadInput(f"{key} is for the residual networks built here, not for {name}; "
                               "leave it out")  # fmt: skip
        return _library.fresh(*named, class_count(data), preprocess, seed)
    return resnet.build(
        spec.parse(name, class_count(data), preprocess), seed=seed,
        zero_init_residual=section.zero_init_residual,
        skip_scale=section.skip_scale, stochastic_depth=section.stochastic_depth,
    )  # fmt: skip


def class_count(data: Artifact) -> int:
    """How many classes the data have."""
    return len(data.facts["classes"])


def summary(facts: Facts) -> str:
    """`resnet8, 78 k parameters, test 97.3 %`."""
    test = facts["test"]
    sizes = [f"{facts['parameters'] / 1e3:,.0f} k parameters" if facts["parameters"] else "",
             f"{facts['macs'] / 1e6:,.1f} M MACs" if facts["macs"] else ""]  # fmt: skip
    return ", ".join([facts["model"], *filter(None, sizes),
                      f"test {test['correct'] / test['n']:.2%}"])  # fmt: skip

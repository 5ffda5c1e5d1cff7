"""Teacher: a checkpoint somebody trained, or a network trained here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeres.artifact import Artifact, file_sha256
from edgeres.errors import BadInput
from edgeres.recipe import TeacherSection
from edgeres.stages import Context, _checkpoint, keyed_as_is
from edgeres.types import Preprocess

VERSION = 2
LIBRARIES = _checkpoint.LIBRARIES
summary = _checkpoint.summary


def keyed(section: TeacherSection) -> dict[str, Any]:
    """The section with the checkpoint's contents in place of its path."""
    document = keyed_as_is(section)
    if section.checkpoint is None:
        return document
    path = Path(section.checkpoint)
    if not path.is_file():
        raise BadInput(f"teacher.checkpoint: {path}: no such file")
    del document["train"]  # nothing is trained
    return document | {"checkpoint": file_sha256(path)}


def run(
    section: TeacherSection, inputs: Mapping[str, Artifact], out: Path, context: Context
) -> dict[str, Any]:
    """Load or train the teacher."""
    from edgeres.models import resnet, spec, weights
    from edgeres.training import loop, objectives

    data = inputs["data"]
    preprocess = _checkpoint.default_preprocess(data)
    if section.mean is not None and section.std is not None:
        preprocess = Preprocess(preprocess.size_px, section.mean, section.std)
    architecture = spec.parse(section.model, _checkpoint.class_count(data), preprocess)
    if section.checkpoint is not None:
        model = weights.from_checkpoint(Path(section.checkpoint), architecture)
        return _checkpoint.write(out, model, data, history=[], source="checkpoint")
    model = resnet.build(
        architecture, seed=context.seed, zero_init_residual=section.zero_init_residual,
        skip_scale=section.skip_scale, stochastic_depth=section.stochastic_depth,
    )  # fmt: skip
    train, validation, _ = _checkpoint.splits(data)
    history = loop.fit(
        loop.Trainee.of(model, preprocess), train, validation, section.train,
        objectives.supervised(preprocess, section.train.label_smoothing),
        seed=context.seed, work=context.work, tick=context.tick,
    )  # fmt: skip
    return _checkpoint.write(out, model, data, history=history)

"""Distill: a teacher and a student's name in, the trained student out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres.artifact import Artifact
from edgeres.recipe import DistillSection
from edgeres.stages import Context, _checkpoint, keyed_as_is
from edgeres.teachers import Wanted, source

if TYPE_CHECKING:
    from edgeres.models.resnet import ResNet

VERSION = 3
LIBRARIES = _checkpoint.LIBRARIES
summary = _checkpoint.summary


def keyed(section: DistillSection) -> dict[str, Any]:
    """The section, with what the checkpoint holds in place of its path."""
    document = keyed_as_is(section)
    if section.checkpoint is not None:
        document["checkpoint"] = source("checkpoint").keyed(section.checkpoint)
    return document


def run(
    section: DistillSection, inputs: Mapping[str, Artifact], out: Path, context: Context
) -> dict[str, Any]:
    """Train the student on the labels and the teacher's answers."""
    from edgeres import teachers
    from edgeres.training import loop, objectives
    from edgeres.training.hints import Hints

    data = inputs["data"]
    student = _student(section, data, context.seed)
    preprocess = student.spec.preprocess
    smoothing = section.train.label_smoothing
    objective, hints = objectives.supervised(preprocess, smoothing), None
    if section.loss != "none":
        load = teachers.load if section.hints else teachers.OnDemand
        teacher = load(inputs["teacher"].path)
        hints = Hints.of(section.hints, teacher, student, preprocess)
        objective = objectives.distilled(
            teacher, preprocess, temperature=section.temperature, alpha=section.alpha,
            smoothing=smoothing, loss=section.loss, hints=hints,
        )  # fmt: skip
    train, validation, _ = _checkpoint.splits(data, inputs.get("labels"))
    history = loop.fit(
        loop.Trainee.of(student, preprocess), train, validation, section.train, objective,
        seed=context.seed, work=context.work, tick=context.tick, extra=hints,
    )  # fmt: skip
    if hints:
        hints.close()
    origin = "trained" if section.checkpoint is None else "checkpoint"
    return _checkpoint.write(out, student, data, history=history, source=origin,
                             device=section.train.device)  # fmt: skip


def _student(section: DistillSection, data: Artifact, seed: int) -> ResNet:
    """The network that learns: fresh, or with somebody's weights."""
    if section.checkpoint is None:
        return _checkpoint.fresh(section, section.student, data, section.train.seed_or(seed) + 1)
    from edgeres.teachers import checkpoint

    wanted = Wanted(
        model=section.student, classes=_checkpoint.class_count(data), outputs=None,
        data_px=int(data.facts["size_px"]), mean=section.mean, std=section.std,
    )  # fmt: skip
    return checkpoint.network(section.checkpoint, wanted)

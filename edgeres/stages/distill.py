"""Distill: a teacher and a student's name in, the trained student out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres import datasets, losses, teachers
from edgeres.artifact import Artifact
from edgeres.plugins import Plugins
from edgeres.recipe import DataSection, DistillSection
from edgeres.stages import Context, _checkpoint, _finetuning
from edgeres.teachers import Wanted, source

if TYPE_CHECKING:
    from edgeres.models.modules import Classifier
    from edgeres.records import Facts

VERSION = 6
LIBRARIES = _checkpoint.LIBRARIES


def keyed(section: DistillSection) -> dict[str, object]:
    """The section, with what the checkpoint holds in place of its path."""
    document = _checkpoint.keyed(section)
    if section.checkpoint is not None:
        document["checkpoint"] = source("checkpoint").keyed(section.checkpoint)
    return document


def plugins(section: DistillSection) -> list[tuple[Plugins, str]]:
    """Its loss."""
    return [(losses.PLUGINS, section.loss)] if section.loss != losses.NONE else []


def run(
    section: DistillSection, inputs: Mapping[str, Artifact], out: Path, context: Context
) -> dict[str, object]:
    """Train the student on the labels and the teacher's answers."""
    from edgeres.training import objectives
    from edgeres.training.hints import Hints

    data = inputs["data"]
    student, notes, replaced = _student(section, data, context.seed, out)
    _finetuning.require_epochs("distill", replaced, student.spec.classes, section.train)
    preprocess = student.spec.preprocess
    smoothing = section.train.label_smoothing
    objective, hints = objectives.supervised(preprocess, smoothing), None
    if section.loss != losses.NONE:
        given = inputs["teacher"]
        teacher = teachers.load(given.folder()) if section.hints else teachers.OnDemand(given)
        hints = Hints.of(section.hints, teacher, student, preprocess)
        objective = objectives.distilled(
            teacher, preprocess, temperature=section.temperature, alpha=section.alpha,
            smoothing=smoothing, loss=section.loss, hints=hints,
        )  # fmt: skip
    train, validation, _ = _checkpoint.splits(data, inputs.get("labels"))
    history, said = _finetuning.tuned(
        student, section.train, section.new_head, replaced, train, validation, objective, context,
        extra=hints,
    )  # fmt: skip
    if hints:
        hints.close()
    origin = "trained" if section.checkpoint is None else "checkpoint"
    facts = _checkpoint.write(out, student, data, history=history, source=origin,
                              device=section.train.device)  # fmt: skip
    return {**facts, **said, **({"notes": notes} if notes else {})}


def summary(facts: Facts) -> str:
    """The checkpoint's line, and whether its last layer is a new one."""
    return _checkpoint.summary(facts) + _finetuning.summary(facts)


def precheck(section: DistillSection, data: DataSection) -> None:
    """Read the student's weights before the data are decoded."""
    if section.checkpoint is not None:
        size_px = data.size or datasets.default_size(data.source)
        teachers.precheck("checkpoint", section.checkpoint, _wanted(section, 0, size_px))


def _wanted(section: DistillSection, classes: int, data_px: int) -> Wanted:
    mean, std = section.normalization or (None, None)
    return Wanted(
        model=section.student, classes=classes, outputs=None, data_px=data_px, mean=mean, std=std,
        weights=section.weights, new_head=section.new_head.replace,
    )  # fmt: skip


def _student(
    section: DistillSection, data: Artifact, seed: int, out: Path
) -> tuple[Classifier, list[str], int | None]:
    """The network that learns, fresh or with somebody's weights; what is to be said of it; how many
    classes those weights had, if its last layer was replaced."""
    if section.checkpoint is None:
        seed = section.train.seed_or(seed) + 1
        return _checkpoint.fresh(section, section.student, data, seed), [], None
    asked = _wanted(section, _checkpoint.class_count(data), int(data.facts["size_px"]))
    found = source("checkpoint").fetch(section.checkpoint, asked, out)
    assert found.network is not None
    replaced = found.replaced
    advice = [] if replaced is not None else _checkpoint.advice(found.network, data)
    return found.network, [*found.notes, *advice], replaced

"""Distill: a teacher and a student's name in, the trained student out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeres.artifact import Artifact
from edgeres.recipe import DistillSection
from edgeres.stages import Context, _checkpoint, keyed_as_is

VERSION = 2
LIBRARIES = _checkpoint.LIBRARIES
summary = _checkpoint.summary
keyed = keyed_as_is


def run(
    section: DistillSection, inputs: Mapping[str, Artifact], out: Path, context: Context
) -> dict[str, Any]:
    """Train the student on the labels and the teacher's answers."""
    from edgeres import teachers
    from edgeres.models import resnet, spec
    from edgeres.training import loop, objectives
    from edgeres.training.hints import Hints

    data = inputs["data"]
    preprocess = _checkpoint.default_preprocess(data)
    architecture = spec.parse(section.student, _checkpoint.class_count(data), preprocess)
    student = resnet.build(
        architecture, seed=section.train.seed_or(context.seed) + 1,
        zero_init_residual=section.zero_init_residual,
        skip_scale=section.skip_scale, stochastic_depth=section.stochastic_depth,
    )  # fmt: skip
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
    return _checkpoint.write(out, student, data, history=history)

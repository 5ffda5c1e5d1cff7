"""Quantize: a float network in, folded weights and the trained scales of every tensor out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeres.artifact import Artifact
from edgeres.recipe import QuantizeSection
from edgeres.stages import Context, _checkpoint, keyed_as_is
from edgeres.types import to_json

VERSION = 3
LIBRARIES = (*_checkpoint.LIBRARIES, "torchao", "nncf")


def keyed(section: QuantizeSection) -> dict[str, Any]:
    """The section; PTQ has no training settings."""
    document = keyed_as_is(section)
    if section.method == "ptq":
        return {name: document[name] for name in ("method", "scheme")}
    return document


def run(
    section: QuantizeSection, inputs: Mapping[str, Artifact], out: Path, context: Context
) -> dict[str, Any]:
    """Calibrate, and train if asked; then evaluate the quantized graph itself."""
    from edgeres.compression import graph, ptq
    from edgeres.models import weights

    data = inputs["data"]
    model = weights.load(inputs["model"].path)
    train, _, _ = _checkpoint.splits(data)
    images = _checkpoint.calibration_images(data, train)
    history: list[dict[str, Any]] = []
    if section.method == "qat":
        model, scales, history = _train(section, inputs, model, images, context)
    else:
        model, scales = ptq.quantize(model, images)
    (out / "scales.json").write_text(json.dumps(to_json(scales), indent=1), "utf-8")
    quantized = graph.quantized_graph(model, scales, fold_weights=True)
    facts = _checkpoint.write(out, model, data, history=history, answers=quantized)
    return facts | {"method": section.method, "scheme": section.scheme}


def _train(
    section: QuantizeSection,
    inputs: Mapping[str, Artifact],
    model: Any,
    images: Any,
    context: Context,
) -> tuple[Any, Any, list[dict[str, Any]]]:
    from edgeres import teachers
    from edgeres.compression.qat import QatModel
    from edgeres.training import loop, objectives

    preprocess = model.spec.preprocess
    prepared = QatModel(
        model, freeze_observers=section.freeze_observers, freeze_batchnorm=section.freeze_batchnorm
    )
    prepared.calibrate(images)
    objective = objectives.distilled(
        teachers.load(inputs["teacher"].path), preprocess, temperature=section.temperature,
        alpha=section.alpha, smoothing=section.train.label_smoothing,
    )  # fmt: skip
    train, validation, _ = _checkpoint.splits(inputs["data"], inputs.get("labels"))
    history = loop.fit(
        prepared.trainee(), train, validation, section.train, objective,
        seed=context.seed, work=context.work, tick=context.tick,
    )  # fmt: skip
    return *prepared.finish(), history


def summary(facts: Mapping[str, Any]) -> str:
    """The checkpoint's line with method and scheme."""
    return f"{facts['method'].upper()} {facts['scheme']} of {_checkpoint.summary(facts)}"

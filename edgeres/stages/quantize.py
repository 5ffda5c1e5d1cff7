"""Quantize: a float network in, folded weights and the trained scales of every tensor out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres.artifact import Artifact
from edgeres.errors import BadInput
from edgeres.recipe import QuantizeSection
from edgeres.stages import Context, _checkpoint, keyed_as_is
from edgeres.types import ScaleTable

if TYPE_CHECKING:
    from edgeres.models.modules import Classifier
    from edgeres.training.views import Labelled

VERSION = 9
LIBRARIES = (*_checkpoint.LIBRARIES, "torchao", "nncf")
_UNSEEN = ("crop", "randaugment")
_VIEWS = 4  # of each image


def keyed(section: QuantizeSection) -> dict[str, Any]:
    """The section; PTQ has no training settings."""
    document = keyed_as_is(section)
    if section.method != "qat":
        kept = ("method", "scheme", "ranges", "exclude", "input")
        document = {name: document[name] for name in kept}
    if section.input == "any":
        del document["input"]
    return document


def run(
    section: QuantizeSection, inputs: Mapping[str, Artifact], out: Path, context: Context
) -> dict[str, Any]:
    """Calibrate, train if asked, keep what is better on validation; evaluate the quantized graph.

    Training starts from the calibrated network, which is the first candidate.

    Raises:
        BadInput: as `ptq.quantize`; the network has no scales of its own, which it is to keep.
    """
    from edgeres.compression import ptq
    from edgeres.models import weights
    from edgeres.models.pixels import of_pixels

    data = inputs["data"]
    model = weights.load(inputs["model"].folder())
    if section.method == "file":
        return _kept(section, model, inputs, out)
    train, validation, test = _checkpoint.splits(data)
    notes: list[str] = []
    if section.input == "pixels" and model.spec.preprocess.input_quantization() is None:
        trained, model = model, of_pixels(model)
        notes = [_folded(trained, model, validation)]
    images = _checkpoint.calibration_images(data, train, test)
    folded, scales = ptq.quantize(
        model, images, scheme=section.scheme, ranges=section.ranges, exclude=section.exclude
    )
    history: list[dict[str, Any]] = []
    chosen: dict[str, Any] = {}
    if section.method == "qat":
        trained, trained_scales, history = _train(section, inputs, model, scales, context)
        candidates = {"ptq": (folded, scales), "qat": (trained, trained_scales)}
        judge, held_out = _held_out(data, inputs["model"].facts["source"])
        correct = {n: _right(held_out, *c) for n, c in candidates.items()}
        best = "ptq" if correct["ptq"] > correct["qat"] else "qat"
        folded, scales = candidates[best]
        chosen = {"kept": best, "judged_on": judge, "judged_n": len(held_out.labels),
                  "judged_correct": correct}  # fmt: skip
    notes += ptq.doubts(model, folded, scales, images)
    return _written(section, folded, scales, inputs, out, history) | chosen | {"notes": notes}


def _kept(
    section: QuantizeSection, model: Classifier, inputs: Mapping[str, Artifact], out: Path
) -> dict[str, Any]:
    """The network with the scales that its file had."""
    from edgeres.models.modules import fold_batchnorm

    origin = inputs["model"]
    if not origin.has(_checkpoint.SCALES_FILE):
        why = next((note for note in origin.facts.get("notes", ()) if "is quantized" in note),
                   f"what {origin.stage} left has none")  # fmt: skip
        raise BadInput("quantize.method: file keeps the scales of a file that is quantized "
                       f"already: {why}; to calibrate, say quantize.method=ptq")  # fmt: skip
    if section.exclude or section.scheme != "w8a8" or section.input != "any":
        raise BadInput("quantize.method: file keeps all as it is; leave out scheme, exclude and "
                       "input, or say quantize.method=ptq")  # fmt: skip
    scales = _checkpoint.read_scales(origin)
    return _written(section, fold_batchnorm(model), scales, inputs, out, [])


def _written(
    section: QuantizeSection, folded: Classifier, scales: ScaleTable,
    inputs: Mapping[str, Artifact], out: Path, history: list[dict[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    from edgeres.compression.integers import integer_graph

    _checkpoint.write_scales(out, scales)
    quantized = integer_graph(folded, scales)
    facts = _checkpoint.write(out, folded, inputs["data"], history=history, answers=quantized,
                              source=inputs["model"].facts["source"])  # fmt: skip
    kept = [n.removesuffix(".weight") for n in folded.state_dict()
            if n.endswith(".weight") and n not in scales]  # fmt: skip
    return facts | {"notes": [], "method": section.method, "scheme": section.scheme,
                    "float_layers": kept}  # fmt: skip


def _folded(before: Classifier, after: Classifier, split: Labelled) -> str:
    """What is to be said of a network whose normalization went into its first layer."""
    from edgeres.training.inference import predict

    first, second = (predict(m, split.images, m.spec.preprocess).argmax(1) for m in (before, after))
    return (f"mean and std went into the first layer (input: pixels), which pads with pixel 128 "
            f"now and not with the mean: in float32 {int((first != second).sum()):,} of "
            f"{len(split.labels):,} validation images get another answer")  # fmt: skip


def _train(
    section: QuantizeSection,
    inputs: Mapping[str, Artifact],
    model: Any,
    scales: ScaleTable,
    context: Context,
) -> tuple[Any, ScaleTable, list[dict[str, Any]]]:
    from edgeres import teachers
    from edgeres.compression.qat import QatModel
    from edgeres.training import loop, objectives

    prepared = QatModel(
        model, freeze_observers=section.freeze_observers, freeze_batchnorm=section.freeze_batchnorm,
        scheme=section.scheme, exclude=section.exclude, learned_steps=section.learned_steps,
    )  # fmt: skip
    prepared.start(scales)
    objective = objectives.distilled(
        teachers.OnDemand(inputs["teacher"]), model.spec.preprocess,
        temperature=section.temperature, alpha=section.alpha,
        smoothing=section.train.label_smoothing,
    )  # fmt: skip
    train, validation, _ = _checkpoint.splits(inputs["data"], inputs.get("labels"))
    history = loop.fit(
        prepared.trainee(context.work / "best.safetensors"), train, validation, section.train,
        objective, seed=context.seed, work=context.work, tick=context.tick,
    )  # fmt: skip
    return *prepared.finish(), history


def _held_out(data: Artifact, source: str) -> tuple[str, Labelled]:
    """What the network can't know, and its name.

    One trained elsewhere may have learned the validation images, and calibration forgets none of
    them: it is asked about views that hardly a training makes.
    """
    import torch

    from edgeres.training.views import Labelled, Views, ViewSettings

    _, validation, _ = _checkpoint.splits(data)
    if source == "trained":
        return "validation images", validation
    every = torch.arange(len(validation.labels))
    views = Views(validation, ViewSettings(0, _UNSEEN))
    images = torch.cat([views.batch(every, view)[0] for view in range(_VIEWS)])
    return "augmented views of the validation images", Labelled(
        images, validation.labels.repeat(_VIEWS)
    )


def _right(split: Labelled, model: Classifier, scales: ScaleTable) -> int:
    """How many images a quantized network gets right."""
    from edgeres.compression.integers import integer_graph
    from edgeres.training.inference import predict

    logits = predict(integer_graph(model, scales), split.images, model.spec.preprocess)
    return int((logits.argmax(1) == split.labels).sum())


def summary(facts: Mapping[str, Any]) -> str:
    """The checkpoint's line with method and scheme, and what was kept."""
    line = f"{facts['method'].upper()} {facts['scheme']} of {_checkpoint.summary(facts)}"
    if "kept" not in facts:
        return line
    right = ", ".join(
        f"{n} {c / facts['judged_n']:.1%}" for n, c in facts["judged_correct"].items()
    )
    judged = f"{right} of {facts['judged_n']:,} {facts['judged_on']}"
    return f"{line}; kept {facts['kept']}: {judged}"

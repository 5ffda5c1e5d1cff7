"""Quantize: a float network in, folded weights and the trained scales of every tensor out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.artifact import Artifact
from edgeres.errors import BadInput
from edgeres.recipe import QuantizeSection
from edgeres.stages import Context, _checkpoint, keyed_as_is
from edgeres.types import ScaleTable

if TYPE_CHECKING:
    from torch import Tensor

    from edgeres.models.modules import Classifier
    from edgeres.records import Facts
    from edgeres.training.views import Labelled

VERSION = 11
LIBRARIES = (*_checkpoint.LIBRARIES, "torchao", "nncf")
_UNSEEN = ("crop", "randaugment")
_VIEWS = 4  # of each image
_OF_FOUR_BITS = ("keep_8bit", "max_drop", "max_kb")
_JUDGES = 1000  # images that bits are chosen on


def keyed(section: QuantizeSection) -> dict[str, object]:
    """The section; PTQ has no training settings."""
    document = keyed_as_is(section)
    if section.method != "qat":
        kept = ("method", "scheme", "ranges", "exclude", "input", *_OF_FOUR_BITS)
        document = {name: document[name] for name in kept}
    if section.input == "any":
        del document["input"]
    if section.scheme != "w4a8":
        document = {k: v for k, v in document.items() if k not in _OF_FOUR_BITS}
    return document


def run(
    section: QuantizeSection, inputs: Mapping[str, Artifact], out: Path, context: Context
) -> dict[str, object]:
    """Calibrate, train if asked, keep what is better on validation; evaluate the quantized graph.

    Training starts from the calibrated network, which is the first candidate.

    Raises:
        BadInput: as `ptq.quantize`; the network has no scales of its own, which it is to keep.
    """
    from edgeres.compression import bits, ptq
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
    if (wanted := data.section.get("calibration", 0)) > len(images):
        notes.append(f"calibrated on {len(images):,} images, all there are to calibrate with; "
                     f"data.calibration is {wanted:,}")  # fmt: skip
    four: Collection[str] = ()
    if section.max_drop is not None or section.max_kb is not None:
        four, said = _mixed(section, inputs, model, images, context)
        notes.append(said)
    elif section.scheme == bits.SCHEME:
        four = bits.four(model, section.keep_8bit)
    folded, scales = ptq.quantize(
        model, images, scheme=section.scheme, ranges=section.ranges, exclude=section.exclude,
        four=four,
    )  # fmt: skip
    history: Sequence[Mapping[str, object]] = ()
    chosen: dict[str, object] = {}
    if section.method == "qat":
        trained, trained_scales, history = _train(section, inputs, model, scales, four, context)
        candidates = {"ptq": (folded, scales), "qat": (trained, trained_scales)}
        judge, held_out = _held_out(data, inputs["model"].facts["source"])
        correct = {n: _right(held_out, *c) for n, c in candidates.items()}
        best = "ptq" if correct["ptq"] > correct["qat"] else "qat"
        folded, scales = candidates[best]
        chosen = {"kept": best, "judged_on": judge, "judged_n": len(held_out.labels),
                  "judged_correct": correct}  # fmt: skip
    notes += ptq.doubts(model, folded, scales, images)
    return _written(section, folded, scales, inputs, out, history, notes) | chosen


def _kept(
    section: QuantizeSection, model: Classifier, inputs: Mapping[str, Artifact], out: Path
) -> dict[str, object]:
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
    return _written(section, fold_batchnorm(model), scales, inputs, out, [], [])


def _written(
    section: QuantizeSection, folded: Classifier, scales: ScaleTable,
    inputs: Mapping[str, Artifact], out: Path, history: Sequence[Mapping[str, object]],
    notes: list[str],
) -> dict[str, object]:  # fmt: skip
    from edgeres.compression import bits
    from edgeres.compression.integers import integer_graph

    _checkpoint.write_scales(out, scales)
    quantized = integer_graph(folded, scales)
    made = _checkpoint.write(out, folded, inputs["data"], history=history, answers=quantized,
                             source=inputs["model"].facts["source"])  # fmt: skip
    kept = [n.removesuffix(".weight") for n in folded.state_dict()
            if n.endswith(".weight") and n not in scales]  # fmt: skip
    facts = {**made, "notes": notes, "method": section.method, "scheme": section.scheme,
             "float_layers": kept}  # fmt: skip
    if section.scheme == bits.SCHEME:
        facts["bits"] = found = bits.of(scales)
        notes.append(_said(found))
    return facts


def _said(bits: Mapping[str, int]) -> str:
    """`weights of 20 layers have 4 bits, those of conv1, fc 8`."""
    wide = [name for name, count in bits.items() if count == 8]
    shown = ", ".join(wide[:6]) + (f" and {len(wide) - 6} more" if len(wide) > 6 else "")
    line = f"weights of {len(bits) - len(wide)} layers have 4 bits"
    return f"{line}, those of {shown} 8" if wide else line


def _mixed(
    section: QuantizeSection, inputs: Mapping[str, Artifact], model: Classifier, images: Tensor,
    context: Context,
) -> tuple[frozenset[str], str]:  # fmt: skip
    """The layers that get 4 bits within the section's limits, and what is to be said of that."""
    from edgeres.compression import mixed
    from edgeres.training.views import Labelled

    judge, split = _held_out(inputs["data"], inputs["model"].facts["source"])
    every = max(1, len(split.labels) // _JUDGES)
    split = Labelled(split.images[::every][:_JUDGES], split.labels[::every][:_JUDGES])
    found = mixed.chosen(
        model, images, split, keep=section.keep_8bit, max_drop=section.max_drop,
        max_kb=section.max_kb, ranges=section.ranges, exclude=section.exclude, tick=context.tick,
    )  # fmt: skip
    return found.four, (
        f"bits were chosen by layer: {found.lost_points:.2f} points are lost on "
        f"{len(split.labels):,} {judge} before any training, and the weights take {found.kb:.1f} kB"
    )


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
    model: Classifier,
    scales: ScaleTable,
    four: Collection[str],
    context: Context,
) -> tuple[Classifier, ScaleTable, Sequence[Mapping[str, object]]]:
    from edgeres import teachers
    from edgeres.compression.qat import QatModel
    from edgeres.training import loop, objectives

    prepared = QatModel(
        model, freeze_observers=section.freeze_observers, freeze_batchnorm=section.freeze_batchnorm,
        scheme=section.scheme, exclude=section.exclude, learned_steps=section.learned_steps,
        four=four,
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


def summary(facts: Facts) -> str:
    """The checkpoint's line with method and scheme, and what was kept."""
    line = f"{facts['method'].upper()} {facts['scheme']} of {_checkpoint.summary(facts)}"
    if "kept" not in facts:
        return line
    right = ", ".join(
        f"{n} {c / facts['judged_n']:.1%}" for n, c in facts["judged_correct"].items()
    )
    judged = f"{right} of {facts['judged_n']:,} {facts['judged_on']}"
    return f"{line}; kept {facts['kept']}: {judged}"

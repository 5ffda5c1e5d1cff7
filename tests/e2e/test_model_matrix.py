"""Every kind of residual network, small: trained, pruned to half, QAT, integer files, verified.

The names are cut to two stages, which holds each kind's every operation, and are trained on the
digits just long enough that most answers are clear.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from conftest import needs
from turns import by_turns

from edgeres import targets
from edgeres.compression import budgets, criteria, graph
from edgeres.compression.prune import prune
from edgeres.compression.qat import QatModel
from edgeres.datasets import ReadOptions, digits
from edgeres.disk import file_sha256
from edgeres.models import resnet, spec
from edgeres.models.modules import complexity
from edgeres.models.resnet import ResNet
from edgeres.models.shapes import shapes_of
from edgeres.recipe import TrainSection, VerifySection
from edgeres.training import loop, objectives
from edgeres.training.inference import prepared
from edgeres.training.loop import Trainee
from edgeres.training.views import Labelled
from edgeres.types import ExportedFile, Resize
from edgeres.verification.certificate import Reference, certify

PX = 8
TARGETS = ("tflite-int8", "onnx-int8", "coreml-int8")
FLOAT = TrainSection(epochs=4, batch_size=64, learning_rate=0.2, augment=())
PRUNED = TrainSection(epochs=3, batch_size=64, learning_rate=0.1, augment=())
TUNED = TrainSection(epochs=1, batch_size=64, learning_rate=0.02, augment=())
# name -> operators that its integer files must have, besides those of every residual network.
# Basic blocks with option B go through the whole chain in test_chain.py; a pre-activated network
# has no other operations than a wide one.
KINDS = {
    "resnet14-w0.25-se-D": {"tflite": ("LOGISTIC", "MUL", "DEPTHWISE_CONV_2D"),
                            "onnx": ("QLinearSigmoid", "QLinearMul")},
    "wrn-16-1": {"tflite": ("DEPTHWISE_CONV_2D",)},
    "resnext11-4x16d-w0.25": {},
    "resnet8-w2-mobile-A": {"tflite": ("DEPTHWISE_CONV_2D",)},
}  # fmt: skip


@pytest.fixture(scope="module")
def data() -> tuple[Labelled, Labelled]:
    """Training and test images of the digits."""
    raw = digits.read(None, ReadOptions(Resize.of(PX)))
    return tuple(Labelled(torch.from_numpy(part.images).permute(0, 3, 1, 2).contiguous(),
                          torch.from_numpy(part.labels))
                 for part in (raw.train, raw.test))  # type: ignore[return-value]  # fmt: skip


def train(trainee: Trainee, data: tuple, settings: TrainSection, work: Path) -> None:
    work.mkdir()
    loop.fit(trainee, *data, settings, objectives.supervised(trainee.preprocess, 0.0), seed=0,
             work=work, tick=lambda *_: None)  # fmt: skip


def tiny(name: str) -> ResNet:
    whole = spec.parse(name, 10, spec.default_preprocess(PX))
    return resnet.build(dataclasses.replace(whole, stages=whole.stages[:2]))


@pytest.mark.parametrize("name", by_turns(KINDS, 4))
def test_pruned_trained_and_verified_in_integers(name: str, data: tuple, tmp_path: Path) -> None:
    model = tiny(name)
    train(Trainee.of(model, model.spec.preprocess), data, FLOAT, tmp_path / "float")
    half = budgets.macs(shapes_of(model, PX), 0.5)
    slim = prune(model, half, round_to=4, criterion=lambda _: criteria.magnitude())
    assert complexity(slim.spec)[1] <= 0.5 * complexity(model.spec)[1]
    train(Trainee.of(slim, slim.spec.preprocess), data, PRUNED, tmp_path / "pruned")
    slim.eval()
    qat = QatModel(slim, freeze_observers=0.5, freeze_batchnorm=0.5)
    qat.calibrate(data[0].images[:128])
    train(qat.trainee(), data, TUNED, tmp_path / "qat")
    folded, scales = qat.finish()

    test = data[1]
    x = prepared(test.images, folded.spec.preprocess)
    with torch.no_grad():
        expected = graph.quantized_graph(folded, scales, fold_weights=True)(x).numpy()
        before = slim(x).numpy()
    assert (expected.argmax(1) == test.labels.numpy()).mean() > 0.7  # it means something
    reference = Reference(folded, scales, expected, before, test.images, test.labels)
    for target_name in TARGETS:
        target, precision = targets.load(target_name)
        needs(target.PACKAGE)
        path = tmp_path / f"m{target.SUFFIX}"
        ends = target.export(targets.Source(folded, scales), precision, path)
        exported = ExportedFile(target_name, path.name, file_sha256(path), 0, *ends)
        found = certify(path, exported, reference, VerifySection(agreement=0.99), lambda *_: None)
        assert [gate.sentence() for gate in found.gates if not gate.passed] == [], found.notes
        assert found.parity is not None and found.layers is not None and found.audit is not None
        assert found.parity.agreement >= 0.99
        assert found.audit.compared == found.audit.equal == len(scales)
        assert {check.name for check in found.layers} == {w.name for w in graph.wiring(folded.spec)}
        if found.graph.format == "tflite":
            assert path.stat().st_size == pytest.approx(resnet.int8_bytes(folded.spec), rel=0.05)
        wanted = KINDS[name].get(found.graph.format, ())
        assert set(wanted) <= set(found.graph.operators())
        assert found.graph.partitions in (1, None), "one piece for the accelerator"

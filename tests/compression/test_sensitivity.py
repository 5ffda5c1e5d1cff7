"""Sensitivity finds the layer that suffers, and the choice of float layers is a small one."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import pytest
import torch
from conftest import images

from edgeres.compression import portable, ptq, sensitivity
from edgeres.compression.sensitivity import Probe, Sensitivity
from edgeres.models.modules import fold_batchnorm
from edgeres.models.resnet import ResNet
from edgeres.training.inference import prepared
from edgeres.training.views import Labelled
from edgeres.types import ScaleTable


@pytest.fixture(scope="module")
def probe(quantized: tuple[ResNet, ResNet, ScaleTable]) -> Probe:
    """ResNet-8 whose labels are its own float answers, with one output scaled far too coarsely."""
    model, _, scales = quantized
    x = images(64, seed=4)
    with torch.no_grad():
        labels = model(prepared(x, model.spec.preprocess)).argmax(1)
    coarse = dataclasses.replace(
        scales["layer2.0.conv1"], scale=(scales["layer2.0.conv1"].scale[0] * 60,)
    )
    return Probe(model, scales | {"layer2.0.conv1": coarse}, Labelled(x, labels))


def test_the_spoiled_layer_comes_first(probe: Probe) -> None:
    rows = sensitivity.measured(probe, lambda *_: None)
    assert probe.float_correct == 64
    assert rows[0].layer == "layer2.0.conv1"
    assert rows[0].sqnr_db + 10 < rows[1].sqnr_db
    assert {r.layer for r in rows if not r.macs} == {
        "layer1.0.add", "layer2.0.add", "layer3.0.add", "avgpool"}  # fmt: skip


class Additive(Probe):
    """A network whose layers lose what they lose, whatever the others do."""

    def __init__(self, costs: dict[str, float]):
        self.costs = costs

    def lost_points(self, kept: Collection[str]) -> float:
        return sum(cost for layer, cost in self.costs.items() if layer not in kept)


def test_few_layers_stay_float_and_each_is_needed() -> None:
    additive = Additive({"a": 0.1, "b": 0.9, "c": 0.0, "d": 0.6})
    rows = [
        Sensitivity(name, db, 0.0, 100, True) for db, name in enumerate("abcd")
    ]  # misleading order
    choice = sensitivity.fewest_float(additive, rows, 0.5, lambda *_: None)
    assert set(choice.layers) == {"b", "d"}
    assert choice.met
    assert choice.lost_points == pytest.approx(0.1)
    assert choice.float_macs == 0.5
    assert sensitivity.fewest_float(additive, rows, 2.0, lambda *_: None).layers == ()
    assert not sensitivity.fewest_float(Additive({"z": 0.0}), rows, -1.0, lambda *_: None).met


def test_a_layer_left_float_loses_nothing(probe: Probe) -> None:
    assert probe.lost_points(probe.walk.can_be_float) <= probe.lost_points(()) + 100 / 64


def test_portable_weights_are_rounded_as_they_will_be(quantized: tuple) -> None:
    """The mean is a layer with weights there, as in the files."""
    model, *_ = quantized
    _, scales = ptq.quantize(model, images(32), scheme=portable.SCHEME)
    split = Labelled(images(16, seed=4), torch.zeros(16, dtype=torch.long))
    probe = Probe(model, scales, split, portable.SCHEME)
    assert probe.walk.macs["avgpool"] > 0
    by_hand = fold_batchnorm(portable.sums_only(model))
    weight = by_hand.get_parameter("layer2.0.conv1.weight")
    ratio = scales["layer2.0.conv1"].scale[0] / scales["layer1.0.add"].scale[0]
    with torch.no_grad():
        weight.copy_(portable.rounded(weight, torch.tensor([ratio])))
        expected = by_hand(prepared(split.images, model.spec.preprocess))
    found = probe.logits({"layer2.0.conv1"}, frozenset())
    torch.testing.assert_close(found, expected)
    assert not torch.equal(found, probe.float_logits)

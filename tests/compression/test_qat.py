"""QAT trains what it says: ranges, freezing, and a result that the rebuilt graph reproduces."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import images, network

from edgeres.compression import graph
from edgeres.compression.qat import QatModel
from edgeres.recipe import TrainSection
from edgeres.training import loop, objectives
from edgeres.training.loop import Labelled, prepared

SETTINGS = TrainSection(epochs=2, batch_size=16, learning_rate=0.01, augment=())


def data(count: int = 64, px: int = 16) -> Labelled:
    return Labelled(images(count, px), torch.arange(count) % 10)


def train(name: str, px: int, work: Path) -> tuple[QatModel, list[dict]]:
    model = network(name, px)
    qat = QatModel(model, freeze_observers=0.5, freeze_batchnorm=0.5)
    qat.calibrate(images(32, px))
    history = loop.fit(
        qat.trainee(), data(px=px), data(32, px), SETTINGS,
        objectives.supervised(model.spec.preprocess, 0.0), seed=0, work=work,
        tick=lambda *_: None,
    )  # fmt: skip
    return qat, history


@pytest.mark.parametrize(("name", "px"), [("resnet8", 16), ("resnet20-A", 32)])
def test_the_rebuilt_graph_answers_like_the_trained_one(name: str, px: int, tmp_path: Path) -> None:
    qat, history = train(name, px, tmp_path)
    x = prepared(images(64, px, seed=9), qat.model.spec.preprocess)
    with torch.no_grad():
        trained = qat.network(x)
        folded, scales = qat.finish()
        rebuilt = graph.quantized_graph(folded, scales, fold_weights=True)(x)
    assert len(history) == 2
    assert "input" in scales
    assert scales["input"].zero_point == (0,)
    codes = (trained - rebuilt).abs() / scales["fc"].scale[0]
    # Folding changes the last float bits, which can move a value across a rounding edge.
    assert codes.mean() < 0.5
    assert codes.max() <= 6


def test_fixed_option_a_weights_stay_fixed(tmp_path: Path) -> None:
    before = network("resnet20-A", 32).layer2[0].downsample[0].weight.clone()
    qat, _ = train("resnet20-A", 32, tmp_path)
    folded, _ = qat.finish()
    torch.testing.assert_close(folded.layer2[0].downsample[0].weight, before, rtol=0, atol=1e-6)


def test_ranges_and_batch_statistics_freeze_on_schedule() -> None:
    qat = QatModel(network("resnet8"), freeze_observers=0.5, freeze_batchnorm=0.75)
    qat.calibrate(images(32))
    trainee = qat.trainee()
    x = prepared(images(16, seed=5), qat.model.spec.preprocess) * 3

    def moved(name: str) -> bool:
        state = qat.network.state_dict()
        before = {k: v.clone() for k, v in state.items() if name in k}
        qat.network(x)
        state = qat.network.state_dict()
        return any(not torch.equal(v, state[k]) for k, v in before.items())

    states = {}
    for epoch in range(4):
        trainee.set_training(True)
        trainee.start_epoch(epoch, 4)
        observer = next(m for m in qat.network.ranges if m.tensor == "layer1.0.conv1")
        low = observer.bounds.clone()
        batch = moved("running_mean")
        states[epoch] = (not torch.equal(low, observer.bounds), batch)
    assert states == {0: (True, True), 1: (True, True), 2: (False, True), 3: (False, False)}

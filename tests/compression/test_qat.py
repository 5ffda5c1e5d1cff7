"""QAT trains what it says: ranges, freezing, and a result that the rebuilt graph reproduces."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import images, network

from edgeres.compression import biases, fake_quant, graph, ptq
from edgeres.compression.fake_quant import Range
from edgeres.compression.qat import QatModel
from edgeres.errors import StorageError
from edgeres.recipe import TrainSection
from edgeres.training import loop, objectives
from edgeres.training.inference import prepared
from edgeres.training.views import Labelled
from edgeres.types import QuantParams

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


@pytest.fixture
def as_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave weight scales as training saw them: the last step moves answers by some code."""
    monkeypatch.setattr(biases, "shared", lambda _w, bias, scale, *_: (bias, scale))


@pytest.mark.parametrize(("name", "px"), [("resnet8", 16), ("resnet20-A", 32)])
def test_the_rebuilt_graph_answers_like_the_trained_one(
    name: str, px: int, tmp_path: Path, as_trained: None
) -> None:
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


def test_biases_for_every_format_leave_the_answers_near(tmp_path: Path) -> None:
    qat, _ = train("resnet8", 16, tmp_path)
    x = prepared(images(64, seed=9), qat.model.spec.preprocess)
    with torch.no_grad():
        trained = qat.network(x)
        folded, scales = qat.finish()
        rebuilt = graph.quantized_graph(folded, scales, fold_weights=True)(x)
    codes = (trained - rebuilt).abs() / scales["fc"].scale[0]
    assert codes.mean() < 2
    assert codes.max() <= 12


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


def test_fake_quantization_of_a_weight_is_that_of_the_folded_weight() -> None:
    torch.manual_seed(1)
    weight, gamma, variance = torch.randn(6, 4, 3, 3), torch.randn(6), torch.rand(6) + 0.1
    factor = (gamma / (variance + 1e-5).sqrt()).view(-1, 1, 1, 1)
    rounded = fake_quant.unfolded_weight(weight, gamma, variance, 1e-5)
    folded = fake_quant.plain_weight(weight * factor)
    torch.testing.assert_close(rounded * factor, folded, rtol=1e-4, atol=1e-5)
    assert len((folded[0] / graph.weight_scale(folded)[0]).round().unique()) > 20


def test_gradients_pass_inside_the_range_only() -> None:
    one = Range("t", "w8a8", relu=True)
    one.bounds.copy_(torch.tensor([0.0, 2.0]))
    x = torch.tensor([-1.0, 0.5, 1.9, 3.0], requires_grad=True)
    y = one(x * 1)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 0]
    assert y[0] == 0
    assert abs(y[1] - 0.5) <= 2 / 255 / 2
    assert 2.0 <= y[3] <= 2.01


def test_a_learned_step_moves_towards_the_values_it_clips() -> None:
    one = Range("t", "w8a8", relu=True, learned=True)
    one.start(QuantParams((1 / 255,), (-128,), "int8"))
    assert one.step is not None
    y = one(torch.full((64,), 3.0, requires_grad=True) * 1)
    (y - 3.0).pow(2).sum().backward()
    assert one.step.grad is not None
    assert one.step.grad.item() < 0, "a larger step clips less"


@pytest.mark.parametrize("settings", [
    {"scheme": "w8a8-symmetric"}, {"scheme": "w8a16"}, {"learned_steps": True},
    {"exclude": [r"layer2\..*"]},
])  # fmt: skip
def test_every_option_trains_what_the_rebuilt_graph_answers(
    settings: dict, tmp_path: Path, as_trained: None
) -> None:
    model = network("resnet8")
    qat = QatModel(model, freeze_observers=0.5, freeze_batchnorm=0.5, **settings)
    names = {k: v for k, v in settings.items() if k != "learned_steps"}
    _, start = ptq.quantize(model, images(16), **names)
    qat.start(start)
    loop.fit(qat.trainee(tmp_path / "best.safetensors"), data(), data(32), SETTINGS,
             objectives.supervised(model.spec.preprocess, 0.0), seed=0, work=tmp_path,
             tick=lambda *_: None)  # fmt: skip
    x = prepared(images(32, seed=9), model.spec.preprocess)
    folded, scales = qat.finish()
    with torch.no_grad():
        difference = qat.network(x) - graph.quantized_graph(folded, scales, fold_weights=True)(x)
    assert set(scales) == set(start)
    # Biases go to their integer grid in the end. A 16-bit code is 1/256 of one.
    codes = difference.abs() / scales["fc"].scale[0] / (256 if scales["fc"].dtype == "int16" else 1)
    assert codes.mean() < 1
    assert codes.max() <= 12
    if settings.get("learned_steps"):
        assert scales["conv1"].scale != start["conv1"].scale


def test_the_best_epoch_is_what_remains(tmp_path: Path) -> None:
    qat = QatModel(network("resnet8"), freeze_observers=1, freeze_batchnorm=1)
    qat.calibrate(images(32))
    trainee = qat.trainee(tmp_path / "best.safetensors")
    weight = qat.network.program.get_parameter("fc.weight")
    for epoch, top1 in enumerate([0.5, 0.8, 0.3]):
        with torch.no_grad():
            weight.fill_(epoch + 1)
        trainee.end_epoch([{"validation_top1": a} for a in [0.5, 0.8, 0.3][: epoch + 1]])
        assert top1 <= 0.8
    folded, _ = qat.finish()
    torch.testing.assert_close(folded.fc.weight, torch.full_like(folded.fc.weight, 2.0),
                               rtol=1e-2, atol=0)  # fmt: skip


def test_a_best_epoch_that_is_cut_short_is_said(tmp_path: Path) -> None:
    qat = QatModel(network("resnet8"), freeze_observers=1, freeze_batchnorm=1)
    qat.calibrate(images(32))
    best = tmp_path / "best.safetensors"
    qat.trainee(best).end_epoch([{"validation_top1": 0.5}])
    assert [path.name for path in tmp_path.iterdir()] == [best.name]
    best.write_bytes(best.read_bytes()[:-100])
    with pytest.raises(StorageError, match=r"best\.safetensors: isn't a whole safetensors file"):
        qat.finish()

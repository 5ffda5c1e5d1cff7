"""Scheme w4a8: which weights have 4 bits, on what grid, and that the graph computes with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import images, network
from torch import nn

from edgeres.compression import biases, bits, fake_quant, graph, ptq, rounding
from edgeres.compression.integers import integer_graph
from edgeres.compression.qat import QatModel
from edgeres.errors import BadInput
from edgeres.models.modules import fold_batchnorm
from edgeres.recipe import TrainSection
from edgeres.training import loop, objectives
from edgeres.training.inference import prepared
from edgeres.training.views import Labelled
from edgeres.verification.scales import codes

SETTINGS = TrainSection(epochs=2, batch_size=16, learning_rate=0.01, augment=())


def test_all_weights_but_those_of_the_ends_have_4_bits() -> None:
    folded, scales = ptq.quantize(network("resnet20-A", 32), images(32, 32), scheme="w4a8")
    wide = {name for name, count in bits.of(scales).items() if count == 8}
    assert wide == {"conv1", "fc"}
    for name, count in bits.of(scales).items():
        found = codes(folded, scales, f"{name}.weight")
        steps = np.asarray(scales[f"{name}.weight"].scale, np.float32)
        exact = found * steps.reshape(-1, *[1] * (found.ndim - 1))
        np.testing.assert_allclose(folded.state_dict()[f"{name}.weight"], exact, rtol=1e-6)
        largest = {4: 7, 8: 127}[count]
        assert np.abs(found).max() <= largest
        assert len(np.unique(found)) > largest or "downsample" in name


def test_fixed_shortcut_weights_stay_exact() -> None:
    model = network("resnet20-A", 32)
    folded, scales = ptq.quantize(model, images(32, 32), scheme="w4a8")
    name = "layer2.0.downsample.0.weight"
    assert scales[name].dtype == "int4"
    assert torch.equal(folded.state_dict()[name], fold_batchnorm(model).state_dict()[name])


def test_layers_that_are_to_keep_8_bits() -> None:
    model = network("resnet8")
    assert bits.four(model, ["layer1.*"]) & {"conv1", "fc", "layer1.0.conv1"} == {"conv1", "fc"}
    assert "layer1.0.conv1" not in bits.four(model, ["ends", r"layer1\..*"])
    assert bits.four(model, []) == set(bits.weighted(model.spec))
    with pytest.raises(BadInput, match=r"quantize.keep_8bit: no layer matches 'layer9'"):
        bits.four(model, ["layer9"])


def test_clipping_makes_the_error_less_than_the_largest_weight_does() -> None:
    torch.manual_seed(0)
    weight = torch.randn(8, 64, 3, 3)

    def error(scale: torch.Tensor) -> float:
        column = scale.view(-1, 1, 1, 1)
        rounded = (weight / column).round().clamp(-7, 7) * column
        return float((weight - rounded).square().sum())

    peaks = weight.abs().flatten(1).amax(1)
    assert error(graph.weight_scale(weight, kind="int4")) < 0.9 * error(peaks / 7)


def test_calibration_chooses_codes_for_the_layers_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network("resnet20-A", 32), images(64, 32)
    shown = prepared(images(128, 32, seed=5), model.spec.preprocess)

    def change() -> float:
        folded, scales = ptq.quantize(model, x, scheme="w4a8")
        with torch.no_grad():
            return float((integer_graph(folded, scales)(shown) - model(shown)).square().mean())

    better = change()
    monkeypatch.setattr(rounding, "moments", lambda *_: {})
    assert better < 0.7 * change()


@pytest.mark.parametrize("four", [None, ("layer1.0.conv1",)])
def test_what_is_trained_answers_like_the_rebuilt_graph(
    four: tuple[str, ...] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(biases, "shared", lambda _w, bias, scale, *_: (bias, scale))
    model = network("resnet8")
    qat = QatModel(model, freeze_observers=0.5, freeze_batchnorm=0.5, scheme="w4a8", four=four)
    qat.calibrate(images(32))
    data = Labelled(images(64), torch.arange(64) % 10)
    loop.fit(qat.trainee(), data, data, SETTINGS, objectives.supervised(model.spec.preprocess, 0.0),
             seed=0, work=tmp_path, tick=lambda *_: None)  # fmt: skip
    x = prepared(images(64, seed=9), model.spec.preprocess)
    with torch.no_grad():
        trained = qat.network(x)
        folded, scales = qat.finish()
        rebuilt = graph.quantized_graph(folded, scales, fold_weights=True)(x)
        exact = integer_graph(folded, scales)(x)
    assert {n for n, b in bits.of(scales).items() if b == 4} == (set(four or ()) or qat.four)
    difference = (trained - rebuilt).abs() / scales["fc"].scale[0]
    assert difference.mean() < 0.5
    assert difference.max() <= 6
    assert ((exact - rebuilt).abs() / scales["fc"].scale[0]).max() <= 1.5


def test_fake_quantization_of_a_weight_is_that_of_the_folded_weight() -> None:
    torch.manual_seed(1)
    weight, gamma, variance = torch.randn(6, 4, 3, 3), torch.randn(6), torch.rand(6) + 0.1
    factor = (gamma / (variance + 1e-5).sqrt()).view(-1, 1, 1, 1)
    rounded = fake_quant.unfolded_weight(weight, gamma, variance, 1e-5, kind="int4")
    folded = fake_quant.plain_weight(weight * factor, kind="int4")
    torch.testing.assert_close(rounded * factor, folded, rtol=1e-4, atol=1e-5)
    assert all(len(channel.unique()) <= 15 for channel in folded)


def test_training_moves_weights_that_are_clipped() -> None:
    weight = nn.Parameter(torch.linspace(-1, 1, 36).view(2, 2, 3, 3))
    fake_quant.plain_weight(weight, kind="int4").sum().backward()
    assert weight.grad is not None
    assert (weight.grad == 1).all()

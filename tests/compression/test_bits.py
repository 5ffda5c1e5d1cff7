"""Scheme w4a8: which weights have 4 bits, on what grid, and that the graph computes with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import images, network
from torch import nn

from edgeres.compression import biases, bits, fake_quant, graph, mixed, ptq, rounding
from edgeres.compression.integers import integer_graph
from edgeres.compression.qat import QatModel
from edgeres.errors import BadInput, GateFailed
from edgeres.models.modules import fold_batchnorm
from edgeres.recipe import TrainSection, load_mapping
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


@pytest.fixture(scope="module")
def labelled() -> tuple[nn.Module, Labelled]:
    """A network that can't quite decide, and images with what it answers as their labels."""
    model = network("resnet8")
    shown = images(128, seed=5)
    with torch.no_grad():
        x = prepared(shown, model.spec.preprocess)
        model.fc.bias -= model(x).mean(0)
        return model, Labelled(shown, model(x).argmax(1))


def test_a_limit_on_accuracy_gives_as_many_layers_4_bits_as_it_allows(labelled: tuple) -> None:
    model, split = labelled
    none, few, most = (
        mixed.chosen(model, images(32), split, max_drop=drop) for drop in (100.0, 15.0, 8.0)
    )
    assert none.four == bits.four(model)
    assert 0 < len(most.four) < len(none.four)
    assert most.lost_points <= 8
    assert few.lost_points <= 15
    assert most.kb > none.kb
    assert len(most.four) <= len(few.four)
    folded, scales = ptq.quantize(model, images(32), scheme="w4a8", four=most.four)
    with torch.no_grad():
        x = prepared(split.images, model.spec.preprocess)
        right = (integer_graph(folded, scales)(x).argmax(1) == split.labels).float().mean()
    assert abs(100 * (1 - float(right)) - most.lost_points) < 4, "what was judged is what comes out"


def test_a_limit_on_size_gives_no_more_layers_4_bits_than_it_takes(labelled: tuple) -> None:
    model, split = labelled
    found = mixed.chosen(model, images(32), split, max_kb=60)
    assert found.kb <= 60
    sizes = {n: model.state_dict()[f"{n}.weight"].numel() / 2e3 for n in found.four}
    assert found.kb + max(sizes.values()) > 60
    with pytest.raises(GateFailed, match=r"quantize.max_kb 10: the weights take \d\d\.\d kB"):
        mixed.chosen(model, images(32), split, max_kb=10)
    with pytest.raises(GateFailed, match=r"max_kb 50: .* within 8 points"):
        mixed.chosen(model, images(32), split, max_drop=8, max_kb=50)


def test_keys_of_4_bits_are_refused_elsewhere() -> None:
    with pytest.raises(BadInput, match="max_drop is for scheme w4a8, and the scheme is w8a8"):
        load_mapping({"name": "x", "data": {"name": "digits"}, "teacher": {"model": "resnet8"},
                      "quantize": {"max_drop": 1}}, [])  # fmt: skip

"""Which tensors are quantized: every residual network, the same names before and after."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import images, network
from torchao.quantization.pt2e.observer import MinMaxObserver
from torchao.quantization.pt2e.quantizer import QuantizationSpec
from turns import by_turns

from edgeres.compression import graph, ptq
from edgeres.compression.quantizer import ResidualQuantizer, layers
from edgeres.errors import BadInput
from edgeres.models.resnet import fold_batchnorm
from edgeres.training.inference import prepared
from edgeres.types import QuantParams

NETWORKS = [("resnet8", 16), ("resnet20-A", 32), ("resnet18-w0.25", 32), ("resnet18-w0.125", 96),
            ("resnet50-w0.125", 32)]  # fmt: skip


@pytest.mark.parametrize(("name", "px"), NETWORKS)
def test_every_layer_is_named_once_and_the_same_before_and_after_folding(
    name: str, px: int
) -> None:
    model = network(name, px)
    before = [la.name for la in layers(graph.export_program(model).module())]
    after = [la.name for la in layers(graph.export_program(fold_batchnorm(model)).module())]
    modules = {n for n, m in model.named_modules()
               if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))}  # fmt: skip
    blocks = {f"layer{i}.{j}.add" for i, stage in enumerate(model.spec.stages, 1)
              for j in range(len(stage))}  # fmt: skip
    assert before == after
    assert set(before) == modules | blocks | {"avgpool"}
    assert len(before) == len(set(before))


@pytest.mark.parametrize(("name", "px"), by_turns(NETWORKS, 3))
def test_no_float_operation_is_left_between_quantize_and_dequantize(name: str, px: int) -> None:
    folded, scales = ptq.quantize(network(name, px), images(16, px))
    quantized = graph.quantized_graph(folded, scales, fold_weights=False)
    for layer in layers(quantized):
        data = layer.node.args[:1] if layer.weighted else layer.node.args[:2]
        sources = [a for a in data if isinstance(a, torch.fx.Node)]
        assert all("dequantize" in str(s.target) for s in sources), layer.name
        assert all("quantize_per_tensor" in str(u.target) for u in layer.last.users), layer.name


def test_every_kind_of_layer_is_named_once() -> None:
    names = []
    for name in ("resnet8-se-D", "resnet8-preact", "resnet8-mobile"):
        model = network(name, 16)
        before = [la.name for la in layers(graph.export_program(model).module())]
        assert before == [wire.name for wire in graph.wiring(fold_batchnorm(model).spec)]
        assert len(before) == len(set(before))
        names.append(set(before))
    se, preact, mobile = names
    assert {"layer1.0.se.pool", "layer1.0.se.fc1", "layer1.0.se.gate", "layer1.0.se.mul",
            "layer2.0.downsample.0"} <= se  # fmt: skip
    assert {"layer2.0.bn1", "layer3.0.bn1", "bn"} <= preact
    assert not {"layer1.0.bn1", "bn1"} & preact, "those are folded into convolutions"
    assert {"layer1.0.conv4"} <= mobile


def test_what_runtimes_fix_is_in_the_table() -> None:
    _, scales = ptq.quantize(network("resnet8-se-D"), images(16))
    for block in ("layer1.0", "layer2.0", "layer3.0"):
        assert scales[f"{block}.se.gate"] == QuantParams((1 / 256,), (-128,), "int8")
    assert set(scales["layer2.0.downsample.0.weight"].scale) == {2.0**-8}  # 1/4 is 64 of them


class _Strange(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(x)


def test_an_operation_that_is_not_known_is_refused_by_name() -> None:
    model = network("resnet8")
    model.layer2[0].bn2 = torch.nn.Sequential(model.layer2[0].bn2, _Strange())
    int8 = QuantizationSpec(torch.int8, MinMaxObserver, -128, 127, torch.per_tensor_affine)
    quantizer = ResidualQuantizer(lambda _: int8, lambda _: int8)
    with pytest.raises(BadInput, match=r"doesn't know the operation aten\.gelu.*layer2\.0\.bn2\.1"):
        quantizer.annotate(graph.export_program(model).module())


def test_folded_and_unfolded_weights_are_the_same_function(quantized: tuple) -> None:
    _, folded, scales = quantized
    x = prepared(images(8), folded.spec.preprocess)
    one = graph.quantized_graph(folded, scales, fold_weights=True)(x)
    two = graph.quantized_graph(folded, scales, fold_weights=False)(x)
    assert torch.equal(one, two)


def test_the_graphs_scales_are_the_tables(quantized: tuple) -> None:
    _, folded, scales = quantized
    built = graph.quantized_graph(folded, scales, fold_weights=True)
    seen = {}
    for layer in layers(built):
        (quantize,) = layer.last.users
        seen[layer.name] = (quantize.args[1], quantize.args[2])
    expected = {n: (p.scale[0], p.zero_point[0]) for n, p in scales.items()
                if n != "input" and not n.endswith(".weight")}  # fmt: skip
    assert seen == expected


def test_an_all_zero_channel_gets_a_positive_scale() -> None:
    folded = fold_batchnorm(network("resnet8"))
    with torch.no_grad():
        folded.conv1.weight[0] = 0
    scales = graph.weight_scales(folded)
    assert min(scales["conv1.weight"].scale) > 0


def test_snapped_numbers_have_one_code_whichever_way_halves_are_rounded(quantized: tuple) -> None:
    folded, table = copy.deepcopy(quantized[1]), quantized[2]
    with torch.no_grad():  # plant halves: the channel's peak is 127 steps, others 10.5 steps
        folded.conv1.weight[0] = 10.5
        folded.conv1.weight[0, 0, 0, 0] = 127.0
        folded.conv1.bias[0] = 1.2345
    scales = table | graph.weight_scales(folded)
    graph.snap(folded, scales)
    steps = torch.tensor(scales["conv1.weight"].scale)
    codes = folded.conv1.weight / steps.view(-1, 1, 1, 1)
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-3)
    grid = steps.double() * scales["input"].scale[0]
    integers = folded.conv1.bias.double() / grid
    torch.testing.assert_close(integers, integers.round(), rtol=1e-6, atol=1e-3)
    assert abs(folded.conv1.bias[0].item() - 1.2345) <= grid[0].item() + 2**-11
    half = folded.conv1.bias.half().double() / grid
    assert (half - integers.round()).abs().max() < 0.05, "Core ML stores another bias"


def test_each_layer_knows_what_it_reads(quantized: tuple) -> None:
    found = {la.name: la.source for la in layers(graph.export_program(quantized[1]).module())}
    assert found["conv1"] == "input"
    assert found["layer1.0.conv1"] == "conv1"
    assert found["layer2.0.downsample.0"] == found["layer2.0.conv1"] == "layer1.0.add"
    assert found["fc"] == "avgpool"
    imagenet = fold_batchnorm(network("resnet18-w0.25", px=32))
    known = {la.name: la.source for la in layers(graph.export_program(imagenet).module())}
    assert known["layer1.0.conv1"] == "conv1", "the max pool between them makes no codes"


def test_ptq_stays_close_to_the_float_network(quantized: tuple) -> None:
    model, folded, scales = quantized
    x = prepared(images(64), model.spec.preprocess)
    with torch.no_grad():
        exact = model(x)
        answers = graph.quantized_graph(folded, scales, fold_weights=True)(x)
    noise = (exact - answers).pow(2).mean()
    signal = exact.pow(2).mean()
    assert 10 * torch.log10(signal / noise) > 20  # dB; int8 through 9 layers
    assert scales["input"] == model.spec.preprocess.input_quantization()

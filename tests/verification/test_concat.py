"""Concatenations move codes: one scale for all that they join, in one order, in every file."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import needs
from network.nets import Joined, of
from torch import Tensor, nn

from edgeres import targets
from edgeres.compression import budgets, channels, criteria, ptq, ties, uncalibrated
from edgeres.compression.graph import concatenated, wiring
from edgeres.compression.prune import _Layers, _parts, prune
from edgeres.compression.qat import QatModel
from edgeres.errors import BadInput
from edgeres.models import modules
from edgeres.models.shapes import macs, shapes_of
from edgeres.network.from_torch import from_module
from edgeres.network.graph import Network, Node, united
from edgeres.network.module import NetworkModule
from edgeres.targets import _faults
from edgeres.types import Preprocess, ScaleTable
from edgeres.verification.structure import mismatches

PX = 16
INTEGER = ("tflite-int8", "onnx-int8", "qoperator-int8", "coreml-int8", "executorch-int8",
           "tensorrt-int8")  # fmt: skip


@pytest.fixture(scope="module")
def joined() -> tuple[NetworkModule, Tensor]:
    images = torch.randint(0, 256, (48, 3, PX, PX), dtype=torch.uint8)
    return from_module(of(Joined, PX), PX).module, images


@pytest.fixture(scope="module")
def files(joined: tuple, tmp_path_factory: Any) -> Callable[[str], tuple]:
    """A target's name -> its file, what it was written from, and its precision."""
    folded, scales = ptq.quantize(*joined)

    def file(name: str) -> tuple:
        target, precision = targets.load(name)
        needs(target.PACKAGE)
        table = targets.scales_for(name, scales) if targets.is_integer(precision) else None
        source = targets.Source(folded if table else modules.fold_batchnorm(joined[0]), table)
        path = tmp_path_factory.mktemp(name) / f"m{target.SUFFIX}"
        target.export(source, precision, path)
        return path, source, precision

    return file


@pytest.mark.parametrize("name", [*INTEGER, "savedmodel-fp32"])
def test_swapped_inputs_are_named(name: str, files: Callable[[str], tuple]) -> None:
    path, source, precision = files(name)
    target, _ = targets.load(name)

    def found() -> tuple[str, ...]:
        stored = target.structure(path, source, precision)
        return mismatches(stored, source.model, source.scales, precision)

    assert found() == ()
    assert _faults.plant(_faults.SWAPPED, path)
    assert "the network has no concat of first.conv and stem.max_pool here" in found()[0]


def one_scale(model: Any, scales: ScaleTable) -> bool:
    groups = concatenated(model.spec)
    assert len(groups) == 3 and {"stem", "first.conv", "second.conv"} < groups[0]
    return all(len({scales[name] for name in group}) == 1 for group in groups)


@pytest.mark.parametrize("ranges", ["mse", "min-max", "percentile"])
def test_ptq_gives_a_group_one_range_that_holds_all(ranges: str, joined: tuple) -> None:
    model, images = joined
    folded, scales = ptq.quantize(model, images, ranges=ranges)
    assert one_scale(folded, scales)
    (zero,) = scales["stem"].zero_point
    assert zero > -128  # its ReLU gives nothing below zero, what it is joined with does
    for name in targets.names():
        if name.endswith(("int8", "int16x8")):
            assert one_scale(folded, targets.scales_for(name, scales)), name
    assert one_scale(*uncalibrated.quantized(model))


@pytest.mark.parametrize(("scheme", "learned"), [("w8a8", False), ("w8a8", True), ("w8a16", False)])
def test_qat_gives_a_group_one_scale(scheme: str, learned: bool, joined: tuple) -> None:
    model, images = joined
    qat = QatModel(NetworkModule(model.spec), freeze_observers=1, freeze_batchnorm=1, scheme=scheme,
                   learned_steps=learned)  # fmt: skip
    qat.calibrate(images)
    ranges = {one.tensor: one for one in qat.network.ranges}
    assert ranges["stem"].params() == ranges["first.conv"].params()
    lowest = min(ranges[n].bounds[0].item() for n in ("stem", "first.conv", "second.conv"))
    assert lowest < 0 and (learned or ranges["stem"].bounds[0] == 0)
    optimizer = torch.optim.SGD(qat.network.parameters(), 0.01)
    qat._mode(True)
    for _ in range(2):
        qat._start_step()
        qat.network(torch.randn(4, 3, PX, PX)).square().sum().backward()
        optimizer.step()
    assert one_scale(*qat.finish())


def test_an_add_inside_a_group_is_untied_with_all_of_it(joined: tuple) -> None:
    chains = [chain.names for chain in ties.chains(joined[0].spec)]
    (chain,) = chains
    assert {"add", "concat_4", "one", "three", "low", "high"} <= chain
    assert united([("a", "b"), ("c",), ("b", "c"), ("d",)]) == (frozenset("abc"), frozenset("d"))


def test_a_float_layer_before_a_concatenation(joined: tuple) -> None:
    model, images = joined
    folded, scales = ptq.quantize(model, images, exclude=["low"])
    assert one_scale(folded, scales | {"low.weight": scales["high.weight"]})
    with pytest.raises(BadInput, match="concat can't stay float between quantized layers"):
        ptq.quantize(model, images, exclude=["concat"])


def test_what_has_a_scale_of_its_own_is_refused() -> None:
    conv = {"kernel": (1, 1), "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1,
            "bias": True, "trained": True}  # fmt: skip
    nodes = (
        Node.of("conv", "conv2d", ("input",), **{"in": 3, "out": 4}, **conv),
        Node.of("gate", "sigmoid", ("conv",)), Node.of("cat", "concat", ("conv", "gate")),
        Node.of("pool", "global_avg_pool", ("cat",)), Node.of("flat", "flatten", ("pool",)),
        Node.of("fc", "linear", ("flat",), **{"in": 8, "out": 2, "bias": True}),
    )  # fmt: skip
    network = NetworkModule(Network("n", nodes, "fc", 2, Preprocess(4, (0.5,), (0.5,))))
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    with pytest.raises(BadInput, match="'gate' goes into a concatenation, whose parts have one"):
        ptq.quantize(network, images)


def test_pruning_counts_a_layer_behind_a_concatenation_right(joined: tuple) -> None:
    model, _ = joined
    shapes = shapes_of(model, PX)
    slim = prune(model, budgets.macs(shapes, 0.6), round_to=4,
                 criterion=lambda _: criteria.magnitude())  # fmt: skip
    kept = macs(shapes_of(slim, PX)) / macs(shapes)
    assert 0.5 < kept <= 0.6
    assert slim(torch.randn(2, 3, PX, PX)).shape == (2, 10)
    assert slim.get_submodule("squeeze").in_channels == sum(
        slim.get_submodule(name).out_channels for name in ("stem", "first.conv", "second.conv")
    )
    model = copy.deepcopy(model)
    parts = _parts(model, criteria.magnitude(), 4)
    layers = _Layers(shapes, parts, budgets.macs(shapes, 0.6))
    assert layers.cost() == macs(shapes)
    for part in parts:
        part.step = len(part.widths) - 1
    guessed = layers.cost()
    channels.cut([(part.group, part.order[: part.gone]) for part in parts])
    assert guessed == macs(shapes_of(modules.slimmed(model), PX))


class _Long(nn.Module):
    """Seven maps joined, then the same seven and one more; a ReLU6 behind."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3 if i == 0 else 4, 4, 1) for i in range(8))
        self.out = nn.Linear(60, 3)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.convs[0](x)]
        for conv in list(self.convs)[1:]:
            maps.append(conv(maps[-1]))
        y = torch.cat([nn.functional.relu6(torch.cat(maps[:7], 1)), torch.cat(maps, -3)], 1)
        return self.out(y.mean((2, 3)))


def test_a_long_concatenation_is_several_short_ones() -> None:
    theirs = _Long()
    read = from_module(theirs, 8).module
    joins = [node for node in read.spec.nodes if node.op == "concat"]
    assert max(len(node.inputs) for node in joins) == 4
    assert any(len(node.inputs) == 2 and node.inputs[1] == "convs.7" for node in joins)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(read(x), theirs(x))
    assert any(wire.kind == "concat" for wire in wiring(read.spec))

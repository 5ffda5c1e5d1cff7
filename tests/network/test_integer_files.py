"""A file of integers keeps its scales and its codes, or says what is in the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import images
from network.integer_files import PX, answered, by_quantize_static, codes
from network.nets import Joined, Mobile, Plain, of
from network.onnx_files import Node, exported, numbers, written
from onnx import TensorProto
from turns import by_turns

from edgeres import targets
from edgeres.compression import given, ptq
from edgeres.compression.integers import integer_graph
from edgeres.errors import BadInput
from edgeres.network.from_onnx import from_onnx
from edgeres.network.from_torch import from_module
from edgeres.types import QuantParams


def require_own_codes(
    path: Path, read: Any, count: int = 100, ties: bool = False
) -> tuple[Any, Any]:
    """The graph of integers that a file became answers as the file does; what `held` gave.

    Args:
        ties: sums of its scales fall between two codes, where onnxruntime's aren't the graph's.
    """
    folded, scales, said = given.held(read.module, read.integers)
    assert ties or said.endswith("are its own codes")
    asked = codes(count)
    image, answer = scales["input"], scales[given.last(folded)]
    theirs = answered(path, asked, image, answer)
    assert len(np.unique(theirs)) > 20
    x = (torch.from_numpy(asked).float() - image.zero_point[0]) * image.scale[0]
    ours = integer_graph(folded, scales)(x).numpy() / np.float32(answer.scale[0])
    off = np.abs(np.rint(ours).astype(int) + answer.zero_point[0] - theirs)
    assert off.max() <= ties
    assert (off > 0).mean() < 0.02
    return folded, scales


@pytest.mark.parametrize("kind", by_turns([Mobile, Joined], 2))
@pytest.mark.parametrize("name", ["onnx-int8", "qoperator-int8"])
def test_our_own_files_come_back_with_their_codes(kind: Any, name: str, tmp_path: Path) -> None:
    folded, scales = ptq.quantize(from_module(of(kind), PX).module, images(32), ranges="min-max")
    target, precision = targets.load(name)
    path = tmp_path / f"net{target.SUFFIX}"
    target.export(targets.Source(folded, targets.scales_for(name, scales)), precision, path)
    read = from_onnx(path, PX, compare=True)
    again, found = require_own_codes(path, read)
    assert sorted(map(repr, found.values())) == sorted(map(repr, scales.values()))
    ours, theirs = ([v for k, v in sorted(m.state_dict().items()) if k.endswith("weight")]
                    for m in (again, folded))  # fmt: skip
    assert sorted(v.sum().item() for v in ours) == sorted(v.sum().item() for v in theirs)


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_a_flattened_map_keeps_its_codes(form: str, tmp_path: Path) -> None:
    source = exported(of(Plain), tmp_path / "net.onnx")
    path = by_quantize_static(source, tmp_path / "int8.onnx", form)
    require_own_codes(path, from_onnx(path, PX, compare=True), ties=True)


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize("settings", [{}, {"per_channel": False}])
def test_files_of_quantize_static_keep_their_codes(
    form: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    source = exported(of(Mobile), tmp_path / "net.onnx")
    path = by_quantize_static(source, tmp_path / "int8.onnx", form, **settings)
    read = from_onnx(path, PX, compare=True)
    assert "features.3.conv.3.weight" in read.integers.scales  # as PyTorch has it
    require_own_codes(path, read, ties=True)


def test_what_a_file_cuts_off_by_its_smallest_code_is_a_relu_in_float(tmp_path: Path) -> None:
    source = exported(of(Mobile), tmp_path / "net.onnx")
    path = by_quantize_static(source, tmp_path / "int8.onnx")
    ours, theirs = from_onnx(path, PX).module, from_onnx(source, PX).module
    assert [n.op for n in ours.spec.nodes if n.op == "relu"] == [
        "relu"
    ] * 7  # no ReLU is left in it
    x = torch.randn(8, 3, PX, PX)
    assert torch.corrcoef(torch.stack([ours(x).flatten(), theirs(x).flatten()]))[0, 1] > 0.98


# A convolution and a classifier in integers, to be changed; no mean lies between two codes.
SCALES: dict[str, Any] = {
    "s": np.float32(0.02), "z": np.uint8(128), "sw": np.float32(0.004), "zw": np.int8(0),
    "st": np.float32(0.05), "zt": np.uint8(0), "sl": np.float32(0.01), "zl": np.uint8(128),
    "sb": np.float32(0.02) * np.float32(0.004), "zb": np.int32(0), "zero": np.float32(0),
    "six": np.float32(6), "zp": np.uint8(0), "sp": np.float32(0.0437),
}  # fmt: skip


def integer(
    *shape: int, seed: int = 0, low: int = -127, high: int = 128, kind: Any = np.int8
) -> Any:
    return np.random.default_rng(seed).integers(low, high, shape).astype(kind)


def net(path: Path, middle: list[Node] | None = None, kind: int = TensorProto.FLOAT,
        **other: Any) -> Path:  # fmt: skip
    """QuantizeLinear, Conv, something from `t` to `m`, a mean, Gemm, DequantizeLinear."""
    first: list[Node] = [("QuantizeLinear", ["x", "s", "z"], "q")]
    nodes: list[Node] = [
        *(first if kind == TensorProto.FLOAT else []),
        ("DequantizeLinear", ["q" if kind == TensorProto.FLOAT else "x", "s", "z"], "xf"),
        ("DequantizeLinear", ["w", "sw", "zw"], "wf", {"axis": 0}),
        ("DequantizeLinear", ["b", "sb", "zb"], "bf", {"axis": 0}),
        ("Conv", ["xf", "wf", "bf"], "c", {"pads": [1, 1, 1, 1]}),
        ("QuantizeLinear", ["c", "st", "zt"], "tq"), ("DequantizeLinear", ["tq", "st", "zt"], "t"),
        *(middle or [("Identity", ["t"], "m")]),
        ("GlobalAveragePool", ["m"], "p"), ("QuantizeLinear", ["p", "sp", "zp"], "pq"),
        ("DequantizeLinear", ["pq", "sp", "zp"], "pf"), ("Flatten", ["pf"], "f"),
        ("DequantizeLinear", ["v", "sw", "zv"], "vf"),
        ("Gemm", ["f", "vf"], "l", {"transB": 1}),
        ("QuantizeLinear", ["l", "sl", "zl"], "lq"), ("DequantizeLinear", ["lq", "sl", "zl"], "y"),
    ]  # fmt: skip
    tensors = {**SCALES, "zv": np.int8(0), "w": integer(8, 3, 3, 3), "v": integer(5, 8, seed=1),
               "b": integer(8, low=-9000, high=9000, kind=np.int32), **other}  # fmt: skip
    return written(path, nodes, tensors, kind=kind)


@pytest.mark.parametrize(
    ("middle", "other"),
    [
        (None, {}),
        (None, {"w": integer(8, 3, 3, 3, low=1, high=256, kind=np.uint8), "zw": np.uint8(128)}),
        # an asymmetric weight whose codes, its zero point taken off, are codes
        (None, {"w": integer(8, 3, 3, 3, low=-128, high=100), "zw": np.int8(-20)}),
        # a relu whose zero point isn't the smallest code
        ([("Relu", ["t"], "r"), ("QuantizeLinear", ["r", "st", "zt"], "rq"),
          ("DequantizeLinear", ["rq", "st", "zt"], "m")], {"zt": np.uint8(90)}),
        ([("MaxPool", ["tq"], "mq", {"kernel_shape": [2, 2], "strides": [2, 2]}),
          ("DequantizeLinear", ["mq", "st", "zt"], "m")], {}),
        ([("Clip", ["tq", "zt"], "mq"), ("DequantizeLinear", ["mq", "st", "zt"], "m")],
         {"zt": np.uint8(90)}),
        ([("Clip", ["t", "zero", "six"], "r"), ("QuantizeLinear", ["r", "st", "zt"], "rq"),
          ("DequantizeLinear", ["rq", "st", "zt"], "m")], {"st": np.float32(6 / 255)}),
    ],
)  # fmt: skip
def test_what_is_held(middle: Any, other: dict[str, Any], tmp_path: Path) -> None:
    path = net(tmp_path / "net.onnx", middle, **other)
    require_own_codes(path, from_onnx(path, PX, compare=True))


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.INT8])
def test_a_file_that_takes_codes_takes_pixels(kind: int, tmp_path: Path) -> None:
    zero = {"z": np.uint8(128)} if kind == TensorProto.UINT8 else {"z": np.int8(0)}
    path = net(tmp_path / "net.onnx", kind=kind, **zero)
    read = from_onnx(path, PX, compare=True)
    _, scales = require_own_codes(path, read)
    assert any("assumed to be pixels" in note for note in read.notes)
    (mean,), (std,) = read.normalization
    pixels = np.arange(256)
    reals = (pixels / 255 - mean) / std
    (scale,), (nought,) = scales["input"].scale, scales["input"].zero_point
    assert np.array_equal(np.rint(reals / scale) + nought, pixels - 128)


@pytest.mark.parametrize(
    ("middle", "other", "said"),
    [
        (None, {"w": integer(8, 3, 3, 3, low=-128)}, "the weight of '.*' has codes from -128 to"),
        (None, {"w": integer(8, 3, 3, 3), "zw": np.int8(5)}, "codes from -132 to 122"),
        (None, {"sb": np.float32(0.0001)}, "the bias of '.*' has another scale than its input's"),
        (None, {"b": np.full(8, 2**31 - 1, np.int32)}, "codes that no float32 number stands for"),
        ([("Sigmoid", ["t"], "r"), ("QuantizeLinear", ["r", "st", "zt"], "rq"),
          ("DequantizeLinear", ["rq", "st", "zt"], "m")], {}, "another scale than 1/256"),
        ([("Clip", ["t", "zero", "six"], "r"), ("QuantizeLinear", ["r", "st", "zt"], "rq"),
          ("DequantizeLinear", ["rq", "st", "zt"], "m")], {}, "stand for more than 6, where it"),
        ([("Add", ["t", "t"], "m")], {}, "no scale of what 'add' makes"),
        ([("QuantizeLinear", ["t", "sl", "zl"], "u"), ("DequantizeLinear", ["u", "sl", "zl"], "m")],
         {}, "are rounded to other codes behind it, in 'u'"),
        ([("DequantizeLinear", ["tq", "sl", "zl"], "m")], {}, "reads 'tq' with another scale"),
    ],
)  # fmt: skip
def test_what_is_in_the_way_is_named(
    middle: Any, other: dict[str, Any], said: str, tmp_path: Path
) -> None:
    read = from_onnx(net(tmp_path / "net.onnx", middle, **other), PX)
    with pytest.raises(BadInput, match=said):
        given.held(read.module, read.integers)


def test_a_scale_per_channel_of_an_activation_is_named(tmp_path: Path) -> None:
    per_channel = {"st": np.full(8, 0.05, np.float32), "zt": np.zeros(8, np.uint8)}
    path = net(tmp_path / "net.onnx", **per_channel)
    read = from_onnx(path, PX)
    with pytest.raises(BadInput, match="the activation 'c' has a scale per channel"):
        given.held(read.module, read.integers)


def test_what_isnt_the_files_own_answer_is_never_kept(tmp_path: Path) -> None:
    """Whatever the reader makes of a file: it was asked."""
    import dataclasses

    path = net(tmp_path / "net.onnx")
    read = from_onnx(path, PX, compare=True)
    wrong = {**read.integers.scales, "c": QuantParams((0.06,), (-128,), "int8")}
    (name,) = [k for k, v in read.integers.scales.items() if k == "conv" or k == "conv2d"]
    wrong[name] = QuantParams((0.06,), (-128,), "int8")
    with pytest.raises(BadInput, match="answers to noise are other codes than its own"):
        given.held(read.module, dataclasses.replace(read.integers, scales=wrong))


def test_codes_without_a_scale_are_no_network(tmp_path: Path) -> None:
    first: Node = ("Conv", ["x", "w"], "c")
    path = written(tmp_path / "net.onnx", [first, ("GlobalAveragePool", ["c"], "p"),
                                           ("Flatten", ["p"], "y")],
                   {"w": numbers(5, 3, 1, 1)}, kind=TensorProto.UINT8)  # fmt: skip
    with pytest.raises(BadInput, match="takes uint8; a network here takes float32 images"):
        from_onnx(path, PX)

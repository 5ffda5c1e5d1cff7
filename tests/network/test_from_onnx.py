"""Anybody's ONNX file becomes the same function with the names it has, or is refused by name."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from network.nets import (
    HEADS,
    SPREAD,
    Gated,
    Joined,
    Mobile,
    Plain,
    Split,
    Spread,
    Squeezed,
    headed,
    of,
)
from network.onnx_files import PX, Node, answers, exported, numbers, tail, written
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgeres.errors import BadInput
from edgeres.models import modules, spec, weights
from edgeres.network.from_onnx import from_onnx
from edgeres.network.from_torch import from_module
from edgeres.teachers import Wanted, checkpoint
from edgeres.teachers import onnx as source

CONV: Node = ("Conv", ["x", "stem.weight", "stem.bias"], "c", {"pads": [1, 1, 1, 1]})
STEM = {"stem.weight": numbers(8, 3, 3, 3), "stem.bias": numbers(8)}


def same(path: Path, *, image: tuple[int, ...] = (3, 3, PX, PX), px: int = PX) -> Any:
    """The network of a file, which answers as onnxruntime does."""
    read = from_onnx(path, px)
    x = torch.rand(image)
    ours = x.permute(0, 3, 1, 2) if image[3] == 3 else x
    with torch.no_grad():
        torch.testing.assert_close(read.module(ours), answers(path, x), atol=1e-5, rtol=1e-5)
    return read


def net(
    path: Path, middle: list[Node], tensors: dict[str, np.ndarray] | None = None,
    last: str = "m", channels: int = 8, **settings: Any,
) -> Path:  # fmt: skip
    """A convolution, something, and a classifier."""
    end, theirs = tail(last, channels)
    return written(path, [CONV, *middle, *end], {**STEM, **(tensors or {}), **theirs}, **settings)


@pytest.mark.parametrize("kind", [Mobile, Gated, Joined])
@pytest.mark.parametrize(
    ("opset", "dynamo"), [(13, False), (20, False), (18, True), (23, True)]
)  # fmt: skip
def test_files_of_torch_compute_the_same(
    kind: Any, opset: int, dynamo: bool, tmp_path: Path
) -> None:
    theirs = of(kind)
    path = exported(theirs, tmp_path / "net.onnx", opset, dynamo=dynamo)
    read = from_onnx(path, PX)
    x = torch.randn(3, 3, PX, PX)
    with torch.no_grad():
        torch.testing.assert_close(read.module(x), theirs(x), atol=1e-5, rtol=1e-5)
    layers = {n.name for n in read.module.spec.nodes if n.op in ("conv2d", "linear")}
    own = {n for n, m in theirs.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    assert own <= layers and all("shift" in name for name in layers - own)
    assert not read.fixed_size and read.normalization is None
    assert any("holds no batch norm" in note for note in read.notes) == (kind is Mobile)
    network = read.module.spec
    assert spec.from_json(json.loads(json.dumps(spec.to_json(network)))) == network
    weights.save(tmp_path, read.module)
    with torch.no_grad():
        assert torch.equal(weights.load(tmp_path)(x), read.module(x))
    other = modules.with_new_head(read.module, 4)
    assert other(x).shape == (3, 4)


class _Sliced(nn.Module):
    """Halves, a last quarter, parts of several sizes, joined in other orders."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(8, 12, 1)
        self.out = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        low, high = x.chunk(2, dim=1)
        a, b, c = torch.split(self.wide(high), [2, 4, 6], 1)
        x = torch.relu(torch.cat((c, low, b, x[:, -4:], a, low[:, 0:8]), 1))
        return self.out(x.mean((2, 3)))


@pytest.mark.parametrize(
    ("kind", "opset", "dynamo"),
    [(_Sliced, 11, False), (_Sliced, 18, False), (_Sliced, 20, True), (Split, 18, True)],
)
def test_slices_and_shuffles_pick_the_same_channels(
    kind: Any, opset: int, dynamo: bool, tmp_path: Path
) -> None:
    path = exported(of(kind), tmp_path / "net.onnx", opset, dynamo=dynamo)
    read = same(path, image=(3, 3, PX, PX))
    assert [note for note in read.notes if "slices and shuffles" in note]
    assert not any("larger kernel" in note for note in read.notes)


@pytest.mark.parametrize("dynamo", [False, True])
def test_a_flattened_map_is_read_by_a_convolution_as_large(dynamo: bool, tmp_path: Path) -> None:
    read = same(exported(of(Plain), tmp_path / "net.onnx", dynamo=dynamo), image=(3, 3, PX, PX))
    assert [note for note in read.notes if "a convolution as large as the map" in note]


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_what_classifiers_make_of_vectors(head: str, dynamo: bool, tmp_path: Path) -> None:
    path = exported(of(lambda: headed(head)), tmp_path / "net.onnx", dynamo=dynamo)
    read = same(path, image=(3, 3, PX, PX))
    assert not any(node.op == "unflatten" for node in read.module.spec.nodes)


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("shape", ["view", "none", "expand"])
def test_a_gate_of_linear_layers_is_one_of_convolutions(
    shape: str, dynamo: bool, tmp_path: Path
) -> None:
    path = exported(of(lambda: Squeezed(shape)), tmp_path / "net.onnx", dynamo=dynamo)
    read = same(path, image=(3, 3, PX, PX))
    ops = [node.op for node in read.module.spec.nodes]
    folded = dynamo  # a batch norm of a vector is in the linear layer before it
    assert ops.count("linear") == 1 + folded and "unflatten" not in ops and not read.fixed_size


class _OneSided(nn.Module):
    """As TensorFlow pads at a stride of 2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(nn.functional.pad(x, (0, 1, 0, 1))).relu().mean((2, 3)))


@pytest.mark.parametrize("dynamo", [False, True])
def test_padding_that_torch_writes_as_a_computation(dynamo: bool, tmp_path: Path) -> None:
    theirs = _OneSided().eval()
    read = from_onnx(exported(theirs, tmp_path / "net.onnx", dynamo=dynamo), PX)
    x = torch.randn(2, 3, PX, PX)
    with torch.no_grad():
        torch.testing.assert_close(read.module(x), theirs(x), atol=1e-5, rtol=1e-5)
    assert read.module.spec.by_name["conv"].pair("kernel") == (4, 4)


FORMS: dict[str, tuple[list[Node], dict[str, np.ndarray], dict[str, Any]]] = {
    "clip of inputs": (
        [("Clip", ["c", "low", "high"], "m")],
        {"low": np.float32(0), "high": np.float32(6)}, {}),
    "clip of attributes": ([("Clip", ["c"], "m", {"min": 0.0, "max": 6.0})], {}, {"opset": 10}),
    "clip without an end": ([("Clip", ["c", "low"], "m")], {"low": np.float32(0)}, {}),
    "constants of every kind": (
        [("Constant", [], "low", {"value_float": 0.0}),
         ("Constant", [], "high", {"value": numpy_helper.from_array(np.float64(3))}),
         ("Cast", ["high"], "end", {"to": TensorProto.FLOAT}),
         ("Clip", ["c", "low", "end"], "m")], {}, {}),
    "hard-sigmoid of Keras": (
        [("HardSigmoid", ["c"], "g"), ("Mul", ["g", "c"], "m")], {}, {}),
    "hard-swish": ([("HardSwish", ["c"], "m")], {}, {}),
    "SiLU": ([("Sigmoid", ["c"], "s"), ("Mul", ["c", "s"], "m")], {}, {}),
    "SAME_UPPER": (
        [("Conv", ["c", "w"], "m", {"auto_pad": "SAME_UPPER", "kernel_shape": [3, 3]})],
        {"w": numbers(8, 8, 3, 3)}, {}),
    "SAME_LOWER": ([("Conv", ["c", "w"], "m", {"auto_pad": "SAME_LOWER"})],
                   {"w": numbers(8, 8, 5, 5)}, {}),
    "VALID": ([("Conv", ["c", "w"], "m", {"auto_pad": "VALID", "strides": [2, 2]})],
              {"w": numbers(8, 8, 3, 3)}, {}),
    "SAME_UPPER with a stride": (
        [("Conv", ["c", "w"], "m", {"auto_pad": "SAME_UPPER", "strides": [2, 2]})],
        {"w": numbers(8, 8, 3, 3)}, {}),
    "padding on one side": (
        [("Conv", ["c", "w"], "m", {"pads": [0, 2, 3, 0], "strides": [2, 2], "group": 8})],
        {"w": numbers(8, 1, 3, 5)}, {}),
    "padding on one side, dilated": (
        [("Conv", ["c", "w"], "m", {"pads": [0, 0, 2, 2], "dilations": [2, 2]})],
        {"w": numbers(8, 8, 3, 3)}, {}),
    "zeros on one side": (
        [("Pad", ["c", "around"], "p"), ("Conv", ["p", "w"], "m", {"strides": [2, 2]})],
        {"around": np.array([0, 0, 0, 0, 0, 0, 1, 1]), "w": numbers(8, 8, 3, 3)}, {}),
    "zeros around": (
        [("Pad", ["c", "around"], "p"), ("Conv", ["p", "w"], "m", {"strides": [2, 2]})],
        {"around": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "w": numbers(8, 8, 3, 3)}, {}),
    "zeros around, as attributes": (
        [("Pad", ["c"], "p", {"pads": [0, 0, 1, 1, 0, 0, 1, 1]}), ("Conv", ["p", "w"], "m")],
        {"w": numbers(8, 8, 3, 3)}, {"opset": 10}),
    "depthwise": ([("Conv", ["c", "w"], "m", {"group": 8})], {"w": numbers(8, 1, 3, 3)}, {}),
    "max pool": ([("MaxPool", ["c"], "m", {"kernel_shape": [3, 3], "strides": [2, 2],
                                           "pads": [1, 1, 1, 1]})], {}, {}),
    "average pool": ([("AveragePool", ["c"], "m", {"kernel_shape": [2, 2], "strides": [2, 2],
                                                   "count_include_pad": 1})], {}, {}),
    "pool that rounds up to the same": (
        [("MaxPool", ["c"], "m", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1})],
        {}, {}),
    "pool of all": ([("AveragePool", ["c"], "m", {"kernel_shape": [16, 16]})], {}, {}),
    "batch norm": (
        [("BatchNormalization", ["c", "s", "b", "a", "v"], "m")],
        {"s": numbers(8), "b": numbers(8), "a": numbers(8), "v": numbers(8) ** 2 + 0.5}, {}),
    "a bias added": (
        [("Conv", ["c", "w"], "d"), ("Add", ["d", "b"], "m")],
        {"w": numbers(8, 8, 1, 1), "b": numbers(1, 8, 1, 1)}, {}),
    "identity and dropout": ([("Identity", ["c"], "i"), ("Dropout", ["i"], "m")], {}, {}),
    "a gate of one pixel": (
        [("ReduceMean", ["c"], "r", {"axes": [-2, -1]}), ("Conv", ["r", "w"], "e"),
         ("Sigmoid", ["e"], "g"), ("Mul", ["c", "g"], "m")], {"w": numbers(8, 8, 1, 1)}, {}),
    "any size": ([("Relu", ["c"], "m")], {}, {"image": ("n", 3, "h", "w")}),
    "one image": ([("Relu", ["c"], "m")], {}, {"image": (1, 3, PX, PX)}),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_other_ways_of_writing(form: str, tmp_path: Path) -> None:
    middle, tensors, settings = FORMS[form]
    read = same(net(tmp_path / "net.onnx", middle, tensors, **settings))
    assert {"stem", "fc"} <= set(read.module.spec.by_name) and read.module.spec.head == "fc"
    said = any("dropout" in note for note in read.notes)
    assert said == (form == "identity and dropout")
    sized = ("pool of all", "pool that rounds up to the same", "SAME_UPPER with a stride")
    assert read.fixed_size == (form in sized)
    grown = any("larger kernel, with zeros there" in note for note in read.notes)
    assert grown == ("one side" in form or form in sized[2:])


HEADS: dict[str, tuple[list[Node], dict[str, np.ndarray]]] = {
    "MatMul and Add": (
        [("ReduceMean", ["c"], "p", {"axes": [2, 3], "keepdims": 0}),
         ("MatMul", ["p", "w"], "z"), ("Add", ["b", "z"], "y")],
        {"w": numbers(8, 5), "b": numbers(5)}),
    "a turned weight": (
        [("GlobalAveragePool", ["c"], "p"), ("Squeeze", ["p", "axes"], "f"),
         ("Transpose", ["fc.weight"], "w", {"perm": [1, 0]}), ("MatMul", ["f", "w"], "y")],
        {"axes": np.array([2, 3]), "fc.weight": numbers(5, 8)}),
    "Gemm that isn't turned": (
        [("GlobalAveragePool", ["c"], "p"), ("Flatten", ["p"], "f"), ("Gemm", ["f", "w"], "y")],
        {"w": numbers(8, 5)}),
    "a shape computed": (
        [("GlobalAveragePool", ["c"], "p"), ("Shape", ["p"], "s"),
         ("Gather", ["s", "zero"], "n"), ("Unsqueeze", ["n", "first"], "n1"),
         ("Concat", ["n1", "rest"], "t", {"axis": 0}), ("Reshape", ["p", "t"], "f"),
         ("Gemm", ["f", "w"], "y")],
        {"zero": np.array(0), "first": np.array([0]), "rest": np.array([-1]),
         "w": numbers(8, 5)}),
    "a softmax": (
        [("GlobalAveragePool", ["c"], "p"), ("Reshape", ["p", "t"], "f"),
         ("Gemm", ["f", "w"], "z"), ("Softmax", ["z"], "y")],
        {"t": np.array([0, 8]), "w": numbers(8, 5)}),
    "a convolution": (
        [("Conv", ["c", "w"], "z"), ("GlobalAveragePool", ["z"], "p"), ("Flatten", ["p"], "y")],
        {"w": numbers(5, 8, 1, 1)}),
}  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
def test_other_heads(head: str, tmp_path: Path) -> None:
    nodes, tensors = HEADS[head]
    path = written(tmp_path / "net.onnx", [CONV, *nodes], {**STEM, **tensors})
    if head != "a softmax":
        assert ("fc" in same(path).module.spec.by_name) == (head == "a turned weight")
        return
    read = from_onnx(path, PX)
    x = torch.rand(3, 3, PX, PX)
    with torch.no_grad():
        torch.testing.assert_close(read.module(x).softmax(1), answers(path, x))
    assert "the Softmax at its end is left out" in read.notes[0]


IMAGENET = {"mean": np.array([123.675, 116.28, 103.53], np.float32),
            "std": np.array([58.395, 57.12, 57.375], np.float32)}  # fmt: skip


def _prepared_inside(path: Path, nhwc: bool) -> Path:
    """Raw pixels in, channels last or second, as TensorFlow and others write it."""
    shape = (1, 1, 1, 3) if nhwc else (1, 3, 1, 1)
    own = {key: value.reshape(shape) for key, value in IMAGENET.items()}
    first: list[Node] = [("Sub", ["x", "mean"], "a"), ("Div", ["a", "std"], "b")]
    if nhwc:
        first.append(("Transpose", ["b"], "t", {"perm": [0, 3, 1, 2]}))
    conv = (CONV[0], ["t" if nhwc else "b", *CONV[1][1:]], "c", CONV[3])
    end, theirs = tail("c", 8)
    image = ("n", PX, PX, 3) if nhwc else ("n", 3, PX, PX)
    return written(path, [*first, conv, *end], {**own, **STEM, **theirs}, image=image)


@pytest.mark.parametrize("nhwc", [False, True])
def test_what_a_file_does_to_its_images_becomes_preprocessing(nhwc: bool, tmp_path: Path) -> None:
    path = _prepared_inside(tmp_path / "net.onnx", nhwc)
    read = from_onnx(path, PX)
    own = read.module.spec.preprocess
    np.testing.assert_allclose(own.mean, (0.485, 0.456, 0.406), rtol=1e-5)
    np.testing.assert_allclose(own.std, (0.229, 0.224, 0.225), rtol=1e-5)
    assert "as for pixels from 0 to 255, which are assumed" in read.notes[0]
    pixels = torch.randint(0, 256, (2, 3, PX, PX)).float()
    theirs = answers(path, pixels.permute(0, 2, 3, 1) if nhwc else pixels)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (own.mean, own.std))
    with torch.no_grad():
        torch.testing.assert_close(
            read.module((pixels / 255 - mean) / std), theirs, atol=1e-5, rtol=1e-4
        )
    said = from_onnx(path, PX, ((0.0,), (1 / 255,)))
    np.testing.assert_allclose(said.module.spec.preprocess.mean, own.mean, rtol=1e-6)
    assert "come on top of what is said" in said.notes[0]
    turned = source.network(path, _wanted(channels="bgr")).network
    assert turned is not None
    np.testing.assert_allclose(turned.spec.preprocess.mean, own.mean[::-1])
    with torch.no_grad():
        torch.testing.assert_close(turned(torch.rand(1, 3, PX, PX).fill_(0.3)),
                                   read.module(torch.full((1, 3, PX, PX), 0.3)))  # fmt: skip


@pytest.mark.parametrize(
    ("first", "said"),
    [([("Pad", ["x", "around"], "a"), ("Sub", ["a", "one"], "i")], "Sub of the image, as it comes"),
     ([("Sub", ["one", "x"], "i")], "by what isn't above 0"),
     ([("Div", ["x", "none"], "i")], "by what isn't above 0"),
     ([("Mul", ["x", "rows"], "i")], "Mul of the image, as it comes, and what isn't one number"),
     ([("Sub", ["x", "one"], "a"), ("Conv", ["a", "w"], "b"), ("Conv", ["x", "w"], "d"),
       ("Add", ["b", "d"], "i")], "an image that is prepared in another way than elsewhere")],
)  # fmt: skip
def test_what_is_no_preprocessing_is_refused(first: list[Node], said: str, tmp_path: Path) -> None:
    end, theirs = tail("c", 8)
    conv = (CONV[0], ["i", *CONV[1][1:]], "c", CONV[3])
    own = {"around": np.array([0, 0, 1, 1] * 2), "one": np.float32(1), "none": np.float32(0),
           "rows": numbers(16, 1), "w": numbers(3, 3, 1, 1)}  # fmt: skip
    path = written(tmp_path / "net.onnx", [*first, conv, *end], {**own, **STEM, **theirs})
    with pytest.raises(BadInput, match=said):
        from_onnx(path, PX)


def test_channels_last_all_through(tmp_path: Path) -> None:
    """As tf2onnx writes it: transposed around each convolution."""
    back, forth = {"perm": [0, 2, 3, 1]}, {"perm": [0, 3, 1, 2]}
    nodes: list[Node] = [
        ("Transpose", ["x"], "t", forth), ("Conv", ["t", "m/conv1/w:0"], "c0"),
        ("Transpose", ["c0"], "c1", back), ("Add", ["c1", "b"], "c2"), ("Relu", ["c2"], "c3"),
        ("Transpose", ["c3"], "c4", forth), ("Conv", ["c4", "w2"], "d0"),
        ("Transpose", ["d0"], "d1", back), ("Add", ["d1", "c3"], "d2"),
        ("ReduceMean", ["d2"], "p", {"axes": [1, 2]}), ("Reshape", ["p", "flat"], "f"),
        ("MatMul", ["f", "fc"], "z"), ("Add", ["z", "fb"], "y"),
    ]  # fmt: skip
    tensors = {"m/conv1/w:0": numbers(8, 3, 3, 3), "b": numbers(8), "w2": numbers(8, 8, 1, 1),
               "flat": np.array([-1, 8]), "fc": numbers(8, 5), "fb": numbers(5)}  # fmt: skip
    path = written(tmp_path / "net.onnx", nodes, tensors, image=("n", PX, PX, 3))
    read = same(path, image=(2, PX, PX, 3))
    assert [n.op for n in read.module.spec.nodes] == [
        "conv2d", "relu", "conv2d", "add", "global_avg_pool", "flatten", "linear"]  # fmt: skip


@pytest.mark.parametrize(
    ("middle", "tensors", "settings", "said"),
    [([("Elu", ["c"], "m")], {}, {}, r"Elu isn't known in 'm'; docs"),
     ([("Concat", ["c", "c"], "m", {"axis": 2})], {}, {}, "Concat along another axis than a map"),
     ([("Slice", ["c", "at", "to", "on"], "m")],
      {"at": np.array([0]), "to": np.array([4]), "on": np.array([2])}, {}, "Slice along another"),
     ([("Split", ["c"], "m", {"axis": 3})], {}, {}, "Split along another axis"),
     ([("Concat", ["c", "c"], "d0", {"axis": 1}),
       *[("Concat", [f"d{i}"] * 2, f"d{i + 1}", {"axis": 1}) for i in range(40)],
       ("Identity", ["d40"], "m")], {}, {}, "Concat with these arguments isn't known in 'd13'"),
     ([("Elu", ["c"], "m")], {}, {}, "Elu isn't known in 'm'"),
     ([("Add", ["c", "w"], "a"), ("Relu", ["a"], "m")], {"w": numbers(8, 16, 16)}, {},
      "Add of a constant isn't known"),
     ([("MaxPool", ["c"], "m", {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER",
                                "strides": [2, 2]})],
      {}, {}, r"MaxPool with other padding above and left \(0, 0\) than below and right \(1, 1\)"),
     ([("Conv", ["c", "w"], "m", {"pads": [0, 0, 1, 1], "dilations": [2, 2]})],
      {"w": numbers(8, 8, 3, 3)}, {}, "Conv with these arguments isn't known"),
     ([("Conv", ["c", "w"], "m", {"pads": [0, 0, 9, 9]})], {"w": numbers(8, 8, 3, 3)}, {},
      "Conv with these arguments isn't known"),
     ([("Conv", ["c", "c"], "m")], {}, {}, "whose second input isn't constant"),
     ([("Conv", ["c", "w"], "m")], {"w": numbers(8, 7, 3, 3)}, {}, "with these arguments"),
     ([("Conv", ["c", "gone"], "m")], {}, {}, "whose second input isn't constant"),
     ([("Relu", ["later"], "m"), ("Relu", ["m"], "later")], {}, {},
      "Relu of what nothing before it makes"),
     ([("Relu", ["c"], "c")], {}, {}, "two things in it are called 'c'"),
     ([("Clip", ["c", "low"], "m")], {"low": np.float32(-1)}, {}, "Clip from -1.0 to None"),
     ([("MaxPool", ["c"], "m", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1})], {},
      {}, "ceil_mode at this image size"),
     ([("AveragePool", ["c"], "m", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]})], {}, {},
      "AveragePool with padding"),
     ([("Pad", ["c", "p"], "q"), ("Relu", ["q"], "m")], {"p": np.array([0, 0, 1, 1] * 2)}, {},
      "Relu behind padding"),
     ([("Transpose", ["c"], "m", {"perm": [0, 1, 3, 2]})], {}, {}, r"Transpose by \[0, 1, 3, 2\]"),
     ([("Softmax", ["c"], "m", {"axis": 1})], {}, {}, "Softmax before the end"),
     ([("Reshape", ["c", "t"], "m")], {"t": np.array([0, 8, -1])}, {},
      r"Reshape of \(N, 8, 16, 16\) to \(N, 8, 256\) isn't known"),
     ([("Relu", ["c"], "m")], {}, {"opset": 6}, "is of operator set 6"),
     ([("Relu", ["c"], "m")], {}, {"image": ("n", 1, PX, PX)}, r"takes \(N, 1, 16, 16\)"),
     ([("Relu", ["c"], "m")], {}, {"image": ("n", 3, PX, 8)}, r"takes \(N, 3, 16, 8\)"),
     ([("Relu", ["c"], "m")], {}, {"image": ("n", 3, 1 << 40, 1 << 40)}, "are the most"),
     ([("Relu", ["c"], "m")], {}, {"kind": TensorProto.FLOAT16}, "takes float16"),
     ([("Conv", ["c", "w"], "m", {"pads": [1 << 40] * 4})], {"w": numbers(8, 8, 1, 1)}, {},
      "no whole number between"),
     ([("DynamicQuantizeLinear", ["c"], "m")], {}, {}, "finds scales while it runs"),
     ([("QuantizeLinear", ["c", "s"], "q"), ("Sigmoid", ["q"], "m")], {"s": np.float32(1)}, {},
      "Sigmoid of codes isn't known in"),
     ([("QuantizeLinear", ["c", "s"], "q"), ("DequantizeLinear", ["q", "s"], "m")],
      {"s": np.float32(0)}, {}, "QuantizeLinear with these arguments isn't known"),
     ([("Relu", ["c"], "m")], {}, {"metadata": {"edgeres.preprocess": "[" * 50_000}},
      "isn't a mean and a std")],
)  # fmt: skip
def test_what_is_unknown_is_refused_by_name(
    middle: list[Node], tensors: Any, settings: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=said):
        from_onnx(net(tmp_path / "net.onnx", middle, tensors, **settings), PX)


def _renamed(names: list[str]) -> Any:
    def change(model: onnx.ModelProto) -> None:
        for node, name in zip(model.graph.node, names, strict=False):
            node.name = name

    return change


@pytest.mark.parametrize(
    "names",
    [["a", "a", "a", "a", "a"], ["forward", "training", "spec", "input", "_modules"],
     ["../../etc", "/", ".", "a/../b/c", "-"], ["a", "a/a/a", "a/a", "weight", "bias"],
     ["x" * 5000, "x/" * 900, "ß/ü", "\n\0", "1"], ["", "", "", "", ""],
     ["stem/weight/x", "stem.bias", "fc", "fc/y", "stem"]],
)  # fmt: skip
def test_names_of_nodes_are_only_names(names: list[str], tmp_path: Path) -> None:
    middle: list[Node] = [("Relu", ["c"], "r"), ("Conv", ["r", "odd"], "m")]
    odd = {"odd": numbers(8, 8, 1, 1)}
    plain = net(tmp_path / "plain.onnx", middle, odd)
    read = from_onnx(net(tmp_path / "net.onnx", middle, odd, change=_renamed(names)), PX)
    weights.save(tmp_path, read.module)
    x = torch.rand(1, 3, PX, PX)
    with torch.no_grad():
        torch.testing.assert_close(read.module(x), answers(plain, x), atol=1e-5, rtol=1e-5)
        assert torch.equal(weights.load(tmp_path)(x), read.module(x))


@pytest.mark.parametrize("name", ["stem.weight", "stem.bias.weight", "forward.weight", ".weight",
                                  "stem.stride.weight", "..weight"])  # fmt: skip
def test_names_of_tensors_are_only_names(name: str, tmp_path: Path) -> None:
    if name == "stem.weight":
        path = net(tmp_path / "net.onnx", [("Conv", ["c", "twice"], "d"),
                   ("Conv", ["d", "twice"], "m")], {"twice": numbers(8, 8, 1, 1)})  # fmt: skip
        assert "'twice' is used more than once" in same(path).notes[0]
    else:
        middle: list[Node] = [("Conv", ["c", name], "m")]
        same(net(tmp_path / "net.onnx", middle, {name: numbers(8, 8, 1, 1)}))


def test_constants_that_grow_and_many_nodes_take_no_time(tmp_path: Path) -> None:
    begun = time.monotonic()
    grown: list[Node] = [
        ("Concat", [f"k{i}", f"k{i}"], f"k{i + 1}", {"axis": 0}) for i in range(60)
    ]
    for nodes, tensors in (
        (grown, {"k0": np.zeros(4, np.int64)}),
        ([("Add", ["tall", "wide"], "k")],
         {"tall": np.zeros((1 << 16, 1), np.float32), "wide": np.zeros((1, 1 << 16), np.float32)}),
        ([("Relu", ["c"], f"r{i}") for i in range(20_001)], {}),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=r"isn't known in|more than 20,000"):
            from_onnx(net(tmp_path / "net.onnx", nodes, tensors, "c"), PX)
    many: list[Node] = [("Relu", [f"r{i}"], f"r{i + 1}") for i in range(5_000)]
    from_onnx(net(tmp_path / "net.onnx", [("Relu", ["c"], "r0"), *many], {}, "r5000"), PX)
    assert time.monotonic() - begun < 60  # without the bounds it would be hours, or no memory


def test_weights_in_another_file_of_the_folder_only(tmp_path: Path) -> None:
    theirs = of(Mobile)
    (tmp_path / "in").mkdir()
    path = exported(theirs, tmp_path / "in" / "net.onnx", dynamo=True, external=True)
    beside = path.with_name("net.onnx.data")
    assert beside.exists()
    x = torch.randn(2, 3, PX, PX)
    with torch.no_grad():
        torch.testing.assert_close(from_onnx(path, PX).module(x), theirs(x), atol=1e-5, rtol=1e-5)
    before = source.keyed(str(path))
    assert checkpoint.keyed(str(path)) == before
    data = beside.read_bytes()
    beside.write_bytes(data[:-4] + bytes(4))
    assert source.keyed(str(path)) != before  # it is another network
    model = onnx.load(path, load_external_data=False)
    for where in ("../net.onnx.data", str(tmp_path / "net.onnx.data"), "link"):
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = where
        (tmp_path / "net.onnx.data").write_bytes(data)
        if where == "link":
            (path.parent / "link").symlink_to(tmp_path / "net.onnx.data")
        path.write_bytes(model.SerializeToString())
        with pytest.raises(BadInput, match="external data"):
            from_onnx(path, PX)


def test_tensors_that_share_their_bytes_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(4 << 20))

    def change(model: onnx.ModelProto) -> None:
        for i in range(400):
            tensor = model.graph.initializer.add(name=f"t{i}", data_type=1, dims=[1 << 20])
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="data")

    with pytest.raises(BadInput, match=r"4,194,304 bytes would become 1,677,721,600"):
        from_onnx(net(tmp_path / "net.onnx", [], {}, "c", change=change), PX)


def test_tensors_that_lie_about_their_size_are_refused(tmp_path: Path) -> None:
    for dims in ([1 << 40], [-1], [8, 3, 3, 4]):

        def change(model: onnx.ModelProto, dims: list[int] = dims) -> None:
            del model.graph.initializer[0].dims[:]
            model.graph.initializer[0].dims.extend(dims)

        with pytest.raises(BadInput, match="damaged ONNX file"):
            from_onnx(net(tmp_path / "net.onnx", [], {}, "c", change=change), PX)


def test_a_damaged_file_is_a_sentence_or_a_network(tmp_path: Path) -> None:
    whole = net(tmp_path / "net.onnx", [("Relu", ["c"], "m")]).read_bytes()
    path, read = tmp_path / "cut.onnx", 0
    for at in range(0, len(whole), max(1, len(whole) // 150)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        with contextlib.suppress(BadInput):  # whatever else comes is a fault
            from_onnx(path, PX)
            read += 1
    assert 0 < read < 150
    for content in (b"", b"PK\x05\x06" + bytes(18), b"\x08"):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=r"cut\.onnx: not a"):
            from_onnx(path, PX)


def test_changed_files_mean_the_same_to_onnxruntime(tmp_path: Path) -> None:
    """What is still a network after random changes gives its answers, if it takes the file."""
    import surfaces

    seeds = [exported(of(kind), tmp_path / "seed.onnx").read_bytes() for kind in (Gated, Mobile)]
    path, x, compared = tmp_path / "net.onnx", torch.rand(2, 3, PX, PX), 0
    for number in range(400):
        rng = random.Random(number)
        path.write_bytes(surfaces._rewired(rng.choice(seeds), rng))
        with contextlib.suppress(BadInput):
            read = from_onnx(path, PX)
            with torch.no_grad():
                ours = read.module(x)
            try:
                theirs = answers(path, x)
            except Exception:  # onnxruntime is stricter with attributes
                continue
            if read.normalization is None and not any("its end" in note for note in read.notes):
                torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3, equal_nan=True)
                compared += 1
    assert compared > 40


# As a teacher, and as what is quantized.


def _wanted(**change: Any) -> Wanted:
    return Wanted(**{"model": None, "classes": 5, "outputs": None, "data_px": PX} | change)


def test_a_checkpoint_may_be_an_onnx_file(tmp_path: Path) -> None:
    path = net(tmp_path / "net.onnx", [("Relu", ["c"], "m")])
    checkpoint.precheck(str(path), _wanted(classes=0))
    plain = path.rename(tmp_path / "unnamed")  # it is known by what it holds
    for name, fetch in (("checkpoint", checkpoint.fetch), ("onnx", source.fetch)):
        found = fetch(str(plain), _wanted(mean=(0.5,), std=(0.25,)), tmp_path)
        assert found.network is not None and found.network.spec.head == "fc", name
        assert found.network.spec.preprocess.std == (0.25,)
    found = checkpoint.fetch(str(plain), _wanted(outputs=(4, 1), classes=2), tmp_path)
    assert found.network is not None and found.network.spec.classes == 2
    assert "no one says how its images are prepared" in found.notes[0]
    other = checkpoint.fetch(str(plain), _wanted(classes=7, new_head="other"), tmp_path)
    assert other.replaced == 5 and other.network is not None and other.network.spec.classes == 7
    with pytest.raises(BadInput, match="has 5 classes but the data have 7"):
        checkpoint.fetch(str(plain), _wanted(classes=7), tmp_path)


def test_what_cannot_be_a_network_still_teaches(tmp_path: Path) -> None:
    path = net(tmp_path / "net.onnx", [("Elu", ["c"], "m")])
    asked = _wanted(mean=(0.5,), std=(0.25,))
    assert "Elu isn't known in 'm'" in str(source.unknown(str(path)))
    source.precheck(str(path), asked)
    found = source.fetch(str(path), asked, tmp_path)
    assert found.network is None and (tmp_path / "teacher.json").exists()
    assert "can't be pruned, quantized or exported: the operation Elu isn't" in found.notes[0]
    with pytest.raises(BadInput, match="Elu isn't known in 'm'"):
        checkpoint.precheck(str(path), asked)


def test_a_black_box_takes_the_weights_beside_it_with_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    path = net(tmp_path / "in" / "net.onnx", [("Elu", ["c"], "m")])
    images = torch.randint(0, 256, (2, 3, PX, PX), dtype=torch.uint8)
    expected = answers(path, images / 255)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w", size_threshold=0)
    found = source.fetch(str(path), _wanted(mean=(0.0,), std=(1.0,)), tmp_path / "out")
    assert found.network is None and (path.parent / "w").exists()
    shutil.rmtree(path.parent)
    document = json.loads((tmp_path / "out" / "teacher.json").read_text())
    answer = source.open(tmp_path / "out", document).answer(images)
    torch.testing.assert_close(answer, expected, atol=1e-5, rtol=1e-5)


def test_numbers_that_no_training_gives_are_refused(tmp_path: Path) -> None:
    broken = {**STEM, "stem.bias": np.full(8, np.nan, np.float32)}
    end, theirs = tail("c", 8)
    path = written(tmp_path / "net.onnx", [CONV, *end], {**broken, **theirs})
    with pytest.raises(BadInput, match=r"stem\.bias holds NaN"):
        checkpoint.fetch(str(path), _wanted(), tmp_path)


def test_our_own_float_file_comes_back_with_its_preprocessing(tmp_path: Path) -> None:
    from edgeres import targets

    model = modules.fold_batchnorm(from_module(of(Gated), PX).module)
    target, precision = targets.load("onnx-fp32")
    said = {"edgeres.preprocess": json.dumps({"mean": [0.1, 0.2, 0.3], "std": [0.5]})}
    made = targets.Source(model, None, metadata=said)
    target.export(made, precision, tmp_path / "net.onnx")
    found = checkpoint.fetch(str(tmp_path / "net.onnx"), _wanted(classes=10), tmp_path).network
    assert found is not None and found.spec.preprocess.mean == (0.1, 0.2, 0.3)
    x = torch.randn(2, 3, PX, PX)
    with torch.no_grad():
        torch.testing.assert_close(found(x), model(x), atol=1e-5, rtol=1e-5)


def test_two_functions_of_one_name_are_refused(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        body = [helper.make_node("Sigmoid", ["a"], ["b"])]
        model.functions.append(helper.make_function(
            "", "Relu", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))  # fmt: skip

    with pytest.raises(BadInput, match="gives standard operators another meaning"):
        from_onnx(net(tmp_path / "net.onnx", [("Relu", ["c"], "m")], change=change), PX)


@pytest.mark.parametrize("way", SPREAD)
def test_a_pixel_as_large_as_a_map_is_refused_but_in_a_product_with_one(
    way: str, tmp_path: Path
) -> None:
    """A convolution of the map is another one than of the pixel."""
    torch.manual_seed(0)
    path = exported(Spread(way).eval(), tmp_path / "net.onnx", dynamo=True, px=PX)
    with pytest.raises(BadInput, match="isn't known"):
        from_onnx(path, PX)

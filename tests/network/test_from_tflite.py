"""Anybody's TFLite file becomes the same function, and one of integers keeps its codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import images
from network import keras_files
from network.integer_files import PX, answered, codes
from network.nets import Gated, Joined, Mobile, of
from turns import by_turns

from edgeres import targets
from edgeres.compression import given, ptq
from edgeres.compression.integers import integer_graph
from edgeres.errors import BadInput
from edgeres.models.modules import fold_batchnorm
from edgeres.network import tflite_file as file
from edgeres.network.from_tflite import from_tflite
from edgeres.network.from_torch import from_module


def without_softmax(path: Path) -> Path:
    """The same file, whose answer are the codes before its softmax."""
    model = file.unpack(path.read_bytes())
    (graph,) = model.subgraphs
    ends = [i for i, op in enumerate(graph.operators) if file.kind(model, op) == "SOFTMAX"]
    if ends:
        graph.outputs = np.asarray([graph.operators[ends[0]].inputs[0]], np.int32)
        graph.operators, model.signatureDefs = graph.operators[: ends[0]], None
    path = path.with_name(f"logits-{path.name}")
    path.write_bytes(file.pack(model))
    return path


def require_own_codes(path: Path) -> None:
    """Its graph of integers answers as LiteRT does."""
    read = from_tflite(path, PX, compare=True)
    folded, scales, said = given.held(read.module, read.integers)
    assert said == "its scales are kept: 160 of 160 answers to noise are its own codes"
    asked, image, answer = codes(100), scales["input"], scales[given.last(folded)]
    theirs = answered(without_softmax(path), asked, image, answer)
    assert len(np.unique(theirs)) > 20
    x = (torch.from_numpy(asked).float() - image.zero_point[0]) * image.scale[0]
    ours = integer_graph(folded, scales)(x).numpy() / np.float32(answer.scale[0])
    assert np.array_equal(np.rint(ours).astype(int) + answer.zero_point[0], theirs)


@pytest.mark.parametrize("kind", [Joined, Mobile, Gated])
def test_our_own_float_files_come_back(kind: Any, tmp_path: Path) -> None:
    model = fold_batchnorm(from_module(of(kind), PX).module)
    target, precision = targets.load("tflite-fp32")
    target.export(targets.Source(model), precision, tmp_path / "net.tflite")
    read = from_tflite(tmp_path / "net.tflite", PX, compare=True)
    assert read.integers is None
    x = torch.rand(4, 3, PX, PX)
    with torch.no_grad():
        torch.testing.assert_close(read.module(x), model(x), atol=1e-5, rtol=1e-4)


def test_our_own_files_of_integers_come_back_with_their_codes(tmp_path: Path) -> None:
    folded, scales = ptq.quantize(from_module(of(Joined), PX).module, images(32), ranges="min-max")
    target, precision = targets.load("tflite-int8")
    target.export(targets.Source(folded, scales), precision, tmp_path / "net.tflite")
    require_own_codes(tmp_path / "net.tflite")


@pytest.mark.parametrize("ends", ["int8", "uint8", "float32"])
@pytest.mark.parametrize(
    "made", by_turns([keras_files.residual, keras_files.separable, keras_files.plain], 3)
)
def test_files_of_tensorflows_converter_keep_their_codes(
    made: Any, ends: str, tmp_path: Path
) -> None:
    require_own_codes(keras_files.converted(made(), tmp_path / "net.tflite", ends))


def test_a_gate_of_dense_layers_keeps_its_codes_and_is_one_of_convolutions(tmp_path: Path) -> None:
    path = keras_files.converted(keras_files.gated(), tmp_path / "net.tflite", "int8")
    require_own_codes(path)
    ops = [node.op for node in from_tflite(path, PX).module.spec.nodes]
    assert ops.count("linear") == 1 and "unflatten" not in ops


def test_what_is_multiplied_by_a_number_per_channel_is_a_convolution(tmp_path: Path) -> None:
    """A batch norm that no convolution is in front of, and a hard sigmoid as Keras spells it."""
    path = keras_files.converted(keras_files.gated("hard_sigmoid"), tmp_path / "net.tflite")
    read = from_tflite(path, PX, compare=True)
    assert any("is a depthwise convolution" in note for note in read.notes)


def test_float_files_of_tensorflows_converter(tmp_path: Path) -> None:
    """With the pool and the flattening of MLPerf Tiny's ResNet-8, and a softmax that is left out;
    that the answers are LiteRT's, is asked while it is read."""
    path = keras_files.converted(keras_files.residual("pool"), tmp_path / "net.tflite")
    read = from_tflite(path, PX, compare=True)
    assert any("the Softmax at its end is left out" in note for note in read.notes)
    assert not any("compared" in note for note in read.notes)


def test_a_mean_that_is_rounded_otherwise_is_said(tmp_path: Path) -> None:
    """AVERAGE_POOL_2D rounds halves away from zero, every other operation to even."""
    path = keras_files.converted(keras_files.residual("pool"), tmp_path / "net.tflite", "int8")
    read = from_tflite(path, PX, compare=True)
    _, _, said = given.held(read.module, read.integers)
    assert said.endswith("the others are 1 away")


def test_what_is_unknown_is_refused_by_name(tmp_path: Path) -> None:
    import keras

    image = keras.Input((PX, PX, 3))
    x = keras.layers.UpSampling2D()(keras.layers.Conv2D(8, 3)(image))
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    path = keras_files.converted(model, tmp_path / "net.tflite")
    with pytest.raises(BadInput, match=r"the operation [A-Z_]+ isn't known in '"):
        from_tflite(path, PX)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    """What is damaged gets one sentence."""
    path = keras_files.converted(keras_files.separable(), tmp_path / "net.tflite")
    model = file.unpack(path.read_bytes())
    for op in model.subgraphs[0].operators[1:3]:
        op.inputs = np.asarray([10_000, *op.inputs[1:]], np.int32)
    path.write_bytes(file.pack(model))
    with pytest.raises(BadInput, match=r"isn't known|damaged"):
        from_tflite(path, PX, compare=True)
    with pytest.raises(BadInput, match="not a TFLite file"):
        from_tflite(_written(tmp_path / "other.tflite", b"no file"), PX)


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path

"""TensorRT's ONNX: what NVIDIA's parser takes, and the same answers as the quantized graph."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import images
from onnx import TensorProto

from edgeres import targets
from edgeres.errors import BadInput, MissingComponent
from edgeres.models.modules import complexity
from edgeres.models.resnet import ResNet, fold_batchnorm
from edgeres.targets import onnx as plain
from edgeres.targets import tensorrt as target
from edgeres.training.inference import prepared
from edgeres.types import ScaleTable

Quantized = tuple[ResNet, ResNet, ScaleTable]
METADATA = {"edgeres.labels": "cat\ndog"}
nvidia = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx_bindings") is None,
    reason="NVIDIA's parser is not installed: pip install 'edgeres[tensorrt]'",
)


def written(quantized: Quantized, precision: str, path: Path) -> Path:
    model, folded, trained = quantized
    integer = precision == "int8"
    scales = targets.scales_for("tensorrt-int8", trained) if integer else None
    source = targets.Source(folded if integer else fold_batchnorm(model), scales, METADATA)
    target.export(source, precision, path)
    return path


def test_the_file_is_what_tensorrt_needs(quantized: Quantized, tmp_path: Path) -> None:
    path = written(quantized, "int8", tmp_path / "m.trt.onnx")
    model = onnx.load(path)
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    boundaries = [n for n in model.graph.node
                  if n.op_type in ("QuantizeLinear", "DequantizeLinear")]  # fmt: skip
    assert len(boundaries) > 30
    for node in boundaries:
        assert constants[node.input[2]].dtype == np.int8
        assert not constants[node.input[2]].any()
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type in ("Add", "Conv", "Gemm", "GlobalAveragePool"):
            sources = {makers[name].op_type for name in node.input if name in makers}
            assert sources == {"DequantizeLinear"}, node.name
    biases = [n.input[2] for n in model.graph.node if n.op_type in ("Conv", "Gemm")]
    assert all(constants[name].dtype == np.float32 for name in biases)
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param  # any batch


def test_read_fuses_and_says_what_it_needs(quantized: Quantized, tmp_path: Path) -> None:
    read = target.read(written(quantized, "int8", tmp_path / "m.trt.onnx"))
    model, folded, _ = quantized
    assert read.float_operators() == []
    assert read.metadata == METADATA
    assert (read.requires, read.versions) == ("TensorRT 10", {"ai.onnx": 17})
    assert sum(op.macs for op in read.ops) == complexity(model.spec)[1]
    parameters = sum(p.numel() for p in folded.parameters())
    assert parameters <= sum(op.constant_bytes for op in read.ops) <= 1.2 * parameters
    assert read.input.dtype == read.output.dtype == "float32"
    half = target.read(written(quantized, "fp16", tmp_path / "h.trt.onnx"))
    assert half.requires == "TensorRT 8.6"
    assert len([op for op in half.ops if op.role == "conv" and op.floating]) == 9


def test_one_kernel_of_convolution_and_add(quantized: Quantized, tmp_path: Path) -> None:
    """The sums of a convolution go into the add as they are, as NVIDIA's tools write it."""
    path = written(quantized, "int8", tmp_path / "m.trt.onnx")
    model = onnx.load(path)
    add = next(n for n in model.graph.node if n.op_type == "Add")
    makers = {name: node for node in model.graph.node for name in node.output}
    dequantize = makers[add.input[0]]
    quantize = makers[dequantize.input[0]]
    add.input[0] = quantize.input[0]
    model.graph.node.remove(dequantize)
    path.write_bytes(model.SerializeToString())
    # the quantize left over still reads the convolution: two readers, so no one kernel
    found = target.read(path).float_operators()
    assert found == [f"Conv {makers[quantize.input[0]].name}", f"Add {add.name}"]
    model.graph.node.remove(quantize)
    path.write_bytes(model.SerializeToString())
    assert target.read(path).float_operators() == []


def test_the_trace_shows_every_code(quantized: Quantized, tmp_path: Path) -> None:
    path = written(quantized, "int8", tmp_path / "m.trt.onnx")
    read = target.read(path)
    x = prepared(images(4, seed=5), quantized[1].spec.preprocess).numpy()
    session, tracer = target.session(path), target.tracer(path)
    assert session and tracer
    trace = tracer.run(x)
    assert np.array_equal(trace[read.output.name], session.run(x))
    for op in read.ops:
        integer = op.role in ("conv", "linear", "add", "pool") or op.kind == "QuantizeLinear"
        assert trace[op.output].dtype == (np.int8 if integer else np.float32), op
        assert trace[op.output].shape == (4, *op.shape[1:])


def test_the_suffix_and_a_renamed_file(quantized: Quantized, tmp_path: Path) -> None:
    path = written(quantized, "int8", tmp_path / "m.trt.onnx")
    assert targets.of_file(path) == ("tensorrt", target)
    renamed = path.rename(tmp_path / "m.onnx")
    assert targets.of_file(renamed) == ("onnx", plain)
    assert plain.read(renamed).metadata == METADATA


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"not a model"])
def test_what_is_not_a_model(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.trt.onnx"
    path.write_bytes(content)
    for load in (target.read, target.session, target.tracer):
        with pytest.raises(BadInput, match=r"m\.trt\.onnx"):
            load(path)


@nvidia
@pytest.mark.parametrize("precision", target.PRECISIONS)
def test_nvidia_builds_it(
    precision: str, quantized: Quantized, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert target.accepts(written(quantized, precision, tmp_path / "m.trt.onnx")) == []
    assert capfd.readouterr() == ("", "")


@nvidia
def test_nvidia_refuses_what_onnxruntime_likes(quantized: Quantized, tmp_path: Path) -> None:
    _, folded, scales = quantized
    path = tmp_path / "m.onnx"
    plain.export(targets.Source(folded, scales), "int8", path)
    (reason,) = target.accepts(path)
    assert "unsupported input type of UINT8" in reason
    path = tmp_path / "zero.trt.onnx"
    target.export(targets.Source(folded, scales), "int8", path)  # as trained: other zero points
    assert any("ero point" in reason for reason in target.accepts(path))
    path.write_bytes(b"\xff" * 100)
    assert len(target.accepts(path)) == 1


def test_without_nvidias_parser_it_says_what_to_install(tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorrt_rtx_bindings") is not None:
        pytest.skip("NVIDIA's parser is installed")
    with pytest.raises(MissingComponent, match=r"edgeres\[tensorrt\]"):
        target.accepts(tmp_path / "m.trt.onnx")


def test_importing_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, edgeres.targets.tensorrt; print({*sys.modules} & {'numpy', 'torch', 'onnx'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env=dict(os.environ), check=True)  # fmt: skip
    assert done.stdout.strip() == "set()"

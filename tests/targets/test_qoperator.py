"""ONNX files of integer operators: the same codes, whether onnxruntime optimizes or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import images, network

from edgeres import targets
from edgeres.compression import ptq
from edgeres.compression.integers import integer_graph
from edgeres.disk import file_sha256
from edgeres.models.resnet import ResNet
from edgeres.recipe import VerifySection
from edgeres.targets import onnx as plain
from edgeres.targets import qoperator as target
from edgeres.training.inference import prepared
from edgeres.types import ExportedFile, ScaleTable
from edgeres.verification import selftest
from edgeres.verification.certificate import Reference, certify

Quantized = tuple[ResNet, ResNet, ScaleTable]
METADATA = {"edgeres.labels": "cat\ndog", "edgeres.preprocess": '{"mean": [0.5, 0.4, 0.3]}'}


@pytest.fixture(scope="module")
def stem() -> Quantized:
    """A network with the ImageNet stem: a strided 7x7 convolution and a max pool."""
    model = network("resnet18-w0.125", px=72)
    return model, *ptq.quantize(model, images(16, 72))


@pytest.mark.parametrize("which", ["quantized", "stem"])
def test_the_graphs_codes_with_the_optimizer_and_without(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    _, folded, scales = request.getfixturevalue(which)
    path = tmp_path / "m.qop.onnx"
    first, last = target.export(targets.Source(folded, scales), "int8", path)
    x = prepared(images(64, folded.spec.preprocess.size_px, seed=9), folded.spec.preprocess)
    codes = targets.encode(x.numpy(), first)
    unoptimized, optimized = target.session(path), plain.session(path)
    assert unoptimized and optimized
    answers = unoptimized.run(codes)
    assert np.array_equal(answers, optimized.run(codes))
    with torch.no_grad():
        expected = integer_graph(folded, scales)(x).numpy()
    assert np.array_equal(targets.decode(answers, last), expected)


def test_only_standard_operators_and_onnxruntimes_own(quantized: Quantized, tmp_path: Path) -> None:
    path = tmp_path / "m.qop.onnx"
    target.export(targets.Source(*quantized[1:]), "int8", path)
    stored = onnx.load(path)
    onnx.checker.check_model(stored, full_check=True)
    assert {entry.domain for entry in stored.opset_import} <= {"", "com.microsoft"}
    kinds = {node.op_type for node in stored.graph.node}
    assert not kinds & {"QuantizeLinear", "DequantizeLinear", "Conv", "Add", "Gemm"}


def test_every_planted_fault_is_caught(quantized: Quantized, tmp_path: Path) -> None:
    model, folded, scales = quantized
    path = tmp_path / "m.qop.onnx"
    first, last = target.export(targets.Source(folded, scales, METADATA), "int8", path)
    sample = images(64, seed=5)
    x = prepared(sample, folded.spec.preprocess)
    with torch.no_grad():
        logits, before = integer_graph(folded, scales)(x).numpy(), model(x).numpy()
    labels = torch.zeros(64, dtype=torch.int64)
    reference = Reference(folded, scales, logits, before, sample, labels, METADATA)
    exported = ExportedFile("qoperator-int8", path.name, file_sha256(path), path.stat().st_size,
                            first, last)  # fmt: skip
    found = certify(path, exported, reference, VerifySection(), lambda *_: None)
    assert [gate.sentence() for gate in found.gates if not gate.passed] == []
    assert found.parity and found.parity.worst == 0
    assert len(found.adds) == 3
    trials = list(selftest.try_all(path, exported, reference, VerifySection(), lambda *_: None))
    assert [t.fault for t in trials if not t.planted] == [
        "a signature of another output", "the inputs of a concatenation swapped",
    ]  # fmt: skip
    assert [t.fault for t in trials if t.planted and not t.caught] == []


def test_portable_scales_are_kept_to_the_code(portable: tuple, tmp_path: Path) -> None:
    folded, scales, x, expected = portable
    path = tmp_path / "m.onnx"
    first, last = target.export(targets.Source(folded, scales), "int8", path)
    session = target.session(path)
    assert session is not None
    assert np.array_equal(targets.decode(session.run(targets.encode(x, first)), last), expected)

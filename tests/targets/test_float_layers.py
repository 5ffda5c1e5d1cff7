"""Layers that the recipe leaves float are float in the files, and everything else is not."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from conftest import images

from edgeres import targets
from edgeres.compression.exclusions import kept_float
from edgeres.compression.graph import quantized_graph, snap
from edgeres.disk import file_sha256, folder_size
from edgeres.models.resnet import fold_batchnorm
from edgeres.recipe import VerifySection
from edgeres.training.inference import prepared
from edgeres.types import ExportedFile
from edgeres.verification.certificate import Reference, certify
from edgeres.verification.gates import integer_gates
from edgeres.verification.scales import float_by_choice


@pytest.mark.parametrize(
    "name", ["tflite-int8", "onnx-int8", "coreml-int8", "tensorrt-int8", "qoperator-int8"]
)
def test_excluded_layers_are_float_in_the_file(name: str, quantized: tuple, tmp_path: Path) -> None:
    model, _, table = quantized
    kept = kept_float(model, [r"layer1\.0\.conv1", r"layer2\..*"])
    folded = copy.deepcopy(fold_batchnorm(model))
    floats = kept.tensors | {f"{name}.weight" for name in kept.layers}
    scales = {n: p for n, p in table.items() if n not in floats}
    snap(folded, scales)
    scales = targets.scales_for(name, scales)
    target, precision = targets.load(name)
    path = tmp_path / f"network{target.SUFFIX}"
    first, last = target.export(targets.Source(folded, scales), precision, path)
    graph = target.read(path)
    chosen = float_by_choice(graph, folded, scales)
    weighted = [op for op in graph.ops if op.weight is not None and op.floating]
    assert len(weighted) == 4, "layer1.0.conv1, three of layer2"
    assert graph.float_operators(chosen) == []
    assert not all(gate.passed for gate in integer_gates(graph, folded))
    pixels = images(32, seed=5)
    with torch.no_grad():
        x = prepared(pixels, folded.spec.preprocess)
        expected = quantized_graph(folded, scales, fold_weights=True)(x).numpy()
        before = fold_batchnorm(model)(x).numpy()
    exported = ExportedFile(name, path.name, file_sha256(path), folder_size(path), first, last)
    labels = torch.from_numpy(expected.argmax(1))
    reference = Reference(folded, scales, expected, before, pixels, labels)
    limits = VerifySection(worst_codes=3)
    certificate = certify(path, exported, reference, limits, lambda *_: None)
    assert certificate.passed, [g.sentence() for g in certificate.gates if not g.passed]
    assert certificate.layers
    names = {check.name for check in certificate.layers}
    assert {"layer1.0.conv2", "layer3.0.add"} <= names
    assert not names & kept.tensors

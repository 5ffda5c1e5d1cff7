"""Layers that the recipe leaves float are float in the files, and everything else is not."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from conftest import images

from edgeres import targets
from edgeres.compression.exclusions import kept_float
from edgeres.compression.graph import quantized_graph, snap
from edgeres.models.resnet import fold_batchnorm
from edgeres.training.inference import prepared
from edgeres.verification.gates import integer_gates
from edgeres.verification.scales import audit, float_by_choice


@pytest.mark.parametrize("name", ["tflite-int8", "onnx-int8"])
def test_excluded_layers_are_float_in_the_file(name: str, quantized: tuple, tmp_path: Path) -> None:
    model, _, table = quantized
    kept = kept_float(model, [r"layer1\.0\.conv1", r"layer2\..*"])
    folded = copy.deepcopy(fold_batchnorm(model))
    floats = kept.tensors | {f"{name}.weight" for name in kept.layers}
    scales = {n: p for n, p in table.items() if n not in floats}
    snap(folded, scales)
    target, precision = targets.load(name)
    path = tmp_path / f"network{target.SUFFIX}"
    first, last = target.export(targets.Source(folded, scales), precision, path)
    graph = target.read(path)
    chosen = float_by_choice(graph, folded, scales)
    weighted = [op for op in graph.ops if op.weight is not None and op.floating]
    assert len(weighted) == 4, "layer1.0.conv1, three of layer2"
    assert graph.float_operators(chosen) == []
    assert all(gate.passed for gate in integer_gates(graph, folded, chosen))
    assert not all(gate.passed for gate in integer_gates(graph, folded))
    assert audit(graph, folded, scales).differing == ()
    x = prepared(images(32, seed=5), folded.spec.preprocess).contiguous()
    session = target.session(path)
    assert session is not None
    answers = targets.decode(session.run(targets.encode(x.numpy(), first)), last)
    expected = quantized_graph(folded, scales, fold_weights=True)(x).detach().numpy()
    assert np.abs(answers - expected).max() <= 3 * scales["fc"].scale[0]

"""TFLite files: what is in them, what their kernels answer, and what old runtimes make of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import images, network

from edgeres import targets
from edgeres.compression import ptq
from edgeres.models.resnet import ResNet, fold_batchnorm
from edgeres.targets import _tflite_file as file
from edgeres.targets import _tflite_rewrites as rewrites
from edgeres.targets import tflite
from edgeres.training.loop import prepared
from edgeres.types import ScaleTable

STEM_PX = 80  # the smallest sizes get no max pool


@pytest.fixture(scope="module")
def stem() -> tuple[ResNet, ResNet, ScaleTable]:
    """A ResNet-18 with ImageNet's stem: float, folded, scales."""
    model = network("resnet18-w0.25", STEM_PX)
    return model, *ptq.quantize(model, images(32, STEM_PX))


def written(nets: tuple, precision: str, folder: Path, metadata: dict | None = None) -> Path:
    """A file of one of the precisions."""
    model, folded, scales = nets
    name = f"tflite-{precision}"
    path = folder / f"{precision}.tflite"
    source = targets.Source(fold_batchnorm(model), None, metadata or {})
    if targets.is_integer(precision):
        source = targets.Source(folded, targets.scales_for(name, scales), metadata or {})
    tflite.export(source, precision, path)
    return path


def encoded(path: Path, count: int, px: int = 16) -> np.ndarray:
    """Images as a file takes them."""
    pixels = prepared(images(count, px, seed=5), network("resnet8", px).spec.preprocess)
    return targets.encode(pixels.numpy(), tflite.read(path).input)


def answers(data: bytes, x: np.ndarray) -> np.ndarray:
    """What a file's bytes answer."""
    interpreter = tflite._interpreter(Path("bytes"), 1, data)
    found = []
    for image in x:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        index = interpreter.get_output_details()[0]["index"]
        found.append(interpreter.get_tensor(index)[0])
    return np.stack(found)


@pytest.mark.parametrize("precision", tflite.PRECISIONS)
def test_the_tracer_sees_what_the_session_computes(
    precision: str, quantized: tuple, tmp_path: Path
) -> None:
    path = written(quantized, precision, tmp_path)
    x = encoded(path, 6)
    tracer, session = tflite.tracer(path), tflite.session(path)
    assert tracer is not None and session is not None
    seen, graph = tracer.run(x), tflite.read(path)
    assert np.array_equal(seen[graph.output.name], session.run(x))
    computed = [op for op in graph.ops if op.inputs]
    assert set(seen) == {op.output for op in computed}
    for op in computed:
        assert seen[op.output].shape == (len(x), *op.shape[1:])
        if op.output in graph.quantization:
            assert seen[op.output].dtype == graph.quantization[op.output].dtype


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_imagenets_stem_is_one_piece_for_xnnpack_and_answers_as_before(
    precision: str, stem: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(stem, precision, tmp_path)
    graph = tflite.read(path)
    assert graph.partitions == 1
    assert graph.operators()["MAX_POOL_2D"] == 1
    assert not {"PADV2", "TRANSPOSE"} & set(graph.versions)

    (tmp_path / "converter").mkdir()
    monkeypatch.setattr(rewrites, "zero_padding", lambda model: None)
    original = written(stem, precision, tmp_path / "converter")
    assert tflite.read(original).operators()["PADV2"] == 1
    x = encoded(path, 4, STEM_PX)
    assert np.array_equal(answers(path.read_bytes(), x), answers(original.read_bytes(), x))


def test_padding_stays_where_zero_is_not_the_smallest(
    stem: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the ReLU in front, a max over a border of zeros would be wrong."""
    with monkeypatch.context() as patch:
        patch.setattr(rewrites, "zero_padding", lambda model: None)
        path = written(stem, "fp32", tmp_path)
    model = file.load(path.read_bytes(), path)
    conv = model.subgraphs[0].operators[1]
    assert file.kind(model, conv) == "CONV_2D"
    conv.builtinOptions.fusedActivationFunction = 0
    rewrites.zero_padding(model)
    assert "PADV2" in [file.kind(model, op) for op in model.subgraphs[0].operators]

"""Would the gates notice a runtime that computes wrongly? Faults planted in files stand for it.

Each file computes what a faulty kernel would; each runtime is asked about all of them at once.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime_files import IMAGES, needs

from edgeres import runtimes, targets
from edgeres.network import tflite_file
from edgeres.runtimes._asking import ask
from edgeres.targets import _tflite_rewrites
from edgeres.training.inference import prepared
from edgeres.verification import selftest
from edgeres.verification.certificate import Reference
from edgeres.verification.runtimes import weigh
from edgeres.verification.scales import codes
from edgeres.verification.structure import mismatches

Plant = Callable[[Path, Reference], bool]
_MIDDLE, _STEM, _END = "layer2.0.conv2", "conv1", "fc"


def _weights(layer: str, change: Callable[[np.ndarray], np.ndarray]) -> Plant:
    """Change a layer's codes (O, I, ...), in whichever layout the file has them."""

    def plant(path: Path, reference: Reference) -> bool:
        stored = codes(reference.model, reference.scales or {}, f"{layer}.weight")
        wrong = np.ascontiguousarray(change(stored.copy())).astype(np.int8)
        for axes in ((0, 1, 2, 3), (0, 2, 3, 1)) if stored.ndim == 4 else ((0, 1), (1, 0)):
            old, new = (np.ascontiguousarray(a.transpose(axes)).tobytes() for a in (stored, wrong))
            if selftest._exchange(path, old, new):
                return True
        return False

    return plant


def _one_code(weight: np.ndarray) -> np.ndarray:
    """The largest weight of a filter with its sign bit lost."""
    at = np.unravel_index(np.abs(weight).argmax(), weight.shape)
    weight[at] = -weight[at]
    return weight


def _bias(layer: str, factor: float) -> Plant:
    def plant(path: Path, reference: Reference) -> bool:
        graph = targets.of_file(path)[1].read(path)
        assert reference.scales
        bias = reference.model.state_dict()[f"{layer}.bias"].numpy()
        wrong = (bias * factor).astype(np.float32)
        if selftest._exchange(path, bias.tobytes(), wrong.tobytes()):
            return True
        steps = np.asarray(reference.scales[f"{layer}.weight"].scale)
        for q in graph.quantization.values():
            whole = np.rint(bias / (steps * q.scale[0])).astype(np.int32)
            off = (whole * factor).astype(np.int32)
            if selftest._exchange(path, whole.tobytes(), off.tobytes()):
                return True
        return False

    return plant


def _scale(name: str, factor: float) -> Plant:
    def plant(path: Path, reference: Reference) -> bool:
        assert reference.scales
        scale = np.asarray(reference.scales[name].scale, np.float32)
        wrong = scale * np.float32(factor)
        return selftest._exchange(path, scale.tobytes(), wrong.tobytes())

    return plant


def _graph(tflite: Callable[[Any], None], onnx: Callable[[Any], None]) -> Plant:
    """Change the graph itself, each format's own."""

    def plant(path: Path, _: Reference) -> bool:
        if path.suffix == ".tflite":
            model = tflite_file.load(path.read_bytes(), path)
            before = tflite_file.pack(model)
            tflite(model)
            path.write_bytes(tflite_file.pack(model))
            return before != path.read_bytes()
        import onnx as onnx_

        found = onnx_.load(path)
        onnx(found)
        path.write_bytes(found.SerializeToString())
        return True

    return plant


def _tflite_ops(model: Any, kind: str) -> list[Any]:
    return [op for op in model.subgraphs[0].operators if tflite_file.kind(model, op) == kind]


def _tflite_convolutions(model: Any) -> list[Any]:
    tensors = model.subgraphs[0].tensors
    return [op for op in _tflite_ops(model, "CONV_2D")
            if list(tensors[op.inputs[1]].shape[1:3]) == [3, 3]]  # fmt: skip


def _onnx_convolutions(model: Any) -> list[dict[str, Any]]:
    """The attributes of the 3x3 ones."""
    found = [{a.name: a for a in n.attribute} for n in model.graph.node if n.op_type == "Conv"]
    return [a for a in found if list(a["kernel_shape"].ints) == [3, 3]]


def _tflite_pad(model: Any) -> None:
    for op in _tflite_ops(model, "PAD"):
        tensor = model.subgraphs[0].tensors[op.inputs[1]]
        amounts = np.array([[0, 0], [0, 2], [0, 2], [0, 0]])
        kind = np.int64 if tensor.type == 4 else np.int32
        tensor.buffer = tflite_file.add_buffer(model, amounts.astype(kind).tobytes())


def _onnx_pad(model: Any) -> None:
    for attributes in _onnx_convolutions(model):
        if list(attributes["strides"].ints) == [2, 2]:
            attributes["pads"].ints[:] = [0, 0, 2, 2]


def _tflite_dilation(model: Any) -> None:
    options = _tflite_convolutions(model)[1].builtinOptions
    options.dilationHFactor = options.dilationWFactor = 2


def _onnx_dilation(model: Any) -> None:
    attributes = _onnx_convolutions(model)[1]
    attributes["dilations"].ints[:] = [2, 2]
    attributes["pads"].ints[:] = [2, 2, 2, 2]


def _tflite_add(model: Any) -> None:
    op = _tflite_ops(model, "ADD")[-1]
    op.inputs = np.array([op.inputs[0], op.inputs[0]], np.int32)


def _onnx_add(model: Any) -> None:
    op = [n for n in model.graph.node if n.op_type == "Add"][-1]
    op.input[1] = op.input[0]


def _tflite_zero(model: Any) -> None:
    graph = model.subgraphs[0]
    quantization = graph.tensors[graph.inputs[0]].quantization
    quantization.zeroPoint = np.array([int(quantization.zeroPoint[0]) + 40])


def _onnx_zero(model: Any) -> None:
    from onnx import numpy_helper

    stored = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    read = next(n for n in model.graph.node if model.graph.input[0].name in n.input)
    wrong = stored[read.input[2]] + np.uint8(40)
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(wrong, np.uint8), "zero"))
    read.input[2] = "zero"


_KNOWN = selftest.FAULTS
# As small as what runtimes differ by that are right: the gates let them pass.
SMALL = {"one weight's sign", "a weight scale 5 % off", "an activation scale 5 % off"}
FAULTS: dict[str, Plant] = {
    "one weight's sign": _weights(_MIDDLE, _one_code),
    "a weight scale 5 % off": _KNOWN["a weight scale changed by 5 %"],
    "an activation scale 5 % off": _KNOWN["an activation scale changed by 5 %"],
    "a filter negated": _weights(_MIDDLE, lambda w: np.concatenate([-w[:1], w[1:]])),
    "two channels swapped": _KNOWN["two channels swapped"],
    "batch norm not folded": _KNOWN["batch norm not folded"],
    "an add's second input lost": _KNOWN["a residual add's identity replaced by zeros"],
    "an add of one input twice": _graph(_tflite_add, _onnx_add),
    "a kernel transposed": _KNOWN["a weight tensor transposed"],
    "a kernel turned by 180 degrees": _weights(_MIDDLE, lambda w: w[:, :, ::-1, ::-1]),
    "a kernel's input channels reversed": _weights(_MIDDLE, lambda w: w[:, ::-1]),
    "red and blue swapped": _weights(_STEM, lambda w: w[:, ::-1]),
    "a layer of zeros": _weights(_MIDDLE, np.zeros_like),
    "a stride's phase": _graph(_tflite_pad, _onnx_pad),
    "a dilation": _graph(_tflite_dilation, _onnx_dilation),
    "a bias left out": _bias(_END, 0.0),
    "a bias twice": _bias(_MIDDLE, 2.0),
    "a multiplier twice as large": _scale(f"{_MIDDLE}.weight", 2.0),
    "values cut off at a quarter of their range": _scale("layer2.0.add", 0.25),
    "the image's zero point": _graph(_tflite_zero, _onnx_zero),
    "the classes in another order": _weights(_END, lambda w: np.roll(w, 1, 0)),
}


@pytest.fixture(scope="module")
def planted(
    exported: Callable, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, Path]]:
    """A target's name -> its file with each of the faults."""
    made: dict[str, dict[str, Path]] = {}

    def files(name: str) -> dict[str, Path]:
        if name not in made:
            path, _, reference = exported(name)
            folder = tmp_path_factory.mktemp("planted")
            made[name] = {}
            for number, (fault, plant) in enumerate(FAULTS.items()):
                copy = folder / f"{number}{path.suffix}"
                shutil.copyfile(path, copy)
                assert plant(copy, reference), f"{fault} has no place in {name}"
                made[name][fault] = copy
        return made[name]

    return files


@pytest.mark.parametrize("target", ["tflite-int8", "onnx-int8"])
def test_the_structure_shows_each_of_them(
    target: str, exported: Callable, planted: Callable
) -> None:
    """If it is the file that is wrong, and not the runtime."""
    _, _, reference = exported(target)
    module, precision = targets.load(target)
    source = targets.Source(reference.model, reference.scales, {})
    for fault, path in planted(target).items():
        found = mismatches(module.structure(path, source, precision), reference.model,
                           reference.scales, precision)  # fmt: skip
        assert found, fault


def _for_gpus(path: Path) -> Path:
    model = tflite_file.load(path.read_bytes(), path)
    _tflite_rewrites.wide_strided(model)
    path.with_suffix(".gpu.tflite").write_bytes(tflite_file.pack(model))
    return path.with_suffix(".gpu.tflite")


@pytest.mark.parametrize("name", [
    "litert-builtin", "litert-reference", "onnxruntime-unoptimized", "tflm", "openvino",
    "litert-gpu", "qnn-htp", "rk3588",
])  # fmt: skip
def test_the_gates_notice_a_runtime_that_computes_them(
    name: str, exported: Callable, planted: Callable, tmp_path: Path
) -> None:
    needs(name)
    target = next(t for t in runtimes.load(name).TAKES if t in ("tflite-int8", "onnx-int8"))
    _, about, reference = exported(target)
    x = prepared(reference.images[:IMAGES], reference.model.spec.preprocess).contiguous().numpy()
    given = targets.encode(x, about.input)
    files = planted(target)
    if name == "litert-gpu":
        # Some: it starts anew for most of them. (An add of one input twice crashes it.)
        files = {fault: _for_gpus(path) for fault, path in [*files.items()][4::2]}
    answers = ask(name, [(path, given) for path in files.values()], tmp_path)
    verdicts = {fault: weigh(name, about, reference, IMAGES, answer)
                for fault, answer in zip(files, answers, strict=True)}  # fmt: skip
    errors = {fault: v.answer.error for fault, v in verdicts.items() if v.answer.error}
    assert errors == {}
    assert {fault for fault, verdict in verdicts.items() if verdict.passed} <= SMALL

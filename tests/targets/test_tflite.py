"""TFLite files: what is in them, what their kernels answer, and what old runtimes make of them."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from conftest import images, network

from edgeres import targets
from edgeres.compression import graph, ptq
from edgeres.errors import BadInput
from edgeres.models import resnet, spec
from edgeres.models.modules import complexity
from edgeres.models.resnet import ResNet, fold_batchnorm
from edgeres.network import tflite_file as file
from edgeres.targets import _tflite_rewrites as rewrites
from edgeres.targets import tflite
from edgeres.training.inference import prepared
from edgeres.types import ScaleTable

STEM_PX = 80  # the smallest sizes get no max pool
METADATA = {
    "edgeres.labels": "\n".join(f"Größe {n}" for n in range(10)),
    "edgeres.licence": "Apache-2.0",
    "edgeres.recipe": "",
}
OLD = Path(__file__).parents[2] / ".venv-tflite-runtime"


@pytest.fixture(scope="module")
def stem() -> tuple[ResNet, ResNet, ScaleTable]:
    """ImageNet's stem and the first two blocks of a ResNet-18: float, folded, scales."""
    whole = spec.parse("resnet18-w0.25", 10, spec.default_preprocess(STEM_PX))
    model = resnet.build(dataclasses.replace(whole, stages=whole.stages[:1])).train()
    with torch.no_grad():
        for seed in range(3):
            model(prepared(images(8, STEM_PX, seed=seed), whole.preprocess))
    return model.eval(), *ptq.quantize(model.eval(), images(32, STEM_PX))


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


@pytest.fixture(scope="module")
def small(quantized: tuple, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A ResNet-8 in every precision, with metadata."""
    folder = tmp_path_factory.mktemp("small")
    return {p: written(quantized, p, folder, METADATA) for p in tflite.PRECISIONS}


@pytest.mark.parametrize("precision", tflite.PRECISIONS)
def test_the_tracer_sees_what_the_session_computes(precision: str, small: dict) -> None:
    path = small[precision]
    x = encoded(path, 6)
    tracer, session = tflite.tracer(path), tflite.session(path)
    assert tracer is not None and session is not None
    seen, read = tracer.run(x), tflite.read(path)
    assert np.array_equal(seen[read.output.name], session.run(x))
    computed = [op for op in read.ops if op.inputs]
    assert set(seen) == {op.output for op in computed}
    for op in computed:
        assert seen[op.output].shape == (len(x), *op.shape[1:])
        if op.output in read.quantization:
            assert seen[op.output].dtype == read.quantization[op.output].dtype


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_imagenets_stem_is_one_piece_for_xnnpack_and_answers_as_before(
    precision: str, stem: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(stem, precision, tmp_path)
    read = tflite.read(path)
    assert read.partitions == 1
    assert read.operators()["MAX_POOL_2D"] == 1
    assert not {"PADV2", "TRANSPOSE"} & set(read.versions)

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


def test_int16_answers_like_its_graph_with_imagenets_stem_too(stem: tuple, tmp_path: Path) -> None:
    """Within 16 of 65536 codes: a sixteenth of what one int8 code is worth."""
    _, folded, scales = stem
    path = written(stem, "int16x8", tmp_path)
    read = tflite.read(path)
    assert read.float_operators() == [] and "TRANSPOSE" not in read.operators()
    x = prepared(images(4, STEM_PX, seed=5), folded.spec.preprocess)
    table = targets.scales_for("tflite-int16x8", scales)
    with torch.no_grad():
        expected = graph.quantized_graph(folded, table, fold_weights=True)(x).numpy()
    session = tflite.session(path)
    assert session is not None and read.output.quantization is not None
    found = targets.decode(session.run(targets.encode(x.numpy(), read.input)), read.output)
    assert np.abs(found - expected).max() <= 16 * read.output.quantization.scale[0]


@pytest.mark.parametrize("precision", tflite.PRECISIONS)
def test_a_file_tells_its_sizes_its_origin_and_the_runtime_it_needs(
    precision: str, small: dict, quantized: tuple
) -> None:
    read = tflite.read(small[precision])
    assert dict(read.metadata) == METADATA
    releases = {"dynamic": "2.4", "int16x8": "2.4", "int4": "2.11"}
    assert read.requires == f"TensorFlow Lite {releases.get(precision, '2.0')}"
    parameters = sum(p.numel() for p in quantized[1].parameters())
    bytes_each = {"fp32": 4, "fp16": 2}.get(precision, 1)
    stored = sum(op.constant_bytes for op in read.ops)
    assert parameters * bytes_each <= stored <= small[precision].stat().st_size
    assert stored - parameters * bytes_each < 4000  # wider biases, padding tables
    assert {op.weight.shape for op in read.ops if op.weight is not None} == {
        tuple(v.shape) for k, v in quantized[1].state_dict().items() if k.endswith("weight")
    }
    assert sum(op.macs for op in read.ops) == complexity(quantized[1].spec)[1]


def test_class_names_that_do_not_fit_are_no_label_file(quantized: tuple, tmp_path: Path) -> None:
    """Android's tools refuse a model with more or fewer names than outputs."""
    path = written(quantized, "fp32", tmp_path, {"edgeres.labels": "a\nb"})
    assert tflite.read(path).metadata["edgeres.labels"] == "a\nb"
    assert b"labels.txt" not in path.read_bytes()


def custom(model: Any) -> None:
    code = model.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = b"My\x1b[31mOp"


def before_tensorflow_2_4(model: Any) -> None:
    for code in model.operatorCodes:
        code.builtinCode = 0


def newer_than_this_runtime(model: Any) -> None:
    model.operatorCodes[0].builtinCode = 9999


def any_batch(model: Any) -> None:
    for tensor in model.subgraphs[0].tensors:
        if tensor.shape is not None and len(tensor.shape) == 4 and tensor.shape[0] == 1:
            tensor.shapeSignature = tensor.shape.copy()
            tensor.shapeSignature[0] = -1


def sparse(model: Any) -> None:
    graph = model.subgraphs[0]
    graph.tensors[graph.operators[1].inputs[1]].sparsity = schema.SparsityParametersT()


def four_bits(model: Any) -> None:
    graph = model.subgraphs[0]
    tensor = graph.tensors[graph.operators[1].inputs[1]]
    tensor.type = schema.TensorType.INT4
    buffer = model.buffers[tensor.buffer]
    buffer.data = buffer.data[::2]


def another_subgraph(model: Any) -> None:
    model.subgraphs.append(copy.deepcopy(model.subgraphs[0]))


def nameless(model: Any) -> None:
    for tensor in model.subgraphs[0].tensors:
        tensor.name = None


@pytest.mark.parametrize(
    ("change", "operator"),
    [
        (custom, "My\N{REPLACEMENT CHARACTER}[31mOp"),
        (before_tensorflow_2_4, "CONV_2D"),
        (newer_than_this_runtime, "BUILTIN_9999"),
        (any_batch, "CONV_2D"),
        (sparse, "CONV_2D"),
        (four_bits, "CONV_2D"),
        (another_subgraph, "CONV_2D"),
        (nameless, "CONV_2D"),
    ],
)
def test_foreign_files_are_read(
    change: Callable[[Any], None], operator: str, small: dict, tmp_path: Path
) -> None:
    path = changed(small["int8"], change, tmp_path)
    read = tflite.read(path)
    ours = tflite.read(small["int8"])
    times = 2 if change is another_subgraph else 1
    assert read.operators()[operator] == times * ours.operators()["CONV_2D"]
    assert len({op.output for op in read.ops}) == len(read.ops)
    assert (read.partitions is None) == (change in (custom, newer_than_this_runtime, sparse))
    if change is four_bits:
        assert read.ops[1].weight is not None and abs(read.ops[1].weight).max() <= 8


def many_outputs(model: Any) -> None:
    rewrites.expose(model)


def no_input(model: Any) -> None:
    model.subgraphs[0].inputs = None


def an_index_to_nowhere(model: Any) -> None:
    model.subgraphs[0].operators[2].inputs = np.array([1000, 1001], np.int32)


def no_graph(model: Any) -> None:
    model.subgraphs = []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (many_outputs, "has 1 inputs and 16 outputs; an image classifier has one of each"),
        (no_input, "has 0 inputs and 1 outputs"),
        (an_index_to_nowhere, "a damaged TFLite file"),
        (no_graph, "a damaged TFLite file"),
    ],
)
def test_what_is_no_classifier_gets_one_sentence(
    change: Callable[[Any], None], sentence: str, small: dict, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=sentence):
        tflite.read(changed(small["int8"], change, tmp_path))


def changed(path: Path, change: Callable[[Any], None], folder: Path) -> Path:
    """A copy of a file, changed."""
    model = file.load(path.read_bytes(), path)
    change(model)
    (folder / "foreign.tflite").write_bytes(file.pack(model))
    return folder / "foreign.tflite"


OLD_RUNTIME = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter
model, x, y = sys.argv[1:]
interpreter = Interpreter(model)
interpreter.allocate_tensors()
answers = []
for image in np.load(x):
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
    interpreter.invoke()
    answers.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
np.save(y, np.stack(answers))
"""


def in_old_venv(script: str, *arguments: Path) -> str:
    """Run a script beside tflite-runtime 2.14 and tflite-support; skip where they aren't."""
    if not (OLD / ".installed").exists():
        pytest.skip("tflite-runtime 2.14 is not installed: `make test` makes its environment")
    command = [OLD / "bin/python", "-c", script, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("precision", tflite.PRECISIONS)
def test_the_runtime_of_2023_gives_the_same_answers(
    precision: str, small: dict, tmp_path: Path
) -> None:
    """tflite-runtime 2.14, what most boards have."""
    path = small[precision]
    x = encoded(path, 24)
    np.save(tmp_path / "x.npy", x)
    in_old_venv(OLD_RUNTIME, path, tmp_path / "x.npy", tmp_path / "y.npy")
    old = np.load(tmp_path / "y.npy")
    session = tflite.session(path)
    assert session is not None
    difference = np.abs(old.astype(np.float64) - session.run(x))
    # It runs int8 and int16 in TFLite's own kernels, whose rounding is another than XNNPACK's.
    # Dynamic files quantize activations while they run, here and there with other roundings.
    limits = {"int8": 2, "int16x8": 2, "int4": 2, "dynamic": 0.01}
    assert difference.max() <= limits.get(precision, 1e-6)
    if precision == "int8":  # the same kernels give the same bits
        assert np.array_equal(old, without_xnnpack(path, x))


def without_xnnpack(path: Path, x: np.ndarray) -> np.ndarray:
    """What TFLite's own kernels answer today."""
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(path), experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    found = []
    for image in x:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        index = interpreter.get_output_details()[0]["index"]
        found.append(interpreter.get_tensor(index)[0])
    return np.stack(found)


TASK_LIBRARY = """
import json, sys
import numpy as np
from tflite_support import metadata
from tflite_support.task import vision
model, pixels = sys.argv[1:]
image = vision.TensorImage.create_from_array(np.load(pixels))
best = vision.ImageClassifier.create_from_file(model).classify(image).classifications[0]
shown = metadata.MetadataDisplayer.with_model_file(model)
print(json.dumps({
    "scores": {c.category_name: c.score for c in best.categories},
    "files": shown.get_packed_associated_file_list(),
    "license": json.loads(shown.get_metadata_json())["license"],
}))
"""


@pytest.mark.parametrize("precision", ["fp32", "fp16", "dynamic"])
def test_androids_task_library_normalizes_and_names_the_classes(
    precision: str, small: dict, tmp_path: Path
) -> None:
    """From a picture's bytes alone it must come to the network's own scores."""
    pixels = images(1, seed=9)
    np.save(tmp_path / "pixels.npy", pixels[0].permute(1, 2, 0).numpy())
    told = json.loads(in_old_venv(TASK_LIBRARY, small[precision], tmp_path / "pixels.npy"))
    x = prepared(pixels, network("resnet8").spec.preprocess).numpy()
    session = tflite.session(small[precision])
    assert session is not None
    logits = session.run(targets.encode(x, tflite.read(small[precision]).input))[0]
    names = METADATA["edgeres.labels"].split("\n")
    expected = {n: v for n, v in zip(names, logits.tolist(), strict=True) if n in told["scores"]}
    assert names[logits.argmax()] == next(iter(told["scores"]))
    assert told["files"] == ["labels.txt"] and told["license"] == "Apache-2.0"
    assert told["scores"] == pytest.approx(expected, abs=0.01 if precision == "dynamic" else 1e-5)

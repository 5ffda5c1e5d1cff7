"""Core ML packages off the Mac: the interpreter's numbers, layer by layer, and damaged files."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import images, needs, network
from turns import by_turns

from edgeres.compression import graph, ptq
from edgeres.errors import BadInput
from edgeres.models.resnet import ResNet, fold_batchnorm
from edgeres.targets import Source, coreml, decode, encode, scales_for
from edgeres.targets._graph import FileGraph, FileOp, described
from edgeres.targets._palette import palette
from edgeres.training.inference import prepared
from edgeres.types import QuantParams, ScaleTable
from edgeres.verification.layers import check
from edgeres.verification.scales import name_layers

needs("coremltools")
ct = coreml._coremltools()
pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="Core ML itself runs here")

MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
LABELS = "\n".join(f"class {i}" for i in range(10))


@pytest.fixture(scope="module")
def package(quantized: tuple, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The int8 ResNet-8 with all metadata."""
    _, folded, scales = quantized
    path = tmp_path_factory.mktemp("coreml") / "m.mlpackage"
    said = {"edgeres.labels": LABELS, "edgeres.licence": "Apache-2.0", "edgeres.version": "1.2",
            "edgeres.origin": "quantize 0123"}  # fmt: skip
    coreml.export(Source(folded, scales, said), "int8", path)
    return path


@pytest.mark.parametrize(
    ("name", "px"), by_turns([("resnet8", 16), ("resnet8-A", 16), ("resnet18-w0.1", 64),
                              ("resnet18-w0.1", 72)], 2),
)  # fmt: skip
def test_each_layer_and_the_whole_agree_with_the_quantized_graph(
    name: str, px: int, tmp_path: Path
) -> None:
    """72 px has ImageNet's stem, with its max pool; -A has 0/1 shortcut convolutions."""
    folded, scales = ptq.quantize(network(name, px), images(32, px))
    path = tmp_path / "m.mlpackage"
    first, _ = coreml.export(Source(folded, scales), "int8", path)
    x = prepared(images(128, px, seed=3), folded.spec.preprocess)
    given = encode(x.numpy(), first)
    read, tracer, session = coreml.read(path), coreml.tracer(path), coreml.session(path)
    assert tracer is not None and session is not None
    assert session.stand_in == "interpreted"

    traced = tracer.run(given)
    layers = [op for op in read.ops if op.role in ("conv", "linear", "add", "pool")]
    assert len(layers) == len([k for k in scales if not k.endswith(".weight")]) - 1  # the input
    for op in layers:
        expected = _recomputed(op, read, traced, folded, scales)
        difference = np.abs(expected - traced[op.output].astype(np.int32))
        assert difference.max() <= 1, op.name
        assert (difference == 0).mean() > 0.999, op.name

    answers = session.run(given).astype(np.float32)
    assert np.array_equal(answers.astype(np.float16), traced[read.output.name].astype(np.float16))
    with torch.no_grad():
        reference = graph.quantized_graph(folded, scales, fold_weights=True)(x).numpy()
    codes = np.rint(np.abs(answers - reference) / scales["fc"].scale[0])
    assert codes.max() <= 2 and codes.mean() < 0.5
    assert _agreement(answers, reference, scales["fc"].scale[0]) >= 0.995


def _recomputed(
    op: FileOp, read: FileGraph, traced: dict, folded: ResNet, scales: ScaleTable
) -> np.ndarray:
    """A layer's output codes from the codes it really got, in double precision."""
    real = [torch.from_numpy(_real(traced[n], read.quantization[n])) for n in op.inputs]
    if op.role == "add":
        result = real[0] + real[1]
    elif op.role == "pool":
        result = real[0].mean((2, 3), keepdim=True)
    else:
        layer = folded.get_submodule(name_layers(read, folded, scales)[op.output])
        weight, bias = (None if t is None else t.detach().double()
                        for t in (layer.weight, layer.bias))  # fmt: skip
        if op.role == "linear":
            result = torch.nn.functional.linear(real[0], weight, bias)
        else:
            result = torch.nn.functional.conv2d(real[0], weight, bias, layer.stride, layer.padding)
    to = read.quantization[op.output]
    limits = np.iinfo(to.dtype)
    codes = np.rint(result.numpy() / to.scale[0]) + to.zero_point[0]
    return codes.clip(limits.min, limits.max).astype(np.int32)


def _real(codes: np.ndarray, params: QuantParams) -> np.ndarray:
    assert str(codes.dtype) == params.dtype
    return (codes.astype(np.float64) - params.zero_point[0]) * params.scale[0]


def _agreement(answers: np.ndarray, reference: np.ndarray, step: float) -> float:
    """Share of the same top-1 where the reference's two best are more than a code apart."""
    best = np.sort(reference, 1)
    clear = best[:, -1] - best[:, -2] > 1.5 * step
    return float((answers.argmax(1) == reference.argmax(1))[clear].mean())


def test_what_a_float_layer_reads_too_stays_exact_for_the_integer_kernel(tmp_path: Path) -> None:
    """layer2.0.downsample.0 shares its dequantized input with layer2.0.conv1, which is float."""
    folded, scales = ptq.quantize(network("resnet8"), images(32), exclude=[r"layer2\.0\.conv1"])
    path = tmp_path / "m.mlpackage"
    first, _ = coreml.export(Source(folded, scales), "int8", path)
    x = prepared(images(64, seed=3), folded.spec.preprocess)
    tracer, read = coreml.tracer(path), coreml.read(path)
    assert tracer is not None
    names = name_layers(read, folded, scales)
    codes = {names[n]: v for n, v in tracer.run(encode(x.numpy(), first)).items() if n in names}
    signed = {n: (v ^ 128).view(np.int8) if v.dtype == np.uint8 else v for n, v in codes.items()}
    checks = {c.name: c.equal for c in check(folded, scales, x, signed)}
    assert checks["layer2.0.downsample.0"] > 0.9995


def test_the_numbers_come_from_the_saved_file(package: Path, tmp_path: Path) -> None:
    """Doubling one stored scale changes the answers; so does another weight byte."""
    x = np.random.default_rng(0).normal(0, 1, (8, 3, 16, 16)).astype(np.float16)
    before = coreml.session(package).run(x)
    for change in (_double_a_scale, _flip_weights):
        copy = tmp_path / f"{change.__name__}.mlpackage"
        shutil.copytree(package, copy)
        change(copy)
        assert not np.array_equal(coreml.session(copy).run(x), before)


def test_a_batch_gives_what_its_images_give_alone(package: Path) -> None:
    x = np.random.default_rng(1).normal(0, 1, (5, 3, 16, 16)).astype(np.float16)
    session = coreml.session(package)
    alone = np.concatenate([session.run(image[None]) for image in x])
    np.testing.assert_allclose(session.run(x), alone, atol=0.02)


def test_a_file_says_what_it_is(package: Path) -> None:
    found = coreml.read(package)
    assert found.metadata["edgeres.labels"] == LABELS
    assert found.requires == "iOS 17, macOS 14"
    assert found.versions == {"specification": 8, "opset": 7}
    convolutions = [op for op in found.ops if op.role == "conv"]
    assert convolutions[0].shape == (1, 16, 16, 16)
    assert convolutions[0].macs == 16 * 16 * 16 * 27
    stored = sum(op.constant_bytes for op in found.ops)
    size = (package / WEIGHTS).stat().st_size
    assert 0.9 * size <= stored <= size, "constants are counted once, with their tables"
    about = ct.models.MLModel(str(package), skip_model_load=True)
    assert about.license == "Apache-2.0" and about.version == "1.2"
    assert "int8" in about.short_description and "quantize 0123" in about.short_description


def test_other_operations_compute_what_torch_does(tmp_path: Path) -> None:
    """What our networks don't need but a foreign file may: groups, one-sided padding, and so on."""

    class Foreign(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.grouped = torch.nn.Conv2d(8, 12, 3, 2, 1, dilation=2, groups=4)
            self.last = torch.nn.Linear(24, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.cat([x, x.sigmoid() * 2], 1)
            x = torch.nn.functional.pad(x, (1, 0, 2, 3))
            x = torch.nn.functional.pad(x, (1, 2, 1, 1), mode="reflect")
            x = self.grouped(x).clamp(-0.5, 6)
            y = torch.nn.functional.max_pool2d(x, 3, 2, 1)
            x = torch.nn.functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
            x = torch.cat([(x - y).permute(0, 2, 3, 1).mean((1, 2)), y.mean((2, 3))], 1)
            return self.last(x)

    torch.manual_seed(0)
    model = Foreign().eval()
    program = torch.export.export(model, (torch.zeros(1, 4, 11, 9),)).run_decompositions({})
    made = ct.convert(program, minimum_deployment_target=ct.target.iOS17,
                      compute_precision=ct.precision.FLOAT32)  # fmt: skip
    made.save(str(tmp_path / "f.mlpackage"))
    x = torch.randn(7, 4, 11, 9)
    with torch.no_grad():
        expected = model(x).numpy()
    session = coreml.session(tmp_path / "f.mlpackage")
    np.testing.assert_allclose(session.run(x.numpy()), expected, atol=1e-5)


def test_a_program_that_mixes_its_batch_runs_image_by_image(tmp_path: Path) -> None:
    from coremltools.converters.mil.mil import Builder as mb

    @mb.program(input_specs=[mb.TensorSpec((1, 6))], opset_version=ct.target.iOS17)
    def program(x: Any) -> Any:
        return mb.add(x=mb.reduce_mean(x=x, axes=[0], keep_dims=True), y=x)

    path = _saved(program, tmp_path)
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    np.testing.assert_allclose(coreml.session(path).run(x), 2 * x, rtol=1e-6)


def test_palettized_weights_are_small_and_near(quantized: tuple, tmp_path: Path) -> None:
    source = Source(fold_batchnorm(quantized[0]))
    sizes = {}
    for precision in ("fp16", "palettized"):
        path = tmp_path / f"{precision}.mlpackage"
        coreml.export(source, precision, path)
        sizes[precision] = sum(op.constant_bytes for op in coreml.read(path).ops)
    assert sizes["palettized"] < 0.6 * sizes["fp16"]
    weight = np.random.default_rng(0).laplace(0, 0.1, 5000).astype(np.float16)
    table, indices = palette(weight, 8)
    spread = np.linspace(weight.min(), weight.max(), 256)
    nearest = np.abs(weight[:, None] - spread).min(1)
    error = weight.astype(float) - table[indices]
    assert (error**2).mean() < 0.5 * (nearest**2).mean(), "k-means beats equal steps"
    few = np.array([0.5, -1, 0.5, 3], np.float16)
    table, indices = palette(few, 8)
    assert np.array_equal(table[indices], few)


def test_an_unknown_operation_is_named(tmp_path: Path) -> None:
    from coremltools.converters.mil.mil import Builder as mb

    @mb.program(input_specs=[mb.TensorSpec((1, 6))], opset_version=ct.target.iOS17)
    def program(x: Any) -> Any:
        return mb.erf(x=x)

    path = _saved(program, tmp_path)
    assert coreml.read(path).float_operators() != []
    with pytest.raises(BadInput, match="'erf'"):
        coreml.session(path)


def _saved(program: Any, folder: Path) -> Path:
    made = ct.convert(program, minimum_deployment_target=ct.target.iOS17,
                      compute_precision=ct.precision.FLOAT32)  # fmt: skip
    made.save(str(folder / "p.mlpackage"))
    return folder / "p.mlpackage"


def _edited(change: Callable[[Any], None]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        spec = ct.proto.Model_pb2.Model()
        spec.ParseFromString((path / MODEL).read_bytes())
        change(spec)
        (path / MODEL).write_bytes(spec.SerializeToString())

    return edit


def _block(spec: Any) -> Any:
    function = spec.mlProgram.functions["main"]
    return function.block_specializations[function.opset]


def _double_a_scale(path: Path) -> None:
    def change(spec: Any) -> None:
        blocks = _block(spec).operations
        name = next(o for o in blocks if o.type == "quantize").inputs["scale"].arguments[0].name
        scale = next(o for o in blocks if o.outputs and o.outputs[0].name == name)
        values = scale.attributes["val"].immediateValue.tensor.floats.values
        values[0] *= 2

    _edited(change)(path)


def _flip_weights(path: Path) -> None:
    data = bytearray((path / WEIGHTS).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(b ^ 0x55 for b in data[middle : middle + 64])
    (path / WEIGHTS).write_bytes(bytes(data))


def _function_twice(spec: Any) -> None:
    spec.mlProgram.functions["second"].CopyFrom(spec.mlProgram.functions["main"])


def _flexible(spec: Any) -> None:
    size = spec.mlProgram.functions["main"].inputs[0].type.tensorType.dimensions[2]
    size.unknown.variadic = False


def _no_output(spec: Any) -> None:
    del _block(spec).outputs[:]


def _foreign_operation(spec: Any) -> None:
    _block(spec).operations[-1].type = "no\nsuch\x1b[31m operation"


def _empty_weights(path: Path) -> None:
    (path / WEIGHTS).write_bytes(b"")


DAMAGE: dict[str, Callable[[Path], None]] = {
    "no weights file": lambda p: (p / WEIGHTS).unlink(),
    "empty weights": _empty_weights,
    "short weights": lambda p: (p / WEIGHTS).write_bytes((p / WEIGHTS).read_bytes()[:300]),
    "foreign weights": lambda p: (p / WEIGHTS).write_bytes(b"\xff" * 5000),
    "short model": lambda p: (p / MODEL).write_bytes((p / MODEL).read_bytes()[:2000]),
    "empty model": lambda p: (p / MODEL).write_bytes(b""),
    "foreign model": lambda p: (p / MODEL).write_bytes(b"not a model at all"),
    "neural network": _edited(lambda s: s.neuralNetwork.layers.add()),
    "newer version": _edited(lambda s: setattr(s, "specificationVersion", 99)),
    "no program": _edited(lambda s: s.mlProgram.functions.clear()),
    "two functions": _edited(_function_twice),
    "two inputs": _edited(lambda s: s.mlProgram.functions["main"].inputs.add(name="more")),
    "no output": _edited(_no_output),
    "flexible size": _edited(_flexible),
    "foreign operation": _edited(_foreign_operation),
    "lost tensor": _edited(lambda s: _block(s).operations.__delitem__(12)),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_or_foreign_package_gets_one_sentence(
    kind: str, package: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.mlpackage"
    shutil.copytree(package, path)
    DAMAGE[kind](path)
    for load in (coreml.read, coreml.session):
        with pytest.raises(BadInput) as caught:
            load(path)
        assert str(caught.value).startswith(str(path))
        assert str(caught.value).isprintable()


def test_a_classifier_and_sparse_weights_are_listed(tmp_path: Path) -> None:
    from coremltools.converters.mil import Builder as mb
    from coremltools.optimize import coreml as optimize

    weight = np.random.default_rng(0).standard_normal((64, 3, 3, 3)).astype(np.float32)

    def program() -> Any:
        @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 8, 8))], opset_version=ct.target.iOS17)
        def body(image: Any) -> Any:
            x = mb.conv(x=image, weight=weight, pad_type="same", name="conv")
            return mb.softmax(x=mb.reduce_mean(x=x, axes=[2, 3], keep_dims=False), axis=-1)

        return body

    def package(name: str, **more: Any) -> Path:
        oldest = ct.target.iOS17
        made = ct.convert(
            program(), convert_to="mlprogram", minimum_deployment_target=oldest, **more
        )
        if name == "sparse":
            rule = optimize.OpMagnitudePrunerConfig(target_sparsity=0.75, weight_threshold=10)
            made = optimize.prune_weights(made, optimize.OptimizationConfig(global_config=rule))
        made.save(str(tmp_path / f"{name}.mlpackage"))
        return tmp_path / f"{name}.mlpackage"

    labels = ct.ClassifierConfig([f"c{i}" for i in range(64)])
    found = described(coreml.read(package("classifier", classifier_config=labels)))
    assert found["operators"]["classify"] == 1 and found["macs"] == 64 * 64 * 27
    graph_ = coreml.read(package("sparse"))
    found, kept = (
        described(graph_),
        next(np.count_nonzero(op.weight) for op in graph_.ops if op.weight is not None),
    )
    assert found["operators"]["constexpr_sparse_to_dense"] == 1
    assert found["macs"] == 64 * 64 * 27
    assert 400 < kept < 500
    assert found["constant_bytes"] == 2 * kept + 1728 // 8 + 16  # values, bits, the shape
    assert not any("constexpr" in name for name in found["float_operators"])


def test_portable_scales_go_to_the_nearest_float16(portable: tuple, tmp_path: Path) -> None:
    folded, scales, x, expected = portable
    held = scales_for("coreml-int8", scales)
    assert held != scales
    first, last = coreml.export(Source(folded, held), "int8", tmp_path / "m.mlpackage")
    session = coreml.session(tmp_path / "m.mlpackage")
    assert session is not None
    away = np.abs(decode(session.run(encode(x, first)), last) - expected) / scales["fc"].scale[0]
    assert away.max() < 2.5 and (away < 0.5).mean() > 0.5

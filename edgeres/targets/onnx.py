"""ONNX files, written by PyTorch's exporter from the one graph; NCHW, any batch size.

The int8 file takes and gives uint8 codes. The rewrites below change how the same numbers are
written, so that onnxruntime's optimizer finds integer kernels for every operation.

The int4 file is the same with ONNX's INT4 for weights of 4 bits, which compilers for NPUs read.
onnxruntime has no integer kernel for them on a CPU: it computes their layers in float32, with the
same codes but where a sum's last bits decide. `qoperator-int4` is for that runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres import scratch
from edgeres.disk import storage_errors
from edgeres.errors import BadInput
from edgeres.network import onnx_file, onnx_session
from edgeres.quiet import quiet
from edgeres.targets import Session, Source, Tracer, _onnx_layer, _onnx_read, _schemes
from edgeres.targets import _onnx_structure as structures
from edgeres.targets._graph import FileGraph
from edgeres.targets._structure import Structure
from edgeres.types import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import onnx
    import onnxruntime
    from torch import nn

SUMMARY = "ONNX: servers, PCs, Android, Jetson"
PRECISIONS = ("fp32", "fp16", "int8", "int4")
SUFFIX = ".onnx"
PACKAGE = "onnxruntime"
EXTRA = None
RUNTIME = "onnxruntime"
ANY_BATCH = True
SCHEMES = {"int8": _schemes.as_trained, "int4": _schemes.as_trained}
layer_file = _onnx_layer.write

_OPSET = 19  # the newest that Rockchip's compiler takes; older files have 20
_KNOWN_OPSETS = (_OPSET, 20)
_FORMAT_VERSION = 9  # the oldest with this operator set, so that onnxruntime 1.15 reads it
OPSET_INT4, VERSION_INT4 = 21, 10  # the first with INT4; the same operators else
# What onnxruntime does last on x86: other memory layouts for the same operations. Reading and
# tracing stop before it: tensors stay (N, C, H, W), weights (O, I, kH, kW), and a Transpose is one
# that the file asks for. Integer kernels give the same codes in either layout.
_LAYOUTS = ("NhwcTransformer", "NchwcTransformer")


def export(source: Source, precision: str, path: Path) -> tuple[TensorSpec, TensorSpec]:
    """Write a .onnx file: uint8 codes in and out for `int8` and `int4`, else float32.

    `fp16` stores and computes in float16, which a GPU does; a CPU may compute it in float32.
    """
    with quiet(f"writing {path.name} with torch.onnx"):
        from edgeres.targets import _onnx_rewrites as rewrites

        model = exported_model(source, precision)
        if precision in ("int8", "int4"):
            rewrites.relus_of_codes(model)
            rewrites.unsigned_activations(model)
            rewrites.integer_io(model)
        if precision == "int4":
            assert source.scales is not None
            rewrites.four_bit_weights(model, source.scales)
        write(model, source, path)
    graph = read(path)
    return graph.input, graph.output


def exported_model(source: Source, precision: str) -> onnx.ModelProto:
    """The network as a ModelProto, float32 input and output, Q/DQ with int8 codes if it has any."""
    import torch

    from edgeres.targets import _onnx_rewrites as rewrites

    network: nn.Module = source.model
    if source.scales is not None:
        from edgeres.compression.graph import quantized_graph

        network = quantized_graph(source.model, source.scales, fold_weights=True)
    px = source.model.spec.preprocess.size_px
    program = torch.onnx.export(
        network, (torch.zeros(2, 3, px, px),), dynamo=True, opset_version=_OPSET,
        input_names=["input"], output_names=["logits"], verbose=False,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=65536)},),
    )  # fmt: skip
    assert program is not None
    model = program.model_proto
    rewrites.strip_provenance(model)
    rewrites.global_average_pool(model)
    onnx_session.own_zero_points(model)
    if precision == "fp16":
        rewrites.half(model)
    return model


def write(model: onnx.ModelProto, source: Source, path: Path) -> None:
    """Check a model and store it with the source's metadata."""
    import onnx

    newer = any(o.version >= OPSET_INT4 for o in model.opset_import)
    model.ir_version = VERSION_INT4 if newer else _FORMAT_VERSION
    for key, value in sorted(source.metadata.items()):
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model, full_check=True)
    with storage_errors(path):
        path.write_bytes(model.SerializeToString(deterministic=True))


def read(path: Path) -> FileGraph:
    """Read the graph that onnxruntime's optimizer makes for this machine's CPU (see `executed`).

    Raises:
        BadInput: not an ONNX file, or one that onnxruntime refuses.
    """
    with quiet(f"reading {path.name}"):
        stored = onnx_file.load(path)
        return _onnx_read.graph(path, "onnx", executed(path, stored), stored)


def structure(path: Path, source: Source, precision: str) -> Structure:
    """The file as it is stored (`_structure`).

    Raises:
        BadInput: not an ONNX file.
    """
    ends = "uint8" if precision in ("int8", "int4") else "float32"
    form = structures.Form({"": _KNOWN_OPSETS}, ends)
    if precision == "int4":
        form = structures.Form({"": (OPSET_INT4,)}, ends, VERSION_INT4)
    return structures.structure(path, source, form)


def as_stored(path: Path) -> FileGraph:
    """Read the graph that the file holds, whatever a runtime makes of it.

    Raises:
        BadInput: not an ONNX file.
    """
    with quiet(f"reading {path.name}"):
        stored = onnx_file.load(path)
        return _onnx_read.graph(path, "onnx", stored, stored)


beside = onnx_file.beside


def whole(path: Path, folder: Path) -> Path:
    """The file with what it keeps in other files: itself, or a copy in the folder that has all.

    Raises:
        BadInput: not an ONNX file; data missing; over 2 GB.
    """
    if not beside(path):
        return path
    (copy := folder / path.name).write_bytes(onnx_file.contents(path, onnx_file.load(path)))
    return copy


def session(path: Path, threads: int = 1) -> Session | None:
    """Load the file in onnxruntime on the CPU.

    Raises:
        BadInput: onnxruntime refuses it, or it isn't one image in, one answer out.
    """
    with quiet(f"loading {path.name} in onnxruntime"):
        return Runner(path, onnx_session.computing(path, str(path), threads))


def session_as_written(path: Path, threads: int = 1) -> Runner:
    """The same without onnxruntime's optimizer."""
    with quiet(f"loading {path.name} in onnxruntime"):
        return Runner(path, onnx_session.computing(path, str(path), threads, as_written()))


def tracer(path: Path) -> Tracer | None:
    """Load the file as `read` sees it, with every operation's answer as an output."""
    with quiet(f"loading {path.name} in onnxruntime"):
        return tracer_of(path, executed(path, onnx_file.load(path)))


def cut(path: Path, tensor: str, out: Path) -> bool:
    """Write the file's beginning, up to codes that it computes; False if there are none."""
    model = onnx_file.load(path)
    graph = model.graph
    maker = next((n for n in graph.node if tensor in n.output), None)
    if maker is None or maker.op_type != "QuantizeLinear":
        return False
    zero = next((i for i in graph.initializer if i.name == onnx_file.input_name(maker, 2)), None)
    if zero is None:
        return False
    needed, kept = {tensor}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    constants = [value for value in graph.initializer if value.name in needed]
    for field, values in (("node", kept[::-1]), ("initializer", constants)):
        del getattr(graph, field)[:]
        getattr(graph, field).extend(values)
    del graph.output[:], graph.value_info[:]
    graph.output.add(name=tensor).type.tensor_type.elem_type = zero.data_type
    with storage_errors(out):
        out.write_bytes(onnx_file.contents(path, model))
    return True


def tracer_of(path: Path, model: onnx.ModelProto) -> Tracer:
    """Run `model`, a form of the file at `path`, as it stands."""
    known = {value.name for value in model.graph.output}
    for node in model.graph.node:
        for name in node.output:
            if name and name not in known:
                model.graph.output.add(name=name)  # onnxruntime finds its type
                known.add(name)
    contents = onnx_file.contents(path, model)
    return _Tracer(path, onnx_session.computing(path, contents, 1, as_written()))


def as_written() -> dict[str, object]:
    """Session settings that change nothing in a graph."""
    import onnxruntime

    return {"graph_optimization_level": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL}


class Runner:
    """A session with one image input; answers with its first output."""

    stand_in = "its runtime"

    def __init__(self, path: Path, session: onnxruntime.InferenceSession):
        self.session, self.name = session, _image_input(path, session)
        self.caution = onnx_session.CAUTION if onnx_session.saturates() else ""

    def run(self, images: np.ndarray) -> np.ndarray:
        """Encoded images (N, ...) -> (N, C)."""
        import numpy as np

        return np.concatenate([self.together(image[None]) for image in images])

    def together(self, images: np.ndarray) -> np.ndarray:
        """The same in one call."""
        names = [self.session.get_outputs()[0].name]
        answers: np.ndarray = self.session.run(names, {self.name: images})[0]
        return answers


class _Tracer:
    def __init__(self, path: Path, session: onnxruntime.InferenceSession):
        self.session, self.name = session, _image_input(path, session)

    def run(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        import numpy as np

        names = [value.name for value in self.session.get_outputs()]
        answers = [self.session.run(names, {self.name: image[None]}) for image in images]
        return {name: np.concatenate([np.atleast_1d(a) for a in column])
                for name, *column in zip(names, *answers, strict=True)}  # fmt: skip


def _image_input(path: Path, session: onnxruntime.InferenceSession) -> str:
    needed = session.get_inputs()
    if len(needed) != 1:
        names = ", ".join(f"'{value.name}'" for value in needed[:5])
        raise BadInput(f"{path}: needs {len(needed)} inputs ({names}); edgeres runs networks of "
                       "one image")  # fmt: skip
    if any(not isinstance(size, int) for size in needed[0].shape[1:]):
        raise BadInput(f"{path}: its input size is open {needed[0].shape}; export it with a fixed "
                       "height and width")  # fmt: skip
    return str(needed[0].name)


def executed(path: Path, stored: onnx.ModelProto) -> onnx.ModelProto:
    """What onnxruntime's optimizer makes of a file.

    One with float16 weights stays as stored: what a CPU without float16 kernels makes of it, casts
    to float32 and back, says nothing of the device that the file is for.
    """
    from onnx import TensorProto

    if any(tensor.data_type == TensorProto.FLOAT16 for tensor in stored.graph.initializer):
        return stored
    with scratch.folder("convert") as folder:
        optimized = folder / "optimized.onnx"
        model = onnx_file.contents(path, stored)  # with what it keeps in other files
        wish = {"optimized_model_filepath": str(optimized)}
        onnx_session.made(path, model, 1, wish, _LAYOUTS)
        return onnx_file.load(optimized)

"""A .tflite file exactly as it is stored: operations in PyTorch's terms, and what is left over."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeres.network import tflite_file as file
from edgeres.targets import _tflite_metadata as metadata
from edgeres.targets import _tflite_read as reading
from edgeres.targets._structure import Details, Step, Structure, notes_left_over
from edgeres.targets._tflite_versions import oldest_runtime

if TYPE_CHECKING:
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    from edgeres.targets import Source

# precision -> the types that its tensors may have; the first is that of its images
_TYPES = {
    "fp32": ("float32", "int32"), "fp16": ("float32", "float16", "int32"),
    "dynamic": ("float32", "int8", "int32"), "int8": ("int8", "int32"),
    "int16x8": ("int16", "int8", "int32", "int64"), "int4": ("int8", "int4", "int32"),
}  # fmt: skip
_KINDS = {
    "CONV_2D": "conv", "DEPTHWISE_CONV_2D": "conv", "FULLY_CONNECTED": "linear", "ADD": "add",
    "MUL": "mul", "LOGISTIC": "sigmoid", "MEAN": "mean", "MAX_POOL_2D": "max_pool", "PAD": "pad",
    "PADV2": "pad", "RESHAPE": "reshape", "QUANTIZE": "quantize", "DEQUANTIZE": "dequantize",
    "CONCATENATION": "concat", "NEG": "neg", "RELU_0_TO_1": "relu", "RELU6": "relu",
}  # fmt: skip
_ENDS = {"RELU_0_TO_1": 1.0, "RELU6": 6.0}
# What an operation's options may say otherwise than their defaults; the rest must be at them.
_OPTIONS = {
    "CONV_2D": ("padding", "strideW", "strideH", "dilationWFactor", "dilationHFactor",
                "fusedActivationFunction"),
    "DEPTHWISE_CONV_2D": ("padding", "strideW", "strideH", "dilationWFactor", "dilationHFactor",
                          "fusedActivationFunction", "depthMultiplier"),
    "FULLY_CONNECTED": ("fusedActivationFunction", "keepNumDims"),
    "ADD": ("fusedActivationFunction", "potScaleInt16"),
    "MUL": ("fusedActivationFunction",), "CONCATENATION": ("axis",),
    "MEAN": ("keepDims",), "RESHAPE": ("newShape",),
    "MAX_POOL_2D": ("padding", "strideW", "strideH", "filterWidth", "filterHeight",
                    "fusedActivationFunction"),
}  # fmt: skip
# A runtime version that the converter noted and another one replaced: earlier edgeres left it.
_REPLACED = re.compile(rb"[0-9.]{1,15}\0*")
_OWN_FIELDS = ("opcodeIndex", "inputs", "outputs", "builtinOptionsType", "builtinOptions")
_TENSOR_FIELDS = ("shape", "type", "buffer", "name", "quantization", "hasRank", "shapeSignature")
_SAME, _VALID = 0, 1
_OPTION_CLASSES = {
    "CONV_2D": "Conv2DOptionsT", "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptionsT",
    "FULLY_CONNECTED": "FullyConnectedOptionsT", "ADD": "AddOptionsT", "MUL": "MulOptionsT",
    "CONCATENATION": "ConcatenationOptionsT", "MEAN": "ReducerOptionsT",
    "RESHAPE": "ReshapeOptionsT", "MAX_POOL_2D": "Pool2DOptionsT",
}  # fmt: skip
# operator -> how many inputs it may have, where that isn't one
_INPUTS: dict[str, Sequence[int]] = {
    "CONCATENATION": range(2, 100),
    "CONV_2D": (2, 3), "DEPTHWISE_CONV_2D": (2, 3), "FULLY_CONNECTED": (2, 3), "ADD": (2,),
    "MUL": (2,), "MEAN": (2,), "RESHAPE": (2,), "PAD": (2,), "PADV2": (3,),
}  # fmt: skip
_DESCRIPTION = b"MLIR Converted."
# What the converter notes; runtimes do nothing with it.
_CONVERTERS = {"keep_stablehlo_constant": re.compile(b"true|false"),
               "CONVERSION_METADATA": re.compile(b".*", re.DOTALL)}  # fmt: skip


def structure(path: Path, source: Source, precision: str) -> Structure:
    """The file's own graph.

    Args:
        source: what it must have been written from: its notes and the standard metadata say that.

    Raises:
        BadInput: not a TFLite file, or a damaged one.
    """
    data = path.read_bytes()
    model = file.load(data, path)
    try:
        return _Reader(model, _types(source, precision)).structure(
            [*_container(model), *_told(model, source), *_beyond(data, model, source)]
        )
    except MemoryError:
        raise
    except Exception as error:  # indices that point nowhere, sizes that don't fit
        raise file.damaged(path, error) from error


def _types(source: Source, precision: str) -> tuple[str, ...]:
    """What tensors may be; float32, too, where the recipe leaves layers float."""
    table = source.scales
    weights = [name for name in source.model.state_dict() if name.endswith(".weight")]
    if table is not None and any(name not in table for name in weights):
        return (*_TYPES[precision], "float32")
    return _TYPES[precision]


class _Reader:
    """The one graph of a file."""

    def __init__(self, model: schema.ModelT, types: tuple[str, ...]):
        self.model, self.types = model, types
        self.graph = model.subgraphs[0]
        self.tensors = [file.stored(model, i, t) for i, t in enumerate(self.graph.tensors)]
        # a DEQUANTIZE's output -> the constant that it unpacks
        self.unpacked: dict[int, file.Stored] = {}
        self.strange: list[str] = []

    def structure(self, left_over: list[str]) -> Structure:
        steps = [step for number, op in enumerate(self.graph.operators)
                 if (step := self._step(number, op)) is not None]  # fmt: skip
        first, last = (self.tensors[int(ends[0])] for ends in
                       (self.graph.inputs, self.graph.outputs))  # fmt: skip
        quantization = {t.name: t.quantization for t in self.tensors
                        if t.quantization and not t.constant}  # fmt: skip
        left_over = [*left_over, *self._tensors(), *self.strange]
        shapes = {t.name: _channels_first(t.shape) for t in self.tensors
                  if not t.constant and len(t.shape) in (2, 4)}  # fmt: skip
        return Structure(tuple(steps), first.name, last.name, quantization, tuple(left_over),
                         shapes=shapes)  # fmt: skip

    def _step(self, number: int, op: schema.OperatorT) -> Step | None:
        kind = file.kind(self.model, op)
        at = [int(i) for i in op.inputs]
        (output,) = (self.tensors[int(i)] for i in op.outputs)
        name = f"{kind} #{number}"
        inputs = [None if i < 0 else self.unpacked.get(i, self.tensors[i]) for i in at]
        first = inputs[0]
        if kind == "DEQUANTIZE" and first and first.constant and first.dtype == "float16":
            self.unpacked[int(op.outputs[0])] = first
            return None
        data = tuple(t.name for t in inputs if t is not None and not t.constant)
        problem = self._problem(kind, op, output)
        known = _KINDS.get(kind)
        if kind == "MUL" and len(data) == 1 and _minus_one(inputs):
            known = "neg"  # how the converter writes it
        if known is None or problem:
            if problem:
                self.strange.append(f"{name}: {problem}")
            return Step("unknown", name, data, output.name)
        found = self._details(kind, op, inputs, name)
        return Step(known, name, data, output.name, **found)  # type: ignore[arg-type]

    def _problem(self, kind: str, op: schema.OperatorT, output: file.Stored) -> str:
        """What an operation says that isn't read here; "" if there is nothing."""
        options = op.builtinOptions
        for what, allowed, of in (
            ("field", _OWN_FIELDS, op), ("option", _OPTIONS.get(kind, ()), options),
        ):  # fmt: skip
            for key in _set(of, allowed):
                return f"the {what} {key} isn't expected"
        wanted = _OPTION_CLASSES.get(kind)
        if options is not None and wanted and type(options).__name__ != wanted:
            return f"its options are {type(options).__name__}"
        if len(op.inputs) not in _INPUTS.get(kind, (1,)):
            return f"has {len(op.inputs)} inputs"
        if output.constant:
            return "writes a constant"
        if getattr(options, "fusedActivationFunction", 0) not in (0, 1, 3):
            return f"its activation is of kind {options.fusedActivationFunction}"
        if kind == "CONCATENATION" and not _joins_channels(output.shape, options.axis):
            return f"joins along the axis {options.axis}"
        if kind == "ADD" and output.dtype == "int16" and options.potScaleInt16:
            return "claims scales that are powers of two"
        return ""

    def _details(
        self, kind: str, op: schema.OperatorT, inputs: list[file.Stored | None], name: str
    ) -> Details:
        options = op.builtinOptions
        activation = getattr(options, "fusedActivationFunction", 0)
        if kind in _ENDS:
            return {"most": _ENDS[kind]}
        relu: Details = {"relu": activation in (1, 3), "most": 6.0 if activation == 3 else math.inf}
        if kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            return {**relu, **self._weighted(kind, options, inputs, name)}
        if kind == "MAX_POOL_2D":
            return {**relu, **_window(options),
                    "kernel": (options.filterHeight, options.filterWidth)}  # fmt: skip
        if kind in ("PAD", "PADV2"):
            return self._pad(inputs, name)
        if kind == "RESHAPE":
            asked = options.newShape if options else None
            shape = tuple(int(n) for n in self._constant(inputs[1], name, asked))
            if asked is not None and tuple(map(int, asked)) != shape:
                self.strange.append(f"{name}: asks for two shapes")
            return {"shape": shape}
        if kind == "MEAN":
            output = self.tensors[int(op.outputs[0])]
            if bool(options.keepDims) != (len(output.shape) == 4):
                self.strange.append(f"{name}: keeps other axes than it declares")
            axes = sorted(int(a) % 4 for a in self._constant(inputs[1], name).reshape(-1))
            if axes != [1, 2]:
                self.strange.append(f"{name}: averages over the axes {axes}")
        return relu

    def _weighted(
        self, kind: str, options: Any, inputs: list[file.Stored | None], name: str
    ) -> Details:
        stored = inputs[1]
        found: Details = {} if kind == "FULLY_CONNECTED" else _window(options)
        if stored is not None and stored.data is not None:
            weight = reading._pytorch_weight(kind, stored.data)
            found |= {"weight": weight,
                      "weight_quantization": reading._of_weight(stored.quantization)}  # fmt: skip
            if kind != "FULLY_CONNECTED":
                found["kernel"] = tuple(weight.shape[2:])
        if kind == "CONV_2D":
            found["groups"] = None
        elif kind == "DEPTHWISE_CONV_2D" and "weight" in found:
            found["groups"] = len(found["weight"]) // int(options.depthMultiplier)
        if len(inputs) > 2 and inputs[2] is not None:
            found["bias"] = self._constant(inputs[2], name)
            self._check_bias(inputs, name)
        return found

    def _check_bias(self, inputs: list[Any], name: str) -> None:
        """Its scale, which runtimes compute for themselves, has to be what they compute."""
        import numpy as np

        (read, weight, bias) = (t.quantization for t in inputs[:3])
        if bias is None and (read is None or weight is None):
            return
        if read is None or weight is None or bias is None or any(bias.zero_point):
            self.strange.append(f"{name}: its bias has another scale than its input and weights")
            return
        steps = np.float64(read.scale[0]) * np.asarray(weight.scale)
        if len(bias.scale) != len(steps) or not np.allclose(bias.scale, steps, 1e-6, 0):
            self.strange.append(f"{name}: its bias' scale isn't its input's times its weights'")

    def _pad(self, inputs: list[Any], name: str) -> Details:
        amounts = self._constant(inputs[1], name)
        if amounts.shape != (4, 2) or amounts[[0, 3]].any():
            self.strange.append(f"{name}: pads images or channels")
            return {"padding": None}
        (_, (top, bottom), (left, right), _) = amounts.tolist()
        zero = inputs[0].quantization.zero_point[0] if inputs[0].quantization else 0
        fill = self._constant(inputs[2], name).item() if len(inputs) > 2 else zero
        return {"padding": (top, left, bottom, right), "fill": float(fill)}

    def _constant(
        self, tensor: file.Stored | None, name: str, option: list[int] | None = None
    ) -> np.ndarray:
        import numpy as np

        if tensor is not None and tensor.data is not None:
            stored: np.ndarray = tensor.data
            return stored
        if option is not None:
            return np.asarray(option)
        self.strange.append(f"{name}: what should be a constant is computed")
        return np.zeros(0)

    def _tensors(self) -> Iterator[str]:
        """Each is read or written by something, of a type that the precision has, and plain."""
        ends = [*self.graph.inputs, *self.graph.outputs]
        used = {int(i) for op in self.graph.operators for i in (*op.inputs, *op.outputs)}
        used |= {int(i) for i in ends}
        for index, (stored, tensor) in enumerate(zip(self.graph.tensors, self.tensors,
                                                     strict=True)):  # fmt: skip
            computed = not tensor.constant and index not in self.unpacked
            if computed and tensor.shape[:1] != (1,):
                yield f"the tensor {tensor.name[:80]} holds {tensor.shape[:1]} images"
            if index not in used:
                yield f"the tensor {tensor.name[:80]} is not used"
            elif tensor.dtype not in self.types:
                yield f"the tensor {tensor.name[:80]} is of type {tensor.dtype}"
            yield from _quantized_plainly(stored, tensor)
            for key in _set(stored, _TENSOR_FIELDS):
                yield f"the tensor {tensor.name[:80]} has {key}"
        for what, count in (("input", self.graph.inputs), ("output", self.graph.outputs)):
            if len(count) != 1:
                yield f"it has {len(count)} {what}s"
        for tensor in (self.tensors[int(end)] for end in ends):
            if tensor.dtype != self.types[0]:
                yield f"{tensor.name[:80]} is of type {tensor.dtype}"


def _quantized_plainly(stored: schema.TensorT, tensor: file.Stored) -> Iterator[str]:
    """What a tensor says of its numbers beside scales and zero points, or says twice."""
    q, name = stored.quantization, tensor.name[:80]
    for key in _set(q, ("scale", "zeroPoint", "quantizedDimension")) if q is not None else ():
        yield f"the scale of {name} has {key}"
    if tensor.quantization and tensor.dtype.startswith("float"):
        yield f"{name} is of type {tensor.dtype}, and has a scale"
    axis = 3 if tensor.constant and len(tensor.shape) == 4 and tensor.shape[0] == 1 else 0
    if q is not None and q.scale is not None and len(q.scale) > 1:
        along = q.quantizedDimension
        if along not in (0, axis) or tensor.shape[along] != len(q.scale):
            yield f"the scales of {name} are along axis {along}"
    weight = tensor.constant and tensor.shape  # not what a pad fills with, which is a code
    if tensor.quantization and weight and any(tensor.quantization.zero_point):
        yield f"the constant {name} has a zero point"
    signature = stored.shapeSignature
    if signature is not None and tuple(map(int, signature)) != tensor.shape:
        yield f"{name} declares two shapes"
    if not tensor.constant and len(tensor.shape) not in (2, 4):
        yield f"{name} has {len(tensor.shape)} dimensions"


def _channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(1, H, W, C) -> (C, H, W); the converter has a map of one pixel as (1, C, 1, 1), too."""
    if len(shape) == 4 and math.prod(shape) == shape[1]:
        return shape[1:]
    return (shape[-1], *shape[1:-1])


def _joins_channels(shape: tuple[int, ...], axis: int) -> bool:
    """Whether a concatenation makes channels, of maps of one pixel in either order."""
    if len(shape) != 4:
        return False
    return axis % 4 == 3 or (axis % 4 == 1 and math.prod(shape) == shape[1])


def _minus_one(inputs: list[file.Stored | None]) -> bool:
    """Whether every constant among the inputs is -1."""
    stored = [t.data for t in inputs if t is not None and t.constant]
    return bool(stored) and all(d is not None and d.size == 1 and d.dtype == "float32"
                                and (d == -1).all() for d in stored)  # fmt: skip


def _window(options: schema.Conv2DOptionsT | schema.Pool2DOptionsT) -> Details:
    found: Details = {"stride": (int(options.strideH), int(options.strideW))}
    if hasattr(options, "dilationHFactor"):
        found["dilation"] = (int(options.dilationHFactor), int(options.dilationWFactor))
    if options.padding == _SAME:
        found["padding"] = None
    return found


def _set(part: object, known: tuple[str, ...]) -> Iterator[str]:
    """Fields of a part of the file that aren't at their defaults, but for the known ones."""
    plain = vars(type(part)()) if part is not None else {}
    for key, value in vars(part).items() if part is not None else ():
        if key not in known and value is not None and value != plain.get(key):
            yield key


def _container(model: schema.ModelT) -> Iterator[str]:
    """What a file may hold beside its one graph."""
    for number, _ in enumerate(model.subgraphs[1:], 1):
        yield f"subgraph {number} isn't the network's"
    graph = model.subgraphs[0]
    ends = [(int(graph.inputs[0]),), (int(graph.outputs[0]),)]
    signatures = model.signatureDefs or ()
    if len(signatures) != 1:
        yield f"it has {len(signatures)} signatures"
    for key in _set(graph, ("tensors", "inputs", "outputs", "operators", "name")):
        yield f"its graph has {key}"
    for signature in signatures:
        told = [tuple(int(t.tensorIndex) for t in tensors or ())
                for tensors in (signature.inputs, signature.outputs)]  # fmt: skip
        if signature.signatureKey != b"serving_default":
            yield f"it has a signature {file.clean(signature.signatureKey)[:40]!r}"
        names = [t.name for t in (*(signature.inputs or ()), *(signature.outputs or ()))]
        if names != [b"args_0", b"output_0"]:
            yield "its signature calls the image or the answer something else"
        if told != ends or signature.subgraphIndex:
            yield (f"the signature {file.clean(signature.signatureKey)[:40]!r} has other inputs or "
                   "outputs than the graph")  # fmt: skip
    codes = [int(o.opcodeIndex) for o in graph.operators]
    for number in sorted({*range(len(model.operatorCodes))} - {*codes}):
        yield f"the operator {number} that it lists is not used"
    for code in model.operatorCodes:
        if code.customCode:
            yield f"it lists an operator of somebody's own, {file.clean(code.customCode)[:40]!r}"
    used = {t.buffer for g in model.subgraphs for t in g.tensors}
    used |= {entry.buffer for entry in model.metadata or ()}
    for number, buffer in enumerate(model.buffers):
        data = bytes(buffer.data if buffer.data is not None else b"")
        if number not in used and data and not _REPLACED.fullmatch(data):
            yield f"buffer {number} is not used"
        for key in _set(buffer, ("data",)):
            yield f"buffer {number} has {key}"
    fields = ("version", "operatorCodes", "subgraphs", "description", "buffers", "metadata",
              "signatureDefs")  # fmt: skip
    for key in _set(model, fields):
        yield f"it has {key}"
    if model.description not in (None, b"", _DESCRIPTION):
        yield "its description isn't the converter's"


def _told(model: schema.ModelT, source: Source) -> Iterator[str]:
    """Notes: ours, those of Android's tools, the converter's."""
    entries = {file.clean(e.name): _bytes(model, e) for e in model.metadata or ()}
    if len(entries) != len(model.metadata or ()):
        yield "two of its notes have one name"
    standard = {metadata.STANDARD: metadata.standard(source),
                metadata.RUNTIME: oldest_runtime(metadata.versions(model)).encode()}  # fmt: skip
    for key, expected in standard.items():
        found = entries.pop(key, b"")
        if found != expected and found.rstrip(b"\0") != expected:
            yield f"the standard metadata ({key}) isn't the network's"
    for key, form in _CONVERTERS.items():
        if key in entries and not form.fullmatch(entries.pop(key)):
            yield f"the converter's note {key} is another"
    texts: Mapping[str, str] = {k: v.decode("utf-8", "replace") for k, v in entries.items()}
    yield from notes_left_over(texts, source.metadata)


def _bytes(model: schema.ModelT, entry: schema.MetadataT) -> bytes:
    data = model.buffers[entry.buffer].data
    return bytes(data if data is not None else b"")


def _beyond(data: bytes, model: schema.ModelT, source: Source) -> Iterator[str]:
    """Bytes that no part of the model accounts for; the label file for Android's tools is one."""
    if data != metadata.with_labels(file.pack(model), source):
        yield "the label file behind the model, or bytes between its parts, aren't the network's"

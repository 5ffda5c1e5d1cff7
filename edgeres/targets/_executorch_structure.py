"""A .pte file exactly as stored: each operation in PyTorch's terms, and what is left over."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.errors import BadInput, EdgeresError
from edgeres.targets import _executorch_container as container
from edgeres.targets._executorch_xnnpack import TO_NCHW, TO_NHWC, Delegate, Table, Value, encoded
from edgeres.targets._structure import Details, Step, Structure

if TYPE_CHECKING:
    import numpy as np
    from executorch.exir._serialize._program import PTEFile

    from edgeres.targets import Source
    from edgeres.types import QuantParams

# precision -> the types that its tensors may have
_TYPES = {"fp32": ("fp32",), "int8": ("qint8", "qcint8", "qcint32", "fp32")}
_NODES = {
    "XNNConv2d": "conv", "XNNDepthwiseConv2d": "conv", "XNNFullyConnected": "linear",
    "XNNAdd": "add", "XNNMultiply": "mul", "XNNSigmoid": "sigmoid", "XNNNegate": "neg",
    "XNNGlobalAvgPooling2d": "mean", "XNNMaxPooling2d": "max_pool", "XNNClamp": "relu",
    **dict.fromkeys((f"XNNConcatenate{n}" for n in range(2, 6)), "concat"),
    "XNNStaticReshape": "reshape", "XNNStaticTranspose": "transpose", "XNNConvert": "quantize",
}  # fmt: skip
_CHANNELS_LAST = ("conv", "mean", "max_pool")
_WITH_RELU = ("conv", "linear", "add", "relu")
_FIXED = {"adjustment_height": 0, "adjustment_width": 0}
_KEEP_DIMS = 64  # XNN_FLAG_KEEP_DIMS
_FLAGS = {"XNNGlobalAvgPooling2d": _KEEP_DIMS, "XNNMaxPooling2d": _KEEP_DIMS}
_NONE = 0xFFFFFFFF
_QUANTIZED: dict[str | None, set[str]] = {
    "PerTensorQuant": {"scale", "zero_point"},
    "PerChannelQuant": {"scale", "channel_dim", "scale_buffer_idx", "num_scales"},
}
_FIELDS = ("version", "xnodes", "xvalues", "num_externs", "input_ids", "output_ids",
           "constant_data")  # fmt: skip
_RELU = {"output_min": 0, "output_max": 0x7F800000}  # the bits of 0 and infinity


def structure(path: Path, source: Source, precision: str) -> Structure:
    """The file's own program.

    Args:
        source: what it must have been written from.

    Raises:
        BadInput: not an ExecuTorch program, or a damaged one.
    """
    from executorch.exir._serialize import _program as serialization

    data = path.read_bytes()
    try:  # executorch's own reader asserts and reads past ends
        file = serialization.deserialize_pte_binary(data)
        left_over = list(container.program(file, source))
        reader = _Reader(str(path), file, precision)
        steps = tuple(reader.steps())
        left_over += [*reader.strange, *reader.unused()]
        again = serialization.serialize_pte_binary(file, extract_delegate_segments=True)
        if bytes(again) != data:
            left_over.append("it holds bytes that no part of the program accounts for")
        return Structure(steps, "input", reader.output, reader.quantization, tuple(left_over),
                         shapes=reader.shapes)  # fmt: skip
    except (EdgeresError, MemoryError):
        raise
    except Exception as error:
        what = type(error).__name__
        raise BadInput(f"{path}: not an ExecuTorch program, or a damaged one ({what})") from error


class _Reader:
    """The one XNNPACK graph, channels last inside; a transposed tensor keeps its name."""

    def __init__(self, where: str, file: PTEFile, precision: str):
        self.precision = precision
        blob = bytes(file.program.backend_delegate_data[0].data)
        stored = file.named_data.pte_data if file.named_data else {}
        self.named = {k: bytes(file.named_data.buffers[e.buffer_index]) for k, e in stored.items()}
        ends = ("input", "output")
        self.delegate = Delegate(where, blob, self.named, ends, ends, "x")
        self.graph, self.values = self.delegate.graph, self.delegate.values
        self.strange = list(_beyond(blob, self.graph, self.delegate.stored))
        self.names = dict.fromkeys(self.graph["input_ids"], "input")
        self.channels_last: set[int] = set()
        own = self.delegate.quantization()
        self.quantization = {f"x{i}": own[name] for i, v in self.values.items()
                             if (name := self.delegate.name(i)) in own}  # fmt: skip
        self.shapes = {name: self._shape(i) for i, name in self.names.items()}
        self.used = {*self.graph["input_ids"], *self.graph["output_ids"]}

    @property
    def output(self) -> str:
        return self.names.get(self.graph["output_ids"][0], "output")

    def steps(self) -> Iterator[Step]:
        self.strange += self._values()
        for number, node in enumerate(self.graph["xnodes"]):
            kind, details = node["xnode_union_type"], node["xnode_union"]
            step = self._step(kind, node, details, f"{kind} #{number}")
            if step is not None:
                yield step

    def unused(self) -> Iterator[str]:
        for number in self.values.keys() - self.used:
            yield f"the tensor {number} is not used"
        read = [v["constant"] for v in self.values.values() if v["constant"]]
        read += [i for v in self.values.values() if (i := _scales(v))]
        for number in sorted({*range(1, len(self.graph["constant_data"]))} - {*read}):
            yield f"the constant {number} is not used"
        keys = [place["named_key"] for place in self.graph["constant_data"][1:]]
        for key in sorted(self.named.keys() - {*keys}):
            yield f"the data {key[:80]!r} are not used"
        for place in self.graph["constant_data"][1:]:
            if len(self.named.get(place["named_key"], b"")) != place["size"]:
                yield f"the constant {place['named_key'][:80]!r} isn't all of the stored data"

    def _values(self) -> Iterator[str]:
        """Each tensor says nothing but its type, sizes, scales and constant."""
        stored = self.graph["xvalues"]
        if len(stored) != len(self.values):
            yield "two of its tensors have one number"
        ends = {i: (n, 1 << n) for n, i in enumerate([*self.graph["input_ids"],
                                                      *self.graph["output_ids"]])}  # fmt: skip
        for raw in stored:
            union = raw["xvalue_union"]
            tensor = union.get("tensor_value", union)
            number, dims = tensor["id_out"], tensor["dims"]
            external, flags = ends.get(number, (_NONE, 0))
            plain = {"datatype": tensor["datatype"], "num_dims": len(dims), "dims": dims,
                     "constant_buffer_idx": tensor["constant_buffer_idx"],
                     "external_id": external, "flags": flags, "id_out": number}  # fmt: skip
            value = self.values[number]
            fields = {"datatype"} if value["quant"] is None else _QUANTIZED.get(value["how"])
            if tensor != plain or (value["quant"] and value["quant"].keys() != fields):
                yield f"the tensor {number} has something else than a type, sizes and scales"
            if value["type"] not in _TYPES[self.precision]:
                yield f"the tensor {number} is of type {value['type']}"
            if value["constant"] == 0 and dims[:1] != [1]:
                yield f"the tensor {number} holds {dims[:1]} images"

    def _step(self, kind: str, node: Table, details: Table, name: str) -> Step | None:
        op, output = _NODES.get(kind, "unknown"), details["output_id"]
        sources = [
            i for key, i in sorted(details.items())
            if key.startswith("input") and key.endswith("id") and i != _NONE
        ]  # fmt: skip
        self.used |= {*sources, output}
        problem = self._problem(kind, op, node, sources, output)
        if not problem and op == "transpose":
            self.names[output] = self.names[sources[0]]
            return None
        if output in self.names:
            problem = problem or "writes a tensor that is there already"
        self.names[output] = tensor = f"x{output}"
        data = tuple(self.names.get(i, f"constant {i}") for i in sources)
        if problem:
            self.strange.append(f"{name}: {problem}")
            return Step("unknown", name, data, tensor)
        if op in _CHANNELS_LAST or self.channels_last.intersection(sources):
            self.channels_last.add(output)
        self.shapes[tensor] = self._shape(output)
        found: Details = {"relu": "output_min_max" in node and op != "relu",
                                 "most": _most(node)}  # fmt: skip
        if op in ("conv", "linear"):
            found |= self._weighted(kind, details, sources, name)
        if op in ("conv", "max_pool"):
            found |= _window(details)
        if op == "reshape":
            found["shape"] = tuple(details["new_shape"])
        if kind == "XNNConvert" and self.values[sources[0]]["type"] == "qint8":
            op = "dequantize"
        return Step(op, name, data, tensor, **found)  # type: ignore[arg-type]

    def _problem(self, kind: str, op: str, node: Table, sources: list[int], output: int) -> str:
        """Why a node isn't one that is read here; "" if it is."""
        details = node["xnode_union"]
        values = [self.values[i] for i in (*sources, output)]
        last = {i in self.channels_last for i in sources}
        ranks = {len(v["dims"]) for v in values[:-1]}
        types = [v["type"] for v in values]
        wrong = [k for k, n in _FIXED.items() if details.get(k, n) != n]
        if op == "relu" and "output_min_max" not in node:
            return "cuts nothing off"
        if "new_shape" in details and details["num_dims"] != len(details["new_shape"]):
            return "says another rank than its shape has"
        if any(self.values[i]["constant"] for i in (*sources, output)):
            return "reads or writes a constant"
        if op == "unknown":
            return "the network has no such operation"
        if details["flags"] != _FLAGS.get(kind, 0):
            return f"its flags are {details['flags']}"
        if wrong or node.keys() - {"xnode_union_type", "xnode_union", "debug_handle",
                                   "output_min_max"}:  # fmt: skip
            return "has a field that isn't expected"
        limits = node.get("output_min_max", _RELU)
        if limits.keys() != _RELU.keys() or limits["output_min"] != 0 or not _most(node) > 0 or (
            "output_min_max" in node) > (op in _WITH_RELU):  # fmt: skip
            return "cuts its output off"
        if any(i not in self.names for i in sources):
            return "reads a constant, or what isn't computed yet"
        if len(last) != 1 or len(ranks) != 1:
            return "mixes orders of axes"
        if op == "transpose":
            return self._transposes(details, sources[0], output)
        if (op in _CHANNELS_LAST) > (last == {True}) or (op == "reshape" and last == {True}):
            return "reads its input in another order of axes"
        if op == "concat" and (len(values[0]["dims"]) != 4 or kind[-1] != str(len(sources))
                               or details["axis"] != (3 if last == {True} else 1)):  # fmt: skip
            return f"joins {len(sources)} along the axis {details['axis']}"
        moves = ("max_pool", "reshape", "neg", "relu", "concat")
        if kind != "XNNConvert" and len({*types}) != 1:
            return f"reads and writes {' and '.join(types)}"
        if kind == "XNNConvert" and sorted(types) != ["fp32", "qint8"]:
            return f"converts {' to '.join(types)}"
        if op in moves and any(v["quant"] != values[-1]["quant"] for v in values):
            return "has another scale behind it"
        return ""

    def _transposes(self, details: Table, source: int, output: int) -> str:
        """Between the two orders of axes, with everything else as it was."""
        before, after = self.values[source], self.values[output]
        last = source in self.channels_last
        perm = TO_NCHW if last else TO_NHWC
        moved = [before["dims"][axis] for axis in perm] if len(before["dims"]) == 4 else None
        same = all(before[k] == after[k] for k in ("type", "how", "quant", "constant"))
        if details["perm"] != perm or details["num_dims"] != 4 or after["dims"] != moved:
            return f"turns the axes by {details['perm']}"
        if not same or output in self.names:
            return "has another type or scale behind it"
        if not last:
            self.channels_last.add(output)
        return ""

    def _shape(self, number: int) -> tuple[int, ...]:
        _, *dims = self.values[number]["dims"]
        return (dims[-1], *dims[:-1]) if number in self.channels_last else tuple(dims)

    def _weighted(self, kind: str, details: Table, sources: list[int], name: str) -> Details:
        self.used.add(details["filter_id"])
        value = self.values[details["filter_id"]]
        weight, scales = self.delegate.weight(kind, details)
        if weight is None:
            self.strange.append(f"{name}: its weights aren't constants of a known type")
            return {}
        axis = 3 if kind == "XNNDepthwiseConv2d" else 0
        if scales and not self._per_channel(value, axis, len(weight)):
            self.strange.append(f"{name}: its weights' scales are others")
        found: Details = {"weight": weight, "weight_quantization": scales}
        if kind != "XNNFullyConnected":
            found["groups"] = groups = details["groups"]
            channels = (groups * details["group_output_channels"], details["group_input_channels"],
                        details["kernel_height"], details["kernel_width"])  # fmt: skip
            if channels != weight.shape:
                self.strange.append(f"{name}: says its weights are {channels}")
        if details["bias_id"] != _NONE:
            found["bias"] = self._bias(details["bias_id"], sources[0], scales, name)
        return found

    def _per_channel(self, value: Value, axis: int, count: int) -> bool:
        quant = value["quant"]
        expected = {"scale": [], "channel_dim": axis, "num_scales": count}
        return (value["how"] == "PerChannelQuant" and bool(_scales(value))
                and all(quant[k] == v for k, v in expected.items()))  # fmt: skip

    def _bias(self, number: int, read: int, scales: QuantParams | None, name: str) -> np.ndarray:
        import numpy as np

        self.used.add(number)
        value = self.values[number]
        dtype = {"fp32": "float32", "qcint32": "int32"}[value["type"]]
        bias = self.delegate.constant(value["constant"], dtype)
        steps = self.quantization.get(self.names[read])
        if value["dims"] != [bias.size] or (scales is None) != (dtype == "float32"):
            self.strange.append(f"{name}: its bias is of another type or size than its weights")
        elif scales is not None and steps is not None:
            own = self.delegate.constant(_scales(value), "float32")
            wanted = np.float32(steps.scale[0]) * np.asarray(scales.scale, np.float32)
            if not self._per_channel(value, 0, bias.size) or not np.array_equal(own, wanted):
                self.strange.append(f"{name}: its bias' scale isn't its input's times its weights'")
        return bias


def _scales(value: Value) -> int:
    return int((value["quant"] or {}).get("scale_buffer_idx", 0))


def _window(details: Table) -> Details:
    kernel, stride = (("kernel", "subsampling") if "kernel_height" in details
                      else ("pooling", "stride"))  # fmt: skip

    def pair(what: str) -> tuple[int, int]:
        return details[f"{what}_height"], details[f"{what}_width"]

    sides = ("top", "left", "bottom", "right")
    return {"kernel": pair(kernel), "stride": pair(stride), "dilation": pair("dilation"),
            "padding": tuple(details[f"padding_{side}"] for side in sides)}  # fmt: skip


def _beyond(blob: bytes, graph: Table, stored: bytes) -> Iterator[str]:
    """What the delegate holds beside its graph's nodes and values."""
    known = {**graph, "version": "0", "num_externs": 2, "input_ids": graph["input_ids"][:1],
             "output_ids": graph["output_ids"][:1]}  # fmt: skip
    for key in known:
        if graph[key] != known[key] or (key not in _FIELDS and graph[key]):
            yield f"its XNNPACK graph has another {key}"
    if stored or encoded(graph) != blob:
        yield "its XNNPACK delegate holds bytes that no part of the graph accounts for"
    nothing, *places = graph["constant_data"]
    outside = {"offset": 0xFFFFFFFFFFFFFFFF}
    if nothing != {"offset": 0, "size": 0, "named_key": ""} or any(
        p | outside != p for p in places
    ):
        yield "its XNNPACK graph has constants in other places"


def _most(node: Table) -> float:
    """What a node cuts its output off at, kept as the bits of a float."""
    if "output_min_max" not in node:
        return math.inf
    most: float = struct.unpack("<f", struct.pack("<I", node["output_min_max"]["output_max"]))[0]
    return most

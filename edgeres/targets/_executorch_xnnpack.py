"""One XNNPACK delegate of an ExecuTorch program, as operations and scales.

A delegate is a header, a flatbuffer (executorch's `backends/xnnpack/serialization/schema.fbs`), and
constants, most of which stand in the program under names instead.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from edgeres import scratch
from edgeres.errors import BadInput
from edgeres.targets._graph import FileOp, Role
from edgeres.types import QuantParams

if TYPE_CHECKING:
    import numpy as np

_ROLES: dict[str, Role] = {
    "XNNConv2d": "conv", "XNNDepthwiseConv2d": "conv", "XNNFullyConnected": "linear",
    "XNNAdd": "add", "XNNMultiply": "mul", "XNNSigmoid": "sigmoid",
    **dict.fromkeys((f"XNNConcatenate{n}" for n in range(2, 6)), "concat"),
    "XNNGlobalAvgPooling2d": "pool", "XNNAvgPooling2d": "pool",
    "XNNMaxPooling2d": "move", "XNNStaticReshape": "move", "XNNStaticConstantPad": "move",
    "XNNStaticSlice": "move", "XNNClamp": "move", "XNNCopy": "move",
    "XNNStaticTranspose": "transpose", "XNNConvert": "boundary",
}  # fmt: skip
_CHANNELS_LAST = ("XNNConv2d", "XNNDepthwiseConv2d", "XNNConvTranspose2d", "XNNMaxPooling2d",
                  "XNNAvgPooling2d", "XNNGlobalAvgPooling2d")  # fmt: skip
_INTEGERS = {"qint8": "int8", "quint8": "uint8", "qcint8": "int8", "qint32": "int32",
             "qcint32": "int32"}  # fmt: skip
_ALIGNED = 16  # the parts of a delegate, in bytes
_FLOATS = {"fp32": "float32", "fp16": "float16"}
TO_NHWC, TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]

Table: TypeAlias = dict[str, Any]
"""A table of the schema as flatc writes it in JSON: fields by their names there."""


class Value(TypedDict):
    """A tensor of either kind, under the names that are used here."""

    id: int
    external: int
    dims: list[int]
    type: str
    constant: int
    how: str | None
    quant: Any  # a table of the kind `how`, None without


class Delegate:
    """One delegate's graph.

    Args:
        where: of the file, for messages.
        blob: the delegate's bytes; named: constants that the program keeps under names.
        names: what the program calls the tensors that go in and come out, by their number.
        ends: which of those are the whole network's input and output.
        prefix: in front of the names of tensors inside.
    """

    def __init__(
        self,
        where: str,
        blob: bytes,
        named: Mapping[str, bytes],
        names: Sequence[str],
        ends: Sequence[str],
        prefix: str,
    ):
        self.where, self.named, self.names = where, named, names
        self.ends, self.prefix = ends, prefix
        self.graph, self.stored = _decoded(blob)
        self.values = {v["id"]: v for v in map(_flat, self.graph["xvalues"])}
        self.channels_last: set[int] = set()

    @property
    def version(self) -> int:
        """Of the graph's schema."""
        return int(self.graph.get("version") or 0)

    def ops(self) -> list[FileOp]:
        """Its operations in execution order."""
        nodes = [(n["xnode_union_type"], n["xnode_union"]) for n in self.graph["xnodes"]]
        at_ends = self._at_ends(nodes)
        return [self._op(kind, node, at_ends) for kind, node in nodes]

    def quantization(self) -> dict[str, QuantParams]:
        """Tensor -> scale and zero point of its codes, constants left out."""
        return {
            self.name(number): QuantParams(
                (_float(v["quant"]["scale"]),), (v["quant"]["zero_point"],), _INTEGERS[v["type"]]
            )
            for number, v in self.values.items()
            if v["type"] in _INTEGERS and v["how"] == "PerTensorQuant" and not v["constant"]
        }

    def _op(self, kind: str, node: Table, at_ends: set[int]) -> FileOp:
        role, output = _ROLES.get(kind, "other"), node["output_id"]
        sources = self._sources(node)
        data = [i for i in sources if not self.values[i]["constant"]]
        if role == "add" and len(data) != 2:
            role = "other"  # a constant is added: no residual
        if role == "transpose" and self._free(node, at_ends):
            role = "move"
        kept = node.get("perm") != TO_NCHW and self.channels_last.intersection(data)
        if kind in _CHANNELS_LAST or node.get("perm") == TO_NHWC or kept:
            self.channels_last.add(output)
        weight, quantization = self.weight(kind, node)
        kinds = [self.values[i]["type"] for i in (*sources, output, *self._filter(node))]
        floating = role not in ("move", "transpose", "boundary")
        floating = floating and not all(k in _INTEGERS for k in kinds)
        constants = [*self._filter(node), *(i for i in sources if self.values[i]["constant"])]
        constants += [node["bias_id"]] if node.get("bias_id") in self.values else []
        name = self.name(output)
        return FileOp(
            kind, role, name, tuple(map(self.name, data)), name, floating, weight, quantization,
            self._shape(output), sum(map(self._stored_bytes, constants)),
        )  # fmt: skip

    def _sources(self, node: Table) -> list[int]:
        """Tensors that an operation computes from, without filter and bias."""
        own = ("filter_id", "bias_id", "output_id", "output_value_id", "output_index_id")
        ids = [i for key, i in node.items() if key.endswith("_id") and key not in own]
        return [i for i in ids if i in self.values]

    def _filter(self, node: Table) -> list[int]:
        return [node["filter_id"]] if "filter_id" in node else []

    def _at_ends(self, nodes: list[tuple[str, Table]]) -> set[int]:
        """Tensors of the network's input or output, through what only changes their type."""
        found = {i for i in self.values if self.name(i) in self.ends}
        for kind, node in [*nodes, *reversed(nodes)]:
            pair = {node.get("input_id"), node["output_id"]} if kind == "XNNConvert" else set()
            if pair & found:
                found |= pair
        return found

    def _free(self, node: Table, at_ends: set[int]) -> bool:
        """A transpose that a device pays for once or not at all.

        XNNPACK computes channels-last, so executorch turns the input, as onnxruntime does inside
        its kernels; and it turns the 1x1 maps behind the average pool, where nothing moves.
        """
        dims = self.values[node["input_id"]]["dims"]
        moved = [axis for axis in node["perm"] if dims[axis] != 1]
        return moved == sorted(moved) or bool({node["input_id"], node["output_id"]} & at_ends)

    def weight(self, kind: str, node: Table) -> tuple[np.ndarray | None, QuantParams | None]:
        """In PyTorch's order, with its scales; None for kinds that aren't read (4-bit codes)."""
        value = self.values.get(node.get("filter_id", -1))
        known = {**_INTEGERS, **_FLOATS}
        if _ROLES.get(kind) not in ("conv", "linear") or value is None:
            return None, None
        if value["type"] not in known or not value["constant"]:
            return None, None
        weight = self.constant(value["constant"], known[value["type"]]).reshape(value["dims"])
        if kind == "XNNDepthwiseConv2d":  # (1, kH, kW, O)
            weight = weight.transpose(3, 0, 1, 2)
        elif kind == "XNNConv2d":  # (O, kH, kW, I)
            weight = weight.transpose(0, 3, 1, 2)
        return weight, self._weight_scales(value)

    def _weight_scales(self, value: Value) -> QuantParams | None:
        quant, dtype = value["quant"], _INTEGERS.get(value["type"])
        if dtype is None:
            return None
        if value["how"] == "PerTensorQuant":
            return QuantParams((_float(quant["scale"]),), (quant["zero_point"],), dtype)
        if value["how"] != "PerChannelQuant":
            return None
        scale = tuple(map(_float, quant.get("scale") or ()))
        if not scale:
            scale = tuple(self.constant(quant["scale_buffer_idx"], "float32").tolist())
        return QuantParams(scale, (0,) * len(scale), dtype, 0)

    def constant(self, number: int, dtype: str) -> np.ndarray:
        import numpy as np

        place = self.graph["constant_data"][number]
        key, size = place.get("named_key"), place["size"]
        if key and key not in self.named:
            raise BadInput(f"{self.where}: its weights are in another file (.ptd); export it with "
                           "its weights inside")  # fmt: skip
        start = 0 if key else place["offset"]
        data = (self.named[key] if key else self.stored)[start : start + size]
        return np.frombuffer(data, np.dtype(dtype).newbyteorder("<"))

    def _stored_bytes(self, number: int) -> int:
        value, data = self.values[number], self.graph["constant_data"]
        scales = (value["quant"] or {}).get("scale_buffer_idx", 0)
        return int(sum(data[i]["size"] for i in (value["constant"], scales) if i))

    def _shape(self, number: int) -> tuple[int, ...]:
        dims = self.values[number]["dims"]
        if len(dims) == 4 and number in self.channels_last:
            return tuple(dims[axis] for axis in TO_NCHW)
        return tuple(dims)

    def name(self, number: int) -> str:
        external = self.values[number]["external"]
        return self.names[external] if external < len(self.names) else f"{self.prefix}{number}"


def _decoded(blob: bytes) -> tuple[Table, bytes]:
    """The graph as the schema names it, and the constants behind it."""
    from executorch.backends.xnnpack.serialization import xnnpack_graph_serialize as own
    from executorch.exir._serialize._flatbuffer import _flatc_decompile

    header = own.XNNHeader.from_bytes(blob[: own.XNNHeader.EXPECTED_LENGTH])
    start, size = header.flatbuffer_offset, header.flatbuffer_size
    with scratch.folder("convert") as folder:
        schema_file, file = Path(folder, "schema.fbs"), Path(folder, "graph.bin")
        schema_file.write_text(_schema(), "utf-8")
        file.write_bytes(blob[start : start + size])
        _flatc_decompile(folder, str(schema_file), str(file))
        graph = json.loads(Path(folder, "graph.json").read_text("utf-8"))
    return graph, blob[header.constant_data_offset :]


def encoded(graph: Table) -> bytes:
    """A delegate of a graph that was decoded, without constants of its own."""
    from executorch.backends.xnnpack.serialization import xnnpack_graph_serialize as own
    from executorch.exir._serialize._flatbuffer import _flatc_compile

    with scratch.folder("convert") as folder:
        schema_file, file = Path(folder, "schema.fbs"), Path(folder, "graph.json")
        schema_file.write_text(_schema(), "utf-8")
        file.write_text(json.dumps(graph), "utf-8")
        _flatc_compile(folder, str(schema_file), str(file))
        body = Path(folder, "graph.bin").read_bytes()
    start, end = (-(-size // _ALIGNED) * _ALIGNED for size in
                  (own.XNNHeader.EXPECTED_LENGTH, len(body)))  # fmt: skip
    header = own.XNNHeader(start, len(body), start + end, 0).to_bytes()
    return header.ljust(start, b"\0") + body.ljust(end, b"\0")


def _schema() -> str:
    """Executorch's, with floats as the integers of the same bits: flatc prints six decimals."""
    from executorch.backends.xnnpack.serialization import xnnpack_graph_serialize as own

    return re.sub(r"\bfloat\b", "uint", own._get_schema_bytes().decode())


def _flat(value: Table) -> Value:
    """A tensor of either kind, with or without scales, under the same few names."""
    union = value["xvalue_union"]
    tensor = union.get("tensor_value", union)
    return {
        "id": tensor["id_out"], "external": tensor["external_id"], "dims": tensor["dims"],
        "type": tensor["datatype"].removeprefix("xnn_datatype_"),
        "constant": tensor["constant_buffer_idx"],
        "how": union.get("quant_params_type"), "quant": union.get("quant_params"),
    }  # fmt: skip


def _float(bits: int) -> float:
    value: float = struct.unpack("<f", struct.pack("<I", bits))[0]
    return value

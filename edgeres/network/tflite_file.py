"""A .tflite file as objects that can be changed: bytes in, `ModelT` out, and back.

`ModelT` is the schema's own object form (ai_edge_litert.schema_py_generated). The same objects
always give the same bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeres.errors import BadInput
from edgeres.types import QuantParams

if TYPE_CHECKING:
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

TYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16",
          9: "int8", 10: "float64", 17: "int4", 18: "bfloat16", 19: "int2", 20: "uint4",
          21: "float8_e4m3fn", 22: "float8_e5m2"}  # fmt: skip
_MARK = b"TFL3"
_ALIGNMENT = 16  # `force_align` of a buffer's data in the schema; kernels may rely on it


@dataclass(frozen=True)
class Stored:
    """A tensor.

    Attributes:
        buffer: where its numbers are stored.
        data: None if it is computed, or stored in a form that isn't read here.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    buffer: int
    constant: bool
    data: np.ndarray | None
    quantization: QuantParams | None


def load(data: bytes, path: Path) -> schema.ModelT:
    """Unpack a file (`path` is for messages).

    Raises:
        BadInput: not a TFLite file, or a damaged one.
    """
    if data[4:8] != _MARK:
        raise BadInput(f"{path}: not a TFLite file (no TFL3 mark); export it again")
    try:
        return unpack(data)
    except Exception as error:  # the flatbuffer reader fails in many ways on damaged bytes
        raise damaged(path, error) from error


def unpack(data: bytes) -> schema.ModelT:
    """Unpack what a converter just wrote."""
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    for buffer in model.buffers or ():
        if buffer.offset > 1:  # files over 2 GB keep their constants behind the flatbuffer
            buffer.data = np.frombuffer(data[buffer.offset : buffer.offset + buffer.size], np.uint8)
            buffer.offset = buffer.size = 0
    return model


def damaged(path: Path, error: Exception) -> BadInput:
    """The sentence about a file whose parts contradict each other."""
    return BadInput(f"{path}: a damaged TFLite file ({type(error).__name__}); export it again")


def pack(model: schema.ModelT) -> bytes:
    """The file's bytes."""
    import flatbuffers  # type: ignore[import-untyped]

    class Builder(flatbuffers.Builder):
        def StartVector(self, size: int, count: int, alignment: int) -> int:
            # Only a buffer's data is made of bytes, and Python's builder forgets its alignment.
            return super().StartVector(size, count, _ALIGNMENT if size == 1 else alignment)

    builder = Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=_MARK)
    return bytes(builder.Output())


def kind(model: schema.ModelT, op: schema.OperatorT) -> str:
    """An operation's name: `CONV_2D`, a custom operator's own name, `BUILTIN_999` if unknown."""
    return code_kind(model.operatorCodes[op.opcodeIndex])


def code_kind(code: schema.OperatorCodeT) -> str:
    """The operator that an entry of `operatorCodes` stands for."""
    names = _names()
    # Files from before TensorFlow 2.4 have only the older, one-byte field.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    if names.get(number) == "CUSTOM" and code.customCode:
        return clean(code.customCode)
    return names.get(number, f"BUILTIN_{number}")


def clean(text: bytes | str | None) -> str:
    """A name in a file as it can be printed: names may be any bytes, or missing."""
    if text is None:
        return ""
    decoded = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in decoded)


def tensor_name(index: int, tensor: schema.TensorT, subgraph: int = 0) -> str:
    """A unique, short name: converters repeat names, and end them in the module that matters."""
    prefix = f"s{subgraph}." if subgraph else ""
    return f"{prefix}{index}:{clean(tensor.name).rsplit('.', 1)[-1]}"


def stored(model: schema.ModelT, index: int, tensor: schema.TensorT, subgraph: int = 0) -> Stored:
    """A tensor by itself.

    Raises:
        ValueError: it holds more or fewer numbers than its shape says.
    """
    dtype = TYPES.get(tensor.type, f"type{tensor.type}")
    shape = tuple(int(v) for v in tensor.shape) if tensor.shape is not None else ()
    raw = constant(model, tensor)
    readable = raw if tensor.sparsity is None else None
    data = _numbers(readable, dtype, shape) if readable is not None else None
    name = tensor_name(index, tensor, subgraph)
    return Stored(
        name, dtype, shape, tensor.buffer, raw is not None, data, _quantization(tensor, dtype)
    )


def _numbers(raw: np.ndarray, dtype: str, shape: tuple[int, ...]) -> np.ndarray | None:
    import numpy as np

    if dtype == "int4":  # two in a byte, the lower half first
        low, high = (raw << 4).view(np.int8) >> 4, raw.view(np.int8) >> 4
        values = np.stack([low, high], -1).reshape(-1)[: math.prod(shape)]
    elif dtype in np.sctypeDict:
        values = np.frombuffer(raw.tobytes(), dtype)
    else:
        return None
    return values.reshape(shape)


def _quantization(tensor: schema.TensorT, dtype: str) -> QuantParams | None:
    q = tensor.quantization
    if q is None or q.scale is None or not len(q.scale):
        return None
    zeros = (0,) * len(q.scale) if q.zeroPoint is None else tuple(int(z) for z in q.zeroPoint)
    axis = int(q.quantizedDimension) if len(q.scale) > 1 else None
    return QuantParams(tuple(float(s) for s in q.scale), zeros, dtype, axis)


def constant(model: schema.ModelT, tensor: schema.TensorT) -> np.ndarray | None:
    """The bytes stored for a tensor (uint8 array), None if it is computed."""
    data = model.buffers[tensor.buffer].data
    return data if data is not None and len(data) else None


def add_buffer(model: schema.ModelT, data: bytes) -> int:
    """Store bytes; returns the buffer's index."""
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(data, np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def _names() -> dict[int, str]:
    from ai_edge_litert import schema_py_generated as schema

    return {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}

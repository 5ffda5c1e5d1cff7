"""Constants of a Core ML program: values in the program itself, blobs in the weight file beside it.

The weight file is a header, then blobs one after another: each a record of 64 bytes (what it is,
where it starts) and the values, from the next multiple of 64.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from coremltools.proto import MIL_pb2

FILE = "@model_path/weights/weight.bin"
# MIL's number for a type -> numpy's name
DTYPES = {2: "str", 1: "bool", 10: "float16", 11: "float32", 21: "int8", 22: "int16", 23: "int32",
          31: "uint8", 32: "uint16", 33: "uint32"}  # fmt: skip
_BLOB_DTYPES = {1: "float16", 2: "float32", 3: "uint8", 4: "int8"}
_FIELDS = {"str": "strings", "bool": "bools", "float32": "floats", "int32": "ints"}
_ALIGNED, _SENTINEL = 64, 0xDEADBEEF


class Blobs:
    """One weight file, and what of it was read."""

    def __init__(self, data: bytes):
        self.data = data
        self.read: dict[int, int] = {}  # where a blob's record starts -> where its values end

    def get(self, offset: int, dtype: str, count: int) -> np.ndarray:
        """The values of a blob, flat.

        Raises:
            ValueError: there is no such blob.
        """
        import numpy as np

        sentinel, kind, size, start, *rest = struct.unpack_from("<IIQQQQQQQ", self.data, offset)
        right = (sentinel, start, _BLOB_DTYPES.get(kind)) == (_SENTINEL, offset + _ALIGNED, dtype)
        if not right or any(rest) or size != count * np.dtype(dtype).itemsize:
            raise ValueError(f"no {dtype} weights of {count} values at {offset}")
        self.read[offset] = start + size
        return np.frombuffer(self.data, dtype, count, start)

    def left_over(self) -> Iterator[str]:
        """What of the file no blob accounts for."""
        count, version, *zeros = struct.unpack_from("<II14I", self.data)
        if (count, version) != (len(self.read), 2) or any(zeros):
            yield f"the weights' file says it has {count} blobs, {len(self.read)} are used"
        end = _ALIGNED
        for start in sorted(self.read):
            if start < end or any(self.data[end:start]) or start - end >= _ALIGNED:
                yield f"the weights' file has something else at {end}"
            end = self.read[start]
        if any(self.data[end:]) or len(self.data) - end >= _ALIGNED:
            yield f"the weights' file has something else at {end}"


def value(stored: MIL_pb2.Value, blobs: Blobs | None = None) -> Any:
    """A MIL `Value` as an array, or a text.

    Raises:
        ValueError: no tensor of known sizes, or not as many values as it has.
    """
    import numpy as np

    kind = stored.type.tensorType
    sizes = tuple(d.constant.size for d in kind.dimensions)
    dtype, count = DTYPES[kind.dataType], math.prod(sizes)
    # Whatever else a message says, this is not its whole size.
    plain = type(stored)()
    plain.type.tensorType.dataType, plain.type.tensorType.rank = kind.dataType, len(sizes)
    for size in sizes:
        plain.type.tensorType.dimensions.add().constant.size = size
    if stored.type != plain.type or stored.docString:
        raise ValueError("a constant with more than a type and its values")
    if stored.WhichOneof("value") == "blobFileValue":
        place = stored.blobFileValue
        if place.fileName != FILE or blobs is None:
            raise ValueError("weights in another file")
        return blobs.get(place.offset, dtype, count).reshape(sizes)
    tensor = stored.immediateValue.tensor
    field = tensor.WhichOneof("value")
    if field != _FIELDS.get(dtype, "bytes"):
        raise ValueError(f"{dtype} values stored as {field}")
    values = getattr(tensor, field).values
    if dtype == "str":
        (text,) = values
        return text
    found = np.frombuffer(values, dtype) if field == "bytes" else np.array(values, dtype)
    return found.reshape(sizes)

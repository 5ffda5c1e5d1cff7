"""One batch of CIFAR's official Python version: the bytes of a pickle in, its arrays out.

A pickle names functions to call. Here every name leads to one of three inert stand-ins that only
keep what they are given, so nothing of the file is ever executed, not even numpy's unpickling.
"""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING, Any

from edgeres.errors import BadInput

if TYPE_CHECKING:
    import numpy as np


class _Array:
    """Stands for numpy.ndarray: keeps (version, shape, dtype, fortran order, bytes)."""

    def __init__(self, *_: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def bytes_array(self) -> np.ndarray:
        """The array, if it is one of unsigned bytes; ValueError, TypeError if it isn't."""
        import numpy as np

        _, shape, dtype, fortran, contents = self.state
        if not isinstance(dtype, _Dtype) or dtype.code not in ("u1", b"u1"):
            raise ValueError("an array is not of unsigned bytes")
        return np.frombuffer(contents, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Dtype:
    """Stands for numpy.dtype: keeps the type code."""

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Byte order and alignment don't matter for bytes."""


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Stands for _codecs.encode, by which Python 3 writes bytes in pickles for Python 2."""
    if encoding != "latin1":
        raise ValueError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _STAND_INS:
            wanted = f"{module}.{name}"[:80]
            raise pickle.UnpicklingError(f"it asks for {wanted!r}, which no such file needs")
        return _STAND_INS[module, name]


def read(where: str, contents: bytes, field: str = "labels") -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (N, 3072) and labels int64 (N,) of one batch.

    Args:
        field: its labels.

    Raises:
        BadInput: not such a batch; `where` names it in the message.
    """
    import numpy as np

    try:
        # Python 2 wrote the official files: their str are bytes, also as keys.
        batch = _Unpickler(io.BytesIO(contents), encoding="bytes").load()
        fields = {k.decode() if isinstance(k, bytes) else k: v for k, v in batch.items()}
        images, labels = fields["data"], fields[field]
        if not isinstance(images, _Array) or not isinstance(labels, list):
            raise ValueError("data is no array or labels no list")
        if not all(type(label) is int for label in labels):
            raise ValueError("a label is no integer")
        return images.bytes_array(), np.array(labels, np.int64)
    except Exception as error:  # a hostile pickle can raise anything
        reason = f"{type(error).__name__}: {error}"
        raise BadInput(f"{where}: refused as a batch of CIFAR ({reason})") from error

"""Weights of 4 bits (scheme w4a8): which of a file's weights they are, two codes in a byte.

A converter writes all codes in 8 bits. A weight's scales say which layer's it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgeres.types import ScaleTable

if TYPE_CHECKING:
    import numpy as np


class FourBits:
    """Knows the weights of 4 bits by their scales."""

    def __init__(self, scales: ScaleTable):
        self.known = {_key(params.scale) for params in scales.values() if params.dtype == "int4"}

    def has(self, scale: Iterable[float]) -> bool:
        """Whether these are the scales of such a weight, one per output channel."""
        return _key(scale) in self.known


def packed(codes: np.ndarray) -> bytes:
    """Codes from -8 to 7, two in a byte, the first in its lower half (ONNX and TFLite)."""
    import numpy as np

    flat = codes.reshape(-1).astype(np.uint8) & 15
    flat = np.append(flat, np.zeros(flat.size % 2, np.uint8))
    return bytes(flat[::2] | flat[1::2] << 4)


def _key(scale: Iterable[float]) -> bytes:
    import numpy as np

    return np.asarray(list(scale), np.float32).tobytes()

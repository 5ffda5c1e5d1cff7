"""Scale tables for runtimes that need other codes: the trained ranges, written differently.

Weights' codes stay as they are. A table that already fits comes back unchanged.
"""

from __future__ import annotations

import dataclasses
import struct

from edgeres.types import QuantParams, ScaleTable


def as_trained(table: ScaleTable) -> ScaleTable:
    """The trained table itself."""
    return table


def symmetric(table: ScaleTable) -> ScaleTable:
    """Zero point 0 everywhere (TensorRT): a range [low, high] becomes max(|low|, |high|) / 127."""
    return {name: params if params.zero_point[0] == 0 else _widened(params, "int8", 127)
            for name, params in table.items()}  # fmt: skip


def halves(table: ScaleTable) -> ScaleTable:
    """Scales that are float16 numbers (Core ML): those of w8a8-portable go to the nearest one."""
    return {name: dataclasses.replace(params, scale=tuple(map(_float16, params.scale)))
            for name, params in table.items()}  # fmt: skip


def sixteen_bit(table: ScaleTable) -> ScaleTable:
    """int16 activations with zero point 0, int8 weights: 256 times finer over the same range.

    A sigmoid's 1/256 becomes 1/32768, the only int16 scale that TFLite computes one into.
    """
    return {name: params if name.endswith(".weight") or params.dtype == "int16"
            else _finer(params)
            for name, params in table.items()}  # fmt: skip


def _finer(params: QuantParams) -> QuantParams:
    if (params.scale, params.zero_point) == ((2.0**-8,), (-128,)):
        return QuantParams((2.0**-15,), (0,), "int16")
    return _widened(params, "int16", 32767)


def _widened(params: QuantParams, dtype: str, largest: int) -> QuantParams:
    (scale,), (zero,) = params.scale, params.zero_point
    bound = max(abs(-128 - zero), abs(127 - zero)) * scale
    return QuantParams((_float32(bound / largest),), (0,), dtype)


def _float16(value: float) -> float:
    return struct.unpack("e", struct.pack("e", value))[0]


def _float32(value: float) -> float:
    """What every file stores."""
    return struct.unpack("f", struct.pack("f", value))[0]

"""How integer kernels round, kind by kind: whole sums in, codes out.

Each kind multiplies a sum by a real number, `input scale * weight scale / output scale`, in its own
way. Tests ask the real kernels about every sum of one-operator files.

Sources: TensorFlow Lite's kernels/internal/common.h and quantization_util.cc (fixed point; the
double rounding is gemmlowp's), its reference/add.h; CMSIS-NN's arm_nnsupportfunctions.h; XNNPACK's
src/microparams-init.c; onnxruntime's mlas/lib/quantize.cpp and qladd.cpp; TOSA 1.0, RESCALE.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

ONNXRUNTIME = "onnxruntime (on CPUs with VNNI)"
"""On x86 without it (AVX2 of before 2019), its kernels cut sums of two products to 16 bits."""
_NUDGE = 1 << 30
_FLOAT_ERROR = 4 * 2.0**-24  # relative: a product, a sum, a division, a zero point


@dataclass(frozen=True)
class Scales:
    """Scales of one channel of a layer, as a file stores them (float32 numbers)."""

    read: float
    weight: float
    written: float


@dataclass(frozen=True)
class Kernel:
    """One kind.

    Attributes:
        name: for people.
        runtimes: which have it.
        rounded: (sums int64, scales) -> codes less their zero point, not yet cut off; int64.
    """

    name: str
    runtimes: tuple[str, ...]
    rounded: Callable[[np.ndarray, Scales], np.ndarray]


def _float32(sums: np.ndarray, s: Scales) -> np.ndarray:
    read, weight, written = map(np.float32, (s.read, s.weight, s.written))
    values = sums.astype(np.float32) * (read * weight / written)
    return np.rint(np.clip(values, -512, 512)).astype(np.int64)


def fixed_point(value: float) -> tuple[int, int]:
    """A real multiplier as (31 bits, power of two), as TFLite's QuantizeMultiplier makes it."""
    mantissa, power = np.frexp(value)
    bits = round(float(mantissa) * (1 << 31))
    return (bits // 2, int(power) + 1) if bits == 1 << 31 else (bits, int(power))


def _doubled_high(sums: np.ndarray, bits: int) -> np.ndarray:
    """The high half of twice the product, halves up.

    So CMSIS-NN has it; gemmlowp's nudge, which is another for negative products, and its division,
    which cuts towards zero, come to the same.
    """
    return (sums * bits + _NUDGE) >> 31


def _shifted(values: np.ndarray, right: int, *, away: bool) -> np.ndarray:
    """Divided by a power of two; halves away from zero, or up (ruy)."""
    if right == 0:
        return values
    if not away:
        return (values + (1 << (right - 1))) >> right
    mask = (1 << right) - 1
    return (values >> right) + ((values & mask) > (mask >> 1) + (values < 0))


def _twice(value: float, sums: np.ndarray, *, away: bool = True) -> np.ndarray:
    bits, power = fixed_point(value)
    return _shifted(_doubled_high(sums << max(power, 0), bits), max(-power, 0), away=away)


def _once(value: float, sums: np.ndarray) -> np.ndarray:
    bits, power = fixed_point(value)
    return (sums * bits + (1 << (30 - power))) >> (31 - power)


def _product(s: Scales) -> float:
    """In float64, as the fixed-point kernels' preparations have it."""
    read, weight, written = (float(np.float32(v)) for v in (s.read, s.weight, s.written))
    return read * weight / written


KERNELS = (
    Kernel("float32", ("LiteRT (XNNPACK)", ONNXRUNTIME, "ExecuTorch (XNNPACK)"), _float32),
    Kernel("fixed point, rounded twice", ("LiteRT's reference", "TFLite Micro", "CMSIS-NN"),
           lambda sums, s: _twice(_product(s), sums)),
    Kernel("fixed point, rounded twice, halves up", ("LiteRT's own kernels",),
           lambda sums, s: _twice(_product(s), sums, away=False)),
    Kernel("fixed point, rounded once", ("TOSA's RESCALE",),
           lambda sums, s: _once(_product(s), sums)),
)  # fmt: skip


@dataclass(frozen=True)
class AddScales:
    """Of a residual add: both inputs and the output, and the output's zero point."""

    first: float
    second: float
    written: float
    zero: int


def _add_xnnpack(a: np.ndarray, b: np.ndarray, s: AddScales) -> np.ndarray:
    first, second = (np.float32(v) / np.float32(s.written) for v in (s.first, s.second))
    shift = 21 - int(np.frexp(max(first, second))[1])
    multipliers = [int(np.rint(np.ldexp(v, shift))) for v in (first, second)]
    return (a * multipliers[0] + b * multipliers[1] + (1 << (shift - 1))) >> shift


def _add_fixed(a: np.ndarray, b: np.ndarray, s: AddScales) -> np.ndarray:
    first, second, written = (float(np.float32(v)) for v in (s.first, s.second, s.written))
    widest = 2 * max(first, second)
    both = sum(_twice(scale / widest, codes << 20)
               for scale, codes in ((first, a), (second, b)))  # fmt: skip
    return _twice(widest / ((1 << 20) * written), np.asarray(both))


def _add_float(a: np.ndarray, b: np.ndarray, s: AddScales, *, side: int) -> np.ndarray:
    """The least (-1) or the largest (1) code that float32 gives, in whatever order it computes."""
    first, second = (
        float(np.float32(v)) / float(np.float32(s.written)) for v in (s.first, s.second)
    )
    parts = a * first, b * second
    most = np.abs(parts[0]) + np.abs(parts[1]) + abs(s.zero) + 128
    return np.rint(parts[0] + parts[1] + side * _FLOAT_ERROR * most).astype(np.int64)


@dataclass(frozen=True)
class AddKernel:
    """One kind of residual add: (codes less zero points, both int64; scales) -> as `Kernel`."""

    name: str
    runtimes: tuple[str, ...]
    rounded: Callable[[np.ndarray, np.ndarray, AddScales], np.ndarray]


ADDS = (
    AddKernel("20 bits, halves up", ("LiteRT (XNNPACK)", "ExecuTorch (XNNPACK)"), _add_xnnpack),
    AddKernel("float32, at its least", (ONNXRUNTIME,),
              lambda a, b, s: _add_float(a, b, s, side=-1)),
    AddKernel("float32, at its most", (ONNXRUNTIME,),
              lambda a, b, s: _add_float(a, b, s, side=1)),
    AddKernel("fixed point, rounded twice",
              ("LiteRT's own kernels", "LiteRT's reference", "TFLite Micro", "CMSIS-NN"),
              _add_fixed),
)  # fmt: skip

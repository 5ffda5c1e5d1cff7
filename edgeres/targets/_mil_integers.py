"""Integer kernels of a Core ML program, in torch: exact sums of codes, multiplied once at the end.

Between dequantize and quantize a value is kept as whole numbers and the unit that they count: a
tensor's scale, or behind a convolution or linear layer input scale * weight scale, per channel.
Sums of products of codes are exact in float32 below 2**24, in whatever order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from edgeres.targets import _mil_kernels as real

if TYPE_CHECKING:
    from torch import Tensor

    from edgeres.targets._mil_kernels import Arguments

    Kernel = Callable[[Arguments], Tensor]

_PASSED_ON = ("relu", "reshape", "squeeze", "max_pool", "reduce_mean")


def counted(
    kind: str, arguments: Arguments, units: Mapping[str, Tensor]
) -> tuple[Kernel, Tensor] | None:
    """The kernel of an operation that gives whole numbers, and their unit; None if it can't.

    Args:
        kind: the operation's type.
        arguments: its constants.
        units: its other arguments -> what they are counted in, where they are; each has one value,
            or one for each channel in the shape that meets the tensor.
    """
    if kind in ("dequantize", "constexpr_affine_dequantize"):
        return _stored(arguments)
    x = units.get("x")
    if x is None:
        return None
    if kind == "relu" or (kind in _PASSED_ON and x.numel() == 1):
        return real.KERNELS[kind], x
    if kind in ("conv", "linear") and x.numel() == 1 and "weight" in units:
        channels = (-1, 1, 1) if kind == "conv" else (-1,)
        return _sums(real.KERNELS[kind]), x * units["weight"].reshape(channels)
    return None


def quantize(a: Arguments) -> Tensor:
    """clip(round(input * (unit / scale)) + zero point), halves to even."""
    x = a["input"]
    return real.coded(x * (a["_unit"] / real.along_axis(a, "scale", x.ndim)), a)


def _stored(arguments: Arguments) -> tuple[Kernel, Tensor] | None:
    """Codes less their zero point; each channel's own scale is known for weights only."""
    import torch

    scale = torch.as_tensor(arguments["scale"], dtype=torch.float32)
    weight = arguments.get("quantized_data")
    if weight is None:
        return (_steps, scale) if scale.numel() == 1 else None
    if scale.numel() > 1 and arguments["axis"] != 0:
        return None
    return _weight_steps, scale.reshape(-1, *[1] * (weight.ndim - 1))


def _steps(a: Arguments) -> Tensor:
    return real.dequantize({**a, "scale": 1.0})


def _weight_steps(a: Arguments) -> Tensor:
    return _steps({**a, "input": a["quantized_data"]})


def _sums(kernel: Kernel) -> Kernel:
    def sums(a: Arguments) -> Tensor:
        bias = a.get("bias")
        return kernel({**a, "bias": None if bias is None else bias / a["_unit"].flatten()})

    return sums

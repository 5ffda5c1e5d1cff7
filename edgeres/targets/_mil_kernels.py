"""What each operation of Core ML's program language computes, in torch.

A kernel takes an operation's arguments by name (`_shape` is its declared output shape) and gives
its result, any batch size. Float values are float32 tensors; integer codes keep their type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    # An operation's arguments by name: tensors, lists of them, and plain constants.
    Arguments = Mapping[str, Any]


def quantize(a: Arguments) -> Tensor:
    """clip(round(input / scale) + zero point), halves to even, in float32."""
    x = a["input"]
    return coded(x / along_axis(a, "scale", x.ndim), a)


def coded(steps: Tensor, a: Arguments) -> Tensor:
    """The codes of a tensor that counts in steps of its scale already; overwrites it."""
    import torch

    zero = along_axis(a, "zero_point", steps.ndim)
    kind = getattr(torch, a["output_dtype"])
    limits = torch.iinfo(kind)
    codes = steps.round_()
    codes = codes.add_(zero) if zero is not None else codes
    return codes.clamp_(limits.min, limits.max).to(kind)


def dequantize(a: Arguments) -> Tensor:
    """scale * (input - zero point)."""
    x = a["input"]
    scale, zero = (along_axis(a, n, x.ndim) for n in ("scale", "zero_point"))
    steps = x.float()
    return (steps.sub_(zero) if zero is not None else steps).mul_(scale)


def affine_weight(a: Arguments) -> Tensor:
    """A stored weight from its codes: scale * (code - zero point)."""
    return dequantize({**a, "input": a["quantized_data"]})


def table_weight(a: Arguments) -> Tensor:
    """A stored weight from its table: indices of log2(len(table)) bits, packed low bit first."""
    import numpy as np
    import torch

    count, bits = math.prod(a["shape"]), int(math.log2(len(a["lut"])))
    packed = np.unpackbits(a["indices"].numpy(), bitorder="little")[: count * bits]
    indices = packed.reshape(count, bits) @ (1 << np.arange(bits))
    return a["lut"][torch.from_numpy(indices)].reshape(tuple(a["shape"]))


def conv(a: Arguments) -> Tensor:
    """Convolution over two spatial axes, with groups."""
    import torch.nn.functional as F

    x, weight = a["x"], a["weight"]
    effective = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], a["dilations"], strict=True)]
    x, padding = _padded(x, _paddings(a, x.shape[2:], effective), 0.0, effective)
    return F.conv2d(x, weight, a.get("bias"), a["strides"], padding, a["dilations"], a["groups"])


def max_pool(a: Arguments) -> Tensor:
    """Largest value of each window."""
    import torch.nn.functional as F

    _refuse_ceil(a)
    pads = _paddings(a, a["x"].shape[2:], a["kernel_sizes"])
    x, padding = _padded(a["x"], pads, -math.inf, a["kernel_sizes"])
    return F.max_pool2d(x, a["kernel_sizes"], a["strides"], padding)


def avg_pool(a: Arguments) -> Tensor:
    """Mean of each window; padding counts as zeros unless it is excluded from the average."""
    import torch
    import torch.nn.functional as F

    _refuse_ceil(a)
    pads = _torch_order(_paddings(a, a["x"].shape[2:], a["kernel_sizes"]))
    mean = F.avg_pool2d(F.pad(a["x"], pads), a["kernel_sizes"], a["strides"])
    if not a["exclude_padding_from_average"]:
        return mean
    inside = F.pad(torch.ones_like(a["x"][:1, :1]), pads)
    return mean / F.avg_pool2d(inside, a["kernel_sizes"], a["strides"])


def reduce_mean(a: Arguments) -> Tensor:
    """Mean over axes."""
    return a["x"].mean(a["axes"], keepdim=a["keep_dims"])


def linear(a: Arguments) -> Tensor:
    """x W^T + bias."""
    import torch.nn.functional as F

    return F.linear(a["x"], a["weight"], a.get("bias"))


def matmul(a: Arguments) -> Tensor:
    """x y, each transposed (last two axes) if asked."""
    x, y = a["x"], a["y"]
    return (x.mT if a["transpose_x"] else x) @ (y.mT if a["transpose_y"] else y)


def pad(a: Arguments) -> Tensor:
    """Pad the last axes: (before, after) for each."""
    import torch.nn.functional as F

    pads = list(zip(a["pad"][::2], a["pad"][1::2], strict=True))
    while pads and pads[0] == (0, 0):  # torch reflects only over the last axes
        pads = pads[1:]
    value = a["constant_val"] if a["mode"] == "constant" else None
    return F.pad(a["x"], _torch_order(pads), a["mode"], value)


def reshape(a: Arguments) -> Tensor:
    """The declared shape, with as many images as came in."""
    return a["x"].reshape(-1, *a["_shape"][1:])


def concat(a: Arguments) -> Tensor:
    """One tensor behind the other."""
    import torch

    if a.get("interleave"):
        raise ValueError("concat with interleave")
    return torch.cat(a["values"], a["axis"])


def cast(a: Arguments) -> Tensor:
    """Another type; float to integer cuts the fraction off. Rounding to float16 comes after."""
    import torch

    kind = a["dtype"]
    return a["x"].to(torch.float32 if kind in ("fp16", "fp32") else getattr(torch, kind))


def along_axis(a: Arguments, name: str, rank: int) -> Tensor | float | None:
    """A scale or zero point, shaped to meet its axis; None if there is none."""
    value = a.get(name)
    if value is None or isinstance(value, (int, float)):
        return value
    shape = [1] * rank
    shape[a["axis"]] = -1
    return value.float().reshape(shape) if value.ndim else value.float()


def _paddings(a: Arguments, sizes: Sequence[int], kernel: Sequence[int]) -> list[tuple[int, int]]:
    """(before, after) of each spatial axis."""
    kind = a["pad_type"]
    if kind == "valid":
        return [(0, 0)] * len(kernel)
    if kind == "custom":
        return list(zip(a["pad"][::2], a["pad"][1::2], strict=True))
    pads = []
    for size, k, stride in zip(sizes, kernel, a["strides"], strict=True):
        total = max(0, stride * math.ceil(size / stride) - size + k - stride)
        small, large = total // 2, total - total // 2
        pads.append((small, large) if kind == "same" else (large, small))
    return pads


def _padded(
    x: Tensor, pads: list[tuple[int, int]], value: float, kernel: list[int]
) -> tuple[Tensor, tuple[int, ...]]:
    """Leave padding that torch's own kernels do to them; do the rest here."""
    import torch.nn.functional as F

    if all(b == a and 2 * b <= k for (b, a), k in zip(pads, kernel, strict=True)):
        return x, tuple(before for before, _ in pads)
    return F.pad(x, _torch_order(pads), value=value), (0,) * len(pads)


def _torch_order(pads: list[tuple[int, int]]) -> list[int]:
    """torch lists the last axis first."""
    return [value for pair in reversed(pads) for value in pair]


def _refuse_ceil(a: Arguments) -> None:
    if a.get("ceil_mode"):
        raise ValueError("pooling with ceil_mode")


KERNELS: Mapping[str, Callable[[Arguments], Tensor]] = {
    "quantize": quantize,
    "dequantize": dequantize,
    "constexpr_affine_dequantize": affine_weight,
    "constexpr_lut_to_dense": table_weight,
    "conv": conv,
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "reduce_mean": reduce_mean,
    "linear": linear,
    "matmul": matmul,
    "pad": pad,
    "reshape": reshape,
    "concat": concat,
    "cast": cast,
    "relu": lambda a: a["x"].relu(),
    "relu6": lambda a: a["x"].clamp(0, 6),
    "clip": lambda a: a["x"].clamp(a["alpha"], a["beta"]),
    "sigmoid": lambda a: a["x"].sigmoid(),
    "silu": lambda a: a["x"] * a["x"].sigmoid(),
    "add": lambda a: a["x"] + a["y"],
    "sub": lambda a: a["x"] - a["y"],
    "mul": lambda a: a["x"] * a["y"],
    "identity": lambda a: a["x"],
    "squeeze": lambda a: a["x"].squeeze(tuple(a["axes"])) if "axes" in a else a["x"].squeeze(),
    "expand_dims": lambda a: _expanded(a["x"], a["axes"]),
    "transpose": lambda a: a["x"].permute(a["perm"]),
}


def _expanded(x: Tensor, axes: list[int]) -> Tensor:
    for axis in sorted(a % (x.ndim + len(axes)) for a in axes):
        x = x.unsqueeze(axis)
    return x

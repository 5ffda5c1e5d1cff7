"""Fake quantization whose scales are tensors on the device: nothing waits to read a number.

The same functions as `fake_quant`'s, which has numbers and in-place operations for a CPU. A grid is
a float32 tensor (3,): scale, and the lowest and highest step (codes less the zero point).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from edgeres.compression import portable, ties
from edgeres.compression.graph import storable

_DIGITS = 11  # of a float16 number


def activation_grid(bounds: Tensor, scheme: str) -> tuple[Tensor, Tensor]:
    """Scale and zero point of `fake_quant.activation_params`, from bounds (2,)."""
    # An Apple GPU has no float64: there a scale may be a step of float16 off.
    exact = bounds.float() if bounds.device.type == "mps" else bounds.double()
    low, high = exact[0].clamp_max(0), exact[1].clamp_min(0)
    if scheme in ("w8a8", portable.SCHEME):
        scale = storable(((high - low) / 255).float())
        return scale, (-128 - low / scale).round().clamp(-128, 127).float()
    size = torch.maximum(-low, high)
    if scheme == "w8a8-symmetric":
        return storable((size / 127).float()), torch.zeros_like(bounds[0])
    return (size.clamp_min(2.0**-20) / 32767).float(), torch.zeros_like(bounds[0])


def untied(scale: Tensor, step: float, most: float, primes: Tensor) -> Tensor:
    """`ties.untied` of a scale (); `primes`: those of `ties` for a product, else empty."""
    multiple = (scale / step).ceil().long() | 1
    found = torch.where(_fits(multiple, scale, step, most), multiple * step, scale)
    if primes.numel():
        place = multiple.clamp_max(2**_DIGITS).reshape(1)
        prime = primes.index_select(0, place).reshape(multiple.shape)
        found = torch.where(_fits(prime, scale, step, ties.GROWTH), prime * step, found)
    return found


def _fits(multiple: Tensor, scale: Tensor, step: float, most: float) -> Tensor:
    return (multiple < 2**_DIGITS) & (multiple * step <= scale * (1 + most))


def rounded(x: Tensor, grid: Tensor) -> Tensor:
    """x -> the nearest of the grid's points; gradients pass between the two ends."""
    return _Rounded.apply(x, grid)  # type: ignore[no-any-return, no-untyped-call]


def learned(x: Tensor, step: Tensor, grid: Tensor) -> Tensor:
    """The same, with the gradient of the step size, of which the grid's scale was made."""
    return _Learned.apply(x, step, grid)  # type: ignore[no-any-return, no-untyped-call]


def _on_grid(x: Tensor, grid: Tensor) -> Tensor:
    scale, low, high = grid.unbind()
    return x.mul(1 / scale).round_().clamp_(low, high).mul_(scale)


if TYPE_CHECKING:

    class _Context(torch.autograd.function.FunctionCtx):
        saved_tensors: tuple[Tensor, ...]


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, x: Tensor, grid: Tensor) -> Tensor:
        y = _on_grid(x, grid)
        ctx.save_for_backward(y, grid.clone())
        return y

    @staticmethod
    def backward(ctx: _Context, *grads: Tensor) -> tuple[Tensor | None, ...]:
        y, (scale, low, high) = ctx.saved_tensors[0], ctx.saved_tensors[1].unbind()
        inside = (y > low * scale) & (y < high * scale)
        return torch.where(inside, grads[0], 0.0), None


class _Learned(torch.autograd.Function):
    """Esser et al. 2020, equations 3 and 4."""

    @staticmethod
    def forward(ctx: _Context, x: Tensor, _step: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(x, grid.clone())
        return _on_grid(x, grid)

    @staticmethod
    def backward(ctx: _Context, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x, grid), (grad,) = ctx.saved_tensors, grads
        scale, low, high = grid.unbind()
        codes = x / scale
        inside = (codes > low) & (codes < high)
        slope = torch.maximum(torch.minimum(codes.round(), high), low) - codes * inside
        of_step = (grad * slope).sum() / (x.numel() * torch.maximum(high, -low)).sqrt()
        first = torch.where(low == 0, 0.0, (low - 0.5) * scale)
        passed = torch.where((x > first) & (x < (high + 0.5) * scale), grad, 0.0)
        return passed, of_step.reshape(1), None

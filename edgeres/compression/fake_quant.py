"""Fake quantization that costs little: what training sees of int8 arithmetic.

A tensor flows in and comes out on its integer grid; gradients pass straight through inside the
range (Bengio et al. 2013). PyTorch's own fake-quantize kernels aren't vectorized on a CPU and cost
as much as a convolution; four plain in-place operations take a thirtieth of that.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from edgeres.compression import device_quant, portable, ties
from edgeres.compression.graph import WEIGHT_RANGES, storable, weight_scale
from edgeres.compression.ties import growth, untied
from edgeres.types import QuantParams

_MEMORY = 0.01  # share of a new batch in the running range, as in Jacob et al. 2018
_OBSERVED = 4  # every so many steps a range looks at its tensor
_LIMITS = {"int8": (-128, 127), "int16": (-32768, 32767)}


@functools.lru_cache(maxsize=4096)
def activation_params(low: float, high: float, scheme: str = "w8a8") -> QuantParams:
    """Scale and zero point of a tensor with values from `low` to `high`; zero gets a code.

    `w8a8`, `w8a8-portable`: 255 steps between the two, any zero point (Jacob et al. 2018, section
    3).
    `w8a8-symmetric`: 127 steps up to the larger of the two sizes, zero point 0; `w8a16`: 32767.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if scheme in ("w8a8", portable.SCHEME):
        scale = storable(torch.tensor((high - low) / 255)).item()
        return QuantParams((scale,), (max(-128, min(127, round(-128 - low / scale))),), "int8")
    if scheme == "w8a8-symmetric":
        return QuantParams((storable(torch.tensor(max(-low, high) / 127)).item(),), (0,), "int8")
    scale = torch.tensor(max(-low, high, 2.0**-20) / 32767).item()
    return QuantParams((scale,), (0,), "int16")


class Range(nn.Module):
    """Fake quantization of one activation, with the ReLU before it if there is one.

    Attributes:
        tensor: its key in the scale table.
        bounds: float32 (2,), lowest and highest value, a moving average while `observing`.
        apart: the tensor that it gets stays as it is.
        step: with `learned`, the step size as a parameter (Esser et al. 2020); else None.
        grid: of a tensor around a residual add, or of a product, see `ties`.
        primes: of a product those of `ties`, int64 (2049,); else empty.
        updating: whether the bounds follow the tensor in this step.
        joined: it and those that concatenations join with its tensor: they have one scale.
        live: the present parameters, on another device than a CPU; see `device_quant`.
    """

    bounds: Tensor
    live: Tensor
    primes: Tensor

    def __init__(self, tensor: str, scheme: str, *, relu: bool = False, learned: bool = False):
        super().__init__()
        self.tensor, self.scheme, self.relu = tensor, scheme, relu
        self.register_buffer("bounds", torch.zeros(2))
        self.register_buffer("live", torch.zeros(3), persistent=False)
        self.step = nn.Parameter(torch.ones(1)) if learned else None
        self.zero = 0
        self.joined: tuple[Range, ...] = (self,)
        self.observing, self.looking, self.seen = False, False, 0
        self.updating = False
        self.fixed: QuantParams | None = None
        self.apart = tensor == "input"  # which is the caller's
        self.grid: float | None = None
        self.register_buffer("primes", torch.empty(0, dtype=torch.int64), persistent=False)

    def params(self) -> QuantParams:
        """The present scale and zero point, as files will store them."""
        if self.fixed is not None:
            return self.fixed
        first = self.joined[0]
        if first.step is not None:
            scale = storable(first.step.detach()).item()
            kind = "int16" if "16" in self.scheme else "int8"
            found = QuantParams((scale,), (first.zero,), kind)
        else:
            low, high = self._ends().tolist()
            found = activation_params(low, high, self.scheme)
        if self.grid is None:
            return found
        scale = untied(found.scale[0], self.grid, growth(self.scheme), product=self.product)
        return replace(found, scale=(scale,))

    @property
    def product(self) -> bool:
        """Whether its scale is one of a product."""
        return bool(self.primes.numel())

    def untie(self, grid: float | None, product: bool) -> None:
        """Keep to a grid from now on, as a product if it is one; None: to none."""
        known = ties.primes() if product else ()
        self.grid = grid
        self.primes = torch.tensor(known, dtype=torch.int64, device=self.bounds.device)

    def join(self, others: Sequence[Range]) -> None:
        """Have one scale with these, one of which this is: of all their values, or of one step."""
        self.joined = tuple(others)
        if others[0] is not self:
            self.step = None

    def _ends(self) -> Tensor:
        """The bounds of all that it is joined with, (2,)."""
        low, high = torch.stack([one.bounds for one in self.joined]).unbind(1)
        return torch.stack([low.amin(), high.amax()])

    def start(self, params: QuantParams) -> None:
        """Begin with the range of these parameters."""
        (scale,), (zero,) = params.scale, params.zero_point
        low, high = _LIMITS[params.dtype]
        if self.scheme not in ("w8a8", portable.SCHEME):  # codes are symmetric but for the lowest
            low = -high
        self.bounds.copy_(torch.tensor([(low - zero) * scale, (high - zero) * scale]))
        if self.step is not None:
            self.zero = zero
            with torch.no_grad():
                self.step.fill_(scale)

    def get_extra_state(self) -> Tensor:
        """How far it is between two observations: a resumed training looks at the same batches."""
        return torch.tensor(self.seen)

    def set_extra_state(self, state: Tensor) -> None:
        """Go on from there."""
        self.seen = int(state)
        self._renew()

    def observe(self, on: bool) -> None:
        """Follow the tensor's range from now on, or leave it as it is."""
        running = self.fixed is None and self.joined[0].step is None
        self.observing, self.seen = on and running, 0
        self.updating = self.observing
        self._renew()

    def start_step(self) -> bool:
        """Whether the range looks at its tensor in the step that begins; every fourth time."""
        self.updating = self.observing and self.seen % _OBSERVED == 0
        self.seen += self.observing
        return self.updating

    def look(self, on: bool) -> None:
        """Calibrate: let the tensor pass, and average its range over the calls from now on."""
        if not on and self.looking and self.step is not None:
            params = activation_params(*self._ends().tolist(), self.scheme)
            self.start(params)
        self.looking, self.seen = on, 0

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, same shape and layout; overwrites `x`."""
        if self.looking:
            self.seen += 1
            self._update(x.detach(), 1 / self.seen)
            return x.relu() if self.relu else x
        if self.updating:
            self._update(x.detach(), 1 - (1 - _MEMORY) ** _OBSERVED)
        return self._by_numbers(x) if x.device.type == "cpu" else self._by_tensors(x)

    def _by_tensors(self, x: Tensor) -> Tensor:
        of_step = self.joined[0].step if self.fixed is None else None
        if self.updating or of_step is not None:
            self._renew()
        if of_step is not None:
            return device_quant.learned(x, of_step, self.live)
        return device_quant.rounded(x, self.live)

    @torch.no_grad()
    def _renew(self) -> None:
        """Bring `live` up to date."""
        if self.live.device.type == "cpu":
            return
        self.live.copy_(self._grid())

    def _grid(self) -> Tensor:
        """Scale, lowest and highest step of `params`, (3,), without waiting for the device."""
        kind = "int16" if "16" in self.scheme else "int8"
        if self.fixed is not None:
            kind = self.fixed.dtype
            known = torch.tensor([*self.fixed.scale, *self.fixed.zero_point], dtype=torch.float32)
            scale, zero = known.to(self.bounds.device).unbind()
        elif (step := self.joined[0].step) is not None:
            scale = storable(step.detach())[0]
            zero = torch.full_like(scale, self.joined[0].zero)
        else:
            scale, zero = device_quant.activation_grid(self._ends(), self.scheme)
        if self.grid is not None and self.fixed is None:
            scale = device_quant.untied(scale, self.grid, growth(self.scheme), self.primes)
        low, high = (end - zero for end in _LIMITS[kind])
        return torch.stack([scale, low.clamp_min(0) if self.relu else low, high])

    def _by_numbers(self, x: Tensor) -> Tensor:
        params = self.params()
        scale, zero = params.scale[0], params.zero_point[0]
        low, high = _LIMITS[params.dtype]
        floor = max(0, low - zero) if self.relu else low - zero
        if (step := self.joined[0].step) is not None and self.fixed is None:
            return _Learned.apply(x, step, scale, floor, high - zero)  # type: ignore[no-any-return, no-untyped-call]
        if self.apart:
            x = x.clone()
        return _Rounded.apply(x, scale, floor, high - zero)  # type: ignore[no-any-return, no-untyped-call]

    def _update(self, x: Tensor, share: float) -> None:
        # amin and amax are vectorized, aminmax isn't.
        low = x.new_zeros(()) if self.relu else x.amin().clamp_max(0)
        self.bounds.lerp_(torch.stack([low, x.amax().clamp_min(0)]), share)


if TYPE_CHECKING:

    class _Context(torch.autograd.function.FunctionCtx):
        saved_tensors: tuple[Tensor, ...]
        ends: tuple[float, float]  # of what gradients pass
        grid: tuple[float, int, int]  # scale, lowest and highest code


class _Rounded(torch.autograd.Function):
    """x -> the nearest of the grid points `low * scale` to `high * scale`, in place.

    Gradients pass between the two ends, which is where a ReLU's pass too, but for its values
    below half a step. So nothing is kept but what the next convolution keeps anyway.
    """

    @staticmethod
    def forward(ctx: _Context, x: Tensor, scale: float, low: int, high: int) -> Tensor:
        ctx.mark_dirty(x)
        x.mul_(1 / scale).round_().clamp_(low, high).mul_(scale)
        ctx.save_for_backward(x)
        ctx.ends = low * scale, high * scale
        return x

    @staticmethod
    def backward(ctx: _Context, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grads[0], y, *ctx.ends), None, None, None


class _Learned(torch.autograd.Function):
    """The same, with the gradient of the step size (Esser et al. 2020, equations 3 and 4)."""

    @staticmethod
    def forward(  # `step` is here for its gradient; `scale` is its value as stored
        ctx: _Context, x: Tensor, _step: Tensor, scale: float, low: int, high: int
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.grid = scale, low, high
        return x.mul(1 / scale).round_().clamp_(low, high).mul_(scale)

    @staticmethod
    def backward(ctx: _Context, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x,), (grad,), (scale, low, high) = ctx.saved_tensors, grads, ctx.grid
        codes = x / scale
        inside = (codes > low) & (codes < high)
        slope = codes.round().clamp_(low, high).sub_(codes.mul_(inside))
        of_step = (grad * slope).sum() / math.sqrt(x.numel() * max(high, -low))
        edges = _edges(scale, low, high)
        passed = torch.ops.aten.hardtanh_backward(grad, x, *edges)
        return passed, of_step.reshape(1), None, None, None


def _edges(scale: float, low: int, high: int) -> tuple[float, float]:
    """Between which gradients pass: those of the ReLU, or where rounding begins to clip."""
    return (0.0 if low == 0 else (low - 0.5) * scale), (high + 0.5) * scale


class _Weight(torch.autograd.Function):
    """A weight on the int8 or int4 grid that it will have once it is folded.

    Of 8 bits nothing needs clipping: the scale is the largest size / 127, rounded up.
    """

    @staticmethod
    def forward(
        _ctx: object, weight: Tensor, factor: Tensor | None, ratio: Tensor | None, kind: str
    ) -> Tensor:
        size = None if factor is None else factor.abs().clamp_min(1e-20)
        if ratio is not None:
            return portable.rounded(weight, ratio if size is None else ratio / size)
        steps = weight_scale(weight, size, kind)
        column = (steps if size is None else steps / size).view(-1, *[1] * (weight.ndim - 1))
        codes = weight.div(column).round_()
        return (codes if kind == "int8" else codes.clamp_(*WEIGHT_RANGES[kind])).mul_(column)

    @staticmethod
    def backward(_ctx: object, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0], None, None, None


class Ratio(nn.Module):
    """What a layer's weights are rounded by, beside themselves: written scale / read scale.

    Args:
        read, written: of the tensors around it; they belong to another module.
    """

    def __init__(self, read: Range, written: Range):
        super().__init__()
        self.ends = (read, written)

    def forward(self) -> Tensor:
        """(1,), on the device of its ranges; NaN while one of them is only looking."""
        read, written = self.ends
        if read.looking or written.looking:
            return torch.full_like(read.live[:1], torch.nan)
        if read.live.device.type != "cpu":
            return written.live[:1] / read.live[:1]
        return torch.tensor([written.params().scale[0] / read.params().scale[0]])


def unfolded_weight(
    weight: Tensor, gamma: Tensor, variance: Tensor, eps: float, ratio: Tensor | None = None,
    kind: str = "int8",
) -> Tensor:  # fmt: skip
    """What a convolution before batch norm trains with.

    Batch norm multiplies each output channel by `gamma / sqrt(variance + eps)`; rounding the
    folded weight and dividing by that factor is the same as rounding the weight with a step
    divided by it. So nothing is divided but the steps, and batch norm stays as it is.

    Args:
        ratio: of the scheme whose weight scales depend on it, see `Ratio`.
        kind: of its codes, "int8" or "int4".
    """
    factor = gamma.detach() * torch.rsqrt(variance + eps)
    return _Weight.apply(weight, factor, ratio, kind)  # type: ignore[no-any-return, no-untyped-call]


def folded_weight(weight: Tensor, gamma: Tensor, variance: Tensor, eps: float) -> Tensor:
    """A weight with batch norm's factor in it, as inference has it, not yet rounded."""
    factor = gamma * torch.rsqrt(variance + eps)
    return weight * factor.view(-1, *[1] * (weight.ndim - 1))


def folded_bias(
    bias: Tensor | None, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, eps: float
) -> Tensor:
    """Batch norm's shift as a bias."""
    centre = mean if bias is None else mean - bias
    return beta - centre * gamma * torch.rsqrt(variance + eps)


def plain_weight(weight: Tensor, ratio: Tensor | None = None, kind: str = "int8") -> Tensor:
    """A weight without batch norm after it."""
    return _Weight.apply(weight, None, ratio, kind)  # type: ignore[no-any-return, no-untyped-call]

"""Biases that are the same number in every format.

Integer kernels hold a bias as a whole number of steps (input scale * weight scale), Core ML as a
float16 number. Rounded to the one and then to the other it turns one code in some 3,000 of each
layer, and what turned spreads through the layers behind. A weight's scale may grow a little without
harm: of the float16 numbers up to 1/64 larger, one nearly always has a whole number of steps beside
a float16 number beside the bias, some 1e-5 of an output code from it.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_GROWTH = 1 / 64
_SCALES = 33  # as many float16 numbers lie at most within that growth
_BESIDE = (0, -1, 1, -2, 2)  # float16 numbers beside a bias


def shared(
    weight: Tensor, bias: Tensor, scale: Tensor, input_scale: float
) -> tuple[Tensor, Tensor]:
    """Biases that are float16 numbers and whole numbers of steps, and the weight scales for that.

    Args:
        weight: (O, ...). A channel of zeros and one size keeps its scale, in which that is exact.
        bias: (O,).
        scale: (O,) float64, each a float16 number.
        input_scale: of the tensor that the layer reads.

    Returns:
        Bias and scale, both (O,) float64. The bias is the float16 number.
    """
    scales = _halves(scale, range(_SCALES))
    sizes = weight.flatten(1).abs()
    plain = ((sizes == 0) | (sizes == sizes.amax(1, keepdim=True))).all(1)
    limit = torch.where(plain, scale, scale * (1 + _GROWTH))
    steps = (scales * input_scale)[:, None]
    beside = _halves(bias, _BESIDE)[:, :, None]
    errors = ((beside / steps).round() * steps - beside).abs()
    errors.masked_fill_((scales > limit[:, None])[:, None], torch.inf)
    which = errors.flatten(1).argmin(1, keepdim=True)
    found = beside.flatten(1).gather(1, which // _SCALES), scales.gather(1, which % _SCALES)
    return found[0].flatten(), found[1].flatten()


def _halves(values: Tensor, places: Iterable[int]) -> Tensor:
    """(O,) -> (O, places) float64: the float16 numbers so many places further from zero.

    Where there is none, the value itself.
    """
    half = values.half()
    bits = half.view(torch.int16).to(torch.int32)
    moved = bits[:, None] + torch.tensor(list(places), dtype=torch.int32)
    found = moved.to(torch.int16).view(torch.half).double()
    known = found.isfinite() & half.isfinite()[:, None]
    return torch.where(known, found, values.double()[:, None])

"""Biases that are the same number in every format.

Integer kernels hold a bias as a whole number of steps (input scale * weight scale), Core ML as a
float16 number. Rounded to the one and then to the other it turns one code in some 3,000 of each
layer, and what turned spreads through the layers behind. A weight's scale may grow a little without
harm, and the bias itself may be one of the five nearest float16 numbers (an output code apart by a
hundredth): of these, and the scales up to 1/64 larger, two nearly always fit, to some 6e-6 of an
output code.
"""

from __future__ import annotations

import torch
from torch import Tensor

_GROWTH = 1 / 64
_SCALES = 33  # as many float16 numbers lie at most within that growth
_NEAREST = (0, -1, 1, -2, 2)  # float16 numbers, counted from the nearest


def shared(
    weight: Tensor, bias: Tensor, scale: Tensor, input_scale: float
) -> tuple[Tensor, Tensor]:
    """Biases that are float16 numbers and whole numbers of steps, and the weight scales for that.

    Args:
        weight: (O, ...). A channel of zeros and one size keeps its scale, in which that is exact.
        bias: (O,); one too large for a float16 number stays as it is.
        scale: (O,) float64, each a float16 number.
        input_scale: of the tensor that the layer reads.

    Returns:
        Bias and scale, both (O,) float64. The bias is the float16 number.
    """
    half = bias.half()[:, None]
    found = torch.where(half.isfinite(), _from(half, torch.tensor(_NEAREST)), bias[:, None])
    scales = _from(scale.half()[:, None], torch.arange(_SCALES))
    sizes = weight.flatten(1).abs()
    plain = ((sizes == 0) | (sizes == sizes.amax(1, keepdim=True))).all(1)
    limit = torch.where(plain, scale, scale * (1 + _GROWTH))
    steps, wanted = scales[:, None] * input_scale, found[:, :, None]
    errors = ((wanted / steps).round() * steps - wanted).abs()  # (O, biases, scales)
    errors.masked_fill_(~(errors.isfinite() & (scales <= limit[:, None])[:, None]), torch.inf)
    best = errors.flatten(1).argmin(1, keepdim=True)
    return found.gather(1, best // _SCALES).flatten(), scales.gather(1, best % _SCALES).flatten()


def _from(half: Tensor, away: Tensor) -> Tensor:
    """(O, 1) float16 -> (O, len(away)) float64: the float16 numbers so many places away."""
    return (half.view(torch.int16) + away.to(torch.int16)).view(torch.half).double()

"""Biases that are the same number in every format.

Integer kernels hold a bias as a whole number of steps (input scale * weight scale), Core ML as a
float16 number. Rounded to the one and then to the other it turns one code in some 3,000 of each
layer, and what turned spreads through the layers behind. A weight's scale may grow a little without
harm: of the float16 numbers up to 1/64 larger, one nearly always has a whole number of steps at the
float16 bias, to some 3e-5 of an output code.
"""

from __future__ import annotations

import torch
from torch import Tensor

_GROWTH = 1 / 64
_SCALES = 33  # as many float16 numbers lie at most within that growth


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
    half = bias.half()
    found = torch.where(half.isfinite(), half, bias).double()
    bits = scale.half().view(torch.int16)[:, None] + torch.arange(_SCALES, dtype=torch.int16)
    scales = bits.view(torch.half).double()
    sizes = weight.flatten(1).abs()
    plain = ((sizes == 0) | (sizes == sizes.amax(1, keepdim=True))).all(1)
    limit = torch.where(plain, scale, scale * (1 + _GROWTH))
    steps = scales * input_scale
    errors = ((found[:, None] / steps).round() * steps - found[:, None]).abs()
    errors.masked_fill_(~(scales <= limit[:, None]), torch.inf)
    return found, scales.gather(1, errors.argmin(1, keepdim=True)).flatten()

"""Biases that are the same number in every format, and scales that leave no sum nearly a tie.

Integer kernels hold a bias as a whole number of steps (input scale * weight scale), Core ML as a
float16 number; where sums lie almost halfway between two codes, the difference turns a code, and
what turned spreads through the layers behind. So does the last bit of a float32 sum in a runtime
that doesn't compute in integers.

A weight's scale may grow a little without harm, and the bias itself may move to a float16 number
within 1/16 of an output code (or to one of the five nearest). Of these, the two are taken with
which whole sums stay furthest from halfway, however the bias is stored: 1e-5 to 1e-4 of a code.

A channel of tiny weights has tiny steps, of which a bias may hold more than an int32 counts. Its
scale is then as large as the bias needs in the finest of the schemes (`roomy`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgeres.errors import BadInput
from edgeres.types import QuantParams

_GROWTH = 1 / 32
_SCALES = 65  # as many float16 numbers lie at most within that growth
_NEAREST = 2  # float16 numbers on either side of the nearest, wherever they are
_FURTHEST = 32  # of them, if they aren't far
_NEAR = 1 / 16  # of an output code
_FINER = 256  # steps of int16 activations in one of int8 over the same range
_INT32 = 2**31 - 1
_MOST = 2**30  # steps of a bias: scales and biases still move a little


def roomy(weight: Tensor, bias: Tensor, scale: Tensor, source: QuantParams) -> Tensor:
    """Weight scales with which every bias fits into int32 in every scheme the table may get.

    What a channel's weights lose is far below one output code: they are a millionth of its bias.
    A channel of zeros, which loses nothing, takes at least the layer's largest scale.

    Args:
        weight: (O, ...).
        bias: (O,).
        scale: float64 (O,).
        source: of the tensor that the layer reads.

    Returns:
        float64 (O,), none smaller than `scale`, not yet storable.
    """
    zeros = weight.flatten(1).count_nonzero(1) == 0
    finest = source.scale[0] / (_FINER if source.dtype == "int8" else 1)
    least = bias.double().abs() / (_MOST * finest)
    return torch.where(zeros, scale.max(), scale).maximum(least)


def require_fit(layer: str, bias: Tensor, steps: Tensor) -> None:
    """Refuse biases that int32 can't hold.

    Args:
        bias: (O,).
        steps: (O,), input scale * weight scale.

    Raises:
        BadInput: names the layer and its first such channel.
    """
    wrong = ~(((bias.double() / steps).abs() <= _INT32) & steps.isfinite())
    if wrong.any():
        channel = int(wrong.nonzero()[0])
        raise BadInput(
            f"{layer}: the bias {float(bias[channel]):.3g} of channel {channel} doesn't fit into "
            f"int32 in steps of {float(steps[channel]):.3g}; let the layer stay float "
            "(quantize.exclude), or mend the checkpoint"
        )


def shared(
    weight: Tensor, bias: Tensor, scale: Tensor, input_scale: float, output: QuantParams | None
) -> tuple[Tensor, Tensor]:
    """Biases that are float16 numbers and whole numbers of steps, and the weight scales for that.

    Args:
        weight: (O, ...). A channel of zeros and one size keeps its scale, in which that is exact.
        bias: (O,); one too large for a float16 number stays as it is.
        scale: (O,) float64, each a float16 number.
        input_scale: of the tensor that the layer reads.
        output: of the one that it writes; None if that isn't int8.

    Returns:
        Bias and scale, both (O,) float64. The bias is the float16 number.
    """
    half = bias.half()[:, None]
    away = torch.arange(-_FURTHEST, _FURTHEST + 1)
    found = torch.where(half.isfinite(), _from(half, away), bias[:, None])
    scales = _from(scale.half()[:, None], torch.arange(_SCALES))
    sizes = weight.flatten(1).abs()
    plain = ((sizes == 0) | (sizes == sizes.amax(1, keepdim=True))).all(1)
    limit = torch.where(plain, scale, scale * (1 + _GROWTH))
    steps, wanted = scales[:, None] * input_scale, found[:, :, None]
    room = -((wanted / steps).round() * steps - wanted).abs()  # (O, biases, scales)
    near = (away.abs() <= _NEAREST).broadcast_to(found.shape)
    if output is not None:
        room += _from_ties(steps, output)
        near = near | ((found - bias[:, None]).abs() <= output.scale[0] * _NEAR)
    allowed = near[:, :, None] & (scales <= limit[:, None])[:, None]
    room.masked_fill_(~(room.isfinite() & allowed), -torch.inf)
    best = room.flatten(1).argmax(1, keepdim=True)
    return found.gather(1, best // _SCALES).flatten(), scales.gather(1, best % _SCALES).flatten()


def _from_ties(steps: Tensor, output: QuantParams) -> Tensor:
    """How far from halfway between two codes the whole number of steps is that lies nearest to it.

    The shape of `steps`, and in what they are in.
    """
    nearest = torch.full_like(steps, torch.inf)
    for code in range(-128, 127):
        tie = (code + 0.5 - output.zero_point[0]) * output.scale[0]
        nearest = torch.minimum(nearest, ((tie / steps).round() * steps - tie).abs())
    return nearest


def _from(half: Tensor, away: Tensor) -> Tensor:
    """(O, 1) float16 -> (O, len(away)) float64: the float16 numbers so many places away."""
    return (half.view(torch.int16) + away.to(torch.int16)).view(torch.half).double()

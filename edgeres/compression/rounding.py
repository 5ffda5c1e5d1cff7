"""Weights rounded so that a layer's outputs change least, not each weight by itself.

Rounding to nearest makes the squared error of the weights least; what counts is that of the
outputs: the weights' error, weighted with the inputs' second moments. One input's weights after the
other are rounded, and those of the inputs still to come make good what it does to the outputs.

Source: Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", section 3; the solution of Frantar & Alistarh 2022, "Optimal Brain Compression".
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeres.models.modules import Classifier
from edgeres.training.inference import prepared

_BATCH = 32
_ROWS = 32_768  # inputs that a layer's moments are taken of; four per weight at least
# Of the mean moment: what was hardly ever seen is rounded to nearest. More of it where float32 sums
# have left moments that nothing can have.
_DAMPING = (0.01, 0.1, 1.0)
_BLOCK = 128

Moments = Mapping[str, Tensor]
"""Layer -> second moments of its inputs, float32 (groups, K, K), K inputs per output channel."""


@torch.no_grad()
def moments(model: Classifier, images: Tensor) -> Moments:
    """Of every convolution and linear layer.

    Args:
        model: batch norm folded, in evaluation mode.
        images: uint8 (N, 3, H, W); prepared a batch at a time.
    """
    found: dict[str, Tensor] = {}

    def look(name: str, layer: nn.Conv2d | nn.Linear, x: Tensor) -> None:
        rows = _rows(layer, x, len(images))
        sums = rows @ rows.mT
        found[name] = found[name].add_(sums) if name in found else sums

    hooks = [
        layer.register_forward_pre_hook(lambda m, args, name=name: look(name, m, args[0]))
        for name, layer in model.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))
    ]  # fmt: skip
    try:
        for part in images.split(_BATCH):
            model(prepared(part, model.spec.preprocess))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _rows(layer: nn.Conv2d | nn.Linear, x: Tensor, images: int) -> Tensor:
    """What the layer multiplies its weights with: (groups, K, rows)."""
    if isinstance(layer, nn.Linear):
        return x.T[None]
    assert isinstance(layer.padding, tuple)
    columns = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    n, values, places = columns.shape
    width = values // layer.groups
    wanted = math.ceil(max(_ROWS, 4 * width) / images)
    if places > wanted:
        columns = columns[:, :, torch.linspace(0, places - 1, wanted).long()]
    return columns.view(n, layer.groups, width, -1).permute(1, 2, 0, 3).flatten(2)


def rounded(weight: Tensor, scale: Tensor, moment: Tensor, low: int, high: int) -> Tensor:
    """Codes of a weight.

    Args:
        weight: (O, ...).
        scale: float64 (O,).
        moment: (groups, K, K), of its inputs.
        low, high: of the codes.

    Returns:
        float64, as `weight`.
    """
    groups, width, _ = moment.shape
    # (groups, O of a group, K), in codes; inputs that matter most come first.
    order = moment.diagonal(dim1=1, dim2=2).mean(0).argsort(descending=True)
    left = (weight.flatten(1).double() / scale[:, None]).view(groups, -1, width)[:, :, order]
    factor = _inverse_factor(moment.double()[:, order][:, :, order])
    codes = torch.empty_like(left)
    for first in range(0, width, _BLOCK):
        block = slice(first, min(first + _BLOCK, width))
        upper, values = factor[:, block, block], left[:, :, block]
        errors = torch.empty_like(values)
        for i in range(values.shape[2]):
            codes[:, :, first + i] = values[:, :, i].round().clamp(low, high)
            errors[:, :, i] = (values[:, :, i] - codes[:, :, first + i]) / upper[:, None, i, i]
            values[:, :, i:] -= errors[:, :, i, None] * upper[:, None, i, i:]
        left[:, :, block.stop :] -= errors @ factor[:, block, block.stop :]
    return codes[:, :, order.argsort()].reshape(weight.shape)


def loss(error: Tensor, moment: Tensor) -> Tensor:
    """Mean squared change of each channel's outputs, up to a factor: float64 (O,).

    Args:
        error: float64 (O, ...), of the weights.
        moment: (groups, K, K), of their inputs.
    """
    groups, width, _ = moment.shape
    left = error.flatten(1).view(groups, -1, width)
    return ((left @ moment.double()) * left).sum(2).flatten()


def _inverse_factor(moment: Tensor) -> Tensor:
    """Upper triangles U with U^T U = (moment + damping)^-1: (groups, K, K)."""
    mean = moment.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12).view(-1, 1, 1)
    unit = mean * torch.eye(moment.shape[1], dtype=moment.dtype)
    for damping in _DAMPING:
        lower, failed = torch.linalg.cholesky_ex(moment + damping * unit)
        if not failed.any():
            break
    return torch.linalg.cholesky(torch.cholesky_inverse(lower)).mT

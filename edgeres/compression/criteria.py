"""What makes a channel matter: a group of coupled channels in, one number per channel out.

A criterion is a function of a group (the layers that lose a channel together). Its numbers are
comparable between groups: the search weighs them against what a channel costs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from edgeres.compression.channels import Group, Share
from edgeres.models.modules import Classifier
from edgeres.training.inference import for_gradients, narrow
from edgeres.training.loop import Objective
from edgeres.training.views import Labelled

Criterion = Callable[[Group], Tensor]
"""A group of C channels -> (C,), what is lost with each channel."""

_TAYLOR_BATCH = 64


def magnitude() -> Criterion:
    """L2 over the whole group, relative to its mean (Fang et al. 2023, "DepGraph")."""
    return lambda group: shares_of(group.summed(squares), group)


def bn_scale() -> Criterion:
    """Batch norm's scale, relative to the group's mean (Liu et al. 2017, "Network Slimming")."""
    return lambda group: shares_of(group.summed(_scales), group)


def squares(share: Share) -> Tensor | None:
    """Of each channel's weights, summed, (K,); those of depthwise convolutions don't count."""
    if share.depthwise:
        return None
    weight = share.layer.weight[:, None] if share.side == "norm" else share.layer.weight
    if share.side != "in":
        return weight[share.channels].square().flatten(1).sum(1)
    sums = weight.transpose(0, 1).square().flatten(1).sum(1)
    return sums[share.channels % len(sums)]  # of a grouped convolution, over its groups


def _scales(share: Share) -> Tensor | None:
    return share.layer.weight[share.channels].abs() if share.side == "norm" else None


def taylor(model: Classifier, images: Labelled, objective: Objective) -> Criterion:
    """How the loss changes without a channel, to first order, squared, summed over batches.

    Taken at batch norm's scale and shift, which multiply the channel like a gate (Molchanov et al.
    2019, "Importance Estimation for Neural Network Pruning", equation 8). Training images only.

    Args:
        model: the very network whose groups will be judged; left in evaluation mode.
    """
    model.eval()
    scores = {m: torch.zeros(m.num_features) for m in model.modules()
             if isinstance(m, nn.BatchNorm2d)}  # fmt: skip
    parts = zip(images.images.split(_TAYLOR_BATCH), images.labels.split(_TAYLOR_BATCH), strict=True)
    for batch, labels in parts:
        model.zero_grad(set_to_none=True)
        with for_gradients(model, narrow(model)):
            objective(model, batch, labels).backward()
        for norm, score in scores.items():
            if norm.weight.grad is not None and norm.bias.grad is not None:
                gate = norm.weight * norm.weight.grad + norm.bias * norm.bias.grad
                score += gate.detach().cpu() ** 2
    model.zero_grad(set_to_none=True)

    def judge(group: Group) -> Tensor:
        return group.summed(lambda share: scores[share.layer][share.channels]
                            if isinstance(share.layer, nn.BatchNorm2d) else None)  # fmt: skip

    return judge


def shares_of(total: Tensor, group: Group) -> Tensor:
    """Of a group's importance, counted once for each layer that loses filters."""
    return total / total.sum().clamp_min(1e-12) * max(len(group.writers), 1)

"""What makes a channel matter: a group of coupled channels in, one number per channel out.

A criterion is a function of a Torch-Pruning group (the layers that lose a channel together). Its
numbers are comparable between groups: the search weighs them against what a channel costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from edgeres.models.modules import Classifier
from edgeres.training.loop import Objective
from edgeres.training.views import Labelled

Criterion = Callable[[Any], Tensor]
"""A group of C channels -> (C,), what is lost with each channel."""

_TAYLOR_BATCH = 64


def magnitude() -> Criterion:
    """L2 over the whole group, relative to its mean (Fang et al. 2023, "DepGraph")."""
    return _per_filter(tp.importance.GroupMagnitudeImportance(p=2))


def bn_scale() -> Criterion:
    """Batch norm's scale, relative to the group's mean (Liu et al. 2017, "Network Slimming")."""
    return _per_filter(tp.importance.BNScaleImportance())


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
        objective(model, batch, labels).backward()
        for norm, score in scores.items():
            if norm.weight.grad is not None and norm.bias.grad is not None:
                gate = norm.weight * norm.weight.grad + norm.bias * norm.bias.grad
                score += gate.detach().cpu() ** 2
    model.zero_grad(set_to_none=True)

    def judge(group: Any) -> Tensor:
        total = torch.zeros(channels_of(group))
        for item in group:
            if item.dep.target.module in scores:
                score = scores[item.dep.target.module][item.idxs]
                total.index_add_(0, torch.tensor(item.root_idxs), score)
        return total

    return judge


def channels_of(group: Any) -> int:
    """How many channels a whole group has."""
    return len(group[0].idxs)


def writers(group: Any) -> dict[nn.Module, list[int]]:
    """The convolutions and linear layers that make the group's channels.

    With each of them the group's number of each such channel: it may be a part of the layer's own.
    """
    return _layers(group, outward=True)


def readers(group: Any) -> dict[nn.Module, list[int]]:
    """Those that take the group's channels, which a concatenation may put beside others."""
    return _layers(group, outward=False)


def norms(group: Any) -> dict[nn.Module, list[int]]:
    """The batch norms of the group's channels."""
    return _channels(item for item in group if isinstance(item.dep.target.module, nn.BatchNorm2d))


def _layers(group: Any, *, outward: bool) -> dict[nn.Module, list[int]]:
    graph = group._DG
    return _channels(
        item
        for item in group
        if isinstance(item.dep.target.module, (nn.Conv2d, nn.Linear))
        and graph.is_out_channel_pruning_fn(item.dep.handler) == outward
    )


def _channels(items: Iterable[Any]) -> dict[nn.Module, list[int]]:
    found: dict[nn.Module, dict[int, int]] = {}
    for item in items:
        own = zip(item.idxs, item.root_idxs, strict=True)
        found.setdefault(item.dep.target.module, {}).update(own)
    return {module: list(channels.values()) for module, channels in found.items()}


def _per_filter(importance: Criterion) -> Criterion:
    """Shares of the group's importance, counted once for each layer that loses filters."""

    def judge(group: Any) -> Tensor:
        found = importance(group).detach().cpu()
        return found / found.sum().clamp_min(1e-12) * max(len(writers(group)), 1)

    return judge

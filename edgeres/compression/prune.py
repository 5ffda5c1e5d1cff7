"""Structured pruning: a trained network and a budget in, a slimmer network with its weights out.

Torch-Pruning's dependency graph finds which channels must go together across residual adds; the
channels that matter least by a group-wise criterion are removed until the budget is met.
"""

from __future__ import annotations

import copy

import torch
import torch_pruning as tp

from edgeres.errors import BadInput
from edgeres.models.resnet import ResNet, complexity, slimmed, spec_of

_STEPS = 50  # of a global ratio that grows until the budget is met
_CRITERIA = {
    "group-magnitude": lambda: tp.importance.GroupMagnitudeImportance(p=2),
    "bn-scale": lambda: tp.importance.BNScaleImportance(),
}


def prune_to_macs(model: ResNet, budget: float, *, round_to: int, criterion: str) -> ResNet:
    """Remove channels until the multiply-accumulates are at most `budget` times the original's.

    Args:
        model: batch norm not folded; left as it was.
        budget: share of MACs to keep, between 0 and 1.
        round_to: every width stays a multiple of this (what integer kernels like).
        criterion: "group-magnitude" (L2 over the whole group; Fang et al. 2023, "DepGraph") or
            "bn-scale" (Liu et al. 2017, "Network Slimming").

    Returns:
        The slimmer network in evaluation mode, its spec saying every width.

    Raises:
        BadInput: the budget can't be met with widths that are multiples of `round_to`.
    """
    before = complexity(model.spec)[1]
    px = model.spec.preprocess.size_px
    pruned = copy.deepcopy(model).eval()
    pruner = tp.pruner.MetaPruner(
        pruned, torch.zeros(1, 3, px, px), importance=_CRITERIA[criterion](),
        pruning_ratio=0.98, max_pruning_ratio=0.9, iterative_steps=_STEPS, round_to=round_to,
        global_pruning=True, ignored_layers=[pruned.fc],
    )  # fmt: skip
    spec, macs = model.spec, before
    for _ in range(_STEPS):
        pruner.step()
        spec = spec_of(pruned)
        macs = complexity(spec)[1]
        if macs <= budget * before:
            return slimmed(pruned)
    raise BadInput(
        f"prune.macs: {budget:g} can't be met with channels in multiples of {round_to}; "
        f"{macs / before:.2f} is the least reachable for {model.spec.name}"
    )

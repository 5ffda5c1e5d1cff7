"""Whole residual blocks: a network in, the same with its least needed blocks left out.

A block whose shortcut is the identity can go without anything else changing. Which one is needed
least is what the network's answers say when it is skipped, on training images.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from edgeres.errors import BadInput
from edgeres.models.modules import Classifier
from edgeres.models.resnet import ResNet
from edgeres.models.spec import ModelSpec
from edgeres.training.inference import predict

_IMAGES = 256


def removable(spec: ModelSpec) -> list[tuple[int, int]]:
    """Blocks that can be left out, as (stage, block) from 0; each stage keeps one."""
    return [
        (s, b)
        for s, stage in enumerate(spec.stages)
        for b, block in enumerate(stage)
        if block.shortcut == "identity" and len(stage) > 1
        and not (spec.preact and s == b == 0)  # it is built without the norm that the next one has
    ]  # fmt: skip


def remove(model: Classifier, count: int, images: Tensor) -> ResNet:
    """Leave out `count` blocks, one after the other, each the least needed of those left.

    Args:
        images: training images, uint8 (N, 3, H, W); the first 256 are used.

    Raises:
        BadInput: there are not so many blocks that can go, or the network isn't made of them.
    """
    if not isinstance(model, ResNet):
        raise BadInput(f"prune.blocks: {model.spec.name} isn't a residual network by name; prune "
                       "its channels (prune.macs, prune.params)")  # fmt: skip
    images = images[:_IMAGES]
    answers = _answers(model, images)
    slim = model
    for done in range(count):
        options = removable(slim.spec)
        if not options:
            raise BadInput(f"prune.blocks: {model.spec.name} has only {done} blocks that can be "
                           f"left out; ask for at most {done}")  # fmt: skip
        worth = {option: _divergence(answers, _skipping(slim, option, images))
                 for option in options}  # fmt: skip
        slim = without(slim, min(worth, key=lambda option: worth[option]))
    return slim


def without(model: ResNet, which: tuple[int, int]) -> ResNet:
    """The network without one block."""
    s, b = which
    stages = [list(stage) for stage in model.spec.stages]
    del stages[s][b]
    spec = dataclasses.replace(model.spec, stages=tuple(map(tuple, stages)))
    state = {}
    for key, value in model.state_dict().items():
        parts = key.split(".")
        if parts[0] == f"layer{s + 1}":
            number = int(parts[1])
            if number == b:
                continue
            parts[1] = str(number - (number > b))
        state[".".join(parts)] = value
    slim = ResNet(spec)
    slim.load_state_dict(state)
    return slim.eval()


def _skipping(model: ResNet, which: tuple[int, int], images: Tensor) -> Tensor:
    stage: nn.Sequential = getattr(model, f"layer{which[0] + 1}")
    block = stage[which[1]]
    stage[which[1]] = nn.Identity()
    try:
        return _answers(model, images)
    finally:
        stage[which[1]] = block


@torch.no_grad()
def _answers(model: ResNet, images: Tensor) -> Tensor:
    return predict(model.eval(), images, model.spec.preprocess).log_softmax(1)


def _divergence(before: Tensor, after: Tensor) -> float:
    """Mean Kullback-Leibler divergence of log-probabilities (N, C)."""
    return float((before.exp() * (before - after)).sum(1).mean())

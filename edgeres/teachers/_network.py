"""Tensors that fit our ResNet, with somebody else's preprocessing and classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from edgeres.models import spec, weights
from edgeres.teachers import Wanted
from edgeres.teachers._black_box import check_outputs
from edgeres.types import Preprocess

if TYPE_CHECKING:
    from edgeres.models.resnet import ResNet

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def network(
    path: Path, wanted: Wanted, where: str, name: str | None, preprocess: Preprocess
) -> tuple[ResNet, int | None]:
    """The network of a checkpoint file, and how many classes it had if its head was replaced.

    Blue-green-red input is put into the first convolution, and `wanted.outputs` into the last
    layer, so that what comes out is an ordinary network.

    Args:
        name: its architecture; None to recognize it.
        preprocess: what its images are prepared with unless `wanted` says otherwise.

    Raises:
        BadInput: the tensors don't fit, or its classes aren't the data's.
    """
    state = weights.read(path)
    prepared = Preprocess(wanted.size_px or preprocess.size_px, wanted.mean or preprocess.mean,
                          wanted.std or preprocess.std)  # fmt: skip
    count = weights.classes(state)
    replaced = replaceable(count, wanted)
    if replaced is not None:
        state |= new_head(state["fc.weight"], wanted.classes)
    elif count is not None:
        check_outputs(count, wanted, where)
    if wanted.outputs is not None:
        rows = torch.tensor(wanted.outputs)
        state = {k: v[rows] if k in ("fc.weight", "fc.bias") else v for k, v in state.items()}
    if wanted.channels == "bgr" and "conv1.weight" in state:
        state["conv1.weight"] = state["conv1.weight"].flip(1)
    found = name or weights.recognized(state, prepared)[0]
    return weights.fill(spec.parse(found, wanted.classes, prepared), state, where), replaced


def replaceable(count: int | None, wanted: Wanted) -> int | None:
    """The number of a network's classes, if its last layer is to give way to another."""
    other = count != wanted.classes and wanted.outputs is None
    return count if wanted.new_head and other else None


def new_head(weight: Tensor, classes: int) -> dict[str, Tensor]:
    """A last layer that knows nothing: zeros, from which it learns as well as from any other."""
    return {"fc.weight": weight.new_zeros(classes, weight.shape[1]),
            "fc.bias": weight.new_zeros(classes)}  # fmt: skip

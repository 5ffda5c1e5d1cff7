"""Networks answering: uint8 images flow in, logits and top-1 come out; nothing is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from edgeres.datasets import _batches
from edgeres.training import placement
from edgeres.types import Accuracy, Preprocess

if TYPE_CHECKING:
    from edgeres.training.loop import Trainee
    from edgeres.training.views import Labelled

_BATCH = 250
_BATCH_ON_DEVICE = 1000


@torch.no_grad()
def evaluate(trainee: Trainee, split: Labelled) -> tuple[Accuracy, Tensor]:
    """Top-1 on a split, and its logits (N, C); leaves the network in evaluation mode."""
    trainee.set_training(False)
    logits = predict(trainee.module, split.images, trainee.preprocess)
    correct = int((logits.argmax(1) == split.labels).sum())
    return Accuracy(correct, len(split.labels)), logits


@torch.no_grad()
def predict(module: nn.Module, images: Tensor, preprocess: Preprocess) -> Tensor:
    """Logits (N, C) on the CPU of uint8 images (N, 3, H, W), in batches.

    In the module's present mode and where it is, in float32.
    """
    device = next((p.device for p in module.parameters()), images.device)
    parts = images.split(_BATCH if device.type == "cpu" else _BATCH_ON_DEVICE)
    with placement.kernels(device, tf32=False):
        answers = [module(prepared(part.to(device), preprocess)) for part in parts]
        return torch.cat(answers).cpu()


def prepared(images: Tensor, preprocess: Preprocess) -> Tensor:
    """Normalized float32 input (N, 3, H, W) in the memory layout of `in_layout`."""
    return _batches.normalize(images, preprocess).contiguous(memory_format=_layout(preprocess))


def in_layout(module: nn.Module, preprocess: Preprocess) -> nn.Module:
    """The module with weights in the layout that its inputs come in (`prepared`)."""
    return module.to(memory_format=_layout(preprocess))  # type: ignore[call-overload,no-any-return]


def _layout(preprocess: Preprocess) -> torch.memory_format:
    return torch.channels_last if preprocess.size_px >= 32 else torch.contiguous_format

"""Networks answering: uint8 images flow in, logits and top-1 come out; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
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
_NARROW = 16
_plain: ContextVar[bool] = ContextVar("plain", default=False)


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


def narrow(module: nn.Module) -> bool:
    """Whether it has a strided 1x1 convolution of fewer than 16 channels.

    For its gradients in channels-last memory, oneDNN writes past the end on CPUs with AVX-512
    (torch 2.13): the process crashes, or has other numbers.
    """
    return any(
        isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and max(m.stride) > 1
        and m.groups == 1 and m.in_channels < _NARROW
        for m in module.modules()
    )  # fmt: skip


@contextmanager
def for_gradients(module: nn.Module, plain: bool) -> Iterator[None]:
    """Meanwhile the module and what is `prepared` are in channels-first memory, if `plain`."""
    if not plain:
        yield
        return
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    before = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(before)


def _layout(preprocess: Preprocess) -> torch.memory_format:
    last = preprocess.size_px >= 32 and not _plain.get()
    return torch.channels_last if last else torch.contiguous_format

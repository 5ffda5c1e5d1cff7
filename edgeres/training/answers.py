"""Teachers as the training sees them: uint8 images in, logits out, whatever is behind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from edgeres.models.modules import Classifier, fold_batchnorm
from edgeres.training.inference import in_layout, prepared
from edgeres.types import Preprocess


class Teacher(Protocol):
    """Something that answers; its preprocessing and input size are its own affair."""

    def answer(self, images: Tensor) -> Tensor:
        """Logits float32 (N, C), without gradient and on the images' device, of uint8 images
        (N, 3, H, W) of any size."""
        ...


class Network:
    """A ResNet as a teacher: batch norm folded (the same function in less time), frozen.

    Attributes:
        module: the folded network; it follows the images from device to device.
        preprocess: what its images are resized to and normalized with.
        in_torch: it computes where the images are, and nothing waits for its answer.
    """

    in_torch = True

    def __init__(self, network: Classifier):
        self.preprocess: Preprocess = network.spec.preprocess
        folded = network if network.spec.folded else fold_batchnorm(network.eval())
        self.module: nn.Module = in_layout(folded.requires_grad_(False).eval(), self.preprocess)
        self._device = torch.device("cpu")
        self._compiled: tuple[Callable[[Tensor], Tensor], int] | None = None

    def compile(self, batch: int) -> None:
        """Answer batches of this size faster, after a minute."""
        self._compiled = torch.compile(self.module, dynamic=False), batch

    @torch.no_grad()
    def answer(self, images: Tensor) -> Tensor:
        """Logits (N, C) of uint8 images (N, 3, H, W)."""
        if images.device != self._device:
            self.module, self._device = self.module.to(images.device), images.device
        run, batch = self._compiled or (self.module, len(images))
        answer: Tensor = (run if len(images) == batch else self.module)(
            prepared(images, self.preprocess)
        )
        return answer

    def prepared_as(self, preprocess: Preprocess) -> Network:
        """The same network, its images prepared in another way."""
        other = copy.copy(self)
        other.preprocess = preprocess
        return other


def as_teacher(teacher: Classifier | Teacher) -> Teacher:
    """A Classifier wrapped as a `Network`; any other teacher as it is."""
    return Network(teacher) if isinstance(teacher, Classifier) else teacher

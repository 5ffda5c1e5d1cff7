"""CUDA graphs: a step's forward and backward passes, recorded once and then launched as one.

A small network's step is hundreds of kernels of a few microseconds each, which take longer to
launch than to run. Shapes, and the addresses of all that is read and written, are the recording's;
so there is one for each kind of batch, which new batches are copied into.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgeres.training.views import Raw

_WARM_UP = 3  # steps of each kind before it is recorded: lazy parts start, kernels are chosen

Compute = Callable[[Raw], Tensor]
"""A batch -> its loss; adds gradients to parameters that have none."""


@dataclass
class _Recording:
    graph: torch.cuda.CUDAGraph
    batch: Raw
    loss: Tensor
    gradients: list[Tensor | None]


class Replay:
    """Computes batches by replaying recordings; as written where one can't be made.

    Args:
        parameters: all that get gradients.
        shared: whether other threads use the device meanwhile.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], shared: bool):
        self._parameters = list(parameters)
        self._mode = "thread_local" if shared else "global"
        self._steps: dict[Hashable, int] = {}
        self._recordings: dict[Hashable, _Recording] = {}
        self._aside = torch.cuda.Stream()
        self._pool: Any = None
        self._able = True

    def __call__(self, kind: Hashable, batch: Raw, compute: Compute) -> Tensor:
        """The loss of a batch; parameters have its gradients.

        Args:
            kind: what else decides the kernels, beside the batch's size.
        """
        kind = (kind, len(batch))
        if kind not in self._recordings:
            seen = self._steps[kind] = self._steps.get(kind, 0) + 1
            if not self._able or seen <= _WARM_UP:
                return self._as_written(batch, compute)
            try:
                self._recordings[kind] = self._record(batch, compute)
            except RuntimeError as error:
                self._able = False
                torch.cuda.synchronize()
                for parameter in self._parameters:
                    parameter.grad = None
                warnings.warn("this training's steps can't be recorded as a CUDA graph and stay "
                              f"slower ({str(error).splitlines()[0]})", stacklevel=2)  # fmt: skip
                return self._as_written(batch, compute)
        recording = self._recordings[kind]
        recording.batch.copy_(batch)
        recording.graph.replay()
        for parameter, gradient in zip(self._parameters, recording.gradients, strict=True):
            parameter.grad = gradient
        return recording.loss

    def _as_written(self, batch: Raw, compute: Compute) -> Tensor:
        """On a stream of its own, as recordings want what comes before them."""
        current = torch.cuda.current_stream()
        self._aside.wait_stream(current)
        with torch.cuda.stream(self._aside):
            loss = compute(batch)
        current.wait_stream(self._aside)
        return loss

    def _record(self, batch: Raw, compute: Compute) -> _Recording:
        own = batch.clone()
        for parameter in self._parameters:
            parameter.grad = None
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._aside,
                              capture_error_mode=self._mode):  # fmt: skip
            loss = compute(own)
        self._pool = self._pool or graph.pool()
        return _Recording(graph, own, loss, [p.grad for p in self._parameters])

"""Where and how a training's steps are computed: device, precision, memory, processes.

A batch is what the recipe says, however it is computed: each process takes its share of it, and
each part that doesn't fit at once is computed after the other, before the one update.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils.checkpoint import checkpoint

from edgeres import procs
from edgeres.errors import BadInput
from edgeres.recipe import TrainSection
from edgeres.training import inference
from edgeres.training.placement import device_of
from edgeres.training.replay import Replay
from edgeres.training.views import Raw

Batch = TypeVar("Batch", Tensor, Raw)
LossOf = Callable[[nn.Module, Batch], Tensor]
"""(network, samples) -> their mean loss."""


class Engine:
    """Computes gradients of a network; `close` leaves the network as it was, on the CPU.

    Args:
        extra: trained along with it, in every process.

    Attributes:
        device: of the network and its batches.
        parameters: all that are trained.
        scaler: fp16's loss scale (it is part of what resumes).

    Raises:
        BadInput: the device or precision isn't to be had here.
    """

    def __init__(self, module: nn.Module, settings: TrainSection, extra: nn.Module | None = None):
        # QAT, an exported graph: fake quantization is float32.
        exact = any(isinstance(part, GraphModule) for part in module.modules())
        self.device = device_of(settings.device)
        precision = "fp32" if exact else settings.precision
        if precision == "fp16" and self.device.type != "cuda":
            raise BadInput("train.precision: fp16 needs a CUDA device; use bf16 or fp32")
        self._dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self._module, self._parts = module.to(self.device), settings.accumulate
        self._extra = [] if extra is None else list(extra.to(self.device).parameters())
        self.parameters = [p for p in module.parameters() if p.requires_grad] + self._extra
        self._undo: list[Callable[[], object]] = []
        if settings.checkpointing and not exact:
            self._undo += _recomputed(module)
        if settings.sync_batchnorm and procs.count() > 1:
            self._undo += _synchronized(module)
        network = _spread(module, self.device) if procs.count() > 1 else module
        on_cpu = self.device.type == "cpu"
        compiled = settings.compile and not (exact and on_cpu)
        self._network = _compiled(network, self.device) if compiled else network
        # What is left of an epoch: not worth a compilation for a GPU.
        self._whole = None if on_cpu else settings.batch_size
        self._rest = network
        self.replayable = (self.device.type == "cuda" and procs.count() == 1
                           and not settings.checkpointing)  # fmt: skip
        self._replay: Replay | None = None

    def replay(self, shared: bool) -> None:
        """Compute batches as CUDA graphs from now on; see `Replay`."""
        self._replay = Replay(self.parameters, shared)

    def gradients(self, own: Batch, loss_of: LossOf[Batch], whole: int | None = None,
                  kind: Hashable = None) -> Tensor:  # fmt: skip
        """The gradients of a batch's mean loss, in parameters that have none; returns this
        process's part of the loss.

        Args:
            own: this process's share of the batch (`own_share`).
            whole: how many samples the whole batch has; left out, as many as `own`.
            kind: of the step, where not all launch the same kernels.
        """
        count = len(own) if whole is None else whole
        if self._replay is None or not isinstance(own, Raw):
            return self._computed(own, loss_of, count)
        return self._replay((kind, count), own, lambda raw: self._computed(raw, loss_of, count))

    def _computed(self, own: Batch, loss_of: LossOf[Batch], whole: int) -> Tensor:
        network = self._network if self._whole in (None, whole) else self._rest
        total = torch.zeros((), device=self.device)
        for number, (first, last) in enumerate(_parts(_owned(whole), self._parts)):
            share, part = (last - first) / whole, own[first:last]
            if first == last:
                if procs.count() == 1:
                    continue
                part = own[:1]  # processes must do the same number of parts
            with self._together(number == self._parts - 1):
                with self.autocast():
                    loss = loss_of(network, part) * share
                self.scaler.scale(loss * procs.count()).backward()
            total += loss.detach()
        for parameter in self._extra if procs.count() > 1 else ():
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= procs.count()
        return total

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which convolutions and products have the recipe's precision."""
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, self._dtype)

    def update(self, optimizer: torch.optim.Optimizer, clip_norm: float | None) -> None:
        """One step along the gradients."""
        if clip_norm:
            self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(self.parameters, clip_norm)
        self.scaler.step(optimizer)
        self.scaler.update()

    def summed(self, value: Tensor) -> float:
        """A number's sum over the processes."""
        if procs.count() > 1:
            value = value.clone()
            dist.all_reduce(value)
        return float(value)

    def close(self) -> None:
        """Take everything away that was put around the network."""
        for undo in self._undo:
            undo()
        self._module.to("cpu")

    def _together(self, last: bool) -> AbstractContextManager[object]:
        """Processes exchange gradients with the last part only."""
        if last or procs.count() == 1:
            return nullcontext()
        return self._network.no_sync()  # type: ignore[no-any-return,operator]


def own_share(chosen: Tensor) -> Tensor:
    """This process's samples of a batch (N,); one that counts for nothing where there are none."""
    own = chosen[procs.rank() :: procs.count()]
    return own if len(own) else chosen[:1]


def _owned(whole: int) -> int:
    """How many samples of a batch are this process's."""
    return len(range(procs.rank(), whole, procs.count()))


def _parts(count: int, parts: int) -> Iterator[tuple[int, int]]:
    """First and last row of each part, as `tensor_split` has them."""
    size, larger = divmod(count, parts)
    first = 0
    for number in range(parts):
        last = first + size + (number < larger)
        yield first, last
        first = last


def _spread(module: nn.Module, device: torch.device) -> nn.Module:
    """The module with gradients averaged over the processes."""
    procs.join()
    from accelerate import Accelerator

    network: nn.Module = Accelerator(cpu=device.type == "cpu").prepare_model(module)
    return network


def _compiled(network: nn.Module, device: torch.device) -> Any:
    """The same network, faster from its second step on."""
    known = [os.environ.get("CXX"), "g++", "clang++"]
    if device.type == "cpu" and not any(name and shutil.which(name) for name in known):
        raise BadInput("train.compile: needs a C++ compiler (g++ or clang++), and there is none; "
                       "install one, or leave `compile` out")  # fmt: skip
    torch.compiler.reset()  # trainings before this one count against the recompilation limit
    # An epoch's last batch is smaller: kernels of its own are faster than ones for any size.
    plain = device.type == "cpu" and inference.narrow(network)
    options: Any = {"layout_optimization": False} if plain else None  # it'd choose channels last
    return torch.compile(network, dynamic=False, options=options)


def _recomputed(module: nn.Module) -> Iterator[Callable[[], object]]:
    """Blocks keep their inputs only, and are computed again for their gradients.

    Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
    """
    for stage in module.children():
        for block in stage if isinstance(stage, nn.Sequential) else ():
            contexts = partial(_first_and_again, block)
            block.forward = partial(checkpoint, block.forward, use_reentrant=False,
                                    context_fn=contexts)  # fmt: skip
            yield partial(delattr, block, "forward")


def _first_and_again(
    block: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _unobserved(block)


@contextmanager
def _unobserved(block: nn.Module) -> Iterator[None]:
    """Batch norm doesn't count the same batch twice."""
    norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d) and m.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked


class _Summed(torch.autograd.Function):
    """The sum of a tensor over the processes, and of its gradient on the way back."""

    @staticmethod
    def forward(_ctx: object, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


class SynchronizedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batches of all processes, on any device (PyTorch's own needs GPUs)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        if not self.training:
            return super().forward(x)
        values = x.float()
        count = values.new_tensor([values.numel() / values.shape[1]])
        sums = torch.cat([values.sum((0, 2, 3)), values.square().sum((0, 2, 3)), count])
        mean, square, n = _Summed.apply(sums).split([self.num_features] * 2 + [1])
        mean, n = mean / n, n.detach()
        variance = (square / n - mean.square()).clamp(min=0)
        if self.track_running_stats and self.running_mean is not None:
            assert self.running_var is not None
            momentum = 0.1 if self.momentum is None else self.momentum
            with torch.no_grad():
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * n / (n - 1), momentum)
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked.add_(1)
        scale = self.weight * (variance + self.eps).rsqrt()
        shape = (1, -1, 1, 1)
        return ((values - mean.view(shape)) * scale.view(shape) + self.bias.view(shape)).to(x.dtype)


def _synchronized(module: nn.Module) -> Iterator[Callable[[], object]]:
    """Changes the classes of batch norms, so that parameters and their names stay."""
    for norm in module.modules():
        if type(norm) is nn.BatchNorm2d:
            norm.__class__ = SynchronizedBatchNorm
            yield partial(setattr, norm, "__class__", nn.BatchNorm2d)

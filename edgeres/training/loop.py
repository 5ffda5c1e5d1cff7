"""The one training loop: for a teacher, a student, fine-tuning after pruning, and QAT.

Images are uint8 tensors in memory; a batch is drawn, augmented as a whole, and handed to the
objective. Every random choice of an epoch comes from (seed, epoch), so a run resumed from an
epoch's checkpoint continues bit for bit.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeres.artifact import storage_errors
from edgeres.datasets import _batches
from edgeres.errors import EdgeresError
from edgeres.recipe import TrainSection
from edgeres.types import Accuracy, Preprocess

_CHECKPOINT_EVERY_S = 10.0
_EVALUATION_BATCH = 250

Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(model, uint8 images (N, 3, H, W), labels (N,)) -> scalar loss to minimize."""

Tick = Callable[[int, int, str], None]
"""(steps done, steps in all, what the numbers are now)"""


@dataclass(frozen=True)
class Labelled:
    """A split in memory: images uint8 (N, 3, H, W), labels int64 (N,)."""

    images: Tensor
    labels: Tensor


@dataclass
class Trainee:
    """A network and what differs between a plain module and an exported QAT graph.

    Attributes:
        set_training: switch the mode (exported graphs have no `train()`/`eval()`).
        start_epoch: called with (epoch, epochs) in training mode, before the first step.
    """

    module: nn.Module
    preprocess: Preprocess
    set_training: Callable[[bool], object]
    start_epoch: Callable[[int, int], None] = lambda epoch, epochs: None

    @classmethod
    def of(cls, module: nn.Module, preprocess: Preprocess) -> Trainee:
        """A plain module."""
        return cls(in_layout(module, preprocess), preprocess, module.train)


class Diverged(EdgeresError):
    """The loss is no longer a number."""


def fit(
    trainee: Trainee,
    train: Labelled,
    validation: Labelled,
    settings: TrainSection,
    objective: Objective,
    *,
    seed: int,
    work: Path,
    tick: Tick,
) -> list[dict[str, Any]]:
    """Train in place and return one row per epoch: epoch, loss, learning_rate, validation_top1.

    Args:
        settings: the stage's `train` section of the recipe.
        work: folder for the resume checkpoint; picks up what an interrupted call left there.

    Raises:
        Diverged: the loss became NaN or infinite.
        StorageError: the checkpoint could not be written.
    """
    steps = math.ceil(len(train.labels) / settings.batch_size)
    module = trainee.module
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = _optimizer(parameters, settings)
    average = _Average(module, settings.ema) if settings.ema else None
    history = _resume(work, module, optimizer, average)
    saved = time.monotonic()
    for epoch in range(len(history), settings.epochs):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        torch.manual_seed(seed * 1_000_003 + epoch)
        trainee.set_training(True)
        trainee.start_epoch(epoch, settings.epochs)
        total = torch.zeros(())
        order = _batches.batches(len(train.labels), settings.batch_size, generator, shuffle=True)
        for step, chosen in enumerate(order):
            done = epoch * steps + step
            rate = _learning_rate(settings, done, steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            images = _batches.augment(train.images[chosen], settings.augment, generator)
            loss = objective(module, images, train.labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if settings.clip_norm:
                nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
            optimizer.step()
            if average:
                average.update(module)
            total += loss.detach()
            tick(done + 1, settings.epochs * steps, f"epoch {epoch + 1}/{settings.epochs}")
        mean_loss = float(total) / steps
        if not math.isfinite(mean_loss):
            raise Diverged(
                f"training diverged in epoch {epoch + 1} (loss {mean_loss}); "
                f"lower train.learning_rate (now {settings.learning_rate}) or set train.clip_norm"
            )
        with average.applied(module) if average else nullcontext():
            top1 = evaluate(trainee, validation)[0].top1
        history.append({"epoch": epoch + 1, "loss": round(mean_loss, 6),
                        "learning_rate": rate, "validation_top1": round(top1, 6)})  # fmt: skip
        note = f"epoch {epoch + 1}/{settings.epochs} loss {mean_loss:.3f} val {top1:.1%}"
        tick((epoch + 1) * steps, settings.epochs * steps, note)
        if time.monotonic() - saved > _CHECKPOINT_EVERY_S and epoch + 1 < settings.epochs:
            _save(work, module, optimizer, average, history)
            saved = time.monotonic()
    if average:
        average.copy_to(module)
    trainee.set_training(False)
    return history


@torch.no_grad()
def evaluate(trainee: Trainee, split: Labelled) -> tuple[Accuracy, Tensor]:
    """Top-1 on a split, and its logits (N, C); leaves the network in evaluation mode."""
    trainee.set_training(False)
    logits = predict(trainee.module, split.images, trainee.preprocess)
    correct = int((logits.argmax(1) == split.labels).sum())
    return Accuracy(correct, len(split.labels)), logits


@torch.no_grad()
def predict(module: nn.Module, images: Tensor, preprocess: Preprocess) -> Tensor:
    """Logits (N, C) of uint8 images (N, 3, H, W), in batches, in the module's present mode."""
    parts = images.split(_EVALUATION_BATCH)
    return torch.cat([module(prepared(part, preprocess)) for part in parts])


def prepared(images: Tensor, preprocess: Preprocess) -> Tensor:
    """Normalized float32 input (N, 3, H, W) in the memory layout of `in_layout`."""
    return _batches.normalize(images, preprocess).contiguous(memory_format=_layout(preprocess))


def in_layout(module: nn.Module, preprocess: Preprocess) -> nn.Module:
    """The module with weights in the layout that its inputs come in (`prepared`)."""
    return module.to(memory_format=_layout(preprocess))  # type: ignore[call-overload,no-any-return]


def _layout(preprocess: Preprocess) -> torch.memory_format:
    return torch.channels_last if preprocess.size_px >= 32 else torch.contiguous_format


def _optimizer(parameters: list[nn.Parameter], settings: TrainSection) -> torch.optim.Optimizer:
    # Weights decay; biases and batch norm's one-dimensional scales don't.
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate)
    return torch.optim.SGD(
        groups,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
    )


def _learning_rate(settings: TrainSection, step: int, steps_per_epoch: int) -> float:
    """Linear warm-up, then half a cosine to zero (Loshchilov & Hutter 2017, equation 5)."""
    warmup = settings.warmup_epochs * steps_per_epoch
    if step < warmup:
        return settings.learning_rate * (step + 1) / (warmup + 1)
    rest = max(settings.epochs * steps_per_epoch - warmup, 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / rest))


class _Average:
    """Exponential moving average of weights and batch statistics, warmed up like 1/t."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        self.state = {k: v.clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)

    def copy_to(self, module: nn.Module) -> None:
        module.load_state_dict(self.state)

    def applied(self, module: nn.Module) -> _Swapped:
        return _Swapped(module, self.state)


class _Swapped:
    """Context in which a module carries another state."""

    def __init__(self, module: nn.Module, state: dict[str, Tensor]):
        self.module, self.state = module, state

    def __enter__(self) -> None:
        self.before = {k: v.clone() for k, v in self.module.state_dict().items()}
        self.module.load_state_dict(self.state)

    def __exit__(self, *_: object) -> None:
        self.module.load_state_dict(self.before)


def _save(
    work: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: _Average | None,
    history: list[dict[str, Any]],
) -> None:
    state: dict[str, Any] = {
        "model": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": history,
    }
    if average:
        state |= {"average": average.state, "updates": average.updates}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with storage_errors(work):
        (work / "resume.tmp").write_bytes(buffer.getbuffer())
        (work / "resume.tmp").replace(work / "resume.pt")


def _resume(
    work: Path, module: nn.Module, optimizer: torch.optim.Optimizer, average: _Average | None
) -> list[dict[str, Any]]:
    path = work / "resume.pt"
    if not path.exists():
        return []
    state = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if average:
        average.state, average.updates = state["average"], state["updates"]
    history: list[dict[str, Any]] = state["history"]
    return history

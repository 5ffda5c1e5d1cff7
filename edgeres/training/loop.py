"""The one training loop: for a teacher, a student, fine-tuning after pruning, and QAT.

Images are uint8 tensors, in memory or mapped into it, or photographs in files; a batch is drawn,
augmented as a whole, and handed to the objective. Every random choice comes from the seed and the
position (epoch, step, sample), so a run that was killed continues from its last checkpoint, in
mid-epoch too, and ends in the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeres import procs
from edgeres.datasets import _batches
from edgeres.errors import BadInput, EdgeresError
from edgeres.recipe import TrainSection
from edgeres.training import diagnose, placement
from edgeres.training.average import Average
from edgeres.training.engine import Engine, own_share
from edgeres.training.feed import Feed
from edgeres.training.inference import evaluate, for_gradients, in_layout, narrow, prepared
from edgeres.training.keeper import Keeper
from edgeres.training.pace import Pace
from edgeres.training.views import Labelled, Raw, Views, ViewSettings
from edgeres.types import Preprocess

Objective = Callable[..., Tensor]
"""(model, uint8 images (N, 3, H, W), labels (N,)) -> scalar loss to minimize; with stored answers
also `answer=` the teacher's logits (N, C). Two methods are optional: `replayable(stored)`, whether
it computes on the images' device, given whether there are stored answers, and reads beside them
only tensors that stay at their place, so that a step can be recorded (`replay`); and
`compile(batch)`, which makes batches of that size faster where no answers are stored."""

Tick = Callable[[int, int, str], None]
"""(steps done, steps in all, what the numbers are now)"""


@dataclass
class Trainee:
    """A network and what differs between a plain module and an exported QAT graph.

    Attributes:
        set_training: switch the mode (exported graphs have no `train()`/`eval()`).
        start_epoch: called with (epoch, epochs) in training mode, before the first step.
        start_step: called before each step; what it returns decides the step's kernels.
        end_epoch: called with the history so far, while the network is as it was evaluated.
        rates: of parameters that learn at a multiple of the learning rate.
        narrow: see `inference.narrow`.
    """

    module: nn.Module
    preprocess: Preprocess
    set_training: Callable[[bool], object]
    start_epoch: Callable[[int, int], None] = lambda epoch, epochs: None
    start_step: Callable[[], Hashable] = lambda: None
    end_epoch: Callable[[list[dict[str, float]]], None] = lambda history: None
    rates: Mapping[nn.Parameter, float] = field(default_factory=dict)
    narrow: bool = False

    @classmethod
    def of(cls, module: nn.Module, preprocess: Preprocess) -> Trainee:
        """A plain module."""
        laid_out = in_layout(module, preprocess)
        return cls(laid_out, preprocess, module.train, narrow=narrow(module))


class Extra(nn.Module):
    """What an objective trains along with the network, and is no part of it."""

    def start_step(self, progress: float) -> None:
        """Called before each step with the share of the training that is done, 0 to 1."""


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
    extra: Extra | None = None,
) -> list[dict[str, Any]]:
    """Train in place and return one row per epoch: epoch, loss, learning_rate, validation_top1.

    Args:
        train: if it carries a teacher's answers, the objective gets them as `answer`.
        settings: the stage's `train` section of the recipe.
        seed: the recipe's; decides the views, and all else unless `settings` has its own.
        work: folder for the resume checkpoint; picks up what an interrupted call left there.
        extra: trained and resumed with the network.

    Raises:
        Diverged: the loss became NaN or infinite.
        BadInput: the stored answers are to other views than these; the device is too small.
        StorageError: the checkpoint could not be written, or is damaged.
    """
    run = _Run(trainee, train, settings, objective, seed, work, tick, extra)
    try:
        position = run.keeper.position() or {"epoch": 0, "step": 0, "loss": 0.0, "history": []}
        history: list[dict[str, float]] = position["history"]
        for epoch in range(position["epoch"], settings.epochs):
            trainee.set_training(True)
            trainee.start_epoch(epoch, settings.epochs)
            first, loss = 0, 0.0
            if epoch == position["epoch"]:
                run.keeper.restore()
                first = position["step"]
                loss = position["loss"] * procs.count() if procs.first() else 0.0
            on_cpu = run.engine.device.type == "cpu"
            with (placement.kernels(run.engine.device, tf32=True),
                  for_gradients(trainee.module, trainee.narrow and on_cpu)):  # fmt: skip
                loss = _epoch(run, epoch, first, loss, history)
            if procs.first():
                _examine(run, epoch, loss, validation, history)
        if run.average:
            run.average.copy_to_module()
    except torch.OutOfMemoryError as error:
        raise BadInput(
            f"train: the GPU's memory is too small for a batch of {settings.batch_size}; set "
            f"train.accumulate to {2 * settings.accumulate}, or lower train.batch_size"
        ) from error
    finally:
        run.feed.close()
        run.engine.close()
    trainee.set_training(False)
    return history


class _Run:
    """The parts of one training."""

    def __init__(
        self, trainee: Trainee, train: Labelled, settings: TrainSection, objective: Objective,
        seed: int, work: Path, tick: Tick, extra: Extra | None,
    ):  # fmt: skip
        self.trainee, self.train, self.settings = trainee, train, settings
        self.seed = settings.seed_or(seed)
        self.objective, self.tick, self.extra = objective, tick, extra
        self.views = Views(train, ViewSettings.of(settings, seed))
        if train.answers:
            train.answers.check(self.views.settings)
        self.steps = math.ceil(len(train.labels) / settings.batch_size)
        self.engine = Engine(trainee.module, settings, extra)
        self.feed = Feed(self.views, self.engine.device, work)
        self.pace = Pace(settings.batch_size, self.engine.device)
        stored = train.answers is not None
        replayable = getattr(objective, "replayable", lambda _: False)
        if self.engine.replayable and replayable(stored):
            self.engine.replay(shared=not self.feed.resident)
        if settings.compile and self.engine.device.type == "cuda" and not stored:
            share = settings.batch_size // (procs.count() * settings.accumulate)
            getattr(objective, "compile", lambda _: None)(share)
        self.optimizer = _optimizer(self.engine.parameters, settings, trainee.rates)
        self.average = Average(trainee.module, settings.ema) if settings.ema else None
        self.keeper = Keeper(work, {
            "model": trainee.module, "optimizer": self.optimizer, "average": self.average,
            "extra": extra, "scaler": self.engine.scaler,
        }, writes=procs.first())  # fmt: skip

    def loss(self, network: nn.Module, raw: Raw) -> Tensor:
        """The objective's for some samples of a view."""
        images, labels = self.views.made(raw)
        known = {} if raw.answer is None else {"answer": raw.answer}
        return self.objective(network, images, labels, **known)

    def step(self, done: int, raw: Raw, whole: int) -> Tensor:
        """One update, after `done` others; this process's part of the loss.

        On another device than the CPU nothing here waits for it.

        Args:
            whole: how many samples the batch has in all processes.
        """
        settings = self.settings
        # Whatever the network itself draws, in each process something else:
        torch.manual_seed(self.seed * 1_000_000_007 + done + (procs.rank() << 50))
        for group in self.optimizer.param_groups:
            group["lr"] = _learning_rate(settings, done, self.steps) * group["rate"]
        if self.extra:
            self.extra.start_step(done / (settings.epochs * self.steps))
        kind = self.trainee.start_step()
        self.optimizer.zero_grad(set_to_none=True)
        part = self.engine.gradients(raw, self.loss, whole, kind)
        if part.device.type == "cpu" and not bool(torch.isfinite(part)):
            raise _diverged(self, done // self.steps, float(part), raw.samples)
        self.engine.update(self.optimizer, settings.clip_norm)
        if self.average:
            self.average.update()
        return part


def _epoch(
    run: _Run, epoch: int, first: int, loss: float, history: list[dict[str, float]]
) -> float:
    """Train from step `first` on, before which the losses summed up to `loss`; the mean loss.

    Raises:
        Diverged: it is NaN or infinite.
    """
    settings, answers = run.settings, run.train.answers
    total = torch.tensor(loss, device=run.engine.device)
    view = epoch % answers.count if answers else epoch
    order = list(_order(len(run.train.labels), settings, run.seed, epoch))
    batches = run.feed.epoch([own_share(chosen) for chosen in order[first:]], view)
    for step, (chosen, raw) in enumerate(zip(order[first:], batches, strict=True), first):
        done = epoch * run.steps + step
        total += run.step(done, raw, len(chosen))
        note = f"epoch {epoch + 1}/{settings.epochs}{run.pace.step()}"
        run.tick(done + 1, settings.epochs * run.steps, note)
        run.keeper.save_now_and_then(epoch=epoch, step=step + 1, loss=total, history=history)
    mean_loss = run.engine.summed(total) / run.steps
    if not math.isfinite(mean_loss):
        raise _diverged(run, epoch, mean_loss, raw.samples.cpu())
    return mean_loss


def _diverged(run: _Run, epoch: int, loss: float, chosen: Tensor) -> Diverged:
    """The error, with what is wrong inside the network on the batch at hand."""
    images, _ = run.views.batch(chosen, epoch, run.engine.device)
    inside = diagnose.diverged(run.trainee.module, prepared(images, run.trainee.preprocess))
    return Diverged(
        f"training diverged in epoch {epoch + 1} (loss {loss}); lower train.learning_rate "
        f"(now {run.settings.learning_rate}){', the weight of hints' if run.extra else ''} or set "
        f"train.clip_norm{inside}"
    )


def _examine(
    run: _Run, epoch: int, loss: float, validation: Labelled, history: list[dict[str, float]]
) -> None:
    """Add the epoch's row to the history."""
    settings = run.settings
    rate = _learning_rate(settings, (epoch + 1) * run.steps - 1, run.steps)
    with run.average.applied() if run.average else nullcontext():
        top1 = evaluate(run.trainee, validation)[0].top1
        history.append({"epoch": epoch + 1, "loss": round(loss, 6),
                        "learning_rate": rate, "validation_top1": round(top1, 6)})  # fmt: skip
        run.trainee.end_epoch(history)
    note = f"epoch {epoch + 1}/{settings.epochs} loss {loss:.3f} val {top1:.1%}"
    run.tick((epoch + 1) * run.steps, settings.epochs * run.steps, note)


def _order(n: int, settings: TrainSection, seed: int, epoch: int) -> Iterator[Tensor]:
    """The epoch's batches of sample numbers, the same whenever it is asked for."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return _batches.batches(n, settings.batch_size, generator, shuffle=True)


def _optimizer(
    parameters: list[nn.Parameter], settings: TrainSection, rates: Mapping[nn.Parameter, float]
) -> torch.optim.Optimizer:
    # Weights decay; biases and batch norm's one-dimensional scales don't.
    groups = [
        {"params": [p for p in parameters if (p.ndim > 1) == decays and rates.get(p, 1.0) == rate],
         "weight_decay": settings.weight_decay if decays else 0.0, "rate": rate}
        for rate in sorted({1.0, *rates.values()}) for decays in (True, False)
    ]  # fmt: skip
    fused = parameters[0].device.type == "cuda"
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=fused)
    return torch.optim.SGD(
        groups,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
        fused=fused,
    )


def _learning_rate(settings: TrainSection, step: int, steps_per_epoch: int) -> float:
    """Linear warm-up, then half a cosine to zero (Loshchilov & Hutter 2017, equation 5)."""
    warmup = settings.warmup_epochs * steps_per_epoch
    if step < warmup:
        return settings.learning_rate * (step + 1) / (warmup + 1)
    rest = max(settings.epochs * steps_per_epoch - warmup, 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / rest))

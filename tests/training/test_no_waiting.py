"""A training step of each kind, with everything on the meta device: nothing waits for it.

The meta device stands for a GPU: it has shapes and no numbers, so that whatever reads one
(`.item()`, `.tolist()`, a branch on a tensor, a mask's number of rows) raises. Tensors of a CPU
among a step's operations are refused too, and constants made of numbers: each would be a copy that
waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import images, network
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edgeres.compression.qat import QatModel
from edgeres.datasets import _augment
from edgeres.models import resnet, spec
from edgeres.recipe import HintSection, MixSection, TrainSection
from edgeres.training import label_cache, loop, objectives
from edgeres.training.answers import Network
from edgeres.training.hints import Hints
from edgeres.training.label_cache import LabelCache, Layout
from edgeres.training.views import Labelled, Raw, Views, ViewSettings

PX, COUNT = 8, 24
PREPROCESS = spec.default_preprocess(PX)
SPLIT = Labelled(images(COUNT, px=PX), torch.arange(COUNT) % 10)
EVERYTHING = _augment.AUGMENTATIONS


class NoCpu(TorchDispatchMode):
    """Refuses operations that take a tensor of the CPU or make one, but for single numbers that
    aren't copied: those go along with a kernel."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, out)):
            on_cpu = isinstance(leaf, Tensor) and leaf.device.type == "cpu"
            if on_cpu and (leaf.ndim or "copy" in str(func)):
                raise AssertionError(f"{func} has a tensor of the CPU, {tuple(leaf.shape)}")
        return out


class NoConstants(TorchFunctionMode):
    """Refuses to bring numbers to a device."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, Tensor.new_tensor) and out.device.type != "cpu":
            raise AssertionError(f"{func} brings numbers to the device")
        return out


@contextmanager
def no_waiting() -> Iterator[None]:
    with NoConstants(), NoCpu():
        yield


def student(**settings: Any) -> resnet.ResNet:
    return resnet.build(spec.parse("resnet8-w0.5", 10, PREPROCESS), **settings)


def teacher() -> Network:
    return Network(network("resnet14-w0.5", px=PX))


def distilled(hints: Hints | None = None, loss: str = "kd") -> Any:
    return objectives.distilled(hints or teacher(), PREPROCESS, temperature=4.0, alpha=0.9,
                                smoothing=0.1, loss=loss, hints=hints)  # fmt: skip


def hinted() -> tuple[Any, Any, Any]:
    net = student()
    hints = Hints.of(
        (HintSection(teacher="layer3", student="layer3", schedule="cosine"),
         HintSection(teacher="layer2", student="layer2", loss="attention")),
        teacher(), net, PREPROCESS,
    )  # fmt: skip
    return loop.Trainee.of(net, PREPROCESS), distilled(hints), hints


def quantized(frozen: bool, learned: bool = False, scheme: str = "w8a8") -> Callable[[], Any]:
    def make() -> tuple[Any, Any, Any]:
        model = QatModel(student(), freeze_observers=not frozen, freeze_batchnorm=not frozen,
                         scheme=scheme, learned_steps=learned)  # fmt: skip
        model.calibrate(SPLIT.images)
        return model.trainee(), distilled(), None

    return make


def plain(objective: Any = None, **settings: Any) -> Callable[[], Any]:
    def make() -> tuple[Any, Any, Any]:
        trainee = loop.Trainee.of(student(**settings), PREPROCESS)
        return trainee, objective or objectives.supervised(PREPROCESS, 0.1), None

    return make


KINDS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "plain": (plain(), {}),
    "every augmentation": (plain(), {"augment": EVERYTHING}),
    "ema, clipped, in parts": (plain(), {"ema": 0.9, "clip_norm": 1.0, "accumulate": 3}),
    "adamw": (plain(), {"optimizer": "adamw", "learning_rate": 0.001}),
    "stochastic depth": (plain(stochastic_depth=0.3), {}),
    "mixed": (plain(), {"mix": MixSection(share=0.7)}),
    "KD live": (lambda: plain(distilled())(), {}),
    "KD live, mixed": (lambda: plain(distilled())(), {"mix": MixSection()}),
    "DKD": (lambda: plain(distilled(loss="dkd"))(), {}),
    "DIST": (lambda: plain(distilled(loss="dist"))(), {}),
    "KD cached": (lambda: plain(distilled())(), {"cached": 10}),
    "KD cached, the largest answers": (lambda: plain(distilled())(), {"cached": 4}),
    "hints": (hinted, {}),
    "QAT running": (quantized(frozen=False), {}),
    "QAT frozen": (quantized(frozen=True), {}),
    "QAT learned steps": (quantized(frozen=False, learned=True), {}),
    "QAT w8a16": (quantized(frozen=False, scheme="w8a16"), {}),
}


@pytest.fixture
def stepped(tmp_path: Path) -> Callable[[str], Iterator[tuple[loop._Run, Raw, Tensor]]]:
    """Takes two epochs' steps of a kind: the first brings all that stays, the second is watched."""

    def steps(kind: str) -> Iterator[tuple[loop._Run, Raw, Tensor]]:
        make, given = KINDS[kind]
        settings = TrainSection(
            **{"batch_size": 16, "epochs": 2, "augment": ("crop", "flip"),
               **{k: v for k, v in given.items() if k != "cached"}}
        ).model_copy(update={"device": "meta"})  # fmt: skip
        split = SPLIT
        if "cached" in given:
            seen = ViewSettings.of(settings, 0)
            label_cache.build(teacher(), Views(SPLIT, seen), Layout(1, COUNT, 10, given["cached"],
                              seen), tmp_path, lambda *_: None)  # fmt: skip
            split = Labelled(SPLIT.images, SPLIT.labels, LabelCache(tmp_path))
        trainee, objective, extra = make()
        run = loop._Run(trainee, split, settings, objective, 0, tmp_path, lambda *_: None, extra)
        for epoch in range(2):
            trainee.set_training(True)
            trainee.start_epoch(epoch, 2)
            order = list(loop._order(COUNT, settings, 0, epoch))
            batches = run.feed.epoch(order, 0)
            first = next(batches)  # the epoch's numbers are brought with it
            with no_waiting() if epoch else nullcontext():
                losses = [run.step(epoch * 2, first, 16)]
                last = next(batches)
                losses.append(run.step(epoch * 2 + 1, last, 8))
            yield from zip([run] * 2, [first, last], losses, strict=True)

    return steps


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_never_waits_for_the_device(kind: str, stepped: Callable[[str], Any]) -> None:
    for run, raw, loss in stepped(kind):
        assert run.feed.resident
        assert {x.device.type for x in (loss, *raw.tensors().values())} == {"meta"}
        trained = [p for p in run.engine.parameters if p.grad is not None]
        assert trained
        assert all(p.grad is not None and p.grad.device.type == "meta" for p in trained)


@pytest.mark.parametrize("wait", [
    lambda x: x.sum().item(), lambda x: x.tolist(), lambda x: x[x > 0], lambda x: bool(x.any()),
    lambda x: x * x.new_tensor([1.0, 2.0]), lambda x: x + torch.ones(2), lambda x: x.cpu(),
])  # fmt: skip
def test_what_would_wait_is_noticed(wait: Callable[[Tensor], Any]) -> None:
    with no_waiting(), pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        wait(torch.ones(2, device="meta"))

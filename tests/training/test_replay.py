"""A recorded step is the step as written, whatever changes from step to step.

There is no GPU here. In its place, a recording of PyTorch's operations with the very tensors that
they read and wrote: like a CUDA graph it repeats them on the same memory, and nothing else, so a
number that Python put in (a learning rate, a weight of a schedule, a scale) would stay what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from conftest import images, network
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edgeres.compression.fake_quant import Range
from edgeres.compression.qat import QatModel
from edgeres.compression.sparsity import GroupSparsity
from edgeres.models import resnet, spec
from edgeres.recipe import HintSection, MixSection, TrainSection
from edgeres.training import loop, objectives, replay
from edgeres.training.answers import Network
from edgeres.training.engine import Engine
from edgeres.training.hints import Hints
from edgeres.training.views import Labelled

PX, COUNT = 8, 40
PREPROCESS = spec.default_preprocess(PX)
SPLIT = Labelled(images(COUNT, px=PX), torch.arange(COUNT) % 10)


class Recording(TorchDispatchMode):
    """Stands for `torch.cuda.CUDAGraph`."""

    made: ClassVar[list[Recording]] = []

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.replays = 0
        Recording.made.append(self)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def pool(self) -> None:
        return None

    def replay(self) -> None:
        self.replays += 1
        with torch.no_grad():
            for func, args, kwargs, out in self.calls:
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Recording]]:
    """Has trainings replay recordings from now on; returns those made so far."""

    @contextmanager
    def graph(made: Recording, **_: object) -> Iterator[None]:
        """To record computes nothing, so what it changed is put back."""
        before = [(x, x.clone()) for x in changed]
        with torch.random.fork_rng(devices=[]), made:
            yield
        for x, value in before:
            x.copy_(value)

    changed: list[Tensor] = []

    def on() -> list[Recording]:
        Recording.made = []
        aside = SimpleNamespace(wait_stream=lambda _: None)
        monkeypatch.setattr(replay, "torch", SimpleNamespace(cuda=SimpleNamespace(
            Stream=lambda: aside, current_stream=lambda: aside, stream=lambda _: nullcontext(),
            synchronize=lambda: None, CUDAGraph=Recording, graph=graph)))  # fmt: skip
        monkeypatch.setattr(Range, "_by_numbers", Range._by_tensors)
        monkeypatch.setattr(Range, "_renew", lambda one: one.live.copy_(one._grid()))
        begin = Engine.__init__

        def recorded(engine: Engine, module: Any, *args: Any) -> None:
            begin(engine, module, *args)
            changed[:] = [x.detach() for x in (*module.parameters(), *module.buffers())]
            engine.replayable = True

        monkeypatch.setattr(Engine, "__init__", recorded)
        return Recording.made

    return on


def train(kind: str, work: Path, **more: Any) -> tuple[list[Any], list[Tensor]]:
    work.mkdir()
    net = resnet.build(spec.parse("resnet8-w0.5", 10, PREPROCESS),
                       stochastic_depth=0.3 if kind == "stochastic depth" else 0.0)  # fmt: skip
    settings = TrainSection(**{"epochs": 10, "batch_size": 16, "learning_rate": 0.02, "ema": 0.9,
                               "augment": ("crop", "flip"), "device": "cpu", **more})  # fmt: skip
    trainee, extra = loop.Trainee.of(net, PREPROCESS), None
    objective = objectives.supervised(PREPROCESS, 0.1)
    teacher = Network(network("resnet14-w0.5", px=PX))
    if kind == "hints":
        sections = (HintSection(teacher="layer3", student="layer3", schedule="cosine"),)
        extra = Hints.of(sections, teacher, net, PREPROCESS)
    if kind in ("KD", "hints"):
        objective = objectives.distilled(teacher, PREPROCESS, temperature=4, alpha=0.9,
                                         smoothing=0, hints=extra)  # fmt: skip
    if kind == "group sparsity":
        sparsity = GroupSparsity(net, 0.01)
        objective = sparsity.objective(objective)
        trainee.start_epoch = lambda epoch, epochs: sparsity.refresh()
    if kind.startswith("QAT"):
        model = QatModel(net, freeze_observers=0.5, freeze_batchnorm=0.75,
                         learned_steps=kind == "QAT learned")  # fmt: skip
        model.calibrate(SPLIT.images)
        trainee = model.trainee()
    rows = loop.fit(trainee, SPLIT, SPLIT, settings, objective, seed=0, work=work,
                    tick=lambda *_: None, extra=extra)  # fmt: skip
    return [row["loss"] for row in rows], [p.detach() for p in trainee.module.parameters()]


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("plain", {}), ("plain", {"mix": MixSection(share=0.7)}), ("plain", {"accumulate": 2}),
    ("plain", {"clip_norm": 0.5, "optimizer": "adamw", "learning_rate": 0.002}),
    ("stochastic depth", {}), ("KD", {}), ("hints", {}), ("group sparsity", {}), ("QAT", {}),
    ("QAT learned", {}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "more"), KINDS)
def test_a_recorded_training_is_the_written_one(
    kind: str, more: dict[str, Any], tmp_path: Path, recording: Callable[[], list[Recording]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    made = recording()
    with monkeypatch.context() as patched:
        patched.setattr(replay, "_WARM_UP", 10**6)
        losses, written = train(kind, tmp_path / "written", **more)
    assert not made
    again, recorded = train(kind, tmp_path / "recorded", **more)
    assert sum(one.replays for one in made) > 10
    assert again == pytest.approx(losses, rel=1e-4)
    for a, b in zip(recorded, written, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_what_cant_be_recorded_is_said_once_and_computed_as_written(
    tmp_path: Path, recording: Callable[[], list[Recording]], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, _ = train("plain", tmp_path / "plain")
    recording()

    @contextmanager
    def refused(*_: object, **__: object) -> Iterator[None]:
        yield
        raise RuntimeError("operation not permitted when stream is capturing\nand so on")

    monkeypatch.setattr(replay.torch.cuda, "graph", refused)
    with pytest.warns(UserWarning, match=r"stay slower \(operation not permitted") as said:
        again, _ = train("plain", tmp_path / "refused")
    assert len([w for w in said if "CUDA graph" in str(w.message)]) == 1
    assert len(again) == len(losses)
    assert again[0] == pytest.approx(losses[0], rel=1e-4)

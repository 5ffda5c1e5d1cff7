"""The loop: it learns, it is repeatable, and a killed run ends in the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import images

from edgeres.models import resnet, spec
from edgeres.recipe import TrainSection
from edgeres.training import inference, keeper, loop, objectives, pace
from edgeres.training.loop import Trainee
from edgeres.training.views import Labelled

PREPROCESS = spec.default_preprocess(16)


def separable(count: int = 96, seed: int = 0) -> Labelled:
    """Bright or dark images: two classes that a network must learn at once."""
    pixels = images(count, seed=seed) // 4
    labels = torch.arange(count) % 2
    return Labelled(pixels + (labels * 128).to(torch.uint8).view(-1, 1, 1, 1), labels)


def fit(work: Path, settings: TrainSection, seed: int = 0, **kwargs: object) -> tuple:
    model = resnet.build(spec.parse("resnet8", 2, PREPROCESS), seed=seed)
    trainee = Trainee.of(model, PREPROCESS)
    history = loop.fit(
        trainee, separable(), separable(32, seed=1), settings,
        objectives.supervised(PREPROCESS, settings.label_smoothing),
        seed=seed, work=work, tick=kwargs.get("tick", lambda *_: None),
    )  # fmt: skip
    return trainee, history


def state(trainee: Trainee) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in trainee.module.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


def test_it_learns(tmp_path: Path) -> None:
    trainee, history = fit(tmp_path, TrainSection(epochs=4, batch_size=16, learning_rate=0.05))
    assert history[-1]["loss"] < 0.3 < history[0]["loss"] + 0.3
    assert inference.evaluate(trainee, separable(64, seed=2))[0].top1 > 0.95
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]


@pytest.mark.parametrize("change", [{}, {"optimizer": "adamw", "learning_rate": 0.002},
                                    {"ema": 0.9}, {"clip_norm": 1.0}, {"label_smoothing": 0.1},
                                    {"augment": ("crop", "flip", "cutout")}])  # fmt: skip
def test_the_same_seed_gives_the_same_bits(tmp_path: Path, change: dict) -> None:
    settings = TrainSection(**{"epochs": 1, "batch_size": 32, "learning_rate": 0.05, **change})
    runs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        runs.append(state(fit(tmp_path / name, settings)[0]))
    assert same(*runs)
    (tmp_path / "c").mkdir()
    assert not same(runs[0], state(fit(tmp_path / "c", settings, seed=1)[0]))


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_killed_run_continues_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema: float | None
) -> None:
    monkeypatch.setattr(keeper, "EVERY_S", -1.0)  # after every step
    monkeypatch.setattr(keeper, "_PATIENCE", 0)
    settings = TrainSection(epochs=4, batch_size=32, learning_rate=0.05, ema=ema)
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole, history = fit(tmp_path / "whole", settings)

    def kill(done: int, total: int, note: str) -> None:
        if done > total * 0.6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "killed", settings, tick=kill)
    assert (tmp_path / "killed" / "resume.pt").exists()
    resumed, again = fit(tmp_path / "killed", settings)
    assert again == history
    assert same(state(whole), state(resumed))


def test_divergence_is_one_sentence_with_the_mend(tmp_path: Path) -> None:
    settings = TrainSection(epochs=4, batch_size=16, learning_rate=100, weight_decay=1.0)
    with pytest.raises(loop.Diverged, match=r"lower train\.learning_rate"):
        fit(tmp_path, settings)


def test_parameters_learn_at_their_own_rates() -> None:
    model = resnet.build(spec.parse("resnet8", 2, PREPROCESS))
    parameters = list(model.parameters())
    rates = dict.fromkeys(model.fc.parameters(), 10.0)
    groups = loop._optimizer(parameters, TrainSection(), rates).param_groups
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(map(id, parameters))
    assert {id(p) for g in groups if g["rate"] == 10 for p in g["params"]} == set(map(id, rates))
    assert {g["weight_decay"] > 0 for g in groups for p in g["params"] if p.ndim > 1} == {True}


def test_no_weight_decay_on_biases_and_norms() -> None:
    model = resnet.build(spec.parse("resnet8", 2, PREPROCESS))
    groups = loop._optimizer(
        list(model.parameters()), TrainSection(weight_decay=0.1), {}
    ).param_groups
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0]
    assert all(p.ndim > 1 for p in groups[0]["params"])
    assert all(p.ndim == 1 for p in groups[1]["params"])


def test_warm_up_then_cosine_to_zero() -> None:
    settings = TrainSection(epochs=10, warmup_epochs=2, learning_rate=0.4)
    rates = [loop._learning_rate(settings, step, 10) for step in range(100)]
    assert rates[0] < rates[10] < rates[19] < 0.4
    assert rates[20] == pytest.approx(0.4)
    assert rates[60] == pytest.approx(0.2)
    assert 0 <= rates[-1] < 0.001


def test_how_fast_it_goes_is_said_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    going = pace.Pace(256, torch.device("cpu"))
    assert going.step() == ""
    now[0] += 2
    assert going.step() == ", 256 images/s"
    now[0] += 0.5
    assert going.step() == ", 256 images/s"  # not worked out again
    now[0] += 0.5
    assert going.step() == ", 341 images/s"

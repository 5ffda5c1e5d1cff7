"""Hints: the papers' formulas by hand, adapters that learn, names that are checked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import images, network

from edgeres.errors import BadInput
from edgeres.models import resnet, spec
from edgeres.recipe import HintSection, TrainSection, load_mapping
from edgeres.training import hints as hinting
from edgeres.training import keeper, loop, losses, objectives
from edgeres.training.answers import Network
from edgeres.training.hints import Hints, _distance
from edgeres.training.views import Labelled

PREPROCESS = spec.default_preprocess(8)


def section(**given: Any) -> HintSection:
    return HintSection(**{"teacher": "layer3", "student": "layer3", **given})


def student(name: str = "resnet8-w0.5") -> resnet.ResNet:
    return resnet.build(spec.parse(name, 10, PREPROCESS))


def hints(*sections: HintSection, module: resnet.ResNet | None = None) -> Hints:
    made = Hints.of(sections, Network(network("resnet8", px=8)), module or student(), PREPROCESS)
    assert made is not None
    return made


def test_a_hint_is_half_the_mean_square() -> None:
    own = torch.tensor([[[[1.0, 2.0]], [[0.0, 0.0]]]])
    theirs = torch.tensor([[[[0.0, 2.0]], [[2.0, -1.0]]]])
    assert losses.hint(own, theirs).item() == pytest.approx(0.5 * (1 + 0 + 4 + 1) / 4)


def test_attention_is_the_distance_of_normalized_maps() -> None:
    features = torch.tensor([[[[1.0, 0.0]], [[1.0, 2.0]]]])  # two channels, two places
    assert losses.attention_map(features).tolist() == [[[2.0, 4.0]]]
    own, theirs = torch.tensor([[3.0, 4.0]]), torch.tensor([[10.0, 0.0]])
    by_hand = 0.5 * math.sqrt((0.6 - 1.0) ** 2 + 0.8**2)
    assert losses.attention(own, theirs).item() == pytest.approx(by_hand, rel=1e-5)
    same = own.clone().requires_grad_()
    losses.attention(same, own).backward()
    assert same.grad is not None and bool(torch.isfinite(same.grad).all())


def test_schedules_by_hand() -> None:
    shares = {kind: [hinting._share(kind, p) for p in (0, 0.25, 0.5, 1)]
              for kind in ("constant", "linear", "cosine")}  # fmt: skip
    assert shares["constant"] == [1, 1, 1, 1]
    assert shares["linear"] == [1, 0.75, 0.5, 0]
    assert shares["cosine"] == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, 0])


def test_weights_and_schedule_scale_the_distance() -> None:
    module = student()
    made = hints(section(weight=3.0, schedule="linear"), section(loss="attention"), module=module)
    parts = [hints(section(), module=module), hints(section(loss="attention"), module=module)]
    seen = images(4, px=8)
    for one in (made, *parts):
        one.answer(seen)
    module.eval()((seen.float() - 128) / 64)
    made.start_step(0.25)
    expected = 3 * 0.75 * parts[0].distance() + parts[1].distance()
    torch.testing.assert_close(made.distance(), expected)


def test_a_teacher_with_larger_maps_and_other_widths_can_hint() -> None:
    module = student()
    made = hints(section(teacher="layer1", student="layer2.0"),
                 section(teacher="layer1.0", loss="attention"), module=module)  # fmt: skip
    assert made.adapters[0].weight.shape == (16, 16, 1, 1)
    made.answer(images(2, px=8))
    module(torch.zeros(2, 3, 8, 8))
    assert made.distance().item() > 0


def test_a_training_lowers_the_distance_and_goes_on_with_its_adapters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "EVERY_S", 0)
    monkeypatch.setattr(keeper, "_PATIENCE", 0)
    data = Labelled(images(48, px=8), torch.arange(48) % 10)
    settings = TrainSection(epochs=3, batch_size=16, learning_rate=0.02)

    def train(name: str, kill_at: int = 0) -> tuple[resnet.ResNet, Hints, list[float]]:
        module, seen = student(), []
        made = hints(section(), section(loss="attention"), module=module)
        distance = made.distance

        def watched() -> torch.Tensor:
            seen.append(distance())
            return seen[-1]

        made.distance = watched  # type: ignore[method-assign]
        objective = objectives.distilled(made._teacher[0], PREPROCESS, temperature=4, alpha=1,
                                         smoothing=0, hints=made)  # fmt: skip

        def tick(done: int, total: int, note: str) -> None:
            if done == kill_at:
                raise KeyboardInterrupt

        (tmp_path / name).mkdir(exist_ok=True)
        loop.fit(loop.Trainee.of(module, PREPROCESS), data, data, settings, objective,
                 seed=0, work=tmp_path / name, tick=tick, extra=made)  # fmt: skip
        made.close()
        return module, made, [d.item() for d in seen]

    module, made, distances = train("whole")
    assert sum(distances[-3:]) < 0.96 * sum(distances[:3])
    assert not any("adapter" in name for name in module.state_dict())
    assert not any(layer._forward_hooks for layer in module.modules())
    with pytest.raises(KeyboardInterrupt):
        train("killed", kill_at=5)
    resumed, again, _ = train("killed")
    for a, b in ((module, resumed), (made, again)):
        assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


@pytest.mark.parametrize(("wrong", "says"), [
    ({"teacher": "layr3"}, r"the teacher has no layer 'layr3' \(did you mean 'layer3'\?\)"),
    ({"student": "layer9"}, r"the student has no layer 'layer9'.*; its parts: conv1, "),
    ({"student": "fc"}, "the student's layer 'fc' gives no feature map"),
])  # fmt: skip
def test_a_wrong_layer_is_named_with_the_nearest(wrong: dict[str, str], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        hints(section(**wrong))


def test_hints_exclude_stored_answers_and_teachers_without_layers() -> None:
    hint = {"teacher": "layer3", "student": "layer3"}
    with pytest.raises(BadInput, match="`hints` need the teacher in every step"):
        load_mapping({"name": "x", "distill": {"hints": [hint], "cache": {}}})

    class Oracle:
        def answer(self, seen: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(seen), 10)

    with pytest.raises(BadInput, match="answers only"):
        Hints.of([section()], Oracle(), student(), PREPROCESS)


@pytest.mark.parametrize("kind", ["hint", "attention"])
def test_features_in_half_precision_are_compared_in_float32(kind: str) -> None:
    """Their squares are beyond float16 from 256 on."""
    own = torch.full((1, 2, 2, 2), 300.0)
    theirs = torch.stack([own[:, 0] / 2, own[:, 0] * 2], 1)
    exact = _distance(kind, own, theirs)
    assert exact.isfinite()
    torch.testing.assert_close(_distance(kind, own.half(), theirs.half()), exact)

"""Diagnosis: each planted fault is found and named, and a healthy network has none."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from teachers.conftest import PX, pictures
from typer.testing import CliRunner

from edgeres.cli import app
from edgeres.models import resnet, spec
from edgeres.models.resnet import ResNet
from edgeres.recipe import TrainSection
from edgeres.training import diagnose, loop, objectives, recalibration
from edgeres.training.inference import prepared
from edgeres.training.loop import Trainee
from edgeres.training.views import Labelled

PREPROCESS = spec.default_preprocess(PX)
IMAGES, LABELS = pictures(128, 3)


def learned(name: str, tmp: Path) -> ResNet:
    model = resnet.build(spec.parse(name, 4, PREPROCESS))
    split = Labelled(*pictures(192, 0))
    settings = TrainSection(epochs=3, batch_size=16, learning_rate=0.02, augment=("flip",))
    loop.fit(Trainee.of(model, PREPROCESS), split, split, settings,
             objectives.supervised(PREPROCESS, 0.0), seed=0, work=tmp,
             tick=lambda *_: None)  # fmt: skip
    return model.eval()


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> ResNet:
    return learned("resnet8", tmp_path_factory.mktemp("work"))


def found(model: ResNet) -> list[diagnose.Finding]:
    before = {k: v.clone() for k, v in model.state_dict().items()}
    gradients = [p.grad for p in model.parameters()]
    findings = diagnose.examine(model, prepared(IMAGES, PREPROCESS), LABELS)
    assert not model.training
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))
    after = model.state_dict()
    assert all(torch.equal(before[k], after[k]) or not before[k].isfinite().all() for k in before)
    return findings


@pytest.mark.parametrize("name", ["resnet8-w0.5-preact", "resnet8-w0.5-se"])
def test_a_healthy_network_has_no_finding(name: str, tmp_path: Path) -> None:
    assert found(learned(name, tmp_path)) == []


def dead(model: ResNet) -> None:
    model.layer2[0].bn1.bias.fill_(-100)


def exploding(model: ResNet) -> None:
    model.layer3[0].bn2.weight.mul_(1000)


def stale(model: ResNet) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()


def shifted(model: ResNet) -> None:
    norm = model.layer2[0].bn1
    norm.running_mean.add_(3 * norm.running_var.sqrt())


def zeroed_shortcut(model: ResNet) -> None:
    model.layer2[0].downsample[1].weight.zero_()
    model.layer2[0].downsample[1].bias.zero_()


def silent_branch(model: ResNet) -> None:
    model.layer3[0].bn2.weight.zero_()
    model.layer3[0].bn2.bias.zero_()


def nan_weight(model: ResNet) -> None:
    model.layer3[0].conv2.weight[0, 0, 0, 0] = float("nan")


def overflowing(model: ResNet) -> None:
    model.layer1[0].conv2.weight.fill_(3e38)


@pytest.mark.parametrize(
    ("plant", "kind", "layer", "says"),
    [(dead, "dead", "layer2.0.bn1", "never above zero"),
     (exploding, "growth", "layer3.0", "times its input"),
     (shifted, "statistics", "layer2.0.bn1", "aren't those of these images"),
     (zeroed_shortcut, "shortcut", "layer2.0.downsample", "identity path carries 0"),
     (silent_branch, "branch", "layer3.0", "residual branch adds 0"),
     (nan_weight, "nan", "layer3.0.conv2", "conv2.weight is NaN"),
     (overflowing, "nan", "layer1.0.conv2", "though its weights are numbers")],
)  # fmt: skip
def test_a_planted_fault_is_found_and_named(
    healthy: ResNet, plant: object, kind: str, layer: str, says: str
) -> None:
    assert found(healthy) == []
    broken = copy.deepcopy(healthy)
    with torch.no_grad():
        plant(broken)  # type: ignore[operator]
    findings = found(broken)
    assert (kind, layer) in [(f.kind, f.layer) for f in findings]
    finding = next(f for f in findings if (f.kind, f.layer) == (kind, layer))
    assert says in finding.says and finding.mend


def test_recalibration_mends_stale_statistics(healthy: ResNet) -> None:
    model = copy.deepcopy(healthy)
    stale(model)
    assert [f.kind for f in found(model)] == ["statistics"]
    batches = (prepared(part, PREPROCESS) for part in pictures(256, 0)[0].split(64))
    assert recalibration.recalibrate(model, batches) == 4
    assert found(model) == []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.momentum == 0.1, name


def test_a_loss_that_is_no_number_says_where_it_begins(tmp_path: Path, healthy: ResNet) -> None:
    model = copy.deepcopy(healthy)
    with torch.no_grad():
        nan_weight(model)
    split = Labelled(IMAGES, LABELS)
    with pytest.raises(loop.Diverged, match=r"in epoch 1 .*clip_norm; layer3\.0\.conv2: .* is NaN"):
        loop.fit(Trainee.of(model, PREPROCESS), split, split, TrainSection(epochs=2),
                 objectives.supervised(PREPROCESS, 0.0), seed=0, work=tmp_path,
                 tick=lambda *_: None)  # fmt: skip


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = resnet.build(spec.parse("resnet8", 10, spec.default_preprocess(16)))
    torch.save({"state_dict": model.state_dict()}, "fresh.pth")
    told = CliRunner().invoke(app, ["diagnose", "fresh.pth", "--data", "digits", "-q", "--json"])
    result = json.loads(told.stdout)
    assert told.exit_code == 1 and not result["healthy"] and result["network"] == "resnet8"
    assert [f["kind"] for f in result["findings"]] == ["statistics"]
    mended = CliRunner().invoke(
        app, ["recalibrate", "fresh.pth", "--data", "digits", "--out", "mended", "-q", "--json"]
    )
    assert mended.exit_code == 0, mended.output
    assert json.loads(mended.stdout)["after"]["n"] > 100
    told = CliRunner().invoke(app, ["diagnose", "mended", "--data", "digits", "-q"])
    assert told.exit_code == 0 and "nothing is wrong" in told.stdout

"""Pruning meets its budget, keeps the wiring, and says when it can't."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import images, network
from torch import nn

from edgeres.compression import blocks, budgets, criteria
from edgeres.compression.budgets import Budget
from edgeres.compression.prune import prune
from edgeres.compression.sparsity import GroupSparsity
from edgeres.errors import BadInput
from edgeres.models import weights
from edgeres.models.modules import complexity
from edgeres.models.resnet import ResNet, spec_of
from edgeres.models.shapes import macs, parameters, shapes_of
from edgeres.training import objectives
from edgeres.training.views import Labelled


def trained(name: str, px: int = 16) -> ResNet:
    """Batch norm's scales differ, as after training."""
    model = network(name, px)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.1, 2)
    return model


def slim_to(model: ResNet, budget: Budget, criterion: object = None, round_to: int = 8) -> ResNet:
    judge = criterion or (lambda _: criteria.magnitude())
    return prune(model, budget, round_to=round_to, criterion=judge)  # type: ignore[arg-type]


def shapes(model: ResNet) -> list:
    return shapes_of(model, model.spec.preprocess.size_px)


def half_the_macs(model: ResNet) -> Budget:
    return budgets.macs(shapes(model), 0.5)


FAMILY = ["resnet20", "resnet20-A", "resnet20-se", "resnet8-preact", "resnet8-mobile",
          "resnext29-8x64d-w0.125", "resnet26-w0.25-D"]  # fmt: skip


@pytest.mark.parametrize("name", FAMILY)
def test_layers_are_counted_as_the_network_counts_them(name: str) -> None:
    model = network(name)
    assert (parameters(shapes(model)), macs(shapes(model))) == complexity(model.spec)
    assert not model.training


@pytest.mark.parametrize("name", FAMILY)
def test_budget_is_met_closely_with_rounded_widths(name: str) -> None:
    model = trained(name)
    slim = slim_to(model, half_the_macs(model))
    left = complexity(slim.spec)[1] / complexity(model.spec)[1]
    assert 0.46 <= left <= 0.5
    widths = [w for stage in slim.spec.stages for block in stage for w in block.widths]
    assert all(w % 8 == 0 for w in widths)
    assert spec_of(slim) == slim.spec
    assert slim(torch.randn(2, 3, 16, 16)).shape == (2, 10)
    assert not slim.training


def test_each_budget_is_met() -> None:
    model = trained("resnet20")
    whole = shapes(model)
    kept = parameters(shapes(slim_to(model, budgets.parameters(whole, 0.3)))) / parameters(whole)
    assert 0.27 <= kept <= 0.3
    for target in ("tflite-int8", "onnx-int8"):
        limit = 0.4 * budgets.file_bytes(whole, target)
        slim = slim_to(model, budgets.size(target, limit))
        assert 0.9 * limit <= budgets.file_bytes(shapes(slim), target) <= limit
    with pytest.raises(BadInput, match="use tflite-int8 or onnx-int8"):
        budgets.size("coreml-int8", 1e5)


def taylor(model: ResNet) -> criteria.Criterion:
    seen = Labelled(images(32), torch.arange(32) % 10)
    return criteria.taylor(model, seen, objectives.supervised(model.spec.preprocess, 0.0))


@pytest.mark.parametrize(
    "criterion", [lambda _: criteria.magnitude(), lambda _: criteria.bn_scale(), taylor]
)
def test_least_important_channels_go_first(criterion: object) -> None:
    model = trained("resnet20")
    block = model.layer3[1]
    with torch.no_grad():  # the first eight inner channels of a block carry next to nothing
        block.conv1.weight[:8] *= 1e-4
        block.bn1.weight[:8] *= 1e-4
        block.bn1.bias[:8] *= 1e-4
        block.conv2.weight[:, :8] *= 1e-4
    kept = block.conv1.weight[8:].clone()
    slim = slim_to(model, budgets.macs(shapes(model), 0.99), criterion)
    left = slim.layer3[1].conv1
    assert left.out_channels == 56
    assert torch.equal(left.weight[:, : kept.shape[1]], kept)


def test_the_original_is_untouched_and_the_result_loads(tmp_path: Path) -> None:
    model = network("resnet20", 16)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    slim = slim_to(model, half_the_macs(model), taylor)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in slim.parameters())
    weights.save(tmp_path, slim)
    x = torch.randn(1, 3, 16, 16)
    assert torch.equal(weights.load(tmp_path)(x), slim(x))


@pytest.mark.parametrize("kind", ["macs", "parameters"])
def test_an_impossible_budget_says_what_is_reachable(kind: str) -> None:
    model = network("resnet8")
    budget = getattr(budgets, kind)(shapes(model), 0.001)
    reach = r"can't be met .* multiples of 8; (0\.\d+) is the least reachable for resnet8"
    with pytest.raises(BadInput, match=reach) as refused:
        slim_to(model, budget)
    least = float(str(refused.value).split("; ")[1].split()[0])
    slim_to(model, getattr(budgets, kind)(shapes(model), least + 0.006))


def test_the_block_that_does_nothing_goes_first() -> None:
    model = trained("resnet20")
    with torch.no_grad():
        model.layer2[1].bn2.weight.zero_()
        model.layer2[1].bn2.bias.zero_()
    slim = blocks.remove(model, 1, images(16))
    assert [len(stage) for stage in slim.spec.stages] == [3, 2, 3]
    x = torch.randn(2, 3, 16, 16)
    assert torch.allclose(slim(x), model(x), atol=1e-5)
    assert [len(stage) for stage in blocks.remove(model, 3, images(16)).spec.stages] != [3, 3, 3]
    with pytest.raises(BadInput, match="has only 6 blocks that can be left out"):
        blocks.remove(model, 7, images(16))


def test_group_sparsity_shrinks_weak_channels_faster() -> None:
    model = network("resnet8")
    conv = model.layer1[0].conv1
    with torch.no_grad():
        conv.weight[:8] *= 0.5
        model.layer1[0].conv2.weight[:, :8] *= 0.5
    sparsity = GroupSparsity(model, strength=0.1)
    objective = sparsity.objective(lambda module, x, y: torch.zeros(()))
    objective(model, images(1), torch.zeros(1)).backward()
    norm = model.layer1[0].bn1  # its channels belong to no other group
    assert norm.weight.grad is not None
    pull = norm.weight.grad / norm.weight.detach()  # strength times the channel's factor
    assert pull.max().item() == pytest.approx(0.1 * 2**4, rel=1e-3)
    assert pull.min().item() == pytest.approx(0.1, rel=1e-3)
    assert pull[:8].min() > pull[8:].max()

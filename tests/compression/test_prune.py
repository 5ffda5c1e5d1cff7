"""Pruning meets its budget, keeps the wiring, and says when it can't."""

from __future__ import annotations

import pytest
import torch
from conftest import network

from edgeres.compression.prune import prune_to_macs
from edgeres.errors import BadInput
from edgeres.models import weights
from edgeres.models.resnet import complexity, spec_of


@pytest.mark.parametrize("criterion", ["group-magnitude", "bn-scale"])
@pytest.mark.parametrize(
    ("name", "px"), [("resnet20", 32), ("resnet20-A", 32), ("resnet18-w0.5", 32),
                     ("resnet50-w0.25", 32)],
)  # fmt: skip
def test_budget_is_met_with_rounded_widths(name: str, px: int, criterion: str) -> None:
    model = network(name, px)
    with torch.no_grad():  # as after training: batch norm's scales differ
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.1, 2)
    slim = prune_to_macs(model, 0.6, round_to=8, criterion=criterion)
    assert complexity(slim.spec)[1] <= 0.6 * complexity(model.spec)[1]
    widths = [w for stage in slim.spec.stages for block in stage for w in block.widths]
    assert all(w % 8 == 0 for w in widths)
    assert spec_of(slim) == slim.spec
    assert slim(torch.randn(2, 3, px, px)).shape == (2, 10)
    assert not slim.training


def test_the_original_is_untouched_and_the_result_loads(tmp_path: pytest.TempPathFactory) -> None:
    model = network("resnet20", 32)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    slim = prune_to_macs(model, 0.5, round_to=8, criterion="group-magnitude")
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    weights.save(tmp_path, slim)
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(weights.load(tmp_path)(x), slim(x))


def test_least_important_channels_go_first() -> None:
    model = network("resnet20", 32)
    with torch.no_grad():  # the first eight inner channels of a block carry next to nothing
        block = model.layer3[1]
        block.conv1.weight[:8] *= 1e-4
        block.bn1.weight[:8] *= 1e-4
        block.conv2.weight[:, :8] *= 1e-4
    kept_weight = model.layer3[1].conv1.weight[8:].clone()
    slim = prune_to_macs(model, 0.97, round_to=8, criterion="group-magnitude")
    pruned = slim.layer3[1].conv1
    assert pruned.out_channels == 56
    assert torch.equal(pruned.weight[:, : kept_weight.shape[1]], kept_weight)


def test_an_impossible_budget_says_what_is_reachable() -> None:
    with pytest.raises(BadInput, match=r"can't be met .* is the least reachable for resnet8"):
        prune_to_macs(network("resnet8"), 0.01, round_to=8, criterion="group-magnitude")

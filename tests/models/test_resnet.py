"""The network itself: shapes, folding, option A."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import network
from torch import nn

from edgeres.models import resnet, spec


@pytest.mark.parametrize(
    ("name", "px"),
    [("resnet8", 16), ("resnet20-A", 32), ("resnet18-w0.25", 32), ("resnet18-w0.25", 96),
     ("resnet50-w0.125", 32), ("resnet8-se", 16), ("resnet8-mobile", 16), ("wrn-10-1", 16),
     ("resnet14-w0.125-preact", 96), ("resnext11-4x16d-w0.125", 16), ("resnet8-D", 16),
     ("resnet8-preact-se-A", 16)],
)  # fmt: skip
def test_folding_keeps_the_function(name: str, px: int) -> None:
    model = network(name, px)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training, some scales below zero
            nn.init.uniform_(module.weight, -1, 2)
            nn.init.normal_(module.bias)
    x = torch.randn(3, 3, px, px)
    folded = resnet.fold_batchnorm(model)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    with torch.no_grad():
        expected, got = model(x), folded(x)
    assert got.shape == (3, 10)
    torch.testing.assert_close(got, expected, atol=2e-4, rtol=1e-3)


def test_option_a_is_subsampling_with_zero_channels() -> None:
    model = network("resnet20-A", 32)
    x = torch.randn(2, 16, 32, 32)
    shortcut = model.layer2[0].downsample
    expected = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8))  # akamaster's lambda
    assert torch.equal(shortcut(x), expected)
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == [
        "layer2.0.downsample.0.weight", "layer3.0.downsample.0.weight"]  # fmt: skip


def test_building_is_seeded_and_leaves_the_global_generator_alone() -> None:
    one = spec.parse("resnet8", 10, spec.default_preprocess(16))
    before = torch.get_rng_state()
    a, b, c = resnet.build(one, seed=1), resnet.build(one, seed=1), resnet.build(one, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a.conv1.weight, b.conv1.weight)
    assert not torch.equal(a.conv1.weight, c.conv1.weight)


@pytest.mark.parametrize("name", ["resnet18-w0.25", "resnet18-w0.25-preact"])
def test_zero_init_residual_makes_blocks_the_identity_at_the_start(name: str) -> None:
    one = spec.parse(name, 10, spec.default_preprocess(16))
    model = resnet.build(one, zero_init_residual=True).eval()
    x = torch.rand(1, 16, 8, 8)
    assert torch.equal(model.layer1[1](x), x)


@pytest.mark.parametrize("name", ["resnet8", "resnet8-preact"])
def test_skip_scale_starts_branches_at_one_part_in_their_number(name: str) -> None:
    one = spec.parse(name, 10, spec.default_preprocess(16))
    plain = resnet.build(one).eval().layer1[0]
    scaled = resnet.build(one, skip_scale=True).eval().layer1[0]
    x = torch.rand(2, 16, 8, 8)
    branches = []
    for block in (plain, scaled):
        sums: list[torch.Tensor] = []
        handle = getattr(block, "bn2" if name == "resnet8" else "conv2").register_forward_hook(
            lambda _m, _a, y, sums=sums: sums.append(y)
        )
        block(x)
        handle.remove()
        branches.append(sums[0])
    torch.testing.assert_close(branches[1], branches[0] / 3)


def test_stochastic_depth_is_in_training_only_and_keeps_the_mean() -> None:
    one = spec.parse("resnet8", 10, spec.default_preprocess(16))
    model = resnet.build(one, stochastic_depth=0.6)
    assert [model.layer1[0].skipped, model.layer3[0].skipped] == pytest.approx([0.2, 0.6])
    block = model.layer3[0].train()
    x = torch.rand(1, 32, 8, 8).expand(2000, -1, -1, -1)
    with torch.no_grad():
        block.bn2.eval()
        block.bn2.bias.fill_(20.0)  # what is left out is seen
        given = block(x).mean((1, 2, 3))
        shortcut = F.relu(block.downsample(x)).mean()
        left_out = (given < 10).float().mean().item()
        assert left_out == pytest.approx(0.6, abs=0.05)
        block.eval()
        assert given.mean() == pytest.approx(block(x[:1]).mean().item(), abs=1.5)
        assert shortcut < 10
    graph = torch.export.export(model.train(), (torch.zeros(2, 3, 16, 16),))
    assert not any("rand" in str(node.target) for node in graph.graph.nodes)


@pytest.mark.parametrize(
    ("name", "key", "shape"),
    [("resnext50_32x4d", "layer1.0.conv2.weight", (128, 4, 3, 3)),
     ("wide_resnet50_2", "layer4.2.conv3.weight", (2048, 1024, 1, 1)),
     ("seresnet50", "layer2.0.se.fc1.weight", (32, 512, 1, 1)),
     ("seresnet50", "layer2.0.se.fc2.bias", (512,)),
     ("resnet50-D", "layer2.0.downsample.1.weight", (512, 256, 1, 1))],
)  # fmt: skip
def test_parameters_are_named_as_in_torchvision_and_timm(
    name: str, key: str, shape: tuple[int, ...]
) -> None:
    with torch.device("meta"):
        state = resnet.ResNet(spec.parse(name, 1000, spec.default_preprocess(224))).state_dict()
    assert tuple(state[key].shape) == shape


def test_preactivation_is_the_papers_order() -> None:
    """He et al. 2016, figure 4e: the sum goes on untouched, convolutions read it activated."""
    model = network("resnet8-preact")
    block = network("resnet14-preact-w0.25").layer1[0]
    assert block.bn1 is None
    x = torch.randn(2, 16, 8, 8)
    first = model.layer2[0]
    active = F.relu(first.bn1(x))
    y = first.conv2(F.relu(first.bn2(first.conv1(active))))
    torch.testing.assert_close(first(x), y + first.downsample(active))
    assert not any("downsample.1" in k for k in model.state_dict())

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
     ("resnet50-w0.125", 32)],
)  # fmt: skip
def test_folding_keeps_the_function(name: str, px: int) -> None:
    model = network(name, px)
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


def test_zero_init_residual_makes_blocks_the_identity_at_the_start() -> None:
    one = spec.parse("resnet18-w0.25", 10, spec.default_preprocess(16))
    model = resnet.build(one, zero_init_residual=True).eval()
    x = torch.rand(1, 16, 8, 8)
    assert torch.equal(model.layer1[1](x), x)

"""Scales with which every integer kernel makes the same codes."""

from __future__ import annotations

import pytest
import torch
from conftest import images, network
from torch import nn
from turns import by_turns

from edgeres.compression import portable, ptq
from edgeres.compression.graph import wiring
from edgeres.compression.qat import QatModel
from edgeres.errors import BadInput
from edgeres.models.modules import Classifier
from edgeres.network import from_torch
from edgeres.training.inference import prepared
from edgeres.types import ScaleTable
from edgeres.verification.every_input import prove

_PX = 32


def _trained(model: Classifier) -> tuple[Classifier, ScaleTable]:
    """One step of quantization-aware training."""
    qat = QatModel(model, freeze_observers=1.0, freeze_batchnorm=0.0, scheme=portable.SCHEME)
    qat.start(ptq.quantize(model, images(16, _PX), scheme=portable.SCHEME)[1])
    optimizer = torch.optim.SGD(qat.network.parameters(), 1e-2)
    x = prepared(images(8, _PX, seed=5), model.spec.preprocess)
    for folded in (False, True):
        qat.network.folded = folded
        qat.network(x).logsumexp(1).sum().backward()
        optimizer.step()
    return qat.finish()


def _require_rule(folded: Classifier, scales: ScaleTable) -> None:
    for name, params in scales.items():
        if not name.endswith(".weight"):
            continue
        layer = name.removesuffix(".weight")
        steps = torch.tensor(params.scale, dtype=torch.float64)
        state = folded.state_dict()
        codes = (state[name].flatten(1).double() / steps[:, None]).round()
        assert (codes % 2 == 0).all() and codes.abs().max() <= 126, layer
        if f"{layer}.bias" in state:
            source = next(wire.source for wire in wiring(folded.spec) if wire.name == layer)
            bias = state[f"{layer}.bias"].double() / (steps * scales[source].scale[0])
            assert (bias.round() % 2 == 1).all(), layer


@pytest.mark.parametrize("name", by_turns(["resnet8", "resnet20-A", "resnet18-w0.1"], 3))
def test_the_network_is_the_same_and_every_sum_is_odd(name: str) -> None:
    """A mean is a convolution now; in float32 the answers are those of before."""
    model = network(name, _PX)
    rewritten = portable.sums_only(model)
    x = prepared(images(8, _PX), model.spec.preprocess)
    with torch.no_grad():
        torch.testing.assert_close(rewritten(x), model(x), rtol=1e-4, atol=1e-4)
    assert not any(node.op == "global_avg_pool" for node in rewritten.spec.nodes)
    folded, scales = ptq.quantize(model, images(32, _PX), scheme=portable.SCHEME)
    _require_rule(folded, scales)
    proof = prove(folded, scales)
    assert proof.holds and proof.channels > 200, (proof.witnesses, proof.unproven)


def test_quantization_aware_training_keeps_to_the_grids() -> None:
    model = network("resnet8", _PX)
    folded, scales = _trained(model)
    _require_rule(folded, scales)
    assert prove(folded, scales).holds


def test_training_sees_the_weights_that_it_will_have() -> None:
    weight, ratio = torch.randn(6, 3, 3, 3), torch.tensor([0.7])
    seen = portable.rounded(weight, ratio)
    codes, scale, _ = portable.fitted(weight, None, 1.0, 0.7, None)
    torch.testing.assert_close(seen, (codes * scale.view(-1, 1, 1, 1)).float())
    factor = torch.rand(6) + 0.5  # a batch norm's, yet to be multiplied
    apart = portable.rounded(weight, ratio / factor) * factor.view(-1, 1, 1, 1)
    whole = portable.rounded(weight * factor.view(-1, 1, 1, 1), ratio)
    torch.testing.assert_close(apart, whole)


def test_odd_channels_are_on_the_grid_too() -> None:
    """Of zeros, of one weight, of a bias far larger than its weights."""
    weight = torch.zeros(4, 2, 1, 1)
    weight[1, 0], weight[2], weight[3] = 1.0, 1e-6, 0.3
    bias = torch.tensor([0.0, 2.0, -300.0, 0.1])
    codes, scale, sums = portable.fitted(weight, bias, 0.02, 0.05, None)
    assert sums is not None and (sums % 2 == 1).all() and (sums.abs() < 2**22).all()
    assert (codes % 2 == 0).all() and scale.isfinite().all()
    assert (sums * scale * 0.02 - bias).abs().max() < 0.02
    k = -(0.02 * scale / 0.05).log2()
    assert ((k - k.round()).abs() < 1e-6).all() and k.min() > 1.9 and k.max() < 13.1


def test_a_branch_that_is_hardly_anything_leaves_no_ties() -> None:
    """As where residual branches begin with zeros: its scale grows, whatever it takes."""
    model = network("resnet8")
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".bn2." in name:
                value.mul_(1e-6)
    folded, scales = ptq.quantize(model, images(32), scheme=portable.SCHEME)
    assert prove(folded, scales).holds
    qat = QatModel(model, freeze_observers=1.0, freeze_batchnorm=0.0, scheme=portable.SCHEME)
    qat.start(scales)
    assert prove(*qat.finish()).holds


class _Pooled(nn.Module):
    """A batch norm behind a pool, and a slice of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3)
        self.pool, self.norm = nn.AvgPool2d(2), nn.BatchNorm2d(8)
        self.last, self.head = nn.BatchNorm2d(8), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.pool(self.conv(x[:, 1:]).relu()))
        y = nn.functional.adaptive_avg_pool2d(y, 1)
        return self.head(self.last(y).flatten(1))


def test_pools_before_a_batch_norm_and_a_slice_of_the_image() -> None:
    model = from_torch.from_module(_Pooled().eval(), 16).module
    dimmed = images(32)
    dimmed[:, 1:] = dimmed[:, 1:] // 2 + 64  # of a smaller range than the image
    folded, scales = ptq.quantize(model, dimmed, scheme=portable.SCHEME)
    assert prove(folded, scales).holds
    rewritten = portable.sums_only(model)
    x = prepared(images(4), model.spec.preprocess)
    with torch.no_grad():
        torch.testing.assert_close(rewritten(x), model(x), rtol=1e-4, atol=1e-4)


def test_ranges_that_training_moves_leave_no_ties() -> None:
    model = network("resnet8")
    qat = QatModel(model, freeze_observers=1.0, freeze_batchnorm=0.0, scheme=portable.SCHEME)
    qat.start(ptq.quantize(model, images(16), scheme=portable.SCHEME)[1])
    with torch.no_grad():
        for one in qat.network.ranges:
            one.bounds.mul_(5)
    assert prove(*qat.finish()).holds


def test_a_weight_that_no_grid_holds_is_refused() -> None:
    with pytest.raises(BadInput, match=r"conv: the weight 40 of channel 0 turns a code .* w8a8"):
        portable.require_fit("conv", torch.tensor([[40.0, 1.0]]), 1.0, 1.0)
    portable.require_fit("conv", torch.tensor([[31.0, 1.0]]), 1.0, 1.0)


class _Means(nn.Module):
    """Pools over many pixels, each way."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.pool, self.head = nn.AvgPool2d((6, 7), stride=(2, 3)), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.pool(self.conv(x).relu())
        return self.head(nn.functional.adaptive_avg_pool2d(y, 1).flatten(1))


def test_a_mean_of_many_pixels_goes_over_rows_and_then_columns() -> None:
    """A convolution of as many taps takes longer than the mean that it stands for."""
    model = from_torch.from_module(_Means().eval(), 32).module
    rewritten = portable.sums_only(model)
    kernels = [n.pair("kernel") for n in rewritten.spec.nodes if n.op == "conv2d"]
    assert kernels == [(3, 3), (6, 1), (1, 7), (14, 1), (1, 9)]
    x = prepared(images(4, 32), model.spec.preprocess)
    with torch.no_grad():
        torch.testing.assert_close(rewritten(x), model(x), rtol=1e-4, atol=1e-4)
    assert prove(*ptq.quantize(model, images(32, 32), scheme=portable.SCHEME)).holds

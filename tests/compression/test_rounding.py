"""Weights rounded for what their layer answers."""

from __future__ import annotations

import pytest
import torch
from conftest import images

from edgeres.compression import rounding
from edgeres.models import resnet, spec
from edgeres.training.inference import prepared


def moment_of(x: torch.Tensor) -> torch.Tensor:
    return (x.T @ x)[None]


def drawn(outputs: int = 16, width: int = 40) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights, their coarse scale, and inputs that go together and have a mean, as after a ReLU."""
    torch.manual_seed(0)
    weight = torch.randn(outputs, width)
    x = (torch.randn(4096, 8) @ torch.randn(8, width) + 0.3 * torch.randn(4096, width)).relu()
    return weight, weight.abs().amax(1).double() / 7, x


def error(weight: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor, x: torch.Tensor) -> float:
    return (x.double() @ (codes * scale[:, None] - weight.double()).T).square().mean().item()


def test_outputs_change_far_less_than_by_rounding_to_nearest() -> None:
    weight, scale, x = drawn()
    codes = rounding.rounded(weight, scale, moment_of(x), -7, 7)
    nearest = (weight / scale[:, None]).round().clamp(-7, 7)
    assert torch.equal(codes, codes.round()) and codes.abs().max() <= 7
    assert error(weight, codes, scale, x) < 0.4 * error(weight, nearest, scale, x)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, scale, x = drawn()
    whole = rounding.rounded(weight, scale, moment_of(x), -7, 7)
    monkeypatch.setattr(rounding, "_BLOCK", 16)
    assert torch.equal(rounding.rounded(weight, scale, moment_of(x), -7, 7), whole)


def test_weights_that_are_codes_stay_and_inputs_never_seen_do_no_harm() -> None:
    weight, scale, x = drawn()
    codes = (weight / scale[:, None]).round()
    x[:, ::3] = 0.0
    assert torch.equal(rounding.rounded(codes * scale[:, None], scale, moment_of(x), -7, 7), codes)
    dead = rounding.rounded(weight, scale, torch.zeros(1, 40, 40), -7, 7)
    assert torch.equal(dead, codes)


def test_moments_spoiled_by_rounding_are_damped_more() -> None:
    weight, scale, x = drawn()
    moment = moment_of(x)
    spoiled = moment - 0.05 * moment.diagonal(dim1=1, dim2=2).mean() * torch.eye(40)
    codes = rounding.rounded(weight, scale, spoiled, -7, 7)
    nearest = (weight / scale[:, None]).round().clamp(-7, 7)
    assert error(weight, codes, scale, x) < error(weight, nearest, scale, x)


def test_moments_are_those_of_what_each_layer_multiplies() -> None:
    """Grouped, strided and linear layers: against products with every output's weights."""
    preprocess = spec.default_preprocess(16)
    model = resnet.build(spec.parse("resnet8-mobile", 4, preprocess)).eval()
    model = resnet.fold_batchnorm(model)
    pictures = images(6, px=16)
    found = rounding.moments(model, pictures)
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        layer.register_forward_hook(lambda m, args, y, n=name: seen.update({n: y}))
        for name, layer in model.named_modules() if name in found
    ]  # fmt: skip
    with torch.no_grad():
        model(prepared(pictures, preprocess))
    for hook in hooks:
        hook.remove()
    state = model.state_dict()
    grouped = 0
    for name, moment in found.items():
        weight, y = state[f"{name}.weight"].double(), seen[name]
        bias = state.get(f"{name}.bias", torch.zeros(len(weight)))
        power = (y.transpose(0, 1).flatten(1).double() - bias[:, None].double()).square().sum(1)
        rows = weight.flatten(1).view(len(moment), -1, moment.shape[1])
        expected = torch.einsum("gok,gkl,gol->go", rows, moment.double(), rows).flatten()
        torch.testing.assert_close(expected, power, rtol=1e-3, atol=1e-3)
        grouped += len(moment) > 1
    assert grouped

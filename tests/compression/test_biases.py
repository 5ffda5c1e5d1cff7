"""Biases that integer kernels and Core ML both hold exactly."""

from __future__ import annotations

import torch

from edgeres.compression import biases
from edgeres.types import QuantParams

OUTPUT = QuantParams((0.0312,), (-128,), "int8")


def _drawn(channels: int = 256) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    weight = torch.randn(channels, 4, 3, 3)
    scale = (weight.flatten(1).abs().amax(1) / 127).half().double()
    return weight, torch.randn(channels) * 3, scale


def test_a_bias_is_a_float16_number_and_a_whole_number_of_steps() -> None:
    weight, bias, scale = _drawn()
    found, grown = biases.shared(weight, bias, scale, 0.0237, None)
    assert torch.equal(found.half().double(), found)
    assert torch.equal(grown.half().double(), grown)
    steps = found / (grown * 0.0237)
    apart = (steps - steps.round()).abs()
    assert apart.mean() < 0.006
    before = bias.half().double() / (scale * 0.0237)
    assert (before - before.round()).abs().mean() > 0.2, "they did not need it"


def test_neither_moves_far() -> None:
    weight, bias, scale = _drawn()
    found, grown = biases.shared(weight, bias, scale, 0.0237, None)
    assert (grown >= scale).all() and (grown <= scale * (1 + 1 / 32)).all()
    torch.testing.assert_close(
        found.float(), bias, rtol=2.5 * 2**-10, atol=1e-7
    )  # two and a half places


def test_a_channel_of_one_size_keeps_the_scale_in_which_it_is_exact() -> None:
    weight = torch.zeros(2, 3, 1, 1)
    weight[0, 1], weight[1, 2] = 1.0, -0.7
    scale = torch.tensor([2.0**-6, 0.7 / 127]).half().double()
    _, grown = biases.shared(weight, torch.tensor([0.3, 1.7]), scale, 0.05, None)
    assert torch.equal(grown, scale)


def test_what_float16_cannot_hold_stays_as_it_is() -> None:
    weight, _, scale = _drawn(4)
    bias = torch.tensor([1e6, -7e4, 0.0, 1e-9])
    found, grown = biases.shared(weight, bias, scale, 0.05, None)
    torch.testing.assert_close(found.float(), bias, rtol=0, atol=2e-7)
    assert grown.isfinite().all()


def test_no_sum_is_another_code_with_the_other_bias() -> None:
    weight, bias, scale = _drawn()
    found, grown = biases.shared(weight, bias, scale, 0.0237, OUTPUT)
    assert ((found - bias).abs() <= (OUTPUT.scale[0] / 16 + bias.abs() * 2.5 * 2**-10)).all()

    def turned(bias: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Per channel, how many of all possible sums."""
        steps = (scale * 0.0237)[:, None]
        sums = torch.arange(-30_000, 30_000, dtype=torch.float64) * steps
        whole = (bias[:, None] / steps).round() * steps
        codes, other = (((sums + b) / OUTPUT.scale[0] - 128).round().clamp(-128, 127)
                        for b in (whole, bias[:, None]))  # fmt: skip
        return (codes != other).sum(1)

    assert (turned(bias.half().double(), scale) > 0).double().mean() > 0.9, "they did not need it"
    assert turned(found, grown).sum() < 0.01 * turned(bias.half().double(), scale).sum()


def test_sums_stay_away_from_halfway() -> None:
    """What a float32 sum's last bits are wrong by decides no code."""
    weight, bias, scale = _drawn()
    _, grown = biases.shared(weight, bias, scale, 0.0237, OUTPUT)

    def nearest(scale: torch.Tensor) -> torch.Tensor:
        halves = (torch.arange(255) + 0.5).double() * OUTPUT.scale[0]
        steps = (scale * 0.0237)[:, None]
        return ((halves / steps).round() * steps - halves).abs().amin(1) / OUTPUT.scale[0]

    assert nearest(grown).median() > 5 * nearest(scale).median()

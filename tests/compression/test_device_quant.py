"""Fake quantization with scales on the device is the one with numbers."""

from __future__ import annotations

import pytest
import torch
from conftest import images, network

from edgeres.compression.fake_quant import Range
from edgeres.compression.qat import QatModel
from edgeres.types import QuantParams

SCHEMES = ("w8a8", "w8a8-symmetric", "w8a16")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("grid", [None, 2.0**-13])
def test_a_grid_has_the_parameters_that_files_will_store(
    scheme: str, relu: bool, grid: float | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    one = Range("t", scheme, relu=relu)
    one.grid = grid
    for size in torch.rand(200, generator=generator) * 8:
        one.bounds.copy_(torch.randn(2, generator=generator).sort().values * size)
        if relu:
            one.bounds[0] = 0.0
        scale, low, high = one._grid().tolist()
        params = one.params()
        ends = {"int8": (-128, 127), "int16": (-32768, 32767)}[params.dtype]
        floor = max(0, ends[0] - params.zero_point[0]) if relu else ends[0] - params.zero_point[0]
        assert (scale, low, high) == (params.scale[0], floor, ends[1] - params.zero_point[0])


def test_a_fixed_grid_is_that_of_its_parameters() -> None:
    one = Range("t", "w8a8")
    one.fixed = QuantParams((0.25,), (-3,), "int8")
    assert one._grid().tolist() == [0.25, -125, 130]


@pytest.mark.parametrize("learned", [False, True])
def test_values_and_gradients_are_the_same(learned: bool) -> None:
    one = Range("t", "w8a8", relu=True, learned=learned)
    one.start(QuantParams((1 / 64,), (-128,), "int8"))
    x = torch.linspace(-2, 6, 401)
    found = []
    for function in (one._by_numbers, one._by_tensors):
        one.live.copy_(one._grid())
        leaf = x.clone().requires_grad_()
        y = function(leaf.clone())
        y.mul(torch.linspace(0.5, 2, 401)).sum().backward()
        steps = [one.step.grad] if one.step is not None else []
        found.append([y.detach(), leaf.grad, *steps])
        if one.step is not None:
            one.step.grad = None
    for number, tensor in zip(*found, strict=True):
        torch.testing.assert_close(tensor, number, rtol=1e-6, atol=1e-6)


def test_a_network_answers_and_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def gradients(on_device: bool) -> list[torch.Tensor]:
        model = QatModel(network("resnet8-w0.5", px=8), freeze_observers=1, freeze_batchnorm=1)
        model.calibrate(images(32, px=8))
        if on_device:
            monkeypatch.setattr(Range, "_by_numbers", Range._by_tensors)
            monkeypatch.setattr(Range, "_renew", lambda one: one.live.copy_(one._grid()))
        trainee = model.trainee()
        trainee.set_training(True)
        trainee.start_epoch(0, 1)
        found = []
        for _ in range(2):  # one that looks at ranges, one that doesn't
            trainee.start_step()
            answer = model.network((images(16, px=8).float() - 128) / 64)
            answer.square().sum().backward()
            found.append(answer.detach())
        return [*found, *(p.grad for p in model.network.parameters() if p.grad is not None)]

    for number, tensor in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(tensor, number, rtol=1e-3, atol=1e-4)


def test_moved_to_a_device_a_network_shares_its_tensors_still() -> None:
    model = QatModel(network("resnet8-w0.5", px=8), freeze_observers=1, freeze_batchnorm=1)
    moved = model.network.double()
    names = dict(moved.program.named_buffers())
    for form in moved._forms:
        for name, tensor in (*form.named_parameters(), *form.named_buffers()):
            assert tensor.dtype in (torch.float64, torch.int64), name
            assert name not in names or tensor is names[name]

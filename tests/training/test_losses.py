"""Losses against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from edgeres.training import losses


def test_kd_by_hand() -> None:
    student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    t = 2.0

    def softmax(a: float, b: float) -> tuple[float, float]:
        x, y = math.exp(a / t), math.exp(b / t)
        return x / (x + y), y / (x + y)

    p, q = softmax(0.0, 2.0), softmax(1.0, 0.0)
    expected = t * t * sum(pi * math.log(pi / qi) for pi, qi in zip(p, q, strict=True))
    assert losses.kd(student, teacher, t).item() == pytest.approx(expected, rel=1e-6)


def test_kd_is_zero_for_equal_logits_and_averages_over_the_batch() -> None:
    logits = torch.randn(5, 7)
    assert losses.kd(logits, logits + 3.0, 4.0).item() == pytest.approx(0, abs=1e-5)
    one, two = torch.randn(1, 7), torch.randn(1, 7)
    twice = losses.kd(one.repeat(4, 1), two.repeat(4, 1), 4.0)
    assert twice.item() == pytest.approx(losses.kd(one, two, 4.0).item(), rel=1e-5)


def test_kd_gives_the_teacher_no_gradient() -> None:
    student = torch.randn(2, 3, requires_grad=True)
    teacher = torch.randn(2, 3, requires_grad=True)
    losses.kd(student, teacher, 4.0).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_label_smoothing_by_hand() -> None:
    logits, label = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0])
    log_p = torch.log_softmax(logits, 1)[0]
    target = torch.tensor([0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3])
    expected = -(target * log_p).sum().item()
    assert losses.cross_entropy(logits, label, 0.1).item() == pytest.approx(expected, rel=1e-6)

"""Losses against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from edgeres.losses import cosine, dist, dkd, kd, mse
from edgeres.training import losses

NO_LABELS = torch.empty(0, dtype=torch.int64)


def test_kd_by_hand() -> None:
    student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    t = 2.0

    def softmax(a: float, b: float) -> tuple[float, float]:
        x, y = math.exp(a / t), math.exp(b / t)
        return x / (x + y), y / (x + y)

    p, q = softmax(0.0, 2.0), softmax(1.0, 0.0)
    expected = t * t * sum(pi * math.log(pi / qi) for pi, qi in zip(p, q, strict=True))
    assert kd.measure(student, teacher, NO_LABELS, t).item() == pytest.approx(expected, rel=1e-6)


def test_kd_is_zero_for_equal_logits_and_averages_over_the_batch() -> None:
    logits = torch.randn(5, 7)
    assert kd.measure(logits, logits + 3.0, NO_LABELS, 4.0).item() == pytest.approx(0, abs=1e-5)
    one, two = torch.randn(1, 7), torch.randn(1, 7)
    twice = kd.measure(one.repeat(4, 1), two.repeat(4, 1), NO_LABELS, 4.0)
    assert twice.item() == pytest.approx(kd.measure(one, two, NO_LABELS, 4.0).item(), rel=1e-5)


def test_kd_gives_the_teacher_no_gradient() -> None:
    student = torch.randn(2, 3, requires_grad=True)
    teacher = torch.randn(2, 3, requires_grad=True)
    kd.measure(student, teacher, NO_LABELS, 4.0).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_label_smoothing_by_hand() -> None:
    logits, label = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0])
    log_p = torch.log_softmax(logits, 1)[0]
    target = torch.tensor([0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3])
    expected = -(target * log_p).sum().item()
    assert losses.cross_entropy(logits, label, 0.1).item() == pytest.approx(expected, rel=1e-6)


def test_dkd_by_hand() -> None:
    student, teacher = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[2.0, 1.0, 0.5]])
    t = 2.0

    def softmax(*values: float) -> list[float]:
        powers = [math.exp(v / t) for v in values]
        return [p / sum(powers) for p in powers]

    def divergence(p: list[float], q: list[float]) -> float:
        return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))

    p, q = softmax(2.0, 1.0, 0.5), softmax(1.0, 0.0, -1.0)
    label = 1
    of_label = divergence([p[label], 1 - p[label]], [q[label], 1 - q[label]])
    of_others = divergence(softmax(2.0, 0.5), softmax(1.0, -1.0))
    expected = t * t * (1.0 * of_label + 8.0 * of_others)
    found = dkd.measure(student, teacher, torch.tensor([label]), t)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_dkd_splits_kd() -> None:
    """The paper's equation 5: KD is TCKD + (1 - the teacher's probability of the label) NCKD."""
    student, teacher, labels = torch.randn(1, 6), torch.randn(1, 6), torch.tensor([2])
    others = 1 - torch.softmax(teacher / 3.0, 1)[0, 2].item()
    split = dkd.measure(student, teacher, labels, 3.0, target=1.0, others=others)
    assert split.item() == pytest.approx(
        kd.measure(student, teacher, NO_LABELS, 3.0).item(), rel=1e-5
    )


def test_dist_by_hand() -> None:
    student = torch.tensor([[1.0, 0.0, 0.5], [0.2, 0.3, 2.0]])
    teacher = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0]])
    t = 2.0

    def pearson(x: list[float], y: list[float]) -> float:
        mx, my = sum(x) / len(x), sum(y) / len(y)
        top = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
        spread = [math.sqrt(sum((v - m) ** 2 for v in w)) for w, m in ((x, mx), (y, my))]
        return top / (spread[0] * spread[1])

    def softmax(row: list[float]) -> list[float]:
        powers = [math.exp(v / t) for v in row]
        return [p / sum(powers) for p in powers]

    a, b = [[softmax(r) for r in m.tolist()] for m in (student, teacher)]
    rows = sum(map(pearson, a, b)) / 2
    columns = (
        sum(
            pearson(list(x), list(y))
            for x, y in zip(zip(*a, strict=True), zip(*b, strict=True), strict=True)
        )
        / 3
    )
    found = dist.measure(student, teacher, NO_LABELS, t).item()
    assert found == pytest.approx(t * t * ((1 - rows) + (1 - columns)), rel=1e-4)


def test_mse_and_cosine_by_hand() -> None:
    student, teacher = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])
    assert mse.measure(student, teacher, NO_LABELS, 1.0).item() == pytest.approx(1.0)
    assert cosine.measure(student, teacher, NO_LABELS, 1.0).item() == pytest.approx(
        1 - 24 / 25, rel=1e-5
    )

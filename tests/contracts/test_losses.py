"""Every loss of distillation, the same promises."""

from __future__ import annotations

import pytest
import torch

from edgeres import losses
from edgeres.errors import BadInput

LABELS = torch.tensor([0, 1, 2, 3])
SHARES = torch.tensor([[0.3, 0.7, 0, 0], [0, 1, 0, 0], [0.5, 0, 0.5, 0], [0, 0, 0, 1.0]])


def logits(seed: int, size: float = 1.0) -> torch.Tensor:
    made = size * torch.randn(4, 6, generator=torch.Generator().manual_seed(seed))
    return made.requires_grad_()


@pytest.fixture(params=losses.PLUGINS.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_is_least_for_the_teachers_own_answers(name: str) -> None:
    measure, teacher = losses.measure(name), logits(0)
    same = measure(teacher.detach().clone(), teacher, LABELS, 4.0)
    assert same.item() == pytest.approx(0, abs=1e-4)
    assert measure(logits(1), teacher, LABELS, 4.0).item() > 0.01


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_it_is_a_scalar_whose_gradient_is_the_students(name: str, temperature: float) -> None:
    student, teacher = logits(1), logits(0)
    loss = losses.measure(name)(student, teacher, LABELS, temperature)
    assert loss.shape == () and loss.dtype == torch.float32
    loss.backward()
    assert teacher.grad is None
    assert student.grad is not None and student.grad.abs().sum() > 0
    assert torch.isfinite(student.grad).all()


def test_a_small_step_along_the_gradient_makes_it_less(name: str) -> None:
    measure, student, teacher = losses.measure(name), logits(1), logits(0)
    loss = measure(student, teacher, LABELS, 4.0)
    (gradient,) = torch.autograd.grad(loss, student)
    closer = student - 0.01 * gradient / gradient.norm()
    assert measure(closer, teacher, LABELS, 4.0) < loss


@pytest.mark.parametrize("size", [0.0, 100.0])
def test_answers_of_any_size_give_numbers(name: str, size: float) -> None:
    student = logits(1, size)
    loss = losses.measure(name)(student, logits(0, size), LABELS, 1.0)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(student.grad).all()


def test_it_says_the_same_twice_and_keeps_what_it_is_given(name: str) -> None:
    student, teacher = logits(1), logits(0)
    before = student.detach().clone(), teacher.detach().clone()
    one, two = (losses.measure(name)(student, teacher, LABELS, 4.0) for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(student, before[0]) and torch.equal(teacher, before[1])


def test_mixed_labels_are_taken_or_refused_beforehand(name: str) -> None:
    module = losses.PLUGINS.load(name)
    assert module.SUMMARY and "\n" not in module.SUMMARY
    if module.ONE_LABEL:
        with pytest.raises(BadInput, match=f"{name} needs one label per image"):
            losses.check(name, mixed=True)
    else:
        losses.check(name, mixed=True)
        assert torch.isfinite(module.measure(logits(1), logits(0), SHARES, 4.0))


def test_other_names() -> None:
    losses.check("none", mixed=True)
    with pytest.raises(BadInput, match=r"unknown loss 'dks' \(did you mean 'dkd'\?\)"):
        losses.check("dks", mixed=False)

"""Is a teacher any good on our pipeline, and if not, why?

A teacher of chance level teaches noise. The usual reasons leave traces: with the right mean and
std, or the right order of channels, it would be right; or its answers fit the labels well once the
classes are put in another order. Each is tried on validation images.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgeres.statistics import mcnemar, wilson
from edgeres.teachers import _prepared
from edgeres.training.answers import Teacher
from edgeres.types import Accuracy

_MOST_IMAGES = 512
_BETTER, _P = 0.2, 1e-3  # so much more of the images right, and so sure, or no suspect is named


def limit(classes: int) -> float:
    """The share of right answers that a teacher must surely exceed.

    Half as much again as chance, or a tenth of the way from chance to perfection, whichever is
    less: 0.15 of 10 classes, 0.55 of two.
    """
    chance = 1 / classes
    return min(1.5 * chance, chance + 0.1 * (1 - chance))


def near_chance(found: Accuracy, classes: int) -> bool:
    """Whether the 95 % Wilson interval of an accuracy reaches down to `limit`."""
    return wilson(found.correct, found.n)[0] <= limit(classes)


def suspects(teacher: Teacher, images: Tensor, labels: Tensor) -> list[str]:
    """What would make the teacher much better, best first, as `with …, 93 % would be right`.

    Args:
        images: uint8 (N, 3, H, W); labels: (N,).
    """
    images, labels = images[:_MOST_IMAGES], labels[:_MOST_IMAGES]
    answers = teacher.answer(images).argmax(1)
    now = answers == labels
    found = [(now, other.answer(images).argmax(1) == labels, f"with {name}")
             for name, other in _prepared.otherwise(teacher)]  # fmt: skip
    found.append((*_reordered(answers, labels), "with its classes in another order"))
    named = sorted(((float(then.float().mean()), what) for before, then, what in found
                    if _surely_better(before, then)), reverse=True)  # fmt: skip
    return [f"{what}, {share:.0%} would be right" for share, what in named]


def _surely_better(before: Tensor, then: Tensor) -> bool:
    """Whether more of the same images are right, and not by luck: few images say nothing."""
    lost, gained = int((before & ~then).sum()), int((then & ~before).sum())
    return gained - lost > _BETTER * len(then) and mcnemar(lost, gained) < _P


def _reordered(answers: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Which answers are right as they are, and under the best matching of answers to labels.

    A matching found by chance looks good on few images, so half of them, drawn at random, decide
    it and the others are counted.
    """
    from scipy.optimize import linear_sum_assignment

    classes = int(max(answers.max(), labels.max())) + 1
    table = np.zeros((classes, classes), np.int64)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    half, rest = order[: len(order) // 2], order[len(order) // 2 :]
    np.add.at(table, (answers[half].numpy(), labels[half].numpy()), 1)
    rows, columns = linear_sum_assignment(table, maximize=True)
    meant = torch.empty(classes, dtype=torch.long)
    meant[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return answers[rest] == labels[rest], meant[answers[rest]] == labels[rest]

"""Is a teacher any good on our pipeline, and if not, why?

A teacher of chance level teaches noise. The usual reasons leave traces: with the right mean and
std, or the right order of channels, it would be right; or its answers fit the labels well once the
classes are put in another order. Each is tried on validation images.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from edgeres.statistics import wilson
from edgeres.teachers._black_box import BlackBox
from edgeres.training.answers import Network, Teacher
from edgeres.types import Accuracy

_MOST_IMAGES = 512
_BETTER = 0.2  # a suspect is named if it would put so much more of the images right
_PREPROCESSINGS = {
    "mean and std of ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "mean and std of CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "pixels from 0 to 1 (mean 0, std 1)": ((0.0,), (1.0,)),
    "pixels from -1 to 1 (mean 0.5, std 0.5)": ((0.5,), (0.5,)),
    "pixels from 0 to 255 (mean 0, std 0.00392157)": ((0.0,), (1 / 255,)),
    "ImageNet's mean and pixels from 0 to 255 (std 0.00392157)":
        ((0.485, 0.456, 0.406), (1 / 255,)),
}  # fmt: skip


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
    now = _share(answers, labels)
    found = [(_share(other.answer(images).argmax(1), labels), f"with {name}")
             for name, other in _otherwise(teacher)]  # fmt: skip
    found.append((_reordered(answers, labels), "with its classes in another order"))
    named = sorted((f for f in found if f[0] > now + _BETTER), reverse=True)
    return [f"{what}, {share:.0%} would be right" for share, what in named]


def _otherwise(teacher: Teacher) -> list[tuple[str, Teacher]]:
    """The same teacher with other preprocessings, and with the channels the other way round."""
    found: list[tuple[str, Teacher]] = [("red and blue exchanged", _Exchanged(teacher))]
    for name, (mean, std) in _PREPROCESSINGS.items():
        if isinstance(teacher, Network):
            changed = dataclasses.replace(teacher.preprocess, mean=mean, std=std)
            other: Teacher = teacher.prepared_as(changed)
        elif isinstance(teacher, BlackBox):
            changed = dataclasses.replace(teacher.form.preprocess, mean=mean, std=std)
            form = dataclasses.replace(teacher.form, preprocess=changed)
            other = BlackBox(teacher.run, form, teacher.where)
        else:
            continue
        found += [(name, other), (f"{name} and red and blue exchanged", _Exchanged(other))]
    return found


class _Exchanged:
    """A teacher that is shown red as blue."""

    def __init__(self, inner: Teacher):
        self.inner = inner

    def answer(self, images: Tensor) -> Tensor:
        return self.inner.answer(images.flip(1))


def _share(answers: Tensor, labels: Tensor) -> float:
    return float((answers == labels).float().mean())


def _reordered(answers: Tensor, labels: Tensor) -> float:
    """The share of right answers under the best matching of answers to labels.

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
    return _share(meant[answers[rest]], labels[rest])

"""Would another way of preparing the images suit a teacher much better?

Wrong preprocessing costs a few points or most of them, and nothing else shows it. So each of the
usual ways is tried on some training images; the best is then compared with the present one on
other training images, image by image, so that having tried many ways can't make one look good.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from edgeres.preprocessing import WAYS, in_words
from edgeres.statistics import mcnemar
from edgeres.teachers._black_box import BlackBox
from edgeres.training.answers import Network, Teacher
from edgeres.types import Preprocess

_GLIMPSED, _KEPT = 30, 3  # images on which all ways are tried, and how many go on
_TRIED, _COMPARED = 100, 300  # images on which one is chosen, and on which it must prove itself
_BATCH = 50
_BETTER, _P = 0.03, 1e-3  # so much more of the images, and so sure, or nothing is said
_EXCHANGED = "red and blue exchanged"


def advice(teacher: Teacher, images: Tensor, labels: Tensor) -> str | None:
    """What is said if another preprocessing is clearly better; None if none is.

    Args:
        images: uint8 (N, 3, H, W), of the training split; labels: (N,). Some are drawn, always
            the same.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    tried, compared = order[:_TRIED], order[_TRIED : _TRIED + _COMPARED]
    if len(compared) < _TRIED:
        return None

    def right(one: Teacher, drawn: Tensor) -> int:
        return int(_right(one, images[drawn], labels[drawn]).sum())

    glimpsed = tried[:_GLIMPSED]
    ways = list(otherwise(teacher))
    seen = [right(other, glimpsed) for _, other in ways]
    ahead = sorted(range(len(ways)), key=lambda n: -seen[n])[:_KEPT]
    ways = [ways[n] for n in sorted(ahead)]
    scores = [right(other, tried) for _, other in ways]
    best = max(scores, default=0)
    if best <= right(teacher, tried):
        return None
    # Of those that are alike, the one that changes less, or is commoner.
    name, better = next(w for w, score in zip(ways, scores, strict=True) if score >= best - 1)
    before = _right(teacher, images[compared], labels[compared])
    after = _right(better, images[compared], labels[compared])
    lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
    if gained - lost < _BETTER * len(compared) or mcnemar(lost, gained) > _P:
        return None
    own = preprocess_of(teacher)
    said = in_words(own.mean, own.std) if own else "the present preprocessing"
    return (f"with {said}, {float(before.float().mean()):.1%} of {len(compared)} training images "
            f"are right; with {name}, {float(after.float().mean()):.1%} would be")  # fmt: skip


def otherwise(teacher: Teacher) -> Iterator[tuple[str, Teacher]]:
    """The same teacher with other preprocessings, and with the channels the other way round.

    Words of a way end with what says it, as in `--preprocess imagenet`.
    """
    own = preprocess_of(teacher)
    if own is None:
        return
    yield f"{_EXCHANGED} (channels: bgr)", _Exchanged(teacher)
    for name, way in WAYS.items():
        if (_three(way.mean), _three(way.std)) == (_three(own.mean), _three(own.std)):
            continue
        changed = dataclasses.replace(own, mean=way.mean, std=way.std)
        other = _prepared_as(teacher, changed)
        yield f"{way.words} (preprocess: {name})", other
        yield (f"{way.words} and {_EXCHANGED} (preprocess: {name}, channels: bgr)",
               _Exchanged(other))  # fmt: skip


def preprocess_of(teacher: Teacher) -> Preprocess | None:
    """How a teacher's images are prepared; an ensemble has no one way."""
    if isinstance(teacher, Network):
        return teacher.preprocess
    return teacher.form.preprocess if isinstance(teacher, BlackBox) else None


def _prepared_as(teacher: Teacher, preprocess: Preprocess) -> Teacher:
    if isinstance(teacher, Network):
        return teacher.prepared_as(preprocess)
    assert isinstance(teacher, BlackBox)
    form = dataclasses.replace(teacher.form, preprocess=preprocess)
    return BlackBox(teacher.run, form, teacher.where)


def _three(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(v, 3) for v in (values * 3 if len(values) == 1 else values))


class _Exchanged:
    """A teacher that is shown red as blue."""

    def __init__(self, inner: Teacher):
        self.inner = inner

    def answer(self, images: Tensor) -> Tensor:
        return self.inner.answer(images.flip(1))


def _right(teacher: Teacher, images: Tensor, labels: Tensor) -> Tensor:
    """Which images are answered rightly, bool (N,)."""
    answers = torch.cat([teacher.answer(part) for part in images.split(_BATCH)])
    return answers.argmax(1) == labels

"""Structured pruning: a trained network and a budget in, a slimmer network with its weights out.

Channels that must go together, across residual adds for one, are a group (`channels`). Each group
loses its least important channels in steps of `round_to`, the step that loses least for what it
saves first, until the budget is met; at the end, what fits after all is given back.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edgeres.compression import channels
from edgeres.compression.budgets import Budget
from edgeres.compression.channels import Group, Share
from edgeres.compression.criteria import Criterion
from edgeres.errors import BadInput
from edgeres.models.modules import Classifier, slimmed
from edgeres.models.shapes import LayerShape, shapes_of

_LEAST_LEFT = 0.1  # of a width


def prune(
    model: Classifier,
    budget: Budget,
    *,
    round_to: int,
    criterion: Callable[[Classifier], Criterion],
) -> Classifier:
    """Remove channels until the budget is met.

    Args:
        model: batch norm not folded; left as it was.
        round_to: every width that changes becomes a multiple of this (what integer kernels like).
        criterion: makes the judge of channels for the copy of the network that is pruned.

    Returns:
        The slimmer network in evaluation mode, its spec saying every width.

    Raises:
        BadInput: the budget can't be met with widths that are multiples of `round_to`; says what
            is reachable.
    """
    pruned = copy.deepcopy(model).eval()
    judge = criterion(pruned)
    px = model.spec.preprocess.size_px
    shapes = shapes_of(pruned, px)
    parts = _parts(pruned, judge, round_to)
    _choose(parts, _Layers(shapes, parts, budget), budget, round_to, model.spec.name)
    channels.cut([(part.group, part.order[: part.gone]) for part in parts])
    return slimmed(pruned)


@dataclass
class _Part:
    """A group of channels, as the search sees it.

    Attributes:
        order: its channels, the least important first.
        sums: what is lost with the first 0, 1, 2, … of them.
        widths: what it may be cut down to, its present width first.
        writers, readers: name -> how many of its channels go with the first 0, 1, 2, … of them.
        step: index into `widths`, now.
    """

    group: Group
    order: list[int]
    sums: list[float]
    widths: list[int]
    writers: dict[str, list[int]]
    readers: dict[str, list[int]]
    step: int = 0

    @property
    def width(self) -> int:
        return self.widths[self.step]

    @property
    def gone(self) -> int:
        """How many channels are lost now."""
        return self._lost(self.step)

    def _lost(self, step: int) -> int:
        return (self.widths[0] - self.widths[step]) * self.group.size // self.widths[0]

    def loss(self, step: int) -> float:
        """What goes with the step to `widths[step]`: the more, the less will be left."""
        before, after = self._lost(step - 1), self._lost(step)
        left = self.sums[-1] - self.sums[after]
        return (self.sums[after] - self.sums[before]) * self.sums[-1] / max(left, 1e-12)


@dataclass
class _Layers:
    """The cost of all layers at the present widths, kept up to date layer by layer."""

    shapes: Sequence[LayerShape]
    parts: Sequence[_Part]
    budget: Budget
    makes: dict[str, list[_Part]] = field(default_factory=dict)
    takes: dict[str, list[_Part]] = field(default_factory=dict)
    known: dict[LayerShape, float] = field(default_factory=dict)
    touched: dict[int, list[LayerShape]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part in self.parts:
            for name in part.writers:
                self.makes.setdefault(name, []).append(part)
            for name in part.readers:
                self.takes.setdefault(name, []).append(part)
            names = {*part.writers, *part.readers}
            self.touched[id(part)] = [s for s in self.shapes if s.name in names]
        self.fixed = self.budget.cost([])

    def cost(self) -> float:
        return self.fixed + sum(map(self._one, self.shapes))

    def saved(self, part: _Part) -> float:
        """What the part's next step takes off the cost."""
        mine = self.touched[id(part)]
        before = sum(map(self._one, mine))
        part.step += 1
        after = sum(map(self._one, mine))
        part.step -= 1
        return before - after

    def _one(self, shape: LayerShape) -> float:
        now = self._now(shape)
        if now not in self.known:
            self.known[now] = self.budget.cost([now]) - self.fixed
        return self.known[now]

    def _now(self, shape: LayerShape) -> LayerShape:
        name = shape.name
        out = shape.cout - sum(p.writers[name][p.gone] for p in self.makes.get(name, ()))
        if shape.kind in ("add", "mean", "norm"):
            return shape.of_widths(out, out)
        cin = shape.cin - sum(p.readers[name][p.gone] for p in self.takes.get(name, ()))
        return shape.of_widths(cin, out)


def _parts(model: Classifier, judge: Criterion, round_to: int) -> list[_Part]:
    parts = []
    for group in channels.groups_of(model):
        losses = judge(group).double()
        order = losses.argsort(stable=True).tolist()
        blocks = group.width // group.size
        least = group.width - blocks * group.spare(order)
        widths = _widths(group.width, math.lcm(round_to, blocks))
        parts.append(_Part(
            group, order, [0.0, *losses[order].cumsum(0).tolist()],
            [width for width in widths if width >= least],
            {s.name: _lost(s, order) for s in group.shares if s.side != "in"},
            {s.name: _lost(s, order) for s in group.shares if s.side == "in"},
        ))  # fmt: skip
    return parts


def _lost(share: Share, order: list[int]) -> list[int]:
    """How many of a layer's channels go with the first 0, 1, 2, … of a group's."""
    each = Counter(share.places.tolist())
    return [0, *itertools.accumulate(each[place] for place in order)]


def _widths(width: int, multiple: int) -> list[int]:
    """`width`, then the multiples below it, down to the last that leaves a tenth."""
    least = max(multiple, math.ceil(_LEAST_LEFT * width / multiple) * multiple)
    below = width - width % multiple if width % multiple else width - multiple
    return [width, *range(below, least - 1, -multiple)]


def _choose(parts: list[_Part], layers: _Layers, budget: Budget, round_to: int, name: str) -> None:
    """Set every part's step so that the budget is met and little is lost."""
    taken: list[_Part] = []
    cost = layers.cost()
    while cost > budget.limit:
        open_parts = [p for p in parts if p.step + 1 < len(p.widths)]
        if not open_parts:
            raise BadInput(
                f"{budget.key}: {budget.shown(budget.limit)} can't be met with channels in "
                f"multiples of {round_to}; {budget.shown(cost)} is the least reachable for {name}"
            )
        part = min(open_parts, key=lambda p: _price(p, layers.saved(p)))
        cost -= layers.saved(part)
        part.step += 1
        taken.append(part)
    for part in sorted(taken, key=lambda p: -p.loss(p.step)):
        if part.step == 0:
            continue
        part.step -= 1
        if layers.cost() > budget.limit:
            part.step += 1


def _price(part: _Part, saved: float) -> float:
    """What the next step loses for what it saves; a step that saves nothing comes last."""
    loss = part.loss(part.step + 1)
    return loss / saved if saved > 0 else math.inf

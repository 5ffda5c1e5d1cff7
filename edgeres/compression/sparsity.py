"""Training that makes whole groups of channels small before they are pruned.

Fang et al. 2023, "DepGraph", equations 4 and 5: every channel of a group of coupled layers decays
by the group's own norm, the weakest 2^alpha times as fast as the strongest.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from edgeres.compression import criteria
from edgeres.compression.channels import Group, groups_of
from edgeres.models.modules import Classifier
from edgeres.training.loop import Objective

_ALPHA = 4.0


class GroupSparsity:
    """A penalty on a network's groups.

    Args:
        model: whose weights are trained.
        strength: of the decay, as a weight decay is.
    """

    def __init__(self, model: Classifier, strength: float):
        self.strength = strength
        self.groups = groups_of(model)
        self.terms: list[tuple[Tensor, int, Tensor]] = []
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Weigh every channel by its group's norm as it is now."""
        terms: list[tuple[Tensor, int, Tensor]] = []
        for group in self.groups:
            size = group.summed(criteria.squares).sqrt()
            weakness = (size.max() - size) / (size.max() - size.min()).clamp_min(1e-12)
            terms += _terms(group, 2 ** (_ALPHA * weakness))
        if not self.terms or self.terms[0][2].device != terms[0][2].device:
            self.terms = terms
        for (_, _, factor), (_, _, now) in zip(self.terms, terms, strict=True):
            factor.copy_(now)  # in its place, where a recorded step reads it

    def objective(self, plain: Objective) -> Objective:
        """The loss with the penalty, whose gradient is strength * weight * channel's factor."""
        return _Penalized(self, plain)

    def penalty(self) -> Tensor:
        """Half of strength * factor * weight^2, summed."""
        squares = [
            (factor * weight.pow(2).transpose(0, dim).reshape(len(factor), -1).sum(1)).sum()
            for weight, dim, factor in self.terms
        ]
        return 0.5 * self.strength * torch.stack(squares).sum()


class _Penalized:
    """See `GroupSparsity.objective`."""

    def __init__(self, sparsity: GroupSparsity, plain: Objective):
        self.sparsity, self.plain = sparsity, plain

    def __call__(
        self, module: nn.Module, images: Tensor, labels: Tensor, **known: Tensor
    ) -> Tensor:
        return self.plain(module, images, labels, **known) + self.sparsity.penalty()

    def replayable(self, stored: bool) -> bool:
        return bool(getattr(self.plain, "replayable", lambda _: False)(stored))

    def compile(self, batch: int) -> None:
        getattr(self.plain, "compile", lambda _: None)(batch)


def _terms(group: Group, factor: Tensor) -> Iterator[tuple[Tensor, int, Tensor]]:
    """Each weight with the dimension of the group's channels in it, and their factors there.

    A grouped convolution counts by its outputs alone.
    """
    for share in group.shares:
        layer, inward = share.layer, share.side == "in"
        grouped = isinstance(layer, nn.Conv2d) and layer.groups > 1
        if not layer.weight.requires_grad or (inward and grouped):
            continue
        own = torch.zeros(layer.weight.shape[int(inward)])
        own[share.channels] = factor[share.places]
        yield layer.weight, int(inward), own.to(layer.weight.device)

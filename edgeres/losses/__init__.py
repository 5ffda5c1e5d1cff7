"""Losses of distillation: how far a student's logits are from its teacher's, one module each.

A recipe names one as `distill.loss`. Found by name (edgeres.plugins).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from edgeres.errors import BadInput
from edgeres.plugins import Plugins

if TYPE_CHECKING:
    from torch import Tensor

    Measure = Callable[[Tensor, Tensor, Tensor, float], Tensor]

NONE = "none"
"""What a recipe writes where a student learns from labels alone."""


class Loss(Protocol):
    """What a loss' module provides (PEP 544: a module fits, `self` is ignored)."""

    SUMMARY: str
    ONE_LABEL: bool  # its labels are classes, so that no images can be mixed

    def measure(
        self, student: Tensor, teacher: Tensor, labels: Tensor, temperature: float
    ) -> Tensor:
        """How far it is, a scalar with a gradient for the student.

        Args:
            student, teacher: logits float32 (N, C); the teacher's get no gradient.
            labels: int64 (N,), or, unless ONE_LABEL, shares of classes, float32 (N, up to C).
            temperature: what softens both; gradients should be of one size at any (T^2 of KD).
        """
        ...


PLUGINS = Plugins("loss", __name__, Loss)


def names() -> tuple[str, ...]:
    """Every loss that a recipe can name."""
    return (*PLUGINS.names(), NONE)


def check(name: str, mixed: bool) -> None:
    """Refuse a loss before any work.

    Args:
        mixed: images are mixed, and so are their labels.

    Raises:
        BadInput: there is none of this name, or it doesn't take mixed labels.
        MissingComponent: it is a package's, and can't be used.
    """
    if name == NONE:
        return
    found = PLUGINS.find(name)
    if found is None:
        raise PLUGINS.unknown(name, names())
    if mixed and found.ONE_LABEL:
        raise BadInput(f"distill: {name} needs one label per image, and `train.mix` gives two; "
                       "use kd")  # fmt: skip


def measure(name: str) -> Measure:
    """How a loss measures; raises as `check`."""
    found: Measure = PLUGINS.load(name).measure
    return found

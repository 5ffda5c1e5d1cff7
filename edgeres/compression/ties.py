"""Scales that leave a residual add no ties, which runtimes round differently.

Scales are float16 numbers (`graph.storable`). With so few digits an add's sum lies exactly halfway
between two codes now and then. There one runtime rounds up and another one down, by the last bit of
how it multiplies, and what turned spreads through the layers behind.

A tie means a * s_a + b * s_b = (n + 1/2) * s_out, with whole numbers a, b, n. If all three scales
are odd multiples of one power of two, the left side is a whole multiple of it and the right side
is not: there is no tie.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable

from edgeres.compression import portable
from edgeres.compression.graph import concatenated, wiring
from edgeres.models.modules import Spec
from edgeres.network.graph import united
from edgeres.types import ScaleTable

_DIGITS = 11  # of a float16 number
_GROWTH = 1 / 64  # a scale that would grow by more stays as it is, ties and all


@functools.lru_cache(maxsize=32)
def around_adds(spec: Spec) -> tuple[frozenset[str], ...]:
    """The tensors that a network's residual adds read and write: a set per chain of adds.

    With them those that have to have the scale of one of them (`graph.concatenated`).
    """
    adds = {wire.name: wire.sources for wire in wiring(spec) if wire.kind == "add"}
    chains = united([*((name, *sources) for name, sources in adds.items()), *concatenated(spec)])
    return tuple(chain for chain in chains if not chain.isdisjoint(adds))


def grid(scales: Iterable[float]) -> float:
    """The power of two for `untied`: the largest scale, and one twice as large, are multiples."""
    return 2.0 ** (max((math.frexp(scale)[1] for scale in scales), default=0) + 1 - _DIGITS)


def growth(scheme: str) -> float:
    """By how much a scale may grow in a scheme, as a share.

    A portable one may have no ties. It grows by much only where it is far smaller than the others
    of its adds, so that all of its codes are few of theirs.
    """
    return math.inf if scheme == portable.SCHEME else _GROWTH


def untied(scale: float, step: float, most: float = _GROWTH) -> float:
    """The next odd multiple of the grid that is no smaller, so that nothing is clipped."""
    multiple = math.ceil(scale / step) | 1
    found = multiple * step
    storable = multiple < 2**_DIGITS
    return found if storable and found <= scale * (1 + most) else scale


def without_ties(spec: Spec, table: ScaleTable, scheme: str = "w8a8") -> ScaleTable:
    """A table whose int8 scales around residual adds are `untied`; zero points stay."""
    found = dict(table)
    for chain in around_adds(spec):
        names = [n for n in chain if n in table and table[n].dtype == "int8"]
        step = grid(table[name].scale[0] for name in names)
        for name in names:
            scale = untied(table[name].scale[0], step, growth(scheme))
            found[name] = dataclasses.replace(table[name], scale=(scale,))
    return found

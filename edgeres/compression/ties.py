"""Scales that leave residual adds and products no ties, which runtimes round differently.

Scales are float16 numbers (`graph.storable`). With so few digits an add's sum lies exactly halfway
between two codes now and then. There one runtime rounds up and another one down, by the last bit of
how it multiplies, and what turned spreads through the layers behind.

A tie means a * s_a + b * s_b = (n + 1/2) * s_out, with whole numbers a, b, n. If all three scales
are odd multiples of one power of two, the left side is a whole multiple of it and the right side
is not: there is no tie.

A product's tie means a * b * s_a * s_b = (n + 1/2) * s_out, with codes less their zero points,
which reach 255. If s_out is a power of two times a prime that is larger than that, and of which
neither s_a nor s_b is a multiple, then the right side is a multiple of it and the left side isn't.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable
from typing import NamedTuple

from edgeres.compression import portable
from edgeres.compression.graph import concatenated, wiring
from edgeres.models.modules import Spec
from edgeres.network.graph import united
from edgeres.types import ScaleTable

_DIGITS = 11  # of a float16 number
GROWTH = 1 / 64  # a scale that would grow by more stays as it is, ties and all
_LARGEST_CODE = 255  # less its zero point


class Chain(NamedTuple):
    """Tensors whose scales are chosen together; `product`: one of them at least is a product."""

    names: frozenset[str]
    product: bool


@functools.lru_cache(maxsize=32)
def chains(spec: Spec) -> tuple[Chain, ...]:
    """The tensors that a network's residual adds read and write, and its products.

    With them those that have to have the scale of one of them (`graph.concatenated`).
    """
    adds = [(wire.name, *wire.sources) for wire in wiring(spec) if wire.kind == "add"]
    products = {wire.name for wire in wiring(spec) if wire.kind == "mul"}
    known = products.union(*adds)
    groups = united([*adds, *((name,) for name in products), *concatenated(spec)])
    return tuple(
        Chain(names, not names.isdisjoint(products)) for names in groups
        if not names.isdisjoint(known)
    )  # fmt: skip


def grid(scales: Iterable[float]) -> float:
    """The power of two for `untied`: the largest scale, and one twice as large, are multiples."""
    return 2.0 ** (max((math.frexp(scale)[1] for scale in scales), default=0) + 1 - _DIGITS)


def growth(scheme: str) -> float:
    """By how much a scale may grow in a scheme, as a share.

    A portable one may have no ties. It grows by much only where it is far smaller than the others
    of its adds, so that all of its codes are few of theirs.
    """
    return math.inf if scheme == portable.SCHEME else GROWTH


@functools.cache
def primes() -> tuple[int, ...]:
    """For each number up to 2^11 the next prime that is no smaller, and larger than any code."""
    found = [2**_DIGITS]  # which is none, where there is none below
    for number in range(2**_DIGITS - 1, -1, -1):
        prime = number > _LARGEST_CODE and all(number % n for n in range(2, math.isqrt(number) + 1))
        found.append(number if prime else found[-1])
    return tuple(reversed(found))


def untied(scale: float, step: float, most: float = GROWTH, *, product: bool = False) -> float:
    """The next odd multiple of the grid that is no smaller, so that nothing is clipped.

    Args:
        most: by how much the scale may grow, as a share, or stays as it is.
        product: a prime multiple, where there is one near.
    """
    multiple = math.ceil(scale / step) | 1
    if product and multiple < 2**_DIGITS:
        prime = primes()[multiple]
        if prime < 2**_DIGITS and prime * step <= scale * (1 + GROWTH):
            return prime * step
    found = multiple * step
    storable = multiple < 2**_DIGITS
    return found if storable and found <= scale * (1 + most) else scale


def without_ties(spec: Spec, table: ScaleTable, scheme: str = "w8a8") -> ScaleTable:
    """A table whose int8 scales around adds and products are `untied`; zero points stay."""
    found = dict(table)
    for chain in chains(spec):
        names = [n for n in chain.names if n in table and table[n].dtype == "int8"]
        step = grid(table[name].scale[0] for name in names)
        for name in names:
            scale = untied(table[name].scale[0], step, growth(scheme), product=chain.product)
            found[name] = dataclasses.replace(table[name], scale=(scale,))
    return found

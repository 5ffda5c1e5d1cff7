"""Which weights of a w4a8 network keep 8 bits: as few as a limit on accuracy or on size allows.

Each layer's weights are put to 4 bits alone, in the network quantized with 8. What that changes of
the answers, for each byte that it saves, is the order in which layers get 4 bits or go back to 8.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from torch import Tensor

from edgeres.compression import bits, ptq
from edgeres.compression.sensitivity import Probe, Tick
from edgeres.errors import GateFailed
from edgeres.models.modules import Classifier
from edgeres.training.views import Labelled

_PER_CHANNEL = 8  # bytes: a bias and a scale


@dataclass(frozen=True)
class Mixed:
    """A choice of bits.

    Attributes:
        four: the layers whose weights have 4.
        lost_points: top-1 that they cost against the float network, in percentage points.
        kb: what all weights take with their biases and scales, in 1000 bytes.
        tried: how many networks were evaluated.
    """

    four: frozenset[str]
    lost_points: float
    kb: float
    tried: int


def chosen(
    model: Classifier, images: Tensor, held_out: Labelled, *, keep: Sequence[str] = (bits.ENDS,),
    max_drop: float | None = None, max_kb: float | None = None, ranges: str = "mse",
    exclude: Sequence[str] = (), tick: Tick = lambda *_: None,
) -> Mixed:  # fmt: skip
    """The most layers with 4 bits that lose no more than `max_drop`; without it, the fewest that
    make the weights no larger than `max_kb`.

    Args:
        model: batch norm not folded.
        images: to calibrate with, uint8 (N, 3, H, W).
        held_out: what accuracy is measured on; never test images.
        keep: layers that have 8 bits in any case, see `bits.four`.
        max_drop: points of top-1; max_kb: 1000 bytes of weights, biases and scales.

    Raises:
        BadInput: as `ptq.quantize` and `bits.four`.
        GateFailed: a limit can't be met.
    """
    asked = bits.four(model, keep)
    wide, scales = ptq.quantize(model, images, ranges=ranges, exclude=exclude)
    narrow, table = ptq.quantize(model, images, scheme=bits.SCHEME, ranges=ranges, exclude=exclude,
                                 four=asked)  # fmt: skip
    layers = {name for name, count in bits.of(table).items() if count == 4}
    eight, four = (
        {n.removesuffix(".weight"): w for n, w in m.state_dict().items() if n in table}
        for m in (wide, narrow)
    )
    probe = Probe(model, scales, held_out)
    tried = 0

    def logits(narrow: Collection[str]) -> Tensor:
        nonlocal tried
        tried += 1
        probe.walk.given = eight | {name: four[name] for name in narrow}
        return probe.logits(eight.keys(), scales.keys())

    def lost(narrow: Collection[str]) -> float:
        right = probe.correct(logits(narrow))
        return 100 * (probe.float_correct - right) / len(held_out.labels)

    whole = sum(w.numel() for n, w in wide.state_dict().items() if n in table)
    channels = sum(len(p.scale) for n, p in table.items() if n.endswith(".weight"))

    def kb(narrow: Collection[str]) -> float:
        saved = sum(four[name].numel() for name in narrow) / 2
        return (whole - saved + _PER_CHANNEL * channels) / 1e3

    plain = logits(())
    cost = {}
    for done, name in enumerate(sorted(layers), 1):
        noise = float((logits({name}) - plain).double().square().mean())
        cost[name] = noise / four[name].numel()
        tick(done, len(layers), f"weights of {name} in 4 bits")
    order = sorted(layers, key=cost.__getitem__)  # the cheapest first
    found = _within(order, lost, max_drop) if max_drop is not None else _small(order, kb, max_kb)
    drop, size = lost(found), kb(found)
    if max_drop is not None and drop > max_drop:
        raise GateFailed(f"quantize.max_drop {max_drop:g}: {drop:.2f} points are lost with 8 bits "
                         "everywhere; allow more, or use quantize.method: qat")  # fmt: skip
    if max_kb is not None and size > max_kb:
        within = "" if max_drop is None else f" within {max_drop:g} points"
        raise GateFailed(f"quantize.max_kb {max_kb:g}: the weights take {size:.1f} kB{within}; "
                         "allow more, or prune")  # fmt: skip
    return Mixed(frozenset(found), drop, size, tried)


def _within(
    order: Sequence[str], lost: Callable[[Collection[str]], float], most: float
) -> list[str]:
    """As many layers as lose no more than that: the costliest go, then each that fits comes back.

    Args:
        order: the cheapest first.
    """
    kept = list(order)
    while kept and lost(kept) > most:
        kept.pop()
    for name in order[len(kept) + 1 :]:  # of the one before, it is known
        if lost([*kept, name]) <= most:
            kept.append(name)
    return kept


def _small(
    order: Sequence[str], kb: Callable[[Collection[str]], float], most: float | None
) -> list[str]:
    """As few layers as make it that small, all if none do."""
    for count in range(len(order)):
        if most is not None and kb(order[:count]) <= most:
            return list(order[:count])
    return list(order)

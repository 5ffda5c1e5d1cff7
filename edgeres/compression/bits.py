"""Which weights have 4 bits: in scheme w4a8 all but those of the first and last layers, or fewer.

A weight of 4 bits has codes from -7 to 7, its layer computes as with one of 8: int8 activations,
sums in int32. So only the table of scales says which it is (`int4`), and a format that has no such
type stores the same codes in 8 bits.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeres.compression.exclusions import matched
from edgeres.compression.graph import wiring
from edgeres.models.modules import Classifier, Spec
from edgeres.types import ScaleTable

SCHEME = "w4a8"
ENDS = "ends"
"""In `keep_8bit`: the layers that read the images, and the last one."""


def of_activations(scheme: str) -> str:
    """The scheme that says how activations are quantized."""
    return "w8a8" if scheme == SCHEME else scheme


def weighted(spec: Spec) -> tuple[str, ...]:
    """The convolutions and linear layers in execution order."""
    return tuple(wire.name for wire in wiring(spec) if wire.kind in ("conv", "linear"))


def four(model: Classifier, keep: Sequence[str] = (ENDS,)) -> frozenset[str]:
    """The layers whose weights have 4 bits.

    Args:
        model: batch norm not folded.
        keep: those that have 8: regular expressions, or `ENDS`.

    Raises:
        BadInput: not a regular expression, or one that matches no layer.
    """
    names = weighted(model.spec)
    ends = {w.name for w in wiring(model.spec) if "input" in w.sources} | {names[-1]}
    kept = [ends if k == ENDS else matched(k, names, "quantize.keep_8bit") for k in keep]
    return frozenset(names).difference(*kept)


def of(scales: ScaleTable) -> dict[str, int]:
    """Layer -> the bits of its weights, of those that have codes."""
    return {name.removesuffix(".weight"): 4 if params.dtype == "int4" else 8
            for name, params in scales.items() if name.endswith(".weight")}  # fmt: skip

"""Known faults: what of a file a runtime computes wrongly, and the mend. One row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Fault:
    """What a runtime gets wrong.

    Attributes:
        where: the operations of a file's graph that it gets wrong (`targets._graph.FileGraph`).
        what: a sentence's end, behind how many there are.
    """

    runtime: str
    target: str
    where: Callable[[Any], list[Any]]
    what: str
    mend: str


def _strided_shortcuts(graph: Any) -> list[Any]:
    added = {name for op in graph.ops if op.role == "add" for name in op.inputs}
    return [
        op for op in graph.ops
        if op.role == "conv" and op.stride == (2, 2) and op.weight is not None
        and op.weight.shape[2:] == (1, 1) and op.output in added
    ]  # fmt: skip


FAULTS = (
    Fault(
        "litert-gpu", "tflite-int8", _strided_shortcuts,
        "1x1 convolutions with stride 2 before an addition, which LiteRT's GPU accelerator "
        "computes as if their stride were 1",
        "export with export.gpu: true (edgeres export --gpu), which writes those of even sizes in "
        "another form",
    ),
)  # fmt: skip


def known(runtime: str, target: str, graph: Any) -> str:
    """What is known to go wrong with a file on a runtime, and the mend; empty if nothing is."""
    said = [
        f"{len(found)} {fault.what}; {fault.mend}" for fault in FAULTS
        if (fault.runtime, fault.target) == (runtime, target) and (found := fault.where(graph))
    ]  # fmt: skip
    return ". ".join(said)

"""Faults in an ExecuTorch program's structure."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

from edgeres.targets import _faults


def _method(path: Path) -> None:
    """The network again, as a method of another name."""
    from executorch.exir._serialize import _program as serialization

    file = serialization.deserialize_pte_binary(path.read_bytes())
    plans = file.program.execution_plan
    more = copy.deepcopy(next(plan for plan in plans if plan.name == "forward"))
    more.name = "more"
    plans.append(more)
    path.write_bytes(bytes(serialization.serialize_pte_binary(
        file, extract_delegate_segments=True)))  # fmt: skip


def _swapped(path: Path) -> bool:
    from executorch.exir._serialize import _program as serialization

    from edgeres.targets import _executorch_xnnpack as xnnpack

    file = serialization.deserialize_pte_binary(path.read_bytes())
    for delegate in file.program.backend_delegate_data:
        graph, _ = xnnpack._decoded(bytes(delegate.data))
        for node in graph["xnodes"]:
            if node["xnode_union_type"].startswith("XNNConcatenate"):
                given = node["xnode_union"]
                given["input1_id"], given["input2_id"] = given["input2_id"], given["input1_id"]
                delegate.data = xnnpack.encoded(graph)
                path.write_bytes(bytes(serialization.serialize_pte_binary(
                    file, extract_delegate_segments=True)))  # fmt: skip
                return True
    return False


PLANTERS: dict[str, Callable[[Path], bool | None]] = {
    "a second graph or function": _method,
    _faults.SWAPPED: _swapped,
}

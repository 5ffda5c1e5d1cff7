"""Faults in an ExecuTorch program's structure."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path


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


PLANTERS: dict[str, Callable[[Path], bool | None]] = {"a second graph or function": _method}

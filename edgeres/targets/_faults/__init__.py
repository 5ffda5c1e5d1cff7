"""Faults that must be planted in a file's structure; one module per format that has a place.

Only the self-test of verification uses them; faults in numbers and notes need no format's help.
Each but the first leaves every answer to a single image as it was: only the structure tells.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from edgeres import targets

SILENT = (
    "an operation of its own behind the answer",
    "images of a batch mixed",
    "a signature of another output",
    "other standard metadata",
    "a detour through another type",
    "a second graph or function",
)
SWAPPED = "the inputs of a concatenation swapped"
_MODULES = {"qoperator": "onnx", "tensorrt": "onnx", "triton": "onnx",
            "ethosu": "tflite", "qnn": "onnx", "rknn": "onnx"}  # fmt: skip


def cut_identity(path: Path, number: int, operand: int) -> bool:
    """Put zeros in place of one input of a residual add, in the file itself.

    Args:
        number: which add, counted in execution order from 0; operand: which of its inputs.

    Returns:
        Whether it could be done: False for a format without a module here.
    """
    module, path = _module(path), _file(path)
    if module is None or not hasattr(module, "cut_identity"):
        return False
    module.cut_identity(path, number, operand)
    return True


def plant(fault: str, path: Path) -> bool:
    """Plant one of `SILENT`, or `SWAPPED`; False where the format has no place for it."""
    planters = getattr(_module(path), "PLANTERS", {})
    return fault in planters and planters[fault](_file(path)) is not False


def _file(path: Path) -> Path:
    """The file with the network's operations, of a folder with what was compiled of it."""
    form = getattr(targets.of_file(path)[1], "COMPILED", None)
    return form.inside(path) if form else path


def _module(path: Path) -> ModuleType | None:
    format_, _ = targets.of_file(path)
    name = f"{__name__}.{_MODULES.get(format_, format_)}"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None

"""Rockchip's NPUs: RKNN-Toolkit2 compiles an ONNX file with its own scales, and simulates it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

SUMMARY = "Rockchip NPUs"
NAMES = {name: name for name in ("rk3562", "rk3566", "rk3568", "rk3576", "rk3588")}
TAKES = ("onnx-int8",)
HOW = "compiled, and answered by Rockchip's simulator; cycles are its estimate"
LICENCE = "Rockchip's, proprietary (github.com/airockchip/rknn-toolkit2)"
ACCEPT = True
LIMITS = {"agreement": 0.98, "worst_codes": 16.0}

_ROW = re.compile(
    r"\]\s+\d+\s+(\S+)\s+\S+\s+(CPU|NPU|GPU)\s.*?\s(\d+)/(\d+)/(\d+)\s+\S+\s+(\S+)\s*$"
)


def ask(question: Any) -> dict[str, Any]:
    """See `runtimes.Module`."""
    import importlib.metadata

    import onnx
    from rknn.api import RKNN

    first = onnx.load(question.file).graph.input[0]
    shape = [1, *(size.dim_value for size in first.type.tensor_type.shape.dim[1:])]
    rknn = RKNN(verbose=True)
    rknn.config(target_platform=question.option)
    compiled = Path(question.folder) / f"{Path(question.file).stem}-{question.option}.rknn"
    for step in (
        lambda: rknn.load_onnx(model=question.file, inputs=[first.name], input_size_list=[shape]),
        lambda: rknn.build(do_quantization=False),
        lambda: rknn.export_rknn(str(compiled)),
    ):
        if step() != 0:
            why = [line for line in question.said().splitlines() if "E RKNN" in line]
            return {"error": (why or ["it can't be compiled"])[-1][-200:]}
    said = question.said()
    rows = [m.groups() for m in map(_ROW.search, said.splitlines()) if m]
    if not rows:
        return {"error": "its compiler doesn't say which operators it takes"}
    working = [row for row in rows if row[0] not in ("InputOperator", "OutputOperator", "Reshape")]
    memory = dict(re.findall(r"Total (Internal|Weight) Memory Size: ([\d.]+)KB", said))
    found: dict[str, Any] = {
        "version": f"rknn-toolkit2 {importlib.metadata.version('rknn-toolkit2')}",
        "device": "simulator",
        "taken": sum(row[1] == "NPU" for row in working),
        "refused": [f"{row[5]}"[:80] for row in working if row[1] != "NPU"],
        "memory_bytes": {k.lower(): round(float(v) * 1024) for k, v in memory.items()},
        "cycles": sum(int(row[4]) for row in rows),
    }
    if question.images is not None:
        import numpy as np

        rknn.init_runtime()
        answers = [rknn.inference(inputs=[image[None]], data_format=["nchw"])[0]
                   for image in question.images]  # fmt: skip
        found["outputs"] = np.concatenate([np.asarray(a).reshape(1, -1) for a in answers])
    return found

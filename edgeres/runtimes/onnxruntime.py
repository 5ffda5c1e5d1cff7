"""onnxruntime with its optimizer off: float32 between each Q and DQ, as other CPUs may compute."""

from __future__ import annotations

from typing import Any

SUMMARY = "onnxruntime, its optimizer off"
NAMES = {"onnxruntime-unoptimized": "plain"}
TAKES = ("onnx-int8", "onnx-int4", "onnx-fp32", "qoperator-int8", "qoperator-int4",
         "tensorrt-int8")  # fmt: skip
HOW = "the same kernels"
LICENCE = "MIT"
LIMITS = {"agreement": 0.98, "worst_codes": 8.0}


def ask(question: Any) -> dict[str, Any]:
    """See `runtimes.Module`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        question.file, options, providers=["CPUExecutionProvider"]
    )
    found: dict[str, Any] = {
        "version": f"onnxruntime {onnxruntime.__version__}", "taken": None, "refused": [],
    }  # fmt: skip
    if question.images is not None:
        import numpy as np

        name = session.get_inputs()[0].name
        found["outputs"] = np.concatenate(
            [session.run(None, {name: image[None]})[0] for image in question.images]
        )
    return found

"""TFLite Micro: the interpreter of microcontrollers, on this machine, with its reference kernels.

They round as CMSIS-NN's do: twice, in fixed point.
"""

from __future__ import annotations

from typing import Any

SUMMARY = "TFLite Micro, microcontrollers"
NAMES = {"tflm": "tflm"}
TAKES = ("tflite-int8", "tflite-int4", "tflite-int16x8", "tflite-fp32")
HOW = "its reference kernels, on this machine"
LICENCE = "Apache-2.0"
LIMITS = {"agreement": 0.98, "worst_codes": 16.0}


def ask(question: Any) -> dict[str, Any]:
    """See `runtimes.Module`."""
    import importlib.metadata
    import re

    from tflite_micro.python.tflite_micro import runtime

    version = importlib.metadata.version("tflite-micro")
    found: dict[str, Any] = {"version": f"tflite-micro {version}", "taken": None, "refused": []}
    try:
        interpreter = runtime.Interpreter.from_file(question.file)
        interpreter.print_allocations()
    except RuntimeError as error:
        why = [line.strip()[:200] for line in question.said().splitlines() if line.strip()]
        found["refused"] = [why[-1] if why else str(error)]
        return found
    if arena := re.search(r"Arena allocation total (\d+) bytes", question.said()):
        found["memory_bytes"] = {"arena": int(arena[1])}
    if question.images is not None:
        import numpy as np

        answers = []
        for image in question.images:
            interpreter.set_input(image[None], 0)
            interpreter.invoke()
            answers.append(np.array(interpreter.get_output(0)))
        found["outputs"] = np.concatenate(answers)
    return found

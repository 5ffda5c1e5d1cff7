"""LiteRT's own kernels, without XNNPACK: what a board computes whose build lacks the delegate."""

from __future__ import annotations

from typing import Any

SUMMARY = "LiteRT without XNNPACK"
NAMES = {
    "litert-builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "litert-reference": "BUILTIN_REF",
}
TAKES = ("tflite-int8", "tflite-int4", "tflite-int16x8", "tflite-fp32", "tflite-fp16",
         "tflite-dynamic")  # fmt: skip
HOW = "the same kernels"
LICENCE = "Apache-2.0"
LIMITS = {"agreement": 0.98, "worst_codes": 16.0}


def ask(question: Any) -> dict[str, Any]:
    """See `runtimes.Module`."""
    import importlib.metadata

    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = getattr(OpResolverType, question.option)
    interpreter = Interpreter(
        question.file, num_threads=1, experimental_op_resolver_type=resolver,
    )  # fmt: skip
    interpreter.allocate_tensors()
    found: dict[str, Any] = {
        "version": f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}",
        "taken": len(interpreter._get_ops_details()), "refused": [],
    }  # fmt: skip
    if question.images is not None:
        import numpy as np

        first, last = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        answers = []
        for image in question.images:
            interpreter.set_tensor(first["index"], image[None])
            interpreter.invoke()
            answers.append(interpreter.get_tensor(last["index"]).copy())
        found["outputs"] = np.concatenate(answers)
    return found

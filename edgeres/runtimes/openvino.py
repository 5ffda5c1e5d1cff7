"""OpenVINO on this machine's CPU: Intel's runtime for PCs."""

from __future__ import annotations

from typing import Any

SUMMARY = "OpenVINO, Intel's CPUs"
NAMES = {"openvino": "CPU"}
TAKES = ("onnx-int8", "onnx-int4", "onnx-fp32", "tflite-int8", "tflite-fp32")
HOW = "its own kernels for this CPU"
LICENCE = "Apache-2.0"
LIMITS = {"agreement": 0.98, "worst_codes": 16.0}


def ask(question: Any) -> dict[str, Any]:
    """See `runtimes.Module`."""
    import openvino

    core = openvino.Core()
    network = core.read_model(question.file)
    shape = network.inputs[0].get_partial_shape()
    shape[0] = 1
    network.reshape(shape)
    settings = {"INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(network, question.option, settings)
    found: dict[str, Any] = {
        "version": f"OpenVINO {openvino.__version__.split('-')[0]}",
        "device": core.get_property(question.option, "FULL_DEVICE_NAME"),
        "taken": None, "refused": [],
    }  # fmt: skip
    if question.images is not None:
        import numpy as np

        request = compiled.create_infer_request()
        found["outputs"] = np.concatenate(
            [np.array(request.infer([image[None]])[0]) for image in question.images]
        )
    return found

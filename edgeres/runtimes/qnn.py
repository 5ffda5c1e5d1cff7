"""Qualcomm's HTP (Hexagon NPU), through onnxruntime's QNN provider: simulator and compiler.

The simulator computes as the NPU does, on this machine. For a SoC, a context binary is compiled,
with an ONNX file around it, which loads on the phone without compiling anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

SUMMARY = "Qualcomm HTP, Snapdragon's NPU"
# SoC -> Qualcomm's numbers of the SoC and of its HTP's architecture
NAMES = {
    "qnn-htp": "", "qnn-sm8450": "36 69", "qnn-sm8550": "43 73", "qnn-sm8650": "57 75",
    "qnn-sm8750": "69 79",
}  # fmt: skip
TAKES = ("onnx-int8", "onnx-int4")
HOW = "Qualcomm's simulator"
COMPILED = {name: "compiled for that SoC; answers are qnn-htp's" for name in NAMES if NAMES[name]}
LICENCE = "Qualcomm's, proprietary (Qualcomm_LICENSE.pdf in onnxruntime-qnn); onnxruntime: MIT"
ACCEPT = True
GLIBC = (2, 35)
LIMITS = {"agreement": 0.98, "worst_codes": 16.0}


def ask(question: Any) -> dict[str, Any]:
    """See `runtimes.Module`."""
    import importlib.metadata

    import onnx
    import onnxruntime
    import onnxruntime_qnn

    def devices() -> list[Any]:
        return [d for d in onnxruntime.get_ep_devices() if d.ep_name == "QNNExecutionProvider"]

    if not devices():  # the process may have been asked about another file
        onnxruntime.register_execution_provider_library(
            "QNNExecutionProvider", onnxruntime_qnn.get_library_path()
        )
    first = onnxruntime.InferenceSession(
        question.file, providers=["CPUExecutionProvider"]
    ).get_inputs()[0]
    stored = onnx.load(question.file, load_external_data=False).graph.initializer
    beside = any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in stored)
    context = Path(question.folder) / f"{Path(question.file).stem}-{question.name}.onnx"

    def session(compiling: bool) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        if isinstance(first.shape[0], str):  # the NPU wants to know it
            options.add_free_dimension_override_by_name(first.shape[0], 1)
        settings = {"backend_path": onnxruntime_qnn.get_qnn_htp_path()}
        if compiling:
            options.add_session_config_entry("ep.context_enable", "1")
            options.add_session_config_entry("ep.context_file_path", str(context))
            options.add_session_config_entry("ep.context_embed_mode", "0")
            if question.option:
                settings["soc_model"], settings["htp_arch"] = question.option.split()
        options.add_provider_for_devices(devices(), settings)
        # As bytes where it can be: else its path decides names in what is compiled.
        given = question.file if beside else Path(question.file).read_bytes()
        return onnxruntime.InferenceSession(given, sess_options=options)

    session(compiling=True)
    nodes = onnx.load(str(context), load_external_data=False).graph.node
    left = [node for node in nodes if node.op_type != "EPContext"]
    found: dict[str, Any] = {
        "version": f"onnxruntime-qnn {importlib.metadata.version('onnxruntime-qnn')}",
        "device": f"compiled for {question.name[4:].upper()}" if question.option else "simulator",
        "taken": None, "refused": [f"{node.op_type} {node.name}"[:80] for node in left],
    }  # fmt: skip
    if question.images is not None and not question.option:
        import numpy as np

        asked = session(compiling=False)
        found["outputs"] = np.concatenate(
            [asked.run(None, {first.name: image[None]})[0] for image in question.images]
        )
    return found

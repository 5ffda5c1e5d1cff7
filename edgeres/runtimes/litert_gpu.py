"""LiteRT's GPU accelerator (WebGPU), on a real GPU or on a software one (SwiftShader, lavapipe).

Which shader computes what is the same on every GPU; what a driver makes of it isn't.
"""

from __future__ import annotations

import ctypes.util
import os
from pathlib import Path
from typing import Any

SUMMARY = "LiteRT on GPUs"
NAMES = {"litert-gpu": "gpu"}
TAKES = ("tflite-int8", "tflite-fp32", "tflite-fp16")
HOW = "the same shaders, on this machine's GPU or a software one"
LICENCE = "Apache-2.0"
LIMITS = {"agreement": 0.99, "worst_codes": 4.0}

_DRIVERS = ("/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d")
_SOFTWARE = "/usr/lib/chromium/vk_swiftshader_icd.json"  # of Debian's package chromium


def missing() -> str | None:
    """What this machine lacks; None if nothing."""
    if ctypes.util.find_library("vulkan") is None:
        return "it needs Vulkan's loader: install your system's libvulkan1"
    if not _any_driver():
        return ("it needs a Vulkan driver: your GPU's, or a software one, e.g. your system's "
                "mesa-vulkan-drivers or chromium")  # fmt: skip
    return None


def _any_driver() -> bool:
    given = os.environ.get("VK_ICD_FILENAMES") or os.environ.get("VK_DRIVER_FILES")
    found = any(any(Path(folder).glob("*.json")) for folder in _DRIVERS)
    return bool(given) or found or Path(_SOFTWARE).is_file()


def ask(question: Any) -> dict[str, Any]:
    """See `runtimes.Module`."""
    import importlib.metadata
    import re

    import numpy as np

    os.environ.setdefault("VK_ADD_DRIVER_FILES", _SOFTWARE)  # taken where there is no other
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.hardware_accelerator import HardwareAccelerator
    from ai_edge_litert.interpreter import Interpreter

    plain = Interpreter(question.file, num_threads=1)
    last = plain.get_output_details()[0]
    operators = plain._get_ops_details()
    model = CompiledModel.from_file(question.file, HardwareAccelerator.GPU)
    whole = bool(model.is_fully_accelerated())
    adapter = re.search(r"Selected adapter: ([^,\n]+)", question.said())
    found: dict[str, Any] = {
        "version": f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}",
        "device": adapter[1][:100] if adapter else "a GPU",
        "taken": len(operators) if whole else None,
        "refused": [] if whole else ["part of the graph (LiteRT doesn't say which)"],
    }
    if question.images is not None:
        given, got = model.create_input_buffers(0), model.create_output_buffers(0)
        shape, answers = [1, *last["shape"][1:]], []
        for image in question.images:
            given[0].write(np.ascontiguousarray(image[None]))
            model.run_by_index(0, given, got)
            values = got[0].read(int(np.prod(shape)), last["dtype"])
            answers.append(np.array(values).reshape(shape))
        found["outputs"] = np.concatenate(answers)
    return found

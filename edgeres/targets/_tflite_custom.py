"""Operators of a .tflite file that LiteRT has no kernel for: what computes them instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeres.network import tflite_file as file

if TYPE_CHECKING:
    from ai_edge_litert import schema_py_generated as schema

_CUSTOM = 32  # BuiltinOperator.CUSTOM
# Custom operators that LiteRT's own resolver knows.
_KNOWN = ("TFLite_Detection_PostProcess", "Mfcc", "AudioSpectrogram", "NumericVerify")
_DELEGATES = {
    "edgetpu-custom-op": "the Edge TPU's delegate (libedgetpu)",
    "DISPATCH_OP": "LiteRT's dispatch delegate, for the NPU that it was compiled for",
    "TfLiteHexagonDelegate": "Qualcomm's Hexagon delegate",
}


def delegated(model: schema.ModelT) -> dict[str, str]:
    """Operator -> what computes it, of those that the file uses."""
    used = {op.opcodeIndex for graph in model.subgraphs for op in graph.operators or ()}
    found = {}
    for index in sorted(used):
        code, kind = model.operatorCodes[index], file.code_kind(model.operatorCodes[index])
        if max(code.builtinCode, code.deprecatedBuiltinCode) == _CUSTOM and kind not in _KNOWN:
            flex = "TensorFlow's Flex delegate (Select TF operators)" if kind[:4] == "Flex" else ""
            found[kind] = flex or _DELEGATES.get(kind, "whoever made this custom operator")
        elif kind.startswith("BUILTIN_"):
            found[kind] = "a newer LiteRT: this operator isn't known here"
    return found

"""Snapdragons: context binaries of the ONNX file, for onnxruntime and QNN (`_compiled`)."""

from __future__ import annotations

from edgeres import runtimes
from edgeres.targets import _schemes, onnx
from edgeres.targets._compiled import Form

SUMMARY = "Snapdragon NPUs, compiled by Qualcomm's QNN"
PRECISIONS = ("int8",)
SUFFIX = ".qnn"
PACKAGE, EXTRA = onnx.PACKAGE, onnx.EXTRA
RUNTIME = f"{onnx.RUNTIME}, what was compiled"
ANY_BATCH = True
SCHEMES = {"int8": _schemes.as_trained}
COMPILED = Form(
    "onnx-int8",
    npus=tuple(name for name in runtimes.module("qnn").NAMES if not runtimes.answers(name)),
    answered_by=("qnn-htp",),
)
export, read, structure = COMPILED.export, COMPILED.read, COMPILED.structure
session, tracer, missing = COMPILED.session, COMPILED.tracer, COMPILED.missing

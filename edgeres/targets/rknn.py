"""Rockchip: what RKNN-Toolkit2 makes of the ONNX file (`_compiled`)."""

from __future__ import annotations

from edgeres import runtimes
from edgeres.targets import _schemes, onnx
from edgeres.targets._compiled import Form

SUMMARY = "Rockchip NPUs, compiled by RKNN-Toolkit2"
PRECISIONS = ("int8",)
SUFFIX = ".rockchip"
PACKAGE, EXTRA = onnx.PACKAGE, onnx.EXTRA
RUNTIME = f"{onnx.RUNTIME}, what was compiled"
ANY_BATCH = True
SCHEMES = {"int8": _schemes.as_trained}
COMPILED = Form("onnx-int8", tuple(runtimes.module("rknn").NAMES), rubbish=0.1)
export, read, structure = COMPILED.export, COMPILED.read, COMPILED.structure
session, tracer, missing = COMPILED.session, COMPILED.tracer, COMPILED.missing
